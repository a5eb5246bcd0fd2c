"""Questions that a run is given, their order and form: a function of the seed alone, so that a run that was killed
goes on exactly where it stopped. And the losses that a model from random initialisation needs.

Such a model cannot read options; learning to match them holds everything up, not the geometry. So the small model is
taught in lessons made from the training rows alone. All are off for a published backbone, and nothing of them is left
at evaluation:

1. Geometry (`train.geometry_steps`, fusion `gsm`): the GSM is asked without the language model. Its tokens should
   spell the right option (state loss). Such a step costs a tenth of one with the language model.
2. Options (`train.text_steps`): a prompt of the options alone, with a noisy copy of the right one in the places of the
   geometry tokens (without a GSM, in those of the video). The language model learns to find it among the four, however
   far away it is: without the gaps in position it finds nothing once there is a video, nor learns to in 350 batches.
3. Whole questions (`train.steps`). At first such a copy stands in the places of the geometry tokens; then these are
   moved a part of the way to it, a random one and ever smaller: a bridge from tokens that tell all to those that the
   GSM really gives, which tell little. With

- option loss (`train.option_loss`, also in lesson 2): the letter after the prompt is to be right among the four, not in
  the whole vocabulary alone, and at the end of each option the model is asked whether this is the one: the logit of the
  option's own letter there, compared over the four, should single out the right one;
- state loss (`train.state_loss`): the geometry tokens go on spelling. The language model's head is applied to them, and
  the right option should be more likely than the other three.

Word embeddings stay as they were drawn, in all lessons: what one has learned to say, another has learned to read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dsr.examples.records import Example
from dsr.mcq import LETTERS, bare, lettered
from dsr.model.qwen2_5_vl_gsm import IGNORED

SHARPNESS = 10.0
"""Factor on the options' mean log-probabilities, where the state loss compares them in the geometry lesson."""
PLAINNESS = 2.0
"""The same in whole questions: differences must be large enough for the language model to see."""
FADING = 3.0
"""Speed of fading hints in whole questions after a geometry lesson: after a third of them hints have weights from 0 to
1, and in the end two questions in three have none."""
GAP = 120
"""Positions left out between hint and options are fewer than so many."""
NOISE = 0.1
"""Share of the states of a hint that are replaced by another option's state in the same place."""
_THEN = ", then"


@dataclass(frozen=True)
class Curriculum(Dataset[Example]):
    """The examples of a run in the order in which they are used."""

    examples: Sequence[Example]
    batch_size: int
    text_batches: int
    """Batches of options alone."""
    geometry_batches: int
    """Batches for the GSM alone."""
    batches: int
    """Batches of whole questions."""
    shuffle_options: bool
    seed: int
    questions_per_clip: int = 1
    """Above 1, up to so many questions about the same frames of a clip follow one another, for a shared prefix."""
    _rows: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = _order(len(self.examples), self.geometry_batches * self.batch_size, [self.seed, 3])
        rows += _order(len(self.examples), self.text_batches * self.batch_size, [self.seed, 0])
        needed = self.batches * self.batch_size
        if self.questions_per_clip > 1:
            rows += _grouped_order(self.examples, self.questions_per_clip, needed, [self.seed, 1])
        else:
            rows += _order(len(self.examples), needed, [self.seed, 1])
        object.__setattr__(self, "_rows", rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng([self.seed, 2, index])
        example = self.examples[self._rows[index]]
        if self.shuffle_options:
            example = permute_options(example, rng.permutation(len(LETTERS)))
        batch = index // self.batch_size
        if batch < self.geometry_batches:
            return replace(example, lesson="geometry")
        if batch < self.geometry_batches + self.text_batches:
            return replace(with_hint(example, rng), lesson="options", gap=int(rng.integers(GAP)))
        done = (batch - self.geometry_batches - self.text_batches) / self.batches
        weight = 1 - FADING * done * rng.random() if self.geometry_batches else 0.0
        return replace(with_hint(example, rng), hint_weight=weight) if weight > 0 else example


def permute_options(example: Example, order: np.ndarray) -> Example:
    """The question with its options in another order: option i is the former order[i]."""
    options = lettered(bare(example.options[k]) for k in order)
    return replace(example, options=options, answer=LETTERS[order.tolist().index(LETTERS.index(example.answer))])


def with_hint(example: Example, rng: np.random.Generator) -> Example:
    """The question with a noisy copy of its right option as the hint: some of its states are those that another option
    has there."""
    states = [option.removesuffix(".").split(_THEN) for option in example.options]
    right = states[LETTERS.index(example.answer)]
    noisy = [
        str(rng.choice([other[i] for other in states if i < len(other)])) if rng.random() < NOISE else state
        for i, state in enumerate(right)
    ]
    return replace(example, hint=f"{_THEN.join(noisy)}.")


def option_scores(logits: Tensor, option_ends: Tensor, letters: Tensor) -> Tensor:
    """The logit of each option's letter at the option's end, [b, 4].

    Args:
        logits: [b, s, vocabulary].
        option_ends: [b, 4] int64, place of each option's last token.
        letters: [4] int64, tokens of the letters.
    """
    rows = torch.arange(len(logits), device=logits.device)[:, None]
    return logits[rows, option_ends, letters].float()


def state_scores(logits: Tensor, state_labels: Tensor, sharpness: float) -> Tensor:
    """Scores [b, 4] of the options as geometry tokens spell them: `sharpness` times their tokens' mean log-probability.

    Args:
        logits: [b, N, vocabulary] of the geometry tokens.
        state_labels: [b, 4, N] int64, IGNORED beyond the option's text.
    """
    log_probs = logits.float().log_softmax(-1).transpose(1, 2)  # [b, vocabulary, N]
    spelled = state_labels != IGNORED
    chosen = log_probs.gather(1, state_labels.clamp(min=0)) * spelled
    return sharpness * chosen.sum(-1) / spelled.sum(-1).clamp(min=1)


def _order(count: int, needed: int, seed: list[int]) -> list[int]:
    """`needed` rows: epoch after epoch of `count` examples, each in a new order."""
    rng = np.random.default_rng(seed)
    epochs = [rng.permutation(count) for _ in range(-(-needed // count))]
    return np.concatenate([np.zeros(0, np.int64), *epochs])[:needed].tolist()


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
