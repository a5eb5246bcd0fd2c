#!/usr/bin/env bash
# Ablation: how many questions are trained on; a smaller set is part of a larger one.
# For a larger pool: SIZES="5000 10000 20000 50000" experiments/data_size.sh
# Arguments are passed on to each `dvc exp run`; a second series needs names of its own, such as:
#   PREFIX=seed-2- experiments/data_size.sh -S train.seed=2
set -euo pipefail
cd "$(dirname "$0")/.."
for questions in ${SIZES:-1000 2000 4000 8000}; do
  dvc exp run --queue --name "${PREFIX:-}questions-$questions" -S "train.max_questions=$questions" "$@"
done
