"""Candidate questions: drawn, evaluated on the ensemble, kept where every member agrees.

All candidates of a form, of all clips of a scene, are evaluated at once; the arrays are [K, M, axes, S]. A cheap pass
over a few members sorts out most of what will not hold before all members are looked at.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
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
ANSWERED, STABLE = "answered: ", "stable: "
"""Counts by type (its name follows): candidates that have an answer, and those whose answer all members give."""
_FORMS_OF_TYPE = Counter(form.type for form in FORMS)
_QUICK_MEMBERS = 5
_NONE = -1
_NOTHING = np.zeros(0, np.float32)


@dataclass(eq=False)
class Candidates:
    """Columns of K candidates; entities are counted in their clip (0 the camera), -1 where there is none."""

    clip: np.ndarray
    """[K] int32, place of the clip among those that the scene was built of."""
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
    times: np.ndarray
    """[K, 2] float32, seconds at which the interval that a question names begins and ends."""

    def __len__(self) -> int:
        return len(self.form)

    def take(self, index: np.ndarray) -> "Candidates":
        return Candidates(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def concatenate(cls, parts: Sequence["Candidates"]) -> "Candidates":
        parts = [_empty(), *parts]
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


def find_candidates(scene: Scene, qa: QA, rng: np.random.Generator) -> tuple[Candidates, Counter[str]]:
    """All candidates of a scene's clips that hold, and for each reason how many of the drawn ones fell to it."""
    members = [Members(scene, slice(0, count)) for count in (1, _QUICK_MEMBERS, None)]
    parts, counts = [], Counter[str]()
    for index, form in enumerate(FORMS):
        drawn = _draw(scene, form, qa, rng, counts)
        if drawn is not None:
            parts.append(_evaluate(scene, index, drawn, qa, members, counts))
    found = Candidates.concatenate(parts)
    kept = found.take(_diverse(found, qa.keep_per_clip_type, rng, counts))
    counts["candidates"] = len(kept)
    return kept, counts


@dataclass(frozen=True, eq=False)
class Drawn:
    """Questions of one form; entities are those of the scene, -1 where there is none."""

    viewer: np.ndarray
    """[K] int."""
    targets: np.ndarray
    """[K, MAX_TARGETS] int."""
    frames: np.ndarray
    """[K, moments] int."""

    def take(self, index: np.ndarray) -> "Drawn":
        return Drawn(self.viewer[index], self.targets[index], self.frames[index])


