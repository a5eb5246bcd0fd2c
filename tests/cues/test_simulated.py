"""Cues from truth: hand-computed without noise, the promised statistics with it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dsr.cues.backends.simulated import cues_from_truth
from dsr.cues.schema import ClipCues
from dsr.geometry.frames import rotations_from_vectors
from dsr.params import CueNoise
from dsr.simulator.truth import Truth
from tests.cues.worlds import FOCAL, LOOKING_ALONG_X, LOOKING_ALONG_Y, SIZE, facing, make_truth, pose, walk

EXACT = CueNoise(depth=0.0, pose=0.0, angle=0.0, missed=0.0)
GRID = (24, 32)
FRAMES = 100


def look(
    truth: Truth, noise: CueNoise = EXACT, seed: int = 0, frames: np.ndarray | None = None, grid: tuple[int, int] = GRID
) -> ClipCues:
    chosen = np.arange(len(truth.timestamps)) if frames is None else frames
    return cues_from_truth(truth, chosen, grid, noise, np.random.default_rng(seed))


def still(camera: np.ndarray, *bodies: np.ndarray, agents: list[bool], frames: int = 2, **options: Any) -> Truth:
    return make_truth(
        np.tile(camera, (frames, 1, 1)), np.tile(np.stack(bodies), (frames, 1, 1, 1)), agents=agents, **options
    )


def test_a_body_straight_ahead_of_a_level_camera() -> None:
    """5 m ahead at the camera's height, facing away from it: a body of 1 m covers 300 / 4.5 pixels each way."""
    truth = still(pose(LOOKING_ALONG_X, [0, 0, 1]), pose(np.eye(3), [5, 0, 1]), agents=[True])
    cues = look(truth)
    np.testing.assert_array_equal(cues.centers[0, 0], [0, 0, 5])
    # Forward is the camera's z, left its -x, up its -y.
    np.testing.assert_array_equal(cues.orientations[0, 0], [[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    half = FOCAL * 0.5 / 4.5
    np.testing.assert_allclose(cues.boxes[0, 0], [160 - half, 120 - half, 160 + half, 120 + half], rtol=1e-6)
    assert cues.visible.all()
    assert (cues.orientation_confidence == 1).all()
    assert (cues.center_uncertainty == 0).all()


def test_a_turned_camera_sees_the_same_body_elsewhere() -> None:
    """It looks along y: a body 3 m along y and 1 m along x is ahead and to the right; facing x is facing right."""
    truth = still(pose(LOOKING_ALONG_Y, [2, 0, 1]), pose(facing(0), [3, 3, 1.5]), agents=[True])
    cues = look(truth)
    np.testing.assert_allclose(cues.centers[0, 0], [1, -0.5, 3], atol=1e-7)
    np.testing.assert_allclose(cues.orientations[0, 0][:, 0], [1, 0, 0], atol=1e-7)
    np.testing.assert_allclose(cues.orientations[0, 0][:, 2], [0, -1, 0], atol=1e-7)


def test_without_noise_cues_are_the_truth() -> None:
    truth = walk(seed=4)
    cues = look(truth, frames=np.array([0, 3, 17, 39]))
    np.testing.assert_array_equal(cues.frame_index, [0, 3, 17, 39])
    np.testing.assert_array_equal(cues.timestamps, truth.timestamps[[0, 3, 17, 39]])
    np.testing.assert_array_equal(cues.camera_poses, truth.camera_poses[[0, 3, 17, 39]])
    np.testing.assert_array_equal(cues.intrinsics[2], truth.intrinsics)
    for n, label in enumerate(cues.labels):
        k = truth.labels.tolist().index(label)
        for t, frame in enumerate(cues.frame_index):
            if not cues.visible[n, t]:
                continue
            world = cues.camera_poses[t] @ [*cues.centers[n, t], 1]
            np.testing.assert_allclose(world[:3], truth.body_poses[frame, k, :3, 3], atol=1e-6)
            np.testing.assert_array_equal(cues.boxes[n, t], truth.boxes[frame, k])
            if truth.is_agent[k]:
                axes = cues.camera_poses[t, :3, :3] @ cues.orientations[n, t]
                np.testing.assert_allclose(axes, truth.body_poses[frame, k, :3, :3], atol=1e-6)


def test_a_body_that_is_mostly_hidden_is_not_visible_and_one_never_seen_is_no_track() -> None:
    seen = np.array([[1.0, 0.05, 0.0], [1.0, 0.1, 0.09], [1.0, 1.0, 0.0]])
    bodies = [pose(np.eye(3), [5, y, 1]) for y in (-1, 0, 1)]
    truth = still(pose(LOOKING_ALONG_X, [0, 0, 1]), *bodies, agents=[True, False, True], frames=3, seen=seen)
    cues = look(truth)
    assert cues.labels.tolist() == ["body 0", "body 1"]
    np.testing.assert_array_equal(cues.visible, [[True] * 3, [False, True, True]])
    assert np.isnan(cues.centers[1, 0]).all()
    assert np.isnan(cues.orientations[1]).all()


def test_the_point_map_of_a_trajectory_only_world() -> None:
    """A level camera 1 m above the ground, a body of 1 m standing 5 m ahead."""
    truth = still(pose(LOOKING_ALONG_X, [0, 0, 1]), pose(np.eye(3), [5, 0, 0.5]), agents=[False])
    points = look(truth).point_map[0]
    # The bottom row of cells is pixel row 235, the middle columns are beside the axis.
    v = (235.5 - 120) / FOCAL
    ground = points[-1, 15]
    np.testing.assert_allclose(ground[1:], [1.0, 1 / v], rtol=1e-6)
    # Below the horizon, on the body: its front face is 4.5 m away.
    front = points[13, 15]
    np.testing.assert_allclose(front, [(155.5 - 160) / FOCAL * 4.5, (135.5 - 120) / FOCAL * 4.5, 4.5], rtol=1e-6)
    assert np.isnan(points[0]).all()
    np.testing.assert_array_equal(look(truth).confidence[0] == 1, np.isfinite(points).all(axis=-1))


def test_every_point_lies_on_the_ground_or_on_a_body() -> None:
    truth = walk(seed=6, frames=8)
    cues = look(truth)
    for t in range(cues.num_frames):
        points = cues.point_map[t][cues.confidence[t] > 0].astype(np.float64)
        world = points @ cues.camera_poses[t, :3, :3].T + cues.camera_poses[t, :3, 3]
        bodies = truth.body_poses[t]
        local = np.einsum("bji,pbj->pbi", bodies[:, :3, :3], world[:, None] - bodies[:, :3, 3])
        reach = np.abs(local) / truth.half_extents
        on_body = np.abs(reach.max(axis=-1) - 1) < 1e-4
        assert (on_body.any(axis=1) | (np.abs(world[:, 2]) < 1e-4)).all()
        # Nothing is seen inside a body.
        assert (reach.max(axis=-1) > 1 - 1e-4).all()


def rendered(truth: Truth) -> Truth:
    """The truth with depth and instances as a renderer would add them: body k a rectangle at depth k + 2."""
    frames, count = truth.boxes.shape[:2]
    depth = np.full((frames, *SIZE), np.nan, np.float32)
    instance = np.zeros((frames, *SIZE), np.uint8)
    depth[:, SIZE[0] // 2 :] = 9
    for k in range(count):
        rows = slice(100, 140)
        columns = slice(40 * k, 40 * k + 40)
        depth[:, rows, columns], instance[:, rows, columns] = k + 2, k + 1
    return replace(truth, rendered=np.array(True), depth=depth, instance=instance)


def test_rendered_clips_take_points_and_masks_from_the_renderer() -> None:
    truth = rendered(walk(seed=6, frames=4, count=2))
    cues = look(truth)
    # Cell (10, 2) samples pixel (105, 25), on body 0 at depth 2.
    np.testing.assert_allclose(
        cues.point_map[0, 10, 2], [(25.5 - 160) / 300 * 2, (105.5 - 120) / 300 * 2, 2], rtol=1e-6
    )
    depths = cues.point_map[..., 2]
    assert set(np.unique(depths[np.isfinite(depths)])) == {2, 3, 9}
    assert np.isnan(cues.point_map[0, 0]).all()
    cues.meta.update(height=SIZE[0], width=SIZE[1])
    for n, label in enumerate(cues.labels):
        k = truth.labels.tolist().index(label)
        np.testing.assert_array_equal(cues.mask(n, 1), truth.instance[1] == k + 1)


def noisy(noise: CueNoise, clips: int = 60, grid: tuple[int, int] = (4, 4), **options: Any) -> list[ClipCues]:
    """A still scene, fully seen, through `clips` independent perceptions."""
    truth = still(
        pose(LOOKING_ALONG_X, [0, 0, 1]),
        pose(np.eye(3), [5, -0.7, 1]),
        pose(np.eye(3), [6, 0.7, 1]),
        agents=[True, False],
        frames=FRAMES,
        **options,
    )
    return [look(truth, noise, seed, grid=grid) for seed in range(clips)]


def test_depth_noise_has_its_deviation_and_leaves_directions() -> None:
    cues = noisy(replace(EXACT, depth=0.02), clips=300)
    depth = np.stack([c.centers[..., 2] for c in cues]) / np.array([5, 6])[:, None]
    error = np.log(depth)
    assert np.std(error) == pytest.approx(0.02, rel=0.06)
    # Errors are shared: by the tracks of a frame, and by the frames of a track.
    white = np.std(error - error.mean(axis=2, keepdims=True))
    assert 0.6 * 0.02 < white < 0.9 * 0.02
    between = np.corrcoef(error[:, 0].mean(axis=1), error[:, 1].mean(axis=1))[0, 1]
    assert between > 0.3
    # A centre moves with its box, by a share of the body's size.
    bearing = np.stack([c.centers[..., 0] / c.centers[..., 2] for c in cues])
    assert np.std(bearing - np.median(bearing, axis=(0, 2), keepdims=True)) < 0.02 * 0.25
    assert (cues[0].center_uncertainty == np.float32(0.02)).all()


def test_hidden_bodies_are_less_certain() -> None:
    (half_seen,) = noisy(replace(EXACT, depth=0.02), clips=1, seen=np.array([1.0, 0.25]))
    np.testing.assert_allclose(half_seen.center_uncertainty[0], 0.02)
    np.testing.assert_allclose(half_seen.center_uncertainty[1], 0.02 * np.sqrt(0.4 + 0.6 * 4), rtol=1e-6)


def test_points_and_centre_of_a_frame_agree() -> None:
    """Noise moves a body's points with its centre, up to the grain."""
    exact, seen = (noisy(noise, clips=1, grid=GRID)[0] for noise in (EXACT, replace(EXACT, depth=0.05)))
    body = np.isclose(exact.point_map[..., 2], 4.5)
    assert body.sum(axis=(1, 2)).min() > 20
    ratio = np.log(seen.point_map[..., 2] / exact.point_map[..., 2])
    of_points = np.array([np.median(r[b]) for r, b in zip(ratio, body, strict=True)])
    of_centre = np.log(seen.centers[0, :, 2] / 5)
    np.testing.assert_allclose(of_points, of_centre, atol=4 * 0.25 * 0.05 / np.sqrt(20))


def test_pose_noise_has_its_deviation_and_drifts() -> None:
    exact = noisy(EXACT, clips=1)[0]
    cues = noisy(replace(EXACT, pose=0.01))
    scene = np.median(exact.point_map[..., 2][exact.confidence > 0])
    shift = np.stack([c.camera_poses[:, :3, 3] - exact.camera_poses[:, :3, 3] for c in cues]) / scene
    assert np.std(shift) == pytest.approx(0.01, rel=0.1)
    steps = np.diff(shift, axis=1)
    # White noise alone would give sqrt(2).
    assert np.std(steps) / np.std(shift) == pytest.approx(np.sqrt(1 + 0.05), rel=0.1)
    turn = np.swapaxes(exact.camera_poses[:, :3, :3], 1, 2) @ np.stack([c.camera_poses[:, :3, :3] for c in cues])
    angles = np.arccos(np.clip((np.trace(turn, axis1=2, axis2=3) - 1) / 2, -1, 1))
    assert np.sqrt(np.mean(angles**2) / 3) == pytest.approx(0.01, rel=0.1)
    # What the camera frame holds does not know where the camera is.
    np.testing.assert_array_equal(cues[0].centers, exact.centers)


def test_angle_noise_turns_the_axes_of_agents_alone() -> None:
    exact = noisy(EXACT, clips=1)[0]
    cues = noisy(replace(EXACT, angle=4.0))
    axes = np.stack([c.orientations[0] for c in cues]).astype(np.float64)
    relative = np.swapaxes(exact.orientations[0].astype(np.float64), 1, 2) @ axes
    heading = np.degrees(np.arctan2(relative[..., 1, 0], relative[..., 0, 0]))
    assert np.std(heading) == pytest.approx(4.0, rel=0.1)
    assert np.isnan(cues[0].orientations[1]).all()
    np.testing.assert_array_equal(cues[0].boxes, exact.boxes)


@pytest.mark.parametrize("missed", [0.02, 0.3, 0.9])
def test_misses_have_their_share_and_come_in_runs(missed: float) -> None:
    cues = [c for c in noisy(replace(EXACT, missed=missed)) if c.num_tracks == 2]
    gone = ~np.stack([c.visible for c in cues])
    assert gone.mean() == pytest.approx(missed, rel=0.2)
    after_a_miss = gone[..., 1:][gone[..., :-1]].mean()
    assert after_a_miss > missed + 0.2 * (1 - missed)


def test_boxes_jitter_and_stay_boxes_in_the_image() -> None:
    exact = noisy(EXACT, clips=1)[0]
    cues = noisy(replace(EXACT, depth=0.02))
    shift = np.stack([c.boxes - exact.boxes for c in cues])
    size = exact.boxes[0, 0, 2] - exact.boxes[0, 0, 0]
    assert np.std(shift[:, 0]) == pytest.approx(0.02 * size, rel=0.05)
    wild = look(walk(seed=1), replace(EXACT, depth=2.0))
    boxes = wild.boxes[wild.visible]
    assert (boxes >= 0).all()
    assert (boxes <= [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_one_level_of_noise_leaves_the_others_draws() -> None:
    both = look(walk(seed=2), replace(EXACT, depth=0.02, pose=0.01), seed=3)
    depth = look(walk(seed=2), replace(EXACT, depth=0.02), seed=3)
    np.testing.assert_array_equal(both.centers, depth.centers)
    other = look(walk(seed=2), replace(EXACT, depth=0.02), seed=4)
    assert not np.array_equal(other.centers, depth.centers, equal_nan=True)


def test_cues_do_not_depend_on_the_choice_of_world_frame_axes() -> None:
    """Turning the world about the vertical and moving it along the ground leaves the camera-frame cues."""
    truth = walk(seed=5, frames=6)
    turn = pose(rotations_from_vectors(np.array([0, 0, 0.7])), [3, -2, 0])
    moved = replace(truth, camera_poses=turn @ truth.camera_poses, body_poses=turn @ truth.body_poses)
    one, other = look(truth, CueNoise()), look(moved, CueNoise())
    for name in ("centers", "boxes", "orientations", "point_map"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=2e-4)
