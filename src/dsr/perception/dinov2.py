"""DINOv2 vision transformers (ViT-L/14, with or without registers), which pi3 and Orient Anything are built on.

- Parameters carry the names of Meta's checkpoints, as they stand under `encoder.` in pi3's; the mask token, which only
  training uses, is left out.
- Any picture of whole patches: position embeddings are resized from the grid of the training pictures, by the rule
  that the checkpoint was trained with (models with registers: antialiased, to the exact size; models without: not
  antialiased, by a factor that is a tenth of a patch too large).

Letters: b pictures, r registers, p patches, d width, h x w pixels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsr.perception.transformer import NORM_EPS, TransformerBlock, learned_tokens

PATCH = 14
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
RESIZE_OFFSET = 0.1


@dataclass(frozen=True)
class DinoV2Config:
    """Sizes; the defaults are ViT-L/14's."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    grid: int = 37
    """Patches on a side of the pictures (518 pixels) that the position embeddings were learned on."""
    registers: int = 0

    @classmethod
    def tiny(cls, registers: int = 0) -> "DinoV2Config":
        """The same architecture with 30 thousand parameters, for tests."""
        return cls(width=32, depth=2, heads=2, grid=5, registers=registers)


class DinoV2Tokens(NamedTuple):
    """Tokens after the last norm."""

    cls: Tensor
    """[b, d]"""
    registers: Tensor
    """[b, r, d]"""
    patches: Tensor
    """[b, p, d], row by row: DINOv2's `x_norm_patchtokens`."""


class PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # [b, p, d]


class DinoV2(nn.Module):
    """The transformer."""

    def __init__(self, config: DinoV2Config) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.width)
        self.cls_token = learned_tokens(1, config.width)
        self.pos_embed = learned_tokens(1 + config.grid**2, config.width)
        if config.registers:
            self.register_tokens = learned_tokens(config.registers, config.width)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, layer_scale=1.0) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def forward(self, images: Tensor) -> DinoV2Tokens:
        """Tokens of pictures [b, 3, h, w], h and w multiples of 14, normalised with IMAGE_MEAN and IMAGE_STD."""
        b, _, h, w = images.shape
        cls_position, patch_positions = self._positions(h // PATCH, w // PATCH)
        parts = [(self.cls_token + cls_position).expand(b, -1, -1)]
        if self.config.registers:
            parts.append(self.register_tokens.expand(b, -1, -1))
        parts.append(self.patch_embed(images) + patch_positions)
        x = torch.cat(parts, dim=1)  # [b, 1 + r + p, d]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        first_patch = 1 + self.config.registers
        return DinoV2Tokens(x[:, 0], x[:, 1:first_patch], x[:, first_patch:])

    def _positions(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Position embeddings of the class token [1, 1, d] and of a grid of patches [1, rows * columns, d]."""
        grid = self.config.grid
        cls_position, positions = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if (rows, columns) == (grid, grid):
            return cls_position, positions
        positions = positions.float().unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
        if self.config.registers:
            resized = functional.interpolate(positions, (rows, columns), mode="bicubic", antialias=True)
        else:
            factors = ((rows + RESIZE_OFFSET) / grid, (columns + RESIZE_OFFSET) / grid)
            resized = functional.interpolate(positions, scale_factor=factors, mode="bicubic")
        return cls_position, resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)


def image_statistics() -> tuple[Tensor, Tensor]:
    """IMAGE_MEAN and IMAGE_STD as [1, 3, 1, 1]."""
    return torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
