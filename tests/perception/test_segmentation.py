"""SAM 2: one session a clip, things found in several key frames, memory and identity. Tiny random weights."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sam2", reason="the perception extra is not installed")

from dsr.perception import segmentation
from dsr.perception.segmentation import Predictor, Segmenter
from dsr.perception.tracks import Detection, Track, Word, decode, encode

MAN, BOY, CAR = Word("man", True), Word("boy", True), Word("car", True)
SIZE = (40, 60)
T = 12


def masks_of(columns: Sequence[int | None]) -> np.ndarray:
    """[T, H, W] of a 10 x 10 block at a column in each frame; None: not seen."""
    masks = np.zeros((len(columns), *SIZE), bool)
    for t, x in enumerate(columns):
        if x is not None:
            masks[t, 10:20, x : x + 10] = True
    return masks


class Bodies:
    """A tracker that follows bodies exactly."""

    device = torch.device("cpu")

    def __init__(self, *bodies: Sequence[int | None]) -> None:
        self.masks = np.stack([masks_of(body) for body in bodies])
        self.steps: list[tuple[int, int, bool]] = []

    def open(self, frames: np.ndarray) -> dict[str, Any]:
        return {}

    def find(self, frame: int, box: Sequence[float]) -> int | None:
        x, y = int(box[0]) + 5, int(box[1]) + 5
        return next((k for k, masks in enumerate(self.masks) if masks[frame, y, x]), None)

    def masks_of_boxes(self, session: dict[str, Any], frame: int, boxes: np.ndarray) -> np.ndarray:
        found = [self.find(frame, box) for box in boxes]
        return np.stack([np.zeros(SIZE, bool) if k is None else self.masks[k, frame] for k in found])

    def start(self, session: dict[str, Any], frame: int, thing: int, box: Sequence[float]) -> None:
        session[thing] = self.find(frame, box)

    def step(self, session: dict[str, Any], frame: int, thing: int, *, reverse: bool) -> np.ndarray:
        self.steps.append((frame, thing, reverse))
        return self.masks[session[thing], frame]


def follow(tracker: object, *detections: Detection, max_tracks: int = 8) -> list[Track]:
    segmenter = Segmenter(tracker, match_iou=0.5, max_tracks=max_tracks)  # type: ignore[arg-type]
    return segmenter(np.zeros((T, *SIZE, 3), np.uint8), detections).tracks


def at(frame: int, x: int, word: Word = MAN, score: float = 0.5) -> Detection:
    return Detection(frame, (x, 10, x + 10, 20), word, score)


def test_a_thing_found_in_two_key_frames_is_one_track() -> None:
    moving = [2 * t for t in range(T)]
    tracker = Bodies(moving)
    (track,) = follow(tracker, at(2, 4), at(8, 16, BOY, 0.9))
    assert sorted(track.masks) == list(range(T))
    assert track.word == BOY
    assert all((decode(track.masks[t], SIZE) == tracker.masks[0, t]).all() for t in range(T))
    # Forwards from the key frame, backwards to the start, nothing twice.
    assert sorted(tracker.steps) == sorted([(t, 0, t < 2) for t in range(T) if t != 2])


def test_what_enters_late_is_followed_back_and_forth() -> None:
    early, late = [0] * T, [None] * 6 + [40] * (T - 6)
    tracker = Bodies(early, late)
    tracks = follow(tracker, at(2, 0), at(8, 0), at(8, 40, CAR))
    assert [track.word for track in tracks] == [MAN, CAR]
    assert sorted(tracks[1].masks) == list(range(6, T))
    # The early one is not tracked again on the way back from the late one's key frame.
    assert {t for t, thing, reverse in tracker.steps if thing == 0 and reverse} == {0, 1}


def test_what_is_found_again_after_it_was_lost_is_the_same_thing() -> None:
    body = [0] * T
    tracker = Bodies(body)
    forgetful = tracker.step

    def step(session: dict[str, Any], frame: int, thing: int, *, reverse: bool) -> np.ndarray:
        mask = forgetful(session, frame, thing, reverse=reverse)
        return np.zeros_like(mask) if thing == 0 and frame > 5 else mask

    tracker.step = step  # type: ignore[method-assign]
    (track,) = follow(tracker, at(2, 0), at(8, 0))
    assert sorted(track.masks) == list(range(T))


def test_two_words_for_one_thing_are_one_track_and_empty_masks_none() -> None:
    (track,) = follow(Bodies([0] * T), at(2, 0, MAN, 0.4), at(2, 1, BOY, 0.6), at(2, 45, CAR, 0.9))
    assert track.word == BOY


def test_no_more_tracks_than_allowed_and_what_has_no_room_is_counted() -> None:
    tracker = Bodies([0] * T, [15] * T, [30] * T)
    segmenter = Segmenter(tracker, match_iou=0.5, max_tracks=2)  # type: ignore[arg-type]
    detections = [at(2, 0), at(2, 15), at(2, 30), at(8, 15), at(8, 30)]
    followed = segmenter(np.zeros((T, *SIZE, 3), np.uint8), detections)
    assert len(followed.tracks) == 2
    assert followed.left_out == 2
    assert all(decode(track.masks[0], SIZE)[:, 30:].sum() == 0 for track in followed.tracks)


def test_boxes_in_which_the_tracker_sees_nothing_are_no_tracks() -> None:
    assert follow(Bodies([0] * T), at(2, 45), at(8, 45)) == []


def test_nothing_found_opens_no_session() -> None:
    assert follow(object()) == []


@pytest.fixture(scope="module")
def tiny() -> Predictor:
    return segmentation.random_model(0, tiny=True)


FRAMES = np.random.default_rng(0).integers(0, 255, (6, 48, 64, 3), dtype=np.uint8)


def test_the_real_predictor_runs_on_arrays(tiny: Predictor) -> None:
    tracks = Segmenter(tiny, match_iou=1.0, max_tracks=4)(FRAMES, [at(1, 5), at(4, 30, CAR)]).tracks
    assert len(tracks) == 2
    masks = [decode(counts, (48, 64)) for track in tracks for counts in track.masks.values()]
    assert all(mask.shape == (48, 64) and mask.any() for mask in masks)
    assert tracks[1].first == 4


def test_the_same_frames_give_the_same_masks(tiny: Predictor) -> None:
    one, other = (Segmenter(tiny, match_iou=1.0, max_tracks=4)(FRAMES, [at(1, 5), at(4, 30)]).tracks for _ in range(2))
    assert [track.masks for track in one] == [track.masks for track in other]


def test_our_frame_by_frame_loop_is_the_packages_propagation(tiny: Predictor) -> None:
    """Against `propagate_in_video`, forwards and backwards from one key frame."""
    box = np.array([5, 10, 25, 30], np.float32)
    (track,) = Segmenter(tiny, match_iou=1.0, max_tracks=4)(
        FRAMES, [Detection(2, tuple(box.tolist()), MAN, 1.0)]
    ).tracks
    session = tiny.open(FRAMES)
    tiny.add_new_points_or_box(session, 2, 0, box=box)
    expected = {}
    for reverse in (False, True):
        for t, _, scores in tiny.propagate_in_video(session, start_frame_idx=2, reverse=reverse):
            expected.setdefault(t, encode((scores[0, 0] > 0).numpy()))
    assert track.masks == {t: counts for t, counts in expected.items() if decode(counts, (48, 64)).any()}


def test_a_frame_is_encoded_once(tiny: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    forward = tiny.forward_image
    monkeypatch.setattr(tiny, "forward_image", lambda image: encoded.append(1) or forward(image))
    Segmenter(tiny, match_iou=1.0, max_tracks=4)(FRAMES, [at(1, 5), at(4, 30)])
    assert len(encoded) == len(FRAMES)


def test_memory_of_a_frame_is_its_features_alone(tiny: Predictor) -> None:
    """Neither pixels nor position encodings, which are larger than the features, are kept frame by frame."""
    session = tiny.open(FRAMES)

    def kept(frames: int) -> int:
        for t in range(frames):
            tiny._get_image_feature(session, t, 1)
        storages: dict[int, int] = {}
        for image, encoded in session["features"].values():
            for tensor in (image, encoded["vision_features"], *encoded["vision_pos_enc"], *encoded["backbone_fpn"]):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return sum(storages.values())

    two, three = kept(2), kept(3)
    # float32 of strides 4, 8 and 16 with 32, 64 and 256 channels, and one pixel.
    side = tiny.image_size
    assert three - two == 4 * (32 * (side // 4) ** 2 + 64 * (side // 8) ** 2 + 256 * (side // 16) ** 2 + 3)


def test_the_package_is_left_as_it_was(tiny: Predictor) -> None:
    package = sys.modules["sam2.sam2_video_predictor"]
    before = package.load_video_frames
    tiny.open(FRAMES)
    assert package.load_video_frames is before
