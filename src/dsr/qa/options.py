"""Balanced quartets: four questions that share their four options, each of which is right once.

Grouping problem: within a signature, questions fall into answer classes; a quartet takes one question from each of
four classes that are pairwise far enough apart. Each class is used while it is the largest, which is what wastes
least where all classes may meet, and a small search finds the other three where not all may. The types take turns,
so that an easy one does not use up the clips' allowance. Of a class's questions those are taken with which the texts
of the block's quartets so far tell nothing of the right options (qa/propensity.py).
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from dsr.params import QA
from dsr.qa.answers import answer_distances
from dsr.qa.candidates import FORM_TYPES, FORMS, Candidates
from dsr.qa.free_form import Family
from dsr.qa.propensity import Propensity
from dsr.qa.templates import NUM_STATES, Form, num_axes

QUARTET = 4
_CONSIDERED = 16
"""Questions of a class among which one is chosen."""
_DRAWS = 256
"""Quartets drawn of these, of which the one that balances best is taken."""
_MEAN = np.full(QUARTET, 1 / QUARTET, np.float32)
_CLASSES = 32
"""Answers of a signature that are matched with one another; a signature with more is divided."""


@dataclass(frozen=True, eq=False)
class Matching:
    quartets: np.ndarray
    """[Q, 4] indices of candidates; option i of the quartet is the right answer of its member i."""
    no_partners: int
    """Candidates whose signature had no four answers far enough apart (left)."""
    capped: int
    """Candidates left because their clip, or their clip's type, has enough questions."""


def match_quartets(
    candidates: Candidates,
    qa: QA,
    rng: np.random.Generator,
    propensities: Mapping[int, Propensity] | None = None,
) -> Matching:
    """Group candidates of one block into quartets.

    Args:
        propensities: by form, what texts tell of answers; None leaves it as it is.

    Returns:
        Quartets in random order; their options in random order.
    """
    kind = FORM_TYPES[candidates.form]
    caps = _Caps(candidates.clip, kind, qa)
    # Each type has its signatures in random order; the type that has got least takes the next quartet.
    waiting: dict[int, deque[Iterator[list[int]]]] = {int(k): deque() for k in np.unique(kind)}
    forms = np.unique(candidates.form).tolist()
    balances = {form: _Balance(candidates, form, (propensities or {}).get(form), qa) for form in forms}
    groups = _groups(candidates)
    for number in rng.permutation(len(groups)):
        classes = groups[number]
        first = classes[0][0]
        balance = balances[int(candidates.form[first])]
        waiting[int(kind[first])].append(_match_group(candidates, classes, caps, balance, qa, rng))
    quartets: list[list[int]] = []
    got = Counter[int]()
    while waiting:
        least = min(waiting, key=lambda k: (got[k], k))
        signatures = waiting[least]
        quartet = next(signatures[0], None) if signatures else None
        if quartet is not None:
            signatures.rotate(-1)
            quartets.append(quartet)
            got[least] += 1
        elif signatures:
            signatures.popleft()
        else:
            del waiting[least]
    used = np.array(quartets, int).reshape(-1, QUARTET)
    left = np.ones(len(candidates), bool)
    left[used.ravel()] = False
    capped = left & caps.full(np.arange(len(candidates)))
    used = rng.permuted(used[rng.permutation(len(used))], axis=1)
    return Matching(used, int((left & ~capped).sum()), int(capped.sum()))


def _groups(candidates: Candidates) -> list[list[np.ndarray]]:
    """For each signature with four answers or more, its answer classes: indices of candidates, the largest first."""
    order = np.lexsort((candidates.answer, candidates.signature))
    signature, answer = candidates.signature[order], candidates.answer[order]
    new_signature = np.diff(signature, prepend=-1) != 0
    starts = np.flatnonzero(new_signature | (np.diff(answer, prepend=answer[:1]) != 0))
    classes = np.split(order, starts[1:]) if len(order) else []
    of_signature = np.cumsum(new_signature[starts]) - 1
    groups = []
    for number in np.flatnonzero(np.bincount(of_signature) >= QUARTET):
        first, last = np.searchsorted(of_signature, [number, number + 1])
        largest_first = sorted(classes[first:last], key=len, reverse=True)
        groups += [largest_first[i : i + _CLASSES] for i in range(0, len(largest_first), _CLASSES)]
    return [group for group in groups if len(group) >= QUARTET]


class _Caps:
    """Questions that a clip may still give, in all and of a type."""

    def __init__(self, clip: np.ndarray, kind: np.ndarray, qa: QA) -> None:
        self.clip, self.kind = clip, kind
        self.per_clip = np.full(int(clip.max(initial=-1)) + 1, qa.max_per_clip)
        self.per_type = np.full((len(self.per_clip), int(kind.max(initial=-1)) + 1), qa.max_per_clip_type)

    def left(self, index: np.ndarray) -> np.ndarray:
        """How many questions the clips of candidates may still give of their type."""
        clip = self.clip[index]
        return np.minimum(self.per_clip[clip], self.per_type[clip, self.kind[index]])

    def full(self, index: np.ndarray) -> np.ndarray:
        return self.left(index) <= 0

    def over(self, members: list[int]) -> int | None:
        """Which of these is the first of a clip that may not give all of them; None where all may be given."""
        own = Counter(self.clip[members].tolist())
        return next((i for i, m in enumerate(members) if own[int(self.clip[m])] > self.left(np.array([m]))[0]), None)

    def use(self, members: list[int]) -> None:
        for index in members:
            self.per_clip[self.clip[index]] -= 1
            self.per_type[self.clip[index], self.kind[index]] -= 1


