"""Question generation: milliseconds a produced question, and against one question, member and frame at a time.

`pytest benchmarks/test_question_generation.py --benchmark-enable` prints both groups. The two of group "signals" do
the same work and give the same quartets; only the signals and answers are worked out differently.
"""

import numpy as np
import pandas as pd
import pytest

from dsr.cues.schema import ClipCues
from dsr.params import QA
from dsr.qa import candidates as candidates_module
from dsr.qa.candidates import Candidates, Drawn, Members, find_candidates, signal_states
from dsr.qa.free_form import Family
from dsr.qa.generate import Block, Offered, offer_cues, question_rows
from dsr.qa.options import Matching, match_quartets
from dsr.qa.propensity import Propensity, fit
from dsr.qa.scene import Scene, build_scenes
from dsr.qa.templates import Form, num_axes
from tests.qa.reference import states_of
from tests.scenes import random_cues

FULL = QA()
SMALL = QA(candidates=1024)


def generate(clips: list[ClipCues], qa: QA) -> tuple[Candidates, Matching]:
    scene = build_scenes(clips, qa.ensemble, np.random.default_rng(0))
    assert scene is not None
    candidates, _ = find_candidates(scene, qa, np.random.default_rng(0))
    return candidates, match_quartets(candidates, qa, np.random.default_rng(0))


def one_at_a_time(
    scene: Scene, form: Form, drawn: Drawn, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`signal_states` in plain Python for the templates; the free-form families have no plain twin."""
    if isinstance(form, Family):
        return signal_states(scene, form, drawn, qa, members)
    count, ensemble = len(drawn.viewer), members.up.shape[-1]
    moments = form.num_moments - {"dis": 1, "spd": 2, "spd_comp": 1, "dir_pred": 1}.get(form.signal, 0)
    states = np.zeros((count, moments, num_axes(form.signal), ensemble), np.int8)
    valid = np.zeros((count, ensemble), bool)
    for k in range(count):
        targets = [int(t) for t in drawn.targets[k, : form.num_targets]]
        frames = [int(f) for f in drawn.frames[k]]
        for member in range(ensemble):
            answer = states_of(scene, form, int(drawn.viewer[k]), targets, frames, qa, member)
            if answer is not None:
                states[k, :, :, member], valid[k, member] = answer, True
    return np.zeros((count, moments, num_axes(form.signal)), np.float32), states, valid


@pytest.fixture(scope="module")
def clips() -> list[ClipCues]:
    return [random_cues(seed) for seed in range(64)]


def all_of_it(clips: list[ClipCues], table: pd.DataFrame) -> pd.DataFrame:
    """From loaded cues to rows, with what texts tell balanced out."""
    named = list(zip(table.clip_id, clips, strict=True))
    offered = Offered.concatenate([offer_cues(named[:32], FULL), offer_cues(named[32:], FULL)])
    matching = match_quartets(offered.candidates, FULL, np.random.default_rng(0), propensities(clips))
    return question_rows(offered, matching.quartets, Block(0, table, None), np.random.default_rng(0))


_LEARNED: dict[int, Propensity] = {}


def propensities(clips: list[ClipCues]) -> dict[int, Propensity]:
    """Learned once a data set, so outside of what is timed."""
    if not _LEARNED:
        candidates, matching = generate(clips, FULL)
        forms = candidates.form[matching.quartets[:, 0]]
        _LEARNED.update({int(f): fit(candidates, matching.quartets[forms == f]) for f in np.unique(forms)})
    return _LEARNED


@pytest.mark.benchmark(group="questions")
def test_from_cues_to_rows(benchmark, clips: list[ClipCues]) -> None:
    ids = [f"clip_{i}" for i in range(len(clips))]
    table = pd.DataFrame({"clip_id": ids, "source_video": ids, "category": ""})
    propensities(clips)
    rows = benchmark.pedantic(all_of_it, (clips, table), rounds=5, warmup_rounds=1)
    report(benchmark, len(rows))


@pytest.mark.benchmark(group="questions")
def test_matching_alone(benchmark, clips: list[ClipCues]) -> None:
    candidates, _ = generate(clips, FULL)
    learned = propensities(clips)
    matching = benchmark.pedantic(
        lambda: match_quartets(candidates, FULL, np.random.default_rng(0), learned), rounds=5, warmup_rounds=1
    )
    report(benchmark, matching.quartets.size)


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
    slow_candidates, slow_matching = benchmark.pedantic(generate, (clips[:6], SMALL), rounds=1)
    np.testing.assert_array_equal(slow_candidates.answer, candidates.answer)
    np.testing.assert_array_equal(slow_matching.quartets, matching.quartets)
