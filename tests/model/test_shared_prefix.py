"""Questions about one video in one row: the same logits, loss and gradients as in sequences of their own."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dsr.model.qwen2_5_vl_gsm import Qwen2_5_VLGSMForConditionalGeneration
from dsr.model.shared_prefix import ATTENTION, PackedClip, Packing
from tests.model.test_qwen2_5_vl_gsm import (
    END,
    PAD,
    START,
    VIDEO,
    VISION_END,
    VISION_START,
    N,
    make_geometry,
    make_model,
)

GRIDS = [(2, 4, 4), (3, 4, 2)]
QUESTIONS = [[[8, 9, 10], [11, 12, 13, 14, 15]], [[9, 8], [20, 21, 22, 23], [30]]]
"""Those about each clip, of different lengths."""


def test_the_places_of_a_question_are_those_of_a_sequence_of_its_own() -> None:
    packing = Packing((PackedClip(3, (2, 1)), PackedClip(2, (2,))))
    assert packing.length == 10
    assert packing.owners == [0, 0, 1]
    assert [places.tolist() for places in packing.sequences()] == [[0, 1, 2, 3, 4], [0, 1, 2, 5], [6, 7, 8, 9]]
    mask = packing.masks(torch.zeros(1))[0][0, 0]
    assert (mask == 0).int().tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 1]]
    assert [len(mask[0, 0]) for mask in Packing((PackedClip(2, (2, 1)),)).masks(torch.zeros(1))] == [2, 1]


def sequences(extra: int) -> list[tuple[list[int], int, int]]:
    """Each question's tokens, how many of them are its clip's prefix, and its clip."""
    out = []
    for clip, ((t, h, w), questions) in enumerate(zip(GRIDS, QUESTIONS, strict=True)):
        prefix = [START, 7, VISION_START, *[VIDEO] * (t * h * w // 4)]
        for words in questions:
            branch = [*[VIDEO] * extra, VISION_END, *words, END, START, 1, 2, 3, END]
            out.append((prefix + branch, len(prefix), clip))
    return out


def clip_inputs() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    return {
        "pixel_values_videos": torch.randn(sum(t * h * w for t, h, w in GRIDS), 1176, generator=generator),
        "video_grid_thw": torch.tensor(GRIDS),
        "second_per_grid_ts": torch.tensor([0.6, 1.3]),
        "geometry": make_geometry(GRIDS),
    }


def asks(ids: list[int]) -> list[bool]:
    """Words of the question and the system text, not the answer and its header."""
    return [token < PAD and place < len(ids) - 5 for place, token in enumerate(ids)]


def packed(extra: int) -> dict[str, Any]:
    ids, mask, clips, reads = [], [], [], []
    for clip in range(len(GRIDS)):
        own = [(tokens, prefix) for tokens, prefix, owner in sequences(extra) if owner == clip]
        prefix = own[0][1]
        ids += own[0][0][:prefix]
        mask += asks(own[0][0])[:prefix]
        for tokens, _ in own:
            reads.append([len(ids) + len(tokens) - prefix - k for k in (3, 2, 1)])
            ids += tokens[prefix:]
            mask += asks(tokens)[prefix:]
        clips.append(PackedClip(prefix, tuple(len(tokens) - prefix for tokens, _ in own)))
    row = torch.tensor([ids])
    reads = torch.tensor(reads)
    labels = row[0, reads].masked_fill(torch.tensor([True, False, False]), -100)
    return {
        **clip_inputs(),
        "input_ids": row,
        "question_mask": torch.tensor([mask]),
        "packing": Packing(tuple(clips)),
        "reads": reads,
        "labels": labels,
    }


def alone(extra: int) -> dict[str, Any]:
    """The questions as a padded batch, each with its clip's video."""
    rows = sequences(extra)
    length = max(len(ids) for ids, _, _ in rows)
    clips = torch.tensor([clip for _, _, clip in rows])
    inputs = clip_inputs()
    patches = inputs["pixel_values_videos"].split([t * h * w for t, h, w in GRIDS])
    padded = torch.tensor([[PAD] * (length - len(ids)) + ids for ids, _, _ in rows])
    labels = torch.full_like(padded, -100)
    labels[:, -2:] = padded[:, -2:]
    return {
        "input_ids": padded,
        "attention_mask": (padded != PAD).long(),
        "question_mask": torch.tensor([[False] * (length - len(ids)) + asks(ids) for ids, _, _ in rows]),
        "pixel_values_videos": torch.cat([patches[clip] for clip in clips]),
        "video_grid_thw": inputs["video_grid_thw"][clips],
        "second_per_grid_ts": inputs["second_per_grid_ts"][clips],
        "geometry": {n: {p: x[clips] for p, x in g.items()} for n, g in inputs["geometry"].items()},
        "labels": labels,
    }


def gradients(model: Qwen2_5_VLGSMForConditionalGeneration, inputs: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    model.zero_grad()
    outputs = model(**inputs, use_cache=False)
    outputs.loss.backward()
    return outputs, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("fusion", ["none", "add", "gsm"])
def test_loss_and_gradients_are_those_of_sequences_of_their_own(fusion: str, checkpointing: bool) -> None:
    model, extra = make_model(fusion), N if fusion == "gsm" else 0
    expected, own = gradients(model, alone(extra))
    if checkpointing:
        model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    found, shared = gradients(model, packed(extra))
    assert model.model.language_model.config._attn_implementation == ATTENTION
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.logits, expected.logits[:, -3:], atol=1e-5, rtol=1e-5)
    assert shared.keys() == own.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(shared[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@torch.no_grad()
def test_a_question_does_not_see_another() -> None:
    model, inputs = make_model(), packed(N)
    logits = model(**inputs).logits
    changed = inputs | {"input_ids": inputs["input_ids"].clone()}
    first = inputs["packing"].sequences()[0]
    changed["input_ids"][0, first[-8]] = 31
    moved = model(**changed).logits
    assert not torch.allclose(moved[0], logits[0], atol=1e-3)
    assert torch.equal(moved[1:], logits[1:])


@torch.no_grad()
def test_after_a_packed_row_other_batches_are_answered_as_before() -> None:
    model = make_model()
    inputs = alone(N)
    before = model(**inputs).logits
    prompt = {name: value for name, value in inputs.items() if name != "labels"}
    answer = model.generate(**prompt, max_new_tokens=4, do_sample=False, eos_token_id=None)
    model(**packed(N))
    assert torch.equal(model(**inputs).logits, before)
    assert torch.equal(model.generate(**prompt, max_new_tokens=4, do_sample=False, eos_token_id=None), answer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"packing": Packing((PackedClip(3, (2,)),))}, "1 clips and 5 tokens does not describe 2 videos"),
        ({"reads": None}, "needs reads"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model()(**packed(N) | change)


def test_a_prefix_that_does_not_end_with_the_video_is_refused() -> None:
    inputs = packed(N)
    first, second = inputs["packing"].clips
    longer = PackedClip(first.prefix + 1, (first.branches[0] - 1, *first.branches[1:]))
    with pytest.raises(ValueError, match=r"9 <.video_pad.> tokens in its prefix"):
        make_model()(**inputs | {"packing": Packing((longer, second))})
