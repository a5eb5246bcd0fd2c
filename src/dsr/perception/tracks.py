"""Things in a clip: the words that are asked for, detections, and tracks that join detections over time.

Letters: T cue frames, H x W the video. Nothing here needs a model, so that identity can be tested by hand.

Design choices:
- A thing is its mask, not its word: detections whose masks agree are one thing, whatever they were called.
- A track's word is the one with the greatest sum of scores over the key frames that saw it.
- A track found late is followed back to the start; where it then runs into a track that was there before, the two
  are one, and what was known first stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask


@dataclass(frozen=True)
class Word:
    """A curated word, as the detector is asked for it."""

    text: str
    is_agent: bool


@dataclass(frozen=True)
class Detection:
    """A box in one frame."""

    frame: int
    """Place among the cue frames."""
    box: tuple[float, float, float, float]
    """xyxy, pixels of the original video."""
    word: Word
    score: float


@dataclass
class Track:
    """One thing through the clip."""

    votes: dict[Word, float] = field(default_factory=dict)
    """Sum of the scores with which it was called so."""
    first: int = 0
    """Place of the key frame in which it was first found."""
    masks: dict[int, bytes] = field(default_factory=dict)
    """COCO run-length counts of an H x W mask by place of the frame; absent where it is not seen."""

    def called(self, detection: Detection) -> None:
        self.votes[detection.word] = self.votes.get(detection.word, 0.0) + detection.score

    @property
    def word(self) -> Word:
        return max(self.votes, key=lambda word: (self.votes[word], word.text))

    @property
    def score(self) -> float:
        return sum(self.votes.values())


@dataclass(frozen=True)
class TrackingResult:
    """Tracks of a clip, and the number of detections that are in none."""

    tracks: list[Track]
    left_out: int = 0
    """Detections that belong to no track and found no room for one; a thing counts once for each key frame."""


def key_frames(num_frames: int, count: int) -> list[int]:
    """Places of the frames that the detector sees: the middles of `count` equal parts, each once.

    A thing that is seen for longer than num_frames / count frames is thus seen by the detector.
    """
    count = min(count, num_frames)
    return [int((k + 0.5) * num_frames / count) for k in range(count)]


def encode(mask: np.ndarray) -> bytes:
    """COCO run-length counts of a mask [H, W] bool."""
    counts: bytes = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
    return counts


def decode(counts: bytes, size: tuple[int, int]) -> np.ndarray:
    """[H, W] bool of COCO run-length counts."""
    return np.asarray(coco_mask.decode({"size": list(size), "counts": counts}), bool)


def overlap(ours: Sequence[bytes], theirs: Sequence[bytes], size: tuple[int, int]) -> np.ndarray:
    """[len(ours), len(theirs)] float64, intersection over union of masks given as COCO counts."""
    if not ours or not theirs:
        return np.zeros((len(ours), len(theirs)))
    one, other = ([{"size": list(size), "counts": counts} for counts in masks] for masks in (ours, theirs))
    return np.asarray(coco_mask.iou(one, other, [0] * len(other)), np.float64)


def match(overlaps: np.ndarray, least: float) -> dict[int, int]:
    """Row -> column of the pairs with the greatest overlaps, each row and column once, none below `least`."""
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    # A stable order, so that equal overlaps are settled the same way everywhere.
    for flat in np.argsort(-overlaps, axis=None, kind="stable"):
        row, column = (int(i) for i in np.unravel_index(flat, overlaps.shape))
        if overlaps[row, column] < least:
            break
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return pairs


def distinct(masks: Sequence[bytes], scores: Sequence[float], size: tuple[int, int], most: float) -> list[int]:
    """Places of masks that are different things: by falling score, without those that overlap a kept one more."""
    overlaps = overlap(masks, masks, size)
    kept: list[int] = []
    for place in sorted(range(len(masks)), key=lambda i: (-scores[i], i)):
        if all(overlaps[place, other] <= most for other in kept):
            kept.append(place)
    return sorted(kept)


def join(tracks: Sequence[Track], size: tuple[int, int], least: float) -> list[Track]:
    """Tracks without repeats: one that, over the frames in which both are seen, mostly covers an earlier one joins it.

    Args:
        least: smallest median intersection over union of one and the same thing.
    """
    joined: list[Track] = []
    for track in tracks:
        same = next((other for other in joined if _agree(track, other, size) >= least), None)
        if same is None:
            joined.append(track)
            continue
        for word, score in track.votes.items():
            same.votes[word] = same.votes.get(word, 0.0) + score
        same.masks = {**track.masks, **same.masks}
    return joined


def _agree(track: Track, other: Track, size: tuple[int, int]) -> float:
    """Median overlap in the frames that show both; 0 where none does."""
    shared = sorted(track.masks.keys() & other.masks.keys())
    if not shared:
        return 0.0
    return float(np.median([overlap([track.masks[t]], [other.masks[t]], size)[0, 0] for t in shared]))


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """xyxy of a mask [H, W] that is not empty; a pixel (row r, column c) covers [c, c + 1) x [r, r + 1)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def by_frame(detections: Sequence[Detection]) -> Mapping[int, list[Detection]]:
    """Detections by the place of their frame, in the order of the frames."""
    found: dict[int, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: d.frame):
        found.setdefault(detection.frame, []).append(detection)
    return found
