"""Balanced quartets: four questions that share their four options, each of which is right once.

Grouping problem: within a signature, questions fall into answer classes; a quartet takes one question from each of
four classes that are pairwise far enough apart. Each class is used while it is the largest, which is what wastes
least where all classes may meet, and a small search finds the other three where not all may. The types take turns,
so that an easy one does not use up the clips' allowance. Of the ways to take one question of each class that one is
taken with which the texts of the block's quartets so far tell least of the right options (text_balance.py).

A quartet costs a few dozen operations on a few questions, so what is read one by one is kept in plain lists.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heapreplace
from itertools import accumulate, chain

import numpy as np

from dsr.params import QA
from dsr.questions.engine.answers import pair_distances
from dsr.questions.engine.candidates import FORM_TYPES, Candidates
from dsr.questions.language.families import FORMS, Family
from dsr.questions.language.templates import NUM_STATES, num_axes
from dsr.questions.quartets.text_balance import TextLogit

QUARTET = 4
_CONSIDERED = 8
"""Questions of a class among which one is chosen."""
_TRIED = 8
"""Ways to choose that are tried where a clip would give more than it may."""
_MEAN = np.full(QUARTET, 1 / QUARTET, np.float32)
_QUARTERS = np.arange(QUARTET)
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
    text_logits: Mapping[int, TextLogit] | None = None,
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
    waiting: dict[int, deque[_Group]] = {int(k): deque() for k in np.unique(kind)}
    groups = _groups(candidates, rng)
    forms = candidates.form[[group[0][0] for group in groups]].tolist()
    members: dict[int, list[np.ndarray]] = {form: [] for form in forms}
    for form, group in zip(forms, groups, strict=True):
        members[form] += group
    balances = {
        form: _Balance(candidates, np.concatenate(own), (text_logits or {}).get(form), qa)
        for form, own in members.items()
    }
    for form, group, apart in zip(forms, groups, _apart(candidates, groups, qa), strict=True):
        waiting[int(FORM_TYPES[form])].append(_Group(group, apart, caps, balances[form]))
    quartets: list[list[int]] = []
    # (Quartets got, type): the least is taken.
    turns = [(0, k) for k in sorted(waiting)]
    while turns:
        got, least = turns[0]
        signatures = waiting[least]
        quartet = signatures[0].quartet() if signatures else None
        if quartet is not None:
            signatures.rotate(-1)
            quartets.append(quartet)
            heapreplace(turns, (got + 1, least))
        elif signatures:
            signatures.popleft()
        else:
            heappop(turns)
    used = np.array(quartets, int).reshape(-1, QUARTET)
    left = np.ones(len(candidates), bool)
    left[used.ravel()] = False
    capped = int(left.sum()) - len(caps.unspent(np.flatnonzero(left).tolist()))
    used = rng.permuted(used[rng.permutation(len(used))], axis=1)
    return Matching(used, int(left.sum()) - capped, capped)


def _groups(candidates: Candidates, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Answer classes of each signature with four answers or more: indices of candidates, the largest first.

    The signatures and the members of a class are in random order.
    """
    order = rng.permutation(len(candidates))
    order = order[np.lexsort((candidates.answer[order], candidates.signature[order]))]
    signature, answer = candidates.signature[order], candidates.answer[order]
    new_signature = np.diff(signature, prepend=-1) != 0
    starts = np.flatnonzero(new_signature | (np.diff(answer, prepend=answer[:1]) != 0))
    of_signature = np.cumsum(new_signature[starts]) - 1
    ends = np.append(starts[1:], len(order))
    firsts = np.searchsorted(of_signature, np.arange(of_signature[-1] + 2 if len(starts) else 1))
    groups = []
    for number in rng.permutation(np.flatnonzero(np.diff(firsts) >= QUARTET)):
        own = np.arange(firsts[number], firsts[number + 1])
        own = own[np.argsort(starts[own] - ends[own], kind="stable")]
        classes = [order[start:end] for start, end in zip(starts[own].tolist(), ends[own].tolist(), strict=True)]
        groups += [classes[i : i + _CLASSES] for i in range(0, len(classes), _CLASSES)]
    return [group for group in groups if len(group) >= QUARTET]


