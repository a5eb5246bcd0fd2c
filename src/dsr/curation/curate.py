"""The stage that decides, from captions, which clips move and which words are agents and objects."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from dsr import console, project
from dsr.console import StageError
from dsr.curation import rules
from dsr.curation.curated import Curated
from dsr.files import write_parquet
from dsr.params import Curation, Params

Backend = Callable[[pd.DataFrame, Curation, Path], list[Curated]]
"""Clips (rows of the catalogue that are `ok`) to what was found, one for one and in their order, given the project
folder; a clip that cannot be curated comes back with a reason. A backend gets all clips at once, so that one which asks
a model can have many questions under way."""


def _by_rules(clips: pd.DataFrame, params: Curation, root: Path) -> list[Curated]:
    return rules.curate(clips["caption"].tolist(), params)


def _by_language_model(clips: pd.DataFrame, params: Curation, root: Path) -> list[Curated]:
    from dsr.curation import language_model

    return language_model.curate(clips, params, root)


BACKENDS: dict[str, Backend] = {"rules": _by_rules, "llm": _by_language_model}
"""By the name in `curation.backend`."""


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Read data/clips/catalog.parquet, write data/clips/curated.parquet: a row for each clip that is `ok` there.

    Raises:
        StageError: no catalogue, or no clip is kept.
    """
    table = usable_clips(root)
    found = BACKENDS[params.curation.backend](table, params.curation, root)
    table = _with_found(table, found)
    write_parquet(root / project.CURATED, table)
    _report(table)
    if not (table["status"] == "kept").any():
        first = f"; the first: {table['clip_id'][0]}: {table['reason'][0]}" if len(table) else ""
        raise StageError(f"none of {len(table)} clips is kept{first}: see `reason` in {root / project.CURATED}")


def usable_clips(root: Path) -> pd.DataFrame:
    """Rows of the catalogue that are `ok`, by clip_id.

    Raises:
        StageError: no catalogue.
    """
    columns = ("clip_id", "status", "caption", "file", "sha256", "start", "end", "num_frames")
    catalog = project.read_table(root, project.CATALOG, "catalog", columns)
    return catalog[catalog["status"] == "ok"].sort_values("clip_id", ignore_index=True)


def _with_found(table: pd.DataFrame, found: list[Curated]) -> pd.DataFrame:
    return table.assign(
        status=pd.Series(["dropped" if clip.reason else "kept" for clip in found], dtype="str"),
        reason=pd.Series([clip.reason for clip in found], dtype="str"),
        agents=pd.Series([clip.agents for clip in found], dtype="object"),
        objects=pd.Series([clip.objects for clip in found], dtype="object"),
        dynamic=pd.Series([clip.dynamic for clip in found], dtype="bool"),
        category=pd.Series([clip.category for clip in found], dtype="str"),
        **{name: pd.Series([clip.notes[name] for clip in found]) for name in (found[0].notes if found else ())},
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
