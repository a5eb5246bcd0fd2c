"""Grounding DINO: which word a box is of, in what pixels, and what is the same thing. Tiny random weights."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("groundingdino", reason="the perception extra is not installed")

from dsr.console import StageError
from dsr.perception import grounding
from dsr.perception.grounding import Grounder, prompts
from dsr.perception.tracks import Word

MAN, RED, BLUE = Word("man", True), Word("Red Car", True), Word("blue car", False)
FRAMES = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    return grounding.random_model(0, tiny=True)


class Told(torch.nn.Module):
    """Answers with boxes and token probabilities that it is told, for every frame."""

    def __init__(self, tokenizer: object, boxes: Sequence[Sequence[float]], words: Sequence[dict[int, float]]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.tokenizer, self.boxes, self.words = tokenizer, boxes, words
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor, captions: list[str]) -> dict[str, torch.Tensor]:
        self.batches.append(len(images))
        logits = torch.full((len(self.boxes), 256), -20.0)
        for query, tokens in enumerate(self.words):
            for token, probability in tokens.items():
                logits[query, token] = torch.logit(torch.tensor(probability))
        repeat = (len(images), 1, 1)
        return {"pred_logits": logits.repeat(repeat), "pred_boxes": torch.tensor(self.boxes).repeat(repeat)}


def grounder(model: torch.nn.Module, batch_size: int = 4) -> Grounder:
    return Grounder(model, box_threshold=0.35, text_threshold=0.25, nms_iou=0.7, batch_size=batch_size, sides=(64, 96))


def test_words_keep_their_tokens(tiny: torch.nn.Module) -> None:
    ((prompt, spans),) = prompts([MAN, RED, Word("dog. cat?", True)], tiny.tokenizer)
    assert prompt == "man . red car . dog cat ."
    tokens = tiny.tokenizer.convert_ids_to_tokens(tiny.tokenizer(prompt)["input_ids"])
    spelled = ["".join(tokens[k].removeprefix("##") for k in span) for _, span in spans]
    assert spelled == ["man", "redcar", "dogcat"]
    assert [word for word, _ in spans][:2] == [MAN, RED]


def test_very_many_words_are_several_prompts(tiny: torch.nn.Module) -> None:
    words = [Word(f"particularly long word {k}", True) for k in range(30)]
    parts = list(prompts(words, tiny.tokenizer))
    assert len(parts) > 1
    assert [word for _, spans in parts for word, _ in spans] == words
    assert all(len(tiny.tokenizer(prompt)["input_ids"]) <= grounding.MAX_TOKENS for prompt, _ in parts)


def test_a_box_is_the_word_whose_tokens_are_best_on_the_mean(tiny: torch.nn.Module) -> None:
    ((_, spans),) = prompts([MAN, RED, BLUE], tiny.tokenizer)
    of = dict(spans)
    both_cars = {token: 0.8 for word in (RED, BLUE) for token in of[word][-3:]}
    blue = both_cars | dict.fromkeys(of[BLUE][:-3], 0.6)
    sure = {of[MAN][0]: 0.9}
    unsure = {of[MAN][0]: 0.3}
    boxes = [[0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.2, 0.2], [0.25, 0.75, 0.2, 0.2]]
    found = grounder(Told(tiny.tokenizer, boxes, [blue, sure, unsure]))(FRAMES[:1], [12], [MAN, RED, BLUE])
    assert [(d.word, d.frame) for d in found] == [(MAN, 12), (BLUE, 12)]
    assert found[0].box == pytest.approx((0.65 * 64, 0.65 * 48, 0.85 * 64, 0.85 * 48))
    assert found[0].score == pytest.approx(0.9, abs=1e-5)
    assert [d.word.is_agent for d in found] == [True, False]


def test_of_boxes_in_one_place_the_surest_stays_whatever_they_are_called(tiny: torch.nn.Module) -> None:
    ((_, spans),) = prompts([MAN, BLUE], tiny.tokenizer)
    man, blue = (dict.fromkeys(span, p) for (_, span), p in zip(spans, (0.5, 0.7), strict=True))
    model = Told(tiny.tokenizer, [[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.42, 0.4]], [man, blue])
    assert [d.word for d in grounder(model)(FRAMES[:1], [0], [MAN, BLUE])] == [BLUE]


def test_boxes_stay_inside_the_image(tiny: torch.nn.Module) -> None:
    ((_, spans),) = prompts([MAN], tiny.tokenizer)
    tokens = dict.fromkeys(spans[0][1], 0.9)
    boxes = [[0.0, 0.0, 0.5, 0.5], [1.2, 0.5, 0.1, 0.1], [0.5, 0.5, 0.001, 0.5]]
    found = grounder(Told(tiny.tokenizer, boxes, [tokens] * 3))(FRAMES[:1], [0], [MAN])
    assert [d.box for d in found] == [(0, 0, 16, 12)]


def test_all_key_frames_are_one_batch(tiny: torch.nn.Module) -> None:
    model = Told(tiny.tokenizer, [[0.5, 0.5, 0.4, 0.4]], [{1: 0.9}])
    found = grounder(model)(FRAMES, [4, 12, 20, 28], [MAN])
    assert model.batches == [4]
    assert [d.frame for d in found] == [4, 12, 20, 28]


def test_frames_seen_together_and_alone_give_the_same(tiny: torch.nn.Module) -> None:
    options = {"box_threshold": 0.0, "text_threshold": 0.0, "nms_iou": 0.3, "sides": (64, 96)}
    one = Grounder(tiny, batch_size=1, **options)(FRAMES, [0, 1, 2, 3], [MAN, BLUE])
    four = Grounder(tiny, batch_size=4, **options)(FRAMES, [0, 1, 2, 3], [MAN, BLUE])
    assert len(one) == len(four) > 8
    for a, b in zip(one, four, strict=True):
        assert (a.frame, a.word) == (b.frame, b.word)
        assert a.box == pytest.approx(b.box, abs=0.05)


def test_a_checkpoint_with_the_published_names_loads_and_another_is_refused(
    tiny: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = tmp_path, grounding.random_model(5, tiny=True)
    monkeypatch.setattr(grounding, "_build", lambda changes, bert: other)
    state = {f"module.{name}": value for name, value in tiny.state_dict().items()}
    state["module.label_enc.weight"] = torch.zeros(3)
    state["module.bert.embeddings.position_ids"] = torch.arange(4)
    torch.save({"model": state}, folder / "good.pth")
    loaded = grounding.load_published(folder / "good.pth", folder, "cpu")
    assert all(torch.equal(value, tiny.state_dict()[name]) for name, value in loaded.state_dict().items())
    torch.save({"model": {"other": torch.zeros(1)}}, folder / "other.pth")
    (folder / "broken.pth").write_bytes(b"not a checkpoint")
    torch.save({"model": SimpleNamespace()}, folder / "code.pth")
    for name in ("other.pth", "broken.pth", "code.pth", "none.pth"):
        with pytest.raises(StageError, match=name):
            grounding.load_published(folder / name, folder, "cpu")
