#!/usr/bin/env bash
# Ablation: where the 3D tokens come from.
# Arguments are passed on to each `dvc exp run`; a second series needs names of its own, such as:
#   PREFIX=seed-2- experiments/encoders.sh -S train.seed=2
set -euo pipefail
cd "$(dirname "$0")/.."
for encoders in '[point_map]' '[tracks]' '[pairs]' '[tracks,pairs]'; do
  name=$(tr -d '[]' <<< "$encoders" | tr ',_' '-')
  dvc exp run --queue --name "${PREFIX:-}encoders-$name" -S "gsm.encoders=$encoders" "$@"
done
