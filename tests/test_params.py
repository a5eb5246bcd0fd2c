"""params.yaml: every key known, typed and checked, every error with the key's name."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml

from dsr.console import StageError
from dsr.params import Params, load

PROJECT = Path(__file__).parents[1]


def read(tmp_path: Path, text: str) -> Params:
    (tmp_path / "params.yaml").write_text(text)
    return load(tmp_path / "params.yaml")


def test_an_empty_file_is_all_defaults(tmp_path: Path):
    assert read(tmp_path, "") == Params()


def test_the_projects_own_file_is_read():
    assert load(PROJECT / "params.yaml").clips.source == "simulated"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gsm: {num_token: 4}", "unknown key 'gsm.num_token'; did you mean 'num_tokens'"),
        ("gsm: {num_tokens: many}", "gsm.num_tokens must be of type int, not 'many'"),
        ("gsm: {num_tokens: true}", "gsm.num_tokens must be of type int, not True"),
        ("gsm: {num_tokens: 0}", "gsm.num_tokens must be at least 1"),
        ("gsm: {fusion: both}", "gsm.fusion must be one of none, add, gsm, not 'both'"),
        ("gsm: 3", "gsm must be a mapping, not 3"),
        ("simulate: {duration: [4]}", "simulate.duration must be a list of 2 values"),
        ("simulate: {duration: [5, 4]}", "simulate.duration must be [shortest, longest]"),
        ("cues: {simulated: {noise: {missed: 1.5}}}", "cues.simulated.noise.missed must be below 1"),
        ("clips: {source: ../elsewhere}", "clips.source must be the name of a folder"),
        ("qa: {steps: {dis: []}}", "qa.steps.dis must be a list of frame counts"),
        ("{", "is not YAML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, problem: str):
    with pytest.raises(StageError) as error:
        read(tmp_path, text)
    assert problem in str(error.value)
    assert "params.yaml" in str(error.value)


def test_no_file_says_where_to_run(tmp_path: Path):
    with pytest.raises(StageError, match="--root"):
        load(tmp_path / "params.yaml")


def test_a_whole_number_may_stand_for_a_fraction_and_null_for_no_limit(tmp_path: Path):
    params = read(tmp_path, "train: {learning_rate: 1}\nqa: {max_questions: null}\n")
    assert params.train.learning_rate == 1.0
    assert params.qa.max_questions is None


def test_every_section_of_the_flow_names_only_params_that_exist():
    """dvc.yaml lists what a stage depends on; a key that is not a parameter would never change."""
    for name in ("dvc.yaml", "data/raw/dvc.yaml"):
        for stage in yaml.safe_load((PROJECT / name).read_text())["stages"].values():
            for key in stage["params"]:
                node: object = Params()
                for part in key.split("."):
                    assert is_dataclass(node)
                    assert part in {f.name for f in fields(node)}, key
                    node = getattr(node, part)


def test_a_preset_gives_what_is_left_out_and_what_is_written_wins(tmp_path: Path):
    params = read(tmp_path, "model: {preset: qwen2.5-vl-7b}\ntrain: {accumulation: 1, deepspeed: zero3}\n")
    assert params.model.backbone == "models/weights/Qwen2.5-VL-7B-Instruct"
    assert params.gsm.encoders == ("pi3",)
    assert (params.train.learning_rate, params.train.gsm_learning_rate) == (2e-7, 1e-6)
    assert (params.train.accumulation, params.train.batch_size, params.train.deepspeed) == (1, 4, "zero3")
    assert params.evaluate.shared_prefix
    assert read(tmp_path, "model: {preset: tiny}") == Params()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model: {preset: qwen}", "model.preset must be one of tiny, qwen2.5-vl-7b, not 'qwen'"),
        ("model: {preset: [1]}", "model.preset must be one of"),
        ("model: {preset: qwen2.5-vl-7b}\ntrain: 3", "train must be a mapping, not 3"),
        ("model: {preset: qwen2.5-vl-7b}\ntrain: {lr: 3}", "unknown key 'train.lr'"),
        ("train: {deepspeed: zero9}", "train.deepspeed must be one of"),
        ("train: {deepspeed: zero2, lora_rank: 4}", "train.lora_rank must be 0 with train.deepspeed"),
    ],
)
def test_a_preset_hides_no_mistake(text: str, problem: str, tmp_path: Path):
    with pytest.raises(StageError) as error:
        read(tmp_path, text)
    assert problem in str(error.value)
