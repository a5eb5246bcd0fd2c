"""Measured motion: ways worked out by hand, and which clips it takes out of the questions."""

import numpy as np
import pytest

from dsr.questions.motion import motion, num_moving, ways
from tests.scenes import hide, looking, make_cues

T = 16


def scene(camera: np.ndarray | None = None):
    """A thing at rest and one that goes 4 to the side; both 8 away where the camera looks from the origin."""
    poses = looking(np.zeros((T, 3)) if camera is None else camera, np.array([100.0, 0.0, 0.0]))
    across = np.stack([np.full(T, 8.0), np.linspace(-2, 2, T), np.zeros(T)], axis=1)
    return make_cues(poses, {"box": (np.array([8.0, 0.0, 0.0]), None), "ball": (across, None)})


def test_a_way_is_in_median_depths() -> None:
    found = ways(scene())
    assert found["box"] == pytest.approx(0, abs=1e-5)
    # Smoothing draws in the ends by a quarter of a step, where they have one neighbour.
    assert found["ball"] == pytest.approx(4 / 8, rel=0.05)
    assert motion(found) == found["ball"]
    assert (num_moving(found, 0.15), num_moving(found, 0.9), num_moving(found, 0.0)) == (1, 0, 2)


def test_the_cameras_own_movement_is_no_motion() -> None:
    camera = np.stack([np.zeros(T), np.linspace(0, 3, T), np.zeros(T)], axis=1)
    found = ways(scene(camera))
    assert found["box"] == pytest.approx(0, abs=1e-5)
    assert found["ball"] == pytest.approx(4 / 8, rel=0.05)


def test_what_is_not_seen_twice_has_no_way() -> None:
    hidden = np.zeros((2, T), bool)
    hidden[1, 1:] = True
    assert set(ways(hide(scene(), hidden))) == {"box"}
    assert motion({}) == 0
