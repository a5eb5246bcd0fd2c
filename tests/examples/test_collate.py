"""Batches: literal tokens, padding on the left, losses on the answer alone, and what the controls take away."""

from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import pytest
import torch

from dsr import mcq
from dsr.examples.collate import Collator
from dsr.examples.records import Example, clip_batches, length_batches, load_examples, text_length
from dsr.examples.views import VIEWS
from dsr.mcq import PROMPTS, bare
from dsr.model.chat import build_prompt, option_log_probs
from dsr.model.qwen2_5_vl_gsm import IGNORED, default_question_mask
from dsr.params import GSM
from tests.training.projects import FRAMES, SmallWorld

QUESTION = "Which way does the camera move between 0.0 s and 6.0 s?"
OPTIONS = ("A. It moves left.", "B. It moves right.", "C. It moves up.", "D. It moves forward.")
EXAMPLE = Example("q", "clip_0", QUESTION, OPTIONS, "B", "abs_dir", FRAMES)


class World(SmallWorld):
    def __init__(self, root: Path) -> None:
        super().__init__(root, GSM(num_tokens=4))
        self.examples, _ = load_examples(self.table, self.inputs)

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
    assert asked == QUESTION
    ends = batch["reads"][0, batch["option_ends"][0]]
    assert [text_of(world, batch["input_ids"][0][end - 1 : end + 1]) for end in ends] == [".\n"] * 4


@pytest.mark.parametrize("form", PROMPTS)
@pytest.mark.parametrize(("answer", "header"), [("", "assistant\n"), ("B", "")])
def test_as_published_all_text_asks_and_the_header_only_where_the_answer_is_read(
    world: World, form: str, answer: str, header: str
) -> None:
    made = build_prompt(world.processor.tokenizer, QUESTION, OPTIONS, video_tokens=3, answer=answer, form=form)
    asked = text_of(world, [*compress(made.input_ids, made.asks)])
    text = mcq.prompt(QUESTION, OPTIONS, form)
    assert asked == f"system\nYou are a helpful assistant.\nuser\n{text}\n{header}"
    ids = torch.tensor([made.input_ids])
    labels = ids.masked_fill(~torch.tensor([made.answers]), IGNORED) if answer else None
    expected = default_question_mask(world.model.config, ids, None, labels)
    assert made.asks == expected[0].tolist()


@pytest.mark.parametrize("form", PROMPTS)
def test_every_form_knows_its_question_and_where_its_options_end(world: World, form: str) -> None:
    tokenizer = world.processor.tokenizer
    made = build_prompt(tokenizer, QUESTION, OPTIONS, video_tokens=3, line_alone=True, answer="B", form=form)
    assert tokenizer.decode([*compress(made.input_ids, made.asks)]).strip() == QUESTION
    before = [tokenizer.decode(made.input_ids[: end + 1]) for end in made.option_ends]
    assert [text.rstrip().rsplit("\n", 1)[-1][2:].strip() for text in before] == [bare(option) for option in OPTIONS]


@pytest.mark.parametrize("answer", ["", "B"])
def test_the_line_alone_asks_whatever_the_tokenizer_joins(world: World, answer: str) -> None:
    tokenizer = world.processor.tokenizer

    class Joining:
        """Joins a question mark with the line break behind it, as Qwen's tokenizer does."""

        all_special_ids = tokenizer.all_special_ids

        def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
            mark, line_break, joined = (tokenizer([text])["input_ids"][0] for text in ("?", "\n", "<|image_pad|>"))

            def join(ids: list[int]) -> list[int]:
                pairs = [i for i in range(len(ids) - 1) if ids[i : i + 2] == [*mark, *line_break]]
                return [joined[0] if i in pairs else x for i, x in enumerate(ids) if i - 1 not in pairs]

            return {"input_ids": [join(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]}

    for each, text in ((tokenizer, QUESTION), (Joining(), QUESTION.removesuffix("?"))):
        prompt = build_prompt(each, QUESTION, OPTIONS, video_tokens=3, line_alone=True, answer=answer)
        assert tokenizer.decode([*compress(prompt.input_ids, prompt.asks)]) == text
    prompt = build_prompt(tokenizer, "", OPTIONS, line_alone=True)
    assert tokenizer.decode([*compress(prompt.input_ids, prompt.asks)]) == "\nOptions:\n"


@pytest.mark.parametrize("form", PROMPTS)
def test_pieces_are_tokenized_as_the_whole_text_is(world: World, form: str) -> None:
    tokenizer = world.processor.tokenizer
    ids = build_prompt(tokenizer, QUESTION, OPTIONS, video_tokens=3, answer="C", form=form).input_ids
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
    # Robot, ball and camera, in two time groups and in four.
    cells = batch["geometry"]["tracks"]["cells"]
    assert cells[:, :, 0].tolist() == [[*[0, 1] * 3, *[-1] * 6], [0, 1, 2, 3] * 3]


def test_evaluation_ends_where_the_answer_is_read(world: World) -> None:
    batch = world.collator()([EXAMPLE])
    assert text_of(world, batch["input_ids"][0]).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert batch.keys().isdisjoint({"labels", "option_ends"})


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
        world.model(**{k: v for k, v in batch.items() if k != "option_ends"}) for batch in (packed, padded)
    )
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=0)
    rows = torch.arange(len(examples))[:, None]
    torch.testing.assert_close(
        found.logits[rows, packed["option_ends"]], expected.logits[rows, padded["option_ends"]], atol=1e-4, rtol=1e-4
    )


def test_blind_questions_are_padded(world: World) -> None:
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
    for name in ("tracks", "pairs"):
        assert torch.equal(shuffled["geometry"][name]["values"], lent["geometry"][name]["values"])
        assert not torch.equal(shuffled["geometry"][name]["values"], own["geometry"][name]["values"])
    with pytest.raises(ValueError, match="shuffled_geometry needs lenders"):
        world.collator(view="shuffled_geometry")


def test_moving_a_batch_moves_its_geometry(world: World) -> None:
    moved = world.collator()([EXAMPLE]).to("meta")
    assert {moved["input_ids"].device.type, moved["geometry"]["tracks"]["labels"].device.type} == {"meta"}


def test_length_batches_cover_every_index_once(world: World) -> None:
    batches = list(length_batches(world.examples, 5))
    assert sorted(index for rows in batches for index in rows) == list(range(len(world.examples)))
    lengths = [text_length(world.examples[index]) for rows in batches for index in rows]
    assert lengths == sorted(lengths, reverse=True)
