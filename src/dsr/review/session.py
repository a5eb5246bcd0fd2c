"""A reviewer's session: the questions in their order, what was said of them, and what follows.

Design choices:
- The derived answer and the explanation leave the server only after the reviewer's own answer has arrived, and the
  first own answer stays, whatever the page sends later: one who has seen the answer agrees with it far more often.
- The file of verdicts is read again whenever it has changed, so that another tab, another process or a merge is seen.
- A verdict names the one that it takes the place of. If that is not the latest (it was given in another tab), it is
  refused and the page shows the other one.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsr import project
from dsr.console import StageError
from dsr.explain.explanation import closest_call, explain
from dsr.explain.explanation_picture import draw_explanation
from dsr.explain.pictures import png_bytes
from dsr.mcq import Question, question_hash, read_row
from dsr.params import Params
from dsr.questions.verdicts import (
    EDIT,
    REASONS,
    REJECT,
    UNSURE,
    VERDICTS,
    WITHDRAW,
    Verdict,
    append_verdict,
    edit_problem,
    in_force,
    read_verdicts,
    verdict_problem,
)
from dsr.review.clips import Clips, Frames, Recent

_PICTURES = 32
"""Explanations that are kept."""
_AHEAD = 4
"""Explanations that wait to be drawn, for the questions asked for last."""
_TIME = "%Y-%m-%dT%H:%M:%S.%f"


class RefusedError(Exception):
    """A request that makes no sense; the message is for the reviewer."""

    def __init__(self, message: str, status: int = 400, current: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.current = current
        """The verdict that stands, where another one was expected."""


@dataclass(frozen=True)
class Explained:
    """An explanation for the page."""

    lines: Sequence[str]
    png: bytes


class Session:
    """One reviewer and the questions to review."""

    def __init__(self, params: Params, root: Path, questions: pd.DataFrame, reviewer: str) -> None:
        """
        Args:
            questions: of `mcq.read_questions`, in the order of the review.
        """
        self.reviewer = reviewer
        self.path = root / project.VERDICTS
        self.clips = Clips(root)
        self._params, self._root = params, root
        self._rows = {row["qa_id"]: row for row in questions.to_dict("records")}
        self._asked = {qa_id: read_row(row) for qa_id, row in self._rows.items()}
        self._hashes = {qa_id: question_hash(question) for qa_id, question in self._asked.items()}
        self._own_answers: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._read: tuple[object, dict[str, list[Verdict]]] = (None, {})
        self._frames: Recent[Frames] = Recent(self._make_frames, 4)
        self._explaining = ThreadPoolExecutor(1, "explanation")
        self._explanations: dict[str, Future[Explained | str]] = {}
        self.given = 0
        """Verdicts of this session."""

    def close(self) -> None:
        """Wait for a verdict that is being written; what is being drawn is left."""
        self._lock.acquire()
        self._explaining.shutdown(wait=False, cancel_futures=True)

    # --- What was said ---

    def _verdicts(self) -> dict[str, list[Verdict]]:
        try:
            stat = self.path.stat()
            now: object = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:
            now = ()
        if now != self._read[0]:
            self._read = (now, in_force(read_verdicts(self.path)))
        return self._read[1]

    def _mine(self, qa_id: str) -> Verdict | None:
        """This reviewer's verdict on the wording that is shown: given on it, or an edit that made it."""
        own = [verdict for verdict in self._verdicts().get(qa_id, ()) if verdict.reviewer == self.reviewer]
        key = self._hashes[qa_id]
        for verdict in reversed(own):
            made = replace(self._asked[qa_id], question=verdict.edited_question)
            if verdict.question_hash == key or (verdict.verdict == EDIT and question_hash(made) == key):
                return verdict
        return None

    def _state(self, qa_id: str) -> dict[str, Any]:
        mine, key = self._mine(qa_id), self._hashes[qa_id]
        every = self._verdicts().get(qa_id, ())
        others = [verdict for verdict in every if verdict.reviewer != self.reviewer and verdict.question_hash == key]
        state: dict[str, Any] = {"verdict": mine.verdict if mine else "", "others": len(others)}
        if mine is None:
            return state | {"stale": any(verdict.reviewer == self.reviewer for verdict in every)}
        differs = mine.own_answer != self._asked[qa_id].answer
        rejected = {verdict.verdict == REJECT for verdict in (mine, *others)}
        return state | {"differs": differs, "disputed": len(rejected) > 1, "time": mine.time}

    def listing(self) -> dict[str, Any]:
        """The session: reviewer, reasons, and every question's id, type and state, without anything that tells an
        answer that the reviewer has not given."""
        return {
            "reviewer": self.reviewer,
            "reasons": REASONS,
            "unsure": UNSURE,
            "questions": [{"id": qa_id, "type": q.type} | self._state(qa_id) for qa_id, q in self._asked.items()],
        }

    # --- A question ---

    def question(self, qa_id: str) -> dict[str, Any]:
        """A question as it is shown; with the derived answer where the reviewer has answered."""
        asked, mine = self._find(qa_id), self._mine(qa_id)
        own = self._own_answers.get((qa_id, self._hashes[qa_id])) or (mine.own_answer if mine else "")
        self._explain_ahead(qa_id)
        return {
            "id": qa_id,
            "hash": self._hashes[qa_id],
            "type": asked.type,
            "question": asked.question,
            "options": asked.options,
            "clip": asked.clip_id,
            "state": self._state(qa_id),
            "mine": _shown(mine),
            "revealed": self._revealed(qa_id, own) if own else None,
            "about": self.clips.describe(self._rows[qa_id], bool(own)),
        }

    def _find(self, qa_id: str) -> Question:
        if qa_id not in self._asked:
            raise RefusedError(f"no question {qa_id!r} in this review", 404)
        return self._asked[qa_id]

    def clip_of(self, qa_id: str) -> str:
        """Id of a question's clip."""
        return self._find(qa_id).clip_id

    def _has_answered(self, qa_id: str) -> bool:
        self._find(qa_id)
        return (qa_id, self._hashes[qa_id]) in self._own_answers or self._mine(qa_id) is not None

    def _revealed(self, qa_id: str, own: str) -> dict[str, Any]:
        return {"own": own, "derived": self._asked[qa_id].answer}

    def answer(self, qa_id: str, own: str) -> dict[str, Any]:
        """Take the reviewer's own answer, and show the derived one."""
        asked = self._find(qa_id)
        if own not in (*asked.letters, UNSURE):
            raise RefusedError(f"an answer is {', '.join(asked.letters)} or {UNSURE}, not {own!r}")
        with self._lock:
            mine = self._mine(qa_id)
            first = self._own_answers.setdefault(
                (qa_id, self._hashes[qa_id]), mine.own_answer if mine and mine.own_answer else own
            )
        return self._revealed(qa_id, first) | {"about": self.clips.describe(self._rows[qa_id], True)}

    # --- A verdict ---

    def judge(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Write a verdict.

        Args:
            given: id, hash, verdict, own_answer, seconds, previous (time of the verdict that it takes the place of, or
                ""); reason, edited_question and note where they belong.

        Raises:
            RefusedError: it is none; or another verdict stands than the page knew (409).
        """
        qa_id = str(given.get("id", ""))
        asked = self._find(qa_id)
        if given.get("verdict") not in VERDICTS:
            raise RefusedError(f"verdict must be one of {', '.join(VERDICTS)}")
        if given.get("hash") != self._hashes[qa_id]:
            raise RefusedError("the question has changed since: load the page again", 409)
        with self._lock:
            mine = self._mine(qa_id)
            if str(given.get("previous", "")) != (mine.time if mine else ""):
                raise RefusedError("you have judged this question elsewhere", 409, _shown(mine))
            own = self._own_answers.get((qa_id, self._hashes[qa_id])) or (mine.own_answer if mine else "")
            verdict = Verdict(
                qa_id=qa_id,
                question_hash=self._hashes[qa_id],
                reviewer=self.reviewer,
                verdict=str(given.get("verdict", "")),
                reason=str(given.get("reason", "")),
                own_answer=own or str(given.get("own_answer", "")),
                seconds=_seconds(given.get("seconds")),
                time=_now(mine.time if mine else ""),
                edited_question=" ".join(str(given.get("edited_question", "")).split()),
                note=" ".join(str(given.get("note", "")).split()),
            )
            self._write(verdict, edit_problem(asked, verdict.edited_question) if verdict.verdict == EDIT else "")
            self.given += 1
        return {"state": self._state(qa_id), "mine": _shown(self._mine(qa_id))}

    def undo(self) -> dict[str, Any]:
        """Withdraw this reviewer's latest verdict among the questions of the session.

        Raises:
            RefusedError: there is none.
        """
        with self._lock:
            mine = [verdict for qa_id in self._asked if (verdict := self._mine(qa_id))]
            if not mine:
                raise RefusedError("there is no verdict to withdraw")
            last = max(mine, key=lambda verdict: verdict.time)
            # The own answer stays: the derived one was seen.
            self._own_answers.setdefault((last.qa_id, self._hashes[last.qa_id]), last.own_answer)
            gone = {"verdict": WITHDRAW, "reason": "", "edited_question": "", "note": "", "own_answer": ""}
            self._write(replace(last, **gone, seconds=0.0, time=_now(last.time)), "")  # type: ignore[arg-type]
        return {"id": last.qa_id, "state": self._state(last.qa_id)}

    def _write(self, verdict: Verdict, problem: str) -> None:
        if problem := problem or verdict_problem(verdict):
            raise RefusedError(problem)
        try:
            append_verdict(self.path, verdict)
        except OSError as error:
            raise RefusedError(f"{project.VERDICTS} cannot be written: {error}", 500) from None

    # --- Pictures ---

    def frames(self, qa_id: str) -> Frames:
        """Frames of a question's clip, in place of its video."""
        revealed = self._has_answered(qa_id)
        try:
            return self._frames(f"{int(revealed)}{qa_id}")
        except StageError as error:
            raise RefusedError(str(error), 404) from None

    def _make_frames(self, key: str) -> Frames:
        return self.clips.frames(self._rows[key[1:]], key[0] == "1")

    def explanation(self, qa_id: str) -> Explained:
        """Why the derived answer is what it is.

        Raises:
            RefusedError: the reviewer has not answered yet, or there is no explanation.
        """
        if not self._has_answered(qa_id):
            raise RefusedError("answer first", 403)
        future = self._explain_ahead(qa_id)
        try:
            found = future.result()
        except CancelledError:
            raise RefusedError("other questions were asked for since", 404) from None
        if isinstance(found, str):
            raise RefusedError(found, 404)
        return found

    def _explain_ahead(self, qa_id: str) -> "Future[Explained | str]":
        """Begin to draw, so that the picture is there when the reviewer has answered."""
        with self._lock:
            future = self._explanations.pop(qa_id, None)
            if future is None or future.cancelled():
                future = self._explaining.submit(self._explain, qa_id)
            self._explanations[qa_id] = future
            for place, old in enumerate(reversed(list(self._explanations))):
                # One that runs cannot be stopped; one that waits is drawn only for who is still there to see it.
                if place >= _PICTURES or (place >= _AHEAD and self._explanations[old].cancel()):
                    del self._explanations[old]
            return future

    def _explain(self, qa_id: str) -> Explained | str:
        try:
            found, cues, clip = explain(self._params, self._root, qa_id)
            png = png_bytes(lambda: draw_explanation(found, cues, clip, words=False))
        except StageError as error:
            return str(error)
        agreement = ", ".join(f"{name} {agree} of {of}" for name, (agree, of) in found.agreement().items())
        lines = [f"Closest call: {closest_call(found)}", f"Versions of the cues that agree: {agreement}"]
        if found.answer != found.right:
            lines.insert(0, f"On its cues as they are now the answer is another one: {found.answer}")
        return Explained(lines, png)


def _shown(verdict: Verdict | None) -> dict[str, Any] | None:
    names = ("verdict", "reason", "own_answer", "time", "edited_question", "note")
    return {name: getattr(verdict, name) for name in names} if verdict else None


def _seconds(value: object) -> float:
    seconds = float(value) if isinstance(value, int | float) else -1.0
    return seconds if np.isfinite(seconds) else -1.0


def _now(after: str) -> str:
    """The time, later than another one whatever the clock says."""
    now = datetime.now(UTC).replace(tzinfo=None)
    if after:
        now = max(now, datetime.strptime(after.removesuffix("Z"), _TIME) + timedelta(milliseconds=1))
    return now.isoformat(timespec="milliseconds") + "Z"
