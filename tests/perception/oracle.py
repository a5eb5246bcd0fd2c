"""Perception that knows the truth of a simulated clip, behind the interfaces of the real models.

Everything between them is the product's: key frames, the segmenter's matching and its two passes, tracks, centres,
labels and cues.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from dsr.cues.backends.foundation import Models
from dsr.cues.backends.simulated import VISIBLE_FRACTION
from dsr.cues.point_maps import back_project, pixel_rays
from dsr.perception.reconstruction import Reconstruction
from dsr.perception.segmentation import Segmenter
from dsr.perception.tracks import Detection, Word, box_of
from dsr.simulator.truth import Truth

Damage = Callable[[np.ndarray], np.ndarray]
CROSS = ndimage.generate_binary_structure(2, 1)


def unharmed(values: np.ndarray) -> np.ndarray:
    return values


def eroded(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_erosion(mask, CROSS, iterations=2)


def dilated(mask: np.ndarray) -> np.ndarray:
    return ndimage.binary_dilation(mask, CROSS, iterations=3)


def shifted(mask: np.ndarray) -> np.ndarray:
    return np.roll(mask, (3, -3), axis=(0, 1))


def bled(depth: np.ndarray) -> np.ndarray:
    """Depth [H, W] as a network blurs it across edges; the sky is far."""
    return ndimage.gaussian_filter(np.where(np.isfinite(depth), depth, 60.0), 1.5)


class OracleTracker:
    """The tracker's interface over true masks; a box is the body whose mask's box is nearest to it."""

    device = torch.device("cpu")

    def __init__(self, masks: np.ndarray) -> None:
        """masks: [B, T, H, W] bool."""
        self.masks = masks
        self.calls: list[tuple[str, int]] = []

    def open(self, frames: np.ndarray) -> dict[str, Any]:
        assert frames.shape[:3] == self.masks.shape[1:]
        self.calls.append(("open", -1))
        return {"bodies": {}}

    def body(self, frame: int, box: Sequence[float]) -> int:
        shown = [k for k, mask in enumerate(self.masks[:, frame]) if mask.any()]
        return min(shown, key=lambda k: np.abs(np.subtract(box_of(self.masks[k, frame]), box)).sum())

    def masks_of_boxes(self, session: dict[str, Any], frame: int, boxes: np.ndarray) -> np.ndarray:
        return np.stack([self.masks[self.body(frame, box), frame] for box in boxes])

    def start(self, session: dict[str, Any], frame: int, thing: int, box: Sequence[float]) -> None:
        assert thing not in session["bodies"]
        session["bodies"][thing] = self.body(frame, box)

    def step(self, session: dict[str, Any], frame: int, thing: int, *, reverse: bool) -> np.ndarray:
        self.calls.append(("back" if reverse else "on", frame))
        return self.masks[session["bodies"][thing], frame]


def oracle(truth: Truth, frames: np.ndarray, mask_damage: Damage = unharmed, depth_damage: Damage = unharmed) -> Models:
    """Models that see the cue frames [T] of a truth as they are, or damaged."""
    assert truth.instance is not None
    assert truth.depth is not None
    seen = truth.visible_fraction[frames].T >= VISIBLE_FRACTION
    masks = truth.instance[frames][None] == np.arange(1, len(truth.labels) + 1)[:, None, None, None]
    masks = np.stack([[mask_damage(mask) for mask in body] for body in masks]) & seen[..., None, None]
    tracker = OracleTracker(masks)
    camera_from_world = np.linalg.inv(truth.camera_poses[frames])
    body_from_camera = camera_from_world[:, None] @ truth.body_poses[frames]

    def ground(pictures: np.ndarray, places: Sequence[int], words: Sequence[Word]) -> list[Detection]:
        asked = {word.text: word for word in words}
        return [
            Detection(t, box_of(masks[k, t]), asked[label], 0.9)
            for t in places
            for k, label in enumerate(truth.labels.tolist())
            if masks[k, t].any() and label in asked
        ]

    def reconstruct(pictures: np.ndarray) -> Reconstruction:
        depth = np.stack([depth_damage(d.astype(np.float64)) for d in truth.depth[frames]])
        rays = pixel_rays(truth.intrinsics, np.arange(depth.shape[1]), np.arange(depth.shape[2]))
        points = back_project(depth, rays)
        return Reconstruction.from_outputs(points, np.ones(depth.shape), truth.camera_poses[frames])

    def orient(views: Iterable[tuple[np.ndarray, np.ndarray]], rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for (picture, mask), ray in zip(views, rays, strict=True):
            t = int(picture[0, 0, 0])  # Pictures carry the place of their frame.
            (k,) = np.flatnonzero((masks[:, t] == mask).all(axis=(1, 2)))
            found.append(body_from_camera[t, k, :3, :3])
            assert np.isfinite(ray).all()
        return np.array(found), np.ones(len(found))

    return Models(ground, Segmenter(tracker, match_iou=0.5, max_tracks=16), reconstruct, orient)  # type: ignore[arg-type]


def words_of(truth: Truth) -> list[Word]:
    return [Word(label, bool(agent)) for label, agent in zip(truth.labels.tolist(), truth.is_agent, strict=True)]
