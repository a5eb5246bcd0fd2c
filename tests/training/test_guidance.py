"""Guides against the answers of a pool, and changes that leave the answers as they are."""

from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.console import StageError
from dsr.cues.schema import write_cues
from dsr.examples.records import Example
from dsr.mcq import read_questions, read_row
from dsr.params import QA, Params
from dsr.questions import generate
from dsr.questions.language.families import FORM_INDEX, FORMS, Family
from dsr.training.guidance import (
    NUM_SIGHTS,
    STATES,
    STATES_OF_FORM,
    Change,
    Guide,
    Sight,
    changed,
    guide_examples,
    read_guides,
    state_sentences,
    told_states,
)
from tests.scenes import random_cues

QA_SMALL = QA(seed=1, candidates=2048, keep_per_clip_type=80, num_blocks=2, max_advantage=2.0)
NUM_CLIPS = 16


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root: Path = tmp_path_factory.mktemp("pool")
    ids = [f"clip-{i:02d}" for i in range(NUM_CLIPS)]
    for number, clip_id in enumerate(ids):
        write_cues(root / f"data/cues/{clip_id}.npz", random_cues(number))
    curated = pd.DataFrame({"clip_id": ids, "source_video": ids, "category": "", "status": "kept", "reason": ""})
    (root / "data/clips").mkdir(parents=True)
    curated.to_parquet(root / "data/clips/curated.parquet", index=False)
    generate.run(Params(qa=QA_SMALL), root, workers=1)
    return read_questions(root / "data/qa/pool.parquet")


def examples_of(pool: pd.DataFrame) -> list[Example]:
    questions = map(read_row, pool.to_dict("records"))
    return [Example(**{**vars(q), "shown_frames": q.shown_frames or 0}) for q in questions]


def form_of(name: str):
    return FORMS[FORM_INDEX[name]]


def test_the_run_lengths_of_every_questions_states_are_its_answer(pool: pd.DataFrame) -> None:
    guides = read_guides(pool, QA_SMALL)
    assert len(guides) == len(pool) > 300
    assert len(set(pool.form)) > 12
    for example in examples_of(pool):
        form, guide = form_of(example.form), guides[example.qa_id]
        answer = example.bare_options[example.letters.index(example.answer)]
        merged = tuple(state for state, _ in groupby(guide.states))
        assert merged == told_states(form, answer)
        assert set(guide.states) <= set(STATES_OF_FORM[example.form].tolist())
        moments = {"dis": 4, "spd": 4, "dir": 5, "ori": 5, "spd_comp": 5, "dir_pred": 1}
        if not isinstance(form, Family):
            assert len(guide.states) == moments[form.signal]


def test_other_parameters_than_the_pools_are_refused(pool: pd.DataFrame) -> None:
    with pytest.raises(StageError, match=r"the signal of .* tells .*, its answer .*other `qa` parameters"):
        read_guides(pool, replace(QA_SMALL, dead_zone=0.5))


def test_a_table_from_elsewhere_has_no_guides(pool: pd.DataFrame) -> None:
    assert read_guides(pool.drop(columns="signal"), QA_SMALL) == {}
    assert read_guides(pool.assign(form=""), QA_SMALL) == {}


def test_states_are_the_shortest_answers() -> None:
    assert state_sentences(form_of("abs_dir"), "It is behind, left and above, then right.") == (
        "It is behind, left and above",
        "It is right",
    )
    order = "The second, then the first, then the third."
    assert state_sentences(form_of("nearest_at_end"), order) == ("The second", "The first", "The third")
    assert [STATES[k] for k in STATES_OF_FORM["abs_spd"]] == [
        "It speeds up",
        "It keeps about the same speed",
        "It slows down",
    ]
    assert len(STATES_OF_FORM["rel_ori"]) == 26
    assert len(set(STATES)) == len(STATES)


