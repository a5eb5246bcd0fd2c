"""Check that the score of a trained model is geometry's, and nothing that leaked.

    python -m experiments.leaks --work DIR [ROOT]

ROOT is a project folder after `dvc repro`; nothing is written to it. Shown are

- how many of the benchmark's questions were among the texts of the backbone's pre-training;
- letters on the benchmark, and on the same with every thing called by a noun that the pre-training never saw;
- letters on clips of another seed of the simulator, drawn after model and benchmark were made;
- letters after the same training with the answers of each quartet permuted: nothing is left to be learned.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from dsr import project
from dsr.console import summary
from dsr.examples.clips import ClipStore
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import clip_batches, load_examples
from dsr.mcq import read_questions
from dsr.model.chat import ANSWER_TOKENS
from dsr.model.presets import load_model, share_cores
from dsr.params import load
from dsr.training.batches import TrainingCollator
from dsr.training.guidance import Change, GuidedExample, changed, guide_examples, read_guides
from experiments.pretrain.__main__ import seen_questions
from experiments.pretrain.texts import names

BATCH = 64
GUIDES = ("option_ends", "states", "possible_states")
"""Parts of a batch that are for the losses."""
LATER_CLIPS = 120
"""Clips of the other seed: about a thousand questions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", default=Path())
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs on other data; emptied before")
    parser.add_argument("--seed", type=int, default=1000, help="of the simulator, for the later clips")
    arguments = parser.parse_args()
    root, work = arguments.root.resolve(), arguments.work.resolve()
    bench = read_questions(root / project.BENCH)
    figures = {"questions seen in pre-training": f"{seen_before(root, bench):,} of {len(bench):,}"}
    figures |= {name: f"{right:.1%}" for name, right in with_other_names(root, bench).items()}
    shutil.rmtree(work, ignore_errors=True)
    figures["clips of a later seed"] = later_clips(root, work / "later", arguments.seed)
    figures["answers permuted in training"] = permuted(root, work / "permuted")
    summary("leaks", figures)


def seen_before(root: Path, bench: pd.DataFrame) -> int:
    """Questions of the benchmark among the texts of the pre-training."""
    facts = json.loads((root / load(root / project.PARAMS).model.backbone / "pretraining.json").read_text("utf-8"))
    texts = set(seen_questions(facts["seed"], facts["language_steps"], facts["reader_steps"]))
    return int(bench["question"].isin(texts).sum())


def with_other_names(root: Path, bench: pd.DataFrame) -> dict[str, float]:
    """Shares of right letters, with the clips' own names and with names that the pre-training never saw."""
    model, processor = load_model(root / project.MODEL)
    share_cores(model, workers=1)
    inputs = ClipInputs(ClipStore.of_project(root), processor)
    collator = TrainingCollator(inputs, model.config, shared_prefix=True)
    examples = guide_examples(load_examples(bench, inputs)[0], read_guides(bench, load(root / project.PARAMS).qa))
    own = sorted({name for e in examples for name, box in zip(e.labels, e.boxes, strict=True) if box})
    other = np.random.default_rng(0).choice(sorted(names(held_out=True).nouns), len(own), replace=False).tolist()
    change = Change(dict(zip(own, other, strict=True)))
    return {
        "letters": right_letters(model, collator, examples),
        "letters with names never seen": right_letters(model, collator, [changed(e, change) for e in examples]),
    }


@torch.no_grad()
def right_letters(model: torch.nn.Module, collator: TrainingCollator, examples: Sequence[GuidedExample]) -> float:
    """Share of questions whose right letter the model finds most likely."""
    letters, right = list(model.config.letter_token_ids), 0
    for rows in clip_batches(examples, BATCH):
        asked = [examples[row] for row in rows]
        batch = collator.whole(asked)
        inputs = {name: part for name, part in batch.items() if name not in GUIDES}
        chosen = model(**inputs, use_cache=False).logits[:, -ANSWER_TOKENS - 1, letters].argmax(-1)
        right += sum(e.letters[k] == e.answer for e, k in zip(asked, chosen.tolist(), strict=True))
    return right / len(examples)


def later_clips(root: Path, folder: Path, seed: int) -> str:
    """The trained model's score on clips of another seed."""
    copy_project(root, folder, [project.MODEL])
    change_params(folder, "simulate", seed=seed, num_clips=LATER_CLIPS, rendered=0)
    change_params(folder, "split", bench_fraction=0.9)
    for stage in ("simulate", "catalog", "curate", "cues", "qa", "split", "evaluate"):
        run_stage(folder, stage)
    return score(folder)


def permuted(root: Path, folder: Path) -> str:
    """The score after a training in which the answers of each quartet are permuted."""
    copy_project(root, folder, [project.RAW.parent])
    table, rng = pd.read_parquet(folder / project.TRAIN), np.random.default_rng(0)
    table["answer"] = table.groupby("quartet_id")["answer"].transform(lambda own: rng.permutation(own.to_numpy()))
    table.to_parquet(folder / project.TRAIN)
    run_stage(folder, "train")
    run_stage(folder, "evaluate")
    return score(folder)


def copy_project(root: Path, folder: Path, parts: Sequence[Path]) -> None:
    """A copy of what stages need, with `parts` of the outputs; files that are links become files."""
    folder.mkdir(parents=True)
    shutil.copy(root / project.PARAMS, folder)
    for part in (project.DEEPSPEED, load(root / project.PARAMS).model.backbone, *parts):
        shutil.copytree(root / part, folder / part)


def change_params(folder: Path, section: str, **values: object) -> None:
    path = folder / project.PARAMS
    tree = yaml.safe_load(path.read_text("utf-8"))
    tree[section] |= values
    path.write_text(yaml.safe_dump(tree), "utf-8")


def run_stage(folder: Path, stage: str) -> None:
    subprocess.run([sys.executable, "-m", "dsr", stage, "--root", str(folder)], check=True)


def score(folder: Path) -> str:
    """Right letters, their interval, and the control with another clip's geometry."""
    found = json.loads((folder / project.EVAL_METRICS).read_text("utf-8"))
    interval = f"{found['accuracy_low']:.1%} to {found['accuracy_high']:.1%}"
    shuffled = f"another clip's geometry {found['control']['shuffled_geometry']:.1%}"
    return f"{found['accuracy']:.1%} ({interval}) of {found['questions']['scored']:,}; {shuffled}"


if __name__ == "__main__":
    main()
