"""Tracks: which frames are looked at, and when two findings are one thing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dsr.perception.tracks import (
    Detection,
    Track,
    Word,
    box_of,
    by_frame,
    decode,
    distinct,
    encode,
    join,
    key_frames,
    match,
    overlap,
)

SIZE = (20, 30)
MAN, BOY, CAR = Word("man", True), Word("boy", True), Word("car", False)


def block(x: int, y: int, side: int = 10) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def track(*at: tuple[int, int], word: Word = MAN, score: float = 1.0) -> Track:
    """A track whose block is at (frame, x) pairs."""
    return Track({word: score}, at[0][0], {t: encode(block(x, 5)) for t, x in at})


def test_key_frames_are_the_middles_of_equal_parts() -> None:
    assert key_frames(32, 4) == [4, 12, 20, 28]
    assert key_frames(32, 1) == [16]
    assert key_frames(3, 4) == [0, 1, 2]


@given(st.integers(8, 200), st.integers(1, 4))
def test_whatever_is_seen_long_enough_is_in_a_key_frame(num_frames: int, count: int) -> None:
    places = [-1, *key_frames(num_frames, count), num_frames]
    assert np.diff(places).max() <= -(-num_frames // count) + 1


def test_masks_come_back_and_overlap_as_they_are() -> None:
    one, other = block(0, 0), block(5, 0)
    assert (decode(encode(one), SIZE) == one).all()
    # 50 of 150 pixels.
    np.testing.assert_allclose(overlap([encode(one)], [encode(other), encode(one)], SIZE), [[1 / 3, 1]])
    assert overlap([], [encode(one)], SIZE).shape == (0, 1)
    assert box_of(other) == (5, 0, 15, 10)


def test_matching_is_one_to_one_and_takes_the_best_first() -> None:
    overlaps = np.array([[0.9, 0.8], [0.95, 0.7], [0.4, 0.3]])
    assert match(overlaps, 0.5) == {1: 0, 0: 1}
    assert match(np.zeros((0, 3)), 0.5) == {}
    assert match(np.full((2, 2), 0.2), 0.5) == {}


def test_of_masks_of_one_thing_the_surest_stays() -> None:
    masks = [encode(block(0, 0)), encode(block(1, 0)), encode(block(15, 0))]
    assert distinct(masks, [0.5, 0.6, 0.4], SIZE, 0.5) == [1, 2]
    assert distinct(masks, [0.6, 0.5, 0.4], SIZE, 0.5) == [0, 2]


def test_the_word_is_what_it_was_called_with_the_greatest_sum() -> None:
    thing = track((0, 0), word=BOY, score=0.6)
    for score in (0.4, 0.4):
        thing.called(Detection(0, (0, 0, 1, 1), MAN, score))
    assert thing.word == MAN
    assert abs(thing.score - 1.4) < 1e-9


def test_a_track_that_runs_into_an_earlier_one_joins_it() -> None:
    first = track((4, 0), (5, 1), (6, 2))
    late = track((5, 1), (6, 2), (7, 3), word=BOY, score=0.4)
    elsewhere = track((5, 15), (6, 15))
    joined = join([first, late, elsewhere], SIZE, 0.5)
    assert len(joined) == 2
    assert sorted(joined[0].masks) == [4, 5, 6, 7]
    assert joined[0].word == MAN
    assert joined[1] is elsewhere


def test_tracks_that_cross_for_a_moment_stay_two() -> None:
    one = track((0, 0), (1, 5), (2, 10))
    other = track((0, 12), (1, 5), (2, 0))
    assert len(join([one, other], SIZE, 0.5)) == 2


def test_tracks_without_a_common_frame_stay_two() -> None:
    assert len(join([track((0, 0)), track((1, 0))], SIZE, 0.5)) == 2


def test_detections_come_by_frame() -> None:
    found = by_frame([Detection(t, (0, 0, 1, 1), CAR, 0.5) for t in (12, 4, 12)])
    assert list(found) == [4, 12]
    assert len(found[12]) == 2
