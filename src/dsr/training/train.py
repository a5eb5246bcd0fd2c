"""The `train` stage: fine-tune the model on data/qa/train.parquet.

Reads the questions, the cues and the clips; writes models/gsm/ (model, tokenizer, processor, the parameters in
params.json, training_summary.json) and metrics/train/ (DVCLive). While it runs, checkpoints are in
models/checkpoints/<key>/, the key being the hash of all that the run depends on: a run that was killed goes on from
there with the same weights as one that was not.
"""

import dataclasses
import math
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel
from transformers.trainer_utils import get_last_checkpoint

from dsr import console, project
from dsr.console import StageError
from dsr.examples.clips import ClipStore
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import load_examples
from dsr.files import sha256_file, sha256_json, whole_folder, write_json
from dsr.mcq import read_questions
from dsr.model.geometry_encoders import ENCODERS
from dsr.model.presets import make_model, share_cores
from dsr.model.transformers_versions import tied_names
from dsr.params import Params
from dsr.source import code_hash
from dsr.training.curriculum import Curriculum
from dsr.training.guidance import GuidedExample, guide_examples, read_guides
from dsr.training.launch import (
    deepspeed_config,
    is_first,
    processes_to_start,
    start,
    wait_for_all,
    world_size,
)
from dsr.training.lora import merge_adapters
from dsr.training.progress import COMPLETE, LiveCallback, duration, memory_gib
from dsr.training.trainer import GSMTrainer, make_trainer, parameter_groups, parameter_size
from dsr.weights import HASHES, fingerprint


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Train, or go on with a run that was killed.

    Raises:
        StageError: no questions, none that can be used, no backbone, a loss that is not a number.
    """
    if processes := processes_to_start(params.train):
        start(processes, root, workers)
        return
    started = time.monotonic()
    console.console.quiet = not is_first()
    # Checkpoints are told apart by their step then, which is as good.
    warnings.filterwarnings("ignore", message="mtime may not be reliable")
    deepspeed = deepspeed_config(params.train, root)
    table = read_questions(root / project.TRAIN)
    if params.train.max_questions:
        table = sample_questions(table, params.train.max_questions, params.train.seed)
    texts = [text for row in table.itertuples() for text in (row.question, *row.options)]
    dtype = torch.bfloat16 if params.train.bf16 else torch.float32
    torch.set_num_threads(1)  # for the same weights on any number of cores: some are drawn by a decomposition
    model, processor = make_model(params.model, params.gsm, root, texts, dtype)
    share_cores(model, workers)
    inputs = ClipInputs(ClipStore.of_project(root, cache_bytes=int(params.train.cache_gib * 2**30)), processor)
    examples, missing = load_examples(table, inputs, workers)
    clips = {example.clip_id for example in examples}
    blank = inputs.clips.without_video(clips)
    _report_missing(missing, len(table), len(blank))
    curriculum = make_curriculum(guide_examples(examples, read_guides(table, params.qa)), params)
    folder = root / project.CHECKPOINTS / run_key(params, root)
    tensorboard = root / project.TENSORBOARD / folder.name if params.train.tensorboard else None
    trainer = make_trainer(model, inputs, curriculum, params.train, folder, workers, deepspeed, tensorboard)
    if is_first():
        trainer.add_callback(LiveCallback(root / project.TRAIN_METRICS))
    _show_groups(trainer)
    trainer.train(resume_from_checkpoint=last_complete(folder))
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if deepspeed else None
    summary = {
        "questions": len(table),
        "used": len(examples),
        "missing": dict(sorted(Counter(missing.values()).items())),
        "clips": len(clips),
        "blank_clips": len(blank),
        "parameters": sum(parameter_size(p) for p in model.parameters()),
        "trained_parameters": sum(parameter_size(p) for p in model.parameters() if p.requires_grad),
        "steps": trainer.state.global_step,
        **final_metrics(trainer.state.log_history),
    }
    if is_first():
        write_model(root / project.MODEL, model, processor, params, summary, state, dtype)
        shutil.rmtree(folder, ignore_errors=True)
    wait_for_all()
    questions, tokens = trainer.meter.rates()
    speed = {
        "questions a second": f"{questions:.1f}",
        "tokens a second": f"{tokens:,.0f}",
        "memory": f"{memory_gib():.1f} GiB",
        "time": duration(time.monotonic() - started),
    }
    console.summary("train", summary | {"missing": len(missing)} | speed)


def sample_questions(table: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Draw `count` rows of a question table, in its order; those of a smaller count are among those of a larger one."""
    chosen = np.random.default_rng([seed, 3]).permutation(len(table))[:count]
    return table.iloc[np.sort(chosen)].reset_index(drop=True)