class Members:
    """Some of a scene's ensemble members, laid out for gathering.

    What `at` and `axes_at` return lies in memory component by component and moment by moment, so that the
    arithmetic on one of them runs over one stretch of memory.
    """

    def __init__(self, scene: Scene, members: slice) -> None:
        self._positions = _by_component(scene.positions[..., members])
        self._axes = _by_component(scene.axes[..., members])
        self._num_frames = scene.positions.shape[1]
        cameras = np.flatnonzero(scene.kinds == CAMERA)
        own = np.where((scene.kinds == AGENT)[:, None] & scene.oriented, 1.0, np.nan)[..., None, None]
        up = np.add.reduceat(np.nansum(scene.axes[..., :, 2, members] * own, axis=1), cameras)
        with np.errstate(invalid="ignore"):
            self.up = (up / length(up)[:, None])[np.searchsorted(cameras, scene.first)]
        """[E, 3, S] mean up of the agents of an entity's clip; NaN without any."""

    def at(self, entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M, 3, S] positions of entities [K] at frames [K, M]."""
        return self._gather(self._positions, entities, frames)

    def halfway(self, entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M - 1, 3, S] positions halfway between frames [K, M]; between two frames, their mean."""
        twice = frames[:, :-1] + frames[:, 1:]
        return (self.at(entities, twice // 2) + self.at(entities, (twice + 1) // 2)) / 2

    def axes_at(self, entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M, 3, 3, S] axes, likewise."""
        cells = self._gather(self._axes, entities, frames)
        return cells.reshape(*cells.shape[:2], 3, 3, cells.shape[-1])

    def direction_at(self, axis: int, entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M, 3, S] forward (0), left (1) or up (2) of entities [K] at frames [K, M], in the world."""
        return self._gather(self._axes[axis::3], entities, frames)

    def _gather(self, components: list[np.ndarray], entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M, components, S]."""
        place = entities * self._num_frames + frames.T
        gathered = np.empty((len(components), *place.shape, components[0].shape[1]), np.float32)
        for component, out in zip(components, gathered, strict=True):
            # Far faster than indexing; "clip" spares a copy, all places are valid.
            np.take(component, place, axis=0, out=out, mode="clip")
        return gathered.transpose(2, 1, 0, 3)


def _by_component(values: np.ndarray) -> list[np.ndarray]:
    """[E, T, 3, S] or [E, T, 3, 3, S] as 3 or 9 arrays [E * T, S]."""
    flat = values.reshape(values.shape[0] * values.shape[1], -1, values.shape[-1])
    return list(np.ascontiguousarray(np.moveaxis(flat, 1, 0)))


def _draw(scene: Scene, form: Form, qa: QA, rng: np.random.Generator, counts: Counter[str]) -> Drawn | None:
    """Random viewers, targets and moments of a form, without those that cannot be asked."""
    num_frames = scene.located.shape[1]
    choices = qa.steps.non_temp if isinstance(form, Family) else getattr(qa.steps, form.signal)
    steps = np.array([s for s in choices if s * (form.num_moments - 1) < num_frames])
    facing = scene.oriented.any(axis=1) & (scene.kinds != OBJECT)
    possible = facing if form.oriented_target else scene.located.any(axis=1)
    viewers = _Pick(scene, facing)
    targets = _Pick(scene, possible & ((scene.kinds != CAMERA) | form.camera_target))
    enough = targets.counts >= form.num_targets
    if form.viewer != "none":
        enough &= viewers.counts > 0
    if not len(steps) or not enough.any():
        return None

    clip = np.repeat(np.flatnonzero(enough), max(qa.candidates // min(_FORMS_OF_TYPE[form.type], 4), 1))
    k = len(clip)
    viewer = viewers(clip, 1, rng)[:, 0] if form.viewer != "none" else np.full(k, _NONE)
    entities = np.full((k, MAX_TARGETS), _NONE)
    entities[:, : form.num_targets] = targets(clip, form.num_targets, rng)
    if form.type == "rel_dis" and form.num_targets == 2:
        entities[:, :2].sort(axis=1)  # the distance of a pair is symmetric
    moments = np.arange(form.num_moments)
    step = steps[rng.integers(len(steps), size=k)]
    first = (rng.random(k) * (num_frames - step * moments[-1])).astype(int)
    drawn = Drawn(viewer, entities, first[:, None] + step[:, None] * moments)
    drawn = drawn.take(np.flatnonzero((viewer[:, None] != entities).all(axis=1) | (viewer == _NONE)))
    counts["drawn"] += len(drawn.viewer)
    seen = _seen_throughout(scene, form, drawn)
    counts["out of view in the interval"] += int((~seen).sum())
    drawn = drawn.take(np.flatnonzero(seen))
    clear = _identifiable(scene, form, drawn, qa)
    counts["not identifiable by its box"] += int((~clear).sum())
    return drawn.take(np.flatnonzero(clear))


class _Pick:
    """Random entities of clips, among those allowed."""

    def __init__(self, scene: Scene, allowed: np.ndarray) -> None:
        self.entities = np.flatnonzero(allowed)
        clips = np.arange(scene.clip[-1] + 1)
        self.starts = np.searchsorted(scene.clip[self.entities], clips)
        self.counts = np.searchsorted(scene.clip[self.entities], clips, side="right") - self.starts
        """[clips] allowed entities."""

    def __call__(self, clip: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """[K, count] different entities, all orders alike; the clips have that many."""
        chosen: list[np.ndarray] = []
        for number in range(count):
            place = (rng.random(len(clip)) * (self.counts[clip] - number)).astype(int)
            # The place is among those not yet chosen: step over the chosen ones, from the first on.
            for taken in np.sort(np.array(chosen), axis=0) if chosen else ():
                place += place >= taken
            chosen.append(place)
        return self.entities[self.starts[clip][:, None] + np.stack(chosen, axis=1)]


def _seen_throughout(scene: Scene, form: Form, drawn: Drawn) -> np.ndarray:
    """[K] bool: positions and axes that the signal needs are known at every frame that it spans."""
    first, last = drawn.frames[:, 0], drawn.frames[:, -1]
    stated = drawn.frames[:, form.stated]
    located, oriented = _known_until(scene.located), _known_until(scene.oriented)
    seen = np.ones(len(first), bool)
    for target in drawn.targets.T[: form.num_targets]:
        seen &= located[target, first] > last
    if form.oriented_target:
        seen &= oriented[drawn.targets[:, 0], first] > last
    if form.viewer != "none":
        start, stop = (stated, stated) if form.viewer == "fixed" else (first, last)
        seen &= located[drawn.viewer, start] > stop
        if form.needs_axes:
            seen &= oriented[drawn.viewer, start] > stop
    return seen


def _known_until(known: np.ndarray) -> np.ndarray:
    """[E, T] int: the first frame from each on at which [E, T] is false; T where it is true to the end."""
    frames = np.where(known, known.shape[1], np.arange(known.shape[1]))
    return np.minimum.accumulate(frames[:, ::-1], axis=1)[:, ::-1]


def _identifiable(scene: Scene, form: Form, drawn: Drawn, qa: QA) -> np.ndarray:
    """[K] bool: every mentioned track has a box at the stated moment, large enough and apart from the others."""
    boxes = _mentioned_boxes(scene, drawn, form.stated)
    clear = np.ones(len(drawn.viewer), bool)
    entities = [drawn.viewer, *drawn.targets.T[: form.num_targets]]
    named = [(entity != _NONE) & (scene.kinds[entity] != CAMERA) for entity in entities]
    with np.errstate(invalid="ignore"):
        for role, is_named in enumerate(named):
            x1, y1, x2, y2 = boxes[:, role].T
            clear &= ((x2 - x1 >= qa.min_box) & (y2 - y1 >= qa.min_box)) | ~is_named
        for i, j in itertools.combinations(range(len(named)), 2):
            # A box that is not there overlaps with none: comparisons with NaN are false.
            clear &= ~(_overlap(boxes[:, i].T, boxes[:, j].T) > qa.max_box_overlap)
    return clear


def _mentioned_boxes(scene: Scene, drawn: Drawn, stated: int) -> np.ndarray:
    """[K, 1 + MAX_TARGETS, 4] boxes of viewer and targets at the stated moment; NaN for the camera and for none."""
    entities = np.stack([drawn.viewer, *drawn.targets.T])
    place = entities * scene.boxes.shape[1] + drawn.frames[:, stated]
    boxes = np.empty((4, *entities.shape))
    for corner, out in zip(np.moveaxis(scene.boxes, -1, 0), boxes, strict=True):
        np.take(corner.ravel(), place, out=out, mode="wrap")
    boxes[:, entities == _NONE] = np.nan
    return boxes.transpose(2, 1, 0)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[K] intersection over union of boxes [4, K]."""
    width = np.maximum(np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]), 0)
    height = np.maximum(np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]), 0)
    intersection = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return intersection / (areas - intersection)


