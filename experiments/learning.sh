#!/usr/bin/env bash
# Does the model use its geometry? The small model, taught on 2,000 simulated clips of trajectories alone: their video is
# black, so what it knows of a scene it knows from the geometry tokens. With them (gsm), without them (none), and, in
# metrics/eval.json, with another clip's (shuffled_geometry).
# Arguments are passed on to each `dvc exp run`; a second series needs names of its own, such as:
#   PREFIX=seed-2- experiments/learning.sh -S train.seed=2
set -euo pipefail
cd "$(dirname "$0")/.."
for fusion in none gsm; do
  dvc exp run --queue --name "${PREFIX:-}learning-$fusion" \
    -S simulate.num_clips=2000 -S simulate.render=false -S simulate.seed=5 \
    -S qa.candidates=3072 -S qa.keep_per_clip_type=80 -S qa.max_advantage=2.0 -S qa.num_blocks=null \
    -S "gsm.fusion=$fusion" -S gsm.num_tokens=8 -S 'gsm.encoders=[tracks]' -S model.max_pixels=784 \
    -S train.text_steps=500 -S train.geometry_steps=2000 -S train.steps=300 -S train.batch_size=64 \
    -S train.learning_rate=0.002 -S train.gsm_learning_rate=0.005 -S train.state_loss=1.0 \
    -S evaluate.batch_size=64 "$@"
done
