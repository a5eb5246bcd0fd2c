"""`dsr explain`: every question of a pool is explained by its own right option."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.console import StageError
from dsr.cues.schema import read_cues
from dsr.explain import explain as command
from dsr.explain.explanation import closest_call, explain, explain_question, explanation_text
from dsr.questions.language.templates import mention
from tests.small_project import FORMULA, HOSTILE, PARAMS

PNG = b"\x89PNG\r\n\x1a\n"


def pool(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / "data/qa/pool.parquet")


def one_of_each_type(root: Path) -> list[str]:
    return pool(root).groupby("type").qa_id.first().tolist()


def test_every_question_comes_out_as_its_right_option_and_on_nearly_every_version(project: Path) -> None:
    table = pool(project)
    assert len(table) >= 40
    agreed, members = 0, 0
    for qa_id in table["qa_id"].iloc[::2]:
        found, _, _ = explain(PARAMS, project, qa_id)
        assert found.answer == found.right, qa_id
        agreement = found.agreement()
        assert set(agreement) == {"as they are", "ensemble", "fresh noise", "other noise"}
        assert agreement["as they are"] == (1, 1)
        # On the cues as they are no condition fails.
        assert all(condition.margins[0] > 0 for condition in found.derivation.conditions), qa_id
        agreed, members = agreed + agreement["ensemble"][0], members + agreement["ensemble"][1]
    assert members >= 16 * 20
    assert agreed >= 0.96 * members


def test_the_text_names_targets_moments_thresholds_and_the_quartet(project: Path) -> None:
    row = pool(project).query("type == 'abs_dis'").iloc[0]
    found, _, _ = explain(PARAMS, project, row.qa_id)
    text = explanation_text(found)
    assert f"> {row.options['ABCD'.index(row.answer)]}" in text
    assert f"Answer: {found.right}" in text
    assert "qa.ratio_tolerance" in text
    assert "qa.min_distance" in text
    for frame in row.frames:
        assert f"{found.scene.timestamps[0, frame]:.2f} s" in text
    others = pool(project).query("quartet_id == @row.quartet_id and qa_id != @row.qa_id")
    assert len(others) == 3
    assert all(f"{other.answer}  {other.qa_id}" in text for other in others.itertuples())
    for condition, _ in found.by_closeness()[:8]:
        assert condition.what in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 140


def test_the_closest_call_is_the_smallest_margin_over_the_ensemble(project: Path) -> None:
    found, _, _ = explain(PARAMS, project, one_of_each_type(project)[0])
    condition, member = found.by_closeness()[0]
    every = [c.margins if c.alone else c.margins[found.ensemble()] for c in found.derivation.conditions]
    finite = np.concatenate([m[np.isfinite(m)] for m in every])
    assert condition.margins[member] == pytest.approx(finite.min())
    assert f"{condition.margins[member]:+.1%}" in closest_call(found)


def test_an_unknown_id_names_the_nearest(project: Path) -> None:
    known = pool(project)["qa_id"].iloc[0]
    with pytest.raises(StageError, match=rf"did you mean .*{known}"):
        explain(PARAMS, project, known + "9")
    with pytest.raises(StageError, match="no question 'zzz'; its questions are such as clip_"):
        explain(PARAMS, project, "zzz")


def test_a_project_without_a_pool_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="dvc repro"):
        explain(PARAMS, tmp_path, "a")


def test_a_label_that_the_cues_no_longer_give_is_said(project: Path) -> None:
    row = pool(project).query("type == 'rel_dis'").iloc[0].to_dict()
    row["answer"] = "ABCD"[("ABCD".index(row["answer"]) + 1) % 4]
    cues = read_cues(project / f"data/cues/{row['videoID']}.npz")
    found = explain_question(row, [], cues, None, PARAMS.qa)
    assert found.answer != found.right
    assert f"NOT the option that the pool calls right ({found.right})" in explanation_text(found)
    row["frames"] = [0, 8, 16, 24, 32]
    with pytest.raises(StageError, match="names a track or frame that its cues do not have"):
        explain_question(row, [], cues, None, PARAMS.qa)


def test_cues_that_are_gone_are_said(project: Path, tmp_path: Path) -> None:
    row = pool(project).iloc[0]
    shutil.copytree(project / "data/qa", tmp_path / "data/qa")
    with pytest.raises(StageError, match=r"manifest\.json.*run the cues stage again"):
        explain(PARAMS, tmp_path, row.qa_id)
    shutil.copytree(project / "data/cues", tmp_path / "data/cues", ignore=lambda *_: [f"{row.videoID}.npz"])
    with pytest.raises(StageError, match=f"clip {row.videoID} has no cues: {row.videoID}.npz is gone"):
        explain(PARAMS, tmp_path, row.qa_id)


@pytest.mark.slow
def test_pictures_of_every_type_are_drawn_and_the_same_again(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    for qa_id in one_of_each_type(project):
        command.run(PARAMS, project, qa_id, tmp_path / f"{qa_id}.png")
        assert (tmp_path / f"{qa_id}.png").read_bytes().startswith(PNG)
    first = (tmp_path / f"{qa_id}.png").read_bytes()
    text = capsys.readouterr().out
    command.run(PARAMS, project, qa_id, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == first
    assert capsys.readouterr().out in text


@pytest.mark.parametrize("label", [HOSTILE, FORMULA])
def test_labels_that_are_code_are_text(project: Path, tmp_path: Path, label: str) -> None:
    pytest.importorskip("matplotlib")
    table = pool(project)
    named = mention(label, (0, 0, 1, 1), 0).split(" (box")[0]
    qa_id = table[table["question"].str.contains(named, regex=False)]["qa_id"].iloc[0]
    command.run(PARAMS, project, qa_id, tmp_path / "label.png")
    assert (tmp_path / "label.png").read_bytes().startswith(PNG)
