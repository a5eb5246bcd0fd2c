"""What the GSM costs beside a plain training step, counted at the sizes of Qwen2.5-VL-7B without running one.

The counts are of a question about 32 frames of 640 x 360 (4,224 vision tokens, 300 of text): forward and backward of
what learns, forward of what is frozen, by torch's counter on the meta device. Layers that are alike are counted once.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dsr.model.qwen2_5_vl_gsm import Qwen2_5_VLGSMConfig, Qwen2_5_VLGSMForConditionalGeneration
from dsr.model.transformers_versions import TAKES_TOKEN_TYPES

GROUPS, ROWS, COLUMNS = 16, 24, 44
VISION, TEXT, N = GROUPS * ROWS * COLUMNS // 4, 300, 32
LAYERS, BLOCKS, FULL_BLOCKS = 28, 32, 4
MOST = 0.05


class Rotation(nn.Module):
    """In the place of RoPE's tables, which transformers cannot make on the meta device."""

    def __init__(self, table_of_each_axis: bool) -> None:
        super().__init__()
        self.table_of_each_axis = table_of_each_axis

    def forward(self, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        shape = positions.shape if self.table_of_each_axis else positions.shape[1:]
        table = torch.zeros(*shape, 128, device="meta", dtype=states.dtype)
        return table, table


@pytest.fixture(scope="module")
def flops() -> dict[str, int]:
    text = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 1,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }
    vision = {
        "depth": 1,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": [],
        "window_size": 112,
    }
    gsm = {"fusion": "gsm", "num_tokens": N, "encoders": ["pi3"]}
    with torch.device("meta"):
        config = Qwen2_5_VLGSMConfig(gsm=gsm, text_config=text, vision_config=vision)
        model = Qwen2_5_VLGSMForConditionalGeneration(config).to(torch.bfloat16)
    inner, pi3 = model.model, model.model.geometry["pi3"]
    inner.language_model.rotary_emb, inner.gsm.rotary = Rotation(not TAKES_TOKEN_TYPES), Rotation(False)
    width = config.text_config.hidden_size

    def states(*shape: int) -> Tensor:
        return torch.zeros(*shape, device="meta", dtype=torch.bfloat16, requires_grad=True)

    def language_model(tokens: int) -> Tensor:
        positions = torch.zeros(3, 1, tokens, dtype=torch.long, device="meta")
        return inner.language_model(
            inputs_embeds=states(1, tokens, width), position_ids=positions, use_cache=False
        ).last_hidden_state

    def vision_block(lengths: list[int]) -> Tensor:
        ends = torch.tensor([0, *lengths], device="cpu").cumsum(0)
        rotation = (torch.zeros(VISION * 4, 80, device="meta"),) * 2
        return inner.visual.blocks[0](states(VISION * 4, 1280), cu_seqlens=ends, position_embeddings=rotation)

    def select() -> Tensor:
        question, cells = states(1, TEXT, width), states(1, VISION, width)
        places = torch.zeros(3, 1, VISION, dtype=torch.long, device="meta")
        return inner.gsm(
            question, torch.ones(1, TEXT, device="meta") > 0, cells, torch.ones(1, VISION, device="meta") > 0, places
        )

    windows = GROUPS * ([64] * 15 + [32] * 3)  # 8 x 8 patches
    plain, longer = (LAYERS * count(lambda n=n: language_model(VISION + TEXT + n), learns=True) for n in (0, N))
    return {
        "vision tower": (BLOCKS - FULL_BLOCKS) * count(lambda: vision_block(windows), learns=False)
        + FULL_BLOCKS * count(lambda: vision_block(GROUPS * [ROWS * COLUMNS]), learns=False),
        "merger": count(lambda: inner.visual.merger(states(VISION * 4, 1280)), learns=True),
        "language model": plain,
        "geometry tokens in the language model": longer - plain,
        "Q-Formers": count(select, learns=True),
        "projection of 3D tokens": count(lambda: pi3.merger(states(VISION, 8 * 1024)), learns=True),
        "pi3 encoder": count(lambda: pi3.encoder(states(32, 3, 336, 616).detach()).patches, learns=False),
    }


def count(run: Callable[[], Tensor], learns: bool) -> int:
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(learns):
        out = run()
        if learns:
            out.sum().backward()
    return counter.get_total_flops()


def test_the_gsm_adds_little_to_a_training_step(flops: dict[str, int], record_property: Callable[..., None]) -> None:
    plain = flops["vision tower"] + flops["merger"] + flops["language model"]
    for part, value in flops.items():
        record_property(part, f"{value / 1e12:.2f} TFLOP, {value / plain:.2%} of a plain step")
        print(f"{part}: {value / 1e12:.2f} TFLOP, {value / plain:.2%}")
    added = sum(
        flops[part] for part in ("Q-Formers", "projection of 3D tokens", "geometry tokens in the language model")
    )
    assert 0 < added / plain <= MOST


def test_the_count_is_that_of_the_weights(flops: dict[str, int]) -> None:
    """Six operations a weight and token, and the attention."""
    weights = LAYERS * (2 * 3584 * (3584 + 512) + 3 * 3584 * 18944)
    tokens = VISION + TEXT
    attention = LAYERS * 6 * 2 * tokens * tokens * 3584
    assert flops["language model"] == pytest.approx(6 * weights * tokens + attention, rel=0.1)
