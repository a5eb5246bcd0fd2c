"""Survey of all questions of a form: every moment of every viewer and targets, looked at on a few ensemble members.

The states of one key moment are shared by all intervals that it lies in. So they are worked out once, for all frames,
and an interval reads them off: that costs a few bytes where working it out by itself costs thousands of operations.
What the few members agree on is then worked out on all of them, one by one (signals.py), which alone decides.

Both execute one definition (states.py: signs, drift, floors, tolerances) on memory laid out differently. One engine
would cost more: each interval by itself on the few members makes this part 4.8 times as long and the search for
candidates 1.8 times; the survey on all 17 members instead of the second look 2.9 and 1.3 times.

Letters: P combinations of a viewer and m targets, T frames, S members looked at, n intervals of a step (by their first
frame), E entities. Vectors are [3, S, P, T]: component by component, so that the arithmetic on one runs over one
stretch of memory.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, pairwise
from math import log, log1p

import numpy as np

from dsr.params import QA
from dsr.questions.engine.answers import run_length_codes
from dsr.questions.engine.scene import CAMERA, Scene
from dsr.questions.engine.states import clear_changes, comparable, floor_of, signs, tolerance_of
from dsr.questions.language.templates import Form

ANSWERED = "answered: "
"""Begins a count by type: candidates that have an answer on the cues as they are."""
_AT_ONCE = 256
"""Combinations worked out at once: few enough to stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Found:
    """Questions of one form that a few members agree on."""

    combination: np.ndarray
    """[K] int, which of the combinations that were asked for."""
    frames: np.ndarray
    """[K, moments] int."""
    answer: np.ndarray
    """[K] int64, code of `answers.run_lengths`."""


@dataclass(frozen=True, eq=False)
class _MomentStates:
    """States that members have at one key moment; [P, n] each, by frame."""

    symbol: np.ndarray
    """int8 of member 0: a symbol of `answers.run_length_codes`."""
    exists: np.ndarray
    """bool: member 0 has a state."""
    agreed: np.ndarray
    """bool: all members have that one."""

    @classmethod
    def by(cls, symbols: np.ndarray, valid: np.ndarray) -> "_MomentStates":
        """States by symbols [S, P, n] int8 and where there is one, likewise."""
        same = symbols == symbols[0]
        same &= valid
        return cls(symbols[0], valid[0], np.logical_and.reduce(same, axis=0))

    def at(self, first: int, n: int) -> "_MomentStates":
        return _MomentStates(*(part[:, first : first + n] for part in (self.symbol, self.exists, self.agreed)))


@dataclass(frozen=True, eq=False)
class _Look:
    """States that members have in all intervals of a step."""

    step: int
    """Frames between key moments."""
    at_moments: list[_MomentStates]
    """States of each key moment, or of each change from one to the next; [P, n]."""
    clear: np.ndarray | None = None
    """[S, P, n] bool: the answer as a whole exists; None where each moment's state existing is enough."""


