"""The catalogue: the properties of every clip of a source folder, or the reason why it cannot be used.

Every row of clips.csv, and every video that no row names, is one row of the table: `ok`, or `failed` with a
reason that reads `kind: detail`. Of Koala-36M's 36 million rows those that are drawn are (clips/koala.py), and the
others are counted. metrics/clips.json says how many rows met which fate. Nothing that an id or a path says is believed:
an id that is not safe as a file name is shown quoted and never used as a path, and a path must stay in its folder.
"""

import csv
import math
import os
import re
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from dsr import console, project
from dsr.clips import koala
from dsr.clips.folder import find_videos
from dsr.clips.video import VideoInfo, frames_between, probe
from dsr.console import StageError
from dsr.files import sha256_file, write_metrics, write_parquet
from dsr.params import Params
from dsr.workers import Failure, ended_after, map_isolated

Row = dict[str, Any]
COLUMNS = {
    "clip_id": str,
    "status": str,
    "reason": str,
    "source": str,
    "file": str,
    "truth": str,
    "annotation": str,
    "sha256": str,
    "source_video": str,
    "caption": str,
    "start": float,
    "end": float,
    "duration": float,
    "fps": float,
    "num_frames": int,
    "width": int,
    "height": int,
}
"""Columns of the catalogue; further columns of clips.csv follow, as text. `file`, `truth` and `annotation` are
relative to the project folder; `duration` is the whole video's; `num_frames` counts those in [start, end]."""
LATER_COLUMNS = (
    *("agents", "objects", "dynamic", "category"),
    *("num_moving", "from_vehicle", "visible_share", "evidence", "refused"),
)
"""Columns that curation adds. A column of clips.csv with such a name is kept as `given_<name>`."""
TIME_LIMIT = 180
"""Seconds that a file may take to probe; decoders have been seen never to return from hostile files."""

_SAFE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_MAX_ID = 200  # Leaves room for suffixes within the 255 bytes of a file name.
_DVC_OBJECT = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$")
_FAILURES_SHOWN = 5
_CUT_TOLERANCE = 5.0
"""Seconds by which a clip that somebody has cut may be longer or shorter than its row: without re-encoding, cuts are
made at keyframes."""


_ID_RULE = f"only letters, digits, '.', '_', '-', no leading dot, at most {_MAX_ID} characters"


class ClipError(ValueError):
    """Reason why a clip cannot be used; `kind: detail`."""


@dataclass(frozen=True)
class _Job:
    """Files of a clip that a worker process probes."""

    video: Path | None
    truth: Path | None
    start: float | None
    end: float | None
    min_frames: int
    lasts: float | None = None
    """Seconds that the whole video should have; None: not known."""


@dataclass(frozen=True)
class _Probed:
    """Properties of a probed clip; the fields are columns of the catalogue."""

    sha256: str
    start: float
    end: float
    duration: float
    fps: float
    num_frames: int
    width: int
    height: int


