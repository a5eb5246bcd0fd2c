"""`dsr weights`: every published checkpoint, where it is had from, where it is expected, found or missing."""

from pathlib import Path

from dsr import console, project
from dsr.params import Model, Params
from dsr.weights import BACKBONE, FOUNDATION, PUBLISHED_WEIGHTS, Weight, foundation_weights, missing_files, weight_state


def run(params: Params, root: Path, check: bool = False) -> None:
    """Print a block a checkpoint.

    Args:
        check: read every file whose hash is known, and compare.
    """
    missing = show(params, root, check)
    if missing:
        needed = len(needed_weights(params))
        console.warn(f"{len(missing)} of the {needed} checkpoints that the parameters need are missing")


def show(params: Params, root: Path, check: bool = False) -> list[str]:
    """Print a block a checkpoint; returns those that the parameters need and that are not whole, in words."""
    needed = needed_weights(params)
    # The foundation backend's folder is a parameter.
    own = [weight for weight in PUBLISHED_WEIGHTS if weight.needed_for != FOUNDATION]
    for weight in dict.fromkeys([*own, *foundation_weights(params.cues.foundation.weights).values(), *needed]):
        use = "needed now" if weight in needed else f"for {weight.needed_for}"
        lines = [
            f"{weight.path}: {weight_state(weight, root, check)}",
            f"{weight.name}, {use}, from {weight.published}",
        ]
        if weight.size:
            of = "" if weight.is_file else " of model.safetensors"
            lines.append(f"{weight.size:,} bytes{of}, sha256 {weight.sha256}")
        # Lines, not a table: what a narrow terminal cuts off cannot be looked up.
        console.console.print("\n  ".join(lines), markup=False, highlight=False)
    absent = {weight: missing_files(project.locate(root, weight.path)) for weight in needed}
    return [
        # A file that is there and damaged is named.
        f"{weight.path}{f': {files[0]}' if '(' in files[0] else ''} (from {weight.published})"
        for weight, files in absent.items()
        if files
    ]


def needed_weights(params: Params) -> list[Weight]:
    """Checkpoints that the stages would load with these parameters."""
    needed: list[Weight] = []
    if params.cues.backend == "foundation" and params.cues.foundation.preset == "published":
        needed += foundation_weights(params.cues.foundation.weights).values()
    if folder := params.model.backbone:
        known = [weight for weight in PUBLISHED_WEIGHTS if weight.path == folder.rstrip("/")]
        origin = "this project's repository" if folder == Model.backbone else "where you had it from"
        needed += known or [Weight("model.backbone", folder, origin, BACKBONE)]
    return needed