class _Balance:
    """The sum of advantages of a form's quartets in a block, subject by subject (qa/propensity.py)."""

    def __init__(self, candidates: Candidates, form: int, propensity: Propensity | None, qa: QA) -> None:
        self.propensity, self.limit = propensity, qa.max_advantage
        self.total = np.zeros(1, np.float32)
        if propensity is not None:
            own = np.flatnonzero(candidates.form == form)
            self.place = np.zeros(len(candidates), int)
            self.place[own] = np.arange(len(own))
            self.words = propensity.words(candidates.take(own))

    def evidence(self, members: np.ndarray, answers: np.ndarray) -> np.ndarray | None:
        """[K, subjects, C] of Propensity.evidence, what the texts of candidates [K] speak for answers [C]."""
        if self.propensity is None:
            return None
        return self.propensity.evidence(self.words[self.place[members]], answers.tolist())

    def choose(self, evidence: list[np.ndarray], rng: np.random.Generator) -> tuple[list[int], np.ndarray] | None:
        """One question of each of four classes, and the total with them, near 0; None where it is over the limit.

        Args:
            evidence: for each class [n, subjects, 4], what its questions speak for the four answers.
        """
        drawn = [(rng.random(_DRAWS) * len(e)).astype(int) for e in evidence]
        total = self.total
        for own, (e, d) in enumerate(zip(evidence, drawn, strict=True)):
            total = total + (e[..., own] - e @ _MEAN)[d]
        size = np.einsum("ds,ds->d", total, total)
        best = int(size.argmin())
        if size[best] > self.limit**2:
            return None
        return [int(d[best]) for d in drawn], total[best]


def _match_group(
    candidates: Candidates, members: list[np.ndarray], caps: _Caps, balance: _Balance, qa: QA, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Quartets of one signature's answer classes, as long as there are any."""
    first = [m[0] for m in members]
    answers = candidates.answer[first]
    apart = _apart(FORMS[candidates.form[first[0]]], answers, qa).tolist()
    ends = np.cumsum([len(m) for m in members])
    own = np.concatenate(members)
    evidence = balance.evidence(own, answers)
    # From here on members are places in `own`.
    waiting = [rng.permutation(np.arange(end - len(m), end)) for m, end in zip(members, ends, strict=True)]
    while True:
        classes = _four_apart(apart, [len(w) for w in waiting])
        if classes is None:
            return
        for c in classes:
            left = caps.left(own[waiting[c]])
            waiting[c] = waiting[c][np.argsort(-left, kind="stable")[: np.count_nonzero(left > 0)]]
        offered = [waiting[c][:_CONSIDERED] for c in classes]
        if not all(len(o) for o in offered):
            continue
        chosen, total = [0] * QUARTET, balance.total
        if evidence is not None:
            balanced = balance.choose([evidence[o][..., classes] for o in offered], rng)
            if balanced is None:
                # Nothing here balances: the largest class waits no longer with these.
                waiting[classes[0]] = waiting[classes[0]][_CONSIDERED:]
                continue
            chosen, total = balanced
        quartet = [int(own[o[place]]) for o, place in zip(offered, chosen, strict=True)]
        over = caps.over(quartet)
        if over is not None:
            # A clip would give more than it may: its question of the largest class goes, for another to take its place.
            waiting[classes[over]] = np.delete(waiting[classes[over]], chosen[over])
            continue
        for c, place in zip(classes, chosen, strict=True):
            waiting[c] = np.delete(waiting[c], place)
        caps.use(quartet)
        balance.total = total
        yield quartet


def _apart(form: Form, answers: np.ndarray, qa: QA) -> np.ndarray:
    """[C, C] bool: which answers may be options of one quartet. A family's answers exclude each other."""
    if isinstance(form, Family):
        return ~np.eye(len(answers), dtype=bool)
    margin = qa.prediction_margin if form.signal == "dir_pred" else qa.answer_margin
    # A rounding error must not decide: 2/5 is a margin of 0.4.
    return answer_distances(answers, num_axes(form.signal), NUM_STATES[form.signal]) >= margin - 1e-9


def _four_apart(apart: list[list[bool]], sizes: list[int]) -> tuple[int, int, int, int] | None:
    """Four classes with members left that are pairwise apart, the largest first; None where there are none."""
    order = [c for c in sorted(range(len(sizes)), key=lambda c: -sizes[c]) if sizes[c]]
    for i, a in enumerate(order):
        with_a = [x for x in order[i + 1 :] if apart[a][x]]
        for j, b in enumerate(with_a):
            with_b = [x for x in with_a[j + 1 :] if apart[b][x]]
            for k, c in enumerate(with_b):
                d = next((x for x in with_b[k + 1 :] if apart[c][x]), None)
                if d is not None:
                    return a, b, c, d
    return None