def _evaluate(
    scene: Scene,
    index: int,
    drawn: Drawn,
    qa: QA,
    members: Sequence[Members],
    counts: Counter[str],
) -> Candidates:
    """The candidates whose answer exists, is the same on every member, and tells all that the cues show.

    Args:
        members: the cues as they are, a few members, all.
    """
    form = FORMS[index]
    for turn, ensemble in enumerate(members[1:]):
        signal, states, valid = signal_states(scene, form, drawn, qa, ensemble)
        exists = valid[:, 0]
        agree = ((states == states[..., :1]).all(axis=2).all(axis=1) & valid).all(axis=1)
        counts["no clear answer" if isinstance(form, Family) else "below a floor"] += int((~exists).sum())
        counts["label not stable"] += int((exists & ~agree).sum())
        if turn == 0:
            counts[f"{ANSWERED}{form.type}"] += int(exists.sum())
        drawn, signal, states = drawn.take(np.flatnonzero(agree)), signal[agree], states[agree]
    counts[f"{STABLE}{form.type}"] += len(drawn.viewer)
    states = states[..., 0]
    if form.signal in ("dis", "dir", "ori"):
        told = told_between(scene, form, drawn, states, qa, members[0])
        counts["changes between its moments"] += int((~told).sum())
        drawn, signal, states = drawn.take(np.flatnonzero(told)), signal[told], states[told]
    if form.signal == "dir_pred":
        continues = (states[:, 0] == states[:, 1]).all(axis=1)
        counts["not predictable"] += int((~continues).sum())
        drawn, signal, states = drawn.take(np.flatnonzero(continues)), signal[continues], states[continues, 1:]
    k, moments, axes = signal.shape
    padded = np.full((k, MAX_MOMENTS, 3), np.nan, np.float32)
    padded[:, :moments, :axes] = signal
    frames = np.full((k, MAX_MOMENTS), _NONE, np.int16)
    frames[:, : drawn.frames.shape[1]] = drawn.frames
    boxes = _mentioned_boxes(scene, drawn, form.stated)
    first = scene.first[drawn.targets[:, 0]]
    return Candidates(
        clip=scene.clip[first].astype(np.int32),
        form=np.full(k, index, np.int16),
        viewer=np.where(drawn.viewer == _NONE, _NONE, drawn.viewer - first).astype(np.int16),
        targets=np.where(drawn.targets == _NONE, _NONE, drawn.targets - first[:, None]).astype(np.int16),
        frames=frames,
        answer=states[:, 0, 0].astype(np.int64) if isinstance(form, Family) else run_lengths(states),
        signal=padded,
        signature=_signatures(scene, index, drawn, states, qa),
        boxes=boxes.astype(np.float32),
        times=_named_times(scene, form, drawn).astype(np.float32),
    )


