"""Qwen2.5-VL with geometry: the plain model where there is no video, and the published arrangement where there is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils import is_flash_attn_2_available

from dsr.examples.collate import Batch
from dsr.model.geometry_encoders import PADDING
from dsr.model.gsm import Look
from dsr.model.qwen2_5_vl_gsm import (
    OWN_PARTS,
    Qwen2_5_VLGSMConfig,
    Qwen2_5_VLGSMForConditionalGeneration,
    default_question_mask,
)
from dsr.model.transformers_versions import token_types

PAD, START, END, IMAGE, VIDEO, VISION_START, VISION_END = range(40, 47)
N = 3
SIZES: dict[str, Any] = {
    "text_config": {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 48,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
        "tie_word_embeddings": False,
        "eos_token_id": END,
        "pad_token_id": PAD,
    },
    "vision_config": {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 24,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    },
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
QUESTIONS = ["embeddings", "states", "reader"]
SPECIAL = list(range(PAD, VISION_END + 1))


def make_model(fusion: str = "gsm", question: str = "embeddings") -> Qwen2_5_VLGSMForConditionalGeneration:
    torch.manual_seed(0)
    gsm = {"fusion": fusion, "num_tokens": N, "encoders": ["point_map", "tracks"], "question": question}
    config = Qwen2_5_VLGSMConfig(gsm=gsm, special_token_ids=SPECIAL, letter_token_ids=[1, 2, 3, 4], **SIZES)
    model = Qwen2_5_VLGSMForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def gsm_model() -> Qwen2_5_VLGSMForConditionalGeneration:
    return make_model()


def make_geometry(grids: list[tuple[int, int, int]], seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Random 3D tokens: a cell token each, and two tracks' tokens; padded to the largest video."""
    generator = torch.Generator().manual_seed(seed)
    most = max(t * h * w // 4 for t, h, w in grids)
    cells = torch.full((len(grids), most, 3), PADDING)
    for row, (t, h, w) in zip(cells, grids, strict=True):
        row[: t * h * w // 4] = torch.cartesian_prod(*(torch.arange(n) for n in (t, h // 2, w // 2)))
    values = torch.randn(len(grids), most, 46, generator=generator)
    words = torch.tensor([5, 6, PADDING, PADDING, PADDING, PADDING, PADDING, PADDING]).expand(len(grids), 1, 8)
    return {
        "point_map": {"values": values, "cells": cells},
        "tracks": {
            "values": torch.randn(len(grids), 2, 98, generator=generator),
            "cells": torch.zeros(len(grids), 2, 3, dtype=torch.long),
            "seconds": torch.tensor([0.5, 2.5]).expand(len(grids), 2),
            "things": torch.zeros(len(grids), 2, 1, dtype=torch.long),
            "labels": words,
        },
    }


def span(grid: tuple[int, int, int], extra: int = N) -> list[int]:
    t, h, w = grid
    return [VISION_START, *[VIDEO] * (t * h * w // 4 + extra), VISION_END]


def make_inputs(
    samples: list[tuple[list[int], list[tuple[int, int, int]]]], seconds: float = 0.6, left: bool = True, seed: int = 0
) -> dict[str, Any]:
    """A padded batch of token lists and the grids of the videos in them."""
    generator = torch.Generator().manual_seed(seed)
    length = max(len(ids) for ids, _ in samples)
    rows, masks = [], []
    for ids, _ in samples:
        padding = [PAD] * (length - len(ids))
        rows.append(padding + ids if left else ids + padding)
        masks.append([0] * len(padding) + [1] * len(ids) if left else [1] * len(ids) + [0] * len(padding))
    grids = [grid for _, own in samples for grid in own]
    patches = sum(t * h * w for t, h, w in grids)
    return {
        "input_ids": torch.tensor(rows),
        "attention_mask": torch.tensor(masks),
        "pixel_values_videos": torch.randn(patches, 1176, generator=generator),
        "video_grid_thw": torch.tensor(grids),
        "second_per_grid_ts": torch.full((len(grids),), seconds),
        "geometry": make_geometry(grids, seed),
    }


def sample(grid: tuple[int, int, int], extra: int = N, text: int = 6) -> tuple[list[int], list[tuple[int, int, int]]]:
    return [START, 7, *span(grid, extra), *range(8, 8 + text), END], [grid]


def rows_of(inputs: Mapping[str, Any], patches: slice, video: slice) -> dict[str, Any]:
    """The visual inputs of some of the batch's videos."""
    return {
        "pixel_values_videos": inputs["pixel_values_videos"][patches],
        "video_grid_thw": inputs["video_grid_thw"][video],
        "second_per_grid_ts": inputs["second_per_grid_ts"][video],
        "geometry": {n: {p: x[video] for p, x in g.items()} for n, g in inputs["geometry"].items()},
    }


@torch.no_grad()
def test_without_a_video_it_is_plain_qwen(gsm_model: Qwen2_5_VLGSMForConditionalGeneration) -> None:
    plain = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**SIZES)).eval()
    plain.load_state_dict({k: v for k, v in gsm_model.state_dict().items() if not k.startswith(OWN_PARTS)})
    text = {"input_ids": torch.tensor([[START, 1, 2, 3, END], [PAD, PAD, START, 9, 2]])}
    text["attention_mask"] = (text["input_ids"] != PAD).long()
    assert torch.equal(gsm_model(**text).logits, plain(**text).logits)
    image = {
        "input_ids": torch.tensor([[START, VISION_START, *[IMAGE] * 4, VISION_END, 5, 6]]),
        "pixel_values": torch.randn(16, 1176),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
    }
    for_plain = image | token_types(plain.config, image["input_ids"])
    assert torch.equal(gsm_model(**image).logits, plain(**for_plain).logits)
    assert torch.equal(gsm_model.generate(**image, max_new_tokens=4), plain.generate(**for_plain, max_new_tokens=4))


@torch.no_grad()
def test_fusion_none_is_plain_qwen_at_whole_seconds() -> None:
    model = make_model("none")
    plain = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**SIZES)).eval()
    plain.load_state_dict(model.state_dict())
    inputs = make_inputs([sample((3, 4, 10), 0), sample((2, 4, 6), 0, text=9)], seconds=1.0)
    del inputs["geometry"]
    present = inputs["attention_mask"].bool()
    # transformers 4 keeps the seconds of a group as whole numbers, and 5 goes on after a video's rows and columns, even
    # if its times are later; ours are exact, so that all agree on a short, wide video at whole seconds.
    expected = plain(**inputs, **token_types(plain.config, inputs["input_ids"])).logits
    torch.testing.assert_close(model(**inputs).logits[present], expected[present])


