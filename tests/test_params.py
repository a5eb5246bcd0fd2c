"""params.yaml: every key known, typed and in range, every error with the key's name, every number as DVC wrote it."""

import re
import shlex
import subprocess
from dataclasses import asdict, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from hypothesis import given, settings
from hypothesis import strategies as st

from dsr.console import StageError
from dsr.params import Params, keys, load, parameters, read_tree
from dsr.params_file import apply

PROJECT = Path(__file__).parents[1]
RECIPES = sorted((PROJECT / "configs").glob("*.yaml"))


def read(tmp_path: Path, text: str) -> Params:
    (tmp_path / "params.yaml").write_text(text)
    return load(tmp_path / "params.yaml")


def as_yaml(value: Any) -> Any:
    """A value of a dataclass as YAML has it."""
    if isinstance(value, dict):
        return {key: as_yaml(item) for key, item in value.items()}
    return [as_yaml(item) for item in value] if isinstance(value, tuple) else value


def test_an_empty_file_is_all_defaults_and_the_remedy_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert read(tmp_path, "") == Params()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"lacks {len(parameters())} of {len(parameters())} parameters (simulate.num_clips, " in line
    assert "`dsr params --complete`" in line


def test_the_projects_own_file_holds_every_parameter_with_its_default(capsys: pytest.CaptureFixture[str]):
    """A default that is changed in the code alone would change the default run unseen by dvc.lock."""
    in_file, in_code = read_tree(PROJECT / "params.yaml"), as_yaml(asdict(Params()))
    assert in_file == in_code
    assert str(in_file) == str(in_code)  # in the same order, 1.0 not 1
    assert load(PROJECT / "params.yaml") == Params()
    assert capsys.readouterr().err == ""


def test_every_section_and_parameter_is_described():
    assert all(schema.get("description") for schema in keys().values())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gsm: {num_token: 4}", "unknown key 'gsm.num_token'; did you mean 'num_tokens'?"),
        ("gmn: {}", "unknown key 'gmn'; did you mean 'gsm'?"),
        ("model: {preset: tiny}", "unknown key 'model.preset'; known: backbone, pi3, max_pixels, prompt, seed"),
        ("1: 2", "unknown key '1'"),
        ("gsm: {num_tokens: many}", "gsm.num_tokens must be a whole number, from 1 to 65,536, not 'many'"),
        ("gsm: {num_tokens: true}", "gsm.num_tokens must be a whole number, from 1 to 65,536, not True"),
        ("gsm: {num_tokens: 16.0}", "gsm.num_tokens must be a whole number, from 1 to 65,536, not 16.0"),
        ("gsm: {num_tokens: 0}", "gsm.num_tokens must be a whole number, from 1 to 65,536, not 0"),
        ("gsm: {fusion: both}", "gsm.fusion must be one of none, add, gsm, not 'both'"),
        (
            "gsm: {encoders: tracks}",
            "gsm.encoders must be a non-empty list of names, each one of point_map, tracks, pairs, pi3",
        ),
        ("gsm: {encoders: [tracks, tracks]}", "gsm.encoders must be a list without repeats"),
        ("gsm: 3", "gsm must be a mapping, not 3"),
        ("[gsm]", "the top level must be a mapping, not ['gsm']"),
        (
            "simulate: {duration: [4]}",
            "simulate.duration must be a list of 2 numbers, each above 0, at most 600, not [4]",
        ),
        ("simulate: {duration: [5, 4]}", "simulate.duration must be [shortest, longest]"),
        ("simulate: {size: [321, 240]}", "each from 64 to 8,192, even, not [321, 240]"),
        ("train: {bf16: yes}", "train.bf16 must be true or false, not 'yes'"),
        ("cues: {simulated: {noise: {missed: 1.5}}}", "missed must be a number, at least 0, below 1, not 1.5"),
        ("cues: {simulated: {noise: {depth: .inf}}}", "depth must be a number, at least 0, not inf"),
        ("cues: {simulated: {noise: {depth: .nan}}}", "depth must be a number, at least 0, not nan"),
        ("clips: {source: ../elsewhere}", "clips.source must be the name of a folder"),
        ("clips: {source: 2024}", "clips.source must be text in quotes, not 2024"),
        ("clips: {source_video_pattern: '('}", "clips.source_video_pattern is no regular expression"),
        (
            "qa: {steps: {dis: []}}",
            "qa.steps.dis must be a non-empty list of whole numbers, each from 1 to 1,024, not []",
        ),
        ("qa: {max_questions: 0}", "qa.max_questions must be a whole number, from 1 to 1,000,000, or null, not 0"),
        ("train: {deepspeed: zero9}", "train.deepspeed must be one of '', zero2, zero3, zero3_offload, not 'zero9'"),
        ("train: {deepspeed: zero2, lora_rank: 4}", "train.lora_rank must be 0 with train.deepspeed"),
        ("evaluate: {mode: endpoint}", "evaluate.endpoint.model must be a name for mode endpoint"),
        ("gsm: {num_tokens: 0}\ntrain: {lr: 1}", "not 0; unknown key 'train.lr'"),
        ("gsm: {}\ngsm: {}", 'line 2: found duplicate key "gsm"'),
        ("{", "is not YAML, line 1"),
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


