"""Question generation: milliseconds a produced question, and against one question, member and frame at a time.

`pytest benchmarks/test_question_generation.py --benchmark-enable` prints both groups.

- "questions": from loaded cues to rows, at qa.max_per_clip / qa.max_per_clip_type of the default (30 / 6) and more
  generous ones. A clip's questions share the cost of finding its candidates, so the more are kept the less each costs;
  two questions of a clip never have the same viewer, targets and answer.
- "signals": the same candidates and quartets, but signals and answers worked out differently.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from dsr.cues.schema import ClipCues
from dsr.params import QA
from dsr.questions.engine import candidates as candidates_module
from dsr.questions.engine.answers import run_lengths
from dsr.questions.engine.candidates import Candidates, find_candidates
from dsr.questions.engine.scene import Scene, build_scenes
from dsr.questions.engine.signals import Members, QuestionBatch, signal_states
from dsr.questions.engine.survey import Found, Survey
from dsr.questions.generate import Block, offer_cues, question_rows
from dsr.questions.language.families import Family
from dsr.questions.language.templates import Form, num_axes
from dsr.questions.quartets.matching import Matching, match_quartets
from dsr.questions.quartets.text_balance import TextLogit, fit
from tests.questions.reference import states_of
from tests.scenes import random_cues

FULL = QA(candidates=3072, keep_per_clip_type=80, num_blocks=None, max_advantage=2.0)
SMALL = dataclasses.replace(FULL, candidates=1024)
MOST = [(30, 6), (60, 12), (120, 24)]
"""qa.max_per_clip and qa.max_per_clip_type."""


def generate(clips: list[ClipCues], qa: QA) -> tuple[Candidates, Matching]:
    scene = build_scenes(clips, qa.ensemble, np.random.default_rng(0))
    assert scene is not None
    candidates, _ = find_candidates(scene, qa, np.random.default_rng(0))
    return candidates, match_quartets(candidates, qa, np.random.default_rng(0))


def one_at_a_time(
    scene: Scene, form: Form, batch: QuestionBatch, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`signal_states` in plain Python for the templates' key moments.

    The free-form families and the looks between moments have no plain twin.
    """
    if isinstance(form, Family) or batch.frames.shape[1] != form.num_moments:
        return signal_states(scene, form, batch, qa, members)
    count, ensemble = len(batch.viewer), members.up.shape[-1]
    moments = form.num_moments - {"dis": 1, "spd": 2, "spd_comp": 1, "dir_pred": 1}.get(form.signal, 0)
    states = np.zeros((count, moments, num_axes(form.signal), ensemble), np.int8)
    valid = np.zeros((count, ensemble), bool)
    for k in range(count):
        targets = [int(t) for t in batch.targets[k, : form.num_targets]]
        frames = [int(f) for f in batch.frames[k]]
        for member in range(ensemble):
            answer = states_of(scene, form, int(batch.viewer[k]), targets, frames, qa, member)
            if answer is not None:
                states[k, :, :, member], valid[k, member] = answer, True
    return np.zeros((count, moments, num_axes(form.signal)), np.float32), states, valid


def find_one_at_a_time(
    self: Survey, form: Form, viewer: np.ndarray, targets: np.ndarray, steps: Sequence[int], counts: Counter[str]
) -> Found:
    """`Survey.find` in plain Python."""
    members = [0, *range(self.scene.positions.shape[-1])[-(self.position.shape[1] - 1) :]]
    combinations, all_frames, answers = [], [], []
    for step, asked in self._asked(form, viewer, targets.T, steps, counts).items():
        for row, first in np.argwhere(asked).tolist():
            frames = [first + step * m for m in range(form.num_moments)]
            question = self.scene, form, int(viewer[row]), [int(t) for t in targets[row]], frames, self.qa
            own = states_of(*question, members[0])
            if own is None or any(states_of(*question, member) != own for member in members[1:]):
                continue
            if form.signal == "dir_pred":
                before, *own = own
                if own != [before]:
                    continue
            combinations.append(row)
            all_frames.append(frames)
            answers.append(run_lengths(np.array([own], np.int8))[0])
    shape = -1, form.num_moments
    return Found(np.array(combinations, int), np.array(all_frames, int).reshape(shape), np.array(answers, np.int64))


