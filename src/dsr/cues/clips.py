"""The clips of which cues are made: the kept rows of data/clips/curated.parquet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dsr import project
from dsr.console import StageError
from dsr.cues.schema import cue_path
from dsr.workers import reason


@dataclass(frozen=True)
class Clip:
    """A clip as backends know it: a row of curated.parquet, with absolute paths."""

    clip_id: str
    sha256: str
    video: Path | None
    """None: the clip is trajectories alone."""
    truth: Path | None
    annotation: Path | None
    start: float
    end: float
    """Seconds of the video that are the clip."""
    width: int
    height: int
    agents: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()


def read_clips(root: Path) -> list[Clip]:
    """The kept clips of data/clips/curated.parquet, in its order.

    Raises:
        StageError: no such table, a column is missing, or it keeps no clip.
    """
    path = root / project.CURATED
    if not path.exists():
        raise StageError(f"{project.CURATED} does not exist: run the curate stage first")
    try:
        rows = pq.read_table(path).to_pylist()
        clips = [_clip(row, root) for row in rows if row["status"] == "kept"]
    except KeyError as error:
        raise StageError(f"{project.CURATED} has no column {error}: run the curate stage again") from None
    except (ValueError, TypeError, OSError, pa.ArrowException) as error:
        raise StageError(f"{project.CURATED} cannot be used ({reason(error)}): run the curate stage again") from None
    if not clips:
        raise StageError(f"{project.CURATED} keeps no clip: its column `reason` says why each was dropped")
    if len({clip.clip_id for clip in clips}) < len(clips):
        raise StageError(f"{project.CURATED} names a clip twice: run the catalog stage again")
    return clips


def _clip(row: dict[str, Any], root: Path) -> Clip:
    video, truth, annotation = (root / row[name] if row[name] else None for name in ("file", "truth", "annotation"))
    # Refuses an id that is no file name before anything is written under it.
    cue_path(root, row["clip_id"])
    return Clip(
        clip_id=row["clip_id"],
        sha256=row["sha256"],
        video=video,
        truth=truth,
        annotation=annotation,
        start=float(row["start"]),
        end=float(row["end"]),
        width=int(row["width"]),
        height=int(row["height"]),
        agents=tuple(row["agents"]),
        objects=tuple(row["objects"]),
    )
