"""Balanced quartets: four questions that share their four options, each of which is right once.

Grouping problem: within a signature, questions fall into answer classes; a quartet takes one question from each of
four classes that are pairwise far enough apart. Each class is used while it is the largest, which is what wastes
least where all classes may meet, and a small search finds the other three where not all may.
"""

from dataclasses import dataclass

import numpy as np

from dsr.params import QA
from dsr.qa.answers import answer_distances
from dsr.qa.candidates import FORM_TYPES, NUM_STATES, Candidates
from dsr.qa.templates import FORMS, num_axes

QUARTET = 4


@dataclass(frozen=True, eq=False)
class Matching:
    quartets: np.ndarray
    """[Q, 4] indices of candidates; option i of the quartet is the right answer of its member i."""
    no_partners: int
    """Candidates whose signature had no four answers far enough apart (left)."""
    capped: int
    """Candidates left because their clip, or their clip's type, has enough questions."""


def match_quartets(candidates: Candidates, clip: np.ndarray, qa: QA, rng: np.random.Generator) -> Matching:
    """Group candidates of one block into quartets.

    Args:
        clip: [K] int, which clip a candidate is of.

    Returns:
        Quartets in random order; their options in random order.
    """
    caps = _Caps(clip, FORM_TYPES[candidates.form], qa)
    quartets: list[list[int]] = []
    order = np.lexsort((candidates.answer, candidates.signature))
    edges = np.flatnonzero(np.diff(candidates.signature[order])) + 1
    groups = np.split(order, edges) if len(order) else []
    # Small groups first: they have the fewest ways to use a clip's allowance.
    for number in sorted(rng.permutation(len(groups)), key=lambda g: len(groups[g])):
        group = groups[number]
        if len(group) >= QUARTET:
            quartets += _match_group(candidates, group, caps, qa, rng)
    used = np.array(quartets, int).reshape(-1, QUARTET)
    left = np.ones(len(candidates), bool)
    left[used.ravel()] = False
    capped = left & caps.full(np.arange(len(candidates)))
    used = rng.permuted(used[rng.permutation(len(used))], axis=1)
    return Matching(used, no_partners=int((left & ~capped).sum()), capped=int(capped.sum()))


class _Caps:
    """Questions that a clip may still give, in all and of a type."""

    def __init__(self, clip: np.ndarray, kind: np.ndarray, qa: QA) -> None:
        self.clip, self.kind = clip, kind
        self.per_clip = np.full(int(clip.max(initial=-1)) + 1, qa.max_per_clip)
        self.per_type = np.full((len(self.per_clip), int(kind.max(initial=-1)) + 1), qa.max_per_clip_type)

    def full(self, index: np.ndarray) -> np.ndarray:
        clip = self.clip[index]
        return (self.per_clip[clip] <= 0) | (self.per_type[clip, self.kind[index]] <= 0)

    def use(self, index: int) -> None:
        self.per_clip[self.clip[index]] -= 1
        self.per_type[self.clip[index], self.kind[index]] -= 1

    def give_back(self, index: int) -> None:
        self.per_clip[self.clip[index]] += 1
        self.per_type[self.clip[index], self.kind[index]] += 1

    def pop(self, members: list[int]) -> int | None:
        """Take out the member whose clip has given least; None where every clip is full."""
        allowance = [min(self.per_clip[self.clip[m]], self.per_type[self.clip[m], self.kind[m]]) for m in members]
        best = int(np.argmax(allowance))
        if allowance[best] <= 0:
            return None
        index = members.pop(best)
        self.use(index)
        return index


def _match_group(
    candidates: Candidates, group: np.ndarray, caps: _Caps, qa: QA, rng: np.random.Generator
) -> list[list[int]]:
    """Quartets of one signature."""
    form = FORMS[candidates.form[group[0]]]
    margin = qa.prediction_margin if form.signal == "dir_pred" else qa.answer_margin
    answers, inverse = np.unique(candidates.answer[group], return_inverse=True)
    if len(answers) < QUARTET:
        return []
    distances = answer_distances(answers, num_axes(form.signal), NUM_STATES[form.signal])
    # A rounding error must not decide: 2/5 is a margin of 0.4.
    apart = distances >= margin - 1e-9
    members = [list(rng.permutation(group[inverse == a])) for a in range(len(answers))]
    quartets = []
    while True:
        sizes = np.array([len(m) for m in members])
        classes = _four_apart(apart, sizes)
        if classes is None:
            return quartets
        quartet: list[int] = []
        for answer in classes:
            index = caps.pop(members[answer])
            if index is None:
                # Every clip that gives this answer is full.
                members[answer] = []
                break
            quartet.append(index)
        if len(quartet) == QUARTET:
            quartets.append(quartet)
        else:
            for answer, index in zip(classes, quartet, strict=False):
                caps.give_back(index)
                members[answer].append(index)


def _four_apart(apart: np.ndarray, sizes: np.ndarray) -> tuple[int, int, int, int] | None:
    """Four classes with members left that are pairwise apart, the largest first; None where there are none."""
    order = np.argsort(-sizes, kind="stable")
    order = order[: np.count_nonzero(sizes)]
    for i, a in enumerate(order):
        with_a = order[i + 1 :][apart[a, order[i + 1 :]]]
        for j, b in enumerate(with_a):
            with_b = with_a[j + 1 :][apart[b, with_a[j + 1 :]]]
            for k, c in enumerate(with_b):
                with_c = with_b[k + 1 :][apart[c, with_b[k + 1 :]]]
                if len(with_c):
                    return int(a), int(b), int(c), int(with_c[0])
    return None
