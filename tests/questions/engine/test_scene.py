"""A clip's entities in the world, and the ensemble that stands for the cues' noise."""

import dataclasses

import numpy as np
import pytest

from dsr.cues.schema import ClipCues
from dsr.params import Ensemble
from dsr.questions.engine.scene import AGENT, CAMERA, OBJECT, Scene, build_scene
from tests.scenes import heading, hide, looking, make_cues, random_cues

T = 16
EXACT = Ensemble(members=1, margin=0, angle=0, camera=0)


def build(cues: ClipCues, ensemble: Ensemble = EXACT, seed: int = 0) -> Scene:
    scene = build_scene(cues, ensemble, np.random.default_rng(seed))
    assert scene is not None
    return scene


def going_by() -> ClipCues:
    """A camera at (1, 2, 3) that looks along y; a robot and a ball, 4 and 8 ahead, go along x at 0.1 a frame."""
    x = 1 + 0.1 * np.arange(T)
    zero = np.zeros(T)
    return make_cues(
        np.tile(looking([1, 2, 3], [1, 3, 3]), (T, 1, 1)),
        {
            "robot": (np.stack([x, zero + 6, zero + 3], axis=1), heading(np.pi / 2, T)),
            "ball": (np.stack([x, zero + 10, zero + 3], axis=1), None),
        },
    )


def test_entities_are_the_camera_and_then_the_tracks() -> None:
    scene = build(going_by())
    assert scene.labels == ["camera", "robot", "ball"]
    assert scene.kinds.tolist() == [CAMERA, AGENT, OBJECT]
    assert np.isnan(scene.boxes[0]).all()


def test_positions_are_in_median_depths_from_the_first_camera() -> None:
    scene = build(going_by())
    # Depths 4 and 8, as many of each: the median is 6. Uniform motion passes the smoothing as it is.
    np.testing.assert_allclose(scene.positions[0, :, :, 0], 0, atol=1e-6)
    np.testing.assert_allclose(scene.positions[1, 10, :, 0], [1 / 6, 4 / 6, 0], atol=1e-6)
    np.testing.assert_allclose(scene.positions[2, 10, :, 0], [1 / 6, 8 / 6, 0], atol=1e-6)


