"""The truth of simulated clips, seen through the foundation backend's path, gives the simulated backend's cues; and
what damaged masks and depth cost is bounded."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from dsr.clips.video import uniform_frames
from dsr.cues.backends import Decoded
from dsr.cues.backends.foundation import Models, cues_from_frames
from dsr.cues.backends.simulated import cues_from_truth
from dsr.cues.schema import ClipCues
from dsr.params import CueNoise, Cues, Simulate
from dsr.perception.tracks import Detection, Word, key_frames
from dsr.simulator.stage import simulate_clip
from dsr.simulator.truth import Truth, read_truth
from tests.perception import oracle

pytestmark = pytest.mark.slow

pytest.importorskip("pybullet", reason="the simulate extra is not installed")
pytest.importorskip("sam2", reason="the perception extra is not installed")

PARAMS = Cues(backend="foundation")
QUIET = CueNoise(depth=0.0, pose=0.0, angle=0.0, missed=0.0)
CLIPS = Simulate(num_clips=3, seed=7, duration=(4.0, 4.5), size=(320, 240))


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> list[Truth]:
    folder = tmp_path_factory.mktemp("clips")
    rows = [simulate_clip(CLIPS, k, folder) for k in range(CLIPS.num_clips)]
    return [read_truth(folder / row.truth) for row in rows]


@pytest.fixture(scope="module")
def both(truths: list[Truth]) -> list[tuple[ClipCues, ClipCues]]:
    """Each clip's cues by the foundation's path and by the simulated backend."""
    return [(seen(truth, oracle.oracle(truth, frames_of(truth))), told(truth)) for truth in truths]


def frames_of(truth: Truth) -> np.ndarray:
    return uniform_frames(len(truth.timestamps), PARAMS.num_frames)


def seen(truth: Truth, models: Models) -> ClipCues:
    frames = frames_of(truth)
    pictures = np.zeros((len(frames), *truth.size, 3), np.uint8)
    pictures[:, 0, 0, 0] = np.arange(len(frames))
    cues = cues_from_frames(Decoded(pictures, frames, truth.timestamps[frames]), oracle.words_of(truth), models, PARAMS)
    return with_size(cues, truth)


def told(truth: Truth) -> ClipCues:
    cues = cues_from_truth(truth, frames_of(truth), PARAMS.point_map_size, QUIET, np.random.default_rng(0))
    return with_size(cues, truth)


def with_size(cues: ClipCues, truth: Truth) -> ClipCues:
    cues.meta.update(height=int(truth.size[0]), width=int(truth.size[1]))
    return cues


def pairs(ours: ClipCues, theirs: ClipCues) -> list[tuple[int, int]]:
    """Tracks of the same body."""
    return [(k, theirs.labels.tolist().index(label)) for k, label in enumerate(ours.labels.tolist())]


def errors(ours: ClipCues, theirs: ClipCues, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every located centre from the truth, and the stated uncertainty, both relative to the depth.

    Args:
        whole: of bodies inside the image, or of those that its border cuts off.
    """
    off, stated = [], []
    limit = np.array([ours.meta["width"], ours.meta["height"]])
    for k, j in pairs(ours, theirs):
        inside = (ours.boxes[k, :, :2] > 4).all(axis=1) & (ours.boxes[k, :, 2:] < limit - 4).all(axis=1)
        both = ours.visible[k] & theirs.visible[j] & (inside == whole)
        depth = theirs.centers[j, both, 2]
        off.append(np.linalg.norm(ours.centers[k, both] - theirs.centers[j, both], axis=-1) / depth)
        stated.append(ours.center_uncertainty[k, both])
    return np.concatenate(off), np.concatenate(stated)


def test_what_the_key_frames_show_is_found_and_keeps_its_name_and_kind(both: list[tuple[ClipCues, ClipCues]]) -> None:
    for ours, theirs in both:
        shown = theirs.visible[:, key_frames(PARAMS.num_frames, PARAMS.foundation.key_frames)].any(axis=1)
        assert set(ours.labels.tolist()) == set(theirs.labels[shown].tolist())
        assert all(ours.is_agent[k] == theirs.is_agent[j] for k, j in pairs(ours, theirs))


def test_masks_boxes_and_visibility_are_the_simulated_backends(both: list[tuple[ClipCues, ClipCues]]) -> None:
    for ours, theirs in both:
        for k, j in pairs(ours, theirs):
            # A sliver of a body has a mask, but too few points to be placed.
            unplaced = theirs.visible[j] & ~ours.visible[k]
            assert not (ours.visible[k] & ~theirs.visible[j]).any()
            assert all(theirs.mask(j, t).sum() < 150 for t in np.flatnonzero(unplaced))
            shared = np.flatnonzero(ours.visible[k] & theirs.visible[j])
            np.testing.assert_allclose(ours.boxes[k, shared], theirs.boxes[j, shared], atol=1.0)
            assert (ours.mask(k, shared[0]) == theirs.mask(j, shared[0])).all()


