"""Tokenizer and word embeddings of the small backbone.

Embeddings are drawn, not learned, and stay as they are: each is a code of its own, nearly orthogonal to all others, so
that a mixture of a few words can be read back. Three kinds share a part of their codes with others:

- A number carries its value: part of its code is the value's place on smooth curves, the same for "12", ", 12".
- A state of axes ("in front and left") carries its axes, which all vocabularies share.
- A state that continues an option (", then left") lies near the one that opens it (" It is left").
"""

import math
import re

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dsr.questions.language.families import FORMS, Family
from dsr.questions.language.templates import answer_text, num_axes
from experiments.pretrain.texts import (
    draw_choice,
    draw_question,
    names,
    opening,
    option_words,
    states_of,
    vocabulary_of,
)

NUM_TEXTS = 6000
MAX_SECONDS, MAX_PIXELS = 20.0, 640
"""Times below this, and coordinates up to that, are one token each."""
VALUE, AXES, OPENING = 0.6, 0.7, 0.8
"""Shares of the variance of a code that are its value's, its axes', and the opening word's."""


def tokenizer_texts(seed: int) -> list[str]:
    """Texts for `train_tokenizer`: with them every state, answer, time and coordinate becomes one token."""
    rng = np.random.default_rng([seed, 0])
    known = names()
    texts = [draw_question(rng, known).text for _ in range(NUM_TEXTS)]
    for form in range(len(FORMS)):
        texts += [option for _ in range(40) for option in draw_choice(rng, form).options]
    texts += 20 * [f"A.{word}" for word in first_words()] + 20 * list(then_words())
    texts += 20 * [f" {k / 10:.1f}" for k in range(int(10 * MAX_SECONDS))]
    texts += 20 * [f"{comma}{k}" for comma in ("", ", ") for k in range(MAX_PIXELS + 1)]
    return texts


def first_words() -> dict[str, tuple[str, tuple[int, ...]] | None]:
    """Words that open an option, with the signal and state that each tells; None for a family's."""
    found: dict[str, tuple[str, tuple[int, ...]] | None] = {}
    for index, form in enumerate(FORMS):
        known = vocabulary_of(index)
        for word, axes in zip(known.words, known.axes.tolist(), strict=True):
            found[word] = None if isinstance(form, Family) else (form.signal, tuple(axes))
    return found


def then_words() -> dict[str, str]:
    """Words that continue an option, with those that open one and tell the same."""
    found: dict[str, str] = {}
    for index, form in enumerate(FORMS):
        if isinstance(form, Family):
            words = [word for answer in form.answers for word in option_words(answer)[1:]]
            found |= {word: opening(word) for word in words}
        else:
            for state, word in zip(states_of(form.vocabulary), vocabulary_of(index).words, strict=True):
                found.setdefault(option_words(answer_text(form.vocabulary, (state, state)))[1], word)
    return found


def draw_embeddings(tokenizer: PreTrainedTokenizerBase, width: int, seed: int) -> Tensor:
    """[vocabulary, width] float32 codes, each of root mean square 1."""
    draw = torch.Generator().manual_seed(seed)
    codes = _unit(torch.randn(len(tokenizer), width, generator=draw))
    axes = _unit(torch.randn(3, 3, width, generator=draw))
    curves = torch.randn(2, 12, width, generator=draw)
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        if re.fullmatch(r" ?\d+\.\d", text):
            value = _curve(float(text) / MAX_SECONDS) @ curves[0]
        elif re.fullmatch(r"(, )?\d{1,3}", text):
            value = _curve(int(text.removeprefix(", ")) / 1000) @ curves[1]
        else:
            continue
        codes[token] = _mix(_unit(value), codes[token], VALUE)
    openings = first_words()
    for word, told in openings.items():
        if told is not None and num_axes(told[0]) == 3:
            token = single_token(tokenizer, word, first=True)
            own = _unit(sum(axes[axis, state + 1] for axis, state in enumerate(told[1])))
            codes[token] = _mix(own, codes[token], AXES)
    for word, opened in then_words().items():
        token, source = single_token(tokenizer, word), single_token(tokenizer, opened, first=True)
        codes[token] = _mix(codes[source], codes[token], OPENING)
    return codes


def single_token(tokenizer: PreTrainedTokenizerBase, word: str, first: bool = False) -> int:
    """Token of a word of an option.

    Raises:
        ValueError: it is split.
    """
    ids = tokenizer(f"A.{word}" if first else word, add_special_tokens=False)["input_ids"]
    ids = ids[len(tokenizer("A.", add_special_tokens=False)["input_ids"]) :] if first else ids
    if len(ids) != 1:
        raise ValueError(f"the tokenizer splits {word!r}: {tokenizer.convert_ids_to_tokens(ids)}")
    return ids[0]


def _curve(value: float) -> Tensor:
    """[12] smooth features of a value from 0 to 1."""
    phases = math.pi * value * 2.0 ** torch.arange(6) / 2
    return torch.cat([phases.sin(), phases.cos()])


def _unit(codes: Tensor) -> Tensor:
    return codes / codes.pow(2).mean(-1, keepdim=True).sqrt()


def _mix(shared: Tensor, own: Tensor, share: float) -> Tensor:
    return _unit(math.sqrt(share) * shared + math.sqrt(1 - share) * own)
