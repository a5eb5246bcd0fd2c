"""`dsr curate --compare`: rules against a language model on the same clips, with measured motion as a third voice.

It writes metrics/curation.json (how often two voices agree, by field), and in metrics/curation/ the table behind it
(`fields.csv`) and the clips on which they differ (`differing.csv`). data/clips/curated.parquet stays as it is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsr import console, project
from dsr.console import StageError
from dsr.cues.schema import PIXELWISE, CuesError, cue_path, read_cues
from dsr.curation.curate import BACKENDS, usable_clips
from dsr.curation.curated import Curated
from dsr.files import write_metrics
from dsr.params import Params
from dsr.questions.agreement import kappa_with_interval
from dsr.questions.motion import motion, num_moving, ways

RULES, MODEL, CUES = "rules", "language_model", "cues"
_FIELDS: dict[str, Callable[[Curated], Any]] = {
    "kept": lambda clip: not clip.reason,
    "dynamic": lambda clip: clip.dynamic,
    "category": lambda clip: clip.category,
    "agents": lambda clip: frozenset(clip.agents),
    "objects": lambda clip: frozenset(clip.objects),
}
_SETS = ("agents", "objects")


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Compare the backends of curation.

    Raises:
        StageError: no catalogue, no language model named, or as `curation.backend: llm`.
    """
    if not params.curation.llm.model:
        raise StageError("curation.llm.model is empty: name the language model that rules are to be compared with")
    clips = usable_clips(root)
    rules, model = (BACKENDS[name](clips, params.curation, root) for name in ("rules", "llm"))
    least = params.curation.min_motion or params.qa.min_displacement
    measured = [_measured(root, clip_id, least) for clip_id in console.track(clips["clip_id"], "measuring motion")]
    fields, differing = compare(clips, rules, model, measured, params.qa.audit.seed)
    answered = sum(_answered(clip) for clip in model)
    figures: dict[str, Any] = {
        "clips": len(clips),
        "clips_answered": answered,
        "clips_measured": sum(found is not None for found in measured),
        "clips_that_differ": len(differing),
        "things_refused": sum(len(clip.notes["refused"]) for clip in model),
        "least_motion": least,
        "agreement": {
            f"{row.field}.{row.a}.{row.b}": {
                name: round(float(value), 4)
                for name in ("share", "kappa", "kappa_low", "kappa_high", "overlap")
                if np.isfinite(value := getattr(row, name))
            }
            for row in fields.itertuples()
        },
    }
    write_metrics(root / project.CURATION_METRICS, figures, {"fields": fields, "differing": differing})
    _report(figures, fields)


def _measured(root: Path, clip_id: str, least: float) -> tuple[float, int] | None:
    """Motion of a clip, and how many things go at least so far; None where it has no readable cues."""
    try:
        found = ways(read_cues(cue_path(root / project.CUES, clip_id), skip=PIXELWISE))
    except CuesError:
        return None
    return motion(found), num_moving(found, least)


def compare(
    clips: pd.DataFrame,
    rules: Sequence[Curated],
    model: Sequence[Curated],
    measured: Sequence[tuple[float, int] | None],
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Agreement by field, and the clips on which voices differ; clips that the model gave no answer for are left out.

    Args:
        clips: clip_id, source_video and caption.
        measured: motion of each clip and the number of its things that move, None where there are no cues.
        seed: of the bootstrap over source videos.

    Returns:
        fields: field, voices a and b, clips, same, share; kappa (Cohen's, with its interval) of what has few values; of
            agents and objects the overlap, things that both name of those that either names.
        differing: a row a clip, with what each voice says.
    """
    answered = [_answered(clip) for clip in model]
    everyone = list(zip(clips["source_video"], rules, model, measured, answered, strict=True))
    both = [voices for voices in everyone if voices[-1]]
    rows = [
        _agreement(name, RULES, MODEL, [(video, value(a), value(b)) for video, a, b, _, _ in both], seed)
        for name, value in _FIELDS.items()
    ]
    by_rules = [(video, a.dynamic, found[1] > 0) for video, a, _, found, _ in everyone if found]
    by_model = [(video, b.dynamic, found[1] > 0) for video, _, b, found, _ in both if found]
    counts = [(video, b.notes["num_moving"], found[1]) for video, _, b, found, _ in both if found]
    rows.append(_agreement("dynamic", RULES, CUES, by_rules, seed))
    rows.append(_agreement("dynamic", MODEL, CUES, by_model, seed))
    rows.append(_agreement("num_moving", MODEL, CUES, counts, seed))
    table = clips[["clip_id", "caption"]].reset_index(drop=True)
    for name, value in _FIELDS.items():
        for voice, curated in ((RULES, rules), (MODEL, model)):
            table[f"{name}_{voice}"] = [_cell(value(clip)) for clip in curated]
    for voice, curated in ((RULES, rules), (MODEL, model)):
        table[f"reason_{voice}"] = [clip.reason for clip in curated]
    table[f"num_moving_{MODEL}"] = [clip.notes["num_moving"] for clip in model]
    table[f"num_moving_{CUES}"] = pd.array([None if found is None else found[1] for found in measured], dtype="Int64")
    table["motion"] = [np.nan if found is None else found[0] for found in measured]
    apart = [_differ(*voices) for voices in zip(rules, model, measured, strict=True)]
    return pd.DataFrame(rows), table[np.array(answered, bool) & np.array(apart, bool)]


def _differ(rules: Curated, model: Curated, measured: tuple[float, int] | None) -> bool:
    said = any(value(rules) != value(model) for value in _FIELDS.values())
    return said or (measured is not None and model.dynamic != (measured[1] > 0))


def _answered(clip: Curated) -> bool:
    return bool(clip.notes["evidence"])


def _agreement(field: str, a: str, b: str, said: Sequence[tuple[str, Any, Any]], seed: int) -> dict[str, Any]:
    """Row of a field, given the source video of each clip and what voices a and b say."""
    same = sum(first == second for _, first, second in said)
    overlap, kappa = np.nan, {}
    if field in _SETS:
        either = sum(len(first | second) for _, first, second in said)
        overlap = sum(len(first & second) for _, first, second in said) / either if either else np.nan
    else:
        ratings = [(video, str(first), str(second)) for video, first, second in said]
        categories = sorted({value for _, *pair in ratings for value in pair})
        kappa = kappa_with_interval({(a, b): ratings}, categories, seed)
    share = same / len(said) if said else np.nan
    return {"field": field, "a": a, "b": b, "clips": len(said), "same": same, "share": share, "overlap": overlap} | {
        name: kappa.get(end, np.nan) for name, end in (("kappa", "value"), ("kappa_low", "low"), ("kappa_high", "high"))
    }


def _cell(value: Any) -> Any:
    return ", ".join(sorted(value)) if isinstance(value, frozenset) else value


def _report(figures: dict[str, Any], fields: pd.DataFrame) -> None:
    rows: dict[str, object] = {name.replace("_", " "): figures[name] for name in figures if name != "agreement"}
    for row in fields[fields["clips"] > 0].itertuples():
        beyond = f", kappa {row.kappa:.2f}" if np.isfinite(row.kappa) else ""
        beyond += f", {row.overlap:.1%} of the things" if np.isfinite(row.overlap) else ""
        names = f"{row.field}: {row.a} and {row.b}".replace("_", " ")
        rows[names] = f"the same for {row.same:,} of {row.clips:,} ({row.share:.1%}){beyond}"
    console.summary("curate: rules and language model", rows)