def test_positions_follow_the_seconds_and_geometry_tokens_follow_the_video(
    gsm_model: Qwen2_5_VLGSMForConditionalGeneration,
) -> None:
    ids, grids = sample((3, 4, 2), text=2)
    positions, deltas = gsm_model.model.get_rope_index(
        torch.tensor([ids]), None, torch.tensor(grids), torch.tensor([0.6])
    )
    # <start> 7 <vision_start> | 3 groups x 2 rows x 1 column, 1.2 tokens a group | 3 geometry | <vision_end> 8 9 <end>
    assert positions[:, 0].tolist() == [
        [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 10, 11, 12],
        [0, 1, 2, 3, 4, 3, 4, 3, 4, 6, 7, 8, 9, 10, 11, 12],
        [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7, 8, 9, 10, 11, 12],
    ]
    assert deltas.tolist() == [[13 - 16]]


@torch.no_grad()
@pytest.mark.parametrize(
    ("fusion", "question"), [("none", "embeddings"), ("add", "embeddings"), *(("gsm", q) for q in QUESTIONS)]
)
@pytest.mark.parametrize("left", [True, False])
def test_a_batch_gives_what_its_samples_give_alone(fusion: str, question: str, left: bool) -> None:
    """Videos of different sizes, two in one sample, padding on either side."""
    model, extra = make_model(fusion, question), N if fusion == "gsm" else 0
    one, two = (2, 4, 4), (1, 2, 4)
    both = [START, *span(one, extra), 9, *span(two, extra), 3, 4, 5, END]
    inputs = make_inputs([sample(one, extra), (both, [one, two])], left=left)
    batched = model(**inputs).logits[inputs["attention_mask"].bool()]
    alone = [
        model(input_ids=torch.tensor([ids]), **rows_of(inputs, patches, video)).logits[0]
        for ids, patches, video in (
            (sample(one, extra)[0], slice(0, 32), slice(0, 1)),
            (both, slice(32, 72), slice(1, 3)),
        )
    ]
    torch.testing.assert_close(batched, torch.cat(alone), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_text_padded_on_the_right_is_plain_qwen(gsm_model: Qwen2_5_VLGSMForConditionalGeneration) -> None:
    plain = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**SIZES)).eval()
    plain.load_state_dict({k: v for k, v in gsm_model.state_dict().items() if not k.startswith(OWN_PARTS)})
    ids = torch.tensor([[START, 1, 2, 3, END], [START, 9, 2, PAD, PAD]])
    text = {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": ids.masked_fill(ids == PAD, -100)}
    assert torch.equal(gsm_model(**text).logits, plain(**text).logits)
    assert torch.equal(gsm_model(**text).loss, plain(**text).loss)


@torch.no_grad()
def test_an_image_beside_a_video_is_what_it_is_alone(gsm_model: Qwen2_5_VLGSMForConditionalGeneration) -> None:
    """The image comes first, so the video that follows changes nothing about its tokens."""
    grid, image = (2, 4, 4), [START, VISION_START, *[IMAGE] * 4, VISION_END]
    picture = {"pixel_values": torch.randn(16, 1176), "image_grid_thw": torch.tensor([[1, 4, 4]])}
    both = make_inputs([([*image, 7, *span(grid), 8, 9, END], [grid])]) | picture
    hidden = gsm_model.model(**both).last_hidden_state[0, : len(image)]
    alone = gsm_model.model(input_ids=torch.tensor([image]), **picture).last_hidden_state[0]
    torch.testing.assert_close(hidden, alone)
    answer = gsm_model.generate(**both, max_new_tokens=3, do_sample=False, eos_token_id=None)
    assert answer.shape[1] == both["input_ids"].shape[1] + 3


ATTENTIONS = [
    "eager",
    pytest.param("flash_attention_2", marks=pytest.mark.gpu),
]


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_attention_gives_what_sdpa_gives(attention: str) -> None:
    flash = attention == "flash_attention_2"
    if flash and not (torch.cuda.is_available() and is_flash_attn_2_available()):
        pytest.skip("needs a GPU and flash-attn")
    device, dtype = ("cuda", torch.bfloat16) if flash else ("cpu", torch.float32)
    model = make_model().to(device, dtype)
    inputs = make_inputs([sample((2, 4, 4)), sample((1, 4, 4), text=9)])
    inputs = Batch(inputs).to(device)
    present = inputs["attention_mask"].bool()
    expected = model(**inputs).logits[present]
    model.set_attn_implementation(attention)
    tolerance = {"atol": 0.1, "rtol": 0.1} if flash else {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(model(**inputs).logits[present], expected, **tolerance)


@torch.no_grad()
@pytest.mark.parametrize(("fusion", "question"), [("add", "embeddings"), *(("gsm", q) for q in QUESTIONS)])
def test_geometry_and_question_change_the_answer(fusion: str, question: str) -> None:
    model = make_model(fusion, question)
    inputs = make_inputs([sample((2, 4, 4), N if fusion == "gsm" else 0)])
    logits = model(**inputs).logits[:, -1]
    other = inputs | {"geometry": make_geometry([(2, 4, 4)], seed=5)}
    assert not torch.allclose(model(**other).logits[:, -1], logits, atol=1e-3)
    if fusion == "gsm":
        # The vision tokens come before the question, but the geometry tokens were selected by it.
        hidden = model.model(**inputs).last_hidden_state
        inputs["input_ids"][0, -3] = 30
        changed = model.model(**inputs).last_hidden_state
        place = (inputs["input_ids"][0] == VIDEO).nonzero().flatten()
        torch.testing.assert_close(changed[0, place[:-N]], hidden[0, place[:-N]])
        assert not torch.allclose(changed[0, place[-N:]], hidden[0, place[-N:]], atol=1e-3)


@torch.no_grad()
def test_add_puts_each_3d_token_on_the_vision_token_of_its_cell() -> None:
    model = make_model("add").model
    vision, states = torch.zeros(8, 24), torch.randn(4, 24)
    cells = torch.tensor([[0, 0, 0], [1, 1, 0], [1, 1, 0], [PADDING] * 3])
    added = model._add(vision, states, cells, torch.tensor([2, 4, 4]))
    expected = torch.zeros(8, 24)
    expected[0], expected[6] = states[0], states[1] + states[2]
    torch.testing.assert_close(added, expected)


@torch.no_grad()
def test_generation_with_a_cache_is_generation_without(gsm_model: Qwen2_5_VLGSMForConditionalGeneration) -> None:
    inputs = make_inputs([sample((2, 4, 4)), sample((1, 4, 4), text=9)])
    prompt = inputs["input_ids"]
    answer = gsm_model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
    slow = gsm_model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None, use_cache=False)
    assert torch.equal(answer, slow)
    assert torch.equal(answer[:, : prompt.shape[1]], prompt)
    mask = default_question_mask(gsm_model.config, prompt, inputs["attention_mask"])
    step = gsm_model(**inputs, question_mask=mask).logits[:, -1].argmax(-1)
    assert torch.equal(answer[:, prompt.shape[1]], step)


@torch.no_grad()
def test_several_answers_to_a_prompt_keep_its_videos_together(gsm_model: Qwen2_5_VLGSMForConditionalGeneration) -> None:
    one, two = (2, 4, 4), (1, 2, 4)
    inputs = make_inputs([([START, *span(one), 9, *span(two), 3, 4, END], [one, two]), sample(one)])
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    single = gsm_model.generate(**inputs, **options)
    beams = gsm_model.generate(**inputs, **options, num_beams=2, num_return_sequences=2)
    expanded, kwargs = gsm_model._expand_inputs_for_generation(
        2, input_ids=inputs["input_ids"], **{name: value for name, value in inputs.items() if name != "input_ids"}
    )
    assert kwargs["video_grid_thw"].tolist() == [[2, 4, 4], [1, 2, 4]] * 2 + [[2, 4, 4]] * 2
    values = inputs["geometry"]["tracks"]["values"]
    assert torch.equal(kwargs["geometry"]["tracks"]["values"], values[[0, 1, 0, 1, 2, 2]])
    assert [len(expanded), len(beams), len(single)] == [4, 4, 2]


def test_gradient_checkpointing_gives_the_same_gradients(gsm_model: Qwen2_5_VLGSMForConditionalGeneration) -> None:
    inputs = make_inputs([sample((2, 4, 4))])
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]

    def gradients() -> dict[str, Tensor]:
        gsm_model.zero_grad()
        gsm_model(**inputs, labels=labels, use_cache=False).loss.backward()
        return {name: p.grad.clone() for name, p in gsm_model.named_parameters() if p.grad is not None}

    plain = gradients()
    gsm_model.train()
    gsm_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    saved = gradients()
    gsm_model.gradient_checkpointing_disable()
    gsm_model.eval()
    assert plain.keys() == saved.keys()
    assert "model.gsm.queries" in plain
    for name, gradient in plain.items():
        torch.testing.assert_close(saved[name], gradient)