BOMB = "".join(f"{a}: &{a} [{', '.join([f'*{b}'] * 10)}]\n" for a, b in zip("bcdefghij", "abcdefghi", strict=True))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"clips: {source: stra\xdfe}", "is not UTF-8 (byte 20)"),
        (b"gsm: \x00", "is not YAML"),
        (b"a: &a [x]\n" + BOMB.encode(), "line 2: an alias"),
        (b"gsm: " + b"[" * 100_000, "more than 16 levels"),
        (b"gsm: " + b"{a: " * 100_000, "more than 16 levels"),
        (b"gsm: {num_tokens: " + b"9" * 10_000 + b"}", "is not YAML"),
        (b"gsm: {num_tokens: " + b"x" * 10_000 + b"}", "must be a whole number"),
        (b"gsm: {" + b"x" * 1000 + b": 1}", "unknown key"),
        (b"gsm: !!python/object/apply:os.system [ls]", "is not YAML"),
        (b"? [1, 2]\n: 3", "is not a word"),
        (
            b"simulate: {num_clips: 1000000000000}",
            "num_clips must be a whole number, from 1 to 1,000,000, not 1000000000000",
        ),
        (b"cues: {num_frames: 1000000000}", "cues.num_frames must be"),
        (b"train: {seed: 99999999999}", "train.seed must be a whole number, from 0 to 4,294,967,295"),
    ],
)
def test_a_file_that_no_one_would_write_is_refused_in_a_short_line(tmp_path: Path, content: bytes, problem: str):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(StageError) as error:
        load(tmp_path / "params.yaml")
    message = str(error.value).removeprefix(str(tmp_path))
    assert problem in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_folder_in_the_files_place_is_told(tmp_path: Path):
    with pytest.raises(StageError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_whole_number_may_stand_for_a_fraction_and_null_for_no_limit(tmp_path: Path):
    params = read(tmp_path, "train: {learning_rate: 1}\nqa: {max_questions: null}\n")
    assert params.train.learning_rate == 1.0
    assert params.qa.max_questions is None


def overridden(folder: Path, *overrides: str) -> Params:
    """The project's parameters after `dvc exp run -S`, by DVC's own function."""
    path = folder / "params.yaml"
    path.write_bytes((PROJECT / "params.yaml").read_bytes())
    apply_overrides(path, list(overrides))
    return load(path)


@st.composite
def positive_numbers(draw: st.DrawFn) -> str:
    """A float's text as a person or a program writes it: 2e-7, 0.0003, 1E+05, 1.5e-10, 17.0."""
    if draw(st.booleans()):
        sign = draw(st.sampled_from(["", "+", "-"]))
        digits = draw(st.sampled_from(["{}", "{}.0", "{}.5"])).format(draw(st.integers(1, 9999)))
        exponent = draw(st.sampled_from(["{}", "{:02}"])).format(draw(st.integers(0, 250)))
        return f"{digits}{draw(st.sampled_from('eE'))}{sign}{exponent}"
    value = draw(st.floats(min_value=1e-300, max_value=1e300))
    return draw(st.sampled_from([repr(value), f"{value:e}", f"{value:.3e}"]))


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(positive_numbers(), min_size=4, max_size=4),
    step=st.integers(1, 1024),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_number_that_dvc_writes_is_read_as_that_number(
    texts: list[str], step: int, seed: int, tmp_path_factory: pytest.TempPathFactory
):
    rate, gsm_rate, low, high = texts
    noise = f"{{depth: {low}, pose: {high}}}"
    params = overridden(
        tmp_path_factory.mktemp("override"),
        *(f"train.learning_rate={rate}", f"train.gsm_learning_rate={gsm_rate}", f"cues.simulated.noise={noise}"),
        *(f"train.seed={seed}", f"qa.steps.dis=[{step}, 1]"),
    )
    assert (params.train.learning_rate, params.train.gsm_learning_rate) == (float(rate), float(gsm_rate))
    assert (params.cues.simulated.noise.depth, params.cues.simulated.noise.pose) == (float(low), float(high))
    assert (params.train.seed, params.qa.steps.dis) == (seed, (step, 1))


@settings(max_examples=25, deadline=None)
@given(
    text=st.text("0123456789eE+-._:xnulltrue~ ", max_size=8)
    | st.sampled_from(
        ["2e-7", "007", "null", "true", "no", "1_000", "2026-01-01", "0x1F", ".inf", "1:30", "<<", "=", "# a"]
    )
)
def test_a_text_that_looks_like_a_number_stays_a_text(text: str, tmp_path_factory: pytest.TempPathFactory):
    params = overridden(tmp_path_factory.mktemp("override"), f"evaluate.endpoint.model='{text}'")
    assert params.evaluate.endpoint.model == text


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.learning_rate=2e-7", "train.learning_rate", 2e-7),
        ("train.bf16=false", "train.bf16", False),
        ("train.bf16=True", "train.bf16", True),
        ("qa.num_blocks=null", "qa.num_blocks", None),
        ("gsm.encoders=[tracks]", "gsm.encoders", ["tracks"]),
        ("evaluate.controls=[]", "evaluate.controls", []),
        ("simulate.duration=[4,1e1]", "simulate.duration", [4.0, 10.0]),
        ("model.backbone=models/earlier", "model.backbone", "models/earlier"),
        ("model.backbone=", "model.backbone", ""),
    ],
)
def test_an_override_changes_its_key_and_no_other(override: str, key: str, value: Any, tmp_path: Path):
    path = tmp_path / "params.yaml"
    before, after = as_yaml(asdict(Params())), as_yaml(asdict(overridden(tmp_path, override)))
    *sections, name = key.split(".")
    node = before
    for section in sections:
        node = node[section]
    node[name] = value
    assert after == before
    assert path.read_text().startswith("# yaml-language-server")


