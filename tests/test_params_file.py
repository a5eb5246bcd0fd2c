"""params.yaml as a file: completed, changed by a recipe, described."""

from pathlib import Path

import pytest

from dsr.console import StageError
from dsr.params import Params, load, parameters, read_tree
from dsr.params_file import apply, complete, markdown, schema, show

PROJECT = Path(__file__).parents[1]
OWN = """\
# Ours.
gsm:  # the module
  # more tokens than published
  num_tokens: 64  # of 32
  encoders: [tracks]
cues:
  simulated: {seed: 7}
"""
RECIPE = """\
gsm: {encoders: [pi3], fusion: gsm}
train: {learning_rate: 2e-7, deepspeed: zero2}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(OWN)
    return path


def recipe(tmp_path: Path, text: str = RECIPE) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_file_is_completed_with_defaults_and_keeps_its_values_and_comments(
    own: Path, capsys: pytest.CaptureFixture[str]
):
    before = load(own)
    complete(own)
    assert f"{len(parameters()) - 3} changed" in capsys.readouterr().err.replace("\n", "")
    assert load(own) == before
    assert capsys.readouterr().err == ""
    text = own.read_text()
    assert text.startswith("# Ours.\nsimulate:\n  num_clips: 414\n  seed: 1\n")
    assert (
        "gsm:  # the module\n  # more tokens than published\n  fusion: gsm\n  num_tokens: 64  # of 32\n"
        "  encoders: [tracks]\n  question: reader\ncues:\n  backend: simulated\n"
    ) in text
    assert (
        "  simulated: {seed: 7, noise: {depth: 0.02, pose: 0.002, angle: 4.0, missed: 0.02}}\n  foundation:\n" in text
    )


def test_what_is_complete_is_not_written_again(own: Path):
    complete(own)
    content, time = own.read_bytes(), own.stat().st_mtime_ns
    complete(own)
    assert (own.read_bytes(), own.stat().st_mtime_ns) == (content, time)


def test_an_empty_file_completed_has_the_order_of_the_projects(tmp_path: Path):
    path = tmp_path / "params.yaml"
    path.write_text("")
    complete(path)
    assert str(read_tree(path)) == str(read_tree(PROJECT / "params.yaml"))


def test_a_recipe_changes_its_keys_alone_and_says_so(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    complete(own)
    before = own.read_text()
    capsys.readouterr()
    apply(recipe(tmp_path), own)
    assert own.read_text() == (
        before.replace("encoders: [tracks]", "encoders: [pi3]")
        .replace("  learning_rate: 0.001", "  learning_rate: 2e-07")
        .replace("deepspeed: ''", "deepspeed: 'zero2'")
    )
    shown = capsys.readouterr().err
    assert "3 changed" in shown
    for change in ("[tracks] -> [pi3]", "0.001 -> 2e-07", "'' -> zero2"):
        assert change in shown


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gsm: {num_token: 4}", "recipe.yaml: unknown key 'gsm.num_token'; did you mean 'num_tokens'?"),
        ("gsm: {num_tokens: 0}", "recipe.yaml: gsm.num_tokens must be"),
        ("train: {lora_rank: 4}", "params.yaml: train.lora_rank must be 0 with train.deepspeed"),
    ],
)
def test_a_recipe_that_does_not_fit_changes_nothing(text: str, problem: str, tmp_path: Path):
    own = tmp_path / "params.yaml"
    own.write_text("train: {deepspeed: zero2}\n")
    with pytest.raises(StageError) as error:
        apply(recipe(tmp_path, text), own)
    assert problem in str(error.value)
    assert own.read_text() == "train: {deepspeed: zero2}\n"


def test_the_published_recipe(tmp_path: Path):
    path = tmp_path / "params.yaml"
    path.write_bytes((PROJECT / "params.yaml").read_bytes())
    apply(PROJECT / "configs/qwen2.5-vl-7b.yaml", path)
    params = load(path)
    assert params.model.backbone == "models/weights/Qwen2.5-VL-7B-Instruct"
    assert params.gsm.encoders == ("pi3",)
    assert (params.train.learning_rate, params.train.gsm_learning_rate) == (2e-7, 1e-6)
    assert params.train.batch_size * params.train.accumulation == 32
    assert (params.train.geometry_steps, params.train.steps, params.train.augment) == (0, 0, 0)
    assert (params.train.option_loss, params.train.state_loss, params.train.attention_loss) == (0, 0, 0)
    assert params.train.bf16
    assert params.evaluate.shared_prefix
    assert (params.qa, params.cues) == (Params().qa, Params().cues)


@pytest.mark.parametrize(
    ("name", "made", "layout"),
    [("docs/parameters.md", markdown, "markdown"), ("configs/params.schema.json", schema, "schema")],
)
def test_what_is_generated_is_current(name: str, made, layout: str):
    assert (PROJECT / name).read_text() == made(), f"dsr params --as {layout} > {name}"


def test_parameters_are_listed_with_type_range_default_and_meaning(capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    show("gsm.num")
    assert "gsm.num_tokens   whole number   from 1 to 65,536   8         Geometry tokens N" in capsys.readouterr().out
    show()
    listed = capsys.readouterr().out
    assert all(f" {key} " in listed for key in parameters())
    with pytest.raises(StageError, match="no parameter begins with 'gms'"):
        show("gms")
