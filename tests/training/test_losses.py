"""Losses by hand."""

from itertools import pairwise, product
from math import exp, log

import pytest
import torch

from dsr.training.losses import (
    attention_loss,
    option_log_likelihood,
    option_scores,
    state_log_probs,
    state_loss,
)


def test_option_scores_by_hand() -> None:
    logits = torch.zeros(1, 6, 9)
    letters = torch.tensor([5, 6, 7, 8])
    logits[0, [1, 2, 3, 4], letters] = torch.tensor([0.0, 3.0, 0.0, 0.0])
    assert option_scores(logits, torch.tensor([[1, 2, 3, 4]]), letters).tolist() == [[0, 3, 0, 0]]


SENTENCES = 2 * torch.eye(4)[:3]
"""Of three states in four dimensions, root mean square one."""


def test_states_are_told_by_what_is_most_like_them() -> None:
    tokens = torch.stack([SENTENCES[0], SENTENCES[2]])[None]
    possible = torch.tensor([[True, True, False]])
    probs = state_log_probs(tokens, SENTENCES, possible).exp()[0]
    # 4 / sqrt(4) for the sentence itself, 0 for another; the third is no state of this question's.
    sure = exp(2) / (exp(2) + 1)
    assert probs[0].tolist() == pytest.approx([sure, 1 - sure, 0])
    assert probs[1].tolist() == pytest.approx([0.5, 0.5, 0])


def test_state_loss_by_hand() -> None:
    tokens = torch.stack([SENTENCES[0], SENTENCES[2], torch.full((4,), float("nan"))])[None]
    states = torch.tensor([[0, 1, -100]])
    loss, right = state_loss(tokens, SENTENCES, torch.tensor([[True, True, False]]), states)
    entropy = (-log(exp(2) / (exp(2) + 1)) + log(2)) / 2
    assert loss.item() == pytest.approx(entropy + 8 / 8)
    assert right.tolist()[0] is True
    assert len(right) == 2


def test_questions_count_the_same_however_many_states_they_have() -> None:
    tokens, possible = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [True, True, True]])
    states = torch.tensor([[0, 1, 0], [2, -100, -100]])
    one, other = (state_loss(tokens[k:][:1], SENTENCES, possible[k:][:1], states[k:][:1])[0] for k in (0, 1))
    none = torch.full((1, 3), -100)
    together, right = state_loss(tokens[[0, 1, 1]], SENTENCES, possible[[0, 1, 1]], torch.cat([states, none]))
    assert together.item() == pytest.approx((one + other).item() / 2)
    assert len(right) == 4
    log_probs = torch.tensor([0.5, 0.25, 0.125, 0.125]).log().expand(2, 1, 2, 4)
    keys = torch.tensor([[[0, 0]], [[1, -1]]])
    assert attention_loss(log_probs, keys).item() == pytest.approx((log(2) + log(4)) / 2)


def test_attention_loss_by_hand() -> None:
    log_probs = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).log().view(1, 2, 1, 3)
    keys = torch.tensor([[[1], [-1]]])
    assert attention_loss(log_probs, keys).item() == pytest.approx(-log(0.25))
    assert attention_loss(log_probs, torch.tensor([[[1], [2]]])).item() == pytest.approx(-(log(0.25) + log(0.8)) / 2)
    assert attention_loss(log_probs, torch.full_like(keys, -1)).item() == 0


@pytest.mark.parametrize("answer", [(0,), (2,), (0, 1), (1, 0), (0, 1, 0), (2, 1, 0, 1)])
def test_the_likelihood_of_an_answer_is_that_of_all_its_spreads(answer: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    log_probs = torch.randn(4, 3).log_softmax(-1)
    total = 0.0
    for places in product(range(len(answer)), repeat=4):
        steps = [b - a for a, b in pairwise(places)]
        if places[0] == 0 and places[-1] == len(answer) - 1 and set(steps) <= {0, 1}:
            total += exp(sum(log_probs[m, answer[place]].item() for m, place in enumerate(places)))
    assert option_log_likelihood(log_probs, answer) == pytest.approx(log(total), rel=1e-5)
    assert option_log_likelihood(log_probs[:1], (0, 1)) == float("-inf")
