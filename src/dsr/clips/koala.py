"""Koala-36M as a source of clips: 36 million rows of CSV read in a stream, filtered, drawn, and matched with files.

- Every row has one fate: malformed, left out by the first filter that it does not pass, not drawn, a duplicate, or
  drawn. What becomes of the drawn ones (no file, unreadable, used) the catalogue says.
- The draw takes the rows whose hashes of (seed, videoID) are the smallest. It depends neither on the order of files
  and rows nor on how many processes read them, and a larger draw holds a smaller one. Memory holds the drawn rows.
- A row that is damaged costs itself. After a quote that is never closed, reading goes on at the next line that begins
  as a row does, so that a stray quote does not swallow a file.
- Nothing is downloaded, and no address in a row is believed: addresses are made of the YouTube id.
"""

import csv
import hashlib
import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import glob
from operator import itemgetter
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

from dsr import console, project
from dsr.clips.folder import find_videos
from dsr.console import StageError
from dsr.params import Koala
from dsr.workers import map_all

COLUMNS = (
    *("videoID", "url", "timestamp", "caption"),
    *("clarity_score", "aesthetic_score", "motion_score", "video_training_suitability_score"),
)
"""Columns of the CSV files, in any order; others are left alone."""
_REQUIRED = ("videoID", "timestamp", "caption")
_SCORES = {
    "clarity_score": ("min_clarity",),
    "aesthetic_score": ("min_aesthetic",),
    "motion_score": ("min_motion", "max_motion"),
    "video_training_suitability_score": ("min_suitability",),
}
"""Columns that a file must have where one of these parameters is set."""
FIELD_LIMIT = 1 << 20
"""Characters of a field; captions have some thousands. A row with a longer one is malformed."""
_LINE_LIMIT = 16 * FIELD_LIMIT
SAME_TIME = 0.1
"""Seconds by which two rows of one video may differ and be the same clip."""

VIDEO_ID = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]{1,9})")
"""YouTube's id, which may hold and begin with "_" and "-", and the clip's number."""
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_BRACKETED_ID = re.compile(r".*\[([A-Za-z0-9_-]{11})\]", re.DOTALL)
_TIME = r"""\s*['"]?([0-9]{1,3}):([0-5]?[0-9]):([0-5]?[0-9](?:\.[0-9]*)?)['"]?\s*"""
_TIMESTAMP = re.compile(rf"\s*(?:\[\s*)?\[{_TIME},{_TIME}\](?:\s*\])?\s*")
"""A list of two times, or a list of one such list; `parse_timestamp` sees to it that as many are closed as opened."""
_ROW_BEGINS = re.compile(rb'"?[A-Za-z0-9_-]{11}_[0-9]{1,9}"?,"?https?://')


class Row(NamedTuple):
    """A row of a CSV file."""

    video_id: str
    youtube_id: str
    start: float
    end: float
    """Seconds of the YouTube video."""
    caption: str
    timestamp: str
    scores: tuple[str, str, str, str]
    """Clarity, aesthetic, motion and suitability, as written."""
    csv: str
    """Name of the file."""
    number: int
    """Row in the file, the header being 1."""


@dataclass
class Draw:
    """The rows whose hashes of seed and videoID are smallest, at most `size` of them.

    Rows of one videoID have one hash; of several the first by time and caption is kept, and all are counted.
    """

    size: int
    seed: int
    rows: dict[str, Row] = field(default_factory=dict)
    """By videoID."""
    seen: dict[str, int] = field(default_factory=dict)
    """Rows of a videoID."""
    _largest: list[tuple[int, str]] = field(default_factory=list)
    """Heap of the negative hashes, and their videoIDs."""

    def offer(self, row: Row, count: int = 1) -> None:
        video_id = row.video_id
        if video_id in self.rows:
            self.seen[video_id] += count
            self.rows[video_id] = min(self.rows[video_id], row)
            return
        entry = -self.hash(video_id), video_id
        if len(self._largest) < self.size:
            heapq.heappush(self._largest, entry)
        elif entry < self._largest[0]:
            return
        else:
            removed = heapq.heappushpop(self._largest, entry)[1]
            if removed == video_id:
                return
            del self.rows[removed], self.seen[removed]
        self.rows[video_id], self.seen[video_id] = row, count

    def hash(self, video_id: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self.seed} {video_id}".encode(), digest_size=16).digest())

    def merge(self, other: "Draw") -> None:
        """Take in the draw of other rows: what is kept and counted is as if all rows had been offered here."""
        for video_id, row in other.rows.items():
            self.offer(row, other.seen[video_id])

    def in_order(self) -> list[Row]:
        """Rows in the order in which larger draws take them up."""
        return sorted(self.rows.values(), key=lambda row: self.hash(row.video_id))


