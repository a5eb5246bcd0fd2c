#!/usr/bin/env bash
# Ablation: how many questions are trained on; a smaller set is part of a larger one.
# SIZES="128 256 512" experiments/data_size.sh for a small pool. Arguments are passed on to each `dvc exp run`.
set -euo pipefail
cd "$(dirname "$0")/.."
for questions in ${SIZES:-5000 10000 20000 50000}; do
  dvc exp run --queue --name "questions-$questions" -S "train.max_questions=$questions" "$@"
done