@dataclass(frozen=True)
class _Source:
    """A source folder and what was found in it."""

    root: Path
    name: str
    videos: dict[str, list[Path]]
    """By stem."""
    named: set[Path] = field(default_factory=set)
    """Videos that a row is about."""
    seen: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Row of clips.csv in which an id came first, and the id, by the id in lower case."""

    @property
    def folder(self) -> Path:
        return self.root / project.RAW / self.name


@dataclass(frozen=True)
class _Found:
    """Rows of the catalogue before their files are looked at."""

    rows: list[Row]
    jobs: dict[int, _Job]
    """Files of the rows that may be used, by the row's index."""
    title: str
    """Where the rows are from."""
    total: int
    """Rows that have a fate."""
    left_out: dict[str, int]
    """Fate -> how many of them are not among `rows`."""


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Read data/raw/<source>/, write data/clips/catalog.parquet and metrics/clips.json.

    Raises:
        StageError: no such folder or table, a table that cannot be read, or no clip that can be used.
    """
    folder = root / project.RAW / params.clips.source
    if not folder.is_dir():
        raise StageError(f"{folder} does not exist: put videos and their table there, or set clips.source")
    if params.clips.source == project.KOALA.name:
        found = _find_koala(params, root, workers)
    else:
        found = _find_listed(params, root)
    rows = found.rows
    _probe_all(rows, found.jobs, console.num_workers(workers))
    _refuse_copies(rows)
    _name_source_videos(rows, params.clips.source_video_pattern)
    rows.sort(key=lambda row: row["clip_id"])
    _write(root / project.CATALOG, rows)
    fates = Counter(found.left_out)
    fates.update(sorted(str(row["reason"]).split(":")[0] for row in rows if row["status"] == "failed"))
    used = sum(row["status"] == "ok" for row in rows)
    write_metrics(root / project.CLIPS_METRICS, {"rows": found.total, "used": used, "left_out": dict(fates)}, {})
    _report(rows, {found.title: found.total, "used": used, **{f"left out, {kind}": n for kind, n in fates.items()}})
    if not used:
        failed = [row for row in rows if row["status"] == "failed"]
        first = f"; the first: {failed[0]['clip_id']}: {failed[0]['reason']}" if failed else ""
        hint = _no_koala(fates, params) if params.clips.source == project.KOALA.name else ""
        raise StageError(f"{folder}: none of {found.total:,} clips can be used{first}{hint}")


def _find_listed(params: Params, root: Path) -> _Found:
    """Rows of clips.csv, and of the videos that it does not name."""
    folder = root / project.RAW / params.clips.source
    header, lines = _read_table(folder)
    source = _Source(root, params.clips.source, find_videos(folder))
    rows: list[Row] = []
    jobs: dict[int, _Job] = {}
    for i, line in enumerate(lines):
        rows.append(_empty_row(source.name))
        try:
            jobs[i] = _read_line(source, rows[i], header, line, i + 2, params.cues.num_frames)
        except ClipError as error:
            _fail(rows[i], str(error))
    unnamed = [path for paths in source.videos.values() for path in paths if path not in source.named]
    rows += [_unnamed_row(source, path) for path in unnamed]
    return _Found(rows, jobs, "rows of clips.csv, and videos without one", len(rows), {})


def _find_koala(params: Params, root: Path, workers: int) -> _Found:
    """Rows of Koala-36M that are drawn, with their files."""
    options = params.clips.koala
    files = koala.Files(project.locate(root, options.videos))
    found = koala.find_rows(options, root, workers, files)
    if unwatched := koala.unwatched(options, root, files):
        console.warn(
            f"DVC does not see what changes in {', '.join(unwatched[:3])}: make {project.KOALA} itself the link, or "
            "run `dvc repro --force catalog` after a change"
        )
    rows: list[Row] = []
    jobs: dict[int, _Job] = {}
    seen: dict[str, str] = {}
    for i, drawn in enumerate(found.rows):
        rows.append(_empty_row(project.KOALA.name))
        rows[i].update(clip_id=drawn.video_id, source_video=drawn.youtube_id, caption=drawn.caption.strip())
        rows[i].update(start=drawn.start, end=drawn.end, **koala.extra_columns(drawn))
        try:
            # A copy is not worth fetching a file for.
            if drawn.video_id in found.copies:
                raise ClipError(f"duplicate: the same seconds of the same video as {found.copies[drawn.video_id]}")
            other = seen.setdefault(drawn.video_id.casefold(), drawn.video_id)
            if other != drawn.video_id:
                raise ClipError(f"duplicate: {other} has this id, but for upper and lower case")
            jobs[i] = _koala_job(files, rows[i], root, params.cues.num_frames)
        except (ClipError, FileNotFoundError) as error:
            _fail(rows[i], str(error))
    return _Found(rows, jobs, "rows of Koala-36M", found.total, found.left_out)


def _koala_job(files: koala.Files, row: Row, root: Path, min_frames: int) -> _Job:
    """Files of a drawn row: the cut clip, or the full video of which it is a part.

    Raises:
        FileNotFoundError: there is none.
    """
    path, cut = files.find(row["clip_id"])
    place = path.relative_to(root) if path.is_relative_to(root) else path.absolute()
    row["file"] = _shown(place)
    seconds = row["end"] - row["start"]
    if cut:
        return _Job(path, None, None, None, min_frames, lasts=seconds)
    return _Job(path, None, row["start"], row["end"], min_frames)


def _no_koala(fates: Counter[str], params: Params) -> str:
    """Remedy where not one clip of Koala-36M can be used."""
    if fates["no file"]:
        return f". `dsr koala missing` lists the videos to put into {params.clips.koala.videos}"
    return ": clips.koala.* leave none" if not fates["duplicate"] else ""


def _read_table(folder: Path) -> tuple[list[str], list[list[str]]]:
    """Header and lines of clips.csv, fields as text."""
    path = folder / "clips.csv"
    try:
        # One caption may be longer than csv's default of 128 KiB a field.
        csv.field_size_limit(2**24)
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = [line for line in csv.reader(file, strict=True) if line]
    except FileNotFoundError:
        raise StageError(f"{path} does not exist: write one with columns clip_id (or videoID) and caption") from None
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except (csv.Error, OSError) as error:
        raise StageError(f"{path} cannot be read as CSV: {error}") from None
    header = [name.strip() for name in table[0]] if table else []
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise StageError(f"{path} has column {twice[0]!r} twice: rename one")
    if "clip_id" not in header and "videoID" in header:
        header[header.index("videoID")] = "clip_id"
    for name, other in (("clip_id", " (or videoID)"), ("caption", "")):
        if name not in header:
            found = ", ".join(header[:20]) or "none"
            raise StageError(f"{path} has no column {name}{other}; its columns: {found}. Separate them by commas")
    return header, table[1:]


def _empty_row(source: str) -> Row:
    row: Row = {name: kind() for name, kind in COLUMNS.items()}
    return row | {"source": source, "status": "ok"}


def _unnamed_row(source: _Source, path: Path) -> Row:
    row = _empty_row(source.name)
    row.update(clip_id=_shown_id(path.stem), file=_shown(path.relative_to(source.root)))
    _fail(row, "no row in clips.csv: no row names this file")
    return row


def _fail(row: Row, reason: str) -> None:
    row.update(status="failed", reason=reason)


def _read_line(source: _Source, row: Row, header: list[str], line: list[str], number: int, min_frames: int) -> _Job:
    """Fill a row from its line of clips.csv.

    Args:
        number: row in the table, the header being 1.

    Raises:
        ClipError: why the clip cannot be used; the row holds what was understood.
    """
    given = dict(zip(header, line, strict=False))
    clip_id = given.pop("clip_id", "").strip()
    row["clip_id"] = _shown_id(clip_id)
    row["caption"] = given.pop("caption", "").strip()
    row["source_video"] = given.pop("source_video", "").strip()
    places = {name: given.pop(name, "").strip() for name in ("file", "truth", "annotation")}
    times = {name: given.pop(name, "").strip() for name in ("start", "end")}
    for name, value in given.items():
        row[f"given_{name}" if name in COLUMNS or name in LATER_COLUMNS else name] = value
    if len(line) != len(header):
        source.named.update(source.videos.get(clip_id, []))
        raise ClipError(f"ragged row: row {number} has {len(line)} fields, the header {len(header)}")
    if row["clip_id"] != clip_id:
        raise ClipError(f"unsafe clip_id: {_ID_RULE}")
    first, before = source.seen.setdefault(clip_id.casefold(), (number, clip_id))
    if first != number:
        # Ids that differ by case alone are one file of cues on some systems.
        same = "" if before == clip_id else f", as {before!r}: upper and lower case count as the same"
        source.named.update(source.videos.get(clip_id, []))
        raise ClipError(f"clip_id used before: in row {first} of clips.csv{same}")
    paths = {name: _inside(source.folder, place, name) if place else None for name, place in places.items()}
    if paths["file"] is None:
        paths["file"] = _named_like(clip_id, source)
    else:
        source.named.add(paths["file"])
    for name, path in paths.items():
        row[name] = path.relative_to(source.root).as_posix() if path else ""
    if paths["file"] is None and paths["truth"] is None:
        raise ClipError("no video: no file of this name in the folder")
    start, end = (_seconds(value, name) for name, value in times.items())
    return _Job(paths["file"], paths["truth"], start, end, min_frames)


def _shown_id(clip_id: str) -> str:
    """The id where it is safe as a file name, else quoted and escaped, which no safe id can be."""
    if _SAFE_ID.fullmatch(clip_id) and len(clip_id) <= _MAX_ID:
        return clip_id
    quoted = ascii(clip_id)
    return quoted if len(quoted) <= 80 else f"{quoted[:76]}...'"


def _shown(path: Path) -> str:
    """A path as text that can be stored, whatever bytes its name has."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _inside(folder: Path, place: str, column: str) -> Path:
    """The file that a row names, if it is in the source folder (or a link into DVC's cache).

    Raises:
        ClipError: it is elsewhere, or not there.
    """
    path = Path(os.path.normpath(folder / place.replace("\0", "\ufffd")))
    if not path.is_relative_to(folder):
        raise ClipError(f"path outside the source folder: {column} {ascii(place)[:120]}")
    _refuse_link_out(path, folder, column)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise ClipError(f"{column} cannot be read: {error.strerror}") from None
    raise ClipError(f"{column} missing: no file {ascii(place)[:120]} in the source folder")


