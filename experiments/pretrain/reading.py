"""Pre-training of the question reader: who is asked about, when, and in which form, from question texts alone.

Losses: each slot of a thing should attend to its label's tokens, evenly; those of the key moments to the times; absent
things, seconds and form; and each token's role, by a probe on the reader's contextual states that is thrown away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsr.model.address import label
from dsr.model.reader import LABELS, QuestionReader, Reading
from dsr.questions.language.families import FORMS
from experiments.pretrain.steps import take_step
from experiments.pretrain.texts import END, NUM_TAGS, START, Names, QuestionText, draw_question, names, token_tags

BATCH, RATE = 64, 2e-3


@dataclass
class Lines:
    """Questions as tensors, padded on the right."""

    ids: Tensor
    """[b, l] int64."""
    mask: Tensor
    """[b, l] bool."""
    tags: Tensor
    """[b, l] int64."""
    seconds: Tensor
    """[b, NUM_SECONDS]."""
    form: Tensor
    """[b]."""

    @property
    def pointed(self) -> Tensor:
        """[b, LABELS, l] bool: tokens of each thing's label."""
        return self.tags[:, None] == torch.arange(1, LABELS + 1)[:, None]


def lines_of(questions: Sequence[QuestionText], tokenizer: Any) -> Lines:
    """Tensors of questions."""
    found = tokenizer([question.text for question in questions], add_special_tokens=False, return_offsets_mapping=True)
    tags = [token_tags(q, offsets) for q, offsets in zip(questions, found["offset_mapping"], strict=True)]
    length = max(map(len, tags))
    ids = [row + [0] * (length - len(row)) for row in found["input_ids"]]
    return Lines(
        ids=torch.tensor(ids),
        mask=torch.tensor([[k < len(row) for k in range(length)] for row in tags]),
        tags=torch.tensor([row + [0] * (length - len(row)) for row in tags]),
        seconds=torch.tensor([question.seconds for question in questions]).float(),
        form=torch.tensor([question.form for question in questions]),
    )


