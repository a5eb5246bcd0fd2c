"""Questions a second with one prefix for the questions of a clip, against a sequence each: 5 questions, 4,096 vision
tokens, small width, on the CPU. The ratio, measured in one run, is asserted and stands under `extra_info`.

`pytest benchmarks/test_shared_prefix.py --benchmark-enable --benchmark-json=…`
"""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from dsr.model.qwen2_5_vl_gsm import Qwen2_5_VLGSMConfig, Qwen2_5_VLGSMForConditionalGeneration
from dsr.model.shared_prefix import PackedClip, Packing

QUESTIONS, WORDS, N = 5, 150, 32
GRID = (16, 32, 32)
VISION = 16 * 16 * 16
VIDEO, VISION_START, VISION_END = 500, 501, 502
LEAST = 3.0


def make_model() -> Qwen2_5_VLGSMForConditionalGeneration:
    torch.manual_seed(0)
    text = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 4, 4]},
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "out_hidden_size": 128,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    config = Qwen2_5_VLGSMConfig(
        gsm={"fusion": "gsm", "num_tokens": N, "encoders": ["point_map"]},
        special_token_ids=[VIDEO, VISION_START, VISION_END],
        letter_token_ids=[1, 2, 3, 4],
        text_config=text,
        vision_config=vision,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        image_token_id=503,
    )
    model = Qwen2_5_VLGSMForConditionalGeneration(config)
    model.model.visual.requires_grad_(False)
    return model


def make_batch(shared: bool) -> dict[str, Any]:
    clips = 1 if shared else QUESTIONS
    cells = torch.cartesian_prod(*(torch.arange(n) for n in (16, 16, 16))).expand(clips, -1, -1)
    inputs = {
        "pixel_values_videos": torch.randn(clips * VISION * 4, 1176),
        "video_grid_thw": torch.tensor([GRID] * clips),
        "second_per_grid_ts": torch.full((clips,), 0.5),
        "geometry": {"point_map": {"values": torch.randn(clips, VISION, 46), "cells": cells}},
    }
    prefix = [*range(5, 30), VISION_START, *[VIDEO] * VISION]
    branch = [*[VIDEO] * N, VISION_END, *[k % 400 + 5 for k in range(WORDS)]]
    if not shared:
        ids = torch.tensor([prefix + branch] * QUESTIONS)
        labels = torch.full_like(ids, -100)
        labels[:, -2:] = ids[:, -2:]
        return {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    packing = Packing((PackedClip(len(prefix), (len(branch),) * QUESTIONS),))
    ids = torch.tensor([prefix + branch * QUESTIONS])
    reads = torch.stack([places[-3:] for places in packing.sequences()])
    labels = ids[0, reads].masked_fill(torch.tensor([True, False, False]), -100)
    asks = ~torch.isin(ids, torch.tensor([VIDEO, VISION_START, VISION_END]))
    return {
        **inputs,
        "input_ids": ids,
        "packing": packing,
        "reads": reads,
        "labels": labels,
        "question_mask": asks,
    }


def make_step(shared: bool, train: bool) -> Callable[[], None]:
    model, batch = make_model(), make_batch(shared)

    def step() -> None:
        if train:
            model(**batch, use_cache=False).loss.backward()
            model.zero_grad()
            return
        with torch.inference_mode():
            model(**batch, use_cache=False)

    return step


@pytest.mark.parametrize("train", [True, False], ids=["train", "score"])
def test_a_shared_prefix_pays(train: bool, benchmark: BenchmarkFixture) -> None:
    torch.set_num_threads(1)
    separate, times = make_step(False, train), []
    for _ in range(3):
        start = time.perf_counter()
        separate()
        times.append(time.perf_counter() - start)
    benchmark.pedantic(make_step(True, train), rounds=3, iterations=1, warmup_rounds=1)
    if benchmark.stats:  # none where benchmarks are disabled
        benchmark.extra_info |= {"separate": min(times), "ratio": min(times) / benchmark.stats.stats.min}
        assert benchmark.extra_info["ratio"] >= LEAST
