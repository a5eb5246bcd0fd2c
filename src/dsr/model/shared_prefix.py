"""Several questions about one video in one row: what they share is computed once, and each is answered as if alone.

A row is made of clips, one after another. A clip begins with its prefix (system text and vision tokens) and goes on
with its branches, one a question (geometry tokens, question, answer). A token sees what comes before it in its own
branch and the clip's prefix, nothing else, and stands at the position that it has in a sequence of its own. Causal
attention then gives every token what it gives there, and so do the gradients.

Attention is computed in parts, without a mask over the whole row: a clip's prefix over itself, causally (a fast kernel
on every device), and groups of its branches over the prefix and themselves, with a mask of that size. There is no
padding. Everything else in a transformer works token by token.

Letters: s tokens of the row, p of a prefix, g of a group of branches, b questions, h heads, e head width.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "shared_prefix"
"""Name of the attention among those of transformers: SDPA, which takes a `Packing` as its mask too."""


@dataclass(frozen=True)
class PackedClip:
    """Lengths of a clip's parts."""

    prefix: int
    branches: tuple[int, ...]

    def groups(self) -> list[list[int]]:
        """Branches in groups no longer than the prefix, or of one: all at once would see mostly what they must not, and
        one at a time each would copy the prefix.

        >>> PackedClip(5, (2, 3, 9, 1, 1)).groups()
        [[2, 3], [9], [1, 1]]
        """
        groups: list[list[int]] = []
        for length in self.branches:
            if groups and sum(groups[-1]) + length <= self.prefix:
                groups[-1].append(length)
            else:
                groups.append([length])
        return groups


@dataclass(frozen=True)
class Packing:
    """Layout of a row [1, s]."""

    clips: tuple[PackedClip, ...]
    _masks: dict[Any, list[Tensor]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def length(self) -> int:
        return sum(clip.prefix + sum(clip.branches) for clip in self.clips)

    @property
    def owners(self) -> list[int]:
        """[b] the clip of each question."""
        return [number for number, clip in enumerate(self.clips) for _ in clip.branches]

    def spans(self) -> Iterator[tuple[PackedClip, int, int, int]]:
        """Each clip with the places where it begins, where its branches begin, and where it ends."""
        start = 0
        for clip in self.clips:
            middle, end = start + clip.prefix, start + clip.prefix + sum(clip.branches)
            yield clip, start, middle, end
            start = end

    def sequences(self) -> list[Tensor]:
        """[b] places in the row of each question's tokens as they stand in a sequence of its own."""
        sequences = []
        for clip, start, middle, _ in self.spans():
            prefix = torch.arange(start, middle)
            for branch in torch.arange(sum(clip.branches)).split(list(clip.branches)):
                sequences.append(torch.cat([prefix, middle + branch]))
        return sequences

    def masks(self, like: Tensor) -> list[Tensor]:
        """For each group of branches [1, 1, g, p + g], 0 where a token sees another, -inf elsewhere; `like` says how.

        Made once: every layer takes the same.
        """
        key = like.device, like.dtype
        if key not in self._masks:
            masks = []
            for clip in self.clips:
                for group in clip.groups():
                    branch = torch.repeat_interleave(torch.tensor(group))
                    seen = (branch[:, None] == branch).tril()
                    mask = torch.zeros(len(branch), clip.prefix + len(branch))
                    mask[:, clip.prefix :].masked_fill_(~seen, float("-inf"))
                    masks.append(mask[None, None].to(like))
            self._masks[key] = masks
        return self._masks[key]


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA of a packed row [1, h, s, e], or, with a mask that is no `Packing`, transformers' SDPA.

    Returns:
        [1, s, h, e], and no weights.
    """
    if not isinstance(attention_mask, Packing):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    repeats = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, repeats), repeat_kv(value, repeats)
    groups = [[sum(group) for group in clip.groups()] for clip in attention_mask.clips]
    lengths = [part for clip, own in zip(attention_mask.clips, groups, strict=True) for part in (clip.prefix, *own)]
    # Split, not sliced: the gradient of each slice would be as long as the row.
    states = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    masks = iter(attention_mask.masks(query))
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    parts = []
    for own in groups:
        q, k, v = prefix = next(states)
        parts.append(F.scaled_dot_product_attention(q, k, v, is_causal=True, **options))
        for _ in own:
            q, k, v = next(states)
            k, v = torch.cat([prefix[1], k], dim=2), torch.cat([prefix[2], v], dim=2)
            parts.append(F.scaled_dot_product_attention(q, k, v, attn_mask=next(masks), **options))
    return torch.cat(parts, dim=2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, shared_prefix_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
