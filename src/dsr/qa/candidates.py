"""Candidate questions: all that can be asked are looked at; those are kept whose answer every ensemble member gives.

A template's questions are surveyed on a few members (survey.py), a free-form family's are drawn and worked out on the
cues as they are. One question of each viewer, targets and answer is then worked out on all members. All questions of
a form, of all clips of a scene, are worked out at once; the arrays are [K, M, axes, S].
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache, cached_property
from math import log1p

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
from dsr.qa.survey import Boxes, Survey, known_until
from dsr.qa.templates import FORMS as TEMPLATES
from dsr.qa.templates import TYPES, Form, answer_text, encode_states, num_axes

FORMS: tuple[Form, ...] = (*TEMPLATES, *FAMILIES)
MAX_MOMENTS = max(form.num_moments for form in FORMS)
MAX_TARGETS = max(form.num_targets for form in FORMS)
FORM_TYPES = np.array([TYPES.index(form.type) for form in FORMS])
DURATION_FACTOR = 1.6
ANSWERED, STABLE = "answered: ", "stable: "
"""Counts by type (its name follows): candidates that have an answer, and of them about how many have one that all
members give: the share is that of the candidates that were worked out on all of them."""
_FORMS_OF_TYPE = Counter(form.type for form in FORMS)
_SURVEYED = 3
"""Members that are looked at beside the cues as they are."""
_TRIES = 16
"""Questions of a clip and form that are at least worked out on all members, where there are that many."""
_FAMILY_SHARE = 4
"""A free-form family draws one in so many of the candidates that are its part."""
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
    survey = Survey(scene, _SURVEYED, qa)
    as_they_are, everyone = Members(scene, slice(0, 1)), Members(scene, slice(None))
    not_surveyed = Members(scene, slice(0, max(scene.positions.shape[-1] - _SURVEYED, 1)))
    num_clips = int((scene.kinds == CAMERA).sum())
    parts, counts = [], Counter[str]()
    for index, form in enumerate(FORMS):
        steps = _steps(scene, form, qa)
        if not steps:
            continue
        if isinstance(form, Family):
            drawn, answers = _drawn(scene, survey, form, steps, qa, as_they_are, rng, counts)
        else:
            drawn, answers = _surveyed(scene, survey, form, steps, qa, rng, counts)
        keys = _pack([drawn.viewer, *drawn.targets.T, answers])
        tried = _to_try(keys, drawn.frames, num_clips, rng)
        counts["repeats another question"] += len(answers) - len(tried)
        members = everyone if isinstance(form, Family) else not_surveyed
        held = _held(scene, index, drawn.take(tried), qa, members, counts)
        counts[f"{STABLE}{form.type}"] += round(len(answers) * len(held[0].viewer) / max(len(tried), 1))
        parts.append(_told(scene, survey.boxes, index, *held, qa, as_they_are, counts))
    candidates = Candidates.concatenate(parts)
    kept = candidates.take(_diverse(candidates, qa.keep_per_clip_type, rng, counts))
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
        self._scene, self._members = scene, members
        self._positions = _by_component(scene.positions[..., members])
        self._axes = _by_component(scene.axes[..., members])
        self._num_frames = scene.positions.shape[1]

    @cached_property
    def up(self) -> np.ndarray:
        """[E, 3, S] mean up of the agents of an entity's clip; NaN without any."""
        scene = self._scene
        own = np.where((scene.kinds == AGENT)[:, None] & scene.oriented, np.float32(1), np.float32(np.nan))
        own = np.nansum(scene.axes[..., :, 2, self._members] * own[..., None, None], axis=1)
        up = np.add.reduceat(own, np.flatnonzero(scene.kinds == CAMERA))
        with np.errstate(invalid="ignore"):
            return (up / length(up)[:, None])[np.searchsorted(scene.first[scene.kinds == CAMERA], scene.first)]

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


def _steps(scene: Scene, form: Form, qa: QA) -> list[int]:
    """Frames between key moments such that an interval fits into the clip."""
    choices = qa.steps.non_temp if isinstance(form, Family) else getattr(qa.steps, form.signal)
    return [step for step in choices if step * (form.num_moments - 1) < scene.located.shape[1]]


def _frames(scene: Scene, form: Form, steps: Sequence[int]) -> np.ndarray:
    """[intervals, M] key moments of all intervals."""
    moments = np.arange(form.num_moments)
    spans = [step * moments[None] for step in steps]
    return np.concatenate([np.arange(scene.located.shape[1] - span[0, -1])[:, None] + span for span in spans])


