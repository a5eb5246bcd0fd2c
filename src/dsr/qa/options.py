"""Balanced quartets: four questions that share their four options, each of which is right once.

Grouping problem: within a signature, questions fall into answer classes; a quartet takes one question from each of
four classes that are pairwise far enough apart. Each class is used while it is the largest, which is what wastes
least where all classes may meet, and a small search finds the other three where not all may. The types take turns,
so that an easy one does not use up the clips' allowance.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dsr.params import QA
from dsr.qa.answers import answer_distances
from dsr.qa.candidates import FORM_TYPES, FORMS, Candidates
from dsr.qa.free_form import Family
from dsr.qa.templates import NUM_STATES, Form, num_axes

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
    kind = FORM_TYPES[candidates.form]
    caps = _Caps(clip, kind, qa)
    # Each type has its signatures in random order; the type that has got least takes the next quartet.
    waiting: dict[int, deque[Iterator[list[int]]]] = {int(k): deque() for k in np.unique(kind)}
    order = np.lexsort((candidates.answer, candidates.signature))
    edges = np.flatnonzero(np.diff(candidates.signature[order])) + 1
    groups = np.split(order, edges) if len(order) else []
    for number in rng.permutation(len(groups)):
        group = groups[number]
        waiting[int(kind[group[0]])].append(_match_group(candidates, group, caps, qa, rng))
    quartets: list[list[int]] = []
    got = Counter[int]()
    while waiting:
        least = min(waiting, key=lambda k: (got[k], k))
        signatures = waiting[least]
        quartet = next(signatures[0], None)
        if quartet is None:
            signatures.popleft()
            if not signatures:
                del waiting[least]
            continue
        signatures.rotate(-1)
        quartets.append(quartet)
        got[least] += 1
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

    def full(self, index: np.ndarray | int) -> np.ndarray:
        """Whether the clips of candidates may give no more of their type."""
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
) -> Iterator[list[int]]:
    """Quartets of one signature, as long as there are any."""
    form = FORMS[candidates.form[group[0]]]
    answers, inverse = np.unique(candidates.answer[group], return_inverse=True)
    if len(answers) < QUARTET:
        return
    apart = _apart(form, answers, qa)
    members = [list(rng.permutation(group[inverse == a])) for a in range(len(answers))]
    while True:
        sizes = np.array([len(m) for m in members])
        classes = _four_apart(apart, sizes)
        if classes is None:
            return
        quartet: list[int] = []
        for answer in classes:
            index = caps.pop(members[answer])
            if index is None:
                break
            quartet.append(index)
        if len(quartet) == QUARTET:
            yield quartet
            continue
        for answer, index in zip(classes, quartet, strict=False):
            caps.give_back(index)
            members[answer].append(index)
        stuck = classes[len(quartet)]
        members[stuck] = [m for m in members[stuck] if not caps.full(m)]
        # What is left was full only by this quartet's own members: one of those goes, for another quartet to form.
        shared = set(caps.clip[members[stuck]])
        for answer, index in zip(classes, quartet, strict=False):
            if caps.clip[index] in shared:
                members[answer].remove(index)
                break


def _apart(form: Form, answers: np.ndarray, qa: QA) -> np.ndarray:
    """[C, C] bool: which answers may be options of one quartet. A family's answers exclude each other."""
    if isinstance(form, Family):
        return ~np.eye(len(answers), dtype=bool)
    margin = qa.prediction_margin if form.signal == "dir_pred" else qa.answer_margin
    # A rounding error must not decide: 2/5 is a margin of 0.4.
    return answer_distances(answers, num_axes(form.signal), NUM_STATES[form.signal]) >= margin - 1e-9


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
