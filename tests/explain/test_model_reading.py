"""A model's view on questions of a small project, with attention and geometry tokens that are made by hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dsr.examples.clips import ClipStore
from dsr.examples.inputs import ClipInputs
from dsr.explain import explain as command
from dsr.explain.explanation import explain
from dsr.explain.model_reading import model_view, seen_tokens
from dsr.explain.model_view import ModelView
from dsr.model import presets
from dsr.model.geometry_encoders import spelled
from dsr.params import GSM
from dsr.training.batches import TrainingCollator
from dsr.training.guidance import STATES
from tests.scenes import random_cues
from tests.small_project import PARAMS

PNG = b"\x89PNG\r\n\x1a\n"
TOKENS = 8
HEADS = 4


@pytest.fixture(scope="module")
def trained(project: Path) -> tuple[Any, Any]:
    """A model and its processor."""
    table = pd.read_parquet(project / "data/qa/pool.parquet")
    torch.manual_seed(0)
    texts = [text for row in table.itertuples() for text in (row.question, *row.options)]
    model, processor = presets.tiny(GSM(num_tokens=TOKENS, question="reader", encoders=("tracks", "pairs")), texts, 784)
    return model.eval(), processor


def root_with(project: Path, folder: Path, model: Any = None, processor: Any = None, state_loss: float = 1.0) -> Path:
    """A project folder with the same data, and this model."""
    (folder / "data").symlink_to(project / "data")
    if model is not None:
        place = folder / "models/gsm"
        model.save_pretrained(place)
        processor.save_pretrained(place)
        (place / "params.json").write_text(json.dumps({"train": {"state_loss": state_loss}}))
    return folder


def first_of(project: Path, kind: str) -> str:
    return str(pd.read_parquet(project / "data/qa/pool.parquet").query("type == @kind").qa_id.iloc[0])


@pytest.mark.parametrize("kind", ["rel_dir", "abs_dis", "rel_dir_pred"])
def test_words_and_shares_are_those_of_the_attention(
    project: Path, trained: tuple[Any, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = trained
    inputs = ClipInputs(ClipStore.of_project(project), processor)
    found, _, _ = explain(PARAMS, project, first_of(project, kind))
    derived = found.derivation.states[kind == "rel_dir_pred" :]
    sentences = spelled(TrainingCollator(inputs, model.config).state_words(), model.get_input_embeddings())
    # What an untrained model tells; then the states that it should.
    first = model_view(model, inputs, found)
    assert [glance.start for glance in first.glances] == [state.start for state in derived]
    assert sum(first.probabilities) == pytest.approx(1.0, abs=1e-5)
    assert all(glance.shares.sum() == pytest.approx(1.0, abs=1e-4) for glance in first.glances)
    told = [STATES.index(glance.told.derived) for glance in first.glances if glance.told]
    keys = len(first.tokens)
    assert keys > TOKENS
    own = model.model.gsm.forward

    def made(*args: Any) -> Any:
        if args[-1] is None:
            return own(*args)
        shares = torch.zeros(1, HEADS, TOKENS, keys)
        # A moment's token looks at the 3D token of that number, with the first head at the last of all.
        for token in range(TOKENS):
            shares[:, 1:, token, token] = 1.0
            shares[:, 0, token, -1] = 1.0
        tokens = sentences[told + [0] * (TOKENS - len(told))][None] * 9
        return tokens, shares.clamp(min=1e-30).log()

    monkeypatch.setattr(model.model.gsm, "forward", made)
    for number, (glance, state) in enumerate(zip(model_view(model, inputs, found).glances, derived, strict=True)):
        assert glance.largest() == [number, keys - 1]
        assert glance.shares[number] == pytest.approx(1 - 1 / HEADS)
        assert glance.told is not None
        assert glance.told.agrees
        assert glance.told.sentence.endswith(state.text)
        assert glance.told.probability > 0.9


def test_tokens_are_named_by_things_viewers_and_times(project: Path, trained: tuple[Any, Any]) -> None:
    inputs = ClipInputs(ClipStore.of_project(project), trained[1])
    cues = inputs.clips.cues("clip_00")
    cues.labels[1:3] = "ball"
    asked = {
        "video_grid_thw": torch.tensor([[2, 4, 2]]),
        "geometry": {
            "tracks": {
                "cells": torch.zeros(2, 3, dtype=torch.int64)[None],
                "things": torch.tensor([[[1], [cues.num_tracks]]]),
                "seconds": torch.tensor([[0.25, 1.5]]),
            },
            "pairs": {
                "cells": torch.zeros(1, 3, dtype=torch.int64)[None],
                "things": torch.tensor([[[cues.num_tracks, 2]]]),
                "seconds": torch.tensor([[0.5]]),
            },
        },
    }
    names = [str(token) for token in seen_tokens(asked, ("tracks", "pi3", "pairs"), cues)]
    assert names[:2] == ["the ball (track 1) at 0.25 s", "the camera at 1.50 s"]
    assert names[-1] == "the ball (track 2) seen by the camera at 0.50 s"
    assert [name.split(" at ")[0] for name in names[2:-1]] == [
        "pi3 in row 1, column 1",
        "pi3 in row 2, column 1",
    ] * 2
    assert names[2].endswith(f"{random_cues(0).timestamps[:2].mean():.2f} s")


def test_without_states_all_geometry_tokens_are_looked_at_together(project: Path, trained: tuple[Any, Any]) -> None:
    model, processor = trained
    found, _, _ = explain(PARAMS, project, first_of(project, "rel_dir"))
    inputs = ClipInputs(ClipStore.of_project(project), processor)
    (glance,) = model_view(model, inputs, found, tells_states=False).glances
    assert (glance.moment, glance.told) == ("all 8 geometry tokens", None)
    assert np.isclose(glance.shares.sum(), 1.0, atol=1e-4)


def test_a_projects_model_is_read_and_drawn(
    project: Path, trained: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    root = root_with(project, tmp_path, *trained)
    qa_id = first_of(project, "non_temp")
    view = command.find_view(root, explain(PARAMS, root, qa_id)[0])
    assert isinstance(view, ModelView)
    train = set(pd.read_parquet(project / "data/qa/train.parquet").qa_id)
    assert view.trained_on == (qa_id in train)
    command.run(PARAMS, root, qa_id, tmp_path / "with.png")
    text = capsys.readouterr().out
    assert f"letters: {view.letters()}" in " ".join(text.split())
    command.run(PARAMS, root, qa_id, tmp_path / "without.png", with_model=False)
    assert "The model" not in capsys.readouterr().out
    sizes = [(tmp_path / f"{name}.png").read_bytes() for name in ("with", "without")]
    assert all(content.startswith(PNG) for content in sizes)
    height = [int.from_bytes(content[20:24], "big") for content in sizes]
    assert height[0] > height[1]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "models/gsm holds no model: run `dsr train`"),
        ("{}", r"models/gsm is not whole: model.safetensors"),
        ('{"gsm": {"fusion": "add"}}', "models/gsm has fusion 'add' and no selector"),
        ('{"model_type": "qwen2_5_vl"}', "models/gsm has fusion 'none' and no selector"),
        ("[]", "models/gsm/config.json is no configuration of a model"),
    ],
)
def test_a_model_without_a_view_is_one_line(
    project: Path, tmp_path: Path, config: str | None, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = root_with(project, tmp_path)
    if config is not None:
        (root / "models/gsm").mkdir(parents=True)
        (root / "models/gsm/config.json").write_text(config)
    if config not in (None, "{}"):
        from safetensors.numpy import save_file

        save_file({"a": np.zeros(1, np.float32)}, root / "models/gsm/model.safetensors")
    command.run(PARAMS, root, first_of(project, "rel_dir"))
    assert capsys.readouterr().out.splitlines()[-1] == f"The model: not read, {reason}"


def test_without_the_model_torch_is_not_imported(project: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dsr.explain import explain; from tests.small_project import PARAMS;"
        f"explain.run(PARAMS, Path({str(project)!r}), {first_of(project, 'rel_dir')!r}, with_model=False);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
