"""ClipCues: the 3D cues of a clip, one validated file a clip.

Letters: T frames, N tracks, h x w the reduced point map, H x W the original video.
Camera frame: OpenCV (x right, y down, z forward). Agent frame: x forward, y left, z up. Lengths are up to one
scale a clip. What was not observed is NaN (never zero).
"""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dsr.console import package
from dsr.files import write_npz
from dsr.geometry.frames import is_rotation

coco_mask = package("pycocotools.mask", "pip install pycocotools")

SCHEMA_VERSION = 1
_CLIP_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)


class CuesError(ValueError):
    """Cues that do not keep to the schema; the message names the field."""


@dataclass(frozen=True, eq=False)
class ClipCues:
    """3D cues of one clip. Arrays are checked on construction, so on write and on read.

    Raises:
        CuesError: a field has the wrong shape, dtype or content.
    """

    timestamps: np.ndarray
    """[T] float64, seconds since the clip's first frame, strictly increasing."""
    frame_index: np.ndarray
    """[T] int64, index of the frame in the decoded video, strictly increasing."""
    camera_poses: np.ndarray
    """[T, 4, 4] float64, camera-to-world; finite."""
    intrinsics: np.ndarray
    """[T, 3, 3] float64, pixels of the original video; NaN where unknown."""
    point_map: np.ndarray
    """[T, h, w, 3] float32, camera frame; NaN where there is no valid point."""
    confidence: np.ndarray
    """[T, h, w] float32 in [0, 1]; 0 where there is no valid point."""
    labels: np.ndarray
    """[N] unicode, the curated word, unique within a clip ("robot", "second robot", …)."""
    is_agent: np.ndarray
    """[N] bool."""
    boxes: np.ndarray
    """[N, T, 4] float32, xyxy in pixels of the original video; NaN where not visible."""
    visible: np.ndarray
    """[N, T] bool."""
    centers: np.ndarray
    """[N, T, 3] float32, camera frame; NaN where not visible."""
    center_uncertainty: np.ndarray
    """[N, T] float32, standard deviation of a centre relative to its depth, as the backend estimates it; NaN
    where not visible."""
    orientations: np.ndarray
    """[N, T, 3, 3] float32, camera-from-agent rotation; NaN for objects and where unknown."""
    orientation_confidence: np.ndarray
    """[N, T] float32 in [0, 1]; 0 where there is no orientation."""
    mask_rle: np.ndarray
    """[M] uint8, all COCO run-length strings one after another (track-major, as `visible.ravel()`)."""
    mask_offsets: np.ndarray
    """[N * T + 1] int64, mask k is mask_rle[offsets[k]:offsets[k + 1]]; empty where there is no mask."""
    meta: dict[str, Any] = field(default_factory=dict)
    """clip_id, sha256, width, height, key, identity (backend, hashes of its code and files, parameters), num_tracks,
    num_agents, schema_version; filled by the store. `left_out`: detections for which the backend had no room."""

    def __post_init__(self) -> None:
        _check_layout(self)
        _check_content(self)

    @property
    def num_tracks(self) -> int:
        return len(self.labels)

    @property
    def num_frames(self) -> int:
        return len(self.timestamps)

    def mask(self, track: int, frame: int) -> np.ndarray:
        """[H, W] bool mask of a track in a frame; all False where there is none."""
        k = track * self.num_frames + frame
        counts = self.mask_rle[self.mask_offsets[k] : self.mask_offsets[k + 1]].tobytes()
        size = [int(self.meta["height"]), int(self.meta["width"])]
        if not counts:
            return np.zeros(size, dtype=bool)
        try:
            return coco_mask.decode({"size": size, "counts": counts}).astype(bool)
        except ValueError:
            raise CuesError(f"mask_rle: track {track}, frame {frame} is no mask of {size[1]}x{size[0]}") from None


_LAYOUT: dict[str, tuple[tuple[str | int, ...], type | None]] = {
    "timestamps": (("T",), np.float64),
    "frame_index": (("T",), np.int64),
    "camera_poses": (("T", 4, 4), np.float64),
    "intrinsics": (("T", 3, 3), np.float64),
    "point_map": (("T", "h", "w", 3), np.float32),
    "confidence": (("T", "h", "w"), np.float32),
    "labels": (("N",), None),
    "is_agent": (("N",), np.bool_),
    "boxes": (("N", "T", 4), np.float32),
    "visible": (("N", "T"), np.bool_),
    "centers": (("N", "T", 3), np.float32),
    "center_uncertainty": (("N", "T"), np.float32),
    "orientations": (("N", "T", 3, 3), np.float32),
    "orientation_confidence": (("N", "T"), np.float32),
    "mask_rle": (("M",), np.uint8),
    "mask_offsets": (("N * T + 1",), np.int64),
}
"""Shape and dtype of each array; None: unicode."""
ARRAYS = tuple(_LAYOUT)
MASKS = ("mask_rle", "mask_offsets")
PIXELWISE = ("point_map", "confidence", *MASKS)
"""Arrays that tell of pixels: nearly all of a file. Questions and what explains them need none of them."""