@dataclass(frozen=True)
class Found:
    """Rows that were drawn, and what became of all others."""

    rows: list[Row]
    """In the order of the draw."""
    copies: dict[str, str]
    """videoID of a drawn row -> videoID of an earlier one that is the same part of the same video."""
    total: int
    """Rows in all."""
    left_out: dict[str, int]
    """Fate of the rows that were not drawn -> how many; with `rows` they make the total."""


class Files:
    """Videos of a folder: cut clips named by videoID, full videos named by YouTube id or "… [<id>]", as yt-dlp does.

    Folders below it count, and so do links, to files and to folders.
    """

    def __init__(self, folder: Path) -> None:
        self.cut: dict[str, list[Path]] = {}
        self.full: dict[str, list[Path]] = {}
        for stem, paths in find_videos(folder, follow_links=True).items():
            if VIDEO_ID.fullmatch(stem):
                self.cut.setdefault(stem, []).extend(paths)
            elif name := _youtube_id(stem):
                self.full.setdefault(name, []).extend(paths)
        self.folder = folder

    def find(self, video_id: str) -> tuple[Path, bool]:
        """File of a clip, and True if it is the clip alone: a clip that is cut comes before its full video.

        Raises:
            FileNotFoundError: there is none, or several; the message is for the clip's row.
        """
        youtube_id = video_id.rpartition("_")[0]
        paths = self.cut.get(video_id) or self.full.get(youtube_id) or []
        if len(paths) > 1:
            names = ", ".join(path.relative_to(self.folder).as_posix() for path in paths[:3])
            raise FileNotFoundError(f"several videos: {names}; keep one")
        if not paths:
            raise FileNotFoundError(f"no file: no video is named {video_id} (cut) or {youtube_id} (full)")
        if not paths[0].is_file():
            raise FileNotFoundError(f"no file: {paths[0].name} is a broken link")
        return paths[0], video_id in self.cut


def unwatched(options: Koala, root: Path, files: Files) -> list[str]:
    """Places of CSV files and videos that DVC does not look into: outside data/raw/koala, or behind a link to a folder
    in it."""
    home = root / project.KOALA
    parents = {path.parent for paths in (*files.cut.values(), *files.full.values()) for path in paths}
    folders = {*parents, *(path.parent for path in _csv_files(options, root))}
    found = {folder for folder in folders if not folder.is_relative_to(home)}
    for folder in folders - found:
        below = folder.relative_to(home).parts
        steps = [home.joinpath(*below[: depth + 1]) for depth in range(len(below))]
        found |= {step for step in steps if step.is_symlink()}
    return sorted(str(folder) for folder in found)


def _youtube_id(stem: str) -> str:
    """YouTube id that a file's name without its ending is or ends in; "" if none."""
    if _YOUTUBE_ID.fullmatch(stem):
        return stem
    match = _BRACKETED_ID.fullmatch(stem)
    return match[1] if match else ""


def address(video_id: str) -> str:
    """Address of the video that a clip is a part of."""
    return f"https://www.youtube.com/watch?v={video_id.rpartition('_')[0]}"