@torch.no_grad()
def test_loss_of_the_last_tokens_alone_is_the_loss(gsm_model: Qwen2_5_VLGSMForConditionalGeneration) -> None:
    inputs = make_inputs([sample((2, 4, 4)), sample((1, 4, 4))])
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]
    whole = gsm_model(**inputs, labels=labels)
    ending = gsm_model(**inputs, labels=labels, logits_to_keep=3)
    assert ending.logits.shape[1] == 3
    torch.testing.assert_close(ending.loss, whole.loss)


def test_the_question_is_the_text_without_special_tokens_answer_and_header() -> None:
    config = Qwen2_5_VLGSMConfig(special_token_ids=SPECIAL, **SIZES)
    #                   system    user                     header        answer
    ids = torch.tensor(
        [[PAD, START, 1, END, START, 2, VISION_START, VIDEO, VISION_END, 3, 4, END, START, 5, 6, 7, END]]
    )
    labels = torch.full_like(ids, -100)
    labels[0, -2:] = ids[0, -2:]
    mask = default_question_mask(config, ids, (ids != PAD).long(), labels)
    assert ids[mask].tolist() == [1, 2, 3, 4]
    assert ids[default_question_mask(config, ids, (ids != PAD).long())].tolist() == [1, 2, 3, 4, 5, 6, 7]


