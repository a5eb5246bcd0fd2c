"""Geometry Selection Module: from all 3D tokens of a clip to the few that a question needs.

- N learned queries go through two Q-Formers (arXiv 2512.20557, section 4; layout of the published checkpoint).
- The condenser attends to the question's token embeddings: queries become what is asked.
- The selector attends to the 3D tokens: queries become the geometry that answers it.
- A Q-Former is one pre-norm block (RMSNorm): grouped-query cross-attention with multimodal RoPE on queries and keys,
  SwiGLU MLP with biases, a residual around each. One norm serves queries and keys, as published.
- Sizes (width, heads, MLP) are the language model's. Samples are a batch dimension with padding masks, so cost grows
  linearly with the batch.
- Questions about one video share its keys and values.

Letters: b questions, v videos, n queries, k keys, d width, h heads, e head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.activations import ACT2FN
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding, Qwen2RMSNorm

NORM_EPS = 1e-6
"""Epsilon of the published GSM; not the language model's own."""


class GeometrySelectionModule(nn.Module):
    """Selects `num_tokens` geometry tokens for a question.

    Args:
        config: text configuration of the language model (Qwen2_5_VLTextConfig).
        num_tokens: N, the published model has 32.
    """

    def __init__(self, config: PretrainedConfig, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.queries = nn.Parameter(torch.empty(num_tokens, config.hidden_size))
        self.condenser = QFormer(config)
        self.selector = QFormer(config)
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=NORM_EPS)
        self.rotary = Qwen2_5_VLRotaryEmbedding(config=config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit normal queries, as published."""
        nn.init.normal_(self.queries)

    def forward(
        self,
        question: Tensor,
        question_mask: Tensor,
        geometry: Tensor,
        geometry_mask: Tensor,
        positions: Tensor,
        videos: Tensor | None = None,
    ) -> Tensor:
        """Geometry tokens that follow the vision tokens.

        Args:
            question: [b, l, d] token embeddings of each question.
            question_mask: [b, l] bool, False is padding.
            geometry: [v, k, d] 3D tokens.
            geometry_mask: [v, k] bool, False is padding.
            positions: [3, v, k] int64, (time, row, column) of each 3D token on the video's grid.
            videos: [b] int64, the video of each question; without it question i is about video i.

        Returns:
            [b, N, d].
        """
        b, device = question.shape[0], question.device
        query_positions = torch.arange(self.num_tokens, device=device).expand(3, b, -1)
        word_positions = (question_mask.cumsum(-1) - 1).clamp(min=0).expand(3, -1, -1)
        queries = self.queries.to(question.dtype).expand(b, -1, -1)  # [b, n, d]
        query_rotation = self.rotary(question, query_positions)
        queries = self.condenser(
            queries, question, question_mask, query_rotation, self.rotary(question, word_positions)
        )
        geometry_rotation = self.rotary(geometry, positions)
        queries = self.selector(queries, geometry, geometry_mask, query_rotation, geometry_rotation, videos)
        return self.norm(queries)


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
    ) -> Tensor:
        """[b, n, d] queries that attended to the target [v, k, d] where mask [v, k] is True; rows [b] of the target."""
        attended = self.attn(self.norm1(queries), self.norm1(target), mask, query_rotation, key_rotation, rows)
        queries = queries + attended
        return queries + self.mlp(self.norm2(queries))


class CrossAttention(nn.Module):
    """Grouped-query cross-attention with multimodal RoPE on queries and keys."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        d, self.head_dim = config.hidden_size, config.hidden_size // config.num_attention_heads
        self.sections = rope_sections(config)
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
    ) -> Tensor:
        q, k, v = (
            projection(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [b, h, ., e]
            for projection, states in ((self.q_proj, queries), (self.k_proj, target), (self.v_proj, target))
        )
        q, k = rotate(q, query_rotation, self.sections), rotate(k, key_rotation, self.sections)
        if rows is not None:
            k, v, mask = k[rows], v[rows], mask[rows]
        # A row without keys (a clip without geometry) attends to its padding, which is zeros: a softmax over nothing
        # would be NaN.
        mask = mask | ~mask.any(-1, keepdim=True)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :], enable_gqa=True)
        return self.o_proj(attended.transpose(1, 2).flatten(2))


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


def rope_sections(config: PretrainedConfig) -> list[int]:
    """Half head widths that time, row and column rotate (`mrope_section`)."""
    rope = getattr(config, "rope_parameters", None) or config.rope_scaling
    return list(rope["mrope_section"])


def rotate(states: Tensor, rotation: tuple[Tensor, Tensor], sections: list[int]) -> Tensor:
    """Apply multimodal RoPE (Qwen2-VL, arXiv 2409.12191, section 2.1) to queries or keys alone.

    Args:
        states: [b, h, n, e].
        rotation: cosines and sines, each [3, b, n, e], one slice an axis.
        sections: of the half head width e / 2, how much each axis rotates.
    """
    cos, sin = (
        torch.cat([part[i % 3] for i, part in enumerate(table.split(sections * 2, dim=-1))], dim=-1)[:, None]
        for table in rotation
    )
    left, right = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-right, left], dim=-1) * sin
