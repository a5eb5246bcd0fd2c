#!/usr/bin/env bash
# Ablation: plain fine-tuning, geometry added to the vision tokens, and the Geometry Selection Module.
# Arguments are passed on to each `dvc exp run`; a second series needs names of its own, such as:
#   PREFIX=seed-2- experiments/fusion.sh -S train.seed=2
set -euo pipefail
cd "$(dirname "$0")/.."
for fusion in none add gsm; do
  dvc exp run --queue --name "${PREFIX:-}fusion-$fusion" -S "gsm.fusion=$fusion" "$@"
done
