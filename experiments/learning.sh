#!/usr/bin/env bash
# A larger run without a GPU: the GSM and plain fine-tuning on 1,400 clips that are trajectories alone (black frames), so
# that all there is to see comes by the geometry. On two cores the first takes about half an hour.
# Arguments are passed on to each `dvc exp run`; a second series needs names of its own, such as:
#   PREFIX=seed-2- experiments/learning.sh -S train.seed=2
set -euo pipefail
cd "$(dirname "$0")/.."
for fusion in gsm none; do
  dvc exp run --queue --name "${PREFIX:-}learning-$fusion" -S "gsm.fusion=$fusion" \
    -S simulate.num_clips=1400 -S simulate.rendered=0 -S simulate.seed=5 \
    -S train.geometry_steps=2500 -S train.steps=500 "$@"
done