def _refuse_link_out(path: Path, folder: Path, column: str) -> None:
    """A link may lead out of the folder only to an object of a DVC cache (`cache.type symlink`)."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:
        raise ClipError(f"{column} cannot be read: {error}") from None
    if not target.is_relative_to(folder.resolve()) and not _DVC_OBJECT.search(target.as_posix()):
        raise ClipError(f"path outside the source folder: {column} is a link to {ascii(str(target))[:120]}")


def _named_like(clip_id: str, source: _Source) -> Path | None:
    """The video whose stem (or whole name) is the clip's id."""
    alike = source.videos.get(Path(clip_id).stem, [])
    found = source.videos.get(clip_id) or [path for path in alike if path.name == clip_id]
    source.named.update(found)
    if len(found) > 1:
        names = ", ".join(path.relative_to(source.folder).as_posix() for path in found[:3])
        raise ClipError(f"several videos: {names}; name one in a column `file`")
    for path in found:
        _refuse_link_out(path, source.folder, "file")
        if not path.is_file():
            raise ClipError("file missing: a broken link or no regular file")
    return found[0] if found else None


def _seconds(value: str, name: str) -> float | None:
    try:
        seconds = float(value) if value else None
    except ValueError:
        raise ClipError(f"trim not understood: {name} {ascii(value)[:60]} is no number of seconds") from None
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise ClipError(f"trim not understood: {name} {ascii(value)[:60]} is no time in a video")
    return seconds


