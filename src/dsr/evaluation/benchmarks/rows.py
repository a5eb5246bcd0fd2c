"""Rows of benchmarks, for all readers: files of records, options in their many spellings, videos and their ids."""

import ast
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dsr.console import StageError
from dsr.mcq import ALPHABET, lettered

COLUMNS = (
    *("qa_id", "videoID", "question", "options", "answer", "type"),
    *("source_video", "quartet_id", "category", "file", "start", "end", "problem"),
)
"""`start`, `end`: seconds of the file that are the clip; NaN for all of it."""


_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_HASH = re.compile("[0-9a-f]{12}")
_LONGEST_LIST = 100_000
"""Characters of options in one text."""
_LONGEST = 150
"""Characters of an id, beside a hash."""


_WHOLE = {"start": math.nan, "end": math.nan}


class RowError(ValueError):
    """A row that cannot be used."""


@dataclass(frozen=True)
class Entry:
    """A record as a reader understands it."""

    id: str
    video: tuple[str, ...]
    """Places where the video may be, relative to the benchmark's folder, the first that exists is taken; the last one
    is the benchmark's own name for it, of which the clip's id is made."""
    question: str
    options: tuple[str, ...]
    """Without letters."""
    answer: str
    """A letter."""
    type: str
    category: str = ""
    source_video: str = ""
    """"" for the video itself."""
    group: str = ""
    """Questions that are right or wrong together (a quartet), or ""."""
    koala: str = ""
    """videoID of a clip of Koala-36M, if the video is one."""


@dataclass(frozen=True)
class Benchmark:
    name: str
    files: Mapping[str, Sequence[str]]
    """Variant -> patterns of its file of questions, the likeliest first."""
    read: Callable[[Mapping[str, Any], int, str], Entry]
    """(record, its place in the file, variant) -> entry; raises RowError, KeyError or ValueError for a bad record."""
    published: str
    """Address where it can be had."""


FindClips = Callable[[list[str]], Mapping[str, tuple[Path, float, float] | str]]
"""Clips of Koala-36M by their videoIDs: file, start and end in seconds (NaN for all of it), or why there is none."""


def read_table(benchmark: Benchmark, folder: Path, variant: str, find_clips: FindClips | None = None) -> pd.DataFrame:
    """See `dsr.evaluation.benchmarks.read_benchmark`."""
    if variant and variant not in benchmark.files:
        raise StageError(f"{benchmark.name} has no variant {variant!r}; known: {', '.join(benchmark.files)}")
    variants = [variant] if variant else list(benchmark.files)
    found = {name: path for name in variants if (path := _find(folder, benchmark.files[name]))}
    if not found:
        looked = ", ".join(pattern for name in variants for pattern in benchmark.files[name])
        raise StageError(
            f"no questions of {benchmark.name} in {folder} (looked for {looked}); published at {benchmark.published}"
        )
    root = folder if folder.is_dir() else folder.parent
    rows = [
        _row(benchmark, root, record, place, name)
        for name, path in found.items()
        for place, record in enumerate(read_records(path))
    ]
    if find_clips:
        _find_elsewhere(rows, find_clips)
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    _tell_cases_apart(table)
    repeated = table["qa_id"].duplicated()
    # A repeated id is made unique, or one of the two would vanish from the counts.
    table.loc[repeated, "qa_id"] = [f"{name}#{row}" for row, name in table.loc[repeated, "qa_id"].items()]
    return table


def read_records(path: Path) -> list[Any]:
    """The records of a .parquet, .json, .jsonl, .csv or .tsv file.

    Raises:
        StageError: it cannot be read.
    """
    try:
        match path.suffix:
            case ".parquet":
                return pd.read_parquet(path).to_dict("records")
            case ".csv" | ".tsv":
                separator = "\t" if path.suffix == ".tsv" else ","
                return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False).to_dict("records")
            case ".jsonl":
                return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        records = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path} cannot be read as {path.suffix.lstrip('.')}: {error}") from None
    if isinstance(records, dict):
        records = next((records[name] for name in ("data", "questions", "samples") if name in records), records)
    if not isinstance(records, list):
        raise StageError(f"{path} holds no list of questions")
    return records


def text_of(record: Mapping[str, Any], *names: str) -> str:
    """The first of the fields that is there and not empty, as a text.

    Raises:
        RowError: none is.
    """
    for name in names:
        value = record.get(name)
        if value is not None and not (isinstance(value, float) and math.isnan(value)) and str(value).strip():
            return str(value).strip()
    raise RowError(f"no {names[0]}")


def options_of(value: Any) -> dict[str, str]:
    """Options by letter, whether given as a mapping, a list, JSON, a list as Python writes it, or one text
    "A: …; B: …".

    Raises:
        RowError: none of these, fewer than two, or letters that are not A, B, C, … without a gap.
    """
    if isinstance(value, str):
        read = _as_json(value)
        if read is None:
            read = _as_python(value)
        if read is not None:
            value = read
        else:
            marks = list(re.finditer(r"(?:^|[;\n])\s*([A-Z])\s*[:.)]\s*", value))
            ends = [*(mark.start() for mark in marks[1:]), len(value)]
            value = {mark[1]: value[mark.end() : end] for mark, end in zip(marks, ends, strict=False)}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        value = dict(zip(ALPHABET, value, strict=False))
    if not isinstance(value, dict):
        raise RowError(f"options are no list or mapping: {value!r}")
    # Parquet gives every row the options that any row has.
    given = {str(k).strip().upper(): str(v).strip() for k, v in value.items() if v is not None and str(v).strip()}
    options = {k: re.sub(rf"^\(?{k}\s*[.:)]\s*", "", v) for k, v in given.items()}
    if len(options) < 2 or "".join(sorted(options)) != ALPHABET[: len(options)]:
        raise RowError(f"options are not two or more, from A on: {', '.join(sorted(options)) or 'none'}")
    return dict(sorted(options.items()))


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _as_python(text: str) -> list[str] | None:
    """A list of texts as Python writes it, or None."""
    try:
        value = ast.literal_eval(text.strip()) if text.strip().startswith("[") and len(text) < _LONGEST_LIST else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(option, str) for option in value) else None


