"""Quartets: who may share options, who may not, and how little the matching wastes."""

import itertools
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsr.params import QA
from dsr.questions.engine.answers import run_lengths
from dsr.questions.engine.candidates import FORM_TYPES, MAX_MOMENTS, MAX_TARGETS, Candidates, find_candidates
from dsr.questions.engine.scene import Scene, build_scenes
from dsr.questions.language.families import FORMS, Family
from dsr.questions.quartets.matching import Matching, match_quartets
from tests.questions.engine.test_candidates import decode
from tests.questions.reference import answer_distance
from tests.scenes import random_cues

QA_SMALL = QA(candidates=3072, keep_per_clip_type=80, num_blocks=None, max_advantage=2.0)
NUM_CLIPS = 24


@cache
def offered() -> tuple[Scene, Candidates]:
    """The scene of many clips, and their candidates."""
    clips = [random_cues(seed) for seed in range(NUM_CLIPS)]
    scene = build_scenes(clips, QA_SMALL.ensemble, np.random.default_rng(0))
    assert scene is not None
    return scene, find_candidates(scene, QA_SMALL, np.random.default_rng(1))[0]


def match(qa: QA = QA_SMALL, seed: int = 0) -> Matching:
    return match_quartets(offered()[1], qa, np.random.default_rng(seed))


def test_random_scenes_give_quartets() -> None:
    assert len(match().quartets) >= 100


def test_no_question_is_used_twice_and_all_are_accounted_for() -> None:
    _, candidates = offered()
    matching = match()
    used = matching.quartets.ravel()
    assert len(set(used.tolist())) == len(used)
    assert len(used) + matching.no_partners + matching.capped == len(candidates)


def test_the_answers_of_a_quartet_are_apart_however_they_are_spread() -> None:
    _, candidates = offered()
    num_moments = {"dis": 4, "dir": 5, "ori": 5, "spd": 4, "spd_comp": 5, "dir_pred": 1}
    for quartet in match().quartets:
        form = FORMS[candidates.form[quartet[0]]]
        codes = [int(candidates.answer[k]) for k in quartet]
        assert len(set(codes)) == 4
        if isinstance(form, Family):
            continue
        margin = 2.0 if form.signal == "dir_pred" else 0.4
        for a, b in itertools.combinations([decode(code, form) for code in codes], 2):
            assert answer_distance(a, b, num_moments[form.signal]) >= margin - 1e-9


def what_a_signature_holds(scene: Scene, candidates: Candidates, k: int) -> tuple:
    """Form, kinds, who moves, where the camera sees a target first; from the scene, one candidate at a time."""
    form = FORMS[candidates.form[k]]
    camera = int(np.flatnonzero(scene.clip == candidates.clip[k])[0])
    frames = [int(f) for f in candidates.frames[k] if f >= 0]
    frames = frames[:2] if form.signal == "dir_pred" else frames
    targets = [camera + int(t) for t in candidates.targets[k] if t >= 0]
    viewer = int(candidates.viewer[k])
    moves = [
        max(np.linalg.norm(scene.positions[t, f, :, 0] - scene.positions[t, frames[0], :, 0]) for f in frames) > 0.15
        for t in targets
    ]
    first = None
    if form.signal == "dir" and viewer == 0:
        first = decode(int(candidates.answer[k]), form)[0]
    return int(candidates.form[k]), viewer if viewer < 1 else 1, *scene.kinds[targets].tolist(), *moves, first


def test_the_questions_of_a_quartet_share_a_signature() -> None:
    scene, candidates = offered()
    for quartet in match().quartets:
        told = {what_a_signature_holds(scene, candidates, k) for k in quartet}
        assert len(told) == 1, told
        form = FORMS[candidates.form[quartet[0]]]
        if form.signal == "dir_pred":
            continue  # how long a clip runs before it stops says nothing about what follows
        durations = np.diff(candidates.times[quartet], axis=1)
        assert durations.max() <= 1.6 * max(durations.min(), 0.1) + 1e-6


@pytest.mark.parametrize(("max_per_clip", "max_per_type"), [(1, 1), (5, 2), (30, 1), (3, 6)])
def test_caps_hold(max_per_clip: int, max_per_type: int) -> None:
    _, candidates = offered()
    matching = match(QA(max_per_clip=max_per_clip, max_per_clip_type=max_per_type))
    used = matching.quartets.ravel()
    assert len(used)
    assert max(Counter(candidates.clip[used].tolist()).values()) <= max_per_clip
    pairs = zip(candidates.clip[used].tolist(), FORM_TYPES[candidates.form[used]].tolist(), strict=True)
    assert max(Counter(pairs).values()) <= max_per_type
    assert len(used) + matching.no_partners + matching.capped == len(candidates)


def test_same_seed_same_quartets() -> None:
    np.testing.assert_array_equal(match().quartets, match().quartets)
    assert match().quartets.tolist() != match(seed=1).quartets.tolist()


