"""Contents of the report: the pipeline's tables and metrics, read as far as they exist.

A section is None where its files are missing, and the reader is told so; a file that cannot be used is named and does
not keep the others from being shown.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dsr import project
from dsr.evaluation.controls import SCORE
from dsr.evaluation.metrics import ALL, MACRO
from dsr.files import metrics_table
from dsr.mcq import TYPES

MOST_ROWS = 200
"""Rows shown of the table of failures; the rest is counted."""
MARKED_CONTROLS = ("blind", "shuffled_geometry", "no_question", "first_frame")
"""Controls that are marked on the chart, a shape each; the table has them all."""
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


@dataclass
class Contents:
    """Sections of the report, and what could not be read."""

    clips: dict[str, Any] | None = None
    questions: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    failures: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Files that are not there, or why they cannot be used."""

    @property
    def more_failures(self) -> int:
        return max(len(self.failures) - MOST_ROWS, 0)


def read_contents(root: Path) -> Contents:
    """Read everything that a run of the pipeline has left in the project folder."""
    contents = Contents()
    files = _Files(root, contents.missing)
    catalog, curated = files.table(project.CATALOG), files.table(project.CURATED)
    manifest = files.json(project.CUES_MANIFEST)
    pool = files.table(project.POOL, ["videoID", "type", "quartet_id", "source_video"])
    sides = {path.stem: files.table(path, ["type", "videoID"]) for path in (project.TRAIN, project.BENCH)}
    counts = files.metrics(project.QA_METRICS, "clips_without_candidates")
    audit = files.metrics(project.AUDIT_METRICS, "attackers", "label_checks", "answers", "clips_not_checked")
    scores = files.metrics(project.EVAL_METRICS, "by_type", "quartets", "letters", "calibration", "reasons")
    contents.clips = files.section("clips", _clips, catalog, curated, manifest)
    contents.questions = files.section("questions", _questions, pool, counts, sides, audit)
    contents.audit = files.section("audit", _audit, audit)
    contents.evaluation = files.section("evaluation", _evaluation, scores)
    contents.failures = files.section("failures", _failures, catalog, curated, manifest, counts, audit, scores) or []
    return contents


@dataclass(frozen=True)
class _Files:
    root: Path
    missing: list[str]

    def table(self, name: Path, columns: list[str] | None = None) -> pd.DataFrame | None:
        return self._read(name, lambda path: pd.read_parquet(path, columns=columns))

    def json(self, name: Path) -> dict[str, Any] | None:
        return self._read(name, lambda path: json.loads(path.read_text()))

    def metrics(self, name: Path, *tables: str) -> dict[str, Any] | None:
        """Figures of a stage with the rows of these tables behind them."""
        figures = self.json(name)
        if figures is None:
            return None
        read = {table: self._read(metrics_table(name, table), _rows) or [] for table in tables}
        return {"figures": figures, **read}

    def _read(self, name: Path, read: Callable[[Path], Any]) -> Any:
        try:
            return read(self.root / name)
        except FileNotFoundError:
            self.missing.append(f"{name} does not exist")
        except _READ_ERRORS as error:
            self.missing.append(f"{name} cannot be read: {_one_line(error)}")
        return None

    def section(self, name: str, make: Callable[..., Any], *parts: Any) -> Any:
        """A section of these parts; a table or metric of another shape than expected leaves it out."""
        try:
            return make(*parts)
        except _READ_ERRORS as error:
            self.missing.append(f"the section on {name} is left out: {type(error).__name__} {_one_line(error)}")
            return None


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file; None stands for what is not defined."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _clips(
    catalog: pd.DataFrame | None, curated: pd.DataFrame | None, manifest: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    if catalog is None:
        return None
    found: dict[str, Any] = {"stages": []}
    found["stages"].append(("catalogued", len(catalog), int((catalog["status"] == "ok").sum())))
    good = catalog[catalog["status"] == "ok"]
    found["seconds"] = float((good["end"] - good["start"]).sum())
    found["source_videos"] = int(good["source_video"].nunique())
    if curated is not None:
        kept = curated[curated["status"] == "kept"]
        found["stages"].append(("curated", int((catalog["status"] == "ok").sum()), len(kept)))
        found["categories"] = kept["category"].value_counts().sort_index().to_dict()
        words = Counter(word for words in kept["agents"] for word in words)
        words.update(word for words in kept["objects"] for word in words)
        found["words"] = words.most_common(20)
    if manifest is not None:
        clips = manifest["clips"]
        ok = [entry for entry in clips.values() if entry["status"] == "ok"]
        found["stages"].append(("with cues", len(clips), len(ok)))
        found["tracks"] = sum(int(entry["tracks"]) for entry in ok)
        found["backend"] = manifest["backend"]
    return found


