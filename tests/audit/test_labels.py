"""Labels worked out again: on the same cues, under noise, and on the truth."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsr.audit.labels import (
    CHECKS,
    ClipTask,
    LabelCheck,
    all_versions,
    confirmed_labels,
    exact_cues,
    other_noise,
)
from dsr.cues.clips import Clip
from dsr.cues.schema import ClipCues, write_cues
from dsr.params import QA, Ensemble
from dsr.questions.engine.candidates import describe_answer, find_candidates
from dsr.questions.engine.scene import build_scene
from dsr.questions.language.families import FORMS
from dsr.simulator.truth import write_truth
from tests.cues.worlds import walk
from tests.scenes import random_cues


def rows_of(cues: ClipCues, qa: QA) -> list[dict[str, Any]]:
    """Every candidate of the cues, but for free-form families, as the part of its row in the pool that is read."""
    rng = np.random.default_rng(5)
    scene = build_scene(cues, qa.ensemble, rng)
    assert scene is not None
    found, _ = find_candidates(scene, qa, rng)
    rows = []
    for k in range(len(found)):
        form = FORMS[found.form[k]]
        if form.type == "non_temp":
            continue
        rows.append(
            {
                "form": form.name,
                "viewpoint": int(found.viewer[k]) - 1,
                "targets": [int(t) - 1 for t in found.targets[k] if t >= 0],
                "frames": [int(f) for f in found.frames[k] if f >= 0],
                "states": describe_answer(form, int(found.answer[k]))[1],
            }
        )
    return rows


@pytest.fixture(scope="module")
def cues() -> ClipCues:
    return random_cues(3)


@pytest.fixture(scope="module")
def rows(cues: ClipCues) -> list[dict[str, Any]]:
    found = rows_of(cues, QA(candidates=3072, keep_per_clip_type=80))
    assert len({row["form"] for row in found}) >= 8
    return found


def test_checks_of_a_cue_file(cues: ClipCues, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "clip.npz"
    write_cues(path, cues)
    check = LabelCheck(QA())
    shares = check(ClipTask(path, None, rows))
    same, fresh, other, exact = shares.T
    assert shares.shape == (len(rows), len(CHECKS))
    assert (same == 1).all()
    assert fresh.mean() > 0.95
    assert other.mean() > 0.9
    assert np.isnan(exact).all()
    np.testing.assert_array_equal(shares, check(ClipTask(path, None, rows)))


def test_a_wrong_label_is_not_confirmed(cues: ClipCues, rows: list[dict[str, Any]]) -> None:
    by_form: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_form.setdefault(row["form"], []).append(row)
    wrong = [
        row | {"states": other["states"]}
        for group in by_form.values()
        for row, other in zip(group, [*group[1:], group[0]], strict=True)
        if row["states"] != other["states"]
    ]
    scene, checks = all_versions(cues, None, QA(), np.random.default_rng(0))
    confirmed = confirmed_labels(scene, wrong, QA())
    assert (confirmed[:, checks == CHECKS.index("same")] == 0).all()


def test_truth_is_matched_by_label(cues: ClipCues, rows: list[dict[str, Any]]) -> None:
    """The truth holds its tracks in another order and one more of them."""
    order = np.roll(np.arange(cues.num_tracks), 1)
    names = ("labels", "is_agent", "boxes", "visible", "centers", "center_uncertainty", "orientations")
    moved = {name: getattr(cues, name)[order] for name in (*names, "orientation_confidence")}
    exact = dataclasses.replace(cues, **moved)
    scene, checks = all_versions(cues, exact, QA(), np.random.default_rng(0))
    confirmed = confirmed_labels(scene, rows, QA())
    np.testing.assert_array_equal(confirmed[:, checks == 3], confirmed[:, checks == 0])

    renamed = dataclasses.replace(exact, labels=np.array([f"other {label}" for label in exact.labels]))
    scene, checks = all_versions(cues, renamed, QA(), np.random.default_rng(0))
    assert (confirmed_labels(scene, rows, QA())[:, checks == 3] == 0).mean() > 0.9


def test_other_noise_is_as_large_as_stated(cues: ClipCues) -> None:
    stated = dataclasses.replace(
        cues, center_uncertainty=np.where(cues.visible, np.float32(0.03), np.float32("nan")).astype(np.float32)
    )
    rng = np.random.default_rng(1)
    ensemble = Ensemble(angle=4.0, camera=0.002)
    versions = [other_noise(stated, ensemble, rng) for _ in range(40)]
    with np.errstate(invalid="ignore"):
        depth = np.stack([np.log(v.centers[..., 2] / cues.centers[..., 2])[cues.visible] for v in versions])
    assert depth.std() == pytest.approx(0.03, rel=0.1)
    known = np.isfinite(cues.orientations[..., 0, 0])
    forward = np.stack([(v.orientations * cues.orientations).sum(axis=(2, 3))[known] for v in versions])
    turned = np.rad2deg(np.arccos(np.clip((forward - 1) / 2, -1, 1)))
    assert np.sqrt((turned**2).mean()) == pytest.approx(4 * np.sqrt(3), rel=0.1)
    median = np.median(cues.centers[..., 2][cues.visible])
    shift = np.stack([v.camera_poses[:, :3, 3] - cues.camera_poses[:, :3, 3] for v in versions]) / median
    assert shift.std() == pytest.approx(0.002, rel=0.15)


def test_a_row_of_an_unknown_form_is_not_checked(cues: ClipCues, rows: list[dict[str, Any]]) -> None:
    scene, _ = all_versions(cues, None, QA(), np.random.default_rng(0))
    assert np.isnan(confirmed_labels(scene, [rows[0] | {"form": "of another version"}], QA())).all()


def test_a_pool_of_other_cues_is_refused(cues: ClipCues, rows: list[dict[str, Any]]) -> None:
    scene, _ = all_versions(cues, None, QA(), np.random.default_rng(0))
    foreign = rows[0] | {"targets": [99] * len(rows[0]["targets"])}
    with pytest.raises(ValueError, match="run the qa stage again"):
        confirmed_labels(scene, [foreign], QA())


def test_exact_cues_are_the_truth(tmp_path: Path) -> None:
    truth = walk(seed=4)
    path = tmp_path / "truth.npz"
    write_truth(path, truth)
    clip = Clip("clip", "0" * 64, None, path, None, 0.0, 4.0, 320, 240)
    noisy = random_cues(1, num_frames=16)
    exact = exact_cues(clip, noisy)
    assert exact is not None
    assert exact.num_frames == 16
    seen = exact.visible
    assert seen.any()
    assert (exact.center_uncertainty[seen] == 0).all()
    world = np.einsum("tij,ntj->nti", exact.camera_poses[:, :3, :3], exact.centers) + exact.camera_poses[:, :3, 3]
    place = [truth.labels.tolist().index(label) for label in exact.labels]
    bodies = truth.body_poses[exact.frame_index][:, place][..., :3, 3].swapaxes(0, 1)
    np.testing.assert_allclose(world[seen], bodies[seen], atol=1e-4)
    assert exact_cues(dataclasses.replace(clip, truth=None), noisy) is None
