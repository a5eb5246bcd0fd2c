"""Files are written whole or not at all, and equal content is equal bytes."""

from pathlib import Path

import numpy as np
import pytest

from dsr.files import sha256_json, whole_file, whole_folder, write_json, write_npz


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "table.json"
    write_json(path, {"a": 1})

    def half_a_write() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        half_a_write()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path):
    folder = tmp_path / "model"
    for name in ("first", "second"):
        with whole_folder(folder) as partial:
            (partial / name).touch()

    def half_a_folder() -> None:
        with whole_folder(folder) as partial:
            (partial / "third").touch()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        half_a_folder()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/second"]


def test_nan_is_no_json(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_equal_arrays_are_equal_bytes_stored_or_not(tmp_path: Path):
    arrays = {"a": np.arange(12.0).reshape(3, 4), "b": np.array(["x", "yz"]), "c": np.array(3)}
    write_npz(tmp_path / "1.npz", arrays, stored={"a"})
    write_npz(tmp_path / "2.npz", arrays, stored={"a"})
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz", allow_pickle=False) as archive:
        for name, array in arrays.items():
            np.testing.assert_array_equal(archive[name], array)
            assert archive[name].shape == array.shape


def test_objects_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="Object arrays"):
        write_npz(tmp_path / "x.npz", {"a": np.array([{}], dtype=object)})
    assert not list(tmp_path.iterdir())


def test_the_order_of_keys_does_not_change_a_hash():
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
