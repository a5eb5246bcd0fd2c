"""Transformer blocks that DINOv2 and pi3 share, with the parameter names of Meta's ViT (`attn.qkv`, `mlp.fc1`, …).

Pre-norm blocks, exact GELU, one projection for queries, keys and values, scaled dot product attention from PyTorch.

Letters: b sequences, n tokens, d width, e width of a head.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-6


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of two coordinates: one half of a head turns with y, the other with x."""

    cos: Tensor
    """[n, e] float32"""
    sin: Tensor
    """[n, e] float32"""

    @classmethod
    def at(cls, positions: Tensor, head_width: int, base: float) -> "Rotary":
        """The rotation of tokens at positions [n, 2] (y, x) for heads of a width that 4 divides."""
        pairs = torch.arange(head_width // 4, device=positions.device) / (head_width // 4)
        angles = positions[..., None].float() * base**-pairs  # [n, 2, e / 4]
        angles = torch.cat([angles, angles], dim=-1).flatten(1)
        return cls(angles.cos(), angles.sin())

    def repeat(self, times: int) -> "Rotary":
        """The same positions `times` over, for frames one after another."""
        return Rotary(self.cos.repeat(times, 1), self.sin.repeat(times, 1))

    def __call__(self, x: Tensor) -> Tensor:
        """Turn x [..., n, e]; float32 whatever x is, because bfloat16 has too few digits for an angle."""
        first, second = x.unflatten(-1, (2, 2, -1)).unbind(-2)
        return x * self.cos + torch.stack([-second, first], dim=-2).flatten(-3) * self.sin


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        # Unlike the blocks' norms, these have PyTorch's default epsilon in pi3.
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotary: Rotary | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [b, heads, n, e]
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        mixed = functional.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class TransformerBlock(nn.Module):
    """Attention and MLP, each added to what came in.

    Args:
        layer_scale: initial factor of the two branches; none if not given.
        qk_norm: whether queries and keys are normalised in each head.
    """

    def __init__(self, width: int, heads: int, *, layer_scale: float | None = None, qk_norm: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads, qk_norm)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        """Tokens [b, n, d] to tokens [b, n, d]."""
        x = x + self.ls1(self.attn(self.norm1(x), rotary))
        return x + self.ls2(self.mlp(self.norm2(x)))


def learned_tokens(*shape: int) -> nn.Parameter:
    """[1, *shape] parameter, small and random."""
    # In place: transformers puts functions that return nothing into nn.init while it loads a checkpoint.
    tokens = nn.Parameter(torch.empty(1, *shape))
    nn.init.trunc_normal_(tokens, std=0.02)
    return tokens


def patch_positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """[rows * columns, 2] int64 (row, column) of patches in reading order."""
    return torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))


def default_dtype(device: str) -> torch.dtype:
    """Type for the matrix products of a transformer on a device: bfloat16 on a GPU, float32 elsewhere."""
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


def computing_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager:
    """Run matrix products in `dtype`; parameters, norms and sums of residuals stay float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