def _questions(
    pool: pd.DataFrame | None,
    counts: Mapping[str, Any] | None,
    sides: Mapping[str, pd.DataFrame | None],
    audit: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    if pool is None:
        return None
    evenness = {row["type"]: row for row in (audit or {"answers": []})["answers"]}
    types = [
        {
            "type": name,
            "pool": int((pool["type"] == name).sum()),
            **{s: None if t is None else int((t["type"] == name).sum()) for s, t in sides.items()},
            "answers": evenness.get(name, {}).get("answers"),
            "evenness": evenness.get(name, {}).get("evenness"),
        }
        for name in TYPES
    ]
    per_clip = pool["videoID"].value_counts()
    return {
        "questions": len(pool),
        "quartets": int(pool["quartet_id"].nunique()),
        "clips": len(per_clip),
        "median_per_clip": float(per_clip.median()) if len(per_clip) else 0.0,
        "types": types,
        "most": max((row["pool"] for row in types), default=0),
        "candidates": _fates(counts),
        "train": None if sides["train"] is None else len(sides["train"]),
        "bench": None if sides["bench"] is None else len(sides["bench"]),
    }


def _fates(counts: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Fates of the drawn candidates, the most frequent first."""
    if counts is None:
        return []
    figures = counts["figures"]
    drawn, unasked = figures["drawn"], sorted(figures["unasked"].items(), key=lambda item: -item[1])
    fates = [("asked", figures["questions"]), *unasked]
    return [{"fate": name, "count": n, "share": n / drawn if drawn else 0.0} for name, n in fates]


def _audit(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if audit is None:
        return None
    figures, attackers, checks = audit["figures"], audit["attackers"], audit["label_checks"]
    strongest = [row for row in attackers if row["attacker"] == "strongest"]
    views = {"options": "options alone", "question": "with the question"}
    overall = [row for row in attackers if row["type"] == ALL]
    exact = [row for row in checks if row["check"] == "exact" and row["type"] != ALL]
    return {
        "blind": figures["blind"],
        "overall": [_bar(views.get(r["view"], r["view"]), r) for r in strongest if r["type"] == ALL],
        "by_type": [_bar(r["type"], r) for r in strongest if r["type"] != ALL and r["view"] == "question"],
        "attackers": sorted(overall, key=lambda row: (row["view"], -row["accuracy"])),
        "labels": [_bar(_CHECKS.get(r["check"], r["check"]), r) for r in checks if r["type"] == ALL],
        "exact": [_bar(row["type"], row) for row in exact],
        "balance": figures["balance"],
    }


_CHECKS = {
    "same": "the cues as they are",
    "fresh": "fresh noise",
    "other": "noise of another shape",
    "exact": "exact truth",
}


def _evaluation(scores: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    rows = {(row["run"], row["type"]): row for row in scores["by_type"]}
    runs = list(dict.fromkeys(run for run, _ in rows))
    marked = [run for run in runs if run in MARKED_CONTROLS]
    bars = [
        {
            **_bar("mean of types" if kind == MACRO else kind, row),
            "marks": [{"run": control, "value": rows[control, kind]["accuracy"]} for control in marked],
        }
        for (run, kind), row in rows.items()
        if run == SCORE
    ]
    figures = scores["figures"]
    return {
        "bars": bars,
        "controls": marked,
        "gains": [rows[run, ALL] for run in runs if run != SCORE],
        "overall": rows[SCORE, ALL],
        "questions": figures["questions"],
        "quartets": [row for row in scores["quartets"] if row["type"] == ALL],
        "letters": [row for row in scores["letters"] if row["run"] == SCORE],
        "calibration": scores["calibration"],
        "calibration_error": figures.get("calibration_error"),
        "chance": figures["chance"],
    }


def _bar(label: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A bar of the report: an accuracy with its interval."""
    questions = row.get("asked", row.get("questions"))
    numbers = {"value": row["accuracy"], "low": row["low"], "high": row["high"]}
    return {"label": label, **numbers, "questions": questions, "marks": []}


def _failures(
    catalog: pd.DataFrame | None,
    curated: pd.DataFrame | None,
    manifest: Mapping[str, Any] | None,
    counts: Mapping[str, Any] | None,
    audit: Mapping[str, Any] | None,
    scores: Mapping[str, Any] | None,
) -> list[dict[str, str]]:
    """Everything that was left out somewhere on the way, with its reason."""

    def rows(stage: str, items: Iterable[tuple[Any, Any]]) -> list[dict[str, str]]:
        return [{"stage": stage, "what": str(what), "reason": str(reason)} for what, reason in items]

    found: list[dict[str, str]] = []
    for stage, table, good in (("catalog", catalog, ("ok",)), ("curate", curated, ("kept", "failed"))):
        if table is not None:
            bad = table[~table["status"].isin(good)]
            found += rows(stage, zip(bad["clip_id"], bad["reason"], strict=True))
    clips = (manifest or {}).get("clips", {})
    found += rows("cues", ((name, e["reason"]) for name, e in sorted(clips.items()) if e["status"] != "ok"))
    for stage, read, name in (("qa", counts, "clips_without_candidates"), ("audit", audit, "clips_not_checked")):
        found += rows(stage, ((row["clip_id"], row["reason"]) for row in (read or {name: []})[name]))
    missing = [row for row in (scores or {"reasons": []})["reasons"] if row["status"] == "missing"]
    found += rows("evaluate", ((f"{row['questions']} questions", row["reason"]) for row in missing))
    return found
