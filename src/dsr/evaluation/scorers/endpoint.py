"""Any OpenAI-compatible server as the model: frames go as images, the answer comes as a text.

The key is read from the environment when a request is made; it is in no message, no log and no cache, also where the
server repeats it. A server that is busy, broken or out of reach is asked again after a growing pause (or after the one
that it names), and stops the run if it stays so, as do a wrong key and a wrong address: every further question would
fare alike. A question that it refuses is missing, with the reason. Each answer is handed on as it comes.
"""

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from http.client import HTTPException
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dsr import console
from dsr.clips.video import VideoError, uniform_frames
from dsr.console import StageError
from dsr.cues.schema import CuesError
from dsr.evaluation.controls import CONTROLS, ControlError, clip_facts
from dsr.evaluation.prediction_cache import Reply
from dsr.examples.clips import ClipStore, find_problems
from dsr.examples.views import change_frames
from dsr.files import sha256_json
from dsr.mcq import FRAMES, Question, prompt
from dsr.params import Endpoint
from dsr.questions.language.transforms import ClipFacts
from dsr.source import code_hash

_TRY_AGAIN = (408, 409, 425, 429)
"""And from 500 on."""
_OF_ALL = (401, 402, 403, 404, 405, 407, 410)
"""Refusals to every question: of the key, the account, the address or the model."""
_LONGEST_PAUSE = 60.0
_READ, _SHOWN = 4096, 300
"""Characters of a server's refusal that are read, and shown."""


class RefusedError(Exception):
    """A question that the server does not answer."""


class EndpointScorer:
    """A `dsr.evaluation.predictions.Scorer` over a server."""

    def __init__(self, endpoint: Endpoint, clips: ClipStore, questions: pd.DataFrame, workers: int = 0) -> None:
        self.endpoint, self.clips = endpoint, clips
        problems = dict.fromkeys(clips.without_video(questions["videoID"]), "no video (trajectories alone)")
        problems |= find_problems(questions["videoID"], clips.problem, workers)
        self.missing: dict[str, str] = {
            qa_id: problems[clip]
            for qa_id, clip in zip(questions["qa_id"], questions["videoID"], strict=True)
            if clip in problems
        }
        decides = ("url", "model", "num_frames", "max_pixels", "jpeg_quality", "max_tokens")
        self.identity = sha256_json([code_hash(__name__), *(getattr(endpoint, name) for name in decides)])
        self.notes: list[str] = []

    def facts(self, clip_id: str) -> ClipFacts:
        """See `Scorer`."""
        return clip_facts(self.clips.cues(clip_id))

    def clip_hash(self, clip_id: str, control: str) -> str:
        """See `Scorer`."""
        shown = CONTROLS[control].shown
        if shown.video == "whole" and shown.geometry != "own":
            raise ControlError("a server takes no geometry")
        return self.clips.hash(clip_id)

    def __call__(self, questions: Sequence[Question], control: str) -> Iterator[dict[int, Reply]]:
        """See `Scorer`.

        Raises:
            StageError: the server refuses all questions, or stays out of reach; answers on their way are given first.
        """
        places = iter(console.track(range(len(questions)), f"evaluate: {control}"))
        pending: dict[Future[Reply], int] = {}
        stopped: StageError | None = None
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            while True:
                while stopped is None and len(pending) < self.endpoint.concurrency:
                    place = next(places, None)
                    if place is None:
                        break
                    pending[pool.submit(self._answer, questions[place], control)] = place
                if not pending:
                    break
                for done in wait(pending, return_when=FIRST_COMPLETED).done:
                    place = pending.pop(done)
                    try:
                        reply = done.result()
                    except StageError as error:
                        stopped = error
                    else:
                        yield {place: reply}
        if stopped:
            raise stopped

    def _answer(self, question: Question, control: str) -> Reply:
        try:
            body = {
                "model": self.endpoint.model,
                "messages": [{"role": "user", "content": self._content(question, control)}],
                "temperature": 0,
                "max_tokens": self.endpoint.max_tokens,
            }
            return Reply(text=chat(self.endpoint, body))
        except (CuesError, VideoError, RefusedError) as error:
            self.missing[question.qa_id] = str(error)
            return Reply(problem=str(error))

    def _content(self, question: Question, control: str) -> list[dict[str, Any]]:
        view, images = CONTROLS[control].shown.video, []
        if view != "none":
            ask = self.endpoint
            index = self.clips.cues(question.clip_id).frame_index[: question.shown_frames]
            chosen = index[uniform_frames(len(index), min(ask.num_frames, len(index)))]
            frames = self.clips.frames(question.clip_id, chosen, ask.max_pixels)
            images = [jpeg_url(frame, ask.jpeg_quality) for frame in change_frames(frames, view)]
        text = prompt(question.question, question.options)
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in images]
        return [*parts, {"type": "text", "text": f"{FRAMES}\n{text}" if images else text}]


