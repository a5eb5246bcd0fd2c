"""The curation stage: a row for every usable clip, the same bytes every time."""

from pathlib import Path

import pandas as pd
import pytest

from dsr import project
from dsr.clips import catalog
from dsr.console import StageError
from dsr.curation import curate
from dsr.files import write_parquet
from dsr.params import Params


def write_catalogue(root: Path, captions: dict[str, str], failed: tuple[str, ...] = ()) -> None:
    rows = [
        {name: kind() for name, kind in catalog.COLUMNS.items()}
        | {"clip_id": clip_id, "caption": caption, "status": "failed" if clip_id in failed else "ok", "weather": "rain"}
        for clip_id, caption in captions.items()
    ]
    write_parquet(root / project.CATALOG, pd.DataFrame(rows))


def test_every_usable_clip_is_a_row(tmp_path: Path) -> None:
    captions = {"b": "A dog chases a ball", "a": "", "c": "A dog", "d": "A vase on a table"}
    write_catalogue(tmp_path, captions, failed=("c",))
    curate.run(Params(), tmp_path)
    table = pd.read_parquet(tmp_path / project.CURATED)
    assert list(table.columns) == [*catalog.COLUMNS, "weather", "agents", "objects", "dynamic", "category"]
    assert table["clip_id"].tolist() == ["a", "b", "d"]
    assert table["status"].tolist() == ["dropped", "kept", "dropped"]
    assert table["reason"].str.split(":").str[0].tolist() == ["empty caption", "", "static"]
    assert [list(agents) for agents in table["agents"]] == [[], ["dog"], []]
    assert [list(objects) for objects in table["objects"]] == [[], ["ball"], ["vase", "table"]]
    assert table["dynamic"].tolist() == [False, True, False]
    before = (tmp_path / project.CURATED).read_bytes()
    curate.run(Params(), tmp_path, workers=2)
    assert (tmp_path / project.CURATED).read_bytes() == before


def test_a_column_of_empty_lists_is_a_column_of_lists(tmp_path: Path) -> None:
    write_catalogue(tmp_path, {"a": "A dog runs"})
    curate.run(Params(), tmp_path)
    assert [list(objects) for objects in pd.read_parquet(tmp_path / project.CURATED)["objects"]] == [[]]


def test_no_catalogue_and_no_clip_are_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="run `dsr catalog` first"):
        curate.run(Params(), tmp_path)
    write_catalogue(tmp_path, {"a": ""})
    with pytest.raises(StageError, match="none of 1 clips is kept; the first: a: empty caption"):
        curate.run(Params(), tmp_path)


@pytest.mark.slow
def test_ten_thousand_captions(tmp_path: Path) -> None:
    write_catalogue(
        tmp_path, {f"c{i:05}": f"A man walks {i} dogs past a red car and a blue car" for i in range(10_000)}
    )
    curate.run(Params(), tmp_path)
    assert (pd.read_parquet(tmp_path / project.CURATED)["status"] == "kept").all()
