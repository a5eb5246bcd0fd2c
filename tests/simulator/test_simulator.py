"""Simulated clips: truth that agrees with the pixels, worlds that move, bytes that repeat."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.clips.video import probe, read_frames
from dsr.console import StageError
from dsr.params import Params, Simulate
from dsr.simulator.bodies import AGENTS, OBJECTS, Kind
from dsr.simulator.captions import caption
from dsr.simulator.motion import propose
from dsr.simulator.stage import run, simulate_clip
from dsr.simulator.truth import read_truth
from dsr.simulator.world import World, make_world, projected_boxes

pytest.importorskip("pybullet", reason="the simulate extra is not installed")

SMALL = Simulate(num_clips=3, size=(160, 120), duration=(4.0, 4.5))


def portrait(kind: Kind, eye: tuple[float, float, float], up: tuple[float, float, float]) -> World:
    """One body 10 m above the ground, upright, seen from `eye` metres away through a long lens."""
    base = make_world(SMALL, 0)
    eye_position = np.array(eye)
    forward = -eye_position / np.linalg.norm(eye_position)
    down = -np.array(up)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([np.cross(down, forward), down, forward], axis=-1)
    pose[:3, 3] = eye_position + np.array([0, 0, 10])
    body = np.eye(4)
    body[2, 3] = 10
    truth = replace(
        base.truth,
        timestamps=np.zeros(1),
        camera_poses=pose[None],
        intrinsics=np.array([[4000.0, 0, 200], [0, 4000, 200], [0, 0, 1]]),
        size=np.array([400, 400]),
        labels=np.array([kind.word]),
        words=np.array([kind.word]),
        is_agent=np.array([kind.is_agent]),
        body_poses=body[None, None],
        half_extents=kind.half_extents[None],
    )
    return World([kind], [""], ["rest"], "static", truth)


@pytest.mark.parametrize("kind", [*AGENTS, *OBJECTS], ids=lambda kind: kind.word)
def test_an_asset_fills_its_bounding_box(kind: Kind):
    from dsr.simulator.render import Studio

    # 50 m away and 4000 pixels focal length: 80 pixels a metre, nearly orthographic.
    for eye, up, axes in (
        ((50, 0, 0), (0, 0, 1), (1, 2)),
        ((0, -50, 0), (0, 0, 1), (0, 2)),
        ((0, 0, 50), (0, 1, 0), (0, 1)),
    ):
        with Studio(portrait(kind, eye, up), np.random.default_rng(0)) as studio:
            instance = next(studio.frames()).instance
        rows, columns = np.nonzero(instance)
        seen = np.array([np.ptp(columns) + 1, np.ptp(rows) + 1]) / 80
        middle = (np.array([columns.min() + columns.max(), rows.min() + rows.max()]) + 1) / 2 - 200
        expected = 2 * kind.half_extents[list(axes)]
        assert seen == pytest.approx(expected, rel=0.06, abs=0.04)
        assert np.abs(middle).max() <= 2.5


def test_depth_and_instances_agree_with_the_poses(tmp_path: Path):
    simulate_clip(SMALL, 1, tmp_path)
    truth = read_truth(tmp_path / "sim_000001.truth.npz")
    assert truth.depth is not None
    assert truth.instance is not None
    fx = truth.intrinsics[0, 0]
    height, width = truth.size
    inside = total = 0
    for frame in range(0, len(truth.timestamps), 7):
        rows, columns = np.nonzero(truth.instance[frame])
        z = truth.depth[frame, rows, columns].astype(float)
        camera = np.stack([(columns + 0.5 - width / 2) / fx * z, (rows + 0.5 - height / 2) / fx * z, z], axis=-1)
        pose = truth.camera_poses[frame]
        world = camera @ pose[:3, :3].T + pose[:3, 3]
        body = truth.instance[frame, rows, columns] - 1
        poses = truth.body_poses[frame, body]
        local = np.einsum("nji,nj->ni", poses[:, :3, :3], world - poses[:, :3, 3])
        # A pixel's surface point lies in its body's box, up to a pixel's width.
        slack = 0.03 + 2 * z / fx
        inside += (np.abs(local) <= truth.half_extents[body] + slack[:, None]).all(axis=1).sum()
        total += len(z)
    assert total > 1000
    assert inside / total > 0.995


def test_the_ground_is_where_its_depth_says(tmp_path: Path):
    simulate_clip(SMALL, 2, tmp_path)
    truth = read_truth(tmp_path / "sim_000002.truth.npz")
    assert truth.depth is not None
    assert truth.instance is not None
    height, width = (int(s) for s in truth.size)
    rows, columns = np.nonzero((truth.instance[0] == 0) & (truth.depth[0] < 10))
    z = truth.depth[0, rows, columns].astype(float)
    f = truth.intrinsics[0, 0]
    camera = np.stack([(columns + 0.5 - width / 2) / f * z, (rows + 0.5 - height / 2) / f * z, z], axis=-1)
    up = (camera @ truth.camera_poses[0, :3, :3].T + truth.camera_poses[0, :3, 3])[:, 2]
    assert len(up) > 1000
    assert np.abs(up).max() < 1e-3


def test_depth_lies_on_the_faces_of_a_cube():
    from dsr.simulator.render import Studio

    kind = next(kind for kind in OBJECTS if kind.word == "cube")
    world = portrait(kind, (30.0, 40.0, 0.0), (0.0, 0.0, 1.0))
    with Studio(world, np.random.default_rng(0)) as studio:
        frame = next(studio.frames())
    rows, columns = np.nonzero(frame.instance)
    z = frame.depth[rows, columns].astype(float)
    camera = np.stack([(columns + 0.5 - 200) / 4000 * z, (rows + 0.5 - 200) / 4000 * z, z], axis=-1)
    pose = world.truth.camera_poses[0]
    local = camera @ pose[:3, :3].T + pose[:3, 3] - world.truth.body_poses[0, 0, :3, 3]
    assert len(local) > 1000
    # Half a pixel off would be 6 mm; float32 depth buffers resolve a few at 50 m.
    nearest = np.abs(np.abs(local) - kind.half_extents).min(axis=1)
    assert np.median(nearest) < 2e-3


def test_visible_fraction_is_the_share_that_nothing_hides():
    from dsr.simulator.render import Studio, truth_with_pixels

    kind = next(kind for kind in OBJECTS if kind.word == "cube")
    alone = portrait(kind, (50.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    # A second cube, a metre nearer to the camera and half a cube to its right (world y).
    shift = np.eye(4)
    shift[:2, 3] = 1.0, kind.half_extents[1]
    poses = np.stack([alone.truth.body_poses[:, 0], shift @ alone.truth.body_poses[:, 0]], axis=1)
    projected = projected_boxes(
        poses, np.stack([kind.half_extents] * 2), alone.truth.camera_poses, alone.truth.intrinsics, (400, 400)
    )
    truth = replace(
        alone.truth,
        labels=np.array(["red cube", "blue cube"]),
        body_poses=poses,
        half_extents=np.stack([kind.half_extents] * 2),
        boxes=projected[0],
    )
    world = World([kind, kind], ["red", "blue"], ["rest", "rest"], "static", truth)
    with Studio(world, np.random.default_rng(0)) as studio:
        frames = list(studio.frames())
    seen = truth_with_pixels(world, frames)
    # The nearer cube looks 1/49 larger, and so covers a little more than half.
    assert seen.visible_fraction[0] == pytest.approx([0.49, 1.0], abs=0.02)
    assert projected[1][0] == pytest.approx([0.5, 1.0], abs=0.15)
    left, right = seen.boxes[0, :, [0, 2]]
    assert right[0] == left[1]


def test_seen_boxes_lie_in_the_projected_boxes(tmp_path: Path):
    simulate_clip(SMALL, 1, tmp_path)
    seen = read_truth(tmp_path / "sim_000001.truth.npz", skip=("depth", "instance"))
    projected = make_world(SMALL, 1).truth
    both = np.isfinite(seen.boxes[..., 0]) & np.isfinite(projected.boxes[..., 0])
    assert both.mean() > 0.5
    outside = np.maximum(projected.boxes[both][:, :2] - seen.boxes[both][:, :2], 0)
    assert np.percentile(outside, 99) <= 2.5


def test_agents_face_where_they_drive():
    turned = []
    for index in range(40):
        world = make_world(Simulate(rendered=0), index)
        for body, (kind, motion) in enumerate(zip(world.kinds, world.motions, strict=True)):
            place = world.truth.body_poses[:, body, :3, 3]
            velocity = np.diff(place, axis=0)
            fast = np.linalg.norm(velocity, axis=1) > 0.05
            if kind.is_agent and motion != "chase" and fast.any():
                forward = world.truth.body_poses[1:, body, :3, 0][fast]
                turned += list((forward * velocity[fast]).sum(axis=1) / np.linalg.norm(velocity[fast], axis=1))
    assert len(turned) > 1000
    assert min(turned) > 0.99


def test_bodies_keep_clear_of_each_other_and_of_the_camera():
    for index in range(80):
        truth = make_world(Simulate(rendered=0), index).truth
        place, half = truth.body_poses[..., :3, 3], truth.half_extents
        assert (place[..., 2] - half[:, 2] > -1e-9).all()
        for a in range(len(half)):
            for b in range(a):
                offset = np.abs(place[:, a] - place[:, b])
                beside = np.hypot(offset[:, 0], offset[:, 1]) > np.hypot(*half[a, :2]) + np.hypot(*half[b, :2])
                above = offset[:, 2] > half[a, 2] + half[b, 2]
                assert (beside | above).all(), (index, truth.labels[[a, b]])
        eye = truth.camera_poses[:, None, :3, 3]
        assert (np.linalg.norm(place - eye, axis=-1) > np.linalg.norm(half, axis=-1) + 0.3).all(), index
        assert (eye[..., 2] > 0.4).all()


def test_a_follower_stays_on_its_leaders_path_and_stops_behind_it():
    times = np.arange(60) / 10
    # Waits, goes 8 m along x, waits again.
    leader = np.zeros((60, 3))
    leader[:, 0] = np.clip(times - 1, 0, 4) * 2
    kind = AGENTS[0]
    paths = propose("chase", kind, times, 20, np.random.default_rng(3), leader)
    behind = leader[:, 0] - paths.place[..., 0]
    assert (behind > 0.9).all()
    assert (behind < 3.2).all()
    assert np.abs(paths.place[..., 1]).max() <= 0.41
    assert np.abs(paths.yaw).max() < 1e-6
    assert (np.diff(paths.place[..., 0], axis=1) >= -1e-9).all()


def test_a_bouncing_ball_falls_freely():
    times = np.arange(0, 2, 0.01)
    ball = next(kind for kind in OBJECTS if kind.word == "ball")
    height = propose("bounce", ball, times, 5, np.random.default_rng(0), None).place[..., 2]
    acceleration = np.diff(height, 2, axis=1) / 0.01**2
    assert np.median(acceleration) == pytest.approx(-9.81, abs=1e-3)
    assert height.min() >= 0


def test_a_caption_names_every_body():
    for index in range(40):
        world = make_world(Simulate(rendered=0), index)
        text = caption(world, np.random.default_rng(index)).lower()
        assert len(set(world.truth.labels.tolist())) == len(world.kinds)
        assert all(f"a {label} " in text for label in world.truth.labels)


def test_worlds_change_enough_to_ask_about():
    ratios, seen = [], []
    for index in range(60):
        truth = make_world(Simulate(rendered=0), index).truth
        distance = np.linalg.norm(truth.body_poses[..., :3, 3] - truth.camera_poses[:, None, :3, 3], axis=-1)
        ratios.append((distance.max(axis=0) / distance.min(axis=0)).max())
        seen.append(truth.visible_fraction.mean())
    assert np.median(ratios) > 1.5
    assert 0.5 < np.mean(seen) < 0.98


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_on_one_process_or_two(tmp_path: Path):
    params = Params(simulate=replace(SMALL, num_clips=2, size=(96, 64)))
    folders = []
    for workers in (1, 2):
        run(params, tmp_path / str(workers), workers)
        folders.append(tmp_path / str(workers) / "data/raw/simulated")
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == ["clips.csv"] + [f"sim_00000{i}{end}" for i in range(2) for end in (".mp4", ".truth.npz")]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_the_first_clips_have_videos_and_the_others_trajectories_alone(tmp_path: Path):
    run(Params(simulate=replace(SMALL, rendered=1, size=(96, 64))), tmp_path, 1)
    table = pd.read_csv(tmp_path / "data/raw/simulated/clips.csv", keep_default_na=False)
    assert table.clip_id.tolist() == ["sim_000000", "sim_000001", "sim_000002"]
    assert table.file.tolist() == ["sim_000000.mp4", "", ""]
    assert (table.truth == table.clip_id + ".truth.npz").all()


@pytest.mark.slow
def test_more_clips_leave_the_first_ones_and_fewer_remove_the_last(tmp_path: Path):
    few, more = (Params(simulate=replace(SMALL, num_clips=n, rendered=0)) for n in (3, 60))
    run(few, tmp_path, 1)
    folder = tmp_path / "data/raw/simulated"
    first = {path.name: path.read_bytes() for path in folder.glob("*.npz")}
    run(more, tmp_path, 1)
    assert len(list(folder.glob("*.npz"))) == 60
    assert all((folder / name).read_bytes() == content for name, content in first.items())
    run(few, tmp_path, 1)
    assert {path.name for path in folder.glob("*.npz")} == set(first)


def test_a_world_without_pixels_is_the_same_world(tmp_path: Path):
    for rendered in (1, 0):
        row = simulate_clip(replace(SMALL, rendered=rendered), 0, tmp_path / str(rendered))
        assert bool(row.file) == bool(rendered)
    with_pixels, without = (read_truth(tmp_path / str(n) / "sim_000000.truth.npz") for n in (1, 0))
    for name in (
        "timestamps",
        "camera_poses",
        "intrinsics",
        "size",
        "labels",
        "is_agent",
        "body_poses",
        "half_extents",
    ):
        np.testing.assert_array_equal(getattr(with_pixels, name), getattr(without, name))
    # Two ways to tell what is seen: pixels, and boxes that stand before boxes.
    assert np.abs(with_pixels.visible_fraction - without.visible_fraction).mean() < 0.2


def test_the_video_can_be_read(tmp_path: Path):
    row = simulate_clip(SMALL, 0, tmp_path)
    info = probe(tmp_path / row.file)
    assert (info.width, info.height, info.num_frames) == (160, 120, row.frames)
    assert info.fps == pytest.approx(SMALL.fps)
    images = read_frames(tmp_path / row.file, np.array([0, row.frames - 1]))
    assert images.std() > 10


def test_a_clip_that_cannot_be_written_stops_the_stage_by_name(tmp_path: Path):
    (tmp_path / "data/raw/simulated/sim_000001.truth.npz").mkdir(parents=True)
    with pytest.raises(StageError, match=r"sim_000000 to sim_000002 failed: sim_000001: "):
        run(Params(simulate=replace(SMALL, rendered=0)), tmp_path, 1)


def test_a_damaged_truth_file_is_named(tmp_path: Path):
    path = tmp_path / "bad.truth.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match=r"bad\.truth\.npz"):
        read_truth(path)
