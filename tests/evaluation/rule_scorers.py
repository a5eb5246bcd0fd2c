"""Scorers that need no model, and benchmarks whose questions they answer."""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from dsr.evaluation.controls import ControlError
from dsr.evaluation.prediction_cache import Reply
from dsr.mcq import Question
from dsr.questions.language.transforms import ClipFacts

Rule = Callable[[Question, str], Reply]


class RuleScorer:
    """Answers by a rule over the question and the control, in batches of three, and counts what it was asked."""

    identity = "rule"

    def __init__(self, rule: Rule, missing: dict[str, str] | None = None, refuses: str = "") -> None:
        self.rule, self.missing, self.refuses = rule, dict(missing or {}), refuses
        self.notes: list[str] = []
        self.asked: list[str] = []

    def facts(self, clip_id: str) -> ClipFacts:
        return ClipFacts(640, 0.0, 6.0)

    def clip_hash(self, clip_id: str, control: str) -> str:
        if control == self.refuses:
            raise ControlError("the model takes no geometry (gsm.fusion: none)")
        return clip_id

    def __call__(self, questions: Sequence[Question], control: str) -> Iterator[dict[int, Reply]]:
        for start in range(0, len(questions), 3):
            replies = {}
            for place, question in list(enumerate(questions))[start : start + 3]:
                self.asked.append(question.qa_id)
                replies[place] = self.rule(question, control)
                if replies[place].problem:
                    self.missing[question.qa_id] = replies[place].problem
            yield replies


def says(letter: str) -> Reply:
    """Log-probabilities that favour a letter of four."""
    return Reply(log_probs=tuple(-0.1 if other == letter else -4.0 for other in "ABCD"))


def benchmark() -> pd.DataFrame:
    """Four clips with a quartet each, two of every type."""
    return pd.DataFrame(
        [
            {
                "videoID": f"clip{clip}",
                "question": "How does the distance change?",
                "options": ["A. grows", "B. shrinks", "C. constant", "D. grows, then shrinks"],
                "answer": letter,
                "type": ["rel_dis", "abs_dir"][clip % 2],
                "qa_id": f"qa{clip}{letter}",
                "quartet_id": f"q{clip}",
                "source_video": f"clip{clip}",
                "block": clip % 2,
            }
            for clip in range(4)
            for letter in "ABCD"
        ]
    )
