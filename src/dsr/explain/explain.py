"""`dsr explain`: one question, its answer, and how and why."""

from pathlib import Path

from dsr.explain.explanation import explain, explanation_text
from dsr.params import Params


def run(params: Params, root: Path, qa_id: str, png: Path | None = None) -> None:
    """Print the explanation of a question, and draw it into `png`.

    Raises:
        StageError: no such question, or no cues of its clip.
    """
    found, cues, clip = explain(params, root, qa_id)
    print(explanation_text(found))
    if png is not None:
        from dsr.explain.explanation_picture import write_picture

        write_picture(png, found, cues, clip)
