"""Geometry Selection Module: from all 3D tokens of a clip to the few that a question needs.

- N learned queries go through two Q-Formers (arXiv 2512.20557, section 4; layout of the published checkpoint).
- The condenser attends to the question's token embeddings: queries become what is asked.
- The selector attends to the 3D tokens: queries become the geometry that answers it.
- A Q-Former is one pre-norm block (RMSNorm): grouped-query cross-attention with multimodal RoPE on queries and keys,
  SwiGLU MLP with biases, a residual around each. One norm serves queries and keys, as published.
- Sizes (width, heads, MLP) are the language model's. Samples are a batch dimension with padding masks, so cost grows
  linearly with the batch.
- Questions about one video share its keys and values.
- A tied start (where the question's states have the addresses of 3D tokens, dsr.model.address): the condenser hands
  addresses on as they are, and the selector's queries and keys begin as one projection of them, so that what a question
  asks for is what is looked at. The selector is then without RoPE: when a token is of, its address says.
- The selector's attention can be asked for, and taught where to look (`Look`).

Letters: b questions, v videos, n queries, k keys, d width, h heads, e head width.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.activations import ACT2FN
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from dsr.model.address import value_width
from dsr.model.transformers_versions import MultimodalRotaryEmbedding

NORM_EPS = 1e-6
"""Epsilon of the published GSM; not the language model's own."""


TIED_VALUES = 0.5
"""Share of what it looks at that a tied selector begins to add to its queries."""


@dataclass(frozen=True)
class Look:
    """Request for attention's log-probabilities, and how far its weights are moved to given ones, in training.

    Letters as below.
    """

    keys: Tensor | None = None
    """[b, h, n] int64, the key that each head of a query should look at; negative: any."""
    weight: float = 0.0
    """Share of the attention that goes to that key in the place of the model's own; 0 leaves it as it is."""


