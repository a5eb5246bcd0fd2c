"""Candidate questions of a clip: drawn, evaluated on the ensemble, kept where every member agrees.

All candidates of a form are evaluated at once; the arrays are [K, M, axes, S]. A cheap pass over a few members
sorts out most of what will not hold before all members are looked at.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, fields

import numpy as np

from dsr.geometry.frames import express
from dsr.geometry.signals import length
from dsr.params import QA
from dsr.qa.answers import (
    change_states,
    comparison_states,
    decode_run_lengths,
    direction_states,
    run_lengths,
)
from dsr.qa.free_form import FAMILIES, Family, Moments
from dsr.qa.scene import AGENT, CAMERA, OBJECT, Scene
from dsr.qa.templates import FORMS as TEMPLATES
from dsr.qa.templates import TYPES, Form, answer_text, encode_states, num_axes

FORMS: tuple[Form, ...] = (*TEMPLATES, *FAMILIES)
MAX_MOMENTS = max(form.num_moments for form in FORMS)
MAX_TARGETS = max(form.num_targets for form in FORMS)
FORM_TYPES = np.array([TYPES.index(form.type) for form in FORMS])
DURATION_FACTOR = 1.6
_QUICK_MEMBERS = 5
_NONE = -1
_NOTHING = np.zeros(0, np.float32)


@dataclass(eq=False)
class Candidates:
    """Columns of K candidates; entities are as in Scene, -1 where there is none."""

    form: np.ndarray
    """[K] int16, index into FORMS."""
    viewer: np.ndarray
    """[K] int16."""
    targets: np.ndarray
    """[K, MAX_TARGETS] int16."""
    frames: np.ndarray
    """[K, MAX_MOMENTS] int16 key moments, -1 after the last."""
    answer: np.ndarray
    """[K] int64, code of `answers.run_lengths`, or a free-form family's."""
    signal: np.ndarray
    """[K, MAX_MOMENTS, 3] float32, the signal at the moments (speeds: over the steps), NaN elsewhere."""
    signature: np.ndarray
    """[K] int64: what a question's text gives away; equal for the members of a quartet."""
    boxes: np.ndarray
    """[K, 1 + MAX_TARGETS, 4] float32, viewer's and targets' boxes at the stated moment, shares of the image."""

    def __len__(self) -> int:
        return len(self.form)

    def take(self, index: np.ndarray) -> "Candidates":
        return Candidates(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def concatenate(cls, parts: list["Candidates"]) -> "Candidates":
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


def find_candidates(scene: Scene, qa: QA, rng: np.random.Generator) -> tuple[Candidates, Counter[str]]:
    """All candidates of a clip that hold, and for each reason how many of the drawn ones fell to it."""
    quick = Members(scene, slice(0, min(_QUICK_MEMBERS, scene.positions.shape[-1])))
    full = Members(scene, slice(None))
    parts, counts = [], Counter[str]()
    for index, form in enumerate(FORMS):
        drawn = _draw(scene, form, qa, rng, counts)
        if drawn is not None:
            parts.append(_evaluate(scene, index, drawn, qa, (quick, full), counts))
    found = Candidates.concatenate(parts) if parts else _empty()
    kept = found.take(_diverse(found, qa.keep_per_clip_type, rng, counts))
    counts["candidates"] = len(kept)
    return kept, counts


@dataclass(frozen=True, eq=False)
class Drawn:
    viewer: np.ndarray
    targets: np.ndarray
    frames: np.ndarray

    def take(self, index: np.ndarray) -> "Drawn":
        return Drawn(self.viewer[index], self.targets[index], self.frames[index])


class Members:
    """Some of a scene's ensemble members, laid out for gathering."""

    def __init__(self, scene: Scene, members: slice) -> None:
        self.positions = np.ascontiguousarray(scene.positions[..., members])
        self.axes = np.ascontiguousarray(scene.axes[..., members])
        agents = self.axes[(scene.kinds == AGENT)[:, None] & scene.oriented][..., :, 2, :]
        total = agents.sum(axis=0)
        with np.errstate(invalid="ignore"):
            self.up = total / length(total)
        """[3, S] mean up of the agents; NaN without any."""


def _draw(scene: Scene, form: Form, qa: QA, rng: np.random.Generator, counts: Counter[str]) -> Drawn | None:
    """Random viewers, targets and moments of a form, without those that cannot be asked."""
    choices = qa.steps.non_temp if isinstance(form, Family) else getattr(qa.steps, form.signal)
    steps = np.array([s for s in choices if s * (form.num_moments - 1) < scene.located.shape[1]])
    facing = scene.oriented.any(axis=1) & (scene.kinds != OBJECT)
    viewers = np.flatnonzero(facing) if form.viewer != "none" else np.array([_NONE])
    possible = facing if form.oriented_target else scene.located.any(axis=1)
    targets = np.flatnonzero(possible & ((scene.kinds != CAMERA) | form.camera_target))
    if not len(steps) or not len(viewers) or len(targets) < form.num_targets:
        return None

    k = qa.candidates
    moments = np.arange(form.num_moments)
    entities = np.full((k, 1 + MAX_TARGETS), _NONE)
    entities[:, 0] = rng.choice(viewers, k)
    entities[:, 1 : 1 + form.num_targets] = rng.choice(targets, (k, form.num_targets))
    if form.type == "rel_dis" and form.num_targets == 2:
        entities[:, 1:3].sort(axis=1)  # the distance of a pair is symmetric
    step = rng.choice(steps, k)
    last_start = scene.located.shape[1] - 1 - step * moments[-1]
    first = np.floor(rng.random(k) * (last_start + 1)).astype(int)
    distinct = np.ones(k, bool)
    for i, j in itertools.combinations(range(1 + form.num_targets), 2):
        distinct &= entities[:, i] != entities[:, j]
    _, once = np.unique(_pack([*entities[distinct].T, first[distinct], step[distinct]]), return_index=True)
    entities, first, step = entities[distinct][once], first[distinct][once], step[distinct][once]
    drawn = Drawn(entities[:, 0], entities[:, 1:], first[:, None] + step[:, None] * moments)
    counts["drawn"] += len(once)
    seen = _seen_throughout(scene, form, drawn)
    counts["out of view in the interval"] += int((~seen).sum())
    drawn = drawn.take(seen)
    clear = _identifiable(scene, form, drawn, qa)
    counts["not identifiable by its box"] += int((~clear).sum())
    return drawn.take(clear)


def _seen_throughout(scene: Scene, form: Form, drawn: Drawn) -> np.ndarray:
    """[K] bool: positions and axes that the signal needs are known at every frame that it spans."""
    first, last = drawn.frames[:, 0], drawn.frames[:, -1]
    stated = drawn.frames[:, form.stated]
    located = np.pad(np.cumsum(scene.located, axis=1), ((0, 0), (1, 0)))
    oriented = np.pad(np.cumsum(scene.oriented, axis=1), ((0, 0), (1, 0)))

    def throughout(total: np.ndarray, entity: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        return (total[entity, stop + 1] - total[entity, start] == stop - start + 1) | (entity == _NONE)

    seen = np.ones(len(first), bool)
    for target in drawn.targets.T:
        seen &= throughout(located, target, first, last)
    if form.oriented_target:
        seen &= throughout(oriented, drawn.targets[:, 0], first, last)
    start, stop = (stated, stated) if form.viewer == "fixed" else (first, last)
    seen &= throughout(located, drawn.viewer, start, stop)
    if form.needs_axes:
        seen &= throughout(oriented, drawn.viewer, start, stop)
    return seen


def _identifiable(scene: Scene, form: Form, drawn: Drawn, qa: QA) -> np.ndarray:
    """[K] bool: every mentioned track has a box at the stated moment, large enough and apart from the others."""
    boxes = _mentioned_boxes(scene, drawn, form.stated)
    named = np.concatenate([drawn.viewer[:, None], drawn.targets], axis=1) > CAMERA
    size = boxes[..., 2:] - boxes[..., :2]
    with np.errstate(invalid="ignore"):
        clear = ((size >= qa.min_box).all(axis=-1) | ~named).all(axis=1)
        for i, j in itertools.combinations(range(1 + form.num_targets), 2):
            both = named[:, i] & named[:, j]
            clear &= ~(both & (_overlap(boxes[:, i], boxes[:, j]) > qa.max_box_overlap))
    return clear


def _mentioned_boxes(scene: Scene, drawn: Drawn, stated: int) -> np.ndarray:
    """[K, 1 + MAX_TARGETS, 4] boxes of viewer and targets at the stated moment; NaN for the camera and for none."""
    entities = np.concatenate([drawn.viewer[:, None], drawn.targets], axis=1)
    return scene.boxes[np.maximum(entities, CAMERA), drawn.frames[:, stated, None]]


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [K, 4]."""
    extent = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    intersection = np.prod(np.maximum(extent, 0), axis=1)
    areas = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1)
    return intersection / (areas - intersection)


def _evaluate(
    scene: Scene,
    index: int,
    drawn: Drawn,
    qa: QA,
    members: tuple[Members, Members],
    counts: Counter[str],
) -> Candidates:
    """The candidates whose answer exists and is the same on every member."""
    form = FORMS[index]
    for ensemble in members:
        signal, states, valid = signal_states(scene, form, drawn, qa, ensemble)
        exists = valid[:, 0]
        agree = (states == states[..., :1]).all(axis=(1, 2, 3)) & valid.all(axis=1)
        counts["no clear answer" if isinstance(form, Family) else "below a floor"] += int((~exists).sum())
        counts["label not stable"] += int((exists & ~agree).sum())
        drawn, signal, states = drawn.take(agree), signal[agree], states[agree]
    states = states[..., 0]
    if form.signal == "dir_pred":
        continues = (states[:, 0] == states[:, 1]).all(axis=1)
        counts["not predictable"] += int((~continues).sum())
        drawn, signal, states = drawn.take(continues), signal[continues], states[continues, 1:]
    k, moments, axes = signal.shape
    padded = np.full((k, MAX_MOMENTS, 3), np.nan, np.float32)
    padded[:, :moments, :axes] = signal
    frames = np.full((k, MAX_MOMENTS), _NONE, np.int16)
    frames[:, : drawn.frames.shape[1]] = drawn.frames
    boxes = _mentioned_boxes(scene, drawn, form.stated)
    return Candidates(
        form=np.full(k, index, np.int16),
        viewer=drawn.viewer.astype(np.int16),
        targets=drawn.targets.astype(np.int16),
        frames=frames,
        answer=states[:, 0, 0].astype(np.int64) if isinstance(form, Family) else run_lengths(states),
        signal=padded,
        signature=_signatures(scene, index, drawn, boxes, qa),
        boxes=boxes.astype(np.float32),
    )


def signal_states(
    scene: Scene, form: Form, drawn: Drawn, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signal of member 0 [K, M, axes], states [K, M, axes, S] int8, whether every state exists [K, S]."""
    if isinstance(form, Family):
        return _family_states(scene, form, drawn, qa, members)
    frames = drawn.frames
    viewer_frames = frames[:, [form.stated]] if form.viewer == "fixed" else frames
    pair = form.num_targets == 2
    place = members.positions[drawn.targets[:, [0]], frames]
    other = members.positions[drawn.targets[:, [1]], frames] if pair else _NOTHING
    viewer = members.positions[drawn.viewer[:, None], viewer_frames] if form.viewer != "none" else _NOTHING
    axes = members.axes[drawn.viewer[:, None], viewer_frames] if form.needs_axes else _NOTHING

    with np.errstate(invalid="ignore", divide="ignore"):
        match form.signal:
            case "dis":
                distance = length(place - (other if pair else viewer))
                exists = _throughout(distance >= qa.min_distance)
                return distance[..., :1], change_states(distance, qa.ratio_tolerance), exists
            case "ori":
                seen = express(members.axes[drawn.targets[:, [0]], frames][..., :, 0, :], axes)
                floor = 0.0
            case "dir":
                seen, floor = express(other - place if pair else place - viewer, axes), qa.min_direction
            case "dir_pred" if form.viewer == "moving":
                seen, floor = np.diff(express(place - viewer, axes), axis=1), qa.min_displacement
            case "dir_pred":
                seen, floor = express(np.diff(place, axis=1), axes), qa.min_displacement
            case _:
                paths = [place, other][: form.num_targets]
                if form.viewer != "none":
                    paths = [path - viewer for path in paths]
                return _speed_states(paths, np.diff(scene.timestamps[frames], axis=1)[..., None], qa)
        return seen[..., 0], direction_states(seen, qa.dead_zone), _throughout(length(seen) >= floor)


def _speed_states(paths: list[np.ndarray], seconds: np.ndarray, qa: QA) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `signal_states`, for the change of one speed or the comparison of two; paths are [K, M, 3, S].

    A slow step's speed is set to the floor's: it can still be told from a fast one. No two slow speeds are compared,
    and no slow one is called about as fast.
    """
    displacements = [length(np.diff(path, axis=1)) for path in paths]
    speeds = [np.maximum(displacement, qa.min_displacement) / seconds for displacement in displacements]
    slow = [displacement < qa.min_displacement for displacement in displacements]
    if len(paths) == 1:
        states = change_states(speeds[0], qa.speed_tolerance)
        slow = [slow[0][:, :-1], slow[0][:, 1:]]
    else:
        states = comparison_states(speeds[0], speeds[1], qa.speed_tolerance)
    unknown = (slow[0] & slow[1]) | ((slow[0] | slow[1]) & (states[:, :, 0] == 0))
    return np.stack([speed[..., 0] for speed in speeds], axis=-1), states, _throughout(~unknown)


def _throughout(holds: np.ndarray) -> np.ndarray:
    """[K, S]: true at every moment of [K, M, S]."""
    return np.logical_and.reduce(holds, axis=1)


def _family_states(
    scene: Scene, form: Family, drawn: Drawn, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `signal_states`: one state a question, which is its answer; the signal is the answer too."""
    frames = drawn.frames
    targets = [members.positions[drawn.targets[:, [i]], frames] for i in range(form.num_targets)]
    has_viewer = form.viewer != "none"
    moments = Moments(
        targets=targets,
        facing=members.axes[drawn.targets[:, [0]], frames][..., :, 0, :],
        viewer=members.positions[drawn.viewer[:, None], frames] if has_viewer else np.full_like(targets[0], np.nan),
        axes=members.axes[drawn.viewer[:, None], frames] if form.needs_axes else _NOTHING,
        own_up=members.axes[drawn.targets[:, [0]], frames[:, :1]][..., :, 2, :],
        up=members.up,
        seconds=scene.timestamps[frames],
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = form.decide(moments, qa)
    return codes[:, None, :1].astype(np.float32), codes[:, None, None].astype(np.int8), codes >= 0


def _signatures(scene: Scene, index: int, drawn: Drawn, boxes: np.ndarray, qa: QA) -> np.ndarray:
    """[K] int64: form, kinds, duration class, who moves, and for directions where the boxes are."""
    form = FORMS[index]
    frames = drawn.frames
    parts: list[tuple[np.ndarray, int]] = []
    if form.signal == "dir_pred":
        # How long a clip runs before it stops says nothing about what follows.
        frames = frames[:, :2]
    else:
        duration = scene.timestamps[frames[:, -1]] - scene.timestamps[frames[:, 0]]
        duration_class = np.floor(np.log(np.maximum(duration, 0.1)) / np.log(DURATION_FACTOR)).astype(int)
        parts.append((duration_class + 5, 32))
    parts.append((np.where(drawn.viewer == _NONE, 0, 1 + (drawn.viewer > CAMERA)), 3))
    for target in drawn.targets.T[: form.num_targets]:
        parts.append((scene.kinds[target], 3))
        path = scene.positions[target[:, None], frames, :, 0]
        moved = np.sqrt(((path - path[:, :1]) ** 2).sum(axis=2)).max(axis=1) > qa.min_displacement
        parts.append((moved.astype(int), 2))
    if form.num_targets == 3:
        parts.append((_height_order(boxes[:, 1:]), 6))
    elif form.needs_axes:
        parts += _box_classes(boxes[:, 1 : 1 + form.num_targets])
    code = np.zeros(len(frames), np.int64)
    for values, size in parts:
        code = code * size + np.clip(values, 0, size - 1)
    # Last, so that no two forms share a code, however many parts each has.
    return code * len(FORMS) + index


def _box_classes(boxes: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Column, height class and left-right order of targets' boxes [K, 1 or 2, 4]; the camera's are 0."""
    known = np.isfinite(boxes[..., 0])
    centre = np.nan_to_num((boxes[..., 0] + boxes[..., 2]) / 2)
    height = np.where(known, boxes[..., 3] - boxes[..., 1], 1.0)
    column = np.where(known, 1 + np.floor(3 * np.clip(centre, 0, 0.999)).astype(int), 0)
    size = np.where(known, 1 + np.clip(np.floor(-np.log2(height)), 0, 3).astype(int), 0)
    parts = [(column[:, i], 4) for i in range(boxes.shape[1])] + [(size[:, i], 5) for i in range(boxes.shape[1])]
    if boxes.shape[1] == 2:
        parts.append((np.where(known.all(axis=1), 1 + (centre[:, 0] > centre[:, 1]), 0), 3))
    return parts


def _height_order(boxes: np.ndarray) -> np.ndarray:
    """Order of three boxes [K, 3, 4] by height: what they tell of who is near."""
    order = np.argsort(boxes[..., 3] - boxes[..., 1], axis=1)
    return 2 * order[:, 0] + (order[:, 1] > order[:, 2])


def describe_answer(form: Form, code: int) -> tuple[str, str]:
    """An answer's code as a sentence and as compact states."""
    if isinstance(form, Family):
        return form.answers[code], str(code)
    answer = decode_run_lengths(code, num_axes(form.signal))
    return answer_text(form.vocabulary, answer), encode_states(answer)


def _diverse(found: Candidates, keep: int, rng: np.random.Generator, counts: Counter[str]) -> np.ndarray:
    """Indices of at most `keep` candidates a type: one a viewer, targets and answer, the answers taken in turn."""
    order = rng.permutation(len(found))
    same = _pack([found.form, found.viewer, *found.targets.T, found.answer])[order]
    _, first = np.unique(same, return_index=True)
    counts["repeats another question"] += len(found) - len(first)
    order = order[np.sort(first)]
    types = FORM_TYPES[found.form[order]]
    turn = _rank_within(_pack([found.form[order], found.answer[order]]))
    order = order[np.lexsort((turn, types))]
    place = _rank_within(FORM_TYPES[found.form[order]])
    counts["enough of its clip and type"] += int((place >= keep).sum())
    return order[place < keep]


def _rank_within(keys: np.ndarray) -> np.ndarray:
    """For each of the integer keys [K], how many equal ones stand before it."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] - 1))
    sizes = np.diff(starts, append=len(keys))
    rank = np.empty(len(keys), int)
    rank[order] = np.arange(len(keys)) - np.repeat(starts, sizes)
    return rank


def _pack(columns: list[np.ndarray]) -> np.ndarray:
    """Columns of integers from -1 up, [K] each, as one int64 a row: equal rows have equal codes."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        code = code * (int(column.max(initial=0)) + 2) + (column + 1)
    return code


def _empty() -> Candidates:
    return Candidates(
        form=np.zeros(0, np.int16),
        viewer=np.zeros(0, np.int16),
        targets=np.zeros((0, MAX_TARGETS), np.int16),
        frames=np.zeros((0, MAX_MOMENTS), np.int16),
        answer=np.zeros(0, np.int64),
        signal=np.zeros((0, MAX_MOMENTS, 3), np.float32),
        signature=np.zeros(0, np.int64),
        boxes=np.zeros((0, 1 + MAX_TARGETS, 4), np.float32),
    )
