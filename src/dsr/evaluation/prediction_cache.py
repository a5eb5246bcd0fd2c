"""Answers of models, kept by what they were asked: a run that was killed goes on where it was.

The key is the hash of the model (its files and the code that runs it), the prompt, the clip as it was shown, the
control and the scoring mode; whatever changes an answer is in one of them, so nothing needs to be thrown away.
Kept in one SQLite file, which a killed process leaves whole; DVC does not track it.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dsr.console import StageError

_KEYS_AT_ONCE = 500


@dataclass(frozen=True)
class Reply:
    """Answer of a model: log-probabilities of the letters, or a text."""

    log_probs: tuple[float, ...] | None = None
    text: str | None = None
    problem: str = ""
    """Reason why there is no answer; such a reply is not kept."""


class PredictionCache:
    """Replies by key, on disk, or in memory where there is no path.

    Raises:
        StageError: the file is no cache.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path or ":memory:", timeout=60)
            with self._db:
                self._db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT) WITHOUT ROWID")
        except sqlite3.DatabaseError as error:
            raise StageError(f"{path} is not a prediction cache ({error}): delete it") from None

    def __enter__(self) -> "PredictionCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def get(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The replies that are there."""
        wanted, found = list(keys), {}
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            part = wanted[start : start + _KEYS_AT_ONCE]
            places = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT key, reply FROM replies WHERE key IN ({places})", part)
            found.update({key: _read(reply) for key, reply in rows})
        return found

    def put(self, replies: Mapping[str, Reply]) -> None:
        """Keep replies, all or none of them."""
        rows = [(key, _write(reply)) for key, reply in replies.items() if not reply.problem]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", rows)


def _write(reply: Reply) -> str:
    return json.dumps({"log_probs": reply.log_probs, "text": reply.text})


def _read(reply: str) -> Reply:
    value = json.loads(reply)
    return Reply(None if value["log_probs"] is None else tuple(value["log_probs"]), value["text"])
