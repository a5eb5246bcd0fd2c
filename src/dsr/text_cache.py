"""Texts by key in one SQLite file, which a killed process leaves whole; answers of models are kept in it.

DVC does not track such a file: the key holds all that decides a text, so nothing in it goes out of date.
"""

import sqlite3
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from dsr.console import StageError

_KEYS_AT_ONCE = 500


class TextCache:
    """Texts by key, on disk, or in memory where there is no path. Threads may share it.

    Raises:
        StageError: the file is no cache, or a damaged one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._lock = path, threading.Lock()
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path or ":memory:", timeout=60, check_same_thread=False)
            with self._db:
                self._db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT) WITHOUT ROWID")
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def texts(self, keys: Iterable[str]) -> dict[str, str]:
        """The texts that are there."""
        wanted = list(keys)
        found: dict[str, str] = {}
        try:
            for start in range(0, len(wanted), _KEYS_AT_ONCE):
                part = wanted[start : start + _KEYS_AT_ONCE]
                places = ",".join("?" * len(part))
                with self._lock:
                    rows = self._db.execute(f"SELECT key, reply FROM replies WHERE key IN ({places})", part).fetchall()
                found.update(rows)
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from None
        return found

    def keep(self, texts: Mapping[str, str]) -> None:
        """Keep texts, all or none of them."""
        try:
            with self._lock, self._db:
                self._db.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", list(texts.items()))
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from None

    def keep_first(self, key: str, text: str) -> str:
        """Keep a text where there is none yet; returns the one that is kept, which another process may have brought."""
        try:
            with self._lock, self._db:
                self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, text))
                kept: str = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from None
        return kept

    def _unusable(self, error: sqlite3.DatabaseError) -> StageError:
        if isinstance(error, sqlite3.OperationalError):
            return StageError(f"{self._path} cannot be used ({error}): is the disk full, or another process at it?")
        return StageError(f"{self._path} is not a cache of answers ({error}): delete it")
