"""Cues of real clips, seen by published models: Grounding DINO, SAM 2, a reconstruction model, Orient Anything.

Design choices:
- Each model sees a clip once, whatever is asked later: at most 4 key frames for the detector, each cue frame at most
  twice for the tracker, all frames together for the reconstruction, one set of batches for the orientations.
- `cues_from_frames` is the whole path from frames to cues over four functions (`Models`), so that the simulator's
  truth, small random models and the published ones go the same way.
- A process loads the models when its first clip comes, and keeps them; with GPUs, process k has GPU k.
- On the CPU the detector sees frames one by one: a frame takes up to 1.7 GiB, and a batch saves no time there.
- Frames are decoded ahead by processes of their own; a file on which a decoder hangs or crashes costs its clip.
- A clip in which nothing is found has cues without tracks: that is a finding, not a failure.
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dsr import console, project
from dsr.clips.video import probe, read_frames
from dsr.console import StageError
from dsr.cues.backends import ClipFailure, Decoded, DecodingBackend, clip_times, cue_frames
from dsr.cues.clips import Clip
from dsr.cues.point_maps import focal_lengths, sampled_pixels
from dsr.cues.schema import ClipCues, pack_masks
from dsr.params import Cues, FoundationCues
from dsr.perception.centers import locate
from dsr.perception.reconstruction import Reconstruction, ReconstructionError, load_reconstructor
from dsr.perception.tracks import Detection, Track, TrackingResult, Word, box_of, decode, key_frames
from dsr.weights import HASHES, fingerprint, foundation_weights, missing_files
from dsr.workers import ended_after, slot

PACKAGES = {"groundingdino": "groundingdino-py", "sam2": "sam2", "torch": "torch", "torchvision": "torchvision"}
"""Module -> package of the extra `perception`."""
NOT_CUES = ("weights", "device", "batch_size", "decoders", "timeout")
"""Parameters that change how cues are made, not what they are."""


@dataclass(frozen=True)
class Models:
    """The four kinds of model, as functions."""

    ground: Callable[[np.ndarray, Sequence[int], Sequence[Word]], list[Detection]]
    """Key frames [K, H, W, 3] uint8, their places among the cue frames [K], words -> detections."""
    segment: Callable[[np.ndarray, Sequence[Detection]], TrackingResult]
    """Cue frames [T, H, W, 3] uint8, detections -> tracks."""
    reconstruct: Callable[[np.ndarray], Reconstruction]
    """Cue frames -> points and camera poses."""
    orient: Callable[[Iterable[tuple[np.ndarray, np.ndarray]], np.ndarray], tuple[np.ndarray, np.ndarray]]
    """Pairs of a frame [H, W, 3] and an agent's mask [H, W] bool in it, and the rays [K, 3] to the agents -> rotations
    [K, 3, 3] camera-from-agent and confidence [K], NaN and 0 where there is none."""


class Backend(DecodingBackend):
    """Reads `Clip.video`."""

    def __init__(self, params: Cues) -> None:
        self.params = params
        self.options = params.foundation
        self.weights = Path(params.foundation.weights)
        self.decoders = params.foundation.decoders
        self.models: Models | None = None
        """Made with the first clip unless given."""

    def start(self, root: Path) -> None:
        """Raises: StageError: a package or a checkpoint is missing; every one of them is named."""
        absent = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
        if absent:
            raise StageError(
                f"cues.backend foundation needs {', '.join(absent)}: pip install -c constraints.txt '.[perception]'"
            )
        self.weights = project.locate(root, self.options.weights)
        if self.options.preset == "tiny":
            console.warn(
                "cues.foundation.preset is tiny: small models with random weights. They see nothing: the cues, and all "
                "that follows from them, are MEANINGLESS and show only that everything runs"
            )
            return
        lacking = [
            f"{weight.path} ({weight.name}, from {weight.published})"
            for weight in foundation_weights(self.options.weights).values()
            if missing_files(project.locate(root, weight.path))
        ]
        if lacking:
            raise StageError(
                f"cues.backend foundation: {len(lacking)} checkpoints are missing; put them there, or see `dsr "
                "weights`: " + "; ".join(lacking)
            )

    def processes(self, requested: int) -> int:
        """One for each GPU, fewer if fewer are requested; on the CPU one, or two if requested (memory)."""
        gpus = _num_gpus(self.options.device)
        return min(requested or gpus, gpus) if gpus else min(max(requested, 1), 2)

    def identity(self, clip: Clip) -> dict[str, Any]:
        if clip.video is None:
            raise ClipFailure("no video: the `foundation` backend sees frames only")
        options = {key: value for key, value in asdict(self.options).items() if key not in NOT_CUES}
        if self.options.preset == "published":
            del options["seed"]
        return {
            "params": {
                "num_frames": self.params.num_frames,
                "point_map_size": list(self.params.point_map_size),
                "agents": list(clip.agents),
                "objects": list(clip.objects),
                **options,
            },
            "weights": self._fingerprints(),
        }

    def _fingerprints(self) -> dict[str, str]:
        if self.options.preset == "tiny":
            return {"all": f"random, seed {self.options.seed}"}
        weights = foundation_weights(str(self.weights))
        return {use: fingerprint(Path(weight.path), self.weights / HASHES) for use, weight in weights.items()}

    def decode(self, clip: Clip) -> Decoded:
        if clip.video is None:
            raise ClipFailure("no video")
        with ended_after(self.options.timeout):
            timestamps = probe(clip.video).timestamps
            indices = cue_frames(timestamps, clip, self.params.num_frames)
            return Decoded(read_frames(clip.video, indices), indices, clip_times(timestamps, indices))

    def extract_decoded(self, clip: Clip, decoded: Decoded) -> ClipCues:
        models = self.models or load_models(self.options, self.weights)
        with ended_after(self.options.timeout):
            try:
                return cues_from_frames(decoded, words(clip), models, self.params)
            except ReconstructionError as error:
                raise ClipFailure(f"reconstruction: {error}") from None


def words(clip: Clip) -> list[Word]:
    """The clip's curated words, agents first; one that is both is an agent."""
    agents = [Word(text, True) for text in dict.fromkeys(clip.agents)]
    return agents + [Word(text, False) for text in dict.fromkeys(clip.objects) if text not in clip.agents]