@pytest.fixture(scope="module")
def clips() -> list[ClipCues]:
    return [random_cues(seed) for seed in range(64)]


def all_of_it(clips: list[ClipCues], table: pd.DataFrame, qa: QA) -> pd.DataFrame:
    """From loaded cues to rows, with what texts tell balanced out."""
    offered = offer_cues(list(zip(table.clip_id, clips, strict=True)), qa)
    matching = match_quartets(offered.candidates, qa, np.random.default_rng(0), text_logits(clips))
    return question_rows(offered, matching.quartets, Block(0, table, None), np.random.default_rng(0))


_LEARNED: dict[int, TextLogit] = {}


def text_logits(clips: list[ClipCues]) -> dict[int, TextLogit]:
    """Learned once a data set, so outside of what is timed."""
    if not _LEARNED:
        candidates, matching = generate(clips, FULL)
        forms = candidates.form[matching.quartets[:, 0]]
        _LEARNED.update({int(f): fit(candidates, matching.quartets[forms == f]) for f in np.unique(forms)})
    return _LEARNED


@pytest.mark.benchmark(group="questions")
@pytest.mark.parametrize("most", MOST, ids=str)
def test_from_cues_to_rows(benchmark, clips: list[ClipCues], most: tuple[int, int]) -> None:
    ids = [f"clip_{i}" for i in range(len(clips))]
    table = pd.DataFrame({"clip_id": ids, "source_video": ids, "category": ""})
    text_logits(clips)
    rows = benchmark.pedantic(all_of_it, (clips, table, kept_at_most(most)), rounds=5, warmup_rounds=1)
    report(benchmark, len(rows))


@pytest.mark.benchmark(group="questions")
@pytest.mark.parametrize("most", MOST, ids=str)
def test_matching_alone(benchmark, clips: list[ClipCues], most: tuple[int, int]) -> None:
    candidates, _ = generate(clips, FULL)
    learned = text_logits(clips)
    matching = benchmark.pedantic(
        lambda: match_quartets(candidates, kept_at_most(most), np.random.default_rng(0), learned),
        rounds=5,
        warmup_rounds=1,
    )
    report(benchmark, matching.quartets.size)


def kept_at_most(most: tuple[int, int]) -> QA:
    return dataclasses.replace(FULL, max_per_clip=most[0], max_per_clip_type=most[1])


def report(benchmark, questions: int) -> None:
    assert questions > 500
    if benchmark.stats:
        benchmark.extra_info["questions"] = questions
        benchmark.extra_info["ms_a_question"] = round(1e3 * benchmark.stats.stats.min / questions, 3)


@pytest.mark.benchmark(group="signals")
def test_vectorised(benchmark, clips: list[ClipCues]) -> None:
    _, matching = benchmark.pedantic(generate, (clips[:6], SMALL), rounds=3, warmup_rounds=1)
    assert matching.quartets.size


@pytest.mark.benchmark(group="signals")
def test_one_question_member_and_frame_at_a_time(
    benchmark, clips: list[ClipCues], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates, matching = generate(clips[:6], SMALL)
    monkeypatch.setattr(candidates_module, "signal_states", one_at_a_time)
    monkeypatch.setattr(Survey, "find", find_one_at_a_time)
    slow_candidates, slow_matching = benchmark.pedantic(generate, (clips[:6], SMALL), rounds=1)
    np.testing.assert_array_equal(slow_candidates.answer, candidates.answer)
    np.testing.assert_array_equal(slow_matching.quartets, matching.quartets)
