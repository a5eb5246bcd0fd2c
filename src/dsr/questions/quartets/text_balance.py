"""Logit of what a question's text gives away of its answer, learned so that the matching can balance it out.

A quartet makes each option right once, so options alone tell nothing; the text can still tell which of them is right:
a small box is far away and cannot come much nearer, an agent seen in profile walks across the image. No signature
holds all of that. So a conditional logit is fitted to quartets that were matched by signature alone: how much does a
feature of the text (a box's place and size, how two boxes lie, when and how long) speak for a feature of an answer (its
first state, its last, which it has, ...)? What the text of a question speaks for its right option, against the mean of
the four, is its advantage, in nats. The matching keeps the sum of advantages near zero in every block, for each
subject of a text by itself, so that what the logit sees is worth nothing in the pool, neither in the training set nor
in the benchmark.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from dsr.questions.engine.answers import decode_run_lengths, sequence_features
from dsr.questions.engine.candidates import MAX_TARGETS, Candidates
from dsr.questions.language.families import FORMS, Family
from dsr.questions.language.templates import num_axes
from dsr.questions.quartets.logit import fit_logit

_BINS = 6
"""Bins of a number, of equal counts; one more is for what is not known."""
_FEATURES = 64
"""Features of answers, the most frequent ones."""
_PENALTY = 2.0
_STEPS = 30


@dataclass(frozen=True, eq=False)
class TextLogit:
    """The logit of one form."""

    form: int
    """Index into FORMS."""
    columns: np.ndarray
    """[F] int, which of `text_numbers` the form's texts give."""
    edges: np.ndarray
    """[F, _BINS - 1] where a number's bins part."""
    features: dict[str, int]
    """Features of answers -> column of `weights`."""
    weights: np.ndarray
    """[F * (_BINS + 1), O] float32: what a number in a bin says for an answer's feature."""

    def words(self, candidates: Candidates) -> np.ndarray:
        """[K, F] int: the rows of `weights` that the texts of candidates have."""
        return _words(text_numbers(candidates)[:, self.columns], self.edges)

    def of_answers(self, answers: Sequence[int]) -> np.ndarray:
        """[F * (_BINS + 1), C] float32: what each word says for answers, given as C codes."""
        return self.weights @ _feature_table(self.form, answers, self.features).T

    def evidence(self, words: np.ndarray, said: np.ndarray) -> np.ndarray:
        """[K, subjects, C] by how much each subject of texts speaks for answers, in nats up to a constant.

        Args:
            words: [K, F] of `words`.
            said: columns of `of_answers`.
        """
        return np.add.reduceat(np.take(said, words, axis=0), self.subjects, axis=1)

    @cached_property
    def subjects(self) -> np.ndarray:
        """Columns at which the words of each subject begin."""
        return np.flatnonzero(np.diff(_SUBJECTS[self.columns], prepend=-1))


def fit(candidates: Candidates, quartets: np.ndarray) -> TextLogit:
    """The logit of quartets [Q, 4] of candidates of one form."""
    members = candidates.take(quartets.ravel())
    form = int(members.form[0])
    numbers = text_numbers(members)
    columns = np.flatnonzero(np.isfinite(numbers).any(axis=0))
    edges = np.stack([_edges(number) for number in numbers[:, columns].T])
    places = _words(numbers[:, columns], edges)
    words = np.zeros((len(members), len(columns) * (_BINS + 1)), np.float32)
    words[np.arange(len(words))[:, None], places] = 1
    answers = members.answer.tolist()
    counts = Counter(feature for answer in answers for feature in answer_features(form, answer))
    ranked = sorted((-n, feature) for feature, n in counts.items() if n < len(answers))
    features = {feature: i for i, (_, feature) in enumerate(ranked[:_FEATURES])}
    of_quartets = _feature_table(form, answers, features).reshape(len(quartets), 4, len(features))
    right = np.tile(np.arange(4), len(quartets))
    weights = fit_logit(words, np.repeat(of_quartets, 4, axis=0), right, _PENALTY, _STEPS)
    return TextLogit(form, columns, edges, features, weights)


_ROLES = range(1 + MAX_TARGETS)
_PAIRS = tuple(combinations(_ROLES, 2))
_SUBJECTS = np.repeat(np.arange(len(_ROLES) + 2), [*(4 for _ in _ROLES), 3 * len(_PAIRS), 3])
"""Subject of each of `text_numbers`: the box of a role, how boxes lie to each other, times."""


def text_numbers(candidates: Candidates) -> np.ndarray:
    """[K, numbers] float32 that a question's text gives, NaN where it gives none.

    For each role the box's place (x, y), size and shape; for each two of them the difference of places and sizes; the
    beginning, end and duration.
    """
    x1, y1, x2, y2 = np.moveaxis(candidates.boxes, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        width, height = x2 - x1, y2 - y1
        boxes = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, np.log(width * height) / 2, np.log(width / height)])
    of_roles = [number for role in _ROLES for number in boxes[:, :, role]]
    of_pairs = [number for i, j in _PAIRS for number in boxes[:3, :, j] - boxes[:3, :, i]]
    start, end = candidates.times.T
    return np.stack([*of_roles, *of_pairs, start, end, end - start], axis=1)


def answer_features(form: int, answer: int) -> tuple[str, ...]:
    """Features of an answer, as names that answers share."""
    if isinstance(FORMS[form], Family):
        return (str(answer),)
    return sequence_features(decode_run_lengths(answer, num_axes(FORMS[form].signal)))


def _feature_table(form: int, answers: Sequence[int], features: Mapping[str, int]) -> np.ndarray:
    """[C, O] float32, 1 where an answer has the feature of a column."""
    table = np.zeros((len(answers), len(features)), np.float32)
    for row, answer in zip(table, answers, strict=True):
        row[[features[name] for name in answer_features(form, answer) if name in features]] = 1
    return table


def _edges(column: np.ndarray) -> np.ndarray:
    known = column[np.isfinite(column)]
    return np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]) if len(known) else np.zeros(_BINS - 1)


def _words(numbers: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """[K, F] int, which word each number is: its bin, counted on from column to column."""
    places = [np.where(np.isfinite(c), np.searchsorted(e, c), _BINS) for c, e in zip(numbers.T, edges, strict=True)]
    return np.stack(places, axis=1) + np.arange(len(edges)) * (_BINS + 1)