@torch.no_grad()
def test_contextual_states_are_those_of_the_language_model() -> None:
    model = make_model(question="states").model
    words = model.get_input_embeddings()(torch.tensor([[5, 6, 7, 8]]))
    states, mask = model._read(words, torch.tensor([[True, True, True, False]]))
    expected = model.language_model(inputs_embeds=words[:, :3]).last_hidden_state
    torch.testing.assert_close(states[:, :3], expected)
    assert mask.tolist() == [[True, True, True, False]]


@torch.no_grad()
@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_asked_of_the_gsm_alone_get_the_tokens_that_a_prompt_gets(question: str) -> None:
    """Two questions about one clip and one about another, with attention that adds up to one over the clip's tokens."""
    model = make_model(question=question)
    grids = [(2, 4, 4), (1, 4, 4)]
    inputs = make_inputs([([START, *span(grid), END], [grid]) for grid in grids])
    asked = {name: inputs[name] for name in ("geometry", "video_grid_thw", "second_per_grid_ts")}
    asked |= {"question_ids": torch.tensor([[5, 6, 7], [8, 9, PAD], [5, 6, 7]])}
    asked |= {"question_mask": asked["question_ids"] != PAD, "videos": torch.tensor([0, 0, 1])}
    tokens = model(asked=asked).geometry_tokens
    assert tokens.shape == (3, N, 24)
    found = model(asked=asked | {"look": Look()})
    torch.testing.assert_close(found.geometry_tokens, tokens, atol=1e-5, rtol=1e-5)
    # 8 cells of the longer video and 2 tracks; the shorter one has 4 cells.
    assert found.attention.shape == (3, 2, N, 10)
    torch.testing.assert_close(found.attention.exp().sum(-1), torch.ones(3, 2, N))
    assert (found.attention[2, ..., 4:8].exp() == 0).all()
    kept: list[Tensor] = []
    model.model.gsm.register_forward_hook(lambda module, args, output: kept.append(output))
    prompts = [[START, *span(grid), *ids, END] for grid, ids in zip(grids, ([8, 9], [5, 6, 7]), strict=True)]
    model(**make_inputs([(ids, [grid]) for ids, grid in zip(prompts, grids, strict=True)]))
    torch.testing.assert_close(kept[0], tokens[1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("question", QUESTIONS)
def test_saves_and_loads_through_the_auto_class(question: str, tmp_path: Path) -> None:
    model = make_model(question=question)
    model.save_pretrained(tmp_path)
    assert [p.name for p in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert type(loaded) is Qwen2_5_VLGSMForConditionalGeneration
    assert loaded.config.gsm == model.config.gsm
    inputs = make_inputs([sample((2, 4, 4))])
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"geometry": None}, "needs geometry\\['point_map'\\] for 1 videos"),
        ({"geometry": make_geometry([(2, 4, 4)] * 2)}, "for 1 videos"),
        ({"video_grid_thw": torch.tensor([[2, 4, 2]])}, "1 videos of 4 vision tokens.*the prompts have 11"),
        ({"input_ids": torch.tensor([[START, 5, 6, END]]), "attention_mask": None}, "have 0 of them in 0 spans"),
        ({"input_ids": None}, "needs input_ids"),
    ],
)
def test_what_does_not_fit_is_refused(
    gsm_model: Qwen2_5_VLGSMForConditionalGeneration, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gsm_model(**make_inputs([sample((2, 4, 4))]) | change)
