"""What `dsr doctor` finds on a machine."""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from dsr import weights
from dsr.console import StageError
from dsr.doctor import doctor
from dsr.doctor import weights as doctor_weights
from dsr.doctor.weights import needed_weights
from dsr.params import Clips, Cues, Model, Params
from tests.safetensors_files import POINTER, tensor_file

PROJECT = Path(__file__).parents[2]
OWN_CLIPS = Params(clips=Clips(source="own"), cues=Cues(backend="annotated"), model=Model(backbone=""))


@pytest.fixture
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0")


def write_weights(folder: Path, shards: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    index = {"weight_map": {f"layer{i}": name for i, name in enumerate(shards)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, content in shards.items():
        (folder / name).write_bytes(content)


def test_versions_are_compared_with_the_constraints() -> None:
    numpy, rich = metadata.version("numpy"), metadata.version("rich")
    lines = [
        "# seen",
        f"numpy=={numpy}",
        f"rich=={rich}+cpu  # build",
        "pandas==0.1 ; python_version > '3'",
        "",
        "none==1.0",
    ]
    different, same = doctor.version_differences("\n".join(lines))
    assert different == [("pandas", "0.1", metadata.version("pandas")), ("none", "1.0", "")]
    assert same == 2


def test_a_weight_file_must_be_there_and_not_empty(tmp_path: Path) -> None:
    file = tmp_path / "sam2.1_hiera_large.pt"
    assert weights.missing_files(file) == [file.name]
    file.touch()
    assert weights.missing_files(file) == [file.name]
    file.write_bytes(b"x")
    assert weights.missing_files(file) == []
    file.write_bytes(POINTER)
    assert weights.missing_files(file) == [f"{file.name} (is a git-lfs pointer: `git lfs pull` brings the file)"]


def test_a_folder_of_weights_must_hold_every_shard_of_its_index(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen2.5-VL-7B-Instruct"
    assert weights.missing_files(folder) == ["config.json", "model.safetensors"]
    write_weights(folder, {"1.safetensors": tensor_file(), "2.safetensors": b""})
    assert weights.missing_files(folder) == ["2.safetensors"]
    whole = tensor_file("a longer text")
    for content, problem in (
        (POINTER, "is a git-lfs pointer: `git lfs pull` brings the file"),
        (whole[:-3], f"has {len(whole) - 3} bytes, its header says {len(whole)}"),
        (b"<html>not found</html>", "is not a safetensors file: "),
        (save({"a.weight": np.zeros((0, 4), np.float32), "b": np.zeros(1)}), "has 1 of size 0 (a.weight)"),
    ):
        (folder / "2.safetensors").write_bytes(content)
        (named,) = weights.missing_files(folder)
        assert named.startswith(f"2.safetensors ({problem}")
    (folder / "2.safetensors").write_bytes(whole)
    assert weights.missing_files(folder) == []
    (folder / "config.json").write_bytes(POINTER)
    assert weights.missing_files(folder)[0].startswith("config.json (is a git-lfs pointer")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text("<html>")
    assert weights.missing_files(folder) == ["model.safetensors.index.json (damaged)"]


@pytest.mark.slow
def test_the_default_run_needs_the_weights_that_the_project_brings(tmp_path: Path, all_installed: None) -> None:
    assert [weight.path for weight in needed_weights(Params())] == ["models/tiny"]
    with pytest.raises(StageError, match=r"models/tiny \(from this project's repository"):
        doctor.run(Params(), tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny").symlink_to(PROJECT / "models/tiny")
    doctor.run(Params(), tmp_path)
    assert needed_weights(Params(model=Model(backbone=""))) == []


def test_a_backbone_that_is_not_there_is_an_error_that_says_where_it_is_published(
    tmp_path: Path, all_installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Params(model=Model(backbone="models/weights/Qwen2.5-VL-7B-Instruct"))
    with pytest.raises(StageError, match=r"Qwen2\.5-VL-7B-Instruct \(from huggingface\.co/Qwen/"):
        doctor.run(params, tmp_path)
    assert "machine" in capsys.readouterr().err
    write_weights(tmp_path / params.model.backbone, {"1.safetensors": tensor_file()})
    doctor.run(params, tmp_path)


def test_a_backbone_of_ones_own_is_looked_for_where_it_is_said_to_be(tmp_path: Path, all_installed: None) -> None:
    params = Params(model=Model(backbone="models/earlier"))
    with pytest.raises(StageError, match="models/earlier"):
        doctor.run(params, tmp_path)
    write_weights(tmp_path / "models/earlier", {"1.safetensors": tensor_file()})
    doctor.run(params, tmp_path)


def test_a_pointer_is_not_found(tmp_path: Path, all_installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    params = Params(model=Model(backbone="models/weights/Qwen2.5-VL-7B-Instruct"))
    write_weights(tmp_path / params.model.backbone, {"1.safetensors": tensor_file(), "2.safetensors": POINTER})
    (tmp_path / "models/weights/sam2.1_hiera_large.pt").write_bytes(POINTER)
    doctor_weights.run(params, tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert "Qwen2.5-VL-7B-Instruct: incomplete, without 2.safetensors (is a git-lfs pointer" in said
    assert "sam2.1_hiera_large.pt: damaged, sam2.1_hiera_large.pt (is a git-lfs pointer" in said
    assert "1 of the 1 checkpoints that the parameters need are missing" in said
    with pytest.raises(StageError, match=r"Qwen2\.5-VL-7B-Instruct: 2\.safetensors \(is a git-lfs pointer.*from hugg"):
        doctor.run(params, tmp_path)


def test_clips_that_no_stage_makes_must_be_there(tmp_path: Path, all_installed: None) -> None:
    with pytest.raises(StageError, match="data/raw/own/"):
        doctor.run(OWN_CLIPS, tmp_path)
    (tmp_path / "data/raw/own").mkdir(parents=True)
    doctor.run(OWN_CLIPS, tmp_path)


def test_a_package_that_the_parameters_need_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: "" if package == "pybullet" else "1.0")
    with pytest.raises(StageError, match="package pybullet"):
        doctor.run(Params(), tmp_path)
    (tmp_path / "data/raw/own").mkdir(parents=True)
    doctor.run(OWN_CLIPS, tmp_path)