def _probe_all(rows: list[Row], jobs: dict[int, _Job], workers: int) -> None:
    """Probe in worker processes; a file that crashes or hangs its process fails, and costs no other."""
    # Clips of one video in a row, so that a process reads it once.
    numbers = sorted(jobs, key=lambda number: (str(jobs[number].video or ""), number))
    answers = map_isolated(partial(_probe_clip, time_limit=TIME_LIMIT), [jobs[i] for i in numbers], workers)
    for k, answer in console.track(answers, "probing clips", total=len(jobs)):
        row = rows[numbers[k]]
        if not isinstance(answer, Failure):
            row.update(vars(answer))
        elif "SIGALRM" in answer.reason:
            _fail(row, f"decoder hangs: no answer in {TIME_LIMIT} s")
        elif "worker process" in answer.reason:
            _fail(row, f"decoder crashes: {answer.reason}")
        else:
            _fail(row, answer.reason)


def _probe_clip(job: _Job, time_limit: int) -> _Probed:
    """Hash and measure one clip.

    Raises:
        VideoError, ClipError: why it cannot be used.
        OSError: a file cannot be read.
    """
    with ended_after(time_limit):
        path = job.video or job.truth
        assert path is not None
        truth, rendered = _read_truth(job.truth) if job.truth else (None, False)
        if job.video:
            info = _read_info(job.video, *_state(job.video))
            if truth and truth.num_frames != info.num_frames:
                raise ClipError(f"truth does not match: {truth.num_frames} frames, the video has {info.num_frames}")
        else:
            assert truth is not None
            info = truth
            if rendered:
                raise ClipError("file missing: the truth is of a rendered clip, whose video is not there")
        if job.lasts is not None and abs(info.duration - job.lasts) > _CUT_TOLERANCE:
            raise ClipError(
                f"not this clip: the video has {info.duration:.1f} s, the clip's row {job.lasts:.1f} s; name a full "
                "video by its YouTube id"
            )
        start, end = job.start or 0.0, info.duration if job.end is None else job.end
        if not start < end <= info.duration + 0.5:
            raise ClipError(f"trim outside the video: [{start:g}, {end:g}] s of {info.duration:.2f} s")
        end = min(end, info.duration)
        num_frames = frames_between(info.timestamps, start, end)[1]
        if num_frames < job.min_frames:
            raise ClipError(f"too few frames: {num_frames}, cues.num_frames is {job.min_frames}")
        return _Probed(
            _read_hash(path, *_state(path)), start, end, info.duration, info.fps, num_frames, info.width, info.height
        )


