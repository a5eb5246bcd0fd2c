"""Question generation: milliseconds a produced question, and against one question, member and frame at a time.

`pytest benchmarks/test_question_generation.py --benchmark-enable` prints both groups. The two of group "signals" do
the same work and give the same quartets; only the signals and answers are worked out differently.
"""

import numpy as np
import pytest

from dsr.params import QA
from dsr.qa import candidates as candidates_module
from dsr.qa.candidates import Candidates, Drawn, Members, find_candidates, signal_states
from dsr.qa.free_form import Family
from dsr.qa.options import Matching, match_quartets
from dsr.qa.scene import Scene, build_scene
from dsr.qa.templates import Form, num_axes
from tests.qa.reference import states_of
from tests.scenes import random_cues

FULL = QA()
SMALL = QA(candidates=256)


def scenes_of(count: int, qa: QA) -> list[Scene]:
    scenes = [build_scene(random_cues(seed), qa.ensemble, np.random.default_rng(seed)) for seed in range(count)]
    return [scene for scene in scenes if scene is not None]


def generate(scenes: list[Scene], qa: QA) -> tuple[Candidates, Matching]:
    parts = [find_candidates(scene, qa, np.random.default_rng(i))[0] for i, scene in enumerate(scenes)]
    clip = np.concatenate([np.full(len(part), i) for i, part in enumerate(parts)])
    candidates = Candidates.concatenate(parts)
    return candidates, match_quartets(candidates, clip, qa, np.random.default_rng(0))


def one_at_a_time(
    scene: Scene, form: Form, drawn: Drawn, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`signal_states` in plain Python for the templates; the free-form families have no plain twin."""
    if isinstance(form, Family):
        return signal_states(scene, form, drawn, qa, members)
    count, ensemble = len(drawn.viewer), members.positions.shape[-1]
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


@pytest.mark.benchmark(group="questions")
def test_from_scenes_to_quartets(benchmark) -> None:
    scenes = scenes_of(40, FULL)
    _, matching = benchmark.pedantic(generate, (scenes, FULL), rounds=3, warmup_rounds=1)
    questions = matching.quartets.size
    assert questions > 500
    if benchmark.stats:
        benchmark.extra_info["questions"] = questions
        benchmark.extra_info["ms_a_question"] = round(1e3 * benchmark.stats.stats.min / questions, 3)


@pytest.mark.benchmark(group="questions")
def test_matching_alone(benchmark) -> None:
    candidates, _ = generate(scenes_of(40, FULL), FULL)
    clip = np.arange(len(candidates)) % 40
    matching = benchmark.pedantic(
        lambda: match_quartets(candidates, clip, FULL, np.random.default_rng(0)), rounds=3, warmup_rounds=1
    )
    assert matching.quartets.size > 500
    if benchmark.stats:
        benchmark.extra_info["ms_a_question"] = round(1e3 * benchmark.stats.stats.min / matching.quartets.size, 3)


@pytest.fixture(scope="module")
def few_scenes() -> list[Scene]:
    return scenes_of(6, SMALL)


@pytest.mark.benchmark(group="signals")
def test_vectorised(benchmark, few_scenes: list[Scene]) -> None:
    _, matching = benchmark.pedantic(generate, (few_scenes, SMALL), rounds=3, warmup_rounds=1)
    assert matching.quartets.size


@pytest.mark.benchmark(group="signals")
def test_one_question_member_and_frame_at_a_time(
    benchmark, few_scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates, matching = generate(few_scenes, SMALL)
    monkeypatch.setattr(candidates_module, "signal_states", one_at_a_time)
    slow_candidates, slow_matching = benchmark.pedantic(generate, (few_scenes, SMALL), rounds=1)
    np.testing.assert_array_equal(slow_candidates.answer, candidates.answer)
    np.testing.assert_array_equal(slow_matching.quartets, matching.quartets)