class Survey:
    """A scene laid out for looking at all of its moments."""

    def __init__(self, scene: Scene, others: int, qa: QA) -> None:
        """The cues as they are and the last `others` members are looked at."""
        self.scene, self.qa = scene, qa
        members = [0, *range(scene.positions.shape[-1])[1:][-others:]]
        self.position = np.ascontiguousarray(np.moveaxis(scene.positions[..., members], (2, 3), (0, 1)))
        """[3, S, E, T] float32."""
        self.axes = np.ascontiguousarray(np.moveaxis(scene.axes[..., members], (2, 3, 4), (0, 1, 2)))
        """[3, 3, S, E, T] float32: world components of forward, left and up."""
        self.located, self.oriented = _known_until(scene.located), _known_until(scene.oriented)
        self.boxes = Boxes(scene, qa)

    def find(
        self, form: Form, viewer: np.ndarray, targets: np.ndarray, steps: Sequence[int], counts: Counter[str]
    ) -> Found:
        """The questions of combinations of viewers [P] and targets [P, m] that a few members agree on.

        Those that fall away are counted by reason.

        Args:
            steps: frames between key moments, each such that an interval fits into the clip.
        """
        asked = self._asked(form, viewer, targets.T, steps, counts)
        possible = np.flatnonzero(np.logical_or.reduce([a.any(axis=1) for a in asked.values()]))
        nothing = np.zeros(0, int)
        found = [Found(nothing, np.zeros((0, form.num_moments), int), nothing)]
        for start in range(0, len(possible), _AT_ONCE):
            some = possible[start : start + _AT_ONCE]
            with np.errstate(invalid="ignore", divide="ignore"):
                for look in self._looks(form, viewer[some], targets[some].T, steps):
                    rows, first, symbols = _agreed(form, asked[look.step][some], look, counts)
                    frames = first[:, None] + look.step * np.arange(form.num_moments)
                    found.append(Found(some[rows], frames, run_length_codes(symbols)))
        return Found(*(np.concatenate([getattr(f, column.name) for f in found]) for column in fields(Found)))

    def known_until(self, form: Form, viewer: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """[P, T] int: the first frame from each on at which a position or axes that the signal needs are not known.

        A fixed viewer is not among them: it is needed at the stated moment alone.

        Args:
            viewer: [P].
            targets: [m, P], or more than the form's m.
        """
        needed = [self.located[target] for target in targets[: form.num_targets]]
        if form.oriented_target:
            needed.append(self.oriented[targets[0]])
        if form.viewer == "moving":
            needed.append(self._eyes_until(form)[viewer])
        return np.minimum.reduce(needed)

    def _eyes_until(self, form: Form) -> np.ndarray:
        """[E, T] int, as `known_until`, of what a viewer must have."""
        return np.minimum(self.located, self.oriented) if form.needs_axes else self.located

    def _asked(
        self, form: Form, viewer: np.ndarray, targets: np.ndarray, steps: Sequence[int], counts: Counter[str]
    ) -> dict[int, np.ndarray]:
        """Intervals that can be asked about, by step [P, n] bool.

        Positions and axes that the signal needs are known at every frame that the interval spans, and every mentioned
        track (viewer [P], targets [m, P]) has a box, large enough and apart from the others.
        """
        identifiable = self.boxes.identifiable(form, viewer, targets)
        until = self.known_until(form, viewer, targets)
        at = np.arange(until.shape[1], dtype=until.dtype)
        stands = self._eyes_until(form)[viewer] > at if form.viewer == "fixed" else None
        asked = {}
        for step in steps:
            span, stated = step * (form.num_moments - 1), step * form.stated
            n = until.shape[1] - span
            seen = until[:, :n] > at[span:]
            if stands is not None:
                seen &= stands[:, stated : stated + n]
            asked[step] = seen & identifiable[:, stated : stated + n]
            in_view, clear = int(np.count_nonzero(seen)), int(np.count_nonzero(asked[step]))
            counts["drawn"] += seen.size
            counts["out of view in the interval"] += seen.size - in_view
            counts["not identifiable by its box"] += in_view - clear
        return asked

    # --- Signals at all moments ---

    def _floor(self, form: Form) -> float:
        return floor_of(form.signal, self.qa)[0]

    def _tolerance(self, form: Form) -> float:
        return tolerance_of(form.signal, self.qa)[0]

    def _looks(self, form: Form, viewer: np.ndarray, targets: np.ndarray, steps: Sequence[int]) -> Iterator[_Look]:
        match form.signal:
            case "dis":
                return self._distances(form, viewer, targets, steps)
            case "dir" | "ori":
                return self._directions(form, viewer, targets, steps)
            case "spd" | "spd_comp":
                return self._speeds(form, viewer, targets, steps)
            case _:
                return self._predictions(form, viewer, targets, steps)

    def _distances(self, form: Form, viewer: np.ndarray, targets: np.ndarray, steps: Sequence[int]) -> Iterator[_Look]:
        place = np.take(self.position, targets[0], axis=2)
        other = np.take(self.position, targets[1] if len(targets) == 2 else viewer, axis=2)
        frames = place.shape[-1]
        # Of squares, which spares the roots.
        limit, floor = 2 * log1p(self._tolerance(form)), 2 * log(self._floor(form))
        delays = {delay for step in steps for delay, _ in _key_moments(form, step)}
        logs = {d: np.log(_square(place[..., d:] - other[..., : frames - d])) for d in delays}
        exists = {d: values >= floor for d, values in logs.items()}
        for step in steps:
            n = frames - step * (form.num_moments - 1)
            moments = [(delay, slice(first, first + n)) for delay, first in _key_moments(form, step)]
            values = [logs[delay][..., own] for delay, own in moments]
            if form.viewer == "fixed":
                changes = [signs(after - before, limit) for before, after in pairwise(values)]
            else:
                between = signs(logs[0][..., step:] - logs[0][..., :-step], limit)
                changes = [between[..., own] for _, own in moments[:-1]]
            clear = clear_changes(values, changes, limit)
            for delay, own in moments:
                clear &= exists[delay][..., own]
            yield _Look(step, [_change_states(change) for change in changes], clear)

    def _directions(self, form: Form, viewer: np.ndarray, targets: np.ndarray, steps: Sequence[int]) -> Iterator[_Look]:
        eyes = np.take(self.axes, viewer, axis=3)
        frames = eyes.shape[-1]
        place = (
            np.take(self.axes[:, 0], targets[0], axis=2)
            if form.signal == "ori"
            else np.take(self.position, targets[-1], axis=2)
        )
        start = np.take(self.position, targets[0] if len(targets) == 2 else viewer, axis=2)
        at_frames = {}
        for delay in {delay for step in steps for delay, _ in _key_moments(form, step)}:
            way = place[..., delay:]
            if form.signal == "dir":
                # From a fixed viewer's place then, or from the first target now.
                way = way - (start[..., delay:] if len(targets) == 2 else start[..., : frames - delay])
            at_frames[delay] = _direction(
                _express(way, eyes[..., : frames - delay]), self._tolerance(form), self._floor(form)
            )
        for step in steps:
            n = frames - step * (form.num_moments - 1)
            yield _Look(step, [at_frames[delay].at(first, n) for delay, first in _key_moments(form, step)])

    def _predictions(
        self, form: Form, viewer: np.ndarray, targets: np.ndarray, steps: Sequence[int]
    ) -> Iterator[_Look]:
        eyes, place = np.take(self.axes, viewer, axis=3), np.take(self.position, targets[0], axis=2)
        frames, zone, floor = eyes.shape[-1], self._tolerance(form), self._floor(form)
        seen = _express(place - np.take(self.position, viewer, axis=2), eyes) if form.viewer == "moving" else place
        for step in steps:
            n = frames - 2 * step
            ways = seen[..., step:] - seen[..., :-step]
            if form.viewer == "moving":
                at_frames = _direction(ways, zone, floor)
                yield _Look(step, [at_frames.at(0, n), at_frames.at(step, n)])
            else:
                then = eyes[..., step : step + n]
                yield _Look(step, [_direction(_express(ways[..., s : s + n], then), zone, floor) for s in (0, step)])

    def _speeds(self, form: Form, viewer: np.ndarray, targets: np.ndarray, steps: Sequence[int]) -> Iterator[_Look]:
        # Many combinations compare the same few.
        keys = [viewer * len(self.scene.kinds) + target for target in targets]
        pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
        eyes, entity = np.divmod(pairs, len(self.scene.kinds))
        path = np.take(self.position, entity, axis=2)
        if form.viewer != "none":
            path = path - np.take(self.position, eyes, axis=2)
        own = np.split(place, len(targets))
        seconds = self.scene.timestamps[entity].astype(np.float32)
        limit = log1p(self._tolerance(form))
        for step in steps:
            speed, slow = _log_speeds(path, seconds, step, self._floor(form))
            n = path.shape[-1] - step * (form.num_moments - 1)
            if len(targets) == 1:
                yield _speed_changes(speed[:, own[0]], slow[:, own[0]], step, form.num_moments - 1, n, limit)
            else:
                states = signs(speed[:, own[0]] - speed[:, own[1]], limit)
                known = comparable(slow[:, own[0]], slow[:, own[1]], states)
                at_frames = _MomentStates.by(states + np.int8(1), known)
                yield _Look(step, [at_frames.at(m * step, n) for m in range(form.num_moments - 1)])


def _key_moments(form: Form, step: int) -> list[tuple[int, int]]:
    """Key moments of the interval that begins at frame 0: how many frames later than the viewer the target is looked
    at, and the viewer's frame. A fixed viewer's is the first, a moving one's that of the target."""
    after = [m * step for m in range(form.num_moments)]
    return [(frame, 0) if form.viewer == "fixed" else (0, frame) for frame in after]


def _log_speeds(path: np.ndarray, seconds: np.ndarray, step: int, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of speeds over a step, a slow one's that of the floor, and which are slow: [S, P, T - step].

    Args:
        path: [3, S, P, T].
        seconds: [P, T].
    """
    half, start, stop = step // 2, path[..., :-step], path[..., step:]
    middle = path[..., half : half + start.shape[-1]]
    if step % 2:
        middle = (middle + path[..., half + 1 : half + 1 + start.shape[-1]]) / 2
    way = np.sqrt(_square(middle - start)) + np.sqrt(_square(stop - middle))
    return np.log(np.maximum(way, floor)) - np.log(seconds[:, step:] - seconds[:, :-step]), way < floor


def _speed_changes(speed: np.ndarray, slow: np.ndarray, step: int, num_speeds: int, n: int, limit: float) -> _Look:
    """Changes of speeds of `_log_speeds` from each step of an interval to the next."""
    changes = signs(speed[..., step:] - speed[..., :-step], limit)
    known = comparable(slow[..., :-step], slow[..., step:], changes)
    steps = [slice(m * step, m * step + n) for m in range(num_speeds)]
    clear = clear_changes([speed[..., own] for own in steps], [changes[..., own] for own in steps[:-1]], limit)
    for own in steps[:-1]:
        clear &= known[..., own]
    return _Look(step, [_change_states(changes[..., own]) for own in steps[:-1]], clear)


class Boxes:
    """Boxes by which entities can be identified."""

    def __init__(self, scene: Scene, qa: QA) -> None:
        x1, y1, x2, y2 = boxes = np.ascontiguousarray(np.moveaxis(scene.boxes, -1, 0), np.float32)
        self._boxes = boxes.reshape(4, -1)
        """[4, E * T] float32."""
        # Pairs of entities of one clip, one entity's after the other's: those of an entity begin at its row.
        sizes = np.bincount(scene.first, minlength=len(scene.first))[scene.first]
        self._first, self._row = scene.first, np.cumsum(sizes) - sizes
        one = np.repeat(np.arange(len(sizes)), sizes)
        other = np.arange(len(one)) - self._row[one] + self._first[one]
        with np.errstate(invalid="ignore"):
            self._large = ((x2 - x1 >= qa.min_box) & (y2 - y1 >= qa.min_box)) | (scene.kinds == CAMERA)[:, None]
            """[E, T] bool."""
            # A box that is not there overlaps with none: comparisons with NaN are false.
            self._apart = ~(_overlap(boxes[:, one], boxes[:, other]) > qa.max_box_overlap)
            """[pairs, T] bool."""

    def at(self, entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, roles, 4] xyxy of entities [K, roles] at frames [K]; NaN for the camera and where there is none (-1)."""
        boxes = np.take(self._boxes, entities * self._large.shape[1] + frames[:, None], axis=1, mode="wrap")
        boxes[:, entities < 0] = np.nan
        return np.moveaxis(boxes, 0, -1)

    def identifiable(
        self, form: Form, viewer: np.ndarray, targets: np.ndarray, frames: np.ndarray | None = None
    ) -> np.ndarray:
        """True where each mentioned track has a box, large enough and apart from the others'.

        Args:
            viewer: entities [P].
            targets: [m, P], or more than the form's m.
            frames: [P], or None for all.

        Returns:
            [P] bool, or [P, T].
        """
        at = () if frames is None else (frames,)
        named = [*targets[: form.num_targets], *([viewer] if form.viewer != "none" else ())]
        clear = np.logical_and.reduce([self._large[(entity, *at)] for entity in named])
        for one, other in combinations(named, 2):
            clear &= self._apart[(self._row[one] + other - self._first[other], *at)]
        return clear


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[...] intersection over union of boxes [4, ...]."""
    width = np.maximum(np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]), 0)
    height = np.maximum(np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]), 0)
    intersection = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return intersection / (areas - intersection)


def _agreed(
    form: Form, asked: np.ndarray, look: _Look, counts: Counter[str]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Combination, first frame and symbols of the intervals of a look that members agree on, of those asked [P, n]."""
    at_moments, clear = look.at_moments, look.clear
    exists = asked.copy() if clear is None else asked & clear[0]
    for moment in at_moments:
        exists &= moment.exists
    agreed = exists.copy() if clear is None else exists & np.logical_and.reduce(clear, axis=0)
    for moment in at_moments:
        agreed &= moment.agreed
    left = [int(np.count_nonzero(part)) for part in (asked, exists, agreed)]
    counts["below a floor or drifting"] += left[0] - left[1]
    counts[f"{ANSWERED}{form.type}"] += left[1]
    counts["label not stable"] += left[1] - left[2]
    if form.signal == "dir_pred":
        agreed &= at_moments[0].symbol == at_moments[1].symbol
        counts["not predictable"] += left[2] - int(np.count_nonzero(agreed))
        at_moments = at_moments[1:]
    rows, first = np.nonzero(agreed)
    return rows, first, [moment.symbol[rows, first] for moment in at_moments]


def _known_until(known: np.ndarray) -> np.ndarray:
    """[E, T] int16: the first frame from each on at which [E, T] is false; T where it is true to the end."""
    frames = np.where(known, np.int16(known.shape[1]), np.arange(known.shape[1], dtype=np.int16))
    return np.minimum.accumulate(frames[:, ::-1], axis=1)[:, ::-1]


def _change_states(changes: np.ndarray) -> _MomentStates:
    """States of changes [S, P, n] int8; only the look as a whole says whether there is an answer."""
    same = np.logical_and.reduce(changes == changes[0], axis=0)
    return _MomentStates(changes[0] + np.int8(1), np.ones(same.shape, bool), same)


def _direction(vectors: np.ndarray, dead_zone: float, floor: float) -> _MomentStates:
    """States of vectors [3, S, P, T]."""
    size = np.sqrt(_square(vectors))
    limit = dead_zone * size
    symbols = signs(vectors[0], limit)
    for component in vectors[1:]:
        symbols *= np.int8(3)
        symbols += signs(component, limit)
    symbols += np.int8(13)
    return _MomentStates.by(symbols, size >= floor)


def _square(vectors: np.ndarray) -> np.ndarray:
    """Squared lengths of vectors [3, ...]."""
    x, y, z = vectors
    total = x * x
    total += y * y
    total += z * z
    return total


def _express(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Components of vectors [3, S, P, T] along the columns of axes [3, 3, S, P, T]."""
    x, y, z = vectors
    seen = axes[0] * x
    seen += axes[1] * y
    seen += axes[2] * z
    return seen
