"""pi3: points, confidence and camera poses of all frames of a clip in one pass (arXiv 2507.13347, github yyfz/Pi3).

- No frame is the reference: attention alternates between the tokens of one frame and those of all frames, without
  any frame order, so that the outputs permute with the frames.
- Parameters carry the names and shapes of the published `model.safetensors` (huggingface.co/yyfz233/Pi3).
- Depth is exp(z), so it is positive; x and y are predicted per unit of depth.
- The transformer runs under autocast (bfloat16 on a GPU), the heads in float32, as published.

Letters: t frames, n tokens a frame (5 registers, then p patches), d width, h x w pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dsr.perception.dinov2 import DinoV2, DinoV2Config
from dsr.perception.reconstruction import Reconstruction

MAX_PIXELS = 255_000


@dataclass(frozen=True)
class Pi3Config:
    """Sizes; the defaults are the published model's."""

    encoder: DinoV2Config = DinoV2Config(register_tokens=4)
    decoder_depth: int = 36
    """Blocks, frame-wise and global ones in turn; even."""
    decoder_heads: int = 16
    """The decoder is as wide as the encoder."""
    register_tokens: int = 5
    head_width: int = 1024
    """Width of the three heads' own transformers."""
    head_depth: int = 5
    head_heads: int = 16
    camera_width: int = 512
    rope_base: float = 100.0

    @classmethod
    def tiny(cls) -> "Pi3Config":
        """The same architecture with 100 thousand parameters, for tests."""
        raise NotImplementedError


class Pi3(nn.Module):
    """The network, and the reconstructor built on it."""

    def __init__(self, config: Pi3Config = Pi3Config()) -> None:
        raise NotImplementedError

    @classmethod
    def from_folder(
        cls, path: Path, device: str = "cpu", dtype: torch.dtype | None = None, config: Pi3Config = Pi3Config()
    ) -> "Pi3":
        """The published model in evaluation mode.

        Args:
            path: folder with `model.safetensors`, or the file itself.
            dtype: what the transformer computes in; bfloat16 on a GPU and float32 elsewhere if not given.

        Raises:
            StageError: no such file, not a safetensors file, or parameters missing, unexpected or of another shape.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Geometry of one clip.

        Args:
            images: [t, 3, h, w] float in [0, 1], h and w multiples of 14.

        Returns:
            points [t, h, w, 3] in each camera's frame, confidence logits [t, h, w], camera-to-world poses [t, 4, 4].
        """
        raise NotImplementedError

    def reconstruct(self, frames: np.ndarray) -> Reconstruction:
        """Geometry of a clip's frames [T, H, W, 3] uint8 RGB at `model_size(H, W)`; see Reconstructor."""
        raise NotImplementedError


def load(path: Path, device: str) -> Pi3:
    """Entry of the registry of reconstruction models."""
    return Pi3.from_folder(path, device)


def load_encoder(path: Path, device: str = "cpu", config: Pi3Config = Pi3Config()) -> DinoV2:
    """pi3's DINOv2 encoder alone, read from the published checkpoint (its `encoder.*`).

    Raises:
        StageError: as `Pi3.from_folder`.
    """
    raise NotImplementedError


def model_size(height: int, width: int, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width that a picture is resized to: multiples of 14, at most `max_pixels`, nearly the same aspect.

    The published rule: the size of the same aspect ratio with exactly `max_pixels` is rounded to multiples of 14, then
    the side that is too long for the aspect ratio loses 14 pixels until the area fits. Small pictures are enlarged.
    """
    raise NotImplementedError