class Probes(nn.Module):
    """Heads of what is thrown away: form, and each token's role."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.form, self.tag = nn.Linear(width, len(FORMS)), nn.Linear(width, NUM_TAGS)


def losses(reading: Reading, states: Tensor, lines: Lines, probes: Probes) -> dict[str, Tensor]:
    """Losses by name.

    Args:
        states: [b, l, d] contextual states of the reader's last layer.
    """
    logs = reading.attention.clamp(min=1e-6).log()
    pointed = lines.pointed.float()
    there = pointed.sum(-1) > 0
    target = pointed / pointed.sum(-1, keepdim=True).clamp(min=1)
    pointing = -(target * logs[:, :LABELS]).sum(-1) - (-(target * target.clamp(min=1e-6).log()).sum(-1))
    moments = reading.attention[:, LABELS:-1]
    first, last = ((lines.tags == tag).float()[:, None] for tag in (START, END))
    # The first moment is at the start, if one is said, and the last at the end; those between need both.
    before = torch.where(first.sum(-1, keepdim=True) > 0, first, last)
    wanted = torch.cat([before, *[(first + last).clamp(max=1)] * (moments.shape[1] - 2), last], 1)
    times = -(moments * wanted).sum(-1).clamp(min=1e-6).log()
    roles = probes.tag(states)
    weight = torch.tensor([0.2] + [1.0] * (NUM_TAGS - 1))
    return {
        "pointers": pointing[there].mean(),
        "times": times.mean(),
        "absent": F.binary_cross_entropy_with_logits(reading.absent, (~there).float()),
        "seconds": F.smooth_l1_loss(reading.seconds, lines.seconds, beta=0.3),
        "form": F.cross_entropy(probes.form(reading.form), lines.form),
        "tags": F.cross_entropy(roles.transpose(1, 2), torch.where(lines.mask, lines.tags, -100), weight=weight),
    }


WEIGHTS = {"pointers": 1.0, "times": 0.5, "absent": 1.0, "seconds": 2.0, "form": 1.0, "tags": 1.0}


def train_reader(
    reader: QuestionReader,
    tokenizer: Any,
    codes: Tensor,
    steps: int,
    seed: int,
    report: Callable[[int, dict[str, float]], None],
) -> Probes:
    """Train a reader in place.

    Args:
        codes: [vocabulary, d] word embeddings.
        report: called with (step, figures) every 50 steps.
    """
    torch.manual_seed(seed)
    probes = Probes(codes.shape[1])
    kept: list[Tensor] = []
    hook = reader.layers[-1].register_forward_hook(lambda module, inputs, output: kept.append(_states(output)))
    learned = [*reader.parameters(), *probes.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.01, betas=(0.9, 0.99))
    mean: dict[str, float] = {}
    for step in range(steps):
        cosine = 0.5 * (1 + np.cos(np.pi * step / steps))
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 50) * (0.98 * cosine + 0.02)
        lines = lines_of(draw_batch(step, seed), tokenizer)
        kept.clear()
        reading = reader(codes[lines.ids], lines.mask)
        found = losses(reading, kept[-1], lines, probes)
        take_step(optimizer, learned, found, WEIGHTS, mean)
        if (step + 1) % 50 == 0:
            report(step + 1, dict(mean))
    hook.remove()
    return probes


def draw_batch(step: int, seed: int) -> list[QuestionText]:
    """Questions of a step."""
    rng = np.random.default_rng([seed, 3, step])
    return [draw_question(rng, names()) for _ in range(BATCH)]


def _states(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def measure_reader(
    reader: QuestionReader,
    probes: Probes,
    tokenizer: Any,
    codes: Tensor,
    questions: Sequence[QuestionText],
    distractors: Sequence[str] = (),
) -> dict[str, float]:
    """Shares of questions of which all labels are right, label by label, and of forms; mean error of seconds.

    A label is right where what is read is nearest to it, among the question's own and `distractors`; and one that is
    absent, where it is told to be.
    """
    labels, slots, forms, errors, masses = [], [], [], [], []
    others = _means(distractors, tokenizer, codes)
    for first in range(0, len(questions), 64):
        some = questions[first : first + 64]
        lines = lines_of(some, tokenizer)
        words = codes[lines.ids]
        reading = reader(words, lines.mask)
        true = label(words[:, None], lines.pointed.float())  # [b, 4, d]
        there = lines.pointed.any(-1)
        read = label(words[:, None], reading.pointers)
        candidates = torch.cat([true, others.expand(len(some), -1, -1)], 1)
        likeness = read @ candidates.transpose(1, 2)  # [b, 4, 4 + n]
        likeness[:, :, :LABELS].masked_fill_(~there[:, None], -1e9)
        # What has the same name is no distractor.
        likeness[:, :, LABELS:].masked_fill_(true @ others.T > 0.999 * codes.shape[1], -1e9)
        named = likeness.argmax(-1) == torch.arange(LABELS)
        right = torch.where(there, named & (reading.absent < 0), reading.absent >= 0)
        slots.append(right)
        labels.append(right.all(-1))
        masses.append((reading.pointers * lines.pointed).sum(-1)[there])
        forms.append(probes.form(reading.form).argmax(-1) == lines.form)
        errors.append((reading.seconds - lines.seconds).abs().mean(-1))
    per_slot = torch.cat(slots).float().mean(0).tolist()
    return {
        "labels": float(torch.cat(labels).float().mean()),
        **dict(zip(("viewer", "a", "b", "c"), per_slot, strict=True)),
        "pointed": float(torch.cat(masses).mean()),
        "seconds": float(torch.cat(errors).mean()),
        "form": float(torch.cat(forms).float().mean()),
    }


def draw_questions(known: Names, count: int, seed: int) -> list[QuestionText]:
    """Questions to measure with."""
    rng = np.random.default_rng([seed, 4])
    return [draw_question(rng, known) for _ in range(count)]


def _means(labels: Sequence[str], tokenizer: Any, codes: Tensor) -> Tensor:
    """[n, d] labels as the reader's are read."""
    rows = [codes[tokenizer(f" {text}", add_special_tokens=False)["input_ids"]].mean(0) for text in labels]
    return F.rms_norm(torch.stack(rows), codes.shape[1:]) if rows else codes[:0]
