"""Which questions a run is given, in which order and form: a function of the seed alone, so that a run that was killed
goes on exactly where it stopped. And the losses that a model from random initialisation needs.

Such a model cannot read options; learning to match them holds everything up, not the geometry. Three aids, made from
the training rows alone, for the small preset; all are off for a published backbone, and nothing of them is left at
evaluation:

- Warm-up on text (`train.text_steps`): in the place of the video stands a noisy copy of the right option, and the
  model learns to find it among the four.
- Option loss (`train.option_loss`): at the end of each option the model is asked whether this is the one. The logit of
  the option's own letter there, compared over the four, should single out the right one.
- State loss (`train.state_loss`): the language model's head, applied to the geometry tokens, should spell the right
  option. The tokens then stand where the copy stood in the warm-up, and say the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from dsr.model.chat import LETTERS
from dsr.model.qwen2_5_vl_gsm import IGNORED
from dsr.training.collate import right_option, text_length
from dsr.training.records import Example

NOISE = 0.1
"""Share of the states of a hint that are replaced by states of the question's other options."""
_THEN = ", then"
BUCKET = 16
"""Batches among which questions are sorted by length: little padding, and still a random order."""


@dataclass(frozen=True)
class Curriculum(Dataset[Example]):
    """The examples of a run in the order in which they are used; each `batch_size` of them are alike in length."""

    examples: Sequence[Example]
    batch_size: int
    text_batches: int
    """Batches of the warm-up."""
    batches: int
    """Batches after it."""
    shuffle_options: bool
    seed: int
    questions_per_clip: int = 1
    """Above 1, up to so many questions about the same frames of a clip follow one another, for a shared prefix."""

    def __post_init__(self) -> None:
        rows = _order(self.examples, self.batch_size, self.text_batches, [self.seed, 0])
        if self.questions_per_clip > 1:
            rows += _grouped_order(
                self.examples, self.questions_per_clip, self.batches * self.batch_size, [self.seed, 1]
            )
        else:
            rows += _order(self.examples, self.batch_size, self.batches, [self.seed, 1])
        object.__setattr__(self, "_rows", rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng([self.seed, 2, index])
        example = self.examples[self._rows[index]]
        if self.shuffle_options:
            example = permute_options(example, rng.permutation(len(LETTERS)))
        return with_hint(example, rng) if index < self.text_batches * self.batch_size else example


def permute_options(example: Example, order: np.ndarray) -> Example:
    """The question with its options in another order: option i is the former order[i]."""
    options = tuple(f"{letter}{example.options[k][1:]}" for letter, k in zip(LETTERS, order, strict=True))
    return replace(example, options=options, answer=LETTERS[order.tolist().index(LETTERS.index(example.answer))])


def with_hint(example: Example, rng: np.random.Generator) -> Example:
    """The question with a noisy copy of its right option as the hint: some of its states are those of other options."""
    others = [state for option in example.options if option[0] != example.answer for state in option[2:].split(_THEN)]
    states = right_option(example).split(_THEN)
    noisy = [str(rng.choice(others)) if rng.random() < NOISE else state for state in states]
    return replace(example, hint=_THEN.join(noisy))


def option_loss(logits: Tensor, option_ends: Tensor, answers: Tensor, letters: Tensor) -> Tensor:
    """Cross-entropy over the options of the logit of each option's letter at its end.

    Args:
        logits: [b, s, vocabulary].
        option_ends: [b, 4] int64, place of each option's last token.
        answers: [b] int64, token of the right letter.
        letters: [4] int64, tokens of the letters.
    """
    rows = torch.arange(len(logits), device=logits.device)[:, None]
    scores = logits[rows, option_ends, letters]  # [b, 4]
    return F.cross_entropy(scores.float(), (answers[:, None] == letters).long().argmax(-1))


def state_loss(logits: Tensor, state_labels: Tensor) -> Tensor:
    """Cross-entropy of spelling the right option.

    Args:
        logits: [b, N, vocabulary] of the geometry tokens.
        state_labels: [b, N] int64, IGNORED beyond the option's text.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), state_labels.flatten(), ignore_index=IGNORED)


def _order(examples: Sequence[Example], batch_size: int, batches: int, seed: list[int]) -> list[int]:
    """Rows of `batches` batches: epoch after epoch of all examples, each in a new order."""
    rng = np.random.default_rng(seed)
    lengths = np.array([text_length(example) for example in examples])
    needed, rows = batches * batch_size, np.zeros(0, np.int64)
    while len(rows) < needed:
        rows = np.concatenate([rows, rng.permutation(len(examples))])
    rows = rows[:needed].reshape(batches, batch_size)
    for start in range(0, batches, BUCKET):
        bucket = rows[start : start + BUCKET]
        by_length = bucket.ravel()[np.argsort(lengths[bucket.ravel()], kind="stable")]
        rows[start : start + BUCKET] = rng.permutation(by_length.reshape(bucket.shape))
    return rows.ravel().tolist()


def _grouped_order(examples: Sequence[Example], together: int, needed: int, seed: list[int]) -> list[int]:
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
