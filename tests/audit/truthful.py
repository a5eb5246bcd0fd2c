"""A language model that knows the truth of simulated clips, behind a server's script."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsr.simulator.truth import Truth, read_truth

_CATEGORIES = {"robot": "robots", "robot dog": "robots", "buggy": "vehicles", "car": "vehicles", "bicycle": "vehicles"}
MOVES = 0.2
"""Metres from which on a body's place has changed, as captions have it."""


def truthful(root: Path, clips: pd.DataFrame) -> Callable[[dict[str, Any], int], str]:
    """Script of `tests.language_models.servers.serving` for clips of the catalogue with their truth files."""
    answers = {
        clip.caption: json.dumps(true_answer(clip.caption, read_truth(root / clip.truth)))
        for clip in clips.itertuples()
    }

    def script(body: dict[str, Any], number: int) -> str:
        content = body["messages"][1]["content"]
        said = (content if isinstance(content, str) else content[-1]["text"]).rpartition("\n")[2]
        return answers[json.loads(said)]

    return script


def true_answer(caption: str, truth: Truth) -> dict[str, Any]:
    """What there is to say about a clip, with the caption's words."""
    words = truth.words.tolist()
    places = truth.body_poses[..., :3, 3]
    moving = int((np.ptp(places, axis=0).max(axis=-1) > MOVES).sum())
    things: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for label, word, is_agent in zip(truth.labels.tolist(), words, truth.is_agent.tolist(), strict=True):
        # A label keeps its colour where it tells two of a kind apart.
        things[is_agent].append({"name": label if words.count(word) > 1 else word, "quote": label})
    agents = [i for i in np.argsort([caption.lower().find(label) for label in truth.labels]) if truth.is_agent[i]]
    # The kind of most agents, the first one named among equals.
    kinds = Counter(_CATEGORIES[words[i]] for i in agents).most_common(1)
    quote = " ".join(caption.split()[:4])
    return {
        "moving": {"value": moving > 0, "quote": quote},
        "num_moving": {"value": moving},
        "agents": things[True],
        "objects": things[False],
        "category": {"value": kinds[0][0] if kinds else "objects"},
        "from_vehicle": {"value": False},
        "visible_share": {"value": None},
    }
