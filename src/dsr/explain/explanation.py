"""Explanation of a question: how its answer comes about and why it holds, found again from its clip's cues.

Nothing is taken from the pool but the question itself: signal, states and answer are worked out again on the cues as
they are, on an ensemble like the one on which the question had to hold (drawn again, for this clip alone), and on the
audit's other versions.
"""

import difflib
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsr import project
from dsr.audit.labels import CHECKS, all_versions, confirmed_labels, exact_cues, question_batch
from dsr.console import StageError
from dsr.cues.clips import Clip
from dsr.cues.schema import PIXELWISE, ClipCues
from dsr.explain.derivation import Derivation
from dsr.explain.frames import find_clip, find_cues
from dsr.explain.free_form_derivation import derive_family
from dsr.explain.template_derivation import derive_template
from dsr.mcq import LETTERS, bare
from dsr.params import QA, Params
from dsr.questions.engine.conditions import Condition
from dsr.questions.engine.scene import Scene, build_scene
from dsr.questions.engine.signals import Members, QuestionBatch, family_moments
from dsr.questions.language.families import FORM_INDEX, FORMS, Family
from dsr.questions.language.templates import ROLES, Form

VERSIONS = ("as they are", "ensemble", "fresh noise", "other noise", "exact truth")
"""Kinds of versions of the cues; `Explanation.origin` has indices into these."""
WIDTH = 110
_SUGGESTIONS = 5
_CONDITIONS_SHOWN = 8
_SIDES = {"above": "above", "below": "below", "equal": "equal to"}


@dataclass(frozen=True, eq=False)
class Explanation:
    """A question with everything that its answer follows from."""

    row: dict[str, Any]
    """Row of the pool."""
    quartet: Sequence[dict[str, Any]]
    """Rows of the pool's other questions with the same options."""
    form: Form
    derivation: Derivation
    answer: str
    """The answer as it comes out on the cues as they are."""
    scene: Scene
    """Every version of the cues as a member."""
    origin: np.ndarray
    """[S] int, the kind of each version: an index into VERSIONS."""
    roles: dict[str, int]
    """`viewer` (where there is one), `a`, `b`, `c` -> entity of the scene."""
    frames: np.ndarray
    """[M] key moments."""
    confirms: np.ndarray
    """[S] bool, the versions on which the label comes out."""

    @property
    def times(self) -> np.ndarray:
        """[M] seconds of the key moments."""
        return self.scene.timestamps[0, self.frames]

    @property
    def right(self) -> str:
        """The text of the right option, without its letter."""
        return option_text(self.row)

    def ensemble(self) -> np.ndarray:
        """[S] bool: the cues as they are and the ensemble, of whose like all must agree for a question to be asked."""
        return self.origin <= VERSIONS.index("ensemble")

    def agreement(self) -> dict[str, tuple[int, int]]:
        """For each kind of version that there is: how many confirm the label, and how many there are."""
        return {
            name: (int(self.confirms[self.origin == i].sum()), int((self.origin == i).sum()))
            for i, name in enumerate(VERSIONS)
            if (self.origin == i).any()
        }

    def by_closeness(self) -> list[tuple[Condition, int]]:
        """Conditions, the closest call first, each with the ensemble member that came closest to not meeting it."""
        members = np.flatnonzero(self.ensemble())
        found = []
        for condition in self.derivation.conditions:
            own = members[:1] if condition.alone else members
            # What a version does not know, it does not meet.
            margins = np.where(np.isnan(condition.margins[own]), -np.inf, condition.margins[own])
            found.append((margins.min(), condition, int(own[margins.argmin()])))
        return [(condition, member) for _, condition, member in sorted(found, key=lambda f: f[0])]


def explain(params: Params, root: Path, qa_id: str) -> tuple[Explanation, ClipCues, Clip | None]:
    """Find a question, its cues and its clip, and explain it.

    Raises:
        StageError: no pool, no such question (the nearest ids are named), no usable cues.
    """
    row, quartet = find_question(root / project.POOL, qa_id)
    clip = find_clip(root, row["videoID"])
    cues = find_cues(root, row["videoID"], skip=PIXELWISE)
    truth = clip if params.cues.backend == "simulated" else None
    try:
        exact = exact_cues(truth, cues) if truth else None
    except ValueError:
        exact = None  # The truth's file is gone or damaged: one check fewer.
    return explain_question(row, quartet, cues, exact, params.qa), cues, clip


