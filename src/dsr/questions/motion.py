"""Motion of a clip's things as its cues measure it: how far each goes in the world, in median depths.

The measure is of finished cues. A cheap first pass would be a second way to cues, with models and errors of its own,
run on every clip to spare some of them the first; and where things go is what the cues are made for. So
`curation.min_motion` takes effect where cues are read: before questions are made.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dsr.cues.schema import ClipCues
from dsr.params import Ensemble
from dsr.questions.engine.scene import build_scene


def ways(cues: ClipCues) -> dict[str, float]:
    """Way of each track by its label: the longest straight line between two of its places, smoothed, in median depths.

    A track that is never seen in front of the camera, or once only, has none. The camera's own movement is not in it.
    """
    scene = build_scene(cues, replace(Ensemble(), members=1), np.random.default_rng(0))
    if scene is None:
        return {}
    found = {}
    for label, places in zip(scene.labels[1:], scene.positions[1:, :, :, 0], strict=True):
        seen = places[np.isfinite(places).all(axis=1)].astype(np.float64)
        if len(seen) > 1:
            found[label] = float(np.linalg.norm(seen[:, None] - seen[None], axis=-1).max())
    return found


def motion(found: Mapping[str, float]) -> float:
    """Motion of a clip, given the ways of its tracks: that of the one that goes farthest."""
    return max(found.values(), default=0.0)


def num_moving(found: Mapping[str, float], least: float) -> int:
    """Tracks that go at least so far."""
    return sum(way >= least for way in found.values())
