"""Which questions are decided beyond what rounding could change.

Single precision and another order of sums change a value by millionths. A question is a close call where some state of
some member, or whether it exists, turns if all tolerances and floors are moved a little, up or down; only of such a
question may two ways to work it out say different things.
"""

import dataclasses

import numpy as np

from dsr.params import QA
from dsr.questions.engine.scene import Scene
from dsr.questions.engine.signals import Members, QuestionBatch, signal_states
from dsr.questions.language.templates import Form

LIMITS = ("ratio_tolerance", "speed_tolerance", "dead_zone", "min_distance", "min_displacement", "min_direction")
MOVED = 1e-4


def decided(scene: Scene, form: Form, batch: QuestionBatch, qa: QA, members: slice = slice(None)) -> np.ndarray:
    """[K] bool, no close call: what members tell holds with all limits a ten-thousandth higher or lower."""
    shown = Members(scene, members)
    _, states, valid = signal_states(scene, form, batch, qa, shown)
    result = np.ones(len(batch), bool)
    for factor in (1 - MOVED, 1 + MOVED):
        near = dataclasses.replace(qa, **{name: getattr(qa, name) * factor for name in LIMITS})
        _, other, other_valid = signal_states(scene, form, batch, near, shown)
        same = (other == states).all(axis=(1, 2)) | ~(valid | other_valid)
        result &= (same & (valid == other_valid)).all(axis=1)
    return result
