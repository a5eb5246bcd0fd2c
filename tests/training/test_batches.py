"""Batches for training: what the losses compare, and changed clips."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dsr.examples.records import load_examples
from dsr.params import GSM, QA
from dsr.training.batches import TrainingCollator
from dsr.training.curriculum import TrainingBatch
from dsr.training.guidance import STATES, Change, Guide, GuidedExample, guide_examples, read_guides
from tests.training.projects import FRAMES, SmallWorld

TOKENS = 4


class World(SmallWorld):
    def __init__(self, root: Path) -> None:
        super().__init__(root, GSM(num_tokens=TOKENS, encoders=("point_map", "tracks", "pairs")))
        self.examples = guide_examples(load_examples(self.table, self.inputs)[0], read_guides(self.table, QA()))

    def collator(self, **options: Any) -> TrainingCollator:
        return TrainingCollator(self.inputs, self.model.config, **options)

    def text_of(self, ids: torch.Tensor) -> str:
        return self.processor.tokenizer.decode(ids)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("project"))


def about(world: World, clip: int, guide: Guide, **changes: Any) -> GuidedExample:
    return replace(world.examples[3 * clip], guide=guide, shown_frames=FRAMES, **changes)


@torch.no_grad()
def test_the_gsm_alone_is_asked_what_it_reads_in_a_whole_prompt(world: World) -> None:
    examples = [replace(world.examples[i], shown_frames=FRAMES) for i in (0, 4, 1)]
    whole = world.collator().collate([TrainingBatch(tuple(examples))])
    alone = world.collator().collate([TrainingBatch(tuple(examples), gsm_alone=True)])
    assert alone.keys() == {"asked", "keys", "states", "possible_states"}
    assert alone["asked"]["videos"].tolist() == [0, 1, 0]
    assert len(alone["asked"]["video_grid_thw"]) == 2
    assert torch.equal(alone["states"], whole["states"])
    for row, (prompt, asks) in enumerate(zip(whole["input_ids"], whole["question_mask"], strict=True)):
        ids, mask = alone["asked"]["question_ids"][row], alone["asked"]["question_mask"][row]
        assert torch.equal(ids[mask], prompt[asks])
    kept = []
    hook = world.model.model.gsm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    world.model(**{k: v for k, v in whole.items() if k not in ("states", "possible_states", "option_ends")})
    tokens = world.model(asked=alone["asked"]).geometry_tokens
    hook.remove()
    torch.testing.assert_close(tokens, kept[0], atol=1e-5, rtol=1e-5)


def test_each_token_has_the_state_of_its_moment(world: World) -> None:
    batch = world.collator().for_gsm(world.examples[:4])
    forward, backward = STATES.index("It moves forward"), STATES.index("It moves backward")
    # Tokens after the last moment repeat it.
    assert batch["states"].tolist() == [[forward] * TOKENS] * 3 + [[backward] * TOKENS]
    possible = [STATES[k] for k in batch["possible_states"][0].nonzero()[:, 0].tolist()]
    assert len(possible) == 26
    assert all(sentence.startswith("It moves ") for sentence in possible)


def test_states_are_spelled_as_in_an_options_line(world: World) -> None:
    words = world.collator().state_words()
    assert len(words) == len(STATES)
    for sentence, ids in zip(STATES, words, strict=True):
        assert world.text_of(ids[ids >= 0]) == f" {sentence}"
    (own,) = [ids[ids >= 0] for sentence, ids in zip(STATES, words, strict=True) if sentence == "It moves forward"]
    assert len(own) == 1  # a state is a word to the small model


def test_heads_look_at_the_tokens_of_whom_and_when_a_question_is_about(world: World) -> None:
    # Tracks: robot 0 and ball 1, the camera 2. Four moments of two frames each.
    guides = [
        Guide("rel_dir", (0,) * 3, 0, (1,), (0, 2, 7)),
        Guide("abs_spd_comp", (0,) * 3, -2, (1, -1), (1, 3, 5, 7)),
        Guide("rel_spd_comp", (0,) * 9, -1, (0, 1), (0, 3, 6)),
    ]
    batch = world.collator().for_gsm([about(world, clip, guide) for clip, guide in enumerate(guides)])
    geometry, keys = batch["asked"]["geometry"], batch["keys"]
    before = geometry["point_map"]["cells"].shape[1]
    tracks, pairs = geometry["tracks"], geometry["pairs"]

    def seen(row: int, key: int) -> tuple[int, ...]:
        """(thing, group) or (viewer, thing, group)."""
        key -= before
        part, place = (tracks, key) if key < tracks["things"].shape[1] else (pairs, key - tracks["things"].shape[1])
        return *part["things"][row, place].tolist(), int(part["cells"][row, place, 0])

    assert keys.shape == (3, 4, TOKENS)
    for row, moment, expected in (
        (0, 0, [(0, 1, 0)] * 4),
        (0, 2, [(0, 1, 3)] * 4),
        (1, 1, [(1, 1), (1, 2), (2, 1), (2, 2)]),
        (2, 1, [(2, 0, 1), (2, 0, 3), (2, 1, 1), (2, 1, 3)]),
    ):
        assert [seen(row, key) for key in keys[row, :, moment].tolist()] == expected
    assert torch.equal(keys[:, :, 3], keys[:, :, 2])  # there is no fourth state: the third is repeated


def test_what_no_token_shows_is_looked_for_nowhere(world: World) -> None:
    example = about(world, 0, Guide("rel_dir", (0,), 0, (9,), (0, 2)))
    assert world.collator().for_gsm([example])["keys"][0, :, 0].tolist()[:2] == [-1, -1]


def test_a_change_is_one_of_names_times_and_values(world: World) -> None:
    guide = Guide("abs_dir_pred", (0,), 0, (-1,), (1, 3, 5))
    change = Change({"robot": "ball", "ball": "robot"}, 0.5, 0.1, seed=3)
    collator = world.collator()
    own, changed, again = (
        collator.for_gsm([about(world, 0, guide, change=c)])["asked"]["geometry"] for c in (Change(), change, change)
    )
    for name in ("tracks", "pairs"):
        torch.testing.assert_close(changed[name]["seconds"], own[name]["seconds"] + 0.5)
        noise = changed[name]["values"] - own[name]["values"]
        assert (noise[own[name]["values"] == 0] == 0).all()
        assert noise[own[name]["values"] != 0].std().item() == pytest.approx(0.1, rel=0.2)
        assert torch.equal(changed[name]["values"], again[name]["values"])
        robot, ball, camera = own[name]["labels"][0]
        assert torch.equal(changed[name]["labels"][0], torch.stack([ball, robot, camera]))
        assert torch.equal(changed[name]["things"], own[name]["things"])
    # What is kept for the next time is the clip as it is.
    untouched = collator.for_gsm([about(world, 0, guide)])["asked"]["geometry"]
    assert all(torch.equal(untouched[name][part], own[name][part]) for name in own for part in own[name])


def test_states_of_a_packed_row_are_clip_by_clip(world: World) -> None:
    examples = [replace(world.examples[i], shown_frames=FRAMES) for i in (0, 3, 1, 4, 2)]
    packed, padded = (world.collator(shared_prefix=shared).whole(examples) for shared in (True, False))
    assert torch.equal(packed["states"], padded["states"][[0, 2, 4, 1, 3]])


def test_questions_without_guides_have_no_states(world: World) -> None:
    batch = world.collator().whole([replace(world.examples[0], guide=None), world.examples[1]])
    assert batch.keys().isdisjoint({"states", "possible_states"})
