"""Captions in plain English: every body by its label, what it does, and what the camera does."""

import numpy as np

from dsr.simulator.world import World

_DOES = {
    "wander": ("moves around, stopping and turning", "drives about and turns this way and that", "keeps moving"),
    "cross": ("crosses the scene", "passes by", "moves straight ahead"),
    "circle": ("goes round in a circle", "keeps turning in a circle"),
    "chase": ("follows behind", "chases another one"),
    "stand": ("turns on the spot", "stands and looks around"),
    "slide": ("slides over the ground", "is pushed along the ground"),
    "roll": ("rolls over the ground", "rolls along"),
    "bounce": ("bounces up and down", "bounces along"),
    "float": ("floats in the air", "drifts through the air"),
}
_RESTS = ("stands still", "does not move", "stays in its place")
_CAMERA = {
    "static": ("The camera does not move.", "Seen by a fixed camera."),
    "handheld": ("Filmed by hand.", "The camera is held by hand."),
    "orbit": ("The camera circles the scene.", "The camera goes round the scene."),
    "dolly": ("The camera travels through the scene.", "The camera glides along."),
    "follow": ("The camera follows the action.", "The camera keeps up with the movement."),
}


def caption(world: World, rng: np.random.Generator) -> str:
    """One or two sentences for each body and one for the camera, in a drawn order and wording."""
    places = world.truth.body_poses[..., :3, 3]
    moves = np.ptp(places, axis=0).max(axis=-1) > 0.2
    clauses = []
    for body in rng.permutation(len(world.kinds)):
        motion = world.motions[body]
        # A controller may have drawn nothing but stops.
        does = _DOES[motion] if motion == "stand" or (moves[body] and motion != "rest") else _RESTS
        clauses.append(f"a {world.truth.labels[body]} {rng.choice(does)}")
    sentences = []
    while clauses:
        taken, clauses = clauses[:2], clauses[2:]
        joined = f" {rng.choice(['while', 'and'])} ".join(taken)
        sentences.append(joined[0].upper() + joined[1:] + ".")
    sentences.append(str(rng.choice(_CAMERA[world.camera_motion])))
    return " ".join(sentences)
