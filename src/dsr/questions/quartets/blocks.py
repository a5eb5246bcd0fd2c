"""Blocks of source videos: the units that quartets stay inside and that train and bench are made of.

They are drawn before any matching. If a quartet could cross the split, a member seen in training would mark
its option as used, and the other three would be easier than chance.
"""

import heapq
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dsr.console import StageError

MAX_BLOCKS = 20
"""The split searches all subsets of blocks, which is exact and quick up to here."""
FEW_CLIPS = 100
"""Below this many clips two blocks: smaller ones would leave most questions without a quartet."""


def num_blocks_for(num_clips: int, num_source_videos: int) -> int:
    """Blocks for a data set: 2 below 100 clips, else one for every 50 source videos, at least 10 and at most 20.

    >>> num_blocks_for(50, 50), num_blocks_for(500, 500), num_blocks_for(750, 750), num_blocks_for(2_000, 2_000)
    (2, 10, 15, 20)
    """
    wanted = 2 if num_clips < FEW_CLIPS else min(max(10, num_source_videos // 50), MAX_BLOCKS)
    return min(wanted, num_source_videos)


def assign_blocks(source_videos: Sequence[str], num_blocks: int | None, seed: int) -> dict[str, int]:
    """Assign every source video to one block, so that the blocks hold about the same number of clips.

    Source videos are taken in a seeded random order, those with more clips first, and each goes to the block
    with the fewest clips so far: no two blocks differ by more clips than the largest source video has. The
    order of the input does not matter.

    Args:
        source_videos: the source video of every clip, so a name is there once for each of its clips.
        num_blocks: None for `num_blocks_for` the clips given; more than there are source videos means one
        each.

    Returns:
        {source video: block}, sorted by source video; blocks are 0, 1, … and none is empty.

    Raises:
        StageError: `num_blocks` is not within 1 to 20.
    """
    clips = Counter(source_videos)
    names = sorted(clips)
    if num_blocks is None:
        num_blocks = num_blocks_for(len(source_videos), len(names))
    if not 1 <= num_blocks <= MAX_BLOCKS and names:
        raise StageError(f"qa.num_blocks must be 1 to {MAX_BLOCKS}, not {num_blocks}")
    order = np.random.default_rng(seed).permutation(len(names))
    largest_first = sorted((names[i] for i in order), key=lambda name: -clips[name])
    loads = [(0, block) for block in range(min(num_blocks, len(names)))]
    blocks = {}
    for name in largest_first:
        load, block = loads[0]
        blocks[name] = block
        heapq.heapreplace(loads, (load + clips[name], block))
    return {name: blocks[name] for name in names}
