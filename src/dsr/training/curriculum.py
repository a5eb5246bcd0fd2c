"""Questions that a run is given, their order and form: a function of the seed alone, so that a run that was killed
goes on exactly where it stopped.

First batches for the GSM alone (`train.geometry_steps`): many questions about a few clips, whose 3D tokens they share,
without the language model; such a batch costs a tenth of one with it. Then whole questions (`train.steps`).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch.utils.data import Dataset

from dsr.mcq import LETTERS, bare, lettered
from dsr.training.guidance import Change, GuidedExample, changed

MAX_SHIFT = 1.0
"""Seconds by which clocks of changed clips are put forward, at most."""
GSM_CLIPS, GSM_QUESTIONS = 16, 4
"""Clips in a batch for the GSM alone, and questions about each."""


@dataclass(frozen=True)
class TrainingBatch:
    """Questions of one forward and backward pass."""

    examples: tuple[GuidedExample, ...]
    gsm_alone: bool = False
    """They are for the GSM, without the language model."""


@dataclass(frozen=True)
class Curriculum(Dataset[TrainingBatch]):
    """The batches of a run in the order in which they are used."""

    examples: Sequence[GuidedExample]
    batch_size: int
    geometry_batches: int
    """Batches for the GSM alone, of questions that have a guide."""
    batches: int
    """Batches of whole questions."""
    shuffle_options: bool
    seed: int
    questions_per_clip: int = 1
    """Above 1, up to so many questions about the same frames of a clip follow one another, for a shared prefix."""
    augment: float = 0.0
    """Above 0, clips of guided questions are changed, with noise of this deviation (dsr.training.guidance)."""
    shifts_clocks: bool = False
    """Clocks of changed clips are put forward too."""
    _batches: list[list[int]] = field(init=False, repr=False)
    _names: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        guided = [row for row, example in enumerate(self.examples) if example.guide]
        examples = [self.examples[row] for row in guided]
        made = _shared_batches(examples, self.geometry_batches, [self.seed, 3])
        batches = [[guided[row] for row in batch] for batch in made]
        needed = self.batches * self.batch_size
        if self.questions_per_clip > 1:
            rows = _grouped_order(self.examples, self.questions_per_clip, needed, [self.seed, 1])
        else:
            rows = _order(len(self.examples), needed, [self.seed, 1])
        object.__setattr__(self, "_batches", batches + _cut(rows, self.batch_size))
        # Things without a box, the camera, are called the same in every clip.
        named = {name for e in examples for name, box in zip(e.labels, e.boxes, strict=True) if box}
        object.__setattr__(self, "_names", sorted(named))

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def for_gsm(self) -> list[GuidedExample]:
        """Questions of the batches for the GSM alone."""
        rows = {row for batch in self._batches[: self.geometry_batches] for row in batch}
        return [self.examples[row] for row in sorted(rows)]

    def __getitem__(self, index: int) -> TrainingBatch:
        rng = np.random.default_rng([self.seed, 2, index])
        examples = []
        for row in self._batches[index]:
            example = self.examples[row]
            if self.shuffle_options:
                example = permute_options(example, rng.permutation(len(LETTERS)))
            examples.append(self._changed(example, index))
        return TrainingBatch(tuple(examples), gsm_alone=index < self.geometry_batches)

    def _changed(self, example: GuidedExample, index: int) -> GuidedExample:
        """The question about its clip as it is changed for a batch."""
        if not self.augment or example.guide is None:
            return example
        clip = [zlib.crc32(example.clip_id.encode()), example.shown_frames]
        rng = np.random.default_rng([self.seed, 4, index, *clip])
        return changed(example, Change.draw(self._names, MAX_SHIFT * self.shifts_clocks, self.augment, rng))


def permute_options(example: GuidedExample, order: np.ndarray) -> GuidedExample:
    """The question with its options in another order: option i is the former order[i]."""
    options = lettered(bare(example.options[k]) for k in order)
    return replace(example, options=options, answer=LETTERS[order.tolist().index(LETTERS.index(example.answer))])


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _order(count: int, needed: int, seed: list[int]) -> list[int]:
    """`needed` rows: epoch after epoch of `count` examples, each in a new order."""
    rng = np.random.default_rng(seed)
    epochs = [rng.permutation(count) for _ in range(-(-needed // count))]
    return np.concatenate([np.zeros(0, np.int64), *epochs])[:needed].tolist()


def _shared_batches(examples: Sequence[GuidedExample], count: int, seed: list[int]) -> list[list[int]]:
    """`count` batches of GSM_QUESTIONS questions about each of GSM_CLIPS clips.

    What is left of a clip's questions is filled up with others of them, and taken as often as it fills its place.
    """
    rng = np.random.default_rng(seed)
    groups: dict[tuple[str, int], list[int]] = {}
    for row, example in enumerate(examples):
        groups.setdefault((example.clip_id, example.shown_frames), []).append(row)
    units, batches = list[list[int]](), list[list[int]]()
    while len(batches) < count:
        for group in groups.values():
            rest = len(group) % GSM_QUESTIONS
            whole = len(group) - rest
            needed = whole + GSM_QUESTIONS * (rng.random() * GSM_QUESTIONS < rest)
            units += _cut(np.resize(rng.permutation(group), needed).tolist(), GSM_QUESTIONS)
        units = [units[k] for k in rng.permutation(len(units))]
        taken = len(units) - len(units) % GSM_CLIPS
        batches += _cut([row for unit in units[:taken] for row in unit], GSM_CLIPS * GSM_QUESTIONS)
        units = units[taken:]
    return batches[:count]


def _grouped_order(examples: Sequence[GuidedExample], together: int, needed: int, seed: list[int]) -> list[int]:
    """`needed` rows: epoch after epoch, in units of `together` rows in a random order.

    A unit is questions about the same frames of a clip; what is left of each clip makes up units with others'.
    """
    rng = np.random.default_rng(seed)
    groups: dict[tuple[str, int], list[int]] = {}
    for row, example in enumerate(examples):
        groups.setdefault((example.clip_id, example.shown_frames), []).append(row)
    members, rows = list(groups.values()), list[int]()
    while len(rows) < needed:
        units, rest = list[list[int]](), list[int]()
        for k in rng.permutation(len(members)).tolist():
            group = rng.permutation(members[k]).tolist()
            whole = len(group) - len(group) % together
            units += [group[start : start + together] for start in range(0, whole, together)]
            rest += group[whole:]
        units += [rest[start : start + together] for start in range(0, len(rest), together)]
        # The last unit may be smaller: at the end it leaves the others in step with the batches.
        last = [units.pop()] if units and len(units[-1]) < together else []
        rows += [row for k in rng.permutation(len(units)) for row in units[k]] + [row for unit in last for row in unit]
    return rows[:needed]
