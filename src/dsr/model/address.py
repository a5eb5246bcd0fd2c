"""Addresses of 3D tokens: of whom, as whose target, and when, in the words in which a question asks for them.

- The width of a token is cut into parts: values (a half), viewer's label, target's label (a sixth each), time (the
  rest). Each part has one map, and the rest of the width is zero, so that the parts of a token add up to it.
- A question's labels and times (dsr.model.reader) go through the same maps as those of the 3D tokens: what a question
  names and what carries that name agree before anything is learned.
- A label is the mean of its words' embeddings in the language model, brought to a root mean square of one: any name
  has an address, whether it was seen in training or not.

Letters: d width.
"""

import math
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig

PERIODS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Seconds; a time is told by its sine and cosine at each, and by a parabola around MIDDLE."""
MIDDLE = 4.0
"""Seconds about which most questions ask."""
REACH = 2.0
"""Multiples of MIDDLE before and after it, beyond which the parabola goes on level."""
TIME_FEATURES = 2 * len(PERIODS) + 2
SCALE = 2.5
"""Size of an address beside a token's values."""


def label(words: Tensor, weights: Tensor) -> Tensor:
    """Labels [..., d] out of embeddings of words [..., l, d] by their weights [..., l]; zero where all are zero."""
    mean = (weights[..., None, :].to(words) @ words)[..., 0, :]
    return F.rms_norm(mean, mean.shape[-1:], eps=1e-6)


def time_features(seconds: Tensor) -> Tensor:
    """[..., TIME_FEATURES] float32 of times in seconds [...]."""
    periods = torch.tensor(PERIODS, device=seconds.device)
    phase = 2 * math.pi * seconds.float()[..., None] / periods
    away = (seconds.float()[..., None] / MIDDLE - 1).clamp(-REACH, REACH)
    return torch.cat([2 * away, 2 * away.square(), phase.sin(), phase.cos()], dim=-1)


def draw(linear: nn.Linear, scale: float = 1.0) -> None:
    """Draw weights for inputs of size one whatever their number, `scale` times those that torch draws; no bias."""
    nn.init.normal_(linear.weight, std=scale / math.sqrt(3 * linear.in_features))
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


class Address(nn.Module):
    """Maps of labels and times to their parts of a token's width.

    Args:
        config: text configuration of the language model, at least 6 wide.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        d = config.hidden_size
        sizes = value_width(config), d // 6, d // 6, d - value_width(config) - 2 * (d // 6)
        self.width, self.starts = d, (0, *accumulate(sizes))[:-1]
        self.viewer_map = nn.Linear(d, sizes[1], bias=False)
        self.target_map = nn.Linear(d, sizes[2], bias=False)
        self.time_map = nn.Linear(TIME_FEATURES, sizes[3])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for linear in (self.viewer_map, self.target_map, self.time_map):
            draw(linear, SCALE)

    def token(self, values: Tensor, seconds: Tensor, labels: Tensor, things: Tensor) -> Tensor:
        """[v, k, d] of values [v, k, d / 2] at times [v, k], of things with labels [v, n, d]: a target [v, k, 1], or a
        viewer and a target [v, k, 2], which are indices of labels.
        """
        target = self.target_map(labels).take_along_dim(things[..., -1:], dim=1)
        viewer = target.new_zeros(*target.shape[:-1], self.viewer_map.out_features)
        if things.shape[-1] > 1:
            viewer = self.viewer_map(labels).take_along_dim(things[..., :1], dim=1)
        return torch.cat([values, viewer, target, self._times(seconds)], dim=-1)

    def viewer(self, labels: Tensor) -> Tensor:
        """[..., d] of viewers' labels [..., d]."""
        return self._place(self.viewer_map(labels), 1)

    def target(self, labels: Tensor) -> Tensor:
        """[..., d] of targets' labels [..., d]."""
        return self._place(self.target_map(labels), 2)

    def time(self, seconds: Tensor) -> Tensor:
        """[..., d] of times in seconds [...]."""
        return self._place(self._times(seconds), 3)

    def _times(self, seconds: Tensor) -> Tensor:
        return self.time_map(time_features(seconds).to(self.time_map.weight.dtype))

    def _place(self, part: Tensor, number: int) -> Tensor:
        start = self.starts[number]
        return F.pad(part, (start, self.width - start - part.shape[-1]))


def value_width(config: PretrainedConfig) -> int:
    """Width of the part of a token that holds its values."""
    return config.hidden_size // 2