def nan_where_unknown(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` as float32, NaN where not `known` (their leading axes).

    >>> nan_where_unknown(np.array([True, False]), np.array([[1, 2], [3, 4]])).tolist()
    [[1.0, 2.0], [nan, nan]]
    """
    known = known.reshape(known.shape + (1,) * (values.ndim - known.ndim))
    return np.where(known, values, np.nan).astype(np.float32)


def encode_masks(masks: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """COCO run-length strings of masks.

    Args:
        masks: [N, T, H, W] bool.
        visible: [N, T] bool; where False no mask is stored.

    Returns:
        `mask_rle` and `mask_offsets` of ClipCues.
    """
    flat = masks.reshape(-1, *masks.shape[2:])
    strings = [b""] * len(flat)
    shown = np.flatnonzero(visible.ravel())
    if len(shown):
        encoded = coco_mask.encode(np.asfortranarray(flat[shown].transpose(1, 2, 0).astype(np.uint8)))
        for k, rle in zip(shown, encoded, strict=True):
            strings[k] = rle["counts"]
    return pack_masks(strings)


def pack_masks(strings: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """`mask_rle` and `mask_offsets` of ClipCues from COCO run-length strings [N * T], empty where there is no mask.

    >>> rle, offsets = pack_masks([b"abc", b"", b"", b"de"])
    >>> rle.tobytes(), offsets.tolist()
    (b'abcde', [0, 3, 3, 3, 5])
    """
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in strings])]).astype(np.int64)
    return np.frombuffer(b"".join(strings), dtype=np.uint8), offsets


def no_masks(num_tracks: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """`mask_rle` and `mask_offsets` of cues without masks.

    >>> [array.tolist() for array in no_masks(num_tracks=1, num_frames=2)]
    [[], [0, 0, 0]]
    """
    return np.zeros(0, np.uint8), np.zeros(num_tracks * num_frames + 1, np.int64)


def cue_path(folder: Path, clip_id: str) -> Path:
    """Path of a clip's cues.

    Raises:
        ValueError: `clip_id` is not safe as a file name.
    """
    if not _CLIP_ID.fullmatch(clip_id):
        raise ValueError(f"clip id {clip_id!r} is not a file name of letters, digits, '.', '_' and '-'")
    return folder / f"{clip_id}.npz"


def write_cues(path: Path, cues: ClipCues) -> None:
    """Write cues as a compressed .npz without pickle; equal cues are equal bytes."""
    arrays = {name: getattr(cues, name) for name in ARRAYS}
    arrays["meta"] = np.frombuffer(json.dumps(cues.meta, sort_keys=True, allow_nan=False).encode(), np.uint8)
    # Points hardly compress, and reading and writing them is most of a file's time.
    write_npz(path, arrays, stored={"point_map"})


def read_meta(path: Path) -> dict[str, Any]:
    """The `meta` of a cue file that is whole (all arrays are there; their content is checked by `read_cues`).

    Raises:
        CuesError: not a cue file, or a damaged one.
    """
    return _read(path, ())[1]


def read_cues(path: Path, *, skip: Collection[str] = ()) -> ClipCues:
    """Read and check a cue file.

    Args:
        skip: arrays not to read, for speed: some of PIXELWISE; they come back empty.

    Raises:
        CuesError: not a cue file, a damaged one, or one of another schema version.
    """
    arrays, meta = _read(path, [name for name in ARRAYS if name not in skip])
    if meta.get("schema_version") != SCHEMA_VERSION:
        raise CuesError(f"{path}: schema version is not {SCHEMA_VERSION}: run the cues stage again")
    t, n = len(arrays["timestamps"]), len(arrays["labels"])
    empty = {
        "point_map": np.zeros((t, 0, 0, 3), np.float32),
        "confidence": np.zeros((t, 0, 0), np.float32),
    }
    empty["mask_rle"], empty["mask_offsets"] = no_masks(n, t)
    arrays |= {name: empty[name] for name in skip}
    try:
        return ClipCues(**arrays, meta=meta)
    except CuesError as error:
        raise CuesError(f"{path}: {error}") from None


_READ_ERRORS = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    # Damaged archives: an unsupported compression, an encryption flag, a size that no memory holds, a deep tree.
    NotImplementedError,
    RuntimeError,
    MemoryError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
)


def _read(path: Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            missing = {"meta", *ARRAYS} - {name.removesuffix(".npy") for name in archive.namelist()}
            if missing:
                raise ValueError(f"without {', '.join(sorted(missing))}")
            meta = json.loads(_read_array(archive, "meta").tobytes())
            if not isinstance(meta, dict):
                raise ValueError("meta is not a mapping")
            return {name: _read_array(archive, name) for name in names}, meta
    except _READ_ERRORS as error:
        raise CuesError(f"{path}: not a readable cue file ({error}); delete it and run the cues stage again") from None


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)


def _check_layout(cues: ClipCues) -> None:
    _check(cues.timestamps.ndim == 1 and cues.labels.ndim == 1, "timestamps, labels", "are not one-dimensional")
    t, n = cues.num_frames, cues.num_tracks
    h, w = cues.point_map.shape[1:3] if cues.point_map.ndim == 4 else (0, 0)
    sizes = {"T": t, "N": n, "h": h, "w": w, "M": len(cues.mask_rle), "N * T + 1": n * t + 1}
    for name, (axes, dtype) in _LAYOUT.items():
        array = getattr(cues, name)
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in axes)
        _check(array.shape == shape, name, f"has shape {array.shape}, not {shape}")
        wanted = "unicode" if dtype is None else str(np.dtype(dtype))
        fits = array.dtype.kind == "U" if dtype is None else array.dtype == dtype
        _check(fits, name, f"has dtype {array.dtype}, not {wanted}")


def _check_content(cues: ClipCues) -> None:
    _check(cues.num_frames >= 1, "timestamps", "is empty")
    _check(len(set(cues.labels.tolist())) == cues.num_tracks, "labels", "are not unique")
    for name in ("timestamps", "frame_index"):
        _check(bool((np.diff(getattr(cues, name)) > 0).all()), name, "does not increase strictly")
    _check(bool(np.isfinite(cues.timestamps).all()), "timestamps", "has NaN or infinity")
    _check(bool((cues.frame_index >= 0).all()), "frame_index", "has a negative index")
    _check(bool(np.isfinite(cues.camera_poses).all()), "camera_poses", "has NaN or infinity")
    _check(bool((cues.camera_poses[:, 3] == [0, 0, 0, 1]).all()), "camera_poses", "has a last row that is not 0 0 0 1")
    _check_rotations(cues.camera_poses[:, :3, :3], "camera_poses")
    shown = cues.visible
    for name in ("boxes", "centers", "center_uncertainty"):
        array = getattr(cues, name)
        _check(bool(np.isfinite(array[shown]).all()), name, "has NaN or infinity where visible")
        _check(bool(np.isnan(array[~shown]).all()), name, "has values where not visible")
    boxes = cues.boxes[shown]
    _check(bool((boxes[:, 2:] > boxes[:, :2]).all()), "boxes", "has an empty box")
    _check(bool((cues.center_uncertainty[shown] >= 0).all()), "center_uncertainty", "is negative")
    known = np.isfinite(cues.orientations).all(axis=(2, 3))
    _check(bool(np.isnan(cues.orientations[~known]).all()), "orientations", "has a matrix that is partly known")
    _check(not (known & ~(shown & cues.is_agent[:, None])).any(), "orientations", "set for an object or unseen agent")
    _check_rotations(cues.orientations[known], "orientations")
    _check(bool((cues.orientation_confidence[~known] == 0).all()), "orientation_confidence", "set without orientation")
    for name in ("confidence", "orientation_confidence"):
        array = getattr(cues, name)
        _check(bool(((array >= 0) & (array <= 1)).all()), name, "is not in [0, 1]")
    # Three passes over contiguous memory; a reduction over the last, short axis is several times slower.
    finite = np.isfinite(cues.point_map)
    valid = finite[..., 0] & finite[..., 1] & finite[..., 2]
    _check(bool((valid | (cues.confidence == 0)).all()), "confidence", "is set where point_map is not finite")
    _check(
        bool((np.diff(cues.mask_offsets) >= 0).all())
        and cues.mask_offsets[0] == 0
        and cues.mask_offsets[-1] == len(cues.mask_rle),
        "mask_offsets",
        "do not cover mask_rle",
    )


def _check_rotations(rotations: np.ndarray, name: str) -> None:
    _check(bool(is_rotation(rotations).all()), name, "has a matrix that is no rotation")


def _check(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise CuesError(f"{name} {problem}")