class GeometrySelectionModule(nn.Module):
    """Selects `num_tokens` geometry tokens for a question.

    Args:
        config: text configuration of the language model (Qwen2_5_VLTextConfig).
        num_tokens: N, the published model has 32.
        tied: begin with matching projections of addresses.
    """

    def __init__(self, config: PretrainedConfig, num_tokens: int, tied: bool = False) -> None:
        super().__init__()
        self.num_tokens, self.tied, self._value_width = num_tokens, tied, value_width(config)
        self.queries = nn.Parameter(torch.empty(num_tokens, config.hidden_size))
        self.condenser = QFormer(config)
        self.selector = QFormer(config)
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=NORM_EPS)
        self.rotary = MultimodalRotaryEmbedding(config=config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit normal queries, as published, and a tied start."""
        nn.init.normal_(self.queries)
        if self.tied:
            values, addresses = slice(None, self._value_width), slice(self._value_width, None)
            self.condenser.attn.tie_values(addresses, 1.0)
            self.selector.attn.tie_keys(addresses)
            self.selector.attn.tie_values(values, TIED_VALUES)

    def forward(
        self,
        question: Tensor,
        question_mask: Tensor,
        geometry: Tensor,
        geometry_mask: Tensor,
        positions: Tensor,
        videos: Tensor | None = None,
        look: Look | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Geometry tokens that follow the vision tokens.

        Args:
            question: [b, l, d] states of each question: as published, token embeddings.
            question_mask: [b, l] bool, False is padding.
            geometry: [v, k, d] 3D tokens.
            geometry_mask: [v, k] bool, False is padding.
            positions: [3, v, k] int64, (time, row, column) of each 3D token on the video's grid.
            videos: [b] int64, the video of each question; without it question i is about video i.
            look: of the selector.

        Returns:
            [b, N, d]; with `look` also the selector's attention [b, h, N, k], log-probabilities.
        """
        b, device = question.shape[0], question.device
        query_positions = torch.arange(self.num_tokens, device=device).expand(3, b, -1)
        word_positions = (question_mask.cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)
        queries = self.queries.to(question.dtype).expand(b, -1, -1)  # [b, n, d]
        query_rotation = self.rotary(question, query_positions)
        queries = self.condenser(
            queries, question, question_mask, query_rotation, self.rotary(question, word_positions)
        )
        if self.tied:
            query_positions, positions = torch.zeros_like(query_positions), torch.zeros_like(positions)
            query_rotation = self.rotary(question, query_positions)
        geometry_rotation = self.rotary(geometry, positions)
        selected = self.selector(queries, geometry, geometry_mask, query_rotation, geometry_rotation, videos, look)
        return self.norm(selected) if look is None else (self.norm(selected[0]), selected[1])


class QFormer(nn.Module):
    """One pre-norm cross-attention block."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.norm1 = Qwen2RMSNorm(config.hidden_size, eps=NORM_EPS)
        self.norm2 = Qwen2RMSNorm(config.hidden_size, eps=NORM_EPS)
        self.attn = CrossAttention(config)
        self.mlp = SwiGLU(config)

    def forward(
        self,
        queries: Tensor,
        target: Tensor,
        mask: Tensor,
        query_rotation: tuple[Tensor, Tensor],
        key_rotation: tuple[Tensor, Tensor],
        rows: Tensor | None = None,
        look: Look | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """[b, n, d] queries that attended to the target [v, k, d] where mask [v, k] is True; rows [b] of the target.

        With `look` also the attention's log-probabilities [b, h, n, k].
        """
        attended = self.attn(self.norm1(queries), self.norm1(target), mask, query_rotation, key_rotation, rows, look)
        queries = queries + (attended if look is None else attended[0])
        queries = queries + self.mlp(self.norm2(queries))
        return queries if look is None else (queries, attended[1])


class CrossAttention(nn.Module):
    """Grouped-query cross-attention with multimodal RoPE on queries and keys."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        d, self.head_dim = config.hidden_size, config.hidden_size // config.num_attention_heads
        self.q_proj = nn.Linear(d, config.num_attention_heads * self.head_dim)
        self.k_proj = nn.Linear(d, config.num_key_value_heads * self.head_dim)
        self.v_proj = nn.Linear(d, config.num_key_value_heads * self.head_dim)
        self.o_proj = nn.Linear(config.num_attention_heads * self.head_dim, d, bias=False)

    def forward(
        self,
        queries: Tensor,
        target: Tensor,
        mask: Tensor,
        query_rotation: tuple[Tensor, Tensor],
        key_rotation: tuple[Tensor, Tensor],
        rows: Tensor | None = None,
        look: Look | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        b, n, d = queries.shape
        together = rows is not None and _in_blocks(rows, len(target))
        if together:
            # The queries of all samples about a target as one sample's: its keys and values are gone through once.
            rows, queries = None, queries.reshape(len(target), -1, d)
            query_rotation = _together(query_rotation[0], len(target)), _together(query_rotation[1], len(target))
            if look is not None and look.keys is not None:
                keys = look.keys.transpose(1, 2).reshape(len(target), -1, look.keys.shape[1]).transpose(1, 2)
                look = replace(look, keys=keys)
        q, k, v = (
            projection(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [b, h, ., e]
            for projection, states in ((self.q_proj, queries), (self.k_proj, target), (self.v_proj, target))
        )
        q, k = rotate(q, query_rotation), rotate(k, key_rotation)
        if rows is not None:
            # Their gradients are added up faster than those of k[rows].
            k, v, mask = (x.index_select(0, rows) for x in (k, v, mask))
        # A row without keys (a clip without geometry) attends to its padding, which is zeros: a softmax over nothing
        # would be NaN.
        mask = mask | ~mask.any(-1, keepdim=True)
        log_probs = None
        if look is None:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :], enable_gqa=True)
        else:
            attended, log_probs = attend(q, k, v, mask, look)
            if together:
                log_probs = log_probs.unflatten(2, (-1, n)).transpose(1, 2).flatten(0, 1)
        attended = self.o_proj(attended.transpose(1, 2).flatten(2)).view(b, n, d)
        return attended if log_probs is None else (attended, log_probs)

    @torch.no_grad()
    def tie_keys(self, dims: slice) -> None:
        """Make queries and keys one orthogonal projection of these dimensions of the width."""
        basis = self._basis(dims)
        self.k_proj.weight.copy_(basis)
        self.q_proj.weight.copy_(self._for_each_head(basis))
        for projection in (self.q_proj, self.k_proj):
            nn.init.zeros_(projection.bias)

    @torch.no_grad()
    def tie_values(self, dims: slice, share: float) -> None:
        """Have attention add a share of these dimensions of what it sees, as they are where they fit into its values.

        Heads that share keys see the same of them, and each adds its part of the share.
        """
        basis = self._basis(dims)
        groups = self.q_proj.out_features // len(basis)
        self.v_proj.weight.copy_(basis)
        nn.init.zeros_(self.v_proj.bias)
        self.o_proj.weight.copy_(self._for_each_head(basis).T * share / groups)

    def _basis(self, dims: slice) -> Tensor:
        """[values, d] orthonormal rows, or, where there are more values than dimensions, columns."""
        basis = torch.zeros_like(self.v_proj.weight)
        basis[:, dims] = nn.init.orthogonal_(torch.empty_like(basis[:, dims]).float()).to(basis.dtype)
        return basis

    def _for_each_head(self, basis: Tensor) -> Tensor:
        """[h * e, d] rows of each head's keys."""
        groups = self.q_proj.out_features // len(basis)
        return basis.unflatten(0, (-1, self.head_dim)).repeat_interleave(groups, dim=0).flatten(0, 1)


def _in_blocks(rows: Tensor, count: int) -> bool:
    """True if each of `count` targets has equally many rows, one after another."""
    if len(rows) % count:
        return False
    return torch.equal(rows, torch.arange(count, device=rows.device).repeat_interleave(len(rows) // count))


def _together(rotation: Tensor, count: int) -> Tensor:
    """[v, b / v * n, e] of [b, n, e], for v targets."""
    return rotation.reshape(count, -1, rotation.shape[-1])


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, look: Look) -> tuple[Tensor, Tensor]:
    """Attention with its weights in the open.

    Args:
        q: [b, h, n, e].
        k, v: [b, g, k, e], each for h / g heads one after another.
        mask: [b, k] bool.

    Returns:
        [b, h, n, e], and the log-probabilities [b, h, n, k] of the model's own attention.
    """
    b, heads, n, e = q.shape
    scores = (q * e**-0.5).reshape(b, k.shape[1], -1, e) @ k.transpose(-1, -2)  # [b, g, h / g * n, k]
    scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
    # Not the exponential of the logarithm, which takes ten times as long where it is zero.
    weights, log_probs = scores.softmax(-1), scores.log_softmax(-1).view(b, heads, n, -1)
    if look.keys is not None and look.weight:
        share = (look.weight * (look.keys >= 0).to(weights))[..., None]
        taught = torch.zeros_like(log_probs).scatter_(-1, look.keys.clamp(min=0)[..., None], share)
        weights = (weights.view_as(log_probs) * (1 - share) + taught).view_as(weights)
    return (weights @ v).view(b, heads, n, -1), log_probs


class SwiGLU(nn.Module):
    """Gated MLP with biases."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, states: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(states)) * self.up_proj(states))


def rotate(states: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Apply multimodal RoPE to queries or keys alone.

    Args:
        states: [b, h, n, e].
        rotation: cosines and sines of `MultimodalRotaryEmbedding`, each [b, n, e].
    """
    cos, sin = (table[:, None] for table in rotation)
    left, right = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-right, left], dim=-1) * sin
