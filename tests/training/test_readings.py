"""Readings that are made once: of a question as it is, and as it is changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dsr.examples.clips import ClipStore
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import load_examples
from dsr.model import presets
from dsr.model.chat import encode
from dsr.model.reader import Reading
from dsr.params import GSM, QA
from dsr.training.batches import TrainingCollator
from dsr.training.guidance import Change, GuidedExample, changed, guide_examples, read_guides
from dsr.training.readings import Readings
from tests.training.projects import make_project


class World:
    def __init__(self, root: Path) -> None:
        project = make_project(root)
        table = pd.read_parquet(project / "data/qa/train.parquet")
        torch.manual_seed(0)
        gsm = GSM(num_tokens=4, encoders=("tracks", "pairs"), question="reader")
        self.model, self.processor = presets.tiny(gsm, table["question"], max_pixels=28 * 56)
        self.model.eval()
        self.inputs = ClipInputs(ClipStore.of_project(project), self.processor)
        self.examples = guide_examples(load_examples(table, self.inputs)[0], read_guides(table, QA()))
        self.readings = Readings(self.model, self.processor.tokenizer, self.examples)

    def labels(self, examples: list[GuidedExample]) -> torch.Tensor:
        read = self.readings.of(examples)
        return Reading(**read["reading"]).labels(self.model.get_input_embeddings()(read["question_ids"]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("project"))


@torch.no_grad()
def test_what_was_read_before_selects_the_same(world: World) -> None:
    examples = world.examples[:5]
    asked, anew = (
        TrainingCollator(world.inputs, world.model.config, readings=readings).for_gsm(examples)["asked"]
        for readings in (world.readings, None)
    )
    assert "reading" in asked
    assert "reading" not in anew
    found, expected = (world.model(asked=each).geometry_tokens for each in (asked, anew))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_change_is_read_in_names_and_times(world: World) -> None:
    example = world.examples[0]
    names = dict.fromkeys(example.labels, "green balloon")
    other = changed(example, Change(names=names, shift=0.7))
    before, after = world.readings.of([example]), world.readings.of([other])
    text = world.processor.tokenizer.decode(after["question_ids"][0])
    assert "green balloon" in text
    assert not any(f"the {name}" in text for name in names)
    torch.testing.assert_close(after["reading"]["seconds"], before["reading"]["seconds"] + 0.7)
    for name in ("absent", "form"):
        assert torch.equal(after["reading"][name], before["reading"][name])
    # What is pointed at is as much, however many tokens a name has.
    totals = [read["reading"]["attention"].sum(-1) for read in (before, after)]
    torch.testing.assert_close(*totals)


@torch.no_grad()
def test_the_longer_of_two_names_is_exchanged_first(world: World) -> None:
    labels = ("robot ball", "robot")
    example = replace(world.examples[0], labels=labels, boxes=((1, 2, 3, 4), (5, 6, 7, 8)), qa_id="nested", form="")
    example = replace(example, question="Where is the robot ball of the robot?")
    readings = Readings(world.model, world.processor.tokenizer, [example])
    change = Change(names={"robot": "ball", "robot ball": "robot"})
    read = readings.of([replace(example, change=change)])
    assert read["question_ids"][0].tolist() == encode(world.processor.tokenizer, ["Where is the robot of the ball?"])[0]
    assert np.isclose(read["reading"]["attention"].sum(), readings.of([example])["reading"]["attention"].sum())