def jpeg_url(frame: np.ndarray, quality: int) -> str:
    """A frame [H, W, 3] uint8 as a data URL."""
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """No redirects: one would take the key to an address that nobody named."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def chat(endpoint: Endpoint, body: dict[str, Any]) -> str:
    """Text of a server's answer.

    Raises:
        RefusedError: it refuses this question, or answers in no known form.
        StageError: it refuses all questions, or is still busy or out of reach after the last attempt.
    """
    address, key = f"{endpoint.url.rstrip('/')}/chat/completions", _key(endpoint)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    pause, problem = endpoint.pause, ""
    for attempt in range(endpoint.retries + 1):
        if attempt:
            time.sleep(min(pause, _LONGEST_PAUSE))
            pause *= 2
        try:
            with _OPENER.open(request, timeout=endpoint.timeout) as response:
                return _without(key, _text(json.load(response)))
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code}: {_refusal(error, endpoint, key)}"
            if error.code < 400 or error.code in _OF_ALL:
                raise StageError(f"{address} refuses: {problem}") from None
            if error.code < 500 and error.code not in _TRY_AGAIN:
                raise RefusedError(f"the server refuses: {problem}") from None
            pause = max(pause, _asked_pause(error))
        except (OSError, HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
            problem = _without(key, str(error)) or type(error).__name__
        except (KeyError, IndexError, TypeError, AttributeError):
            raise RefusedError("the server answers without choices[0].message.content") from None
    raise StageError(
        f"{address} gave no answer in {endpoint.retries + 1} attempts ({problem}); "
        "what was answered is kept, so run the command again when the server is back"
    )


def _key(endpoint: Endpoint) -> str:
    """Key from the environment, "" for none.

    Raises:
        StageError: it holds what no header can; the message does not.
    """
    key = os.environ.get(endpoint.api_key_env, "").strip() if endpoint.api_key_env else ""
    if not key.isascii() or not key.isprintable():
        raise StageError(f"{endpoint.api_key_env} holds a line end or another character that a key cannot have")
    return key


def _without(key: str, text: str) -> str:
    """A text in which a server may have repeated the key, without it."""
    return text.replace(key, "…") if key else text


def _text(answer: Any) -> str:
    content = answer["choices"][0]["message"]["content"]
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _refusal(error: urllib.error.HTTPError, endpoint: Endpoint, key: str) -> str:
    """Beginning of what the server says, without the key should it repeat it."""
    said = error.read(_READ)
    text = _without(key, said.decode("utf-8", "replace"))
    if len(said) == _READ:
        # The end may be the beginning of the key, cut off.
        text = text[: len(text) - len(key)]
    text = " ".join(text.split()) or str(error.reason)
    hint = f" (is {endpoint.api_key_env} set?)" if error.code in (401, 403) and not key else ""
    return text[:_SHOWN] + hint


def _asked_pause(error: urllib.error.HTTPError) -> float:
    try:
        return float(error.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
