"""Requests to OpenAI-compatible servers, for scoring and curation alike.

The key is read from the environment when a request is made; it is in no message, no log and no cache, also where the
server repeats it. No redirect is followed: it would take the key to an address that nobody named. A request is bounded
in time, from the first byte to the last, and its answer in bytes. A server that is busy, broken or out of reach is
asked again after a growing pause (or after the one that it names), and stops the run if it stays so, as do a wrong key
and a wrong address: every further question would fare alike.
"""

import base64
import io
import json
import math
import os
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection, responses
from socket import SHUT_RDWR, socket
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from dsr.console import StageError
from dsr.params import ChatServer

T = TypeVar("T")
MAX_ANSWER = 1 << 20
"""Bytes of an answer that are read; no answer that can be used is as long."""
_TRY_AGAIN = (408, 409, 425, 429)
"""And from 500 on."""
_OF_ALL = (401, 402, 403, 404, 405, 407, 410)
"""Refusals to every question: of the key, the account, the address or the model."""
_LONGEST_PAUSE = 60.0
_LONGEST_ASKED_PAUSE = 600.0
"""Seconds that a server may ask to be left alone for; one that asks for more stops the run."""
_READ, _SHOWN = 4096, 300
"""Characters of a server's refusal that are read, and shown."""
_TOKENS_AN_IMAGE, _CHARACTERS_A_TOKEN = 1000, 4
"""Estimate for a server that does not report its tokens."""


class RefusedError(Exception):
    """A question that the server does not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, 0 for an answer of no known form."""


@dataclass(frozen=True)
class Completion:
    """Answer of a chat model."""

    text: str
    problem: str = ""
    """Reason why the text cannot be used, whatever it says: a refusal, nothing, too much, cut off."""
    refused: bool = False
    """True where asking again is of no use."""
    tokens_in: int = 0
    tokens_out: int = 0
    """As the server reports them, else as estimated."""


class Meter(Protocol):
    """A `dsr.language_models.budget.Budget`: what is told of every request."""

    def take(self) -> None:
        """Before a request.

        Raises:
            StageError: none may be made any more.
        """

    def spend(self, tokens_in: int, tokens_out: int) -> None:
        """After an answer."""


def chat(
    server: ChatServer,
    body: dict[str, Any],
    meter: Meter | None = None,
    happened: Counter[str] | None = None,
    stop: threading.Event | None = None,
) -> Completion:
    """Answer of a server to one request.

    Args:
        body: JSON of the request.
        happened: counts what went wrong on the way, and was borne.
        stop: when it is set no further attempt is made, and no pause is waited for.

    Raises:
        RefusedError: it refuses this question, or answers in no known form.
        StageError: it refuses all questions, is still busy or out of reach after the last attempt, the budget is used
            up, or the run is stopped.
    """
    address, key = f"{server.url.rstrip('/')}/chat/completions", _key(server)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    pause, problem, counts = server.pause, "", Counter() if happened is None else happened
    for attempt in range(server.retries + 1):
        if attempt:
            if (stop or threading.Event()).wait(pause):
                raise StageError(f"{address}: stopped after {attempt} attempts ({problem[:_SHOWN]})")
            pause = min(2 * pause, _LONGEST_PAUSE)
        if meter:
            meter.take()
        try:
            status, said, content = _exchange(request, server.timeout)
            if status < 300:
                return _counted(_completion(content, key), body, content, meter)
        except (OSError, HTTPException, ValueError) as error:
            problem = _without(key, str(error)) or type(error).__name__
            late = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
            garbled = isinstance(error, ValueError)
            counts["no answer in time" if late else "garbled answer" if garbled else "connection lost"] += 1
            continue
        problem = f"HTTP {status}: {_refusal(status, content, server, key)}"
        if status < 400 or status in _OF_ALL:
            raise StageError(f"{address} refuses: {problem}")
        if status < 500 and status not in _TRY_AGAIN:
            raise RefusedError(f"the server refuses: {problem}", status)
        counts[f"HTTP {status}"] += 1
        asked = _asked_pause(said.get("Retry-After", ""))
        if asked > _LONGEST_ASKED_PAUSE:
            raise StageError(
                f"{address} asks to be left alone for {asked:.0f} s ({problem}); what was answered is kept, so run the "
                "command again after that"
            )
        pause = max(pause, asked)
    raise StageError(
        f"{address} gave no answer in {server.retries + 1} attempts ({problem[:_SHOWN]}); "
        "what was answered is kept, so run the command again when the server is back"
    )


def answers(
    ask: Callable[[int], T], places: Iterable[int], concurrency: int, stop: threading.Event
) -> Iterator[tuple[int, T]]:
    """Yield (place, answer) as the answers come, so many requests under way at once.

    Args:
        stop: is set when no more is to be asked: after an error, or when the iterator is left.

    Raises:
        StageError: the first of an `ask`; answers on their way are given before.
    """
    waiting = iter(places)
    pending: dict[Future[T], int] = {}
    stopped: StageError | None = None
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                while stopped is None and len(pending) < concurrency:
                    place = next(waiting, None)
                    if place is None:
                        break
                    pending[pool.submit(ask, place)] = place
                if not pending:
                    break
                for done in wait(pending, return_when=FIRST_COMPLETED).done:
                    place = pending.pop(done)
                    try:
                        answer = done.result()
                    except StageError as error:
                        stopped = stopped or error
                        stop.set()
                    else:
                        yield place, answer
        finally:
            # Also on Ctrl-C: the pool waits for what is under way, which no pause is to draw out.
            stop.set()
    if stopped:
        raise stopped


