"""A multiple-choice question (dsr.mcq) as token ids: video, question, options, and a letter as the answer.

The text is Qwen's chat format. The answer is the letter that is most likely right after the assistant's header.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dsr.mcq import DEFAULT_PROMPT, LETTERS, PROMPTS, SYSTEM

ANSWER_TOKENS = 2
"""A letter and <|im_end|>."""


@dataclass(frozen=True)
class Prompt:
    """One sample; the first three lists are of the same length."""

    input_ids: list[int]
    asks: list[bool]
    """Tokens that the GSM reads as the question: the text without special tokens, or the question's line alone."""
    answers: list[bool]
    """The tokens with a loss: letter and <|im_end|>; nowhere in a prompt for evaluation."""
    option_ends: list[int]
    """Place of each option's last token."""


def build_prompt(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    options: Sequence[str],
    *,
    video_tokens: int = 0,
    line_alone: bool = False,
    answer: str = "",
    form: str = DEFAULT_PROMPT,
) -> Prompt:
    """Token ids of a question.

    Args:
        options: texts that begin with their letters, "A. …".
        video_tokens: <|video_pad|> tokens, vision and geometry together; 0 for a prompt without video.
        line_alone: the question's line asks, and no other text. Without it, as published, all text does; in training
            without the assistant's header and the answer, and where the answer is to be read with the header.
        answer: a letter, for training; '' ends the prompt where the answer is to be read.
        form: name of a form of `dsr.mcq.PROMPTS`.
    """
    fixed = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n",
        "<|vision_start|>",
        "<|video_pad|>",
        "<|vision_end|>",
        "<|im_end|>\n",
        "<|im_start|>assistant\n",
        f"{answer}<|im_end|>" if answer else "",
    )
    pieces = PROMPTS[form].pieces(question, options)
    # One call: each has its overhead.
    encoded = encode(tokenizer, [*fixed, PROMPTS[form].line(question), *pieces])
    before, start, pad, end, end_of_turn, header, ending, line, lead, *lines = encoded
    video = [*start, *pad * video_tokens, *end] if video_tokens else []
    text = [*lead, *chain.from_iterable(lines)]
    start_of_line = len(before) + len(video) + len(lead)
    ends = (start_of_line - 1 + np.cumsum([len(line) for line in lines])).tolist()[1:-1]
    ids = before + video + text + end_of_turn + header + ending
    special = set(tokenizer.all_special_ids)
    if line_alone:
        # Without a question its heading asks: something must.
        asked = [*range(start_of_line, start_of_line + (_shared(line, lines[0]) or len(lines[0])))]
    else:
        left_out = len(header) + len(ending) if answer else 0
        asked = [*range(len(before)), *range(len(before) + len(video), len(ids) - left_out)]
    asks = [False] * len(ids)
    for i in asked:
        asks[i] = ids[i] not in special
    answers = [False] * (len(ids) - len(ending)) + [True] * len(ending)
    return Prompt(ids, asks, answers, ends)


def _shared(line: Sequence[int], piece: Sequence[int]) -> int:
    """Number of tokens with which both begin: a tokenizer may join a line's end with the break behind it."""
    return sum(takewhile(bool, (one == other for one, other in zip(line, piece, strict=False))))


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, as they stand in the middle of a prompt."""
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def letter_ids(tokenizer: PreTrainedTokenizerBase, letters: Sequence[str] = LETTERS) -> list[int]:
    """The token of each letter.

    Raises:
        ValueError: the tokenizer has no single token for one.
    """
    ids = encode(tokenizer, letters)
    if any(len(i) != 1 for i in ids):
        raise ValueError(f"the tokenizer splits an option letter: {dict(zip(letters, ids, strict=True))}")
    return [i[0] for i in ids]


@torch.no_grad()
def option_log_probs(model: Any, batch: Mapping[str, Any], letter_tokens: Sequence[int] | None = None) -> Tensor:
    """Log-probability of each letter as the next token, in one forward pass.

    Args:
        batch: of `dsr.examples.collate.Collator`, padded on the left, without answers.
        letter_tokens: of the letters, l of them; None: the four of the model's configuration.

    Returns:
        [b, l] float32 on the CPU. Over the whole vocabulary: the letters' do not add up to one.

    Raises:
        ValueError: the model returned NaN or infinity.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].float()
    letters = list(model.config.letter_token_ids if letter_tokens is None else letter_tokens)
    chosen = logits.log_softmax(-1)[:, letters].cpu()
    if not torch.isfinite(chosen).all():
        raise ValueError("the model's log-probabilities are not finite")
    return chosen
