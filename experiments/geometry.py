"""Train the GSM alone and show what its geometry tokens tell of clips that were held out.

    python experiments/geometry.py ROOT [key=value ...]

ROOT is a project folder with data/qa/train.parquet and bench.parquet; parameters are those of its params.yaml but for
the given ones (train.geometry_steps=400). An answer is read from geometry tokens without the language model: the option
that they are most likely to tell, over all ways to spread its states over the key moments. The same is read of another
clip's geometry, whose things bear this clip's names. Nothing is written to ROOT.
"""

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml

from dsr import project
from dsr.console import summary
from dsr.examples.clips import ClipStore
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import clip_batches, load_examples
from dsr.mcq import read_questions
from dsr.model.geometry_encoders import spelled
from dsr.model.presets import make_model, share_cores
from dsr.params import Params, read_tree, validate
from dsr.questions.language.families import FORM_INDEX, FORMS, Family
from dsr.training.batches import TrainingCollator
from dsr.training.guidance import Change, GuidedExample, guide_examples, read_guides, told_states
from dsr.training.losses import option_log_likelihood, state_log_probs
from dsr.training.train import make_curriculum
from dsr.training.trainer import GSMTrainer, make_trainer

BATCH = 128


def main(root: Path, changes: Sequence[str]) -> None:
    params = read_params(root / "params.yaml", changes)
    train_table, bench_table = (read_questions(root / name) for name in (project.TRAIN, project.BENCH))
    texts = [text for row in train_table.itertuples() for text in (row.question, *row.options)]
    model, processor = make_model(params.model, params.gsm, root, texts)
    share_cores(model, workers=1)
    inputs = ClipInputs(ClipStore.of_project(root), processor)
    train, bench = (
        guide_examples(load_examples(table, inputs)[0], read_guides(table, params.qa))
        for table in (train_table, bench_table)
    )
    curriculum = make_curriculum(train, replace(params, train=replace(params.train, steps=1)))
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(model, inputs, curriculum, params.train, Path(folder))
        trainer.args.max_steps, trainer.args.save_strategy = trainer.gsm_steps, "no"
        started = time.process_time()
        trainer.train()
    seconds = time.process_time() - started
    own = tell(trainer, bench)
    by_type = defaultdict(list)
    for example, right in zip(bench, own, strict=True):
        by_type[example.type].append(right)
    figures = {
        "questions": f"{len(train):,} of {len({e.clip_id for e in train}):,} clips; held out {len(bench):,}",
        "steps": f"{trainer.gsm_steps:,} in {seconds:.0f} s",
        "held out": f"{np.mean(own):.1%}",
        "another clip's geometry": f"{np.mean(tell(trainer, lent(bench, inputs))):.1%}",
        "training questions": f"{np.mean(tell(trainer, train[:: max(len(train) // 800, 1)])):.1%}",
    }
    summary("geometry tokens", figures | {name: f"{np.mean(right):.1%}" for name, right in sorted(by_type.items())})


def read_params(path: Path, changes: Sequence[str]) -> Params:
    """Parameters of a file with values in the place of some."""
    tree = read_tree(path)
    for change in changes:
        key, value = change.split("=", 1)
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = yaml.safe_load(value)
    return validate(tree, path)


def lent(examples: Sequence[GuidedExample], inputs: ClipInputs) -> list[GuidedExample]:
    """The same questions about other clips with as many frames, whose things bear the names of their own."""
    clips = sorted({example.clip_id for example in examples})
    lender = dict(zip(clips, [*clips[1:], clips[0]], strict=True))
    labels = {clip: list(dict.fromkeys(inputs.clips.cues(clip).labels.tolist())) for clip in clips}
    return [
        replace(e, clip_id=other, change=Change(dict(zip(labels[other], labels[e.clip_id], strict=False))))
        for e in examples
        for other in [lender[e.clip_id]]
    ]


@torch.no_grad()
def tell(trainer: GSMTrainer, examples: Sequence[GuidedExample]) -> list[bool]:
    """True if geometry tokens tell the right option, for each question."""
    model = trainer.model.eval()
    collator = TrainingCollator(trainer.collator.inputs, model.config)  # the trainer's has read its own questions alone
    sentences = spelled(collator.state_words(), model.get_input_embeddings())
    right = [False] * len(examples)
    for rows in clip_batches(examples, BATCH):
        batch = collator.for_gsm([examples[row] for row in rows])
        tokens = model(asked=batch["asked"]).geometry_tokens
        log_probs = state_log_probs(tokens, sentences, batch["possible_states"])
        for row, states in zip(rows, log_probs, strict=True):
            right[row] = best_option(examples[row], states) == examples[row].answer
    return right


def best_option(example: GuidedExample, log_probs: torch.Tensor) -> str:
    """The letter of the option that is most likely."""
    form = FORMS[FORM_INDEX[example.form]]
    answers = [told_states(form, option) for option in example.bare_options]
    if isinstance(form, Family):
        scores = [float(log_probs[range(len(answer)), answer].sum()) for answer in answers]
    else:
        moments = log_probs[: len(example.guide.states)] if example.guide else log_probs
        scores = [option_log_likelihood(moments, answer) for answer in answers]
    return example.letters[int(np.argmax(scores))]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
