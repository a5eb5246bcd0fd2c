"""Geometry that one clip lends another."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.evaluation.controls import ControlError, geometry_lenders

clips = st.lists(st.integers(1, 6), min_size=1, max_size=12).map(
    lambda sizes: {f"v{i}_{k}": f"v{i}" for i, size in enumerate(sizes) for k in range(size)}
)


@given(clips.filter(lambda sources: len(sources) > 1), st.integers(0, 3))
def test_every_clip_gets_the_geometry_of_another_source_video_and_each_lends_once(
    source_videos: dict[str, str], seed: int
) -> None:
    lenders = geometry_lenders(source_videos, seed)
    assert set(lenders) == set(lenders.values()) == set(source_videos)
    assert all(clip != donor for clip, donor in lenders.items())
    largest = max(Counter(source_videos.values()).values())
    if 2 * largest <= len(source_videos):
        assert all(source_videos[clip] != source_videos[donor] for clip, donor in lenders.items())


def test_lenders_follow_the_seed_and_not_the_order() -> None:
    sources = {f"v{i}": f"v{i}" for i in range(30)}
    assert geometry_lenders(sources, 1) == geometry_lenders(dict(reversed(sources.items())), 1)
    assert geometry_lenders(sources, 1) != geometry_lenders(sources, 2)


def test_one_clip_has_nobody_to_take_geometry_from() -> None:
    with pytest.raises(ControlError, match="fewer than two clips"):
        geometry_lenders({"a": "a"}, 1)
