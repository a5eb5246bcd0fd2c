"""What texts tell of answers: found where it is planted, and balanced away by the matching."""

from dataclasses import replace

import numpy as np
import pytest

from dsr.params import QA
from dsr.questions.engine.answers import run_lengths
from dsr.questions.engine.candidates import MAX_MOMENTS, MAX_TARGETS, Candidates
from dsr.questions.language.families import FORMS
from dsr.questions.quartets.logit import fit_logit
from dsr.questions.quartets.matching import match_quartets
from dsr.questions.quartets.text_balance import answer_features, fit, text_numbers

BALANCED = QA(max_advantage=2.0)
WAYS = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)], np.int8)
PREDICTION = next(i for i, form in enumerate(FORMS) if form.type == "abs_dir_pred")


def told_by_the_box(count: int, strength: float, seed: int = 0) -> Candidates:
    """Predictions of four answers; the first target's box lies at 0.2, 0.4, 0.6, 0.8 by answer, plus noise."""
    rng = np.random.default_rng(seed)
    answer = rng.integers(4, size=count)
    x = strength * 0.2 * (answer + 1) + rng.normal(0, 0.15, count)
    boxes = np.full((count, 1 + MAX_TARGETS, 4), np.nan, np.float32)
    boxes[:, 1] = np.stack([x - 0.05, np.full(count, 0.4), x + 0.05, np.full(count, 0.6)], axis=1)
    return Candidates(
        clip=np.arange(count, dtype=np.int32),
        form=np.full(count, PREDICTION, np.int16),
        viewer=np.zeros(count, np.int16),
        targets=np.full((count, MAX_TARGETS), -1, np.int16),
        frames=np.full((count, MAX_MOMENTS), -1, np.int16),
        answer=run_lengths(WAYS[answer][:, None]),
        signal=np.full((count, MAX_MOMENTS, 3), np.nan, np.float32),
        signature=np.zeros(count, np.int64),
        boxes=boxes,
        times=np.tile(np.float32([0, 2]), (count, 1)),
    )


def guessed(candidates: Candidates, quartets: np.ndarray) -> float:
    """How often a fixed rule is right that knows how boxes were placed: the option whose place is nearest."""
    x = candidates.boxes[quartets, 1][..., [0, 2]].mean(axis=-1)
    code = {int(c): i for i, c in enumerate(run_lengths(WAYS[:, None]))}
    place = np.array([[0.2 * (code[int(candidates.answer[k])] + 1) for k in quartet] for quartet in quartets])
    # Member i of a quartet is asked with option j: right where i == j.
    guess = np.abs(x[:, :, None] - place[:, None]).argmin(axis=2)
    return float((guess == np.arange(4)).mean())


def test_a_text_that_tells_the_answer_is_balanced_away() -> None:
    candidates = told_by_the_box(4000, strength=1.0)
    plain = match_quartets(candidates, BALANCED, np.random.default_rng(0)).quartets
    assert guessed(candidates, plain) > 0.5
    others = told_by_the_box(4000, strength=1.0, seed=1)
    learned = fit(others, match_quartets(others, BALANCED, np.random.default_rng(1)).quartets)
    balanced = match_quartets(candidates, BALANCED, np.random.default_rng(0), {PREDICTION: learned}).quartets
    assert len(balanced) > 50
    assert guessed(candidates, balanced) < 0.30
    said = learned.of_answers(np.unique(candidates.answer).tolist())
    evidence = learned.evidence(learned.words(candidates), said)
    own = np.searchsorted(np.unique(candidates.answer), candidates.answer)
    advantage = evidence[np.arange(len(own)), :, own] - evidence.mean(axis=2)
    assert advantage[plain.ravel()].sum() > 100
    assert np.linalg.norm(advantage[balanced.ravel()].sum(axis=0)) <= BALANCED.max_advantage + 1e-3


def test_a_text_that_tells_nothing_costs_few_questions() -> None:
    candidates = told_by_the_box(2000, strength=0.0)
    plain = match_quartets(candidates, BALANCED, np.random.default_rng(0)).quartets
    learned = fit(candidates, plain)
    balanced = match_quartets(candidates, BALANCED, np.random.default_rng(0), {PREDICTION: learned}).quartets
    assert len(balanced) > 0.9 * len(plain)


def test_logit_finds_the_weights_that_made_the_choices() -> None:
    rng = np.random.default_rng(0)
    words = np.eye(3, dtype=np.float32)[rng.integers(3, size=30_000)]
    tokens = rng.integers(0, 2, (30_000, 4, 2)).astype(np.float32)
    truth = np.array([[1.0, -0.5], [0.0, 2.0], [-1.0, 0.3]])
    scores = np.einsum("qo,qko->qk", words @ truth, tokens)
    right = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    np.testing.assert_allclose(fit_logit(words, tokens, right, 1e-3, 200), truth, atol=0.08)


def test_numbers_of_a_text() -> None:
    candidates = told_by_the_box(1, strength=0.0)
    candidates.boxes[0, 1] = [0.1, 0.2, 0.3, 0.6]
    candidates.boxes[0, 2] = [0.5, 0.5, 0.7, 0.9]
    candidates.times[0] = [1.0, 3.5]
    numbers = text_numbers(candidates)[0]
    # Four roles with x, y, log size, log shape; viewer and third target are not there.
    np.testing.assert_allclose(numbers[4:8], [0.2, 0.4, np.log(0.08) / 2, np.log(0.5)], rtol=1e-5)
    assert np.isnan(numbers[:4]).all()
    assert np.isnan(numbers[12:16]).all()
    # Pairs (viewer, a), (viewer, b), (viewer, c), (a, b), ...: from a to b is 0.4 right, 0.3 down, equal in size.
    np.testing.assert_allclose(numbers[16 + 9 : 16 + 12], [0.4, 0.3, 0.0], atol=1e-6)
    np.testing.assert_allclose(numbers[-3:], [1.0, 3.5, 2.5])


@pytest.mark.parametrize("form", [i for i, f in enumerate(FORMS) if f.signal == "dis"][:1])
def test_features_of_an_answer(form: int) -> None:
    grows_then_shrinks = int(run_lengths(np.array([[[1], [1], [-1], [-1]]], np.int8))[0])
    features = answer_features(form, grows_then_shrinks)
    assert {"first (1,)", "last (-1,)", "runs 2", "has (1,)", "has (-1,)", "pair ((1,), (-1,))"} < set(features)


def test_same_questions_same_weights() -> None:
    candidates = told_by_the_box(400, 1.0)
    quartets = match_quartets(candidates, BALANCED, np.random.default_rng(0)).quartets
    first, second = fit(candidates, quartets), fit(replace(candidates), quartets)
    np.testing.assert_array_equal(first.weights, second.weights)
