"""One training step of the small preset: forward, backward and update of 16 questions, with and without the GSM.

`pytest benchmarks/test_training_step.py --benchmark-enable` compares the fusions in one run.
"""

from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from dsr.examples.clips import ClipStore
from dsr.examples.collate import Collator
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import load_examples
from dsr.params import GSM, Model, Params, Train
from dsr.project import TRAIN
from dsr.training import train
from dsr.training.guidance import guide_examples
from dsr.training.trainer import make_trainer
from tests.training.projects import make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"), clips=16, rows=1, videos=0)


@pytest.mark.parametrize("fusion", ["none", "add", "gsm"])
def test_training_step(fusion: str, project: Path, benchmark: BenchmarkFixture) -> None:
    torch.set_num_threads(1)
    settings = Train(geometry_steps=0, steps=1)
    table = train.read_questions(project / TRAIN)
    model, processor = train.make_model(Model(backbone=""), GSM(fusion=fusion), project, table["question"])
    inputs = ClipInputs(ClipStore.of_project(project), processor)
    examples, _ = load_examples(table, inputs)
    curriculum = train.make_curriculum(guide_examples(examples, {}), Params(gsm=GSM(fusion=fusion), train=settings))
    trainer = make_trainer(model, inputs, curriculum, settings, project / "models/checkpoints/x")
    optimizer = trainer.create_optimizer()
    batch = Collator(inputs, model.config, training=True)(examples)

    def step() -> None:
        trainer.compute_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    benchmark.extra_info["parameters"] = sum(p.numel() for p in model.parameters())
    benchmark.extra_info["tokens"] = list(batch["input_ids"].shape)
    benchmark.pedantic(step, rounds=5, iterations=1, warmup_rounds=1)
