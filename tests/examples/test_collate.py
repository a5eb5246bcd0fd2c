"""Batches: literal tokens, padding on the left, losses on the answer alone, and what the controls take away."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dsr.examples.clips import ClipStore
from dsr.examples.collate import Batch, Collator
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import Example, clip_batches, length_batches, load_examples, text_length
from dsr.examples.views import VIEWS
from dsr.model import presets
from dsr.model.chat import build_prompt, option_log_probs
from dsr.model.qwen2_5_vl_gsm import IGNORED
from dsr.params import GSM
from dsr.training.curriculum import Curriculum, option_scores, permute_options, state_scores, with_hint
from tests.training.projects import FRAMES, make_project

QUESTION = "Which way does the camera move between 0.0 s and 6.0 s?"
OPTIONS = ("A. It moves left.", "B. It moves right.", "C. It moves up.", "D. It moves forward.")
EXAMPLE = Example("q", "clip_0", QUESTION, OPTIONS, "B", "abs_dir", FRAMES)


class World:
    def __init__(self, root: Path) -> None:
        self.project = make_project(root)
        table = pd.read_parquet(self.project / "data/qa/train.parquet")
        texts = [text for row in table.itertuples() for text in (row.question, *row.options)]
        torch.manual_seed(0)
        self.model, self.processor = presets.tiny(GSM(num_tokens=4), texts, max_pixels=28 * 56)
        self.model.eval()
        self.inputs = ClipInputs(ClipStore.of_project(self.project), self.processor)
        self.examples, _ = load_examples(table, self.inputs)

    def collator(self, **options: Any) -> Collator:
        return Collator(self.inputs, self.model.config, **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("project"))


def text_of(world: World, ids: torch.Tensor) -> str:
    return world.processor.tokenizer.decode(ids)


def test_a_training_sample_in_words(world: World) -> None:
    batch = world.collator(training=True)([EXAMPLE])
    # 4 groups of 1 x 1 vision tokens, 4 geometry tokens
    assert text_of(world, batch["input_ids"][0]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        + "<|video_pad|>" * 8
        + f"<|vision_end|>{QUESTION}\nOptions:\n"
        + "\n".join(OPTIONS)
        + "\nAnswer with the letter.<|im_end|>\n<|im_start|>assistant\nB<|im_end|>"
    )
    labels = batch["labels"][0]
    assert text_of(world, labels[labels != -100]) == "B<|im_end|>"
    assert (labels[-2:] != -100).all()
    asked = text_of(world, batch["input_ids"][0][batch["question_mask"][0]])
    assert asked == (
        f"system\nYou are a helpful assistant.\nuser\n{QUESTION}\nOptions:\n"
        + "\n".join(OPTIONS)
        + "\nAnswer with the letter."
    )
    spelled = [text_of(world, ids[ids != -100]) for ids in batch["state_labels"][0]]
    right = "".join(option[2:] for option in OPTIONS if option[0] == EXAMPLE.answer)
    assert spelled == [right, *(option[2:] for option in OPTIONS if option[0] != EXAMPLE.answer)]
    ends = batch["option_ends"][0]
    assert [text_of(world, batch["input_ids"][0][end - 1 : end + 1]) for end in ends] == [".\n"] * 4


def test_pieces_are_tokenized_as_the_whole_text_is(world: World) -> None:
    tokenizer = world.processor.tokenizer
    ids = build_prompt(tokenizer, QUESTION, OPTIONS, video_tokens=3, answer="C").input_ids
    assert tokenizer(tokenizer.decode(ids), add_special_tokens=False)["input_ids"] == ids


def test_shorter_samples_are_padded_on_the_left(world: World) -> None:
    longer = Example("p", "clip_1", f"{QUESTION} {QUESTION}", OPTIONS, "A", "abs_dir", 4)
    batch = world.collator(training=True)([longer, EXAMPLE])
    padding = int((batch["attention_mask"][1] == 0).sum())
    assert padding > 0
    assert (batch["input_ids"][1, :padding] == world.processor.tokenizer.pad_token_id).all()
    assert batch["labels"][:, -2:].tolist() == [
        [world.model.config.letter_token_ids[k], world.processor.tokenizer.eos_token_id] for k in (0, 1)
    ]
    assert not batch["question_mask"][1, :padding].any()
    assert batch["video_grid_thw"].tolist() == [[2, 2, 2], [4, 2, 2]]
    assert len(batch["pixel_values_videos"]) == 6 * 4
    cells = batch["geometry"]["point_map"]["cells"]
    assert cells[:, :, 0].tolist() == [[0, 1, -1, -1], [0, 1, 2, 3]]


def test_evaluation_ends_where_the_answer_is_read(world: World) -> None:
    batch = world.collator()([EXAMPLE])
    assert text_of(world, batch["input_ids"][0]).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert batch.keys().isdisjoint({"labels", "state_labels", "option_ends"})


def test_log_probabilities_do_not_depend_on_the_batch(world: World) -> None:
    together = option_log_probs(world.model, world.collator()(world.examples))
    assert together.shape == (len(world.examples), 4)
    alone = torch.cat([option_log_probs(world.model, world.collator()([example])) for example in world.examples])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together.exp().sum(-1) < 1).all()


def test_a_shared_prefix_holds_the_video_once_and_answers_in_the_order_of_the_examples(world: World) -> None:
    """Three clips, six questions, out of order; two show fewer frames."""
    order = [0, 3, 1, 4, 6, 2]
    examples = [world.examples[i] for i in order] + [replace(world.examples[0], qa_id="again")]
    batch = world.collator(shared_prefix=True)(examples)
    shown = {(example.clip_id, example.shown_frames) for example in examples}
    assert len(batch["packing"].clips) == len(batch["video_grid_thw"]) == len(shown) == 6
    assert batch["packing"].length == batch["input_ids"].shape[1]
    together = option_log_probs(world.model, batch)
    alone = option_log_probs(world.model, world.collator()(examples))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[0], together[-1])
    texts = [text_of(world, batch["input_ids"][0, places]) for places in batch["packing"].sequences()]
    padded = world.collator()(examples)
    rows = zip(padded["input_ids"], padded["attention_mask"], strict=True)
    own = [text_of(world, ids[present.bool()]) for ids, present in rows]
    assert sorted(texts) == sorted(own)


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "blind"])
def test_a_shared_prefix_trains_as_a_padded_batch(view: str, world: World) -> None:
    lenders = {f"clip_{i}": f"clip_{(i + 1) % 4}" for i in range(4)}
    examples = [replace(world.examples[i], shown_frames=FRAMES) for i in (0, 3, 1, 4, 2)]
    packed, padded = (
        world.collator(view=view, lenders=lenders, training=True, shared_prefix=shared)(examples)
        for shared in (True, False)
    )
    assert len(packed["packing"].clips) == 2
    found, expected = (
        world.model(**{k: v for k, v in batch.items() if k not in ("state_labels", "option_ends")})
        for batch in (packed, padded)
    )
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=0)
    rows = torch.arange(len(examples))[:, None]
    torch.testing.assert_close(
        found.logits[rows, packed["option_ends"]], expected.logits[rows, padded["option_ends"]], atol=1e-4, rtol=1e-4
    )
    # The geometry tokens of a packed row are clip by clip, and so are their labels.
    assert torch.equal(packed["state_labels"], padded["state_labels"][[0, 2, 4, 1, 3]])


def test_hints_and_blind_questions_are_padded(world: World) -> None:
    hinted = replace(with_hint(EXAMPLE, np.random.default_rng(0)), lesson="options")
    batch = world.collator(training=True, shared_prefix=True)([hinted, replace(hinted, gap=7)])
    assert "packing" not in batch
    places = world.model.config.num_geometry_tokens
    assert text_of(world, batch["input_ids"][0]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|>{'<|video_pad|>' * places}<|vision_end|>Options:\n"
        + "\n".join(OPTIONS)
        + "\nAnswer with the letter.<|im_end|>\n<|im_start|>assistant\nB<|im_end|>"
    )
    assert hinted.hint[2:].startswith(text_of(world, batch["hints"][0][batch["hints"][0] != IGNORED]))
    length = batch["input_ids"].shape[1]
    start = batch["input_ids"][0].tolist().index(world.model.config.vision_end_token_id) + 1
    assert batch["position_ids"][:, 0].tolist() == [list(range(length))] * 3
    assert batch["position_ids"][:, 1].tolist() == [[*range(start), *range(start + 7, length + 7)]] * 3
    assert "packing" not in world.collator(view="blind", shared_prefix=True)([EXAMPLE])


def test_clip_batches_keep_a_clip_together(world: World) -> None:
    batches = list(clip_batches(world.examples, 5))
    assert sorted(index for rows in batches for index in rows) == list(range(len(world.examples)))
    clips = [world.examples[index].clip_id for rows in batches for index in rows]
    assert clips == sorted(clips)


@pytest.mark.parametrize(
    ("size", "expected"), [(2, [[0, 2], [4], [1, 5], [3]]), (3, [[0, 2, 4], [1, 5, 3]]), (4, [[0, 2, 4], [1, 5, 3]])]
)
def test_clip_batches_cut_a_clip_only_where_it_is_more_than_a_batch(size: int, expected: list[list[int]]) -> None:
    examples = [replace(EXAMPLE, clip_id=clip, shown_frames=9 if k == 3 else 8) for k, clip in enumerate("ababab")]
    assert list(clip_batches(examples, size)) == expected


def test_blind_has_neither_video_nor_geometry(world: World) -> None:
    batch = world.collator(view="blind")([EXAMPLE])
    assert set(batch) == {"input_ids", "attention_mask", "question_mask"}
    assert "vision" not in text_of(world, batch["input_ids"][0])
    other = Example("q", "clip_1", QUESTION, OPTIONS, "B", "abs_dir", FRAMES)
    assert torch.equal(
        option_log_probs(world.model, batch), option_log_probs(world.model, world.collator(view="blind")([other]))
    )


def test_shuffled_geometry_is_the_lenders_with_the_own_video(world: World) -> None:
    lenders = {"clip_0": "clip_1", "clip_1": "clip_0"}
    shuffled = world.collator(view="shuffled_geometry", lenders=lenders)([EXAMPLE])
    own, lent = (
        world.collator()([Example("q", clip, QUESTION, OPTIONS, "B", "abs_dir", FRAMES)])
        for clip in ("clip_0", "clip_1")
    )
    assert torch.equal(shuffled["pixel_values_videos"], own["pixel_values_videos"])
    for name in ("point_map", "tracks"):
        assert torch.equal(shuffled["geometry"][name]["values"], lent["geometry"][name]["values"])
        assert not torch.equal(shuffled["geometry"][name]["values"], own["geometry"][name]["values"])
    with pytest.raises(ValueError, match="shuffled_geometry needs lenders"):
        world.collator(view="shuffled_geometry")


def test_moving_a_batch_moves_its_geometry(world: World) -> None:
    moved = world.collator()([EXAMPLE]).to("meta")
    assert {moved["input_ids"].device.type, moved["geometry"]["tracks"]["words"].device.type} == {"meta"}


def test_length_batches_cover_every_index_once(world: World) -> None:
    batches = list(length_batches(world.examples, 5))
    assert sorted(index for rows in batches for index in rows) == list(range(len(world.examples)))
    lengths = [text_length(world.examples[index]) for rows in batches for index in rows]
    assert lengths == sorted(lengths, reverse=True)


def test_a_curriculum_is_a_function_of_the_seed(world: World) -> None:
    first, again, other = (Curriculum(world.examples, 4, 2, 1, 3, True, seed) for seed in (1, 1, 2))
    assert [first[i] for i in range(len(first))] == [again[i] for i in range(len(again))]
    assert [first[i] for i in range(len(first))] != [other[i] for i in range(len(other))]
    lessons = [first[i].lesson for i in range(len(first))]
    assert lessons == ["geometry"] * 4 + ["options"] * 8 + ["whole"] * 12
    hinted = [bool(first[i].hint) for i in range(len(first))]
    assert hinted[:12] == [False] * 4 + [True] * 8
    assert all(hinted[12:16])
    assert not all(hinted[16:])
    assert len({first[i].gap for i in range(4, 12)}) > 1
    assert {first[i].hint_weight for i in range(12, 16)} == {1}
    weights = [first[i].hint_weight for i in range(16, 24) if first[i].hint]
    assert len(set(weights)) == len(weights)
    assert 0 < min(weights) < max(weights) < 1
    used = [first[i].qa_id for i in range(12, 12 + len(world.examples))]
    assert sorted(used) == sorted(example.qa_id for example in world.examples)
    for i in range(len(first)):
        question = next(e for e in world.examples if e.qa_id == first[i].qa_id)
        right = [
            option[3:] for example in (question, first[i]) for option in example.options if option[0] == example.answer
        ]
        assert right[0] == right[1]


def test_a_grouped_curriculum_gives_each_question_once_and_those_of_a_clip_together(world: World) -> None:
    examples = [replace(e, shown_frames=FRAMES) for e in world.examples]  # 4 clips of 3 questions
    curriculum = Curriculum(examples, 4, 1, 0, 6, True, 1, questions_per_clip=2)
    used = [curriculum[i] for i in range(4, len(curriculum))]
    assert sorted(e.qa_id for e in used[:12]) == sorted(e.qa_id for e in used[12:]) == sorted(e.qa_id for e in examples)
    pairs = [used[i].clip_id == used[i + 1].clip_id for i in range(0, 12, 2)]
    assert sum(pairs) == 4  # a pair of each clip, and the four third questions in pairs
    assert [e.qa_id for e in used[:12]] != [e.qa_id for e in used[12:]]


def test_options_in_another_order_keep_their_text() -> None:
    moved = permute_options(EXAMPLE, np.array([3, 1, 0, 2]))
    assert moved.options == ("A. It moves forward.", "B. It moves right.", "C. It moves left.", "D. It moves up.")
    assert moved.answer == "B"
    assert permute_options(EXAMPLE, np.array([1, 0, 2, 3])).answer == "A"


def test_a_hint_is_mostly_the_right_option() -> None:
    options = ("A. It is left.", "B. It is left, then right.", "C. It is right, then behind.", "D. It is above.")
    example = replace(EXAMPLE, options=options, answer="B")
    hints = [with_hint(example, np.random.default_rng(i)).hint[2:] for i in range(400)]
    first, second = zip(*(hint.split(", then") for hint in hints), strict=True)
    # A state is taken from another option's same place in a tenth of the cases, where there is one.
    assert set(first) == {" It is left", " It is right", " It is above"}
    assert set(second) == {" right.", " behind."}
    # Of three other options one begins like the right one.
    assert first.count(" It is left") / 400 == pytest.approx(0.9 + 0.1 / 3, abs=0.04)
    assert second.count(" right.") / 400 == pytest.approx(0.9 + 0.1 / 2, abs=0.04)


def test_the_gsm_alone_is_asked_what_it_reads_in_a_whole_prompt(world: World) -> None:
    examples = [replace(world.examples[i], shown_frames=FRAMES) for i in (0, 4)]
    whole = world.collator(training=True)(examples)
    alone = world.collator(training=True)([replace(e, lesson="geometry") for e in examples])
    assert alone.keys() == {"asked", "state_labels"}
    assert torch.equal(alone["state_labels"], whole["state_labels"])
    for ids, mask, prompt, asks in zip(
        alone["asked"]["question_ids"],
        alone["asked"]["question_mask"],
        whole["input_ids"],
        whole["question_mask"],
        strict=True,
    ):
        assert torch.equal(ids[mask], prompt[asks])
    kept = []
    hook = world.model.model.gsm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    world.model(**{k: v for k, v in whole.items() if k not in ("state_labels", "option_ends")})
    tokens = world.model(asked=alone["asked"]).geometry_tokens
    hook.remove()
    torch.testing.assert_close(tokens, kept[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hints_take_the_places_of_geometry_tokens(world: World) -> None:
    own = world.collator()([EXAMPLE])
    lent = world.collator(view="shuffled_geometry", lenders={"clip_0": "clip_1"})([EXAMPLE])
    told = torch.full((1, world.model.config.num_geometry_tokens), 30)
    nowhere = torch.full_like(told, IGNORED)

    def logits(batch: Batch, hints: torch.Tensor, weight: float) -> torch.Tensor:
        return world.model(**batch, hints=hints, hint_weights=torch.tensor([weight])).logits

    assert not torch.equal(world.model(**own).logits, world.model(**lent).logits)
    assert torch.equal(logits(own, told, 1), logits(lent, told, 1))
    assert not torch.equal(logits(own, told, 0.5), logits(lent, told, 0.5))
    for unchanged in (logits(own, told, 0), logits(own, nowhere, 1)):
        assert torch.equal(unchanged, world.model(**own).logits)
    assert not torch.equal(logits(own, told, 0.5), logits(own, told, 1))


def test_state_scores_by_hand() -> None:
    logits = torch.zeros(1, 2, 4)
    logits[0, 0, 1] = logits[0, 1, 2] = 3.0
    labels = torch.tensor([[[1, 2], [1, -100], [2, 1], [0, 0]]])
    hit, miss = -np.log(1 + 3 * np.exp(-3.0)), -np.log(np.exp(3.0) + 3)
    expected = [10 * hit, 10 * hit, 10 * miss, 10 * miss]
    assert state_scores(logits, labels, sharpness=10)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_option_scores_by_hand() -> None:
    logits = torch.zeros(1, 6, 9)
    letters = torch.tensor([5, 6, 7, 8])
    logits[0, [1, 2, 3, 4], letters] = torch.tensor([0.0, 3.0, 0.0, 0.0])
    assert option_scores(logits, torch.tensor([[1, 2, 3, 4]]), letters).tolist() == [[0, 3, 0, 0]]