def jpeg_url(frame: np.ndarray, quality: int) -> str:
    """A frame [H, W, 3] uint8 as a data URL."""
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """No redirects."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


_current = threading.local()
"""`sockets`: those that this thread's request has opened."""


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _current.sockets.append(self.sock)


class _SecureConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _current.sockets.append(self.sock)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Connection, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, request)


_OPENER = urllib.request.build_opener(_NoRedirect, _Http, _Https)


def _exchange(request: urllib.request.Request, timeout: float) -> tuple[int, Message, bytes]:
    """Status, headers and content of the answer to a request; of a refusal the beginning.

    A server that sends a byte now and then keeps within any timeout of a socket, so the connection is cut when the
    time is over.

    Raises:
        TimeoutError: it is over.
        OSError, HTTPException: no answer, or a part of one.
    """
    sockets: list[socket] = []
    _current.sockets = sockets
    over = threading.Event()

    def cut() -> None:
        over.set()
        for opened in sockets:
            with suppress(OSError):
                opened.shutdown(SHUT_RDWR)

    timer = threading.Timer(timeout, cut)
    timer.daemon = True
    timer.start()
    try:
        try:
            response = _OPENER.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            content = response.read(MAX_ANSWER + 1 if response.status < 300 else _READ)
    except (OSError, HTTPException, ValueError):
        if not over.is_set():
            raise
    finally:
        timer.cancel()
    if over.is_set():
        raise TimeoutError(f"no whole answer in {timeout:g} s")
    return response.status, response.headers, content


def _key(server: ChatServer) -> str:
    """Key from the environment, "" for none.

    Raises:
        StageError: it holds what no header can; the message does not.
    """
    key = os.environ.get(server.api_key_env, "").strip() if server.api_key_env else ""
    if not key.isascii() or not key.isprintable():
        raise StageError(f"{server.api_key_env} holds a line end or another character that a key cannot have")
    return key


def _without(key: str, text: str) -> str:
    """A text in which a server may have repeated the key, without it."""
    return text.replace(key, "…") if key else text


def _completion(content: bytes, key: str) -> Completion:
    """The answer that a server's JSON holds.

    Raises:
        ValueError: it is no JSON.
        RefusedError: it is JSON of another form.
    """
    if len(content) > MAX_ANSWER:
        return Completion("", f"the answer is longer than {MAX_ANSWER >> 20} MiB")
    try:
        answer = json.loads(content)
    except RecursionError:
        raise RefusedError("the server answers with JSON that is nested too deep") from None
    try:
        choice = answer["choices"][0]
        text, refusal = _text(choice["message"]), choice["message"].get("refusal")
        reason, usage = choice.get("finish_reason"), answer.get("usage")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise RefusedError("the server answers without choices[0].message.content") from None
    # A lone surrogate, which JSON can name, is in no file.
    text = _without(key, text.encode("utf-8", "replace").decode())
    tokens_in, tokens_out = (
        _count(usage.get(name)) if isinstance(usage, dict) else 0 for name in ("prompt_tokens", "completion_tokens")
    )
    problem = ""
    if refusal or reason == "content_filter":
        said = _without(key, str(refusal or reason).encode("utf-8", "replace").decode())
        problem = f"the model refuses: {' '.join(said.split())[:_SHOWN]}"
    elif not text.strip():
        problem = "the answer is empty" + (" (cut off at max_tokens)" if reason == "length" else "")
    elif reason == "length":
        problem = "the answer is cut off at max_tokens"
    return Completion(text, problem, problem.startswith("the model refuses"), tokens_in, tokens_out)


def _text(message: Any) -> str:
    content = message["content"]
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError
    return content or ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else 0


def _counted(answer: Completion, body: dict[str, Any], content: bytes, meter: Meter | None) -> Completion:
    """The answer with its tokens, estimated where the server reports none."""
    tokens_in, tokens_out = answer.tokens_in, answer.tokens_out
    if not tokens_in + tokens_out:
        parts = [part for message in body["messages"] for part in _parts(message)]
        images = sum(part.get("type") == "image_url" for part in parts)
        characters = sum(len(part.get("text", "")) for part in parts)
        tokens_in = images * _TOKENS_AN_IMAGE + -(-characters // _CHARACTERS_A_TOKEN)
        tokens_out = -(-len(answer.text or content) // _CHARACTERS_A_TOKEN)
    if meter:
        meter.spend(tokens_in, tokens_out)
    return Completion(answer.text, answer.problem, answer.refused, tokens_in, tokens_out)


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _refusal(status: int, content: bytes, server: ChatServer, key: str) -> str:
    """Beginning of what the server says, without the key should it repeat it."""
    text = _without(key, content.decode("utf-8", "replace"))
    if len(content) == _READ:
        # The end may be the beginning of the key, cut off.
        text = text[: len(text) - len(key)]
    text = " ".join(text.split()) or responses.get(status, "no reason given")
    hint = f" (is {server.api_key_env} set?)" if status in (401, 403) and not key else ""
    return text[:_SHOWN] + hint


def _asked_pause(value: str) -> float:
    """Seconds that Retry-After names, as a number or as a date; 0 where it names none.

    >>> _asked_pause("1.5"), _asked_pause("soon"), _asked_pause("-1"), _asked_pause("nan")
    (1.5, 0.0, 0.0, 0.0)
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
