"""Any OpenAI-compatible server as the model: frames go as images, the answer comes as a text.

The key is read from the environment when a request is made; it is in no message, no log and no cache. A server that is
busy, broken or out of reach is asked again after a growing pause (or after the one that it names); what it refuses for
good (a wrong key, an unknown model) stops the run, since every further question would be refused as well.
"""

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

_TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
_LONGEST_PAUSE = 60.0
_SHOWN = 300
"""Characters of a server's refusal that are shown."""


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
            StageError: the server refuses, or stays out of reach.
        """
        at_once = self.endpoint.concurrency
        starts = range(0, len(questions), at_once)
        with ThreadPoolExecutor(at_once) as pool:
            for start in console.track(starts, f"evaluate: {control}", len(starts)):
                part = questions[start : start + at_once]
                yield dict(enumerate(pool.map(lambda question: self._answer(question, control), part), start))

    def _answer(self, question: Question, control: str) -> Reply:
        try:
            content = self._content(question, control)
        except (CuesError, VideoError) as error:
            self.missing[question.qa_id] = str(error)
            return Reply(problem=str(error))
        body = {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.endpoint.max_tokens,
        }
        return Reply(text=chat(self.endpoint, body))

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
    """A redirect would take the key to an address that nobody named."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def chat(endpoint: Endpoint, body: dict[str, Any]) -> str:
    """The text of a server's answer.

    Raises:
        StageError: it refuses, answers in no known form, or is still busy or out of reach after the last attempt.
    """
    address = f"{endpoint.url.rstrip('/')}/chat/completions"
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json", **_authorization(endpoint)}
    )
    pause, problem = endpoint.pause, ""
    for attempt in range(endpoint.retries + 1):
        if attempt:
            time.sleep(min(pause, _LONGEST_PAUSE))
            pause *= 2
        try:
            with _OPENER.open(request, timeout=endpoint.timeout) as response:
                return _text(json.load(response))
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code}: {_refusal(error, endpoint)}"
            if error.code not in _TRY_AGAIN:
                raise StageError(f"{address} refuses: {problem}") from None
            pause = max(pause, _asked_pause(error))
        except (OSError, HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
            problem = str(error) or type(error).__name__
        except (KeyError, IndexError, TypeError):
            raise StageError(f"{address} answers without choices[0].message.content") from None
    raise StageError(
        f"{address} gave no answer in {endpoint.retries + 1} attempts ({problem}); "
        "what was answered is kept, so run the command again when the server is back"
    )


def _authorization(endpoint: Endpoint) -> dict[str, str]:
    key = os.environ.get(endpoint.api_key_env, "") if endpoint.api_key_env else ""
    return {"Authorization": f"Bearer {key}"} if key else {}


def _text(answer: Any) -> str:
    content = answer["choices"][0]["message"]["content"]
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _refusal(error: urllib.error.HTTPError, endpoint: Endpoint) -> str:
    """The beginning of what the server says, without the key should it repeat it."""
    said = " ".join(error.read(4096).decode("utf-8", "replace").split()) or str(error.reason)
    key = os.environ.get(endpoint.api_key_env, "") if endpoint.api_key_env else ""
    if key:
        said = said.replace(key, "…")
    hint = f" (is {endpoint.api_key_env} set?)" if error.code in (401, 403) and not key else ""
    return said[:_SHOWN] + hint


def _asked_pause(error: urllib.error.HTTPError) -> float:
    try:
        return float(error.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
