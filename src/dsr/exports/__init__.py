"""Questions in the formats of other tools: benchmarks for VLMEvalKit and lmms-eval, conversations for fine-tuning.

An export is a folder that holds all it needs: the questions, the videos (linked, or cut where a question may not show
the whole clip), and the few lines of code that a tool wants. A question whose clip has no video is left out, and
counted.
"""

from collections.abc import Callable
from pathlib import Path

from dsr import project
from dsr.console import StageError, summary, warn
from dsr.exports import conversations, lmms_eval, vlmevalkit
from dsr.exports.exported import Exported, read_exported

EXPORTS: dict[str, Callable[[list[Exported], Path, str], list[Path]]] = {
    "vlmevalkit": vlmevalkit.write,
    "lmms-eval": lmms_eval.write,
    "qwen-sft": conversations.write_qwen,
    "sharegpt": conversations.write_sharegpt,
}


def run(root: Path, name: str, output: Path, questions: str) -> None:
    """Write an export.

    Args:
        questions: `bench`, `train`, or a parquet file of questions.

    Raises:
        StageError: no such format, no such questions, or not one of them has a video.
    """
    if name not in EXPORTS:
        raise StageError(f"unknown format {name!r}; known: {', '.join(EXPORTS)}")
    path = root / project.QA / f"{questions}.parquet" if questions in ("bench", "train") else Path(questions)
    exported, left_out = read_exported(root, path, output)
    if not exported:
        raise StageError(f"not one question of {path} has a video; the first: {next(iter(left_out), 'no questions')}")
    files = EXPORTS[name](exported, output, f"dsr_{path.stem}")
    for reason, count in left_out.items():
        warn(f"{count:,} questions left out: {reason}")
    shown: dict[str, object] = {"questions": len(exported), "videos": len({e.video for e in exported})}
    summary("export", shown | {"written": ", ".join(str(file) for file in files)})