def test_the_place_of_an_option_says_nothing() -> None:
    # Where the smallest code of four stands: each place about a quarter of the time (5 sigma).
    _, candidates = offered()
    places = Counter(int(np.argmin(candidates.answer[q])) for q in match().quartets)
    total = places.total()
    assert all(abs(places[p] - total / 4) < 5 * np.sqrt(total * 3 / 16) for p in range(4))


def test_nothing_offered_nothing_matched() -> None:
    _, candidates = offered()
    matching = match_quartets(candidates.take(np.arange(0)), QA_SMALL, np.random.default_rng(0))
    assert (matching.quartets.shape, matching.no_partners, matching.capped) == ((0, 4), 0, 0)


# Pure matching, on made-up candidates whose answers are six directions that are all apart.

WAYS = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
PREDICTION = next(i for i, form in enumerate(FORMS) if form.type == "abs_dir_pred")


def made_up(answers: list[tuple[int, int, int]], signatures: list[int]) -> Candidates:
    k = len(answers)
    return Candidates(
        clip=np.arange(k, dtype=np.int32),
        form=np.full(k, PREDICTION, np.int16),
        viewer=np.zeros(k, np.int16),
        targets=np.full((k, MAX_TARGETS), -1, np.int16),
        frames=np.full((k, MAX_MOMENTS), -1, np.int16),
        answer=run_lengths(np.array(answers, np.int8).reshape(k, 1, 3)),
        signal=np.full((k, MAX_MOMENTS, 3), np.nan, np.float32),
        signature=np.array(signatures, np.int64),
        boxes=np.full((k, 1 + MAX_TARGETS, 4), np.nan, np.float32),
        times=np.zeros((k, 2), np.float32),
    )


def matched(candidates: Candidates, clip: list[int] | None = None, **caps: int) -> Matching:
    if clip is not None:
        candidates.clip[:] = clip
    return match_quartets(candidates, QA(**caps), np.random.default_rng(0))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=6, max_size=6))
def test_where_all_answers_are_apart_no_quartet_is_missed(sizes: list[int]) -> None:
    answers = [way for way, size in zip(WAYS, sizes, strict=True) for _ in range(size)]
    if not answers:
        return
    # q quartets need 4q questions and no answer more than q times: the most q with sum(min(size, q)) >= 4q.
    best = max(q for q in range(len(answers) // 4 + 1) if sum(min(s, q) for s in sizes) >= 4 * q)
    matching = matched(made_up(answers, [7] * len(answers)))
    assert len(matching.quartets) == best
    assert matching.no_partners == len(answers) - 4 * best


def test_signatures_do_not_mix() -> None:
    answers = WAYS[:4]
    assert len(matched(made_up(answers, [1, 1, 1, 1])).quartets) == 1
    assert len(matched(made_up(answers, [1, 1, 1, 2])).quartets) == 0


def test_answers_that_are_nearly_right_do_not_share_options() -> None:
    # (1, 1, 0) is 1 from (1, 0, 0) and from (0, 1, 0), below the margin of 2.
    near = [(1, 0, 0), (1, 1, 0), (-1, 0, 0), (0, -1, 0)]
    assert len(matched(made_up(near, [1] * 4)).quartets) == 0
    assert len(matched(made_up([*near, (0, 1, 0)], [1] * 5)).quartets) == 1
    assert len(matched(made_up(near, [1] * 4), prediction_margin=1).quartets) == 1


def test_a_clip_at_its_cap_is_counted_as_such() -> None:
    # One clip with two questions of each of four answers, at most four a clip: one quartet, four left by the cap.
    matching = matched(made_up(WAYS[:4] * 2, [1] * 8), clip=[0] * 8, max_per_clip=4, max_per_clip_type=6)
    assert (len(matching.quartets), matching.no_partners, matching.capped) == (1, 0, 4)
    # At most three a clip: no quartet at all.
    matching = matched(made_up(WAYS[:4] * 2, [1] * 8), clip=[0] * 8, max_per_clip=3, max_per_clip_type=6)
    assert len(matching.quartets) == 0


def test_an_answer_whose_clip_was_used_up_by_the_same_quartet_is_still_there_for_others() -> None:
    """A quartet that cannot be completed uses up nobody's allowance.

    Clip 0 may give one question; it has a (twice) and b. Tried first: a, b, up, down, which takes two of clip 0. What
    remains possible is b, forward, up, down; a is too near to forward (distance 1).
    """
    a, b, forward, up, down = (1, 1, 0), (-1, 0, 0), (1, 0, 0), (0, 0, 1), (0, 0, -1)
    candidates = made_up([a, a, b, forward, up, down], [1] * 6)
    matching = matched(candidates, clip=[0, 0, 0, 1, 2, 3], max_per_clip=1, max_per_clip_type=1)
    assert len(matching.quartets) == 1
