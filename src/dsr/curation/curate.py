"""The stage that decides, from captions, which clips move and which words are agents and objects."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from dsr import console, project
from dsr.console import StageError
from dsr.curation import rules
from dsr.curation.curated import Curated
from dsr.files import write_parquet
from dsr.params import Curation, Params

Backend = Callable[[Sequence[str], Curation], list[Curated]]
"""Captions to what was found, one for one and in their order; a caption that cannot be curated comes back with a
reason. A backend gets all captions at once, so that one which calls a model can do so in batches."""

BACKENDS: dict[str, Backend] = {"rules": rules.curate}
"""By the name in `curation.backend`."""


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Read data/clips/catalog.parquet, write data/clips/curated.parquet: a row for each clip that is `ok` there.

    Raises:
        StageError: no catalogue, or no clip is kept.
    """
    catalog = project.read_table(root, project.CATALOG, "catalog", ("clip_id", "status", "caption"))
    table = catalog[catalog["status"] == "ok"].sort_values("clip_id", ignore_index=True)
    found = BACKENDS[params.curation.backend](table["caption"].tolist(), params.curation)
    table = _with_found(table, found)
    write_parquet(root / project.CURATED, table)
    _report(table)
    if not (table["status"] == "kept").any():
        first = f"; the first: {table['clip_id'][0]}: {table['reason'][0]}" if len(table) else ""
        raise StageError(f"none of {len(table)} clips is kept{first}: see `reason` in {root / project.CURATED}")


def _with_found(table: pd.DataFrame, found: list[Curated]) -> pd.DataFrame:
    return table.assign(
        status=pd.Series(["dropped" if clip.reason else "kept" for clip in found], dtype="str"),
        reason=pd.Series([clip.reason for clip in found], dtype="str"),
        agents=pd.Series([clip.agents for clip in found], dtype="object"),
        objects=pd.Series([clip.objects for clip in found], dtype="object"),
        dynamic=pd.Series([clip.dynamic for clip in found], dtype="bool"),
        category=pd.Series([clip.category for clip in found], dtype="str"),
    )


def _report(table: pd.DataFrame) -> None:
    kept = table[table["status"] == "kept"]
    dropped = table[table["status"] == "dropped"]
    counts: dict[str, object] = {"clips": len(table), "kept": len(kept)}
    counts |= {f"kept, {name}": count for name, count in sorted(Counter(kept["category"]).items())}
    kinds = Counter(reason.split(":")[0] for reason in dropped["reason"])
    counts |= {f"dropped, {kind}": count for kind, count in sorted(kinds.items())}
    counts["agents named"] = int(kept["agents"].map(len).sum())
    counts["objects named"] = int(kept["objects"].map(len).sum())
    console.summary("curate", counts)
