"""Answers of models, kept by what they were asked: a run that was killed goes on where it was.

The key is the hash of the model (its files and the code that runs it), the prompt, the clip as it was shown, the
control and the scoring mode; whatever changes an answer is in one of them, so nothing needs to be thrown away.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dsr.text_cache import TextCache


@dataclass(frozen=True)
class Reply:
    """Answer of a model: log-probabilities of the letters, or a text."""

    log_probs: tuple[float, ...] | None = None
    text: str | None = None
    problem: str = ""
    """Reason why there is no answer; such a reply is not kept."""


class PredictionCache(TextCache):
    """Replies by key."""

    def get(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The replies that are there."""
        return {key: _read(text) for key, text in self.texts(keys).items()}

    def put(self, replies: Mapping[str, Reply]) -> None:
        """Keep replies, all or none of them."""
        self.keep({key: _write(reply) for key, reply in replies.items() if not reply.problem})


def _write(reply: Reply) -> str:
    return json.dumps({"log_probs": reply.log_probs, "text": reply.text})


def _read(reply: str) -> Reply:
    value = json.loads(reply)
    return Reply(None if value["log_probs"] is None else tuple(value["log_probs"]), value["text"])