def test_axes_are_forward_left_up_in_the_world() -> None:
    scene = build(going_by())
    # Both look along y; left of that is -x.
    for entity in (0, 1):
        np.testing.assert_allclose(scene.axes[entity, 3, :, :, 0].T, [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-6)
    assert np.isnan(scene.axes[2]).all()
    assert scene.oriented.all(axis=1).tolist() == [True, True, False]


def test_boxes_are_shares_of_the_image() -> None:
    # Robot at frame 0: straight ahead at depth 4, so at (320, 240) of 640x480; side 300 * 0.4 / 4 = 30 pixels.
    np.testing.assert_allclose(build(going_by()).boxes[1, 0], [305 / 640, 225 / 480, 335 / 640, 255 / 480], rtol=1e-6)


def test_a_clip_with_nothing_ahead_has_no_scene() -> None:
    cues = going_by()
    assert build_scene(hide(cues, np.ones((2, T), bool)), EXACT, np.random.default_rng(0)) is None
    behind = dataclasses.replace(cues, centers=-cues.centers)
    assert build_scene(behind, EXACT, np.random.default_rng(0)) is None


def test_one_missed_frame_is_bridged_and_two_are_not() -> None:
    hidden = np.zeros((2, T), bool)
    hidden[:, 5] = hidden[:, 9:11] = True
    scene = build(hide(going_by(), hidden))
    whole = build(going_by())
    assert np.flatnonzero(~scene.located[1]).tolist() == [9, 10]
    assert np.flatnonzero(~scene.oriented[1]).tolist() == [9, 10]
    np.testing.assert_allclose(scene.positions[1, 4:7], whole.positions[1, 4:7], atol=1e-6)
    # There is no box to point at where there was no detection.
    assert np.isnan(scene.boxes[1, 5]).all()


def test_member_zero_is_the_cues_as_they_are() -> None:
    cues = random_cues(3, uncertainty=0.05)
    np.testing.assert_array_equal(build(cues, Ensemble()).positions[..., 0], build(cues).positions[..., 0])
    np.testing.assert_array_equal(build(cues, Ensemble()).axes[..., 0], build(cues).axes[..., 0])


def test_the_ensemble_is_seeded() -> None:
    cues = random_cues(3, uncertainty=0.05)
    np.testing.assert_array_equal(build(cues, Ensemble()).positions, build(cues, Ensemble()).positions)
    assert (build(cues, Ensemble()).positions != build(cues, Ensemble(), seed=1).positions).any()


def depths_of_a_standing_ball(uncertainty: float | np.ndarray, ensemble: Ensemble) -> np.ndarray:
    """[T, S] depth of a ball that stands 5 ahead of a standing camera, relative to the true one."""
    cues = make_cues(np.tile(looking([0, 0, 0], [1, 0, 0]), (T, 1, 1)), {"ball": (np.array([5.0, 0, 0]), None)})
    stated = np.broadcast_to(np.float32(uncertainty), (1, T)).copy()
    return build(dataclasses.replace(cues, center_uncertainty=stated), ensemble).positions[1, :, 0, 1:] - 1


MANY = Ensemble(members=3000, margin=1.0, angle=0, camera=0, across=0)


def test_the_noise_has_the_stated_deviation() -> None:
    # The ends are not smoothed. In the middle [1, 2, 1]/4 leaves sqrt(6/16) of the independent half.
    depths = depths_of_a_standing_ball(0.02, MANY)
    assert depths[[0, -1]].std() == pytest.approx(0.02, rel=0.05)
    assert depths[1:-1].std() == pytest.approx(0.02 * np.sqrt(0.5 * 6 / 16 + 0.5), rel=0.08)


def test_the_margin_and_the_uncertainty_multiply_the_noise() -> None:
    once = depths_of_a_standing_ball(0.02, MANY)
    np.testing.assert_allclose(
        depths_of_a_standing_ball(0.02, dataclasses.replace(MANY, margin=1.5)), 1.5 * once, atol=1e-6
    )
    np.testing.assert_allclose(depths_of_a_standing_ball(0.04, MANY), 2 * once, atol=1e-6)


def test_the_noise_has_no_side() -> None:
    """Members drift towards the camera as often as away from it: else a label that one side would turn is kept."""
    mean = depths_of_a_standing_ball(0.02, MANY).mean(axis=1)
    # The mean of 3,000 members scatters by 0.02 / sqrt(3000) = 0.00037.
    assert np.abs(mean).max() < 5 * 0.00037


def test_the_noise_of_a_track_is_partly_slow() -> None:
    # Frame 3, smoothed over 2 to 4, shares no independent noise with frame 0; with slow noise of 0.2 to 1.5 cycles a
    # clip in half of the variance the two correlate by about 0.29.
    depths = depths_of_a_standing_ball(0.02, MANY)
    assert 0.15 < np.corrcoef(depths[0], depths[3])[0, 1] < 0.6


def test_jitter_that_the_backend_does_not_state_is_seen_up_to_its_cap() -> None:
    rng = np.random.default_rng(5)
    t = 32
    cues = make_cues(np.tile(looking([0, 0, 0], [1, 0, 0]), (t, 1, 1)), {"ball": (np.array([5.0, 0, 0]), None)})
    for noise, expected in ((0.03, 0.03), (0.5, 0.1)):
        shaken = cues.centers * np.exp(noise * rng.standard_normal((1, t, 1))).astype(np.float32)
        positions = build(dataclasses.replace(cues, centers=shaken), MANY).positions[1, :, 0]
        spread = (positions[[0, -1], 1:] / positions[[0, -1], :1]).std(axis=1)
        # The jitter of 32 frames is itself known to about a third.
        np.testing.assert_allclose(spread, expected, rtol=0.4)


def test_what_is_stated_counts_where_it_is_larger_than_what_is_seen() -> None:
    stated = np.full(T, 0.01)
    stated[-1] = 0.08
    depths = depths_of_a_standing_ball(stated, MANY)
    assert depths[0].std() == pytest.approx(0.01, rel=0.1)
    assert depths[-1].std() == pytest.approx(0.08, rel=0.1)


def test_agents_axes_turn_by_the_angle_and_stay_rotations() -> None:
    scene = build(going_by(), dataclasses.replace(MANY, members=1000, angle=4.0))
    axes = scene.axes[1]
    np.testing.assert_allclose(
        np.einsum("tijs,tiks->tsjk", axes, axes), np.broadcast_to(np.eye(3), (T, 1001, 3, 3)), atol=1e-5
    )
    # At the first frame, unsmoothed: forward leans by 4 degrees to either side and up or down.
    left_lean = np.einsum("is,i->s", axes[0, :, 0, 1:], axes[0, :, 1, 0])
    assert np.rad2deg(left_lean.std()) == pytest.approx(4, rel=0.15)


def test_the_ensemble_knows_no_scale() -> None:
    cues = random_cues(8, uncertainty=0.03)
    poses = cues.camera_poses.copy()
    poses[:, :3, 3] *= 8
    larger = dataclasses.replace(cues, camera_poses=poses, centers=8 * cues.centers)
    np.testing.assert_array_equal(build(larger, Ensemble()).positions, build(cues, Ensemble()).positions)


def test_a_camera_far_from_the_origin_costs_no_precision() -> None:
    cues = random_cues(8)
    poses = cues.camera_poses.copy()
    poses[:, :3, 3] += [4e5, -5e6, 100]
    there = dataclasses.replace(cues, camera_poses=poses)
    np.testing.assert_allclose(build(there).positions, build(cues).positions, atol=1e-5)