def cues_from_frames(decoded: Decoded, words: Sequence[Word], models: Models, params: Cues) -> ClipCues:
    """Cues of decoded frames; their meta holds `left_out` alone."""
    frames = decoded.frames
    places = key_frames(len(frames), params.foundation.key_frames)
    detections = models.ground(frames[places], places, words) if words else []
    followed = models.segment(frames, detections)
    geometry = models.reconstruct(frames)
    seen = [_locate(track, geometry, frames.shape[1:3]) for track in followed.tracks]
    seen = sorted((thing for thing in seen if thing.visible.any()), key=_reading_order)
    orientations, confidence = _orient(frames, seen, models, params.foundation.min_orientation_box)
    cues = _assemble(decoded, geometry, seen, orientations, confidence, params.point_map_size)
    cues.meta["left_out"] = followed.left_out
    return cues


@dataclass(frozen=True, eq=False)
class _LocatedTrack:
    """A track with its place."""

    word: Word
    masks: dict[int, bytes]
    """COCO run-length counts by frame, of the frames in which it is visible."""
    boxes: np.ndarray
    """[T, 4] float32"""
    visible: np.ndarray
    """[T] bool: has a mask and a place."""
    centers: np.ndarray
    uncertainty: np.ndarray


def _locate(track: Track, geometry: Reconstruction, size: tuple[int, int]) -> _LocatedTrack:
    """Place a track; a frame in which too few of its points are valid counts as not visible."""
    num_frames = len(geometry.points)
    pixels = np.ix_(*sampled_pixels(size, geometry.points.shape[1:3]))
    boxes, small = np.full((num_frames, 4), np.nan, np.float32), {}
    for t, counts in track.masks.items():
        mask = decode(counts, size)
        boxes[t], small[t] = box_of(mask), mask[pixels]
    places = locate(geometry.points, geometry.valid, small)
    visible = np.isfinite(places.uncertainty)
    boxes[~visible] = np.nan
    masks = {t: counts for t, counts in track.masks.items() if visible[t]}
    return _LocatedTrack(track.word, masks, boxes, visible, places.positions, places.uncertainty)


def _reading_order(thing: _LocatedTrack) -> tuple[int, float, float]:
    """Sort key: the first frame in which it is visible, then from left to right."""
    first = int(np.argmax(thing.visible))
    return first, float(thing.boxes[first, 0]), float(thing.boxes[first, 1])


def _orient(
    frames: np.ndarray, seen: Sequence[_LocatedTrack], models: Models, min_box: float
) -> tuple[np.ndarray, np.ndarray]:
    """Orientations [N, T, 3, 3] and their confidence [N, T] of agents that are large enough to be asked about."""
    n, t = len(seen), len(frames)
    rotations, confidence = np.full((n, t, 3, 3), np.nan, np.float32), np.zeros((n, t), np.float32)
    size = np.array([frames.shape[2], frames.shape[1]])
    wanted = [
        (k, int(i))
        for k, thing in enumerate(seen)
        if thing.word.is_agent
        for i in np.flatnonzero(thing.visible)
        if ((thing.boxes[i, 2:] - thing.boxes[i, :2]) / size >= min_box).all()
    ]
    if wanted:
        # Masks are decoded one by one as they are used.
        views = ((frames[i], decode(seen[k].masks[i], frames.shape[1:3])) for k, i in wanted)
        rays = np.stack([seen[k].centers[i] for k, i in wanted])
        rows, columns = np.array(wanted).T
        rotations[rows, columns], confidence[rows, columns] = models.orient(views, rays)
    return rotations, confidence