LOOKS_PER_STEP = 4
"""Looks at the signal from one key moment to the next."""


def told_between(scene: Scene, form: Form, drawn: Drawn, states: np.ndarray, qa: QA, members: Members) -> np.ndarray:
    """[K] bool: between two key moments the cues show nothing that the answer does not tell.

    A direction there is that of the moment before or after. A distance stays between those of the two, but for the
    tolerance; so it does not come and go unseen.
    """
    step = drawn.frames[:, [1]] - drawn.frames[:, [0]]
    looks = np.arange(LOOKS_PER_STEP * (form.num_moments - 1) + 1)
    frames = drawn.frames[:, [0]] + (step * looks + LOOKS_PER_STEP // 2) // LOOKS_PER_STEP
    signal, dense, _ = signal_states(scene, form, Drawn(drawn.viewer, drawn.targets, frames), qa, members)
    before, after = looks // LOOKS_PER_STEP, -(-looks // LOOKS_PER_STEP)
    if form.signal == "dis":
        log = np.log(signal[..., 0])
        key = log[:, ::LOOKS_PER_STEP]
        limit = np.log1p(qa.ratio_tolerance)
        low, high = np.minimum(key[:, before], key[:, after]), np.maximum(key[:, before], key[:, after])
        return ((log > low - limit) & (log < high + limit)).all(axis=1)
    dense = dense[..., 0]
    as_before = (dense == states[:, before]).all(axis=2)
    return (as_before | (dense == states[:, after]).all(axis=2)).all(axis=1)


def _named_times(scene: Scene, form: Form, drawn: Drawn) -> np.ndarray:
    """[K, 2] seconds: a prediction names its stop alone, and shows all that is before."""
    place = form.stated if form.signal == "dir_pred" else -1
    times = scene.timestamps[drawn.targets[:, [0, 0]], drawn.frames[:, [0, place]]]
    return np.stack([np.zeros(len(times)), times[:, 1]], axis=1) if form.signal == "dir_pred" else times


def signal_states(
    scene: Scene, form: Form, drawn: Drawn, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signal of member 0 [K, M, axes], states [K, M, axes, S] int8, whether every state exists [K, S]."""
    if isinstance(form, Family):
        return _family_states(scene, form, drawn, qa, members)
    frames = drawn.frames
    viewer_frames = frames[:, [form.stated]] if form.viewer == "fixed" else frames
    pair = form.num_targets == 2
    first, second = drawn.targets[:, 0], drawn.targets[:, 1]
    place = members.at(first, frames)
    other = members.at(second, frames) if pair else _NOTHING
    viewer = members.at(drawn.viewer, viewer_frames) if form.viewer != "none" else _NOTHING
    axes = members.axes_at(drawn.viewer, viewer_frames) if form.needs_axes else _NOTHING

    with np.errstate(invalid="ignore", divide="ignore"):
        match form.signal:
            case "dis":
                distance = length(place - (other if pair else viewer))
                states, clear = change_states(distance, qa.ratio_tolerance)
                return distance[..., :1], states, clear & _throughout(distance >= qa.min_distance)
            case "ori":
                seen = express(members.direction_at(0, first, frames), axes)
                floor = 0.0
            case "dir":
                seen, floor = express(other - place if pair else place - viewer, axes), qa.min_direction
            case "dir_pred" if form.viewer == "moving":
                seen, floor = np.diff(express(place - viewer, axes), axis=1), qa.min_displacement
            case "dir_pred":
                seen, floor = express(np.diff(place, axis=1), axes), qa.min_displacement
            case _:
                paths = [(place, members.halfway(first, frames))]
                if pair:
                    paths.append((other, members.halfway(second, frames)))
                if form.viewer != "none":
                    eyes = viewer, members.halfway(drawn.viewer, frames)
                    paths = [(path - eyes[0], middle - eyes[1]) for path, middle in paths]
                seconds = np.diff(scene.timestamps[first[:, None], frames], axis=1)
                return _speed_states(paths, seconds[..., None], qa)
        return seen[..., 0], direction_states(seen, qa.dead_zone), _throughout(length(seen) >= floor)


def _speed_states(
    paths: list[tuple[np.ndarray, np.ndarray]], seconds: np.ndarray, qa: QA
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `signal_states`, for the change of one speed or the comparison of two.

    The way of a step is measured over the frame halfway: the mere displacement of what circles is far too short. A
    slow step's speed is set to the floor's: it can still be told from a fast one. No two slow speeds are compared, and
    no slow one is called about as fast.

    Args:
        paths: positions at the moments [K, M, 3, S] and halfway between them [K, M - 1, 3, S].
        seconds: [K, M - 1, 1].
    """
    ways = [length(middle - path[:, :-1]) + length(path[:, 1:] - middle) for path, middle in paths]
    speeds = [np.maximum(way, qa.min_displacement) / seconds for way in ways]
    slow = [way < qa.min_displacement for way in ways]
    if len(paths) == 1:
        states, clear = change_states(speeds[0], qa.speed_tolerance)
        slow = [slow[0][:, :-1], slow[0][:, 1:]]
    else:
        states = comparison_states(speeds[0], speeds[1], qa.speed_tolerance)
        clear = np.ones(slow[0][:, 0].shape, bool)
    unknown = (slow[0] & slow[1]) | ((slow[0] | slow[1]) & (states[:, :, 0] == 0))
    return np.stack([speed[..., 0] for speed in speeds], axis=-1), states, clear & _throughout(~unknown)


def _throughout(holds: np.ndarray) -> np.ndarray:
    """[K, S]: true at every moment of [K, M, S]."""
    return np.logical_and.reduce(holds, axis=1)


def _family_states(
    scene: Scene, form: Family, drawn: Drawn, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `signal_states`: one state a question, which is its answer; the signal is the answer too."""
    frames = drawn.frames
    first = drawn.targets[:, 0]
    targets = [members.at(target, frames) for target in drawn.targets.T[: form.num_targets]]
    has_viewer = form.viewer != "none"
    moments = Moments(
        targets=targets,
        facing=members.direction_at(0, first, frames) if form.oriented_target else _NOTHING,
        viewer=members.at(drawn.viewer, frames) if has_viewer else np.full_like(targets[0], np.nan),
        axes=members.axes_at(drawn.viewer, frames) if form.needs_axes else _NOTHING,
        own_up=members.direction_at(2, first, frames[:, :1]) if form.oriented_target else _NOTHING,
        up=members.up[first, None],
        seconds=scene.timestamps[first[:, None], frames],
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = form.decide(moments, qa)
    return codes[:, None, :1].astype(np.float32), codes[:, None, None].astype(np.int8), codes >= 0


def _signatures(scene: Scene, index: int, drawn: Drawn, states: np.ndarray, qa: QA) -> np.ndarray:
    """[K] int64: form, kinds, duration class, who moves, and what the camera sees at the stated moment.

    What else a text tells (boxes, times) is balanced (qa/propensity.py), which wastes fewer questions.
    """
    form = FORMS[index]
    frames = drawn.frames
    parts: list[tuple[np.ndarray, int]] = []
    if form.signal == "dir_pred":
        # How long a clip runs before it stops says nothing about what follows.
        frames = frames[:, :2]
    else:
        first, last = scene.timestamps[drawn.targets[:, [0]], frames[:, [0, -1]]].T
        duration_class = np.floor(np.log(np.maximum(last - first, 0.1)) / np.log(DURATION_FACTOR)).astype(int)
        parts.append((duration_class + 5, 32))
    parts.append((np.where(drawn.viewer == _NONE, 0, 1 + (scene.kinds[drawn.viewer] != CAMERA)), 3))
    for target in drawn.targets.T[: form.num_targets]:
        parts.append((scene.kinds[target], 3))
        path = scene.positions[target[:, None], frames, :, 0]
        moved = np.sqrt(((path - path[:, :1]) ** 2).sum(axis=2)).max(axis=1) > qa.min_displacement
        parts.append((moved.astype(int), 2))
    if form.signal == "dir":
        # Where the camera sees a target at first is read off the box.
        first_state = 1 + (states[:, 0] + 1) @ np.array([9, 3, 1])
        parts.append((np.where(scene.kinds[drawn.viewer] == CAMERA, first_state, 0), 28))
    code = np.zeros(len(frames), np.int64)
    for values, size in parts:
        code = code * size + np.clip(values, 0, size - 1)
    # Last, so that no two forms share a code, however many parts each has.
    return code * len(FORMS) + index


def describe_answer(form: Form, code: int) -> tuple[str, str]:
    """An answer's code as a sentence and as compact states."""
    if isinstance(form, Family):
        return form.answers[code], str(code)
    answer = decode_run_lengths(code, num_axes(form.signal))
    return answer_text(form.vocabulary, answer), encode_states(answer)


def _diverse(found: Candidates, keep: int, rng: np.random.Generator, counts: Counter[str]) -> np.ndarray:
    """Indices of at most `keep` candidates a clip and type: one a viewer, targets and answer, answers taken in turn."""
    order = rng.permutation(len(found))
    same = _pack([found.clip, found.form, found.viewer, *found.targets.T, found.answer])[order]
    _, first = np.unique(same, return_index=True)
    counts["repeats another question"] += len(found) - len(first)
    order = order[np.sort(first)]
    types = _pack([found.clip, FORM_TYPES[found.form]])
    turn = _rank_within(_pack([found.clip[order], found.form[order], found.answer[order]]))
    order = order[np.lexsort((turn, types[order]))]
    place = _rank_within(types[order])
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
        clip=np.zeros(0, np.int32),
        form=np.zeros(0, np.int16),
        viewer=np.zeros(0, np.int16),
        targets=np.zeros((0, MAX_TARGETS), np.int16),
        frames=np.zeros((0, MAX_MOMENTS), np.int16),
        answer=np.zeros(0, np.int64),
        signal=np.zeros((0, MAX_MOMENTS, 3), np.float32),
        signature=np.zeros(0, np.int64),
        boxes=np.zeros((0, 1 + MAX_TARGETS, 4), np.float32),
        times=np.zeros((0, 2), np.float32),
    )
