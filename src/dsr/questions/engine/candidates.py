"""Candidate questions: all that can be asked are looked at; those are kept whose answer every ensemble member gives.

A template's questions are surveyed on a few members (survey.py), a free-form family's are drawn and worked out on the
cues as they are. One question of each viewer, targets and answer is then worked out on all members (signals.py). All
questions of a form, of all clips of a scene, are worked out at once.

Letters: K questions, M key moments, A axes of a state, E entities and T frames of the scene.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np

from dsr.geometry.signals import length
from dsr.mcq import TYPES
from dsr.params import QA
from dsr.questions.engine.answers import decode_run_lengths, run_lengths
from dsr.questions.engine.scene import CAMERA, OBJECT, Scene
from dsr.questions.engine.signals import Members, QuestionBatch, look_between, signal_states
from dsr.questions.engine.survey import ANSWERED, Survey
from dsr.questions.language.families import FORMS, Family
from dsr.questions.language.templates import Form, answer_text, encode_states, num_axes

MAX_MOMENTS = max(form.num_moments for form in FORMS)
MAX_TARGETS = max(form.num_targets for form in FORMS)
FORM_TYPES = np.array([TYPES.index(form.type) for form in FORMS])
DURATION_FACTOR = 1.6
STABLE = "stable: "
"""Begins a count by type: of the candidates that have an answer, about how many have one that all members give. The
share is that of the candidates that were worked out on all of them."""
_FORMS_OF_TYPE = Counter(form.type for form in FORMS)
_SURVEYED = 3
"""Members that are looked at beside the cues as they are."""
_LOOKS_A_TRY = 192
"""One in so many of `qa.candidates`, at least, is worked out on all members of each form, where a clip has so many."""
_FAMILY_SHARE = 4
"""A free-form family draws one in so many of the candidates that are its part."""
_NONE = -1


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
    search = _Search(scene, qa, rng)
    candidates = Candidates.concatenate([search.of_form(index) for index in range(len(FORMS))])
    kept = candidates.take(_diverse(candidates, qa.keep_per_clip_type, rng, search.counts))
    search.counts["candidates"] = len(kept)
    return kept, search.counts


class _Search:
    """The search for a scene's candidates, form by form; what falls away is counted by reason."""

    def __init__(self, scene: Scene, qa: QA, rng: np.random.Generator) -> None:
        self.scene, self.qa, self.rng, self.counts = scene, qa, rng, Counter[str]()
        self.survey = Survey(scene, _SURVEYED, qa)
        self.as_they_are, self.everyone = Members(scene, slice(0, 1)), Members(scene, slice(None))
        self.not_surveyed = Members(scene, slice(0, max(scene.positions.shape[-1] - _SURVEYED, 1)))

    def of_form(self, index: int) -> Candidates:
        """The candidates of a form that hold."""
        form, scene, counts = FORMS[index], self.scene, self.counts
        steps = _steps(scene, form, self.qa)
        if not steps:
            return _empty()
        if isinstance(form, Family):
            (batch, answers), members = self._draw(form, steps), self.everyone
        else:
            (batch, answers), members = self._surveyed(form, steps), self.not_surveyed
        keys = _pack([batch.viewer, *batch.targets.T, answers])
        most = -(-self.qa.candidates // _LOOKS_A_TRY) * int((scene.kinds == CAMERA).sum())
        tried = _to_try(keys, batch.frames, most, self.rng)
        counts["repeats another question"] += len(answers) - len(tried)
        batch = batch.take(tried)

        signal, states, valid = signal_states(scene, form, batch, self.qa, members)
        stable = (np.logical_and.reduce(states == states[..., :1], axis=(1, 2)) & valid).all(axis=1)
        counts["label not stable"] += int((~stable).sum())
        counts[f"{STABLE}{form.type}"] += round(len(answers) * int(stable.sum()) / max(len(tried), 1))
        batch, signal, states = batch.take(np.flatnonzero(stable)), signal[stable], states[stable, ..., 0]

        if form.signal in ("dis", "dir", "ori"):
            steady = look_between(scene, form, batch, states, self.qa, self.as_they_are).holds
            counts["changes between its moments"] += int((~steady).sum())
            batch, signal, states = batch.take(np.flatnonzero(steady)), signal[steady], states[steady]
        return self._candidates(index, batch, signal, states)

    def _surveyed(self, form: Form, steps: Sequence[int]) -> tuple[QuestionBatch, np.ndarray]:
        """The questions of a template that a few members agree on, and their answers [K] int64."""
        intervals = sum(self.scene.located.shape[1] - step * (form.num_moments - 1) for step in steps)
        most = -(-self.qa.candidates // (_FORMS_OF_TYPE[form.type] * intervals))
        viewer, targets, _ = _combinations(self.scene, form, most, self.rng)
        found = self.survey.find(form, viewer, targets[:, : form.num_targets], steps, self.counts)
        return QuestionBatch(viewer[found.combination], targets[found.combination], found.frames), found.answer

    def _draw(self, form: Family, steps: Sequence[int]) -> tuple[QuestionBatch, np.ndarray]:
        """Questions of a family that can be asked and have an answer on the cues as they are, and these [K] int64."""
        frames, counts = _frames(self.scene, form, steps), self.counts
        most = -(-self.qa.candidates // (_FORMS_OF_TYPE[form.type] * _FAMILY_SHARE))
        viewer, targets, interval = _combinations(self.scene, form, most, self.rng, len(frames))
        batch = QuestionBatch(viewer, targets, frames[interval])
        counts["drawn"] += len(batch)
        until = self.survey.known_until(form, batch.viewer, batch.targets.T)
        seen = until[np.arange(len(batch)), batch.frames[:, 0]] > batch.frames[:, -1]
        counts["out of view in the interval"] += int((~seen).sum())
        batch = batch.take(np.flatnonzero(seen))
        clear = self.survey.boxes.identifiable(form, batch.viewer, batch.targets.T, batch.frames[:, form.stated])
        counts["not identifiable by its box"] += int((~clear).sum())
        batch = batch.take(np.flatnonzero(clear))
        _, codes, exists = signal_states(self.scene, form, batch, self.qa, self.as_they_are)
        exists = exists[:, 0]
        counts["no clear answer"] += int((~exists).sum())
        counts[f"{ANSWERED}{form.type}"] += int(exists.sum())
        return batch.take(np.flatnonzero(exists)), codes[exists, 0, 0, 0].astype(np.int64)

    def _candidates(self, index: int, batch: QuestionBatch, signal: np.ndarray, states: np.ndarray) -> Candidates:
        """Columns of questions of a form with signals [K, M, A] and states [K, M, A] that hold."""
        form, first = FORMS[index], self.scene.first[batch.targets[:, 0]]
        if form.signal == "dir_pred":
            states = states[:, 1:]
        k, moments, axes = signal.shape
        padded = np.full((k, MAX_MOMENTS, 3), np.nan, np.float32)
        padded[:, :moments, :axes] = signal
        frames = np.full((k, MAX_MOMENTS), _NONE, np.int16)
        frames[:, : batch.frames.shape[1]] = batch.frames
        entities = np.column_stack([batch.viewer, batch.targets])
        return Candidates(
            clip=self.scene.clip[first].astype(np.int32),
            form=np.full(k, index, np.int16),
            viewer=np.where(batch.viewer == _NONE, _NONE, batch.viewer - first).astype(np.int16),
            targets=np.where(batch.targets == _NONE, _NONE, batch.targets - first[:, None]).astype(np.int16),
            frames=frames,
            answer=states[:, 0, 0].astype(np.int64) if isinstance(form, Family) else run_lengths(states),
            signal=padded,
            signature=_signatures(self.scene, index, batch, states, self.qa, self.as_they_are),
            boxes=self.survey.boxes.at(entities, batch.frames[:, form.stated]),
            times=_named_times(self.scene, form, batch).astype(np.float32),
        )


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


def _to_try(keys: np.ndarray, frames: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of some of each of equal keys [K]: one, or as many as that all together are no more than `most`.

    A hash of a question's key and frames decides, not its place among the others: one more or less hardly changes which
    others are chosen.
    """
    factor = rng.integers(1 << 63, dtype=np.uint64) | np.uint64(1)
    place = (keys << 20) + (frames[:, 0] << 10) + frames[:, 1]
    priority = place.astype(np.uint64) * factor
    order = np.argsort(keys)
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    tries = most // max(len(starts), 1)
    if tries > 1:
        order = np.lexsort((priority, keys))
        return order[_rank_within(keys[order]) < tries]
    sizes = np.diff(starts, append=len(keys))
    least = np.minimum.reduceat(priority[order], starts) if len(starts) else priority
    return order[priority[order] == np.repeat(least, sizes)]


def _named_times(scene: Scene, form: Form, batch: QuestionBatch) -> np.ndarray:
    """[K, 2] seconds: a prediction names its stop alone, and shows all that is before."""
    place = form.stated if form.signal == "dir_pred" else -1
    times = scene.timestamps[batch.targets[:, [0, 0]], batch.frames[:, [0, place]]]
    return np.stack([np.zeros(len(times)), times[:, 1]], axis=1) if form.signal == "dir_pred" else times


def _signatures(
    scene: Scene, index: int, batch: QuestionBatch, states: np.ndarray, qa: QA, as_they_are: Members
) -> np.ndarray:
    """[K] int64: form, kinds, duration class, who moves, and what the camera sees at the stated moment.

    What else a text tells (boxes, times) is balanced (quartets/text_balance.py), which wastes fewer questions.
    """
    form = FORMS[index]
    frames = batch.frames
    parts: list[tuple[np.ndarray, int]] = []
    if form.signal == "dir_pred":
        # How long a clip runs before it stops says nothing about what follows.
        frames = frames[:, :2]
    else:
        first, last = scene.timestamps[batch.targets[:, [0]], frames[:, [0, -1]]].T
        duration_class = np.floor(np.log(np.maximum(last - first, 0.1)) / np.log(DURATION_FACTOR)).astype(int)
        parts.append((duration_class + 5, 32))
    parts.append((np.where(batch.viewer == _NONE, 0, 1 + (scene.kinds[batch.viewer] != CAMERA)), 3))
    for target in batch.targets.T[: form.num_targets]:
        parts.append((scene.kinds[target], 3))
        path = as_they_are.at(target, frames)
        moved = length(path - path[:, :1])[..., 0].max(axis=1, initial=0) > qa.min_displacement
        parts.append((moved.astype(int), 2))
    if form.signal == "dir":
        # Where the camera sees a target at first is read off the box.
        first_state = 1 + (states[:, 0] + 1) @ np.array([9, 3, 1])
        parts.append((np.where(scene.kinds[batch.viewer] == CAMERA, first_state, 0), 28))
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
    """Number of equal keys before each of the integer keys [K]."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] - 1))
    sizes = np.diff(starts, append=len(keys))
    rank = np.empty(len(keys), int)
    rank[order] = np.arange(len(keys)) - np.repeat(starts, sizes)
    return rank


def _pack(columns: list[np.ndarray]) -> np.ndarray:
    """Columns of integers from -1 up, [K] each, as one int64 a row: equal rows have equal codes, no others, and the
    codes are in the order of the rows."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        size = int(column.max(initial=0)) + 2
        if (int(code.max(initial=0)) + 1) * size > np.iinfo(np.int64).max:
            # Clips of a hundred tracks: the codes so far are numbered anew.
            _, code = np.unique(code, return_inverse=True)
        code = code * size + (column + 1)
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
