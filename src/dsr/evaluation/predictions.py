"""From questions to a table of predictions: one row a question and run, whatever it is that scores them.

Every question that was asked for has a row in every run, with a status, so that the counts add up:

- `scored`: there is a prediction;
- `unparsed`: the model wrote a text that gives no letter, or more than one;
- `missing`: the question could not be put (no video, no cues, malformed), with the reason;
- `left_out`: the control has no counterpart of the question, with the reason; never in the score itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from dsr.evaluation.answer_parsing import Parser, parse_answer
from dsr.evaluation.controls import CONTROLS, REWRITTEN, SCORE
from dsr.evaluation.prediction_cache import PredictionCache, Reply
from dsr.files import sha256_json
from dsr.mcq import ALPHABET, LETTERS, Question, about, question_hash, read_row, row_problem
from dsr.questions.language.transforms import ClipFacts, UndefinedError

FIXED_COLUMNS = (
    *("control", "qa_id", "videoID", "source_video", "quartet_id", "type"),
    *("viewpoint", "target", "answer_length", "category", "num_options", "asked"),
    *("answer", "prediction", "correct", "status", "reason", "text", "answer_states", "predicted_states"),
)
"""`asked` is a hash of the question and its options as they are in the table; `text` what the model wrote, if it
wrote; the states are those of `option_states`, where the table has them and the control leaves the options alone.
Log-probabilities follow: logp_A … logp_D, and more where a question has more options; NaN where there are none."""


class Scorer(Protocol):
    """Answers questions; `missing` says which it cannot be asked."""

    @property
    def missing(self) -> Mapping[str, str]:
        """qa_id -> why the question cannot be asked (no cues, unreadable video, …)."""
        ...

    @property
    def identity(self) -> str:
        """A hash of all that decides an answer besides the question and the clip: weights, code, scoring mode."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Notes for a reader of the result on how it came about."""
        ...

    def facts(self, clip_id: str) -> ClipFacts:
        """Facts of a clip that a rewritten question's words depend on; of clips whose questions are not missing."""
        ...

    def clip_hash(self, clip_id: str, control: str) -> str:
        """A hash of what the model is shown of a clip under a control.

        Raises:
            ControlError: the control makes no sense for this model or these clips.
        """
        ...

    def __call__(self, questions: Sequence[Question], control: str) -> Iterator[dict[int, Reply]]:
        """Replies to questions by their place, a batch at a time.

        Raises:
            ControlError: as `clip_hash`.
        """
        ...


def predict(
    questions: pd.DataFrame,
    scorer: Scorer,
    control: str = SCORE,
    parser: Parser = "lenient",
    cache: PredictionCache | None = None,
) -> pd.DataFrame:
    """One run over the questions, in their order; replies that the cache holds are not asked for again.

    The prediction is the option with the highest log-probability (the first of equals), or the letter that the text
    gives. A missing question is missing from all controls as well, so that all runs are about the same questions.

    Args:
        questions: of `dsr.mcq.read_questions` or a benchmark's reader; a column `problem` that is not ""
            makes a row missing.

    Returns:
        `FIXED_COLUMNS` and the log-probabilities.

    Raises:
        ControlError: the control makes no sense for this model or these clips.
    """
    rows = questions.to_dict("records")
    asked = [read_row(row) for row in rows]
    given = list(questions["problem"]) if "problem" in questions else [""] * len(asked)
    reasons = [
        problem or row_problem(row) or scorer.missing.get(question.qa_id, "")
        for problem, row, question in zip(given, rows, asked, strict=True)
    ]
    put: dict[int, Question] = {}
    left_out: dict[int, str] = {}
    for row, (question, reason) in enumerate(zip(asked, reasons, strict=True)):
        if reason:
            continue
        try:
            put[row] = CONTROLS[control].rewrite(question, scorer.facts(question.clip_id))
        except UndefinedError as error:
            left_out[row] = str(error)
    replies = _ask(put, scorer, control, cache or PredictionCache())
    for row, reply in replies.items():
        reasons[row] = reply.problem
    return _table(questions, asked, put, replies, reasons, left_out, control, parser)


def _ask(put: Mapping[int, Question], scorer: Scorer, control: str, cache: PredictionCache) -> dict[int, Reply]:
    clips = {clip: scorer.clip_hash(clip, control) for clip in dict.fromkeys(q.clip_id for q in put.values())}
    keys = {
        row: sha256_json(
            {
                "model": scorer.identity,
                "prompt": [question.question, question.options, question.shown_frames],
                "clip": clips[question.clip_id],
                "control": control,
            }
        )
        for row, question in put.items()
    }
    kept = cache.get(keys.values())
    replies = {row: kept[key] for row, key in keys.items() if key in kept}
    rest = [row for row in put if row not in replies]
    if rest:
        for batch in scorer([put[row] for row in rest], control):
            found = {rest[place]: reply for place, reply in batch.items()}
            cache.put({keys[row]: reply for row, reply in found.items()})
            replies |= found
    return replies


def _table(
    questions: pd.DataFrame,
    asked: Sequence[Question],
    put: Mapping[int, Question],
    replies: Mapping[int, Reply],
    reasons: Sequence[str],
    left_out: Mapping[int, str],
    control: str,
    parser: Parser,
) -> pd.DataFrame:
    count = len(asked)
    width = max([len(LETTERS), *(len(q.options) for q in asked)])
    log_probs = np.full((count, width), np.nan)
    predictions, statuses, texts = [""] * count, ["missing"] * count, [""] * count
    for row in left_out:
        statuses[row] = "left_out"
    for row, reply in replies.items():
        if reply.problem:
            continue
        if reply.log_probs is not None:
            log_probs[row, : len(reply.log_probs)] = reply.log_probs
            predictions[row] = ALPHABET[int(np.argmax(reply.log_probs))]
        else:
            texts[row] = reply.text or ""
            predictions[row] = parse_answer(texts[row], put[row].options, parser)
        statuses[row] = "scored" if predictions[row] else "unparsed"
    answers = [put.get(row, question).answer for row, question in enumerate(asked)]
    table = questions[["qa_id", "videoID", "source_video", "quartet_id", "type"]].reset_index(drop=True).astype(object)
    table["control"] = control
    table[["viewpoint", "target", "answer_length", "category"]] = about(questions).reset_index(drop=True)
    table["num_options"] = [len(question.options) for question in asked]
    table["asked"] = [question_hash(question) for question in asked]
    table["answer"], table["prediction"] = answers, predictions
    table["correct"] = [bool(p) and p == a for p, a in zip(predictions, answers, strict=True)]
    table["status"] = statuses
    table["reason"] = [left_out.get(row, reason) for row, reason in enumerate(reasons)]
    table["text"] = texts
    keep = control not in REWRITTEN and "option_states" in questions
    states = list(questions["option_states"]) if keep else [()] * count
    for column, letters in (("answer_states", answers), ("predicted_states", predictions)):
        told = zip(states, letters, strict=True)
        table[column] = [str(own[ALPHABET.index(letter)]) if letter and len(own) else "" for own, letter in told]
    table[[f"logp_{letter}" for letter in ALPHABET[:width]]] = log_probs
    return table[[*FIXED_COLUMNS, *(f"logp_{letter}" for letter in ALPHABET[:width])]]
