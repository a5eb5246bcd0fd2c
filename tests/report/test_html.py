"""`dsr report`: one file that opens offline, whatever there is to report and whatever labels hold."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from dsr.evaluation.metrics import evaluation_metrics
from dsr.files import write_metrics, write_parquet
from dsr.report import html
from dsr.report.contents import read_contents
from dsr.report.gallery import choose
from tests.small_project import HOSTILE, PARAMS

pytest.importorskip("matplotlib")

GALLERY = 2
"""Questions of each heading; more show nothing more."""


class Tags(HTMLParser):
    """Collects tags with their attributes, and what is never closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


def add_evaluation(root: Path) -> pd.DataFrame:
    """Predictions that are always C, and their metrics, with a hostile reason for a missing question."""
    bench = pd.read_parquet(root / "data/qa/bench.parquet")
    runs = []
    for control in ("score", "blind"):
        run = bench[["qa_id", "videoID", "source_video", "quartet_id", "type", "answer"]].copy()
        run["num_options"] = 4
        run["control"], run["prediction"], run["status"], run["reason"] = control, "C", "scored", ""
        run.loc[run.index[0], ["prediction", "status", "reason"]] = ["", "missing", f"no video: {HOSTILE}"]
        run["correct"] = (run["answer"] == run["prediction"]) & (run["status"] == "scored")
        run[[f"logp_{letter}" for letter in "ABCD"]] = [-2.0, -2.0, -0.5, -2.0]
        runs.append(run)
    predictions = pd.concat(runs, ignore_index=True)
    write_parquet(root / "data/predictions/bench.parquet", predictions)
    metrics = evaluation_metrics(predictions, 100, 1)
    write_metrics(root / "metrics/eval.json", metrics.figures, metrics.tables)
    return predictions


def add_audit(root: Path) -> None:
    row = {"accuracy": 0.261, "low": 0.24, "high": 0.28, "questions": 60}
    attackers = [
        {**row, "view": view, "attacker": attacker, "type": kind}
        for view in ("options", "question")
        for attacker in ("trees", "strongest")
        for kind in ("all", "rel_dis")
    ]
    checks = [{**row, "check": "exact", "type": kind} for kind in ("all", "rel_dis")]
    figures = {
        "blind": {"chance": 0.25, "limit": 0.285, "question": 0.261},
        "balance": {"quartets": 15, "letters": {"A": 15}},
    }
    tables = {
        "attackers": attackers,
        "label_checks": checks,
        "answers": [{"type": "rel_dis", "answers": 7, "evenness": 0.9}],
        "clips_not_checked": [{"clip_id": "clip_99", "reason": HOSTILE}],
    }
    write_metrics(root / "metrics/audit.json", figures, {name: pd.DataFrame(rows) for name, rows in tables.items()})


@pytest.fixture(scope="module")
def reported(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("html") / "project"
    shutil.copytree(project, root)
    add_evaluation(root)
    add_audit(root)
    html.run(PARAMS, root, gallery=GALLERY)
    return root, (root / "metrics/report.html").read_text()


@pytest.mark.slow
def test_the_page_is_whole_and_loads_nothing(reported: tuple[Path, str]) -> None:
    _, page = reported
    tags = Tags(page)
    assert tags.open == []
    assert "default-src 'none'" in page
    for name, attributes in tags.found:
        assert name not in ("script", "link", "iframe", "object", "embed"), name
        assert not any(attribute.startswith("on") for attribute in attributes), attributes
        for key in ("src", "href"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), value
    assert "@import" not in page
    assert len(page) < html.MOST_BYTES


def test_hostile_labels_captions_and_reasons_are_text(reported: tuple[Path, str]) -> None:
    _, page = reported
    assert HOSTILE not in page
    # A category, a word, a curation reason, an audit reason, an evaluation reason.
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


def test_every_section_shows_its_numbers(reported: tuple[Path, str]) -> None:
    root, page = reported
    pool = pd.read_parquet(root / "data/qa/pool.parquet")
    assert f"{len(pool):,} questions in {pool.quartet_id.nunique():,} quartets" in page
    assert "26.1 %" in page
    for section in ("clips", "questions", "audit", "evaluation", "failures", "gallery"):
        assert f'<h2 id="{section}">' in page
    assert "cannot be decoded" in page
    bench = pd.read_parquet(root / "data/qa/bench.parquet")
    assert re.search(rf"asked {len(bench)}\b", page)
    assert "Not in this report" not in page


def test_the_gallery_shows_right_and_wrong_with_pictures_and_explanations(reported: tuple[Path, str]) -> None:
    root, page = reported
    chosen = choose(root, GALLERY)
    assert list(chosen) == ["Answered right", "Answered wrong"]
    assert all(len(questions) == GALLERY for questions in chosen.values())
    predictions = (
        pd.read_parquet(root / "data/predictions/bench.parquet").query("control == 'score'").set_index("qa_id")
    )
    for title, right in (("Answered right", True), ("Answered wrong", False)):
        for qa_id, letter in chosen[title]:
            assert predictions.loc[qa_id, "correct"] == right
            assert letter == "C"
            assert f"<h4>{qa_id} " in page
        assert len(set(predictions.loc[[q for q, _ in chosen[title]], "type"])) == GALLERY
    assert page.count("data:image/jpeg;base64,") == 2 * GALLERY
    assert page.count("Why the label holds") == 2 * GALLERY


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(reported: tuple[Path, str], tmp_path: Path) -> None:
    root, page = reported
    html.run(PARAMS, root, tmp_path / "again.html", gallery=GALLERY)
    assert (tmp_path / "again.html").read_text() == page


def test_an_empty_project_gives_a_page_that_names_what_is_missing(tmp_path: Path) -> None:
    html.run(PARAMS, tmp_path)
    page = (tmp_path / "metrics/report.html").read_text()
    assert Tags(page).open == []
    for name in ("data/clips/catalog.parquet", "data/qa/pool.parquet", "metrics/audit.json", "metrics/eval.json"):
        assert f"{name} does not exist" in page


def test_damaged_files_are_named_and_the_rest_is_shown(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    add_audit(root)
    (root / "metrics/eval.json").write_text("{")
    (root / "metrics/qa.json").write_text("[1]")
    (root / "data/qa/train.parquet").write_bytes(b"no parquet")
    contents = read_contents(root)
    assert contents.audit is not None
    assert contents.evaluation is None
    assert any("metrics/eval.json cannot be read" in problem for problem in contents.missing)
    assert any("data/qa/train.parquet cannot be read" in problem for problem in contents.missing)
    assert any("section on questions is left out" in problem for problem in contents.missing)
    html.run(PARAMS, root, gallery=1)
    assert "26.1 %" in (root / "metrics/report.html").read_text()


def test_without_predictions_questions_of_the_pool_are_shown(project: Path) -> None:
    chosen = choose(project, 5)
    assert list(chosen) == ["Questions"]
    assert [letter for _, letter in chosen["Questions"]] == [""] * 5


def test_a_gallery_that_is_too_large_is_cut_and_says_so(
    reported: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, page = reported
    monkeypatch.setattr(html, "MOST_BYTES", len(page) // 2)
    html.run(PARAMS, root, tmp_path / "cut.html", gallery=GALLERY)
    cut = (tmp_path / "cut.html").read_text()
    assert len(cut) < len(page)
    assert re.search(r"\d questions were left out", cut)
