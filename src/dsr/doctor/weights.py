"""`dsr weights`: every published checkpoint, where it is had from, where it is expected, found or missing."""

from pathlib import Path

from dsr import console
from dsr.files import sha256_file
from dsr.params import Params
from dsr.weights import BACKBONE, FOUNDATION, PUBLISHED_WEIGHTS, Weight, foundation_weights, missing_files


def run(params: Params, root: Path, check: bool = False) -> None:
    """Print a block a checkpoint.

    Args:
        check: read every file whose hash is known, and compare.
    """
    missing = show(params, root, check)
    if missing:
        needed = len(needed_weights(params))
        console.warn(f"{len(missing)} of the {needed} checkpoints that the parameters need are missing")


def show(params: Params, root: Path, check: bool = False) -> list[Weight]:
    """Print a block a checkpoint, and return those that the parameters need and that are not whole."""
    needed = needed_weights(params)
    # The foundation backend's folder is a parameter.
    own = [weight for weight in PUBLISHED_WEIGHTS if weight.needed_for != FOUNDATION]
    for weight in dict.fromkeys([*own, *foundation_weights(params.cues.foundation.weights).values(), *needed]):
        use = "needed now" if weight in needed else f"for {weight.needed_for}"
        lines = [f"{weight.path}: {state(weight, root, check)}", f"{weight.name}, {use}, from {weight.published}"]
        if weight.size:
            of = "" if weight.is_file else " of model.safetensors"
            lines.append(f"{weight.size:,} bytes{of}, sha256 {weight.sha256}")
        # Lines, not a table: what a narrow terminal cuts off cannot be looked up.
        console.console.print("\n  ".join(lines), markup=False, highlight=False)
    return [weight for weight in needed if missing_files(root / weight.path)]


def needed_weights(params: Params) -> list[Weight]:
    """Checkpoints that the stages would load with these parameters."""
    needed: list[Weight] = []
    if params.cues.backend == "foundation" and params.cues.foundation.preset == "published":
        needed += foundation_weights(params.cues.foundation.weights).values()
    if folder := params.model.backbone:
        known = [weight for weight in PUBLISHED_WEIGHTS if weight.path == folder.rstrip("/")]
        needed += known or [Weight("model.backbone", folder, "where you had it from", BACKBONE)]
    return needed


def state(weight: Weight, root: Path, check: bool = False) -> str:
    """`found`, or what is wrong with it, in a few words."""
    path, main = root / weight.path, root / weight.main_file
    absent = missing_files(path)
    if absent:
        more = " …" if len(absent) > 3 else ""
        return f"incomplete, without {', '.join(absent[:3])}{more}" if path.is_dir() else "missing"
    if weight.size and main.is_file():
        if main.stat().st_size != weight.size:
            return f"found, but {main.stat().st_size:,} bytes instead of {weight.size:,}"
        if check and sha256_file(main) != weight.sha256:
            return "found, but its content is not the published one (sha256)"
        return "found, content as published" if check else "found"
    return "found"
