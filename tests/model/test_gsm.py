"""The Geometry Selection Module against an independent formula, and what masks and positions must do."""

import math

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig

from dsr.model.gsm import GeometrySelectionModule, Look, QFormer, rotate

B, K, L, N = 3, 7, 5, 4


CONFIG = Qwen2_5_VLConfig(
    text_config={
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
        "vocab_size": 10,
    },
).text_config


@pytest.fixture(scope="module")
def gsm() -> GeometrySelectionModule:
    torch.manual_seed(0)
    module = GeometrySelectionModule(CONFIG, N)
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
        turned = [rotate(x, gsm.rotary(x, torch.tensor(p).view(3, 1, 1))) for x, p in ((q, at), (k, other))]
        return float((turned[0] * turned[1]).sum())

    assert score([5, 2, 7], [3, 1, 1]) == pytest.approx(score([15, 4, 10], [13, 3, 4]), abs=1e-4)
    assert score([5, 2, 7], [3, 1, 1]) != pytest.approx(score([5, 2, 7], [4, 1, 1]), abs=1e-3)


@torch.no_grad()
def test_attention_that_is_asked_for_changes_nothing(gsm: GeometrySelectionModule, inputs: dict[str, Tensor]) -> None:
    inputs["geometry_mask"][1, 4:] = False
    tokens, log_probs = gsm(**inputs, look=Look())
    torch.testing.assert_close(tokens, gsm(**inputs), atol=1e-5, rtol=1e-5)
    assert log_probs.shape == (B, 4, N, K)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(B, 4, N))
    assert (log_probs[1, ..., 4:].exp() == 0).all()


@torch.no_grad()
def test_questions_that_share_clips_evenly_are_answered_as_any_others(
    gsm: GeometrySelectionModule, inputs: dict[str, Tensor]
) -> None:
    inputs = inputs | {name: inputs[name].repeat(2, *[1] * (inputs[name].ndim - 1)) for name in ("question_mask",)}
    inputs["question"] = torch.randn(2 * B, L, 48)
    inputs["geometry_mask"][1, 4:] = False
    even, mixed = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 3, 4, 1, 2, 5])
    keys = torch.randint(-1, 4, (2 * B, 4, N))
    for look in (None, Look(keys, 0.3)):
        other = None if look is None else Look(keys[mixed], 0.3)
        found = gsm(**inputs, videos=even, look=look)
        asked = inputs | {"question": inputs["question"][mixed]}
        expected = gsm(**asked, videos=even[mixed], look=other)
        found, expected = (x if look is not None else (x,) for x in (found, expected))
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one[mixed], two, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_taught_attention_is_a_mixture(gsm: GeometrySelectionModule, inputs: dict[str, Tensor]) -> None:
    attn, width = gsm.selector.attn, 48
    keys = torch.full((B, 4, N), 2)
    keys[:, 1] = -1
    states = torch.randn(B, N, width)
    still = gsm.rotary(states, torch.zeros(3, B, 1, dtype=torch.long))
    args = (states, inputs["geometry"], inputs["geometry_mask"], still, still)
    heads = torch.eye(width)
    attn.o_proj.weight.copy_(heads)
    own, log_probs = attn(*args, look=Look())
    taught, unchanged = attn(*args, look=Look(keys, 0.75))
    torch.testing.assert_close(unchanged, log_probs)
    value = (inputs["geometry"][:, 2] @ attn.v_proj.weight.T + attn.v_proj.bias)[:, None]
    # Heads 0 and 1 share the first keys and values, 2 and 3 the second; head 1 is left alone.
    for head, part in enumerate(torch.arange(width).split(12)):
        shared = slice(12 * (head // 2), 12 * (head // 2) + 12)
        expected = own[..., part] if head == 1 else 0.25 * own[..., part] + 0.75 * value[..., shared]
        torch.testing.assert_close(taught[..., part], expected)


@torch.no_grad()
def test_a_tied_start_looks_at_the_token_whose_address_is_asked_for() -> None:
    torch.manual_seed(0)
    module = GeometrySelectionModule(CONFIG, N, tied=True)
    address = torch.cat([torch.zeros(B, K, 24), torch.randn(B, K, 24)], dim=-1)
    values = torch.cat([torch.randn(B, K, 24), torch.zeros(B, K, 24)], dim=-1)
    mask = torch.ones(B, K, dtype=torch.bool)
    torch.nn.init.normal_(module.queries, std=0.01)
    wanted = torch.tensor([5, 0, 3])
    question = address[torch.arange(B), wanted][:, None]
    positions = torch.randint(0, 9, (3, B, K))
    _, log_probs = module(question, mask[:, :1], address + values, mask, positions, look=Look())
    # A head sees a part of the address; together they know it.
    assert (log_probs.sum(1).argmax(-1) == wanted[:, None]).all()


@torch.no_grad()
def test_a_tied_start_hands_on_addresses_to_ask_with_and_values_to_tell() -> None:
    torch.manual_seed(0)
    module = GeometrySelectionModule(CONFIG, N, tied=True)
    one, mask = torch.randn(B, 1, 48), torch.ones(B, 1, dtype=torch.bool)
    still = module.rotary(one, torch.zeros(3, B, 1, dtype=torch.long))
    # All heads attend to the only key: they hand on half of its width, and zero in the other half.
    condensed = module.condenser.attn(one, one, mask, still, still)
    torch.testing.assert_close(condensed, torch.cat([torch.zeros(B, 1, 24), one[..., 24:]], dim=-1))
    selected = module.selector.attn(one, one, mask, still, still)
    torch.testing.assert_close(selected, torch.cat([one[..., :24] / 2, torch.zeros(B, 1, 24)], dim=-1))
