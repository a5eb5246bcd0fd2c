#!/usr/bin/env bash
# Ablation: how many geometry tokens.
# Arguments are passed on to each `dvc exp run`; a second series needs names of its own, such as:
#   PREFIX=seed-2- experiments/num_tokens.sh -S train.seed=2
set -euo pipefail
cd "$(dirname "$0")/.."
for tokens in ${TOKENS:-2 4 8 16 32}; do
  dvc exp run --queue --name "${PREFIX:-}num-tokens-$tokens" -S gsm.fusion=gsm -S "gsm.num_tokens=$tokens" "$@"
done