def find_rows(options: Koala, root: Path, workers: int, files: Files | None = None) -> Found:
    """Read all rows, filter and draw.

    Args:
        files: needed for `options.only_with_file`.

    Raises:
        StageError: no CSV file, a column that is missing, or a file that cannot be read.
    """
    available = (frozenset(files.cut), frozenset(files.full)) if files and options.only_with_file else None
    ids = read_ids(project.locate(root, options.ids)) if options.ids else None
    left_out, draw = _scan_all(options, root, workers, _Limits(options, ids, available))
    drawn = draw.in_order()
    repeats = sum(draw.seen.values()) - len(drawn)
    counts = {
        **{f"malformed, {name}": left_out[name] for name in _MALFORMED if left_out[name]},
        **{f"filtered, {name}": left_out[name] for name, _ in filters(_Limits(options, ids, available))},
        "not drawn": left_out["passed"] - sum(draw.seen.values()),
        "duplicate": repeats,
    }
    return Found(drawn, _copies(drawn), sum(counts.values()) + len(drawn), counts)


def find_parts(options: Koala, root: Path, workers: int, ids: Collection[str]) -> dict[str, tuple[float, float]]:
    """Start and end in seconds of the clips with these videoIDs, as far as the CSV files have them.

    Raises:
        StageError: as `find_rows`.
    """
    everything = Koala(duration=(0.0, 1e9), max_clips=max(len(ids), 1), csv=options.csv)
    draw = _scan_all(everything, root, workers, _Limits(everything, frozenset(ids), None))[1]
    return {video_id: (row.start, row.end) for video_id, row in draw.rows.items()}


def read_ids(path: Path) -> frozenset[str]:
    """The videoIDs of a table with such a column or, as names of files, `video` (.parquet, .csv, .tsv), or of a text
    with one a line.

    Raises:
        StageError: it cannot be read, or holds none.
    """
    import pandas as pd

    try:
        match path.suffix:
            case ".parquet":
                table = pd.read_parquet(path)
            case ".csv" | ".tsv":
                table = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t", dtype=str)
            case _:
                table = pd.DataFrame({"videoID": path.read_text(encoding="utf-8-sig").split()})
        if not {"videoID", "video"} & set(table):
            raise ValueError("no column videoID or video")
        column = table["videoID" if "videoID" in table else "video"]
        ids = [PurePath(text.strip()).stem for text in column.dropna().astype(str)]
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise StageError(f"clips.koala.ids: {path} has no videoIDs that can be read: {text}") from None
    found = frozenset(name for name in ids if VIDEO_ID.fullmatch(name))
    if not found:
        raise StageError(f"clips.koala.ids: {path} names no videoID (such as cC-Q5kcc3R8_27)")
    return found


@dataclass(frozen=True)
class _Limits:
    """Parameters of the filters, with what they look up."""

    options: Koala
    ids: frozenset[str] | None
    files: tuple[frozenset[str], frozenset[str]] | None
    """videoIDs and YouTube ids that there are files of."""


def filters(limits: _Limits) -> list[tuple[str, Callable[[Row], bool]]]:
    """The filters that are set, in the order in which a row must pass them.

    A score that is no number passes no limit.
    """
    options, ids, files = limits.options, limits.ids, limits.files
    shortest, longest = options.duration
    found: list[tuple[str, Callable[[Row], bool]]] = []
    if ids is not None:
        found.append(("ids", lambda row: row.video_id in ids))
    # Times have milliseconds: a difference of two is not exact.
    found.append(("duration", lambda row: shortest - 1e-6 <= row.end - row.start <= longest + 1e-6))
    for name, score, least, most in (
        ("clarity", 0, options.min_clarity, None),
        ("aesthetic", 1, options.min_aesthetic, None),
        ("motion", 2, options.min_motion, options.max_motion),
        ("suitability", 3, options.min_suitability, None),
    ):
        if least is not None or most is not None:
            low, high = -math.inf if least is None else least, math.inf if most is None else most
            found.append((name, partial(_within, score=score, low=low, high=high)))
    if options.words:
        named = _Words(options.words)
        found.append(("words", lambda row: named.are_in(row.caption)))
    if options.without_words:
        barred = _Words(options.without_words)
        found.append(("without_words", lambda row: not barred.are_in(row.caption)))
    if files is not None:
        cut, full = files
        found.append(("only_with_file", lambda row: row.video_id in cut or row.youtube_id in full))
    return found