class _Caps:
    """Questions that a clip may still give, in all and of a type."""

    def __init__(self, clip: np.ndarray, kind: np.ndarray, qa: QA) -> None:
        clips, kinds = int(clip.max(initial=-1)) + 1, int(kind.max(initial=-1)) + 1
        # Plain lists: they are read one by one.
        self.clip, self.cell = clip.tolist(), (clip * kinds + kind).tolist()
        self.per_clip = [qa.max_per_clip] * clips
        self.per_type = [qa.max_per_clip_type] * (clips * kinds)
        self.spent = 0
        """Grows whenever a clip may give no more, of a type or at all."""

    def left(self, index: int) -> int:
        """Number of questions that the clip of a candidate may still give of its type."""
        return min(self.per_clip[self.clip[index]], self.per_type[self.cell[index]])

    def over(self, members: list[int]) -> int | None:
        """Place of the first of these whose clip may not give all of them; None where all may be given."""
        clips = [self.clip[m] for m in members]
        return next((i for i, m in enumerate(members) if clips.count(clips[i]) > self.left(m)), None)

    def use(self, members: list[int]) -> None:
        for index in members:
            self.per_clip[self.clip[index]] -= 1
            self.per_type[self.cell[index]] -= 1
        self.spent += any(self.left(index) <= 0 for index in members)

    def unspent(self, members: list[int]) -> list[int]:
        """Those whose clips may give one more."""
        clip, cell, per_clip, per_type = self.clip, self.cell, self.per_clip, self.per_type
        return [m for m in members if per_clip[clip[m]] > 0 and per_type[cell[m]] > 0]


class _Balance:
    """The sum of advantages of a form's quartets in a block, subject by subject (text_balance.py)."""

    def __init__(self, candidates: Candidates, members: np.ndarray, text_logit: TextLogit | None, qa: QA) -> None:
        """Balance of the candidates `members` [n], all of one form."""
        self.text_logit, self.limit = text_logit, qa.max_advantage
        self.total = np.zeros(1, np.float32)
        if text_logit is not None:
            own = candidates.take(members)
            self.place = np.zeros(len(candidates), int)
            self.place[members] = np.arange(len(members))
            self.words = text_logit.words(own)
            answers, self.column = np.unique(own.answer, return_inverse=True)
            self.said = text_logit.of_answers(answers.tolist())

    def evidence(self, classes: list[np.ndarray]) -> np.ndarray:
        """[n, subjects, C] what the texts of the questions of C classes, one class after the other, say for each of the
        C answers."""
        if self.text_logit is None:
            return np.zeros((sum(map(len, classes)), 1, len(classes)), np.float32)
        words = self.words[self.place[np.concatenate(classes)]]
        answers = self.column[self.place[[members[0] for members in classes]]]
        return self.text_logit.evidence(words, self.said.take(answers, axis=1))

    def best(self, offered: list[list[int]], evidence: np.ndarray) -> Iterator[tuple[list[int], np.ndarray]]:
        """One question of each of four classes, and the total with them: of all ways the most balanced first.

        Those over the limit are left out.

        Args:
            offered: for each class its candidates.
            evidence: what their texts, one class after the other, say for each of the four answers, [K, subjects, 4].
        """
        if self.text_logit is None:
            yield [o[0] for o in offered], self.total
            return
        counts = [len(o) for o in offered]
        own = np.repeat(_QUARTERS, counts)
        advantage = evidence[np.arange(len(own)), :, own] - evidence @ _MEAN
        starts = [0, *accumulate(counts[:-1])]
        a, b, c, d = (advantage[start : start + n] for start, n in zip(starts, counts, strict=True))
        # |x + y|^2 for all sums x of the total and of two classes' questions, and y of the two others'.
        x = (self.total + a[:, None] + b).reshape(-1, a.shape[1])
        y = (c[:, None] + d).reshape(-1, a.shape[1])
        size = x @ (2 * y.T)
        size += np.einsum("ij,ij->i", x, x)[:, None]
        size += np.einsum("ij,ij->i", y, y)
        for _ in range(_TRIED):
            best = int(size.argmin())
            i, j = divmod(best, len(y))
            total = x[i] + y[j]
            if total @ total > self.limit**2:
                return
            places = (*divmod(i, len(b)), *divmod(j, len(d)))
            yield [o[place] for o, place in zip(offered, places, strict=True)], total
            size[i, j] = np.inf


