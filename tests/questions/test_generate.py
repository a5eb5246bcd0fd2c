"""The `qa` stage on a small project of hand-made clips: the pool, the accounts, and bad input."""

import dataclasses
import json
import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.console import StageError
from dsr.cues.schema import ClipCues, write_cues
from dsr.mcq import TYPES
from dsr.params import QA, Curation, Params
from dsr.questions.engine.scene import build_scene
from dsr.questions.generate import COLUMNS, run
from dsr.questions.language.families import FAMILIES, FORMS
from dsr.questions.language.templates import (
    NUM_WORDINGS,
    TEMPLATES,
    encode_states,
    mention,
    parse_answer,
    question_text,
)
from dsr.questions.motion import motion, ways
from tests.questions.reference import answer_of
from tests.scenes import hide, random_cues

NUM_CLIPS = 24
CLIP_IDS = [f"clip-{i:02d}.a" for i in range(NUM_CLIPS)]
QA_SMALL = QA(seed=1, candidates=2048, keep_per_clip_type=80, num_blocks=2, max_advantage=2.0)

CONTRACT = [
    "videoID",
    "question",
    "options",
    "answer",
    "type",
    "qa_id",
    "quartet_id",
    "block",
    "source_video",
    "category",
    "form",
    "wording",
    "labels",
    "boxes",
    "viewpoint_kind",
    "viewpoint",
    "viewpoint_mode",
    "targets",
    "target_kinds",
    "start_time",
    "end_time",
    "frames",
    "shown_frames",
    "states",
    "signal",
    "option_states",
]


def write_project(root: Path, clips: dict[str, ClipCues]) -> None:
    for clip_id, cues in clips.items():
        write_cues(root / f"data/cues/{clip_id}.npz", cues)
    write_table(root, list(clips))


