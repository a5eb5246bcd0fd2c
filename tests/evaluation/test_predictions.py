"""Tables of predictions by scorers that need no model."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.evaluation.predictions import COLUMNS, ControlError, geometry_donors, predict


def questions(count: int = 8) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "videoID": [f"clip{row // 4}" for row in range(count)],
            "qa_id": [f"qa{row}" for row in range(count)],
            "source_video": [f"clip{row // 4}" for row in range(count)],
            "quartet_id": [f"q{row // 4}" for row in range(count)],
            "type": "rel_dis",
            "answer": ["ABCD"[row % 4] for row in range(count)],
        },
        index=range(100, 100 + count),
    )


class Fixed:
    """Gives each question the scores it was made with."""

    def __init__(self, scores: dict[str, Sequence[float]], missing: dict[str, str]) -> None:
        self.scores, self.missing = scores, missing

    def __call__(self, qa_ids: Sequence[str], control: str) -> np.ndarray:
        return np.array([self.scores[qa_id] for qa_id in qa_ids])


def test_the_highest_score_is_the_prediction_and_the_first_of_equals() -> None:
    scores = {"qa0": [-1, -2, -3, -4], "qa1": [-9, -2, -3, -4], "qa2": [-5, -5, -5, -5], "qa3": [-5, -4, -4, -6]}
    table = predict(questions(4), Fixed(scores, {}))
    assert tuple(table.columns) == COLUMNS
    assert table["prediction"].tolist() == ["A", "B", "A", "B"]
    assert table["correct"].tolist() == [True, True, False, False]
    assert table.loc[1, ["logp_A", "logp_B", "logp_C", "logp_D"]].tolist() == [-9, -2, -3, -4]
    assert (table["control"] == "score").all()


def test_asked_is_scored_plus_missing() -> None:
    table = predict(questions(4), Fixed({f"qa{i}": [-1, -2, -3, -4] for i in (0, 1, 3)}, {"qa2": "no cues"}), "blind")
    assert table["qa_id"].tolist() == ["qa0", "qa1", "qa2", "qa3"]
    assert table["status"].tolist() == ["scored", "scored", "missing", "scored"]
    row = table.loc[2]
    assert (row["prediction"], row["correct"], row["reason"], row["control"]) == ("", False, "no cues", "blind")
    assert np.isnan(row["logp_A"])
    assert table["prediction"].tolist() == ["A", "A", "", "A"]


def test_all_missing_asks_nothing_of_the_scorer() -> None:
    table = predict(questions(2), Fixed({}, {"qa0": "no cues", "qa1": "no video"}))
    assert table["status"].tolist() == ["missing", "missing"]


clips = st.lists(st.integers(1, 6), min_size=1, max_size=12).map(
    lambda sizes: {f"v{i}_{k}": f"v{i}" for i, size in enumerate(sizes) for k in range(size)}
)


@given(clips.filter(lambda sources: len(sources) > 1), st.integers(0, 3))
def test_every_clip_gets_the_geometry_of_another_source_video_and_each_lends_once(
    source_videos: dict[str, str], seed: int
) -> None:
    donors = geometry_donors(source_videos, seed)
    assert set(donors) == set(donors.values()) == set(source_videos)
    assert all(clip != donor for clip, donor in donors.items())
    largest = max(Counter(source_videos.values()).values())
    if 2 * largest <= len(source_videos):
        assert all(source_videos[clip] != source_videos[donor] for clip, donor in donors.items())


def test_donors_follow_the_seed_and_not_the_order() -> None:
    sources = {f"v{i}": f"v{i}" for i in range(30)}
    assert geometry_donors(sources, 1) == geometry_donors(dict(reversed(sources.items())), 1)
    assert geometry_donors(sources, 1) != geometry_donors(sources, 2)


def test_one_clip_has_nobody_to_take_geometry_from() -> None:
    with pytest.raises(ControlError, match="fewer than two clips"):
        geometry_donors({"a": "a"}, 1)
