#!/usr/bin/env bash
# Ablation: what the condenser reads of a question.
# Arguments are passed on to each `dvc exp run`; a second series needs names of its own, such as:
#   PREFIX=seed-2- experiments/question.sh -S train.seed=2
set -euo pipefail
cd "$(dirname "$0")/.."
for question in embeddings states reader; do
  dvc exp run --queue --name "${PREFIX:-}question-$question" -S "gsm.question=$question" "$@"
done