def test_camera_points_and_orientations_are_the_simulated_backends(both: list[tuple[ClipCues, ClipCues]]) -> None:
    for ours, theirs in both:
        first = np.linalg.inv(theirs.camera_poses[0])
        np.testing.assert_allclose(ours.camera_poses, first @ theirs.camera_poses, atol=1e-9)
        np.testing.assert_allclose(ours.intrinsics, theirs.intrinsics, rtol=1e-4)
        known = np.isfinite(ours.point_map)
        # Depth edges are not valid, and so coarse a picture has many.
        assert known.mean() > 0.5 * np.isfinite(theirs.point_map).mean()
        np.testing.assert_allclose(ours.point_map[known], theirs.point_map[known], rtol=1e-5)
        np.testing.assert_array_equal(ours.timestamps, theirs.timestamps)
        for k, j in pairs(ours, theirs):
            oriented = np.isfinite(ours.orientations[k, :, 0, 0])
            np.testing.assert_allclose(ours.orientations[k, oriented], theirs.orientations[j, oriented], atol=1e-6)
            assert ours.is_agent[k] or not oriented.any()


def test_centres_are_the_bodies_centres(both: list[tuple[ClipCues, ClipCues]]) -> None:
    """What the surface does not tell of a body's depth remains."""
    off, stated = (np.concatenate(v) for v in zip(*(errors(*pair, whole=True) for pair in both), strict=True))
    assert len(off) > 250
    assert np.median(off) < 0.035
    assert np.quantile(off, 0.95) < 0.10
    assert (off < 3 * stated).mean() > 0.9


def test_a_body_that_the_border_cuts_off_is_said_to_be_unsure(both: list[tuple[ClipCues, ClipCues]]) -> None:
    off, stated = (np.concatenate(v) for v in zip(*(errors(*pair, whole=False) for pair in both), strict=True))
    assert len(off) > 30
    assert np.median(stated) > 0.05
    assert (off < 3 * stated).mean() > 0.9


@pytest.mark.parametrize(
    ("mask_damage", "depth_damage"),
    [
        (oracle.eroded, oracle.unharmed),
        (oracle.dilated, oracle.unharmed),
        (oracle.shifted, oracle.unharmed),
        (oracle.unharmed, oracle.bled),
        (oracle.dilated, oracle.bled),
    ],
    ids=["eroded", "dilated", "shifted", "bled", "dilated and bled"],
)
def test_damage_costs_little(
    truths: list[Truth],
    both: list[tuple[ClipCues, ClipCues]],
    mask_damage: oracle.Damage,
    depth_damage: oracle.Damage,
) -> None:
    """Masks 2 pixels too small, 3 too large or 3 beside, depth blurred by 1.5 pixels, on bodies of about 50."""
    found = [
        errors(seen(truth, oracle.oracle(truth, frames_of(truth), mask_damage, depth_damage)), theirs, whole=True)
        for truth, (_, theirs) in zip(truths, both, strict=True)
    ]
    off, stated = (np.concatenate(v) for v in zip(*found, strict=True))
    assert len(off) > 250
    assert np.median(off) < 0.045
    assert np.quantile(off, 0.95) < 0.12
    assert (off < 3 * stated).mean() > 0.75


def test_each_model_sees_a_clip_once(truths: list[Truth]) -> None:
    """The bounds of a clip hold whatever is asked later, since cues are made before any question."""
    truth = truths[0]
    models = oracle.oracle(truth, frames_of(truth))
    shown: list[int] = []
    calls: list[str] = []

    def ground(pictures: np.ndarray, places: Sequence[int], words: Sequence[Word]) -> list[Detection]:
        calls.append("ground")
        shown.extend(places)
        assert len(pictures) == len(places)
        return models.ground(pictures, places, words)

    def counted(name: str) -> Callable[..., Any]:
        function = getattr(models, name)
        return lambda *arguments: calls.append(name) or function(*arguments)

    names = ("segment", "reconstruct", "orient")
    seen(truth, Models(ground, *(counted(name) for name in names)))
    assert calls == ["ground", *names]
    assert shown == key_frames(PARAMS.num_frames, 4)
    steps = models.segment.predictor.calls  # type: ignore[attr-defined]
    assert [name for name, _ in steps].count("open") == 1
    assert len({step for step in steps if step[0] != "open"}) <= 2 * PARAMS.num_frames == 64
    assert {frame for name, frame in steps if name == "on"} == set(range(shown[0] + 1, PARAMS.num_frames))