def _assemble(
    decoded: Decoded,
    geometry: Reconstruction,
    seen: Sequence[_LocatedTrack],
    orientations: np.ndarray,
    confidence: np.ndarray,
    point_map_size: tuple[int, int],
) -> ClipCues:
    t, n = len(decoded.frames), len(seen)
    size = decoded.frames.shape[1:3]
    cells = np.ix_(np.arange(t), *sampled_pixels(geometry.points.shape[1:3], point_map_size))
    valid = geometry.valid[cells]
    labels = unique_labels([thing.word.text for thing in seen])
    mask_rle, mask_offsets = pack_masks([thing.masks.get(i, b"") for thing in seen for i in range(t)])
    return ClipCues(
        timestamps=decoded.timestamps,
        frame_index=decoded.indices,
        camera_poses=geometry.camera_poses.astype(np.float64),
        intrinsics=focal_lengths(geometry.points, geometry.valid, size),
        point_map=np.where(valid[..., None], geometry.points[cells], np.nan).astype(np.float32),
        confidence=np.where(valid, geometry.confidence[cells], 0).astype(np.float32),
        labels=np.array(labels, np.str_),
        is_agent=np.array([thing.word.is_agent for thing in seen], bool),
        boxes=np.array([thing.boxes for thing in seen], np.float32).reshape(n, t, 4),
        visible=np.array([thing.visible for thing in seen], bool).reshape(n, t),
        centers=np.array([thing.centers for thing in seen], np.float32).reshape(n, t, 3),
        center_uncertainty=np.array([thing.uncertainty for thing in seen], np.float32).reshape(n, t),
        orientations=orientations,
        orientation_confidence=confidence,
        mask_rle=mask_rle,
        mask_offsets=mask_offsets,
    )


_ORDINALS = ("", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def unique_labels(texts: Sequence[str]) -> list[str]:
    """Labels that are unique within a clip.

    >>> unique_labels(["robot", "car", "robot"])
    ['robot', 'car', 'second robot']
    """
    labels: list[str] = []
    for text in texts:
        label, count = text, 1
        while label in labels:
            count += 1
            ordinal = _ORDINALS[count - 1] if count <= len(_ORDINALS) else f"{count}th"
            label = f"{ordinal} {text}"
        labels.append(label)
    return labels


def _num_gpus(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    count = torch.cuda.device_count()
    if device == "cuda" and not count:
        raise StageError("cues.foundation.device is cuda, but there is no GPU: set it to auto or cpu")
    return count


@cache
def load_models(options: FoundationCues, weights: Path) -> Models:
    """The models of this process, on its GPU if there is one.

    Raises:
        StageError: a checkpoint is not what it should be.
    """
    # The packages warn of what their authors have to change.
    warnings.filterwarnings("ignore", category=FutureWarning, module="timm|transformers|groundingdino")
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    gpus = _num_gpus(options.device)
    device = f"cuda:{slot() % gpus}" if gpus else "cpu"
    return _random(options, device) if options.preset == "tiny" else _published(options, weights, device)


def _detector_batch(options: FoundationCues, device: str) -> int:
    return 1 if device == "cpu" else options.batch_size


def _published(options: FoundationCues, folder: Path, device: str) -> Models:
    from dsr.perception import grounding, segmentation
    from dsr.perception.orientation import OrientAnything, orientations

    paths = {use: Path(weight.path) for use, weight in foundation_weights(str(folder)).items()}
    detector = grounding.load_published(paths["grounding"], paths["text_encoder"], device)
    tracker = segmentation.load_published(paths["segmentation"], device)
    reconstructor = load_reconstructor(options.reconstruction, paths["reconstruction"], device)
    orienter = OrientAnything.from_file(paths["orientation"], device)
    return Models(
        ground=grounding.Grounder(
            detector,
            box_threshold=options.box_threshold,
            text_threshold=options.text_threshold,
            nms_iou=options.nms_iou,
            batch_size=_detector_batch(options, device),
        ),
        segment=segmentation.Segmenter(tracker, match_iou=options.match_iou, max_tracks=options.max_tracks),
        reconstruct=reconstructor.reconstruct,
        orient=lambda views, rays: orientations(orienter, views, options.batch_size, rays),
    )


def _random(options: FoundationCues, device: str) -> Models:
    """Small random models behind the same functions. Thresholds are low, since nothing is sure of anything."""
    import torch

    from dsr.perception import grounding, segmentation
    from dsr.perception.orientation import OrientAnything, OrientAnythingConfig, orientations
    from dsr.perception.pi3 import Pi3, Pi3Config

    detector = grounding.random_model(options.seed, tiny=True, device=device)
    tracker = segmentation.random_model(options.seed, tiny=True, device=device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        reconstructor = Pi3(Pi3Config.tiny()).to(device).eval()
        orienter = OrientAnything(OrientAnythingConfig.tiny()).to(device).eval()
    return Models(
        ground=grounding.Grounder(
            detector,
            box_threshold=0.0,
            text_threshold=0.0,
            nms_iou=0.1,
            batch_size=_detector_batch(options, device),
            sides=(96, 160),
        ),
        segment=segmentation.Segmenter(tracker, match_iou=1.0, max_tracks=min(options.max_tracks, 3)),
        reconstruct=reconstructor.reconstruct,
        orient=lambda views, rays: orientations(orienter, views, options.batch_size, rays),
    )