def _state(path: Path) -> tuple[int, int]:
    """Size and time of the last change of a file, by which a process knows that it has read it."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=8)
def _read_info(path: Path, size: int, changed: int) -> VideoInfo:
    return probe(path)


@lru_cache(maxsize=8)
def _read_hash(path: Path, size: int, changed: int) -> str:
    return sha256_file(path)


def _read_truth(path: Path) -> tuple[VideoInfo, bool]:
    """Properties of the video that a simulator's truth file is about, and True if it was rendered."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            timestamps = np.asarray(archive["timestamps"], np.float64)
            height, width = (int(value) for value in archive["size"])
            rendered = bool(archive["rendered"])
    except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise ClipError(f"truth unreadable: {error}") from None
    if timestamps.ndim != 1 or not len(timestamps) or not (np.diff(timestamps) > 0).all():
        raise ClipError("truth unreadable: its timestamps do not increase")
    return VideoInfo.of_frames(timestamps - timestamps[0], width, height), rendered


def _refuse_copies(rows: list[Row]) -> None:
    """Fail all but the first by id of clips with the same content and interval."""
    first: dict[tuple[object, ...], object] = {}
    for row in sorted((r for r in rows if r["status"] == "ok"), key=lambda r: str(r["clip_id"])):
        content = (row["sha256"], row["start"], row["end"])
        kept = first.setdefault(content, row["clip_id"])
        if kept != row["clip_id"]:
            _fail(row, f"duplicate: the same content as {kept}")


def _name_source_videos(rows: list[Row], pattern: str) -> None:
    """Name each clip's source video: by the pattern, or as clips.csv says, or the clip itself; clips cut from one file
    share that file's."""
    firsts: dict[object, str] = {}
    for row in sorted(rows, key=lambda r: str(r["clip_id"])):
        clip_id = str(row["clip_id"])
        if pattern:
            match = re.search(pattern, clip_id)
            row["source_video"] = (match.group(1) if match else None) or clip_id
        elif not row["source_video"]:
            row["source_video"] = firsts.setdefault(row["sha256"], clip_id) if row["sha256"] else clip_id


def _write(path: Path, rows: list[Row]) -> None:
    extra = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    table = pd.DataFrame(rows, columns=[*COLUMNS, *extra])
    table = table.fillna(dict.fromkeys(extra, ""))
    kinds = {name: {str: "str", float: "float64", int: "int64"}[kind] for name, kind in COLUMNS.items()}
    write_parquet(path, table.astype(kinds | dict.fromkeys(extra, "str")))


def _report(rows: list[Row], counts: dict[str, int]) -> None:
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed[:_FAILURES_SHOWN]:
        console.warn(f"{row['clip_id']}: {row['reason']}")
    if len(failed) > _FAILURES_SHOWN:
        console.warn(f"… and {len(failed) - _FAILURES_SHOWN} more: `reason` in {project.CATALOG}")
    console.summary("catalog", counts)