def _combinations(
    scene: Scene, form: Form, most: int, rng: np.random.Generator, times: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Viewers [P], targets [P, MAX_TARGETS] and a number below `times` [P], all different: of each clip all that can be
    asked about, or `most` of them, evenly spread."""
    facing = scene.oriented.any(axis=1) & (scene.kinds != OBJECT)
    possible = facing if form.oriented_target else scene.located.any(axis=1)
    viewers = _OfClips(scene, facing)
    targets = _OfClips(scene, possible & ((scene.kinds != CAMERA) | form.camera_target))
    sizes = [targets.counts - i for i in range(form.num_targets)]
    if form.viewer != "none":
        sizes.append(viewers.counts)
    numbers = times * np.prod(np.maximum(sizes, 0), axis=0)
    taken = np.minimum(numbers, most)
    clip = np.repeat(np.arange(len(taken)), taken)
    stride = (numbers / np.maximum(taken, 1))[clip]
    place = np.arange(len(clip)) - np.repeat(np.cumsum(taken) - taken, taken)
    place = ((place + np.where(stride > 1, rng.random(len(clip)), 0)) * stride).astype(int)
    place = np.minimum(place, numbers[clip] - 1)
    place, number = np.divmod(place, times)
    digits = []
    for size in sizes:
        place, digit = np.divmod(place, size[clip])
        digits.append(digit)
    entities = np.full((len(clip), MAX_TARGETS), _NONE)
    chosen: list[np.ndarray] = []
    for digit in digits[: form.num_targets]:
        # The digit is among those not yet chosen: step over the chosen ones, from the first on.
        for before in np.sort(np.array(chosen), axis=0) if chosen else ():
            digit = digit + (digit >= before)
        chosen.append(digit)
        entities[:, len(chosen) - 1] = targets.entity(clip, digit)
    if form.viewer == "none":
        viewer = np.full(len(clip), _NONE)
        # The distance of a pair is symmetric.
        valid = (entities[:, 0] < entities[:, 1]) | (form.signal != "dis")
    else:
        viewer = viewers.entity(clip, digits[-1])
        valid = (viewer[:, None] != entities).all(axis=1)
    return viewer[valid], entities[valid], number[valid]


class _OfClips:
    """The entities of each clip that are allowed."""

    def __init__(self, scene: Scene, allowed: np.ndarray) -> None:
        self._entities = np.flatnonzero(allowed)
        clips = np.arange(scene.clip[-1] + 1)
        self._starts = np.searchsorted(scene.clip[self._entities], clips)
        self.counts = np.searchsorted(scene.clip[self._entities], clips, side="right") - self._starts
        """[clips]."""

    def entity(self, clip: np.ndarray, place: np.ndarray) -> np.ndarray:
        """[K] the entities at places [K] of clips [K]."""
        return self._entities[self._starts[clip] + place]


def _to_try(keys: np.ndarray, frames: np.ndarray, num_clips: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of some of each of equal keys [K]: one, or more where a clip would else have few to try.

    Which one depends on its own key and frames alone: another question more or less changes no choice.
    """
    factor = rng.integers(1 << 63, dtype=np.uint64) | np.uint64(1)
    place = (keys << 20) + (frames[:, 0] << 10) + frames[:, 1]
    priority = place.astype(np.uint64) * factor
    order = np.argsort(keys)
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    tries = _TRIES * num_clips // max(len(starts), 1)
    if tries > 1:
        order = np.lexsort((priority, keys))
        return order[_rank_within(keys[order]) < tries]
    sizes = np.diff(starts, append=len(keys))
    least = np.minimum.reduceat(priority[order], starts) if len(starts) else priority
    return order[priority[order] == np.repeat(least, sizes)]


def _surveyed(
    scene: Scene,
    survey: Survey,
    form: Form,
    steps: Sequence[int],
    qa: QA,
    rng: np.random.Generator,
    counts: Counter[str],
) -> tuple["Drawn", np.ndarray]:
    """The questions of a template that a few members agree on, and their answers [K]."""
    intervals = sum(scene.located.shape[1] - step * (form.num_moments - 1) for step in steps)
    most = -(-qa.candidates // (_FORMS_OF_TYPE[form.type] * intervals))
    viewer, targets, _ = _combinations(scene, form, most, rng)
    found = survey.find(form, viewer, targets[:, : form.num_targets], steps, counts)
    return Drawn(viewer[found.combination], targets[found.combination], found.frames), found.answer


def _drawn(
    scene: Scene,
    survey: Survey,
    form: Family,
    steps: Sequence[int],
    qa: QA,
    as_they_are: "Members",
    rng: np.random.Generator,
    counts: Counter[str],
) -> tuple["Drawn", np.ndarray]:
    """Questions of a family that can be asked and have an answer on the cues as they are, and their answers [K]."""
    frames = _frames(scene, form, steps)
    most = -(-qa.candidates // (_FORMS_OF_TYPE[form.type] * _FAMILY_SHARE))
    viewer, targets, interval = _combinations(scene, form, most, rng, len(frames))
    drawn = Drawn(viewer, targets, frames[interval])
    counts["drawn"] += len(viewer)
    seen = _seen_throughout(scene, form, drawn)
    counts["out of view in the interval"] += int((~seen).sum())
    drawn = drawn.take(np.flatnonzero(seen))
    clear = survey.boxes.identifiable(form, drawn.viewer, drawn.targets.T, drawn.frames[:, form.stated])
    counts["not identifiable by its box"] += int((~clear).sum())
    drawn = drawn.take(np.flatnonzero(clear))
    _, codes, exists = signal_states(scene, form, drawn, qa, as_they_are)
    exists = exists[:, 0]
    counts["no clear answer"] += int((~exists).sum())
    counts[f"{ANSWERED}{form.type}"] += int(exists.sum())
    return drawn.take(np.flatnonzero(exists)), codes[exists, 0, 0, 0].astype(np.int64)


def _seen_throughout(scene: Scene, form: Form, drawn: Drawn) -> np.ndarray:
    """[K] bool: positions and axes that the signal needs are known at every frame that it spans."""
    first, last = drawn.frames[:, 0], drawn.frames[:, -1]
    located, oriented = known_until(scene.located), known_until(scene.oriented)
    seen = np.ones(len(first), bool)
    for target in drawn.targets.T[: form.num_targets]:
        seen &= located[target, first] > last
    if form.oriented_target:
        seen &= oriented[drawn.targets[:, 0], first] > last
    if form.viewer != "none":
        seen &= located[drawn.viewer, first] > last
        if form.needs_axes:
            seen &= oriented[drawn.viewer, first] > last
    return seen


def _held(
    scene: Scene, index: int, drawn: Drawn, qa: QA, members: "Members", counts: Counter[str]
) -> tuple[Drawn, np.ndarray, np.ndarray]:
    """The questions whose answer exists and is the same on every member, with signals and states [K, M, axes]."""
    signal, states, valid = signal_states(scene, FORMS[index], drawn, qa, members)
    agree = (np.logical_and.reduce(states == states[..., :1], axis=(1, 2)) & valid).all(axis=1)
    counts["label not stable"] += int((~agree).sum())
    return drawn.take(np.flatnonzero(agree)), signal[agree], states[agree, ..., 0]


def _told(
    scene: Scene,
    all_boxes: Boxes,
    index: int,
    drawn: Drawn,
    signal: np.ndarray,
    states: np.ndarray,
    qa: QA,
    as_they_are: "Members",
    counts: Counter[str],
) -> Candidates:
    """The candidates whose answer tells all that the cues show."""
    form = FORMS[index]
    if form.signal in ("dis", "dir", "ori"):
        told = told_between(scene, form, drawn, states, qa, as_they_are)
        counts["changes between its moments"] += int((~told).sum())
        drawn, signal, states = drawn.take(np.flatnonzero(told)), signal[told], states[told]
    if form.signal == "dir_pred":
        states = states[:, 1:]
    k, moments, axes = signal.shape
    padded = np.full((k, MAX_MOMENTS, 3), np.nan, np.float32)
    padded[:, :moments, :axes] = signal
    frames = np.full((k, MAX_MOMENTS), _NONE, np.int16)
    frames[:, : drawn.frames.shape[1]] = drawn.frames
    entities = np.column_stack([drawn.viewer, drawn.targets])
    first = scene.first[drawn.targets[:, 0]]
    return Candidates(
        clip=scene.clip[first].astype(np.int32),
        form=np.full(k, index, np.int16),
        viewer=np.where(drawn.viewer == _NONE, _NONE, drawn.viewer - first).astype(np.int16),
        targets=np.where(drawn.targets == _NONE, _NONE, drawn.targets - first[:, None]).astype(np.int16),
        frames=frames,
        answer=states[:, 0, 0].astype(np.int64) if isinstance(form, Family) else run_lengths(states),
        signal=padded,
        signature=_signatures(scene, index, drawn, states, qa, as_they_are),
        boxes=all_boxes.at(entities, drawn.frames[:, form.stated]),
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
        limit = log1p(qa.ratio_tolerance)
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


def _signatures(scene: Scene, index: int, drawn: Drawn, states: np.ndarray, qa: QA, as_they_are: Members) -> np.ndarray:
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
        path = as_they_are.at(target, frames)
        moved = length(path - path[:, :1])[..., 0].max(axis=1, initial=0) > qa.min_displacement
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


@cache
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
