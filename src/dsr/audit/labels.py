"""Do labels hold? Every question's answer is worked out again on other versions of its clip's cues.

- `same`: the cues as they are. Anything below 1 means that the pool and the cues do not belong together.
- `fresh`: the noise model of the ensemble with another seed and no margin.
- `other`: noise of another shape than the ensemble's: Laplace jitter from frame to frame (heavy tails) and a constant
  bias of each track, in depth and in facing; a camera that drifts like a random walk.
- `exact`: the simulator's truth (simulated clips only).

A version on which the question has no answer at all (something is below a floor) does not confirm its label.
"""

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsr.cues.backends import cue_frames
from dsr.cues.backends.simulated import cues_from_truth
from dsr.cues.clips import Clip
from dsr.cues.schema import PIXELWISE, ClipCues, read_cues
from dsr.geometry.frames import rotations_from_vectors
from dsr.params import QA, CueNoise, Ensemble
from dsr.questions.engine.answers import decode_run_lengths, run_lengths
from dsr.questions.engine.candidates import MAX_TARGETS
from dsr.questions.engine.scene import Scene, build_scene
from dsr.questions.engine.signals import Members, QuestionBatch, signal_states
from dsr.questions.language.families import FORM_INDEX, FORMS, Family
from dsr.questions.language.templates import Form, encode_states, num_axes
from dsr.simulator.truth import read_truth

CHECKS = ("same", "fresh", "other", "exact")
COLUMNS = ("form", "viewpoint", "targets", "frames", "states")
"""Columns that are read of a question's row."""
_BIAS_SHARE = 0.4
"""Share of the variance of `other` noise that stays the same for a track."""


@dataclass(frozen=True)
class ClipTask:
    path: Path
    """The clip's cue file."""
    clip: Clip | None
    """With its truth; None for a clip that is not simulated."""
    rows: list[dict[str, Any]]
    """COLUMNS of the clip's questions."""


@dataclass(frozen=True)
class LabelCheck:
    """Checks a clip's questions; picklable, so that a worker process has it once."""

    qa: QA

    def __call__(self, task: ClipTask) -> np.ndarray:
        """[rows, CHECKS] share of versions that confirm the label; NaN where a check cannot be made.

        Raises:
            CuesError: no readable cues.
            ValueError: no readable truth, or the questions are about other cues.
        """
        cues = read_cues(task.path, skip=PIXELWISE)
        rng = np.random.default_rng([self.qa.audit.seed, zlib.crc32(task.path.stem.encode()), 2])
        exact = exact_cues(task.clip, cues) if task.clip is not None else None
        scene, checks = all_versions(cues, exact, self.qa, rng)
        confirmed = confirmed_labels(scene, task.rows, self.qa)
        result = np.full((len(task.rows), len(CHECKS)), np.nan)
        for column in np.unique(checks):
            result[:, column] = confirmed[:, checks == column].mean(axis=1)
        return result


def all_versions(cues: ClipCues, exact: ClipCues | None, qa: QA, rng: np.random.Generator) -> tuple[Scene, np.ndarray]:
    """A scene with every version of the cues as a member, and [S] int, which of CHECKS a member belongs to.

    Raises:
        ValueError: no track is seen in front of the camera.
    """
    plain = dataclasses.replace(qa.ensemble, members=1, margin=0.0)
    scene = build_scene(cues, dataclasses.replace(qa.ensemble, members=qa.audit.draws, margin=1.0), rng)
    others = [build_scene(other_noise(cues, qa.ensemble, rng), plain, rng) for _ in range(qa.audit.draws)]
    truth = build_scene(exact, plain, rng) if exact is not None else None
    if scene is None:
        raise ValueError("no track is seen in front of the camera")
    positions, axes = [scene.positions], [scene.axes]
    for version in [v for v in (*others, truth) if v is not None]:
        # A track that perception missed throughout is in the truth alone, so tracks are found by their label.
        place = {label: i for i, label in enumerate(version.labels)}
        index = [place.get(label, -1) for label in scene.labels]
        missing = np.array(index) < 0
        for parts, values in ((positions, version.positions), (axes, version.axes)):
            own = values[index][..., :1]
            own[missing] = np.nan
            parts.append(own)
    counts = [1, qa.audit.draws, len(others), int(truth is not None)]
    checks = np.repeat(np.arange(len(CHECKS)), counts)
    return dataclasses.replace(scene, positions=np.concatenate(positions, -1), axes=np.concatenate(axes, -1)), checks


