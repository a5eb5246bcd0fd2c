#!/usr/bin/env bash
# Does a model use geometry? Plain fine-tuning and the GSM on 2,000 clips that are trajectories alone (black frames), so
# that all there is to see comes by the geometry. On two cores each takes about half an hour.
# Arguments are passed on to each `dvc exp run`; a second series needs names of its own, such as:
#   PREFIX=seed-2- experiments/learning.sh -S train.seed=2
set -euo pipefail
cd "$(dirname "$0")/.."
for fusion in none gsm; do
  dvc exp run --queue --name "${PREFIX:-}learning-$fusion" -S "gsm.fusion=$fusion" \
    -S simulate.num_clips=2000 -S simulate.rendered=0 -S simulate.seed=5 \
    -S qa.seed=1 -S qa.candidates=3072 -S qa.keep_per_clip_type=80 -S qa.max_advantage=2.0 -S qa.num_blocks=null \
    -S gsm.num_tokens=8 -S 'gsm.encoders=[tracks]' -S model.max_pixels=784 \
    -S train.geometry_steps=3000 -S train.steps=600 -S train.batch_size=64 \
    -S train.gsm_learning_rate=0.002 \
    -S evaluate.batch_size=64 "$@"
done
