"""The train stage: what it writes, that a killed run loses nothing, and what stops it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    get_cosine_schedule_with_warmup,
)

from dsr import project
from dsr.console import StageError
from dsr.examples.clips import ClipStore
from dsr.examples.collate import Collator
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import load_examples
from dsr.files import write_bytes, write_json, write_parquet
from dsr.model import load_model, presets
from dsr.model.chat import option_log_probs
from dsr.model.reader import QuestionReader
from dsr.params import GSM, Params, Train
from dsr.training import train
from dsr.training.guidance import guide_examples, read_guides
from dsr.training.trainer import GSMTrainer, make_trainer, mark_trained, parameter_groups
from tests.safetensors_files import POINTER, tensor_file
from tests.training.projects import SMALL, make_project

REPOSITORY = Path(__file__).parents[2]
OF_LOSSES = {"option_ends", "states", "possible_states"}
"""Parts of a batch that are no inputs of the model."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("project"))
    train.run(SMALL, root, workers=1)
    return root


def weights(root: Path) -> dict[str, torch.Tensor]:
    return load_file(root / "models/gsm/model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.slow
def test_it_writes_a_model_that_answers_and_a_loss_curve(trained: Path) -> None:
    model, processor = load_model(trained / "models/gsm", "cpu")
    inputs = ClipInputs(ClipStore.of_project(trained), processor)
    examples, _ = load_examples(pd.read_parquet(trained / "data/qa/train.parquet"), inputs)
    assert option_log_probs(model, Collator(inputs, model.config)(examples)).shape == (12, 4)
    summary = json.loads((trained / "models/gsm/training_summary.json").read_text())
    assert {name: summary[name] for name in ("questions", "used", "missing", "clips", "blank_clips", "steps")} == {
        "questions": 12,
        "used": 12,
        "missing": {},
        "clips": 4,
        "blank_clips": 2,
        "steps": 8,
    }
    made_from = json.loads((trained / "models/gsm/params.json").read_text())
    assert made_from["gsm"] == {
        "fusion": "gsm",
        "num_tokens": 4,
        "encoders": ["tracks", "pairs"],
        "question": "reader",
    }
    assert made_from["train"]["steps"] == 4
    assert made_from["model"]["max_pixels"] == 28 * 28
    curve = pd.read_csv(trained / "metrics/train/plots/metrics/loss.tsv", sep="\t")
    assert curve.columns.tolist() == ["step", "loss"]
    assert curve["step"].tolist() == [2, 4, 6, 8]
    assert json.loads((trained / "metrics/train/metrics.json").read_text()).keys() == {
        "step",
        "loss",
        "accuracy",
        "option_accuracy",
        "state_accuracy",
        "attention_accuracy",
        "learning_rate",
    }
    # Nothing is left of the run itself, and nothing was done beside it.
    assert list((trained / "models").rglob("checkpoint-*")) == []
    assert {path.name for path in trained.iterdir()} == {"data", "models", "metrics"}
    assert {path.name for path in (trained / "models").iterdir()} <= {"gsm", "checkpoints"}


def test_only_what_should_learn_has_changed(trained: Path) -> None:
    texts = [
        t
        for row in pd.read_parquet(trained / "data/qa/train.parquet").itertuples()
        for t in (row.question, *row.options)
    ]
    start = presets.make_model(SMALL.model, SMALL.gsm, trained, texts)[0].state_dict()
    now = load_model(trained / "models/gsm", "cpu")[0].state_dict()
    changed = {name for name in now if not torch.equal(now[name], start[name])}
    frozen = {name for name in now if "visual" in name and "merger" not in name}
    assert changed.isdisjoint(frozen)
    assert any("language_model" in name for name in changed)
    assert any("visual.merger" in name for name in changed)
    assert any("gsm.selector" in name for name in changed)
    assert any("geometry.tracks" in name for name in changed)
    assert any("geometry.pairs" in name for name in changed)
    assert any(name.startswith("model.address.") for name in changed)
    assert any(name.startswith("model.reader.") for name in changed)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(trained: Path, tmp_path: Path) -> None:
    train.run(SMALL, make_project(tmp_path), workers=1)
    assert_same_weights(trained, tmp_path)


KILLED = """
import sys
from pathlib import Path
from dsr.training import train
from tests.training.projects import SMALL, kill_after

kill_after(5)
train.run(SMALL, Path(sys.argv[1]), workers=1)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    make_project(tmp_path)
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'src'}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "models/gsm").exists()
    checkpoints = sorted((tmp_path / "models/checkpoints").glob("*/checkpoint-*"))
    assert [path.name for path in checkpoints] == ["checkpoint-2", "checkpoint-4"]
    # As if the kill had come while the second one was being written.
    (checkpoints[1] / train.COMPLETE).unlink()
    (checkpoints[1] / "optimizer.pt").write_bytes(b"half")
    train.run(SMALL, tmp_path, workers=1)
    assert_same_weights(trained, tmp_path)
    curve = Path("metrics/train/plots/metrics/loss.tsv")
    assert (tmp_path / curve).read_text() == (trained / curve).read_text()
    assert list((tmp_path / "models/checkpoints").iterdir()) == []


def test_the_key_holds_what_a_run_depends_on(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = train.run_key(SMALL, make_project(tmp_path))
    assert key == train.run_key(SMALL, trained)
    assert key != train.run_key(replace(SMALL, gsm=replace(SMALL.gsm, num_tokens=5)), trained)
    assert key != train.run_key(replace(SMALL, train=replace(SMALL.train, seed=2)), trained)
    assert key == train.run_key(replace(SMALL, evaluate=replace(SMALL.evaluate, seed=2)), trained)
    with monkeypatch.context() as context:
        context.setenv("WORLD_SIZE", "2")
        assert key != train.run_key(SMALL, trained)
    with monkeypatch.context() as context:
        context.setattr(train, "code_hash", lambda module: f"another {module}")
        assert key != train.run_key(SMALL, trained)
    zero = replace(SMALL, train=replace(SMALL.train, deepspeed="zero2"))
    keys = {train.run_key(zero, tmp_path)}
    for stage in (2, 3):
        write_json(tmp_path / "configs/deepspeed/zero2.json", {"zero_optimization": {"stage": stage}})
        keys.add(train.run_key(zero, tmp_path))
    assert len(keys) == 3
    folder = tmp_path / "models/weights/Qwen"
    begun = replace(SMALL, model=replace(SMALL.model, backbone="models/weights/Qwen"))
    keys = {train.run_key(begun, tmp_path)}
    for weights in (b"a", b"ab"):
        write_bytes(folder / "model.safetensors", weights)
        keys.add(train.run_key(begun, tmp_path))
    assert len(keys) == 3
    table = pd.read_parquet(tmp_path / "data/qa/train.parquet")
    write_parquet(tmp_path / "data/qa/train.parquet", table.iloc[:-1])
    assert key != train.run_key(SMALL, tmp_path)


def texts_of(root: Path) -> list[str]:
    table = pd.read_parquet(root / "data/qa/train.parquet")
    return [text for row in table.itertuples() for text in (row.question, *row.options)]


def small_trainer(root: Path, params: Params = SMALL, dtype: torch.dtype = torch.float32) -> tuple[GSMTrainer, Any]:
    table = pd.read_parquet(root / "data/qa/train.parquet")
    model, processor = presets.make_model(params.model, params.gsm, root, texts_of(root), dtype)
    inputs = ClipInputs(ClipStore.of_project(root), processor)
    examples = guide_examples(load_examples(table, inputs)[0], read_guides(table, params.qa))
    curriculum = train.make_curriculum(examples, params)
    trainer = make_trainer(model, inputs, curriculum, params.train, root / "models/checkpoints/x")
    return trainer, trainer.data_collator([curriculum[len(curriculum) - 1]])


def test_parameter_groups_hold_every_trained_parameter_once(trained: Path) -> None:
    trainer, _ = small_trainer(trained)
    groups = {group["name"]: group for group in parameter_groups(trainer.model, SMALL.train)}
    names = [name for group in groups.values() for name, _ in group["params"]]
    assert sorted(names) == sorted(name for name, p in trainer.model.named_parameters() if p.requires_grad)
    assert {group["lr"] for name, group in groups.items() if name.startswith("merger")} == {
        SMALL.train.gsm_learning_rate
    }
    assert {group["lr"] for name, group in groups.items() if name.startswith("language")} == {SMALL.train.learning_rate}
    plain = [name for group in groups.values() if group["weight_decay"] == 0 for name, _ in group["params"]]
    assert "model.gsm.queries" in plain
    assert all(
        name.endswith(("bias", "queries", "slots", "roles", "kind")) or "norm" in name or "ln_q" in name
        for name in plain
    )


def test_the_learning_rate_rises_and_falls_for_the_gsm_alone_and_for_all(trained: Path) -> None:
    def shares(params: Train, part: str = "language model") -> list[float]:
        trainer, _ = small_trainer(trained, replace(SMALL, train=params))
        trainer.create_optimizer_and_scheduler(steps := trainer.args.max_steps)
        names = [group["name"].split(",")[0] for group in trainer.optimizer.param_groups]
        share = trainer.lr_scheduler.lr_lambdas[names.index(part)]
        return [share(step) for step in range(steps + 1)]

    plain = shares(Train(steps=10, geometry_steps=0, lr_warmup=0.2))
    parameter = torch.nn.Parameter(torch.zeros(1))
    cosine = get_cosine_schedule_with_warmup(torch.optim.SGD([parameter], 1.0), 2, 10).lr_lambdas[0]
    assert plain == pytest.approx([cosine(step) for step in range(11)])
    both = Train(steps=10, geometry_steps=5, lr_warmup=0.2)
    short = [0, *(0.5 * (1 + np.cos(np.pi * np.arange(4) / 4)))]
    assert shares(both)[:15] == pytest.approx([*short, *plain[:10]])
    # What was trained alone learns little after it.
    taught = shares(both, "merger and geometry")[:15]
    assert taught == pytest.approx([*short, *(0.1 * share for share in plain[:10])])
    assert shares(replace(both, geometry_steps=0), "merger and geometry")[:10] == pytest.approx(plain[:10])


def test_words_stay_as_they_are_where_geometry_tokens_tell_states(trained: Path) -> None:
    words = "model.language_model.embed_tokens.weight"
    for weight, learns in ((1.0, False), (0.0, True)):
        trainer, _ = small_trainer(trained, replace(SMALL, train=replace(SMALL.train, state_loss=weight)))
        assert dict(trainer.model.named_parameters())[words].requires_grad == learns


def test_a_batch_without_answers_and_a_loss_that_is_no_number_stop_the_run(trained: Path) -> None:
    trainer, batch = small_trainer(trained)
    with pytest.raises(StageError, match="step 1 has a sample without an answer"):
        trainer.compute_loss(trainer.model, batch | {"labels": torch.full_like(batch["labels"], -100)})
    trainer.compute_loss(trainer.model, batch)
    with torch.no_grad():
        trainer.model.model.gsm.queries.fill_(float("nan"))
    with pytest.raises(StageError, match="the loss of step 1 is nan; lower"):
        trainer.compute_loss(trainer.model, batch)


def test_without_the_aids_the_loss_is_the_answers_alone(trained: Path) -> None:
    bare = replace(SMALL, train=replace(SMALL.train, option_loss=0.0, state_loss=0.0))
    trainer, batch = small_trainer(trained, bare)
    inputs = {name: value for name, value in batch.items() if name not in OF_LOSSES}
    expected = trainer.model(**inputs).loss
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), expected)


@pytest.mark.parametrize(
    ("fusion", "question"), [("none", "reader"), ("add", "reader"), ("gsm", "states"), ("gsm", "embeddings")]
)
def test_other_fusions_and_readings_train_too(fusion: Any, question: Any, tmp_path: Path) -> None:
    params = replace(
        SMALL,
        gsm=GSM(fusion=fusion, num_tokens=4, question=question),
        train=replace(SMALL.train, steps=2, geometry_steps=0),
    )
    train.run(params, make_project(tmp_path, rows=1, videos=0), workers=1)
    assert load_model(tmp_path / "models/gsm", "cpu")[0].config.gsm["fusion"] == fusion


def test_figures_are_means_of_what_was_logged() -> None:
    logged = [{"loss": 3.0}, *({"loss": 1.0, "accuracy": k / 10} for k in range(11)), {"train_runtime": 1.0}]
    assert train.final_metrics(logged) == {"first_loss": 3.0, "last_loss": 1.0, "last_accuracy": 0.55}
    # Few steps end before an accuracy is logged.
    assert train.final_metrics(logged[:1]) == {"first_loss": 3.0, "last_loss": 3.0}
    assert train.final_metrics([]) == {}


def test_rows_that_cannot_be_used_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_project(tmp_path, rows=1, videos=0)
    (root / "data/cues/clip_1.npz").unlink()
    train.run(replace(SMALL, train=replace(SMALL.train, steps=1, geometry_steps=0)), root, workers=1)
    summary = json.loads((root / "models/gsm/training_summary.json").read_text())
    assert (summary["questions"], summary["used"]) == (4, 3)
    assert list(summary["missing"].values()) == [1]
    error = capsys.readouterr().err
    assert "1 questions left out: no cues" in error
    assert "(q1_0)" in error


def test_no_usable_question_stops_the_stage_with_the_reason(tmp_path: Path) -> None:
    root = make_project(tmp_path, clips=2, rows=1, videos=0)
    for path in (root / "data/cues").glob("*.npz"):
        path.unlink()
    with pytest.raises(StageError, match=r"none of its 2 questions can be used: no cues.*\(1\)"):
        train.run(SMALL, root, workers=1)


def test_a_missing_backbone_says_where_it_is_published(tmp_path: Path) -> None:
    root = make_project(tmp_path, clips=2, rows=1, videos=0)
    name = "models/weights/Qwen2.5-VL-7B-Instruct"
    params = replace(SMALL, model=replace(SMALL.model, backbone=name))
    started = time.monotonic()
    with pytest.raises(
        StageError, match=r"no config.json in .*huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct.*hf download"
    ):
        train.run(params, root, workers=1)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_vl"])
def test_another_family_of_backbones_is_named_before_its_weights_are_read(family: str, tmp_path: Path) -> None:
    root = make_project(tmp_path, clips=2, rows=1, videos=0)
    folder = root / "models/weights/Other-VL-8B-Instruct"
    write_json(folder / "config.json", AutoConfig.for_model(family).to_dict())
    (folder / "model.safetensors").write_bytes(b"not read")
    params = replace(SMALL, model=replace(SMALL.model, backbone=str(folder.relative_to(root))))
    with pytest.raises(StageError, match=rf"{folder} holds a '{family}' model: model.backbone must be a Qwen2.5-VL$"):
        train.run(params, root, workers=1)


def write_published(folder: Path, source: Any, processor: Any) -> Path:
    """Write a plain Qwen2.5-VL in the published layout of files and names."""
    plain = Qwen2_5_VLConfig(**{k: v for k, v in source.config.to_dict().items() if k not in ("gsm", "model_type")})
    published = Qwen2_5_VLForConditionalGeneration(plain)
    published.load_state_dict(source.state_dict())
    published.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_published_folder_is_a_backbone(trained: Path, tmp_path: Path) -> None:
    """A plain Qwen2.5-VL in the published layout of files and names; only what geometry needs is new."""
    source, processor = presets.tiny(GSM(fusion="none"), ["Which way?"], 28 * 28)
    folder = write_published(tmp_path / "Qwen2.5-VL-7B-Instruct", source, processor)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen2_5_vl"
    torch.manual_seed(5)
    gsm = GSM(num_tokens=4, encoders=("point_map", "tracks"), question="embeddings")
    model, _ = presets.backbone(folder, gsm, 28 * 56, torch.float32)
    state, known = model.state_dict(), source.state_dict()
    assert all(torch.equal(state[name], known[name]) for name in known)
    new = {name for name in state if name not in known}
    assert {name.split(".")[1] for name in new} == {"gsm", "geometry", "address"}
    assert state["model.gsm.queries"].std().item() == pytest.approx(1, abs=0.15)
    assert all(torch.isfinite(state[name]).all() for name in new)
    torch.manual_seed(5)
    again = presets.backbone(folder, gsm, 28 * 56, torch.float32)[0].state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_a_backbone_brings_its_reader_which_stays_as_it_is(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, gsm = tmp_path / "tiny", GSM(num_tokens=4)
    shutil.copytree(published, folder)
    load = partial(presets.backbone, gsm=gsm, max_pixels=28 * 28, dtype=torch.float32)
    drawn = load(folder)[0]
    assert f"{folder} has no reader.safetensors" in capsys.readouterr().err
    mark_trained(drawn, SMALL.train)
    assert all(parameter.requires_grad for parameter in drawn.model.reader.parameters())
    torch.manual_seed(9)
    reader = QuestionReader(drawn.config.text_config).half()
    save_file(reader.state_dict(), folder / presets.READER_FILE)
    model, processor = load(folder)
    mark_trained(model, SMALL.train)
    assert not any(parameter.requires_grad for parameter in model.model.reader.parameters())
    assert all(torch.equal(t, reader.float().state_dict()[name]) for name, t in model.model.reader.state_dict().items())
    # What a run saves is a backbone whose reader stays as it is too.
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved")[0].config.gsm["pretrained_reader"]
    assert load_model(tmp_path / "saved", "cpu")[0].config.gsm["pretrained_reader"]
    without = presets.backbone(tmp_path / "saved", replace(gsm, question="states"), 28 * 28, torch.float32)[0]
    assert not [name for name in without.state_dict() if name.startswith(("model.reader.", "model.slots."))]
    save_file({"slots": torch.ones(2)}, folder / presets.READER_FILE)
    with pytest.raises(StageError, match=r"reader\.safetensors is not a reader for this model: Missing"):
        load(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, processor = presets.tiny(GSM(fusion="none"), ["Which way?"], 28 * 28)
    return write_published(tmp_path_factory.mktemp("published") / "Qwen2.5-VL-7B-Instruct", model, processor)


State = dict[str, torch.Tensor]


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    path = folder / "model.safetensors"
    changed = {name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(changed, path, metadata={"format": "pt"})


def of_layers(name: str, part: str) -> bool:
    """True for a tensor of the language model's layers; the question reader has layers too."""
    return part in name and ".reader." not in name


BROKEN: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (
        lambda state: {name: t for name, t in state.items() if not of_layers(name, ".layers.1.mlp.")},
        r"3 missing \(model\.language_model\.layers\.1\.mlp\.down_proj\.weight, ",
    ),
    "prefixed": (lambda state: {f"module.{name}": t for name, t in state.items()}, r"missing \(.*unknown \(module\."),
    "foreign": (lambda state: state | {"adapter.weight": torch.ones(2)}, r"1 unknown \(adapter\.weight\)"),
    "of another shape": (
        lambda state: {n: t[:-1] if of_layers(n, "layers.0.mlp.up_proj.weight") else t for n, t in state.items()},
        r"1 of another shape \(model\.language_model\.layers\.0\.mlp\.up_proj\.weight\)",
    ),
    "of size 0": (
        lambda state: {n: t[:0] if of_layers(n, "layers.0.mlp.up_proj.weight") else t for n, t in state.items()},
        r"has 1 of size 0 \(.*layers\.0\.mlp\.up_proj\.weight\)",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_no_model_trains_or_scores_on_tensors_that_were_not_loaded(
    kind: str, stage: str, published: Path, trained: Path, tmp_path: Path
) -> None:
    change, message = BROKEN[kind]
    folder = tmp_path / "model"
    shutil.copytree(published if stage == "train" else trained / "models/gsm", folder)
    rewrite(folder, change)
    train_on = partial(presets.backbone, gsm=GSM(num_tokens=4), max_pixels=28 * 28, dtype=torch.float32)
    with pytest.raises(StageError, match=message) as error:
        (train_on if stage == "train" else load_model)(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["model.gsm.", "model.geometry.tracks."])
def test_a_model_of_this_project_must_have_its_own_geometry(part: str, trained: Path, tmp_path: Path) -> None:
    """New weights are drawn for a part that the backbone's model is without, never for one that its folder lost."""
    folder = tmp_path / "model"
    shutil.copytree(trained / "models/gsm", folder)
    assert presets.backbone(folder, SMALL.gsm, 28 * 28, torch.float32)
    assert presets.backbone(folder, GSM(num_tokens=4, encoders=("point_map",)), 28 * 28, torch.float32)
    rewrite(folder, lambda state: {name: t for name, t in state.items() if not name.startswith(part)})
    for load in (load_model, lambda path: presets.backbone(path, SMALL.gsm, 28 * 28, torch.float32)):
        with pytest.raises(StageError, match=rf"missing \({part}"):
            load(folder)


def test_a_plain_backbone_is_scored_without_a_gsm(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, processor = load_model(published, "cpu", max_pixels=28 * 56)
    assert model.config.gsm["fusion"] == "none"
    assert not {name for name, _ in model.named_parameters() if ".gsm." in name or ".geometry." in name}
    assert processor.video_processor.size["longest_edge"] == 28 * 56
    assert processor.tokenizer.padding_side == "left"
    assert "scored without a GSM" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", POINTER, r"model\.safetensors \(is a git-lfs pointer"),
        ("model.safetensors", tensor_file()[:-1], r"model\.safetensors \(has \d+ bytes, its header says \d+\)"),
        ("config.json", POINTER, r"config\.json.*(git-lfs pointer|cannot be read)"),
        ("config.json", b"{}", r"config\.json names no model_type"),
        ("tokenizer.json", b"{", "tokenizer or processor cannot be loaded"),
    ],
)
def test_a_damaged_file_is_named_wherever_the_model_is_loaded(
    name: str, content: bytes, message: str, published: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(published, folder)
    (folder / name).write_bytes(content)
    for load in (load_model, lambda path: presets.backbone(path, GSM(num_tokens=4), 28 * 28, torch.float32)):
        with pytest.raises(StageError, match=message) as error:
            load(folder)
        assert "\n" not in str(error.value)


def run_small(root: Path, gsm: GSM = SMALL.gsm, **settings: Any) -> dict[str, Any]:
    """Train in a new project folder; returns the summary."""
    params = replace(SMALL, gsm=gsm, train=replace(SMALL.train, **settings))
    train.run(params, make_project(root, rows=3, videos=1), workers=1)
    return json.loads((root / "models/gsm/training_summary.json").read_text())


def test_pi3_trains_with_its_encoder_as_it_was(tmp_path: Path) -> None:
    gsm = GSM(num_tokens=4, encoders=("pi3",))
    run_small(tmp_path, gsm, geometry_steps=0, shared_prefix=True, steps=2)
    start = train.make_model(SMALL.model, gsm, tmp_path, texts_of(tmp_path))[0].model.geometry["pi3"].state_dict()
    saved = {name: weights(tmp_path)[f"model.geometry.pi3.{name}"] for name in start}
    changed = {name for name, tensor in saved.items() if not torch.equal(tensor, start[name])}
    assert changed == {name for name in start if name.startswith("merger.")}
    model, processor = load_model(tmp_path / "models/gsm", "cpu")
    inputs = ClipInputs(ClipStore.of_project(tmp_path), processor)
    examples, _ = load_examples(pd.read_parquet(tmp_path / "data/qa/train.parquet"), inputs)
    own = option_log_probs(model, Collator(inputs, model.config)(examples[:3]))
    donors = {f"clip_{i}": f"clip_{(i + 1) % 4}" for i in range(4)}
    lent = Collator(inputs, model.config, "shuffled_geometry", donors)
    assert not torch.equal(option_log_probs(model, lent(examples[:3])), own)


def test_a_shared_prefix_trains_on_every_question_once_an_epoch(tmp_path: Path) -> None:
    summary = run_small(tmp_path, shared_prefix=True, questions_per_clip=2, geometry_steps=1, steps=3)
    assert (summary["used"], summary["steps"]) == (12, 4)


@pytest.mark.slow
def test_bfloat16_keeps_what_learns_in_float32(tmp_path: Path) -> None:
    params = replace(SMALL, train=replace(SMALL.train, bf16=True, shared_prefix=True))
    trainer, _ = small_trainer(make_project(tmp_path), params, torch.bfloat16)
    types = {(p.requires_grad, p.dtype) for p in trainer.model.parameters()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}
    train.run(params, tmp_path, workers=1)
    assert {tensor.dtype for tensor in weights(tmp_path).values()} == {torch.bfloat16}
    assert load_model(tmp_path / "models/gsm", "cpu")[0].dtype == torch.bfloat16


@pytest.mark.slow
def test_adapters_alone_learn_and_are_merged(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    before = train.make_model(SMALL.model, SMALL.gsm, tmp_path, texts_of(make_project(tmp_path, rows=3, videos=1)))[0]
    run_small(tmp_path, lora_rank=2)
    saved = weights(tmp_path)
    assert not any("lora" in name or "base_layer" in name for name in saved)
    start = {f"model.{name}": tensor for name, tensor in before.model.language_model.state_dict().items()}
    changed = {name for name, tensor in start.items() if not torch.equal(saved[name], tensor)}
    projections = {name for name in start if "_proj.weight" in name}
    assert changed == projections


@pytest.mark.slow
def test_a_killed_run_with_adapters_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    params = replace(SMALL, train=replace(SMALL.train, lora_rank=2, save_steps=2))
    whole, root = make_project(tmp_path / "whole"), make_project(tmp_path / "killed")
    train.run(params, whole, workers=1)
    folder = root / project.CHECKPOINTS / train.run_key(params, root)

    class Stop(Exception):
        pass

    def stop(*args: Any) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "write_model", stop)
        with pytest.raises(Stop):
            train.run(params, root, workers=1)
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-4":
            shutil.rmtree(checkpoint)
    train.run(params, root, workers=1)
    assert_same_weights(whole, root)


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_project(tmp_path)
    monkeypatch.setattr("dsr.training.lora.find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"train.lora_rank is 2.*dsr\[lora\]"):
        train.run(replace(SMALL, train=replace(SMALL.train, lora_rank=2)), root, workers=1)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("dsr.training.launch.find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"train.deepspeed is 'zero2'.*dsr\[deepspeed\]"):
        train.run(replace(SMALL, train=replace(SMALL.train, deepspeed="zero2")), root, workers=1)


@pytest.mark.slow
def test_tensorboard_files_are_written_beside_the_checkpoints(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run_small(tmp_path, tensorboard=True)
    assert list((tmp_path / project.TENSORBOARD).rglob("events.out.tfevents.*"))


def test_fewer_questions_are_part_of_more(tmp_path: Path) -> None:
    table = pd.DataFrame({"qa_id": [f"q{i}" for i in range(20)]})
    few, more = (train.sample_questions(table, count, 1)["qa_id"].tolist() for count in (5, 12))
    assert (len(few), len(more)) == (5, 12)
    assert set(few) < set(more)
    assert sorted(more, key=lambda name: int(name[1:])) == more
    assert train.sample_questions(table, 50, 1)["qa_id"].tolist() == table["qa_id"].tolist()
    assert run_small(tmp_path, max_questions=7)["questions"] == 7