def find_question(path: Path, qa_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a question, and those of the others in its quartet.

    Raises:
        StageError: no readable pool, or no such question.
    """
    if not path.exists():
        raise StageError(f"{path} does not exist: run `dvc repro` or `dsr qa` first")
    try:
        found = pd.read_parquet(path, filters=[("qa_id", "==", qa_id)])
        if found.empty:
            raise StageError(f"{path} has no question {qa_id!r}" + _nearest(path, qa_id))
        row = found.iloc[0].to_dict()
        others = pd.read_parquet(path, filters=[("quartet_id", "==", row["quartet_id"])])
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"{path} cannot be used ({error}): run the qa stage again") from None
    return row, [r for r in others.to_dict("records") if r["qa_id"] != qa_id]


def explain_question(
    row: dict[str, Any], quartet: Sequence[dict[str, Any]], cues: ClipCues, exact: ClipCues | None, qa: QA
) -> Explanation:
    """Work out a question's signal, states and answer on every version of its clip's cues.

    Args:
        row: of the pool.
        exact: the simulator's truth, for a simulated clip.

    Raises:
        StageError: the question's form is not known, or it is about other cues than these.
    """
    index = FORM_INDEX.get(row.get("form", ""))
    if index is None:
        raise StageError(f"question {row['qa_id']} is of no known form: run the qa stage again")
    form = FORMS[index]
    scene, origin = _versions(cues, exact, qa)
    try:
        batch = question_batch([row], form, scene)
    except ValueError as error:
        raise StageError(f"question {row['qa_id']}: {error}") from None
    viewer, targets = int(batch.viewer[0]), [int(t) for t in batch.targets[0, : form.num_targets]]
    roles = ({"viewer": viewer} if viewer >= 0 else {}) | dict(zip("abc", targets, strict=False))
    derivation, answer = _derive(scene, form, batch, _names(scene, roles), qa)
    confirms = confirmed_labels(scene, [row], qa)[0] == 1
    return Explanation(row, quartet, form, derivation, answer, scene, origin, roles, batch.frames[0], confirms)


def closest_margins(rows: Sequence[dict[str, Any]], cues: ClipCues, qa: QA) -> list[float]:
    """Smallest margin of each question's conditions over the ensemble, as `Explanation.by_closeness` begins with.

    Args:
        rows: of the pool, all about the clip of `cues`.

    Returns:
        Shares of the limits; -inf for a question that does not follow from these cues any more.
    """
    try:
        scene = _ensemble(cues, qa)
    except StageError:
        return [-np.inf] * len(rows)
    return [_closest_margin(scene, row, qa) for row in rows]


def _closest_margin(scene: Scene, row: dict[str, Any], qa: QA) -> float:
    index = FORM_INDEX.get(row.get("form", ""))
    if index is None:
        return -np.inf
    try:
        batch = question_batch([row], FORMS[index], scene)
    except ValueError:
        return -np.inf
    derivation, answer = _derive(scene, FORMS[index], batch, dict.fromkeys(ROLES, ""), qa)
    if answer != option_text(row):
        return -np.inf
    margins = [condition.margins[: 1 if condition.alone else None] for condition in derivation.conditions]
    return min(float(np.where(np.isnan(own), -np.inf, own).min()) for own in margins)


def explanation_text(found: Explanation) -> str:
    """An explanation for the terminal; equal explanations are equal texts."""
    row, derivation = found.row, found.derivation
    lines = [f"{row['qa_id']}   {row['type']}, quartet {row['quartet_id']}", ""]
    lines += [*_wrapped(row["question"]), ""]
    lines += [
        f"{'>' if letter == row['answer'] else ' '} {o}" for letter, o in zip(LETTERS, row["options"], strict=True)
    ]
    lines += ["", "Asked", *_facts(found), "", f"Measured: {derivation.signal}"]
    lines += _table(derivation.columns, derivation.rows)
    lines += ["", f"Answer: {found.answer}"]
    if found.answer != found.right:
        lines += [
            f"NOT the option that the pool calls right ({found.right}): its cues have changed since; run qa again"
        ]
    lines += ["", "Why the label holds: versions of the cues that give it (the ensemble is drawn again)"]
    lines += [f"  {name:12} {agree} of {of} agree" for name, (agree, of) in found.agreement().items()]
    conditions = found.by_closeness()
    lines += [
        "",
        "Conditions, the closest call first: margin there, value on the cues (over all versions), limit",
    ]
    for condition, member in conditions[:_CONDITIONS_SHOWN]:
        lines += _wrapped(f"{_margin(condition, member):>7}  {condition.text()}", "  ", " " * 11)
    if len(conditions) > _CONDITIONS_SHOWN:
        lines.append(f"  and {len(conditions) - _CONDITIONS_SHOWN} that are farther from their limits")
    lines += ["", "Its quartet: the same options, each right once"]
    for other in found.quartet:
        lines += _wrapped(f"{other['answer']}  {other['qa_id']}: {option_text(other)}", "  ", "     ")
    return "\n".join(lines)


def closest_call(found: Explanation) -> str:
    """The condition that came closest to its limit, in one line."""
    condition, member = found.by_closeness()[0]
    key = f", {condition.key}" if condition.key else ""
    value, limit = condition.values[member], condition.limit
    return f"{condition.what} = {value:.3g}, {_SIDES[condition.side]} {limit:.3g}{key} ({_margin(condition, member)})"


def _margin(condition: Condition, member: int) -> str:
    margin = float(condition.margins[member])
    return f"{margin:+.1%}" if np.isfinite(margin) else "holds" if margin > 0 else "fails"


def _versions(cues: ClipCues, exact: ClipCues | None, qa: QA) -> tuple[Scene, np.ndarray]:
    """A scene whose members are all versions of the cues, and [S] int, an index into VERSIONS."""
    made = _ensemble(cues, qa)
    name = zlib.crc32(str(cues.meta["clip_id"]).encode())
    # The audit's versions are the audit's own, with its seed.
    audited, checks = all_versions(cues, exact, qa, np.random.default_rng([qa.audit.seed, name, 2]))
    other = checks > CHECKS.index("same")
    origin = np.concatenate([[0], np.full(made.positions.shape[-1] - 1, 1), checks[other] + 1])
    positions = np.concatenate([made.positions, audited.positions[..., other]], axis=-1)
    axes = np.concatenate([made.axes, audited.axes[..., other]], axis=-1)
    return replace(made, positions=positions, axes=axes), origin


def _ensemble(cues: ClipCues, qa: QA) -> Scene:
    """A scene of the cues as they are and of an ensemble drawn for this clip, seeded by it."""
    name = zlib.crc32(str(cues.meta["clip_id"]).encode())
    made = build_scene(cues, qa.ensemble, np.random.default_rng([qa.seed, name]))
    if made is None:
        raise StageError(f"no track of clip {cues.meta['clip_id']} is seen in front of the camera")
    return made


def _names(scene: Scene, roles: dict[str, int]) -> dict[str, str]:
    """Names by role, such as "the dog", with the track's number where several of the roles have the same label."""
    labels = [scene.labels[entity] for entity in roles.values()]
    return {
        role: _track(scene, entity) if entity > 0 and labels.count(scene.labels[entity]) > 1 else _name(scene, entity)
        for role, entity in roles.items()
    }


def _name(scene: Scene, entity: int) -> str:
    return f"the {scene.labels[entity]}"


def _track(scene: Scene, entity: int) -> str:
    return _name(scene, entity) + (f" (track {entity - 1})" if entity > 0 else "")


def _derive(scene: Scene, form: Form, batch: QuestionBatch, names: dict[str, str], qa: QA) -> tuple[Derivation, str]:
    """Derivation of a question's answer, and its answer on the cues as they are."""
    if isinstance(form, Family):
        return derive_family(form, family_moments(scene, form, batch, Members(scene, slice(None))), names, qa)
    return derive_template(scene, form, batch, names, qa)


def _nearest(path: Path, qa_id: str) -> str:
    known = pd.read_parquet(path, columns=["qa_id"])["qa_id"].tolist()
    near = difflib.get_close_matches(qa_id, known, n=_SUGGESTIONS, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else f"; its questions are such as {', '.join(known[:2])}"


def _facts(found: Explanation) -> list[str]:
    row, form = found.row, found.form
    times, frames = found.times, found.frames
    viewpoint = {
        "none": "none: nothing depends on whose eyes",
        "moving": "moving with {}",
        "fixed": "of {} at {:.2f} s",
    }[form.viewer]
    at = times[form.stated]
    if isinstance(form, Family) and form.at_end:
        viewpoint, at = "of {} at {:.2f} s", times[-1]
    viewer = found.roles.get("viewer")
    who = "" if viewer is None else _track(found.scene, viewer)
    facts = {
        "clip": f"{row['videoID']}, block {row.get('block', '?')}",
        "form": f"{row['form']}, {form.num_targets} target{'s' if form.num_targets > 1 else ''}",
        "viewpoint": viewpoint.format(who, at),
        "targets": ", ".join(_track(found.scene, entity) for role, entity in found.roles.items() if role != "viewer"),
        "moments": ", ".join(f"{t:.2f} s" for t in times) + f" (frames {', '.join(map(str, frames))})",
    }
    if form.signal == "dir_pred":
        facts["shown"] = f"the clip up to {times[1]:.2f} s; what follows is on {times[2]:.2f} s, which is not shown"
    return [line for name, fact in facts.items() for line in _wrapped(f"{name:10} {fact}", "  ", " " * 13)]


def option_text(row: dict[str, Any]) -> str:
    return bare(row["options"][LETTERS.index(row["answer"])])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [columns, *rows]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))).rstrip()
        for line in lines
    ]


def _wrapped(text: str, first: str = "", later: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False) or [""]
