"""A step of the optimizer, as the reader and the language model take it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def take_step(
    optimizer: torch.optim.Optimizer,
    learned: Sequence[nn.Parameter],
    found: Mapping[str, Tensor],
    weights: Mapping[str, float],
    mean: dict[str, float],
) -> None:
    """Go down the weighted sum of losses, and bring running means up to date.

    Args:
        found: losses and accuracies; those without a weight are only watched.
        mean: running mean of each, changed in place.
    """
    loss = sum((weights[name] * value for name, value in found.items() if name in weights), torch.zeros(()))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(learned, 1.0)
    optimizer.step()
    for name, value in found.items():
        now = float(value.detach())
        mean[name] = 0.95 * mean.get(name, now) + 0.05 * now
