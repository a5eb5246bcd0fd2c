"""Blocks of source videos."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.console import StageError
from dsr.questions.quartets.blocks import assign_blocks, num_blocks_for

clips_of_videos = st.lists(st.integers(1, 9), min_size=1, max_size=60).map(
    lambda sizes: [f"video{i}" for i, size in enumerate(sizes) for _ in range(size)]
)


def loads(source_videos: list[str], blocks: dict[str, int]) -> Counter:
    return Counter(blocks[video] for video in source_videos)


@pytest.mark.parametrize(
    ("num_clips", "num_source_videos", "expected"),
    [(1, 1, 1), (99, 99, 2), (99, 1, 1), (100, 100, 10), (100, 4, 4), (5000, 600, 12), (5000, 5000, 20)],
)
def test_number_of_blocks_follows_the_size_of_the_data(num_clips: int, num_source_videos: int, expected: int) -> None:
    assert num_blocks_for(num_clips, num_source_videos) == expected


@given(clips_of_videos, st.integers(1, 20), st.integers(0, 5))
def test_blocks_are_balanced_by_clips_and_none_is_empty(videos: list[str], num_blocks: int, seed: int) -> None:
    blocks = assign_blocks(videos, num_blocks, seed)
    assert set(blocks) == set(videos)
    assert set(blocks.values()) == set(range(min(num_blocks, len(set(videos)))))
    filled = loads(videos, blocks).values()
    assert max(filled) - min(filled) <= max(Counter(videos).values())


@given(clips_of_videos, st.randoms())
def test_the_order_of_the_clips_does_not_matter(videos: list[str], random) -> None:
    shuffled = list(videos)
    random.shuffle(shuffled)
    assert assign_blocks(shuffled, 3, seed=1) == assign_blocks(videos, 3, seed=1)


def test_the_seed_decides_who_is_together() -> None:
    videos = [f"video{i}" for i in range(40)]
    assert assign_blocks(videos, 2, seed=1) == assign_blocks(videos, 2, seed=1)
    assert assign_blocks(videos, 2, seed=1) != assign_blocks(videos, 2, seed=2)


def test_no_clips_make_no_blocks() -> None:
    assert assign_blocks([], None, seed=1) == {}


@pytest.mark.parametrize("num_blocks", [0, 21])
def test_a_number_of_blocks_that_cannot_be_searched_is_refused(num_blocks: int) -> None:
    with pytest.raises(StageError, match=r"qa\.num_blocks"):
        assign_blocks(["a", "b"], num_blocks, seed=1)