def test_sights_follow_from_the_text() -> None:
    """Guides of moments 4, 6, … and what is looked at for each state, per head."""
    moving = Guide("rel_dir", (0,) * 5, 2, (0,), (4, 6, 8, 10, 12))
    assert moving.sights()[1] == (Sight(2, 0, 6),) * 4
    between = Guide("rel_dir_between", (0,) * 5, 2, (0, 3), (4, 6, 8, 10, 12))
    assert between.sights()[4] == (*[Sight(2, 0, 12)] * 2, *[Sight(2, 3, 12)] * 2)
    fixed = Guide("abs_ori", (0,) * 5, -1, (0,), (4, 6, 8, 10, 12))
    assert fixed.sights()[2] == (Sight(-1, 0, 8), Sight(-1, 0, 4), Sight(-2, 0, 8), Sight(-2, -1, 4))
    fixed = Guide("abs_dir_between", (0,) * 5, -1, (0, 3), (4, 6, 8, 10, 12))
    assert fixed.sights()[2] == (Sight(-1, 0, 8), Sight(-1, 0, 4), Sight(-1, 3, 8), Sight(-1, 3, 4))
    distance = Guide("abs_dis", (0,) * 4, 1, (0,), (4, 6, 8, 10, 12))
    assert distance.sights()[3] == (Sight(-2, 0, 10), Sight(-2, 0, 12), Sight(-2, 1, 4), Sight(1, 0, 10))
    distance = Guide("rel_dis", (0,) * 4, 1, (0,), (4, 6, 8, 10, 12))
    assert distance.sights()[3] == (*[Sight(1, 0, 10)] * 2, *[Sight(1, 0, 12)] * 2)
    speed = Guide("rel_spd", (0,) * 4, 1, (0,), (0, 3, 6, 9, 12, 15))
    assert speed.sights()[3] == (Sight(1, 0, 9), Sight(1, 0, 12), Sight(1, 0, 12), Sight(1, 0, 15))
    over_ground = Guide("abs_spd_comp", (0,) * 5, -2, (1, 2), (0, 3, 6, 9, 12, 15))
    assert over_ground.sights()[0] == (Sight(-2, 1, 0), Sight(-2, 1, 3), Sight(-2, 2, 0), Sight(-2, 2, 3))
    for form in ("rel_dir_pred", "abs_dir_pred"):  # what was before the stop is in no text
        assert Guide(form, (0,), 1, (0,), (10, 13, 16)).sights() == [(Sight(1, 0, 13),) * 4]


def test_sights_of_families_are_what_their_rules_compare() -> None:
    def sights_of(name: str, viewer: int, *targets: int) -> tuple[Sight, ...]:
        guide = Guide(name, (0, 1), viewer, targets, tuple(range(10, 19)))
        one, other = guide.sights()
        assert one == other
        return one

    assert sights_of("nearest_at_end", 1, 0, 2, 3) == (Sight(1, 0, 18), Sight(1, 2, 18), Sight(1, 3, 18))
    assert sights_of("side_after_turn_left", 1, 0) == (Sight(1, 0, 18),) * 4
    assert sights_of("passing", 1, 0, 2) == (Sight(1, 0, 18), Sight(1, 0, 10), Sight(1, 2, 18), Sight(1, 2, 10))
    assert sights_of("turn_of_heading", -2, 0) == (*[Sight(-2, 0, 18)] * 2, *[Sight(-2, 0, 10)] * 2)
    assert sights_of("when_nearest", -1, 0) == tuple(Sight(-1, 0, frame) for frame in (10, 12, 16, 18))
    assert sights_of("when_fastest", -2, 0) == tuple(Sight(-2, 0, frame) for frame in (11, 13, 15, 17))
    assert sights_of("order_of_speed", -2, 0, 2, 3) == tuple(Sight(-2, thing, 14) for thing in (0, 2, 3))


def test_no_sight_is_beyond_what_is_shown(pool: pd.DataFrame) -> None:
    guides = read_guides(pool, QA_SMALL)
    for row in pool.itertuples():
        for sights in guides[row.qa_id].sights():
            assert 0 < len(sights) <= NUM_SIGHTS
            assert all(sight.frame < row.shown_frames for sight in sights)
            named = {row.viewpoint, *row.targets}
            assert {sight.thing for sight in sights} <= named


def test_without_a_change_a_question_is_worded_as_in_the_pool(pool: pd.DataFrame) -> None:
    for example in examples_of(pool):
        assert Change().question(example) == example.question


def test_a_change_is_one_of_names_and_times() -> None:
    boxes = ((10, 20, 60, 90), ())
    question = (
        "As seen with the viewpoint of the robot (box [10, 20, 60, 90] at 4.9 s) at 4.9 s, where does the camera lie "
        "from 4.9 s to 5.6 s?"
    )
    example = Example("q", "c", question, (), "A", "abs_dir", 8, 4.875, 5.625, "abs_dir", 5, ("robot", "camera"), boxes)
    (guided,) = guide_examples([example], {})
    assert Change().question(example) == question
    moved = changed(guided, Change({"robot": "zebra", "camera": "robot"}, 0.5))
    assert moved.question == (
        "As seen with the viewpoint of the zebra (box [10, 20, 60, 90] at 5.4 s) at 5.4 s, where does the camera lie "
        "from 5.4 s to 6.1 s?"
    )
    assert replace(moved, question=question, change=Change()) == guided


def test_a_drawn_change_exchanges_names() -> None:
    names = ["car", "dog", "robot", "tree"]
    change = Change.draw(names, 1.0, 0.1, np.random.default_rng(3))
    assert sorted(change.names) == sorted(change.names.values()) == names
    assert 0 <= change.shift <= 1
    assert change == Change.draw(names, 1.0, 0.1, np.random.default_rng(3))
