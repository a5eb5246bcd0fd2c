"""The Geometry Selection Module against an independent formula, and what masks and positions must do."""

import math

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig

from dsr.model.gsm import GeometrySelectionModule, QFormer, rotate

B, K, L, N = 3, 7, 5, 4


@pytest.fixture(scope="module")
def gsm() -> GeometrySelectionModule:
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
            "vocab_size": 10,
        },
    ).text_config
    torch.manual_seed(0)
    module = GeometrySelectionModule(config, N)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "question": torch.randn(B, L, 48),
        "question_mask": torch.ones(B, L, dtype=torch.bool),
        "geometry": torch.randn(B, K, 48),
        "geometry_mask": torch.ones(B, K, dtype=torch.bool),
        "positions": torch.randint(0, 9, (3, B, K)),
    }


def by_hand(block: QFormer, queries: Tensor, target: Tensor, at: Tensor, target_at: Tensor) -> Tensor:
    """One Q-Former for one sample, head by head; positions [3, n] and [3, k]; queries [n, d], target [k, d]."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    def turn(x: Tensor, positions: Tensor) -> Tensor:
        """Pairs (i, i + 6) of a head of 12 turn by an angle; pairs 0-1 by time, 2-3 by row, 4-5 by column."""
        out = x.clone()
        for i in range(6):
            angle = positions[i // 2] * 1_000_000.0 ** (-i / 6)
            cos, sin = angle.cos(), angle.sin()
            out[:, i] = x[:, i] * cos - x[:, i + 6] * sin
            out[:, i + 6] = x[:, i + 6] * cos + x[:, i] * sin
        return out

    attn = block.attn
    source, keys = norm(queries, block.norm1.weight), norm(target, block.norm1.weight)
    heads = []
    for head in range(4):
        own, shared = slice(12 * head, 12 * head + 12), slice(12 * (head // 2), 12 * (head // 2) + 12)
        q = turn(source @ attn.q_proj.weight[own].T + attn.q_proj.bias[own], at)
        k = turn(keys @ attn.k_proj.weight[shared].T + attn.k_proj.bias[shared], target_at)
        v = keys @ attn.v_proj.weight[shared].T + attn.v_proj.bias[shared]
        heads.append((q @ k.T / math.sqrt(12)).softmax(-1) @ v)
    queries = queries + torch.cat(heads, -1) @ attn.o_proj.weight.T
    x = norm(queries, block.norm2.weight)
    gate = x @ block.mlp.gate_proj.weight.T + block.mlp.gate_proj.bias
    up = x @ block.mlp.up_proj.weight.T + block.mlp.up_proj.bias
    down = block.mlp.down_proj
    return queries + (gate * torch.sigmoid(gate) * up) @ down.weight.T + down.bias


def test_equals_the_formula_written_out(gsm: GeometrySelectionModule, inputs: dict[str, Tensor]) -> None:
    with torch.no_grad():
        out = gsm(**inputs)
        for i in range(B):
            at, words = torch.arange(N).expand(3, -1), torch.arange(L).expand(3, -1)
            x = by_hand(gsm.condenser, gsm.queries, inputs["question"][i], at, words)
            x = by_hand(gsm.selector, x, inputs["geometry"][i], at, inputs["positions"][:, i])
            expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gsm.norm.weight
            torch.testing.assert_close(out[i], expected, atol=1e-4, rtol=1e-4)


def test_padding_does_not_change_the_answer(gsm: GeometrySelectionModule, inputs: dict[str, Tensor]) -> None:
    with torch.no_grad():
        out = gsm(**inputs)
        padded = {
            "question": torch.cat([inputs["question"], torch.randn(B, 3, 48)], 1),
            "question_mask": torch.cat([inputs["question_mask"], torch.zeros(B, 3, dtype=torch.bool)], 1),
            "geometry": torch.cat([inputs["geometry"], torch.randn(B, 6, 48)], 1),
            "geometry_mask": torch.cat([inputs["geometry_mask"], torch.zeros(B, 6, dtype=torch.bool)], 1),
            "positions": torch.cat([inputs["positions"], torch.zeros(3, B, 6, dtype=torch.long)], 2),
        }
        torch.testing.assert_close(gsm(**padded), out, atol=1e-5, rtol=1e-5)


def test_samples_do_not_see_one_another(gsm: GeometrySelectionModule, inputs: dict[str, Tensor]) -> None:
    with torch.no_grad():
        out = gsm(**inputs)
        inputs["geometry"][0] = torch.randn(K, 48)
        inputs["question"][0] = torch.randn(L, 48)
        other = gsm(**inputs)
    assert not torch.allclose(other[0], out[0])
    torch.testing.assert_close(other[1:], out[1:])


def test_a_clip_without_geometry_gives_numbers(gsm: GeometrySelectionModule, inputs: dict[str, Tensor]) -> None:
    inputs["geometry_mask"][1] = False
    inputs["geometry"][1] = 0
    out = gsm(**inputs)
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in gsm.parameters() if p.grad is not None)
    gsm.zero_grad()


def test_the_order_of_3d_tokens_does_not_matter_but_their_positions_do(
    gsm: GeometrySelectionModule, inputs: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        out = gsm(**inputs)
        order = torch.randperm(K)
        shuffled = inputs | {"geometry": inputs["geometry"][:, order], "positions": inputs["positions"][:, :, order]}
        torch.testing.assert_close(gsm(**shuffled), out, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(gsm(**inputs | {"positions": inputs["positions"].flip(-1)}), out, atol=1e-3)


def test_rotation_depends_on_the_difference_of_positions_alone(gsm: GeometrySelectionModule) -> None:
    q, k = torch.randn(1, 1, 1, 12), torch.randn(1, 1, 1, 12)

    def score(at: list[int], other: list[int]) -> float:
        turned = [rotate(x, gsm.rotary(x, torch.tensor(p).view(3, 1, 1)), [2, 2, 2]) for x, p in ((q, at), (k, other))]
        return float((turned[0] * turned[1]).sum())

    assert score([5, 2, 7], [3, 1, 1]) == pytest.approx(score([15, 4, 10], [13, 3, 4]), abs=1e-4)
    assert score([5, 2, 7], [3, 1, 1]) != pytest.approx(score([5, 2, 7], [4, 1, 1]), abs=1e-3)
