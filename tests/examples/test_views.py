"""Changed frames and cues: hand-made scenes, and cues that stay valid whatever is changed."""

import numpy as np
import pytest

from dsr.examples.views import bare_cues, change_cues, change_frames, mirror_cues
from tests.scenes import WIDTH, heading, looking, make_cues, random_cues

T = 6


def test_frames() -> None:
    frames = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
    assert not change_frames(frames, "black").any()
    assert np.array_equal(change_frames(frames, "first_frame"), frames[[0, 0, 0]])
    assert np.array_equal(change_frames(frames, "reversed"), frames[[2, 1, 0]])
    assert np.array_equal(change_frames(frames, "mirrored")[:, :, 0], frames[:, :, 1])
    assert change_frames(frames, "whole") is frames
    with pytest.raises(ValueError, match="without frames"):
        change_frames(frames, "none")


def scene():
    """A camera that looks along y; a robot to its right that faces away from it, and a ball that rises."""
    robot = np.array([2.0, 10.0, 0.0])
    ball = np.stack([np.zeros(T), np.full(T, 8.0), np.linspace(0, 2, T)], axis=-1)
    poses = looking(np.zeros((T, 3)) + np.linspace(0, 1, T)[:, None] * [1, 0, 0], np.array([0.5, 20.0, 0.0]))
    return make_cues(poses, {"robot": (np.tile(robot, (T, 1)), heading(np.pi / 2 - 0.3, T)), "ball": (ball, None)})


def test_a_mirrored_scene_has_left_and_right_exchanged() -> None:
    cues = scene()
    mirrored = mirror_cues(cues)
    assert mirrored.centers[0, 0, 0] == -cues.centers[0, 0, 0]
    assert np.array_equal(mirrored.centers[..., 1:], cues.centers[..., 1:])
    assert mirrored.boxes[0, 0, 0] == pytest.approx(WIDTH - cues.boxes[0, 0, 2])
    # The robot's forward axis is reflected; so is its left axis, which is then its right.
    reflected = cues.orientations[0, 0] * np.array([[-1], [1], [1]])
    assert mirrored.orientations[0, 0][:, 0] == pytest.approx(reflected[:, 0])
    assert mirrored.orientations[0, 0][:, 1] == pytest.approx(-reflected[:, 1])
    # The camera's own motion is mirrored: in the first camera's frame it moves to the other side.
    moved = [np.linalg.inv(c.camera_poses[0]) @ c.camera_poses[-1] for c in (cues, mirrored)]
    assert moved[1][:3, 3] == pytest.approx(moved[0][:3, 3] * [-1, 1, 1])


def test_a_reversed_scene_ends_where_it_began() -> None:
    cues = scene()
    reversed_ = change_cues(cues, "reversed")
    assert np.array_equal(reversed_.centers, cues.centers[:, ::-1])
    assert np.array_equal(reversed_.camera_poses, cues.camera_poses[::-1])
    assert reversed_.timestamps[[0, -1]].tolist() == cues.timestamps[[0, -1]].tolist()
    uneven = change_cues(random_cues(3), "reversed")
    assert (np.diff(uneven.timestamps) > 0).all()


def test_the_first_frame_alone_has_no_motion() -> None:
    frozen = change_cues(scene(), "first_frame")
    assert not np.diff(frozen.centers, axis=1).any()
    assert not np.diff(frozen.camera_poses, axis=0).any()


def test_a_scene_in_which_nothing_was_observed() -> None:
    cues = change_cues(scene(), "zeroed")
    assert (cues.num_tracks, cues.num_frames) == (0, T)
    assert not cues.point_map.size
    assert np.array_equal(cues.timestamps, scene().timestamps)


@pytest.mark.parametrize("seed", range(4))
def test_changed_cues_keep_to_the_schema_and_changing_twice_gives_them_back(seed: int) -> None:
    # ClipCues checks itself whenever it is made.
    cues = random_cues(seed)
    for view in ("mirrored", "reversed"):
        twice = change_cues(change_cues(cues, view), view)
        for name in ("centers", "boxes", "orientations", "camera_poses", "timestamps", "point_map", "visible"):
            np.testing.assert_allclose(getattr(twice, name), getattr(cues, name), atol=1e-4, err_msg=f"{view} {name}")
    assert change_cues(cues, "own") is cues
    assert bare_cues(cues.timestamps, cues.frame_index, 64, 48).num_tracks == 0
    with pytest.raises(ValueError, match="without geometry"):
        change_cues(cues, "none")