def letter_of(answer: Any, options: Mapping[str, str]) -> str:
    """The letter of an answer that is given as a letter ("B", "(B)", "B. …").

    Raises:
        RowError: it is none of the options'.
    """
    found = re.match(r"\(?\s*([A-Za-z])\s*(?:[.:)]|$)", str(answer).strip())
    if not found or found[1].upper() not in options:
        raise RowError(f"answer {answer!r} is none of {', '.join(options)}")
    return found[1].upper()


def letter_of_value(answer: Any, options: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The letter of an answer that is given as an option's value, such as "left" or 2.

    An option that repeats the right one is taken out, since it would be right as well.

    Returns:
        The letter, and the options that are left, lettered anew.

    Raises:
        RowError: no option has this value.
    """
    same = [letter for letter, option in options.items() if _value(option) == _value(answer)]
    if not same:
        raise RowError(f"answer {answer!r} is the value of no option")
    kept = {letter: option for letter, option in options.items() if letter not in same[1:]}
    letter = ALPHABET[list(kept).index(same[0])]
    return letter, dict(zip(ALPHABET, kept.values(), strict=False))


def _value(value: Any) -> str:
    text = re.sub(r"\s+", " ", str(value)).strip().casefold()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text.rstrip(".")


def _row(benchmark: Benchmark, root: Path, record: Any, place: int, variant: str) -> dict[str, Any]:
    name = f"{benchmark.name}-{variant}-{place:06d}" if variant else f"{benchmark.name}-{place:06d}"
    blank = {
        **dict.fromkeys(COLUMNS, ""),
        **_WHOLE,
        "qa_id": name,
        "videoID": name,
        "source_video": name,
        "options": [],
    }
    if not isinstance(record, dict):
        return blank | {"problem": f"row {place} is no mapping"}
    try:
        entry = benchmark.read(record, place, variant)
        file, problem = _video(root, entry.video)
    except KeyError as error:
        return blank | {"problem": f"row without the field {error}"}
    except ValueError as error:
        return blank | {"problem": str(error)}
    clip = clip_name(entry.video[-1].removeprefix("./"))
    return {
        "qa_id": entry.id,
        "videoID": clip,
        "question": entry.question,
        "options": list(lettered(entry.options)),
        "answer": entry.answer,
        "type": entry.type,
        **_WHOLE,
        "source_video": entry.source_video or clip,
        "quartet_id": entry.group,
        "category": entry.category,
        "file": file,
        "problem": problem,
        "koala": "" if file else entry.koala,
    }


def _find_elsewhere(rows: list[dict[str, Any]], find_clips: FindClips) -> None:
    """Name the files of clips of Koala-36M that are not in the benchmark's folder."""
    wanted = sorted({row["koala"] for row in rows if row.get("koala")})
    found = find_clips(wanted) if wanted else {}
    for row in rows:
        clip = found.get(row.get("koala", ""))
        if isinstance(clip, str):
            row["problem"] += f"; {clip}"
        elif clip is not None:
            row.update(file=str(clip[0]), start=clip[1], end=clip[2], problem="")


def clip_name(path: str) -> str:
    """Id of a clip by its benchmark's name for the video, a path; different paths have different ids.

    Folders are joined by "--", and ".mp4" is left out. A path that cannot be read back from that (other characters or
    endings, names with "--") is written as well as it can be, with its hash.

    >>> clip_name("videos_real/davis/bear.mp4")
    'videos_real--davis--bear'
    >>> clip_name("a b.mp4"), clip_name("a_b.mp4")
    ('a_b--018c1c8ba1b3', 'a_b')
    """
    parts = path.removesuffix(".mp4").split("/")
    name = "--".join(parts)
    plain = path.endswith(".mp4") and name.split("--") == parts and all(map(_PLAIN.fullmatch, parts))
    if plain and len(name) <= _LONGEST and not (len(parts) > 1 and _HASH.fullmatch(parts[-1])):
        return name
    return _hashed(name, path)


def _hashed(name: str, path: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:_LONGEST]
    return f"{slug or 'clip'}--{hashlib.sha256(path.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _tell_cases_apart(table: pd.DataFrame) -> None:
    """Give ids that differ by case alone their hashes: some file systems take their cues for one file."""
    ids = table["videoID"].drop_duplicates()
    alike = set(ids[ids.str.casefold().duplicated(keep=False)])
    # No path of a video ends with "/": such a hash is no other's.
    own = {clip: _hashed(clip, f"{clip}/") for clip in alike}
    table["videoID"] = table["videoID"].replace(own)
    table["source_video"] = table["source_video"].replace(own)


def _video(root: Path, places: Sequence[str]) -> tuple[str, str]:
    """The video's file, and why there is none."""
    inside = root.resolve()
    for place in places:
        path = (root / place).resolve()
        if not path.is_relative_to(inside):
            raise RowError(f"video {place!r} is outside the benchmark's folder")
        if path.is_file():
            return str(path), ""
    return "", f"no video: {places[0]} does not exist"


def _find(folder: Path, patterns: Sequence[str]) -> Path | None:
    if folder.is_file():
        return folder
    for pattern in patterns:
        files = sorted(folder.glob(pattern))
        if files:
            return files[0]
    return None
