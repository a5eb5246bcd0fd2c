"""Controls: the benchmark asked again with something taken away or turned round, to see what a score rests on.

| control | video | geometry | question |
| --- | --- | --- | --- |
| `blind` | none | none | as it is |
| `black_video` | black frames | own | as it is: what geometry alone gives |
| `first_frame` | first frame, repeated | of the first frame, repeated | as it is |
| `zeroed_geometry` | own | of a scene in which nothing was observed | as it is |
| `shuffled_geometry` | own | of a clip from another source video | as it is |
| `reversed_time` | backwards | backwards | rewritten for it, where that is defined |
| `mirrored` | mirrored | mirrored | rewritten for it, where that is defined |
| `no_question` | own | own | the options alone |
| `rotation_1` … `rotation_3` | own | own | options moved by 1 … 3 places |

The first five and `no_question` should cost a model its score; the others should not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from dsr.cues.schema import ClipCues
from dsr.examples.views import VIEWS, View
from dsr.mcq import Question
from dsr.questions.language.transforms import ClipFacts, mirror, reverse_time, rotate_options, without_text

SCORE = "score"
"""The run from which nothing is taken away."""


class ControlError(Exception):
    """A control that cannot be run; it is left out, and the reader is told why."""


def _as_it_is(question: Question, clip: ClipFacts) -> Question:
    return question


@dataclass(frozen=True)
class Control:
    """A view of the clips, and what becomes of their questions."""

    view: str = "whole"
    """Name of one of `VIEWS`."""
    rewrite: Callable[[Question, ClipFacts], Question] = _as_it_is
    """May raise `UndefinedError`: the question is left out of the control."""

    @property
    def shown(self) -> View:
        return VIEWS[self.view]


ROTATIONS = ("rotation_1", "rotation_2", "rotation_3")
CONTROLS: Mapping[str, Control] = {
    SCORE: Control(),
    **{name: Control(name) for name in ("blind", "black_video", "first_frame", "zeroed_geometry", "shuffled_geometry")},
    "reversed_time": Control("reversed_time", reverse_time),
    "mirrored": Control("mirrored", mirror),
    "no_question": Control(rewrite=without_text),
    **{name: Control(rewrite=partial(rotate_options, places=k + 1)) for k, name in enumerate(ROTATIONS)},
}
REWRITTEN = ("reversed_time", "mirrored", *ROTATIONS)
"""Controls whose options are not those of the table."""


def clip_facts(cues: ClipCues) -> ClipFacts:
    """Facts of a clip on which a rewritten question's words depend."""
    return ClipFacts(int(cues.meta["width"]), float(cues.timestamps[0]), float(cues.timestamps[-1]))


def geometry_lenders(source_videos: Mapping[str, str], seed: int) -> dict[str, str]:
    """Clip that lends each clip its geometry: another one, of another source video, and each lends once.

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
