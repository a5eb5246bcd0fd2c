"""Rules against a language model: agreement worked out by hand, and on clips whose truth is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dsr import project
from dsr.audit import curation
from dsr.audit.curation import compare
from dsr.cli import app
from dsr.clips import catalog
from dsr.console import StageError
from dsr.cues import extract
from dsr.curation import curate
from dsr.curation.curated import Curated
from dsr.params import Curation, LanguageModel, Params, Simulate
from dsr.simulator import stage
from tests.audit.truthful import truthful
from tests.language_models.servers import serving


def said(agents: str, dynamic: bool, category: str = "people", num_moving: int = 0, evidence: str = "{}") -> Curated:
    notes = {"num_moving": num_moving, "evidence": evidence, "refused": []}
    return Curated(agents.split(), [], dynamic, category, "" if dynamic else "static: so", notes)


def test_agreement_is_counted_field_by_field() -> None:
    clips = pd.DataFrame({"clip_id": list("abcde"), "source_video": list("vwxyz"), "caption": list("12345")})
    rules = [
        said("man", True),
        said("man dog", True),
        said("cat", False, "animals"),
        said("car", True, "vehicles"),
        said("", True),
    ]
    model = [
        said("man", True, num_moving=1),
        said("dog man", True, "animals", 2),
        said("cat rat", False, "animals"),
        said("car", False, "vehicles"),
        said("", False, evidence=""),  # not answered
    ]
    measured = [(0.9, 1), (0.5, 1), (0.4, 2), None, (0.0, 0)]
    fields, differing = compare(clips, rules, model, measured, seed=1)
    table = fields.set_index(["field", "a", "b"])
    rows = table.xs(("rules", "language_model"), level=("a", "b"))
    assert rows["clips"].tolist() == [4] * 5
    assert rows["same"].to_dict() == {"kept": 3, "dynamic": 3, "category": 3, "agents": 3, "objects": 4}
    # Of four clips rules call three moving, the model two: by chance they would agree on 3/4 2/4 + 1/4 2/4 = 1/2.
    assert rows.loc["dynamic", "kappa"] == pytest.approx((3 / 4 - 1 / 2) / (1 - 1 / 2))
    assert rows.loc["dynamic", "kappa_low"] <= 0.5 <= rows.loc["dynamic", "kappa_high"]
    assert rows.loc["agents", "overlap"] == pytest.approx(5 / 6)  # man, man, dog, cat and car, but not rat
    assert np.isnan(rows.loc["objects", "overlap"])
    by_cues = table.xs("cues", level="b")
    assert by_cues.loc[("dynamic", "rules"), ["clips", "same"]].tolist() == [4, 2]
    assert by_cues.loc[("dynamic", "language_model"), ["clips", "same"]].tolist() == [3, 2]
    assert by_cues.loc[("num_moving", "language_model"), ["clips", "same"]].tolist() == [3, 1]
    assert differing["clip_id"].tolist() == ["b", "c", "d"]
    row = differing.set_index("clip_id").loc["c"]
    assert (row["agents_rules"], row["agents_language_model"], row["motion"]) == ("cat", "cat, rat", 0.4)


def test_a_clip_on_which_only_the_measure_differs_is_shown() -> None:
    clips = pd.DataFrame({"clip_id": ["a", "b"], "source_video": ["v", "w"], "caption": ["", ""]})
    voices = [said("man", True, num_moving=1)] * 2
    _, differing = compare(clips, voices, voices, [(0.01, 0), (1.0, 1)], seed=1)
    assert differing["clip_id"].tolist() == ["a"]


def test_without_a_model_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"curation\.llm\.model is empty: name the language model"):
        curation.run(Params(), tmp_path)


@pytest.mark.slow
def test_rules_agree_with_the_truth_of_simulated_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = Params(simulate=Simulate(num_clips=24, rendered=0))
    stage.run(params, tmp_path, 1)
    catalog.run(params, tmp_path, 1)
    curate.run(params, tmp_path, 1)
    extract.run(params, tmp_path, 1)
    before = (tmp_path / project.CURATED).read_bytes()
    with serving(truthful(tmp_path, curate.usable_clips(tmp_path))) as server:
        llm = replace(LanguageModel(), url=server.url, model="truth", json_schema=False)
        params = replace(params, curation=Curation(llm=llm))
        monkeypatch.setattr("dsr.cli.load", lambda path: params)
        done = CliRunner().invoke(app, ["curate", "--compare", "--root", str(tmp_path)])
        assert done.exit_code == 0, done.output
        assert len(server.bodies) == 24
        first = (tmp_path / project.CURATION_METRICS).read_bytes()
        CliRunner().invoke(app, ["curate", "--compare", "--root", str(tmp_path)])
        assert len(server.bodies) == 24
    assert (tmp_path / project.CURATION_METRICS).read_bytes() == first
    assert (tmp_path / project.CURATED).read_bytes() == before
    figures = json.loads(first)
    agreement = figures["agreement"]
    assert (figures["clips"], figures["clips_answered"], figures["clips_measured"]) == (24, 24, 24)
    assert agreement["agents.rules.language_model"]["share"] == 1
    assert agreement["objects.rules.language_model"]["overlap"] == 1
    assert agreement["num_moving.language_model.cues"]["share"] > 0.5
    assert (tmp_path / "metrics/curation/differing.csv").read_text().startswith("clip_id,caption,kept_rules,")
