"""`dsr explain`: one question, its answer, how and why, and what the trained model makes of it."""

import json
from pathlib import Path

import pandas as pd

from dsr import project
from dsr.console import StageError
from dsr.explain.explanation import Explanation, explain, explanation_text
from dsr.explain.model_view import ModelView, view_text
from dsr.params import Params
from dsr.weights import missing_files


def run(params: Params, root: Path, qa_id: str, png: Path | None = None, with_model: bool = True) -> None:
    """Print the explanation of a question, and draw it into `png`.

    Args:
        with_model: read the trained model, where there is one.

    Raises:
        StageError: no such question, or no cues of its clip.
    """
    found, cues, clip = explain(params, root, qa_id)
    print(explanation_text(found))
    view: ModelView | str | None = None
    if with_model:
        view = find_view(root, found)
        print(f"\n{view_text(view)}")
    if png is not None:
        from dsr.explain.explanation_picture import write_picture

        write_picture(png, found, cues, clip, view if isinstance(view, ModelView) else None)


def find_view(root: Path, found: Explanation) -> ModelView | str:
    """The trained model's view on a question, or why there is none."""
    if reason := _without_view(root / project.MODEL):
        return reason
    from dsr.explain.model_reading import read_view  # torch, which is slow to import

    try:
        return read_view(root, found, _is_for_training(root, found.row["qa_id"]))
    except StageError as error:
        return str(error)


def _without_view(folder: Path) -> str:
    """Reason why a folder's model has no view to show; "" if it may have one."""
    absent = missing_files(folder)
    if absent[:1] == ["config.json"]:
        return f"{project.MODEL} holds no model: run `dsr train`"
    if absent:
        return f"{project.MODEL} is not whole: {', '.join(absent)}"
    config = json.loads((folder / "config.json").read_text())
    if not isinstance(config, dict):
        return f"{project.MODEL / 'config.json'} is no configuration of a model"
    fusion = config.get("gsm", {}).get("fusion", "none")
    return "" if fusion == "gsm" else f"{project.MODEL} has fusion '{fusion}' and no selector"


def _is_for_training(root: Path, qa_id: str) -> bool:
    try:
        return bool(len(pd.read_parquet(root / project.TRAIN, filters=[("qa_id", "==", qa_id)])))
    except (OSError, ValueError):
        return False
