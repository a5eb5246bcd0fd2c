"""Questions and verdicts for tests."""

from dsr.mcq import Question, question_hash
from dsr.questions.verdicts import Verdict


def a_question(qa_id: str = "clip-rel_dis-0", text: str = "From 0.9 s to 1.5 s, how far is the cup?") -> Question:
    return Question(
        qa_id, "clip", text, ("A. It grows.", "B. It shrinks.", "C. It stays.", "D. It jumps."), "A", "rel_dis"
    )


def a_verdict(
    question: Question, verdict: str = "accept", reviewer: str = "ann", at: int = 0, **others: str
) -> Verdict:
    """A verdict at a second of one day; own answer A, and the reason "other" for a rejection."""
    given = {
        "reason": "other" if verdict == "reject" else "",
        "own_answer": "" if verdict == "withdraw" else "A",
        "time": f"2026-12-01T{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}.000Z",
        **others,
    }
    return Verdict(question.qa_id, question_hash(question), reviewer, verdict, seconds=4.0, **given)