def write_table(root: Path, clip_ids: list[str]) -> None:
    """curated.parquet: every second clip shares its source video with the one before."""
    table = pd.DataFrame(
        {
            "clip_id": clip_ids,
            "source_video": [f"film{i // 2}" for i in range(len(clip_ids))],
            "category": "animals",
            "status": "kept",
            "reason": "",
        }
    )
    dropped = pd.DataFrame(
        [{"clip_id": "still", "source_video": "film99", "category": "", "status": "dropped", "reason": "static"}]
    )
    (root / "data/clips").mkdir(parents=True, exist_ok=True)
    pd.concat([table, dropped]).to_parquet(root / "data/clips/curated.parquet", index=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_project(root, {clip_id: random_cues(i) for i, clip_id in enumerate(CLIP_IDS)})
    run(Params(qa=QA_SMALL), root, workers=1)
    return root


@pytest.fixture(scope="module")
def pool(project: Path) -> pd.DataFrame:
    return pd.read_parquet(project / "data/qa/pool.parquet")


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def few(copy: Path) -> Path:
    """The project with its first twelve clips alone."""
    write_table(copy, CLIP_IDS[:12])
    return copy


@cache
def cues_of(clip_id: str) -> ClipCues:
    return random_cues(int(clip_id[5:7]))


def report_of(root: Path) -> dict:
    return json.loads((root / "metrics/qa.json").read_text())


def test_the_pool_has_the_agreed_columns_the_published_ones_first(pool: pd.DataFrame) -> None:
    assert list(pool.columns) == CONTRACT == COLUMNS
    assert len(pool) >= 200
    assert pool.notna().all().all()


def test_ids_are_unique_and_rows_name_known_clips(pool: pd.DataFrame) -> None:
    assert pool.qa_id.is_unique
    assert set(pool.videoID) <= set(CLIP_IDS)
    assert all(qa_id.startswith(video) for qa_id, video in zip(pool.qa_id, pool.videoID, strict=True))
    assert set(pool.type) <= set(TYPES)
    assert set(pool.category) == {"animals"}
    # Two clips a film.
    assert all(f"film{int(v[5:7]) // 2}" == film for v, film in zip(pool.videoID, pool.source_video, strict=True))


def test_four_questions_share_four_options_each_right_once(pool: pd.DataFrame) -> None:
    for _, quartet in pool.groupby("quartet_id"):
        assert len(quartet) == 4
        assert sorted(quartet.answer) == list("ABCD")
        assert quartet.type.nunique() == quartet.block.nunique() == 1
        options = {tuple(o) for o in quartet.options}
        assert len(options) == 1
        (texts,) = options
        assert [t[:3] for t in texts] == ["A. ", "B. ", "C. ", "D. "]
        assert len({t[3:] for t in texts}) == 4
        assert len({tuple(s) for s in quartet.option_states}) == 1


def test_letters_are_balanced_exactly(pool: pd.DataFrame) -> None:
    assert len(set(Counter(pool.answer).values())) == 1


def test_the_states_are_those_of_the_right_option(pool: pd.DataFrame) -> None:
    for row in pool.itertuples():
        place = "ABCD".index(row.answer)
        assert row.option_states[place] == row.states
        if row.type != "non_temp":
            signal = row.type.split("_", 1)[1]
            vocabulary = "dir_between" if signal == "dir" and len(row.targets) == 2 else signal
            told = [encode_states(parse_answer(vocabulary, option[3:])) for option in row.options]
            assert told == list(row.option_states)
        else:
            answers = next(
                f.answers for f in FAMILIES if row.options[0][3:] in f.answers and row.options[1][3:] in f.answers
            )
            assert all(answers[int(s)] == option[3:] for s, option in zip(row.option_states, row.options, strict=True))


def test_source_videos_stay_in_their_block(pool: pd.DataFrame) -> None:
    assert (pool.groupby("source_video").block.nunique() == 1).all()
    assert set(pool.block) == {0, 1}


def test_caps_of_a_clip_hold(pool: pd.DataFrame) -> None:
    assert pool.groupby("videoID").size().max() <= QA_SMALL.max_per_clip
    assert pool.groupby(["videoID", "type"]).size().max() <= QA_SMALL.max_per_clip_type


def test_every_answer_can_be_worked_out_from_its_row(pool: pd.DataFrame) -> None:
    """From clip, type, viewpoint, targets and frames alone, by the plain reference."""
    scenes = {}
    for row in pool[pool.type != "non_temp"].itertuples():
        if row.videoID not in scenes:
            cues = cues_of(row.videoID)
            scenes[row.videoID] = build_scene(cues, QA_SMALL.ensemble, np.random.default_rng(0))
        mode = {"relative": "moving", "absolute": "fixed", "none": "none"}[row.viewpoint_mode]
        (form,) = [f for f in TEMPLATES if (f.type, f.viewer, f.num_targets) == (row.type, mode, len(row.targets))]
        # Rows count tracks from 0 and say -1 for the camera, -2 for none; scenes count the camera as 0.
        targets = [int(t) + 1 for t in row.targets]
        frames = [int(f) for f in row.frames]
        answer = answer_of(scenes[row.videoID], form, row.viewpoint + 1, targets, frames, QA_SMALL)
        assert encode_states(answer) == row.states


def test_rows_say_who_looks_at_whom_and_when(pool: pd.DataFrame) -> None:
    for row in pool.itertuples():
        cues = cues_of(row.videoID)
        kinds = ["camera", *("agent" if a else "object" for a in cues.is_agent)]
        assert [kinds[t + 1] for t in row.targets] == list(row.target_kinds)
        assert row.viewpoint_kind == ("none" if row.viewpoint == -2 else kinds[row.viewpoint + 1])
        assert (row.viewpoint_mode == "none") == (row.viewpoint == -2)
        assert row.viewpoint not in row.targets
        predicts = row.type.endswith("dir_pred")
        stop = row.frames[1] if predicts else row.frames[-1]
        assert row.start_time == cues.timestamps[0 if predicts else row.frames[0]]
        assert row.end_time == cues.timestamps[stop]
        # A prediction is verified on a frame that the model does not see.
        assert row.shown_frames == (stop + 1 if predicts else cues.num_frames)
        assert not predicts or row.frames[-1] >= row.shown_frames


def test_the_question_is_made_from_the_columns_of_its_row(pool: pd.DataFrame) -> None:
    forms = {form.name: form for form in FORMS}
    assert len(set(pool.wording)) == NUM_WORDINGS
    for row in pool.itertuples():
        form = forms[row.form]
        assert (form.type, form.num_targets) == (row.type, len(row.targets))
        labels = ["camera", *cues_of(row.videoID).labels]
        assert list(row.labels) == [labels[e + 1] for e in (row.viewpoint, *row.targets) if e > -2]
        assert [len(box) for box in row.boxes] == [4 * (e >= 0) for e in (row.viewpoint, *row.targets) if e > -2]
        moment = row.end_time if row.type.endswith("dir_pred") else row.start_time
        names = [mention(label, tuple(box), moment) for label, box in zip(row.labels, row.boxes, strict=True)]
        asked = question_text(
            form, row.wording, row.start_time, row.end_time, moment, dict(zip(form.roles, names, strict=True))
        )
        assert row.question == asked


def test_the_question_names_every_track_with_its_box_at_the_stated_moment(pool: pd.DataFrame) -> None:
    mentions = re.compile(r"the (\w+) \(box \[(-?\d+), (-?\d+), (-?\d+), (-?\d+)\] at (\d+\.\d) s\)")
    for row in pool.itertuples():
        cues = cues_of(row.videoID)
        entities = [row.viewpoint, *row.targets]
        stated = row.frames[1] if row.type.endswith("dir_pred") else row.frames[0]
        told = mentions.findall(row.question)
        assert {label for label, *_ in told} == {str(cues.labels[e]) for e in entities if e >= 0}
        for label, *numbers in told:
            track = cues.labels.tolist().index(label)
            np.testing.assert_allclose([float(c) for c in numbers[:4]], cues.boxes[track, stated], atol=0.51)
            assert numbers[4] == f"{cues.timestamps[stated]:.1f}"
        assert ("the camera" in row.question.replace("The camera", "the camera")) == (-1 in entities)
        assert "nan" not in row.question


def skeleton(question: str) -> str:
    question = re.sub(r"the (camera|\w+ \(box [^)]*\))", "ENTITY", question)
    return re.sub(r"-?\d+(\.\d)?", "N", question)


def test_the_members_of_a_quartet_are_asked_in_the_same_words(pool: pd.DataFrame) -> None:
    assert all(len({skeleton(q) for q in quartet.question}) == 1 for _, quartet in pool.groupby("quartet_id"))
    # ... and all wordings are used: three and two ways to say an interval where there is one.
    for name, group in pool.groupby("type"):
        wordings = {skeleton(q) for q in group.question}
        assert len(wordings) >= min(3, group.quartet_id.nunique() // 3), name


def test_the_accounts_add_up(project: Path, pool: pd.DataFrame) -> None:
    report = report_of(project)
    counts = report["unasked"]
    late = ("no partners for a quartet", "clip has enough questions", "over qa.max_questions")
    early = [n for name, n in counts.items() if name not in late]
    assert report["drawn"] == report["candidates"] + sum(early)
    assert report["candidates"] == len(pool) + sum(counts.get(name, 0) for name in late)
    assert report["questions"] == len(pool) == 4 * report["quartets"]
    assert report["quartets"] == pool.quartet_id.nunique()
    assert report["type_questions"] == {name: int((pool.type == name).sum()) for name in TYPES}
    assert report["clips"] == NUM_CLIPS
    assert report["clips_with_10_questions"] == int((pool.videoID.value_counts() >= 10).sum())
    assert report["clips_without_candidates"] == 0


@pytest.mark.slow
def test_two_processes_and_another_order_of_the_table_write_the_same_bytes(project: Path, copy: Path) -> None:
    for name in ("data/qa/pool.parquet", "metrics/qa.json"):
        (copy / name).unlink()
    table = copy / "data/clips/curated.parquet"
    pd.read_parquet(table).iloc[::-1].to_parquet(table, index=False)
    run(Params(qa=QA_SMALL), copy, workers=2)
    for name in ("data/qa/pool.parquet", "metrics/qa.json"):
        assert (copy / name).read_bytes() == (project / name).read_bytes()


def test_another_seed_asks_other_questions(few: Path) -> None:
    run(Params(qa=QA_SMALL), few, workers=1)
    before = pd.read_parquet(few / "data/qa/pool.parquet")
    run(Params(qa=dataclasses.replace(QA_SMALL, seed=2)), few, workers=1)
    assert set(pd.read_parquet(few / "data/qa/pool.parquet").question) != set(before.question)


def test_a_bad_clip_is_named_and_the_others_go_on(copy: Path, pool: pd.DataFrame) -> None:
    cues = copy / "data/cues"
    whole = (cues / "clip-03.a.npz").read_bytes()
    (cues / "clip-03.a.npz").write_bytes(whole[: len(whole) // 2])
    (cues / "clip-07.a.npz").write_bytes(b"")
    clip = random_cues(9)
    write_cues(cues / "clip-09.a.npz", hide(clip, np.ones_like(clip.visible)))
    # Cues of a dropped clip and of one that no table names are not asked about; neither is a clip without cues.
    write_cues(cues / "still.npz", random_cues(1))
    write_cues(cues / "unknown.npz", random_cues(2))
    (cues / "clip-05.a.npz").unlink()
    run(Params(qa=QA_SMALL), copy, workers=1)
    problems = dict(pd.read_csv(copy / "metrics/qa/clips_without_candidates.csv").to_numpy().tolist())
    assert report_of(copy)["clips_without_candidates"] == len(problems)
    assert set(problems) >= {"clip-03.a", "clip-07.a", "clip-09.a"}
    assert "not a readable cue file" in problems["clip-03.a"]
    assert all("\n" not in problem for problem in problems.values())
    after = pd.read_parquet(copy / "data/qa/pool.parquet")
    assert not set(after.videoID) & {*problems, "still", "unknown", "clip-05.a"}
    assert len(after) > 0.5 * len(pool)


def test_clips_in_which_nothing_moves_far_enough_are_not_asked_about(few: Path) -> None:
    found = {clip_id: motion(ways(cues_of(clip_id))) for clip_id in CLIP_IDS[:12]}
    least = sorted(found.values())[3]
    run(Params(qa=QA_SMALL, curation=Curation(min_motion=least)), few, workers=1)
    after = pd.read_parquet(few / "data/qa/pool.parquet")
    still = {clip_id for clip_id, way in found.items() if way < least}
    assert len(still) == 3
    assert not still & set(after.videoID)
    problems = dict(pd.read_csv(few / "metrics/qa/clips_without_candidates.csv").to_numpy().tolist())
    assert {clip_id for clip_id, why in problems.items() if why.startswith("too little motion: ")} == still
    assert report_of(few)["clips"] == 12
    with pytest.raises(StageError, match=r"nothing in 12 clips goes as far as curation\.min_motion, 99: "):
        run(Params(qa=QA_SMALL, curation=Curation(min_motion=99.0)), few, workers=2)


@pytest.mark.parametrize("most", [8, 60])
def test_max_questions_is_the_most(few: Path, most: int) -> None:
    """Small numbers too: blocks share whole quartets, they do not each round up."""
    run(Params(qa=dataclasses.replace(QA_SMALL, num_blocks=4, max_questions=most)), few, workers=1)
    limited = pd.read_parquet(few / "data/qa/pool.parquet")
    assert len(limited) <= most
    assert (limited.groupby("quartet_id").size() == 4).all()


def test_what_is_left_out_by_max_questions_is_counted_and_types_are_spread(copy: Path, pool: pd.DataFrame) -> None:
    run(Params(qa=dataclasses.replace(QA_SMALL, max_questions=120)), copy, workers=1)
    limited = pd.read_parquet(copy / "data/qa/pool.parquet")
    assert report_of(copy)["unasked"]["over qa.max_questions"] == len(pool) - len(limited)
    # Every type that there is in a block comes before any has a second quartet.
    assert set(limited.type) == set(pool.type)


def test_stages_that_have_not_run_are_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"curated\.parquet does not exist.*dsr curate"):
        run(Params(), tmp_path)
    write_table(tmp_path, ["a", "b"])
    with pytest.raises(StageError, match=r"no clip of .* has cues"):
        run(Params(), tmp_path)


def test_clips_with_nothing_to_ask_stop_the_stage_with_a_reason(tmp_path: Path) -> None:
    clip = random_cues(1)
    write_project(tmp_path, {"empty": hide(clip, np.ones_like(clip.visible))})
    with pytest.raises(StageError, match=r"no quartet .*; 1 clips: no track is seen in front of the camera"):
        run(Params(), tmp_path, workers=1)
    assert not (tmp_path / "data/qa/pool.parquet").exists()
