"""DINOv2 vision transformers (ViT-L/14, with or without registers), which pi3 and Orient Anything are built on.

- Parameters carry the names of Meta's checkpoints, as they stand under `encoder.` in pi3's.
- Any picture of whole patches: position embeddings are resized from the grid of the training pictures.

Letters: b pictures, r registers, p patches, d width.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

PATCH = 14


@dataclass(frozen=True)
class DinoV2Config:
    """Sizes; the defaults are ViT-L/14's."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    grid: int = 37
    """Patches on a side of the pictures (518 pixels) that the position embeddings were learned on."""
    register_tokens: int = 0


class DinoV2Tokens(NamedTuple):
    """Tokens after the last norm."""

    cls: Tensor
    """[b, d]"""
    registers: Tensor
    """[b, r, d]"""
    patches: Tensor
    """[b, p, d], row by row: DINOv2's `x_norm_patchtokens`."""


class DinoV2(nn.Module):
    """The transformer."""

    def __init__(self, config: DinoV2Config) -> None:
        raise NotImplementedError

    def forward(self, images: Tensor) -> DinoV2Tokens:
        """Tokens of pictures [b, 3, h, w], h and w multiples of 14, normalised with IMAGE_MEAN and IMAGE_STD."""
        raise NotImplementedError