def documented_overrides(tmp_path: Path) -> list[list[str]]:
    """Overrides of each `dvc exp run` in experiments/, run with a `dvc` that records them, and in the documents."""
    record, stub = tmp_path / "calls", tmp_path / "bin/dvc"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" end >> {shlex.quote(str(record))}\n")
    stub.chmod(0o755)
    for script in sorted((PROJECT / "experiments").glob("*.sh")):
        subprocess.run(["bash", script], check=True, env={"PATH": f"{stub.parent}:/usr/bin:/bin"})
    calls = [call.strip().split("\n") for call in record.read_text().split("\nend\n")]
    for document in (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))):
        lines = document.read_text().replace("\\\n", " ").splitlines()
        calls += [shlex.split(line, comments=True) for line in lines if line.strip().startswith("dvc exp run")]
    machines = re.findall(r"\| `\{(.+)\}` \|", (PROJECT / "docs/training.md").read_text())
    assert len(machines) == 3
    calls += [
        [part for setting in line.split(", ") for part in ("-S", "train." + setting.replace(": ", "="))]
        for line in machines
    ]
    return [[value for flag, value in pairwise(call) if flag == "-S"] for call in calls]


@pytest.mark.parametrize("recipe", [None, *RECIPES], ids=lambda recipe: recipe.stem if recipe else "default")
def test_every_documented_override_works_with_every_documented_file(recipe: Path | None, tmp_path: Path):
    overrides = list(filter(None, documented_overrides(tmp_path)))
    assert len(overrides) > 12
    assert ["gsm.fusion=none"] in overrides
    assert ["train.deepspeed=zero3", "train.accumulation=1"] in overrides
    path = tmp_path / "params.yaml"
    path.write_bytes((PROJECT / "params.yaml").read_bytes())
    if recipe:
        apply(recipe, path)
    content = path.read_bytes()
    for values in overrides:
        path.write_bytes(content)
        apply_overrides(path, values)
        load(path)


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