class _Group:
    """The questions of one signature that wait for a quartet, by answer."""

    def __init__(self, members: list[np.ndarray], apart: np.ndarray, caps: _Caps, balance: _Balance) -> None:
        self.members, self.apart, self.caps, self.balance = members, apart, caps, balance
        self.waiting: list[list[int]] | None = None
        self.spent = 0

    def quartet(self) -> list[int] | None:
        """One question of each of four answers; None where there is no such quartet left."""
        if self.waiting is None:
            self.waiting, self.may_meet = [m.tolist() for m in self.members], self.apart.tolist()
            self.evidence = self.balance.evidence(self.members)
            self.place = {index: place for place, index in enumerate(chain.from_iterable(self.waiting))}
        waiting, caps = self.waiting, self.caps
        while True:
            if self.spent != caps.spent:
                self.spent = caps.spent
                waiting[:] = map(caps.unspent, waiting)
            classes = _four_apart(self.may_meet, list(map(len, waiting)))
            if classes is None:
                return None
            # Those of clips that may give most come first.
            offered = [
                sorted(waiting[c][: 2 * _CONSIDERED], key=caps.left, reverse=True)[:_CONSIDERED] for c in classes
            ]
            places = [self.place[index] for index in chain.from_iterable(offered)]
            evidence = self.evidence.take(places, axis=0).take(classes, axis=2)
            conflict = None
            for quartet, total in self.balance.best(offered, evidence):
                over = caps.over(quartet)
                if over is None:
                    caps.use(quartet)
                    for c, index in zip(classes, quartet, strict=True):
                        waiting[c].remove(index)
                    self.balance.total = total
                    return quartet
                conflict = conflict or (waiting[classes[over]], quartet[over])
            if conflict is None:
                # Nothing here balances: the largest class waits no longer with these.
                waiting[classes[0]] = [w for w in waiting[classes[0]] if w not in offered[0]]
            else:
                # A clip would give more than it may: one of its questions goes, for another to take its place.
                conflict[0].remove(conflict[1])


def _apart(candidates: Candidates, groups: list[list[np.ndarray]], qa: QA) -> list[np.ndarray]:
    """Answers of each group that may be options of one quartet, [C, C] bool. A family's exclude each other."""
    first = [np.array([members[0] for members in group]) for group in groups]
    forms = np.array([candidates.form[f[0]] for f in first], int)
    apart = [~np.eye(len(f), dtype=bool) for f in first]
    for index in np.unique(forms):
        form, own = FORMS[index], np.flatnonzero(forms == index)
        if isinstance(form, Family):
            continue
        codes, places = np.unique(candidates.answer[np.concatenate([first[g] for g in own])], return_inverse=True)
        cells = [(p[:, None], p) for p in np.split(places, np.cumsum([len(first[g]) for g in own])[:-1])]
        meet = np.zeros((len(codes), len(codes)), bool)
        for cell in cells:
            meet[cell] = True
        one, other = np.nonzero(np.triu(meet, 1))
        margin = qa.prediction_margin if form.signal == "dir_pred" else qa.answer_margin
        distances = pair_distances(codes, one, other, num_axes(form.signal), NUM_STATES[form.signal])
        # A rounding error must not decide: 2/5 is a margin of 0.4.
        far = np.zeros_like(meet)
        far[one, other] = far[other, one] = distances >= margin - 1e-9
        for g, cell in zip(own, cells, strict=True):
            apart[g] = far[cell]
    return apart


def _four_apart(apart: list[list[bool]], sizes: list[int]) -> tuple[int, int, int, int] | None:
    """Four classes with members left that are pairwise apart, the largest first; None where there are none."""
    order = sorted((c for c, size in enumerate(sizes) if size), key=sizes.__getitem__, reverse=True)
    for i, a in enumerate(order[:-3]):
        with_a = [x for x in order[i + 1 :] if apart[a][x]]
        for j, b in enumerate(with_a):
            with_b = [x for x in with_a[j + 1 :] if apart[b][x]]
            for k, c in enumerate(with_b):
                d = next((x for x in with_b[k + 1 :] if apart[c][x]), None)
                if d is not None:
                    return a, b, c, d
    return None