def other_noise(cues: ClipCues, ensemble: Ensemble, rng: np.random.Generator) -> ClipCues:
    """Cues with noise of the uncertainty that they state, of the shape described at the top."""
    n, t = cues.visible.shape
    each, bias = np.sqrt(1 - _BIAS_SHARE), np.sqrt(_BIAS_SHARE)
    laplace = np.sqrt(0.5)  # A Laplace variable of unit variance has this scale.
    relative = each * rng.laplace(scale=laplace, size=(n, t)) + bias * rng.uniform(-np.sqrt(3), np.sqrt(3), (n, 1))
    turn = each * rng.laplace(scale=laplace, size=(n, t, 3)) + bias * rng.standard_normal((n, 1, 3))
    poses = cues.camera_poses.copy()
    # Uncertainty grows along a walk; it is the stated one on the average over the clip.
    walk = np.cumsum(rng.standard_normal((2, t, 3)), axis=1) * np.sqrt(2 / (t + 1)) * ensemble.camera
    depth = cues.centers[..., 2]
    poses[:, :3, :3] = poses[:, :3, :3] @ rotations_from_vectors(walk[0])
    poses[:, :3, 3] += walk[1] * np.median(depth[depth > 0])
    axes = cues.orientations @ rotations_from_vectors(np.deg2rad(ensemble.angle) * turn)
    return dataclasses.replace(
        cues,
        camera_poses=poses,
        centers=(cues.centers * np.exp(cues.center_uncertainty * relative)[..., None]).astype(np.float32),
        orientations=axes.astype(np.float32),
    )


def exact_cues(clip: Clip, cues: ClipCues) -> ClipCues | None:
    """Cues of a simulated clip without any noise, at the frames of `cues`; None where it has no truth."""
    if clip.truth is None:
        return None
    # Read as a truth without images: questions need trajectories alone, and images take long.
    truth = dataclasses.replace(read_truth(clip.truth, skip=("depth", "instance")), rendered=np.array(False))
    frames = cue_frames(truth.timestamps, clip, cues.num_frames)
    exact = cues_from_truth(truth, frames, (2, 2), CueNoise(0, 0, 0, 0), np.random.default_rng(0))
    return dataclasses.replace(exact, meta=dict(cues.meta))


def confirmed_labels(scene: Scene, rows: Sequence[dict[str, Any]], qa: QA) -> np.ndarray:
    """[rows, S] 1 where a member of the scene gives the label, 0 where it does not, NaN where the form is not known.

    Raises:
        ValueError: a row names a track or frame that the scene does not have.
    """
    forms = [FORM_INDEX.get(row["form"]) for row in rows]
    members = Members(scene, slice(None))
    result = np.full((len(rows), scene.positions.shape[-1]), np.nan)
    for index in sorted({f for f in forms if f is not None}):
        form = FORMS[index]
        own = [i for i, f in enumerate(forms) if f == index]
        batch = question_batch([rows[i] for i in own], form, scene)
        _, states, valid = signal_states(scene, form, batch, qa, members)
        if form.signal == "dir_pred":
            states = states[:, 1:]
        labels = _label_codes(form, states)
        expected = np.array([rows[i]["states"] for i in own])
        result[own] = (labels == expected[:, None]) & valid
    return result


def question_batch(rows: Sequence[dict[str, Any]], form: Form, scene: Scene) -> QuestionBatch:
    """Rows of the pool, all of one form, as questions about a scene of their clip.

    Raises:
        ValueError: a row names a track or frame that the scene does not have.
    """
    entities = np.full((len(rows), 1 + MAX_TARGETS), -1)
    # In the pool tracks are counted from 0, the camera is -1 and no viewpoint -2; a scene's camera is 0.
    entities[:, 0] = [row["viewpoint"] + 1 for row in rows]
    entities[:, 1 : 1 + form.num_targets] = [[t + 1 for t in row["targets"]] for row in rows]
    frames = np.array([list(row["frames"])[: form.num_moments] for row in rows], int)
    if entities.max() >= len(scene.labels) or frames.max() >= scene.timestamps.shape[1]:
        raise ValueError("it names a track or frame that its cues do not have: run the qa stage again")
    return QuestionBatch(entities[:, 0], entities[:, 1:], frames)


def _label_codes(form: Form, states: np.ndarray) -> np.ndarray:
    """[K, S] the compact code of each answer, as in the pool, of states [K, M, A, S]."""
    k, s = states.shape[0], states.shape[-1]
    moved = np.moveaxis(states, -1, 1).reshape(k * s, *states.shape[1:3])
    if isinstance(form, Family):
        return moved[:, 0, 0].astype(str).reshape(k, s)
    codes, place = np.unique(run_lengths(moved), return_inverse=True)
    names = np.array([encode_states(decode_run_lengths(int(code), num_axes(form.signal))) for code in codes])
    return names[place.ravel()].reshape(k, s)
