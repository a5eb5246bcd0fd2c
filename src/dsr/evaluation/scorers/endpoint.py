"""Any OpenAI-compatible server as the model: frames go as images, the answer comes as a text.

A question that the server refuses is missing, with the reason. Each answer is handed on as it comes.
"""

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd

from dsr import console
from dsr.clips.video import VideoError, uniform_frames
from dsr.cues.schema import CuesError
from dsr.evaluation.controls import CONTROLS, ControlError, clip_facts
from dsr.evaluation.prediction_cache import Reply
from dsr.examples.clips import ClipStore, find_problems
from dsr.examples.views import change_frames
from dsr.files import sha256_json
from dsr.language_models.server import RefusedError, answers, chat, jpeg_url
from dsr.mcq import DEFAULT_PROMPT, FRAMES, Question, prompt
from dsr.params import Endpoint
from dsr.questions.language.transforms import ClipFacts
from dsr.source import code_hash


class EndpointScorer:
    """A `dsr.evaluation.predictions.Scorer` over a server."""

    def __init__(
        self, endpoint: Endpoint, clips: ClipStore, questions: pd.DataFrame, workers: int = 0, form: str = ""
    ) -> None:
        self.endpoint, self.clips, self.form = endpoint, clips, form or DEFAULT_PROMPT
        problems = dict.fromkeys(clips.without_video(questions["videoID"]), "no video (trajectories alone)")
        problems |= find_problems(questions["videoID"], clips.problem, workers)
        self.missing: dict[str, str] = {
            qa_id: problems[clip]
            for qa_id, clip in zip(questions["qa_id"], questions["videoID"], strict=True)
            if clip in problems
        }
        decides = ("url", "model", "num_frames", "max_pixels", "jpeg_quality", "max_tokens")
        decided = [*(getattr(endpoint, name) for name in decides), *([form] if form else [])]
        self.identity = sha256_json([code_hash(__name__), *decided])
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
        places = console.track(range(len(questions)), f"evaluate: {control}")
        stop = threading.Event()
        ask = partial(self._ask, questions, control, stop)
        for place, reply in answers(ask, places, self.endpoint.concurrency, stop):
            yield {place: reply}

    def _ask(self, questions: Sequence[Question], control: str, stop: threading.Event, place: int) -> Reply:
        question = questions[place]
        try:
            body = {
                "model": self.endpoint.model,
                "messages": [{"role": "user", "content": self._content(question, control)}],
                "temperature": 0,
                "max_tokens": self.endpoint.max_tokens,
            }
            return Reply(text=chat(self.endpoint, body, stop=stop).text)
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
        text = prompt(question.question, question.options, self.form)
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in images]
        return [*parts, {"type": "text", "text": f"{FRAMES}\n{text}" if images else text}]
