"""From questions to a table of predictions: one row a question and run, whatever it is that scores them."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from dsr.splits.split import LETTERS

Control = Literal["score", "blind", "shuffled_geometry"]
LOG_PROBABILITIES = tuple(f"logp_{letter}" for letter in LETTERS)
COLUMNS = (
    *("control", "qa_id", "videoID", "source_video", "quartet_id", "type", "answer", "prediction"),
    *(*LOG_PROBABILITIES, "correct", "status", "reason"),
)


class Scorer(Protocol):
    """Scores the options of questions; `missing` says what it cannot score."""

    @property
    def missing(self) -> Mapping[str, str]:
        """qa_id -> why the question cannot be scored (no cues, unreadable video, …)."""
        ...

    def __call__(self, qa_ids: Sequence[str], control: Control) -> np.ndarray:
        """[n, 4] float log-probability of each option's letter, for questions that are not missing.

        A question that turns out to be unusable gets NaN, and is in `missing` from then on.

        Raises:
            ControlError: the control makes no sense for this model or these clips.
        """
        ...


class ControlError(Exception):
    """Why a control cannot be run; it is left out, and the reader is told."""


def predict(questions: pd.DataFrame, scorer: Scorer, control: Control = "score") -> pd.DataFrame:
    """One run over the questions, in their order.

    The prediction is the option with the highest log-probability, the first of equals. A missing question has
    none, and is missing from the controls as well, so that all runs are about the same questions.

    Returns:
        `COLUMNS`; `prediction` is "" and the log-probabilities NaN where `status` is "missing".
    """
    scores = np.full((len(questions), len(LETTERS)), np.nan)
    asked = ~questions["qa_id"].isin(scorer.missing).to_numpy()
    if asked.any():
        scores[asked] = scorer(list(questions["qa_id"][asked]), control)
    reasons = questions["qa_id"].map(lambda qa_id: scorer.missing.get(qa_id, "")).to_numpy(object)
    scored = reasons == ""
    table = questions[["qa_id", "videoID", "source_video", "quartet_id", "type", "answer"]].reset_index(drop=True)
    table["control"] = control
    best = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    table["prediction"] = np.where(scored, np.array(LETTERS)[best], "").astype(object)
    table[list(LOG_PROBABILITIES)] = scores
    table["correct"] = scored & (table["prediction"] == table["answer"])
    table["status"] = np.where(scored, "scored", "missing").astype(object)
    table["reason"] = reasons
    return table[list(COLUMNS)]


def geometry_donors(source_videos: Mapping[str, str], seed: int) -> dict[str, str]:
    """Which clip lends each clip its geometry: another one, of another source video, and each lends once.

    The clips stand in a circle, those of one source video side by side, in a seeded order; each takes from
    the clip as many places ahead as the largest source video has clips. Where one source video has more than
    half of the clips there is no such assignment, and a clip may get another clip of its own source video.

    Args:
        source_videos: {clip: its source video}.

    Raises:
        ControlError: fewer than two clips.
    """
    if len(source_videos) < 2:
        raise ControlError("fewer than two clips: nothing to take other geometry from")
    rng = np.random.default_rng(seed)
    videos = sorted(set(source_videos.values()))
    place = dict(zip(videos, rng.permutation(len(videos)), strict=True))
    clips = sorted(source_videos)
    circle = [clips[i] for i in rng.permutation(len(clips))]
    circle.sort(key=lambda clip: place[source_videos[clip]])
    largest = max(np.bincount([place[source_videos[clip]] for clip in circle]))
    step = int(largest) if 2 * largest <= len(circle) else 1
    return {clip: circle[(k + step) % len(circle)] for k, clip in enumerate(circle)}
