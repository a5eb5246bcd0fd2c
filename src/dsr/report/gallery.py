"""Questions to look at, right and wrong ones of every type, each with its frames, its scene and its explanation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

import pandas as pd

from dsr import project
from dsr.console import StageError
from dsr.explain.explanation import explain, explanation_text
from dsr.explain.explanation_picture import draw_explanation
from dsr.explain.pictures import jpeg_data_url
from dsr.mcq import LETTERS, TYPES
from dsr.params import Params


@dataclass(frozen=True)
class Card:
    """A question of the gallery."""

    qa_id: str
    type: str
    clip_id: str
    question: str
    options: Sequence[str]
    answer: str
    """Letter."""
    prediction: str
    """Letter; "" where the question was not scored."""
    picture: str
    """A JPEG as a data URL; "" where the question could not be explained."""
    explanation: str
    """Explanation of the answer, or the reason why there is none."""

    @property
    def marked(self) -> list[tuple[str, bool, bool]]:
        """Each option with whether it is right, and whether it was predicted."""
        return [
            (option, letter == self.answer, letter == self.prediction)
            for letter, option in zip(LETTERS, self.options, strict=False)
        ]


def choose(root: Path, each: int) -> dict[str, list[tuple[str, str]]]:
    """(qa_id, predicted letter) of at most `each` questions for each heading, spread over the types.

    Which ones: by a hash of their id, so that a new run of the model shows the same questions as far as it can.

    Raises:
        StageError: no readable pool.
    """
    try:
        pool = pd.read_parquet(root / project.POOL, columns=["qa_id", "type"])
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"{project.POOL} cannot be read: {error}") from None
    try:
        columns = ["qa_id", "type", "control", "prediction", "correct", "status"]
        table = pd.read_parquet(root / project.BENCH_PREDICTIONS, columns=columns)
    except (OSError, ValueError, KeyError):
        return {"Questions": [(qa_id, "") for qa_id in _spread(pool, each)]}
    scored = table[(table["control"] == "score") & (table["status"] == "scored") & table["qa_id"].isin(pool["qa_id"])]
    letters = dict(zip(scored["qa_id"], scored["prediction"], strict=True))
    right = scored["correct"].astype(bool)
    return {
        title: [(qa_id, str(letters[qa_id])) for qa_id in _spread(part, each)]
        for title, part in (("Answered right", scored[right]), ("Answered wrong", scored[~right]))
    }


def _spread(questions: pd.DataFrame, count: int) -> list[str]:
    """At most `count` ids, the types taken in turn."""
    by_type = [
        sorted(questions.loc[questions["type"] == name, "qa_id"], key=lambda qa_id: (crc32(qa_id.encode()), qa_id))
        for name in TYPES
    ]
    turns = max(map(len, by_type), default=0)
    chosen = [ids[turn] for turn in range(turns) for ids in by_type if turn < len(ids)]
    return chosen[:count]


def cards(params: Params, root: Path, chosen: Sequence[tuple[str, str]]) -> Iterator[Card]:
    """The cards of chosen questions; one that cannot be explained says why."""
    wanted = [("qa_id", "in", [qa_id for qa_id, _ in chosen])]
    pool = pd.read_parquet(root / project.POOL, filters=wanted).set_index("qa_id")
    for qa_id, prediction in chosen:
        row = pool.loc[qa_id]
        try:
            found, cues, clip = explain(params, root, qa_id)
            picture = jpeg_data_url(partial(draw_explanation, found, cues, clip, words=False))
            explanation = explanation_text(found)
        except StageError as error:
            picture, explanation = "", f"not explained: {error}"
        yield Card(
            qa_id,
            str(row["type"]),
            str(row["videoID"]),
            str(row["question"]),
            [str(option) for option in row["options"]],
            str(row["answer"]),
            prediction,
            picture,
            explanation,
        )
