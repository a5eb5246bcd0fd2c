"""`dsr curate --compare`: rules against a language model on the same clips, with measured motion as a third voice.

It writes metrics/curation.json (how often two voices agree, by field), and in metrics/curation/ the table behind it
(`fields.csv`) and the clips on which they differ (`differing.csv`). data/clips/curated.parquet stays as it is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from dsr import console, project
from dsr.console import StageError
from dsr.cues.schema import PIXELWISE, CuesError, cue_path, read_cues
from dsr.curation.curate import BACKENDS, usable_clips
from dsr.curation.curated import Curated
from dsr.files import write_metrics
from dsr.params import Params
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
    measured = [_measured(root, clip_id, least) for clip_id in clips["clip_id"]]
    fields, differing = compare(clips, rules, model, measured)
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
                for name, value in (("share", row.share), ("kappa", row.kappa), ("overlap", row.overlap))
                if np.isfinite(value)
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
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Agreement by field, and the clips on which voices differ; clips that the model gave no answer for are left out.

    Args:
        clips: clip_id and caption.
        measured: motion of each clip and the number of its things that move, None where there are no cues.

    Returns:
        fields: field, voices a and b, clips, same, share; kappa (Cohen's) of what has few values; of agents and
            objects the overlap, things that both name of those that either names.
        differing: a row a clip, with what each voice says.
    """
    answered = [_answered(clip) for clip in model]
    rows = []
    for name, value in _FIELDS.items():
        pairs = [(value(a), value(b)) for a, b, ok in zip(rules, model, answered, strict=True) if ok]
        rows.append(_agreement(name, RULES, MODEL, pairs))
    for voice, clips_of, known in ((RULES, rules, [True] * len(rules)), (MODEL, model, answered)):
        pairs = [
            (clip.dynamic, found[1] > 0)
            for clip, found, ok in zip(clips_of, measured, known, strict=True)
            if ok and found is not None
        ]
        rows.append(_agreement("dynamic", voice, CUES, pairs))
    counts = [
        (clip.notes["num_moving"], found[1])
        for clip, found, ok in zip(model, measured, answered, strict=True)
        if ok and found is not None
    ]
    rows.append(_agreement("num_moving", MODEL, CUES, counts))
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


def _agreement(field: str, a: str, b: str, pairs: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    same = sum(first == second for first, second in pairs)
    kappa = overlap = np.nan
    if field in _SETS:
        either = sum(len(first | second) for first, second in pairs)
        overlap = sum(len(first & second) for first, second in pairs) / either if either else np.nan
    elif len({value for pair in pairs for value in pair}) > 1:
        # Where all say the same, there is no chance to agree beyond.
        kappa = float(cohen_kappa_score([str(first) for first, _ in pairs], [str(second) for _, second in pairs]))
    share = same / len(pairs) if pairs else np.nan
    return {"field": field, "a": a, "b": b, "clips": len(pairs), "same": same, "share": share} | {
        "kappa": kappa,
        "overlap": overlap,
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