def _within(row: Row, score: int, low: float, high: float) -> bool:
    try:
        return low <= float(row.scores[score]) <= high
    except ValueError:
        return False


class _Words:
    """Words or phrases that are looked for as whole words, in upper or lower case."""

    def __init__(self, words: Iterable[str]) -> None:
        parts = [word.lower().split() for word in words]
        self._first = [part[0] for part in parts]
        spelled = "|".join(r"\s+".join(map(re.escape, part)) for part in parts)
        self._pattern = re.compile(rf"(?<!\w)(?:{spelled})(?!\w)")

    def are_in(self, text: str) -> bool:
        """True if any of them is in a text."""
        lower = text.lower()
        # The pattern takes 20 times as long as this.
        return any(word in lower for word in self._first) and self._pattern.search(lower) is not None


@dataclass(frozen=True)
class _File:
    """A CSV file, and where its columns are."""

    path: Path
    width: int
    columns: tuple[int, ...]
    """Index of each of COLUMNS, or the width: a field that is not there."""


def _scan_all(options: Koala, root: Path, workers: int, limits: _Limits) -> tuple[Counter[str], Draw]:
    files = [_inspect(path, options) for path in _csv_files(options, root)]
    processes = min(console.num_workers(workers), len(files))
    counts: Counter[str] = Counter()
    draw = Draw(options.max_clips, options.seed)
    scans = map_all(partial(_scan, limits=limits), files, processes, "reading Koala-36M")
    try:
        for _, (some, part) in console.track(scans, "reading Koala-36M", total=len(files), unit="files"):
            counts.update(some)
            draw.merge(part)
    except OSError as error:
        raise StageError(str(error)) from None
    return counts, draw


def _csv_files(options: Koala, root: Path) -> list[Path]:
    paths = [Path(name) for name in sorted(glob(str(project.locate(root, options.csv))))]
    if not paths:
        raise StageError(
            f"no CSV file {options.csv}: put Koala-36M's CSV files (or links to them) there, or set clips.koala.csv"
        )
    return paths


def _inspect(path: Path, options: Koala) -> _File:
    """Read a file's header.

    Raises:
        StageError: it cannot be read, or a column is missing.
    """
    try:
        with path.open("rb") as file:
            header = next(_reader(_Lines(file)), [])
    except (OSError, csv.Error) as error:
        raise StageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    names = [name.strip() for name in header]
    needed = [
        *_REQUIRED,
        *(name for name, keys in _SCORES.items() if any(getattr(options, k) is not None for k in keys)),
    ]
    for name in needed:
        if name not in names:
            shown = ", ".join(ascii(text[:40])[1:-1] for text in names[:20]) or "none"
            why = f", which clips.koala.{_SCORES[name][0]} needs" if name in _SCORES else ""
            raise StageError(f"{path} has no column {name}{why}; its columns: {shown}. Is it a CSV file of Koala-36M?")
    twice = [name for name, count in Counter(names).items() if count > 1 and name in COLUMNS]
    if twice:
        raise StageError(f"{path} has column {twice[0]} twice: rename one")
    columns = tuple(names.index(name) if name in names else len(names) for name in COLUMNS)
    return _File(path, len(names), columns)


def _scan(file: _File, limits: _Limits) -> tuple[Counter[str], Draw]:
    """Filter the rows of a file, and draw.

    Returns:
        Rows by the malformation or the filter that left them out, "passed" being those that none did; the draw.
    """
    options = limits.options
    counts: Counter[str] = Counter()
    draw = Draw(options.max_clips, options.seed)
    steps = filters(limits)
    try:
        for row in read_rows(file):
            if isinstance(row, str):
                counts[row] += 1
                continue
            for name, passes in steps:
                if not passes(row):
                    counts[name] += 1
                    break
            else:
                counts["passed"] += 1
                draw.offer(row)
    except OSError as error:
        # A broken disk stops the stage: rows that were not read have no fate.
        raise OSError(f"{file.path} cannot be read: {error.strerror or error}") from None
    return counts, draw


