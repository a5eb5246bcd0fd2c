"""Orient Anything: which way a thing faces, from one picture of it (arXiv 2412.18605, github SpatialVision).

- One batch over all the frames and agents of a clip; pictures and masks are consumed one pair at a time, so that
  masks can be decoded as they are needed.
- The background is removed with the track's mask, as the published preprocessing does with a segmentation model.
- Angles become rotation matrices here, and are nowhere else.

Letters: K pictures of agents.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dsr.perception.dinov2 import DinoV2Config


@dataclass(frozen=True)
class OrientAnythingConfig:
    """Sizes; the default is `croplargeEX2`."""

    backbone: DinoV2Config = DinoV2Config()

    @classmethod
    def tiny(cls) -> "OrientAnythingConfig":
        """The same architecture with a small backbone, for tests."""
        raise NotImplementedError


class OrientAnything(nn.Module):
    """DINOv2 and a two-layer head with 360 azimuths, 180 polar angles, 180 rotations and 2 for 'has a front'."""

    def __init__(self, config: OrientAnythingConfig = OrientAnythingConfig()) -> None:
        raise NotImplementedError

    @classmethod
    def from_file(
        cls,
        path: Path,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        config: OrientAnythingConfig = OrientAnythingConfig(),
    ) -> "OrientAnything":
        """The published checkpoint (`croplargeEX2/dino_weight.pt`) in evaluation mode.

        Raises:
            StageError: no such file, not a checkpoint that loads without pickled code, or parameters missing,
                unexpected or of another shape.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits [K, 722] of normalised pictures [K, 3, 224, 224]."""
        raise NotImplementedError


def orientations(
    model: OrientAnything, views: Iterable[tuple[np.ndarray, np.ndarray]], batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Orientations of agents.

    Args:
        views: K pairs of a frame [H, W, 3] uint8 RGB and the agent's mask [H, W] bool in it; consumed lazily.

    Returns:
        rotations [K, 3, 3] float32, camera-from-agent (agent: x forward, y left, z up; camera: OpenCV), and confidence
        [K] float32 in [0, 1] that the thing has a front. NaN and 0 where the mask is empty or too small to see a thing
        in, or the model's output is not finite.
    """
    raise NotImplementedError


def agent_crop(frame: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """[224, 224, 3] uint8 picture of what the mask [H, W] covers in the frame [H, W, 3] uint8: background black,
    padded to a square; None if the mask is too small."""
    raise NotImplementedError


def decode(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Angles [K, 3] (azimuth, polar, rotation) in degrees and confidence [K] of logits [K, 722]."""
    raise NotImplementedError


def rotation_matrices(angles: np.ndarray) -> np.ndarray:
    """Camera-from-agent rotations [..., 3, 3] of (azimuth, polar, rotation) [..., 3] in degrees."""
    raise NotImplementedError
