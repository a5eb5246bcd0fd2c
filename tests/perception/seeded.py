"""Random weights and pictures that are the same everywhere, so that fixtures need not store them."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def uniform(name: str, shape: Sequence[int]) -> np.ndarray:
    """Float64 in [-1, 1) that depends on the name and the shape alone.

    Raw bits of PCG64, whose stream is fixed for good (that of NumPy's distributions is not).
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    count = int(np.prod(shape, dtype=np.int64))
    bits = np.random.PCG64(seed).random_raw(count) >> np.uint64(11)
    return (bits * 2.0**-52 - 1).reshape(shape)


def weight(name: str, shape: Sequence[int]) -> Tensor:
    """A plausible random parameter: every branch counts, and activations neither vanish nor explode."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    values = uniform(name, shape)
    if len(shape) >= 2 and min(shape) > 1 and "pos" not in name:
        values *= np.sqrt(3 / np.prod(shape[1:]))  # unit variance times inputs
    elif name.endswith(("gamma", "lambda1", "running_var")) or (name.endswith("weight") and len(shape) == 1):
        values = 1 + 0.3 * values
    else:
        values *= 0.3
    return torch.from_numpy(values.astype(np.float32))


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """A checkpoint with these names and shapes."""
    return {name: weight(name, shape) for name, shape in shapes.items()}


def pictures(name: str, count: int, height: int, width: int) -> np.ndarray:
    """[count, height, width, 3] uint8: smooth patterns, each picture its own."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = uniform(name, (count, 3, 4, 3)) * [12, 12, np.pi]  # frequencies of y and x, phase
    values = np.sin(np.einsum("nckd,dhw->nckhw", waves, np.stack([y, x, np.ones_like(y)]))).mean(axis=2)
    return np.round(127.5 + 127 * values.transpose(0, 2, 3, 1)).astype(np.uint8)
