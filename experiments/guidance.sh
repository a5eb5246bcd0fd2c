#!/usr/bin/env bash
# Ablation: what guides the GSM while it is trained alone: nothing (answers alone), states, states and attention.
# Arguments are passed on to each `dvc exp run`; a second series needs names of its own, such as:
#   PREFIX=seed-2- experiments/guidance.sh -S train.seed=2
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --queue --name "${PREFIX:-}guidance-none" -S train.geometry_steps=0 -S train.state_loss=0 \
  -S train.attention_loss=0 -S train.augment=0 "$@"
dvc exp run --queue --name "${PREFIX:-}guidance-states" -S train.attention_loss=0 "$@"
dvc exp run --queue --name "${PREFIX:-}guidance-not-augmented" -S train.augment=0 "$@"
dvc exp run --queue --name "${PREFIX:-}guidance-all" "$@"
