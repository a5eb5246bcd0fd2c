"""The list of Koala-36M's videos that are missing, for those who fetch them with other tools."""

import io
import sys
from pathlib import Path

import pandas as pd

from dsr import project
from dsr.clips.koala import address
from dsr.console import StageError, summary
from dsr.files import write_bytes

COLUMNS = ("url", "id", "start", "end", "videoID", "reason")
"""Address and YouTube id of the full video, seconds of it that are the clip, the clip, and why it is missing."""
_KEPT_REASONS = ("duplicate", "too few frames", "several videos")
"""Kinds of reasons that another file would not change."""


def run(root: Path, output: Path | None, urls: Path | None) -> None:
    """Write the drawn clips without a usable file as CSV, to standard output without `output`; and to `urls` each
    address once, a line each.

    Raises:
        StageError: there is no catalogue of Koala-36M.
    """
    table = missing(root)
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n")
    if output:
        write_bytes(output, text.getvalue().encode())
    elif not urls:
        sys.stdout.write(text.getvalue())
    addresses = table["url"].drop_duplicates()
    if urls:
        write_bytes(urls, "".join(f"{line}\n" for line in addresses).encode())
    kinds = table["reason"].str.split(":").str[0].value_counts().sort_index()
    counts = {"clips": len(table), "full videos": len(addresses)}
    summary("missing", counts | {str(kind): int(count) for kind, count in kinds.items()})


def missing(root: Path) -> pd.DataFrame:
    """COLUMNS of the drawn clips that cannot be used for want of a file, or of a sound one, by videoID."""
    names = ("clip_id", "source", "status", "reason", "start", "end")
    catalog = project.read_table(root, project.CATALOG, "catalog", names)
    if not (catalog["source"] == project.KOALA.name).all() or catalog.empty:
        raise StageError(f"{project.CATALOG} is not of Koala-36M: set clips.source to koala, then run `dsr catalog`")
    kinds = catalog["reason"].str.split(":").str[0]
    rows = catalog[(catalog["status"] == "failed") & ~kinds.isin(_KEPT_REASONS)]
    return pd.DataFrame(
        {
            "url": [address(clip) for clip in rows["clip_id"]],
            "id": [clip.rpartition("_")[0] for clip in rows["clip_id"]],
            "start": rows["start"],
            "end": rows["end"],
            "videoID": rows["clip_id"],
            "reason": rows["reason"],
        },
        columns=list(COLUMNS),
    )