_MALFORMED = ("fields", "videoID", "url", "timestamp")


def read_rows(file: _File) -> Iterator[Row | str]:
    """Rows of a file in their order, one at a time; for one that cannot be understood, which part (`_MALFORMED`).

    Raises:
        OSError: the file cannot be read.
    """
    pick = itemgetter(*file.columns)
    name, width = file.path.name, file.width
    with file.path.open("rb") as opened:
        lines = _Lines(opened)
        reader = _reader(lines)
        next(reader)
        number = 1
        while True:
            lines.fresh = True
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:
                number += 1
                yield "fields"
                continue
            if not fields:
                continue
            number += 1
            if len(fields) != width:
                yield "fields"
                continue
            fields.append("")
            video_id, url, timestamp, caption, *scores = pick(fields)
            match = VIDEO_ID.fullmatch(video_id.strip())
            if not match:
                yield "videoID"
                continue
            if url and match[1] not in url:
                yield "url"
                continue
            times = parse_timestamp(timestamp)
            if times is None:
                yield "timestamp"
                continue
            yield Row(match[0], match[1], *times, caption, timestamp, tuple(scores), name, number)


def parse_timestamp(text: str) -> tuple[float, float] | None:
    """Start and end in seconds; None where the text is no list of two times, or they are not in order.

    >>> parse_timestamp("['0:08:21.901', '0:08:50.930']")
    (501.901, 530.93)
    >>> parse_timestamp("['0:00:05', '0:00:04']") is None
    True
    """
    match = _TIMESTAMP.fullmatch(text)
    if not match or text.count("[") != text.count("]"):
        return None
    h1, m1, s1, h2, m2, s2 = match.groups()
    start = round(int(h1) * 3600 + int(m1) * 60 + float(s1), 6)
    end = round(int(h2) * 3600 + int(m2) * 60 + float(s2), 6)
    return (start, end) if start < end else None


def _reader(lines: "_Lines") -> Iterator[list[str]]:
    csv.field_size_limit(FIELD_LIMIT)
    return csv.reader(lines)


class _Lines:
    """Lines of a CSV file as text, decoded one by one.

    In the middle of a row, a line that begins as a row does ends that row: its quote was never closed. The reader is
    told that the input is at its end, which completes the row that it is at, and then given the line.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._next: bytes | None = None
        self._first = True
        self.fresh = True
        """True: the next line begins a row. Set by who reads rows."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line, self._next = self._next or self._file.readline(_LINE_LIMIT), None
        if not line:
            raise StopIteration
        if not self.fresh and _ROW_BEGINS.match(line):
            self._next = line
            raise StopIteration
        self.fresh = False
        if self._first:
            self._first, line = False, line.removeprefix(b"\xef\xbb\xbf")
        if len(line) == _LINE_LIMIT:
            while (rest := self._file.readline(_LINE_LIMIT)) and not rest.endswith(b"\n"):
                pass
        return line.decode("utf-8", "replace")


def _copies(rows: Sequence[Row]) -> dict[str, str]:
    """Rows that are the same part of the same video as an earlier one, to SAME_TIME."""
    before: dict[str, list[Row]] = {}
    found: dict[str, str] = {}
    for row in rows:
        others = before.setdefault(row.youtube_id, [])
        for other in others:
            if max(abs(other.start - row.start), abs(other.end - row.end)) <= SAME_TIME + 1e-6:
                found[row.video_id] = other.video_id
                break
        else:
            others.append(row)
    return found


def extra_columns(row: Row) -> Mapping[str, str]:
    """Columns of the catalogue that Koala-36M alone has: where the row is, and what it says beside its caption."""
    scores = dict(zip(COLUMNS[4:], row.scores, strict=True))
    return {"timestamp": row.timestamp, **scores, "csv": row.csv, "csv_row": str(row.number)}