def run_key(params: Params, root: Path) -> str:
    """Hash of what a run depends on: questions, cues, clips, weights, parameters, code, and how many share a step."""
    files = [project.TRAIN, project.CUES_MANIFEST, project.CATALOG]
    if params.train.deepspeed:
        files.append(project.DEEPSPEED / f"{params.train.deepspeed}.json")
    hashes = {str(file): sha256_file(root / file) for file in files if (root / file).is_file()}
    paths = [params.model.backbone, *([params.model.pi3] if "pi3" in params.gsm.encoders else [])]
    places = [project.locate(root, path) for path in paths if params.model.backbone]
    known = project.locate(root, project.WEIGHTS) / HASHES
    weights = [fingerprint(place, known if known.parent.is_dir() else None) for place in places if place.exists()]
    code = [code_hash(__name__), torch.__version__, transformers.__version__]
    depends = {"params": made_from(params), "files": hashes, "weights": weights, "code": code}
    return sha256_json(depends | {"processes": world_size()})[:16]


def made_from(params: Params) -> dict[str, Any]:
    """Parameters that decide what a model becomes."""
    return {name: dataclasses.asdict(getattr(params, name)) for name in ("gsm", "model", "train")}


def make_curriculum(examples: Sequence[GuidedExample], params: Params) -> Curriculum:
    """The batches of a run; a step takes `accumulation` of them in every process."""
    train, gsm = params.train, params.gsm
    together = train.accumulation * world_size()
    steps = train.steps or math.ceil(len(examples) * train.epochs / (train.batch_size * together))
    # Where tokens do not tell the time in seconds, a question's clock and theirs cannot be changed alike.
    tells_time = gsm.fusion != "none" and all(ENCODERS[name].is_addressed for name in gsm.encoders)
    return Curriculum(
        examples,
        train.batch_size,
        geometry_batches=guided_steps(examples, params) * together,
        batches=steps * together,
        shuffle_options=train.shuffle_options,
        seed=train.seed,
        questions_per_clip=train.questions_per_clip if train.shared_prefix else 1,
        augment=train.augment,
        shifts_clocks=tells_time,
    )


def guided_steps(examples: Sequence[GuidedExample], params: Params) -> int:
    """Steps of the GSM alone: none without a GSM, or where no question has a guide."""
    guided = params.gsm.fusion == "gsm" and any(example.guide for example in examples)
    return params.train.geometry_steps if guided else 0


def last_complete(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; others are removed."""
    for checkpoint in folder.glob("checkpoint-*") if is_first() else ():
        if not (checkpoint / COMPLETE).is_file():
            shutil.rmtree(checkpoint)
    wait_for_all()
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if last:
        console.console.print(f"going on from {Path(last).name.replace('-', ' ')}")
    return last


def write_model(
    path: Path,
    model: PreTrainedModel,
    processor: Any,
    params: Params,
    summary: dict[str, Any],
    state: dict[str, Tensor] | None,
    dtype: torch.dtype,
) -> None:
    """Write the model's folder.

    Args:
        state: its parameters, where they are spread over processes.
        dtype: of the parameters in the files.
    """
    model.config.use_cache = True
    if state is None:
        merge_adapters(model)
        model.to(dtype)
    else:
        # Gathered from the processes, what is tied is there twice.
        tied = tied_names(model)
        state = {name: tensor.to(dtype) for name, tensor in state.items() if name not in tied}
    with whole_folder(path) as partial:
        model.save_pretrained(partial, state_dict=state)
        processor.save_pretrained(partial)
        write_json(partial / "params.json", made_from(params))
        write_json(partial / "training_summary.json", summary)


def final_metrics(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """First and last loss and the last accuracy, each a mean over up to ten logged values."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    right = [entry["accuracy"] for entry in history if "accuracy" in entry]
    found = {"first_loss": losses[:1], "last_loss": losses[-10:], "last_accuracy": right[-10:]}
    return {name: round(sum(values) / len(values), 4) for name, values in found.items() if values}


def _report_missing(missing: Mapping[str, str], total: int, blank: int) -> None:
    """List what cannot be used.

    Raises:
        StageError: that is all.
    """
    reasons = Counter(missing.values())
    if len(missing) == total:
        common = "; ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common(3))
        raise StageError(f"{project.TRAIN}: none of its {total:,} questions can be used: {common}")
    for reason, count in reasons.most_common():
        ids = [qa_id for qa_id, why in missing.items() if why == reason]
        console.warn(f"{count:,} questions left out: {reason} ({', '.join(ids[:3])}{', …' if count > 3 else ''})")
    if blank:
        console.warn(f"{blank:,} clips have no video (trajectories alone): their frames are black")


def _show_groups(trainer: GSMTrainer) -> None:
    train, rows = trainer.settings, {}
    for group in parameter_groups(trainer.model, train):
        size = sum(parameter_size(parameter) for _, parameter in group["params"])
        rows[group["name"]] = f"{size:,} parameters, lr {group['lr']:g}, weight decay {group['weight_decay']:g}"
    frozen = sum(parameter_size(p) for p in trainer.model.parameters() if not p.requires_grad)
    together = f"{train.batch_size * train.accumulation * world_size():,} questions"
    console.summary("parameter groups", rows | {"frozen": f"{frozen:,} parameters", "a step": together})
