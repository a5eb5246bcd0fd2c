"""The `train` stage: fine-tune the model on data/qa/train.parquet.

Reads the questions, the cues and the clips; writes models/gsm/ (model, tokenizer, processor, the parameters in
params.json, training_summary.json) and metrics/train/ (DVCLive). While it runs, checkpoints are in
models/checkpoints/<key>/, the key being the hash of all that the run depends on: a run that was killed goes on from
there with the same weights as one that was not.
"""

import dataclasses
import math
import re
import shutil
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import transformers
from dvclive import Live
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from dsr import console, project
from dsr.console import StageError
from dsr.examples.clips import ClipStore
from dsr.examples.collate import Collator
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import Example, load_examples
from dsr.files import sha256_file, sha256_json, whole_folder, write_json
from dsr.mcq import read_questions
from dsr.model.chat import ANSWER_TOKENS
from dsr.model.presets import make_model, share_cores
from dsr.model.qwen2_5_vl_gsm import IGNORED, Qwen2_5_VLGSMForConditionalGeneration
from dsr.params import Params, Train
from dsr.source import code_hash
from dsr.training.curriculum import PLAINNESS, SHARPNESS, Curriculum, option_scores, state_scores
from dsr.training.launch import (
    deepspeed_config,
    is_first,
    processes_to_start,
    start,
    wait_for_all,
    world_size,
)
from dsr.training.lora import MARK, add_adapters, merge_adapters
from dsr.training.progress import ACCURACIES, COMPLETE, Meter, ProgressCallback, duration, memory_gib
from dsr.weights import HASHES, fingerprint

GEOMETRY = "merger and geometry"
"""Name of their parameter groups."""
LOG_STEPS = 10
WRITING = 0.1
"""Weight of the loss on the answer's tokens among all others, beside the option loss."""
LATER = 0.1
"""Share of its learning rate that the GSM keeps after a geometry lesson."""


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Train, or go on with a run that was killed.

    Raises:
        StageError: no questions, none that can be used, no backbone, a loss that is not a number.
    """
    if params.gsm.fusion != "gsm":
        params = dataclasses.replace(params, train=dataclasses.replace(params.train, geometry_steps=0))
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
    model, processor = make_model(params.model, params.gsm, root, texts, dtype)
    share_cores(model, workers)
    inputs = ClipInputs(ClipStore.of_project(root, cache_bytes=int(params.train.cache_gib * 2**30)), processor)
    examples, missing = load_examples(table, inputs, workers)
    clips = {example.clip_id for example in examples}
    blank = inputs.clips.without_video(clips)
    _report_missing(missing, len(table), len(blank))
    curriculum = make_curriculum(examples, params.train)
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
        "parameters": sum(_size(p) for p in model.parameters()),
        "trained_parameters": sum(_size(p) for p in model.parameters() if p.requires_grad),
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


def make_curriculum(examples: Sequence[Example], train: Train) -> Curriculum:
    """The order of a run's questions; a step takes `accumulation` batches of every process."""
    together = train.accumulation * world_size()
    steps = train.steps or math.ceil(len(examples) * train.epochs / (train.batch_size * together))
    return Curriculum(
        examples,
        train.batch_size,
        text_batches=train.text_steps * together,
        geometry_batches=train.geometry_steps * together,
        batches=steps * together,
        shuffle_options=train.shuffle_options,
        seed=train.seed,
        questions_per_clip=train.questions_per_clip if train.shared_prefix else 1,
    )


def make_trainer(
    model: Qwen2_5_VLGSMForConditionalGeneration,
    inputs: ClipInputs,
    curriculum: Curriculum,
    train: Train,
    folder: Path,
    workers: int = 0,
    deepspeed: str | None = None,
    tensorboard: Path | None = None,
) -> "GSMTrainer":
    """A Trainer that goes through the curriculum once, with checkpoints in `folder`.

    Args:
        deepspeed: a DeepSpeed configuration's file.
        tensorboard: folder for TensorBoard's files; None for none.

    Raises:
        StageError: tensorboard or peft is asked for and not installed.
    """
    if tensorboard and find_spec("tensorboard") is None:
        raise StageError("train.tensorboard is true, but tensorboard is not installed: pip install 'dsr[tensorboard]'")
    steps = len(curriculum) // (train.batch_size * train.accumulation * world_size())
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.accumulation,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        bf16=train.bf16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=train.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        save_strategy="steps",
        save_steps=train.save_steps,
        save_total_limit=2,
        # A run that goes on logs the same steps as one that was never stopped.
        logging_steps=math.gcd(LOG_STEPS, train.save_steps),
        logging_nan_inf_filter=False,
        seed=train.seed,
        data_seed=train.seed,
        # With every clip in memory other processes would only copy it.
        dataloader_num_workers=console.num_workers(workers) if inputs.clips.is_full else 0,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        ddp_find_unused_parameters=True,
        disable_tqdm=True,
        deepspeed=deepspeed,
        report_to=["tensorboard"] if tensorboard else [],
        logging_dir=str(tensorboard) if tensorboard else None,
    )
    model.config.use_cache = False
    if train.lora_rank:
        add_adapters(model, train.lora_rank)
    mark_trained(model, train)
    if train.bf16 and not deepspeed:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    trainer = GSMTrainer(
        train,
        model=model,
        args=arguments,
        train_dataset=curriculum,
        data_collator=Collator(inputs, model.config, training=True, shared_prefix=train.shared_prefix),
    )
    trainer.add_callback(ProgressCallback(trainer.meter))
    trainer.remove_callback(PrinterCallback)
    return trainer


class GSMTrainer(Trainer):
    """Explicit parameter groups, the curriculum's order, the state loss, and errors instead of bad steps."""

    model: Qwen2_5_VLGSMForConditionalGeneration
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None

    def __init__(self, train: Train, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = train
        self.meter = Meter()
        self._selected: Tensor | None = None
        self._counts: dict[str, list[bool]] = defaultdict(list)
        self._letters = torch.tensor(self.model.config.letter_token_ids)
        gsm = getattr(self.model.model, "gsm", None)
        if gsm is not None and train.state_loss:
            gsm.register_forward_hook(self._keep_selected)

    def create_optimizer(self) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups = [{**g, "params": [p for _, p in g["params"]]} for g in parameter_groups(self.model, self.settings)]
            # Fused, it is as fast in the host's memory as DeepSpeed's own, which has to be compiled and goes on from a
            # checkpoint with other rounding. The configuration keeps accelerate from putting that in its place.
            fused = True if self.settings.deepspeed.endswith("offload") else None
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=fused)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Rates that go up, and down as a cosine, in each lesson; what had a geometry lesson learns little after it."""
        if self.lr_scheduler is None:
            optimizer = optimizer or self.create_optimizer()
            first, second = self.settings.geometry_steps, self.settings.geometry_steps + self.settings.text_steps
            lessons = (first, 0, 1.0), (second, first, 0.0), (num_training_steps, second, LATER)

            def share(step: int, taught: bool) -> float:
                end, start, most = next((lesson for lesson in lessons if step < lesson[0]), lessons[-1])
                up = math.ceil(self.settings.lr_warmup * (end - start))
                if step - start < up:
                    part = (step - start) / up
                else:
                    part = 0.5 * (1 + math.cos(math.pi * (step - start - up) / max(end - start - up, 1)))
                return part * (most if taught else 1.0)

            taught = [first > 0 and group["name"].startswith(GEOMETRY) for group in optimizer.param_groups]
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [partial(share, taught=t) for t in taught])
        return self.lr_scheduler

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """Loss on the answer, and the weighted losses of the curriculum.

        Raises:
            StageError: no answer token in the batch, or a loss that is not finite.
        """
        lesson = self._geometry_loss if "asked" in inputs else self._question_loss
        loss, outputs = lesson(model, **inputs)
        if not torch.isfinite(loss):
            raise StageError(
                f"train: the loss of step {self.state.global_step + 1} is {loss.item()}; "
                "lower train.learning_rate or train.gsm_learning_rate"
            )
        return (loss, outputs) if return_outputs else loss

    def _question_loss(
        self,
        model: nn.Module,
        option_ends: Tensor,
        state_labels: Tensor | None = None,
        **inputs: Any,
    ) -> tuple[Tensor, Any]:
        labels = inputs["labels"][:, -ANSWER_TOKENS:]
        if (labels == IGNORED).any() or (inputs["labels"] != IGNORED).sum() != labels.numel():
            step = self.state.global_step + 1
            raise StageError(f"train: step {step} has a sample without an answer; check the answers of {project.TRAIN}")
        # From the first place on that a loss reads: the end of the first option, or the answer.
        keep = ANSWER_TOKENS + 1
        if self.settings.option_loss and "packing" not in inputs:
            first = int(option_ends.min())
            keep, option_ends = inputs["input_ids"].shape[1] - first, option_ends - first
        outputs = model(**inputs, logits_to_keep=keep, use_cache=False)
        loss, letters = outputs.loss, self._letters.to(labels.device)
        is_bare = "pixel_values_videos" not in inputs
        right = (labels[:, :1] == letters).long().argmax(-1)
        chosen = outputs.logits[:, -ANSWER_TOKENS - 1, letters].float()
        told = inputs["hints"][:, 0] != IGNORED if "hints" in inputs else torch.full_like(right, is_bare).bool()
        self._count("accuracy", chosen[~told], right[~told])
        self._count("hinted_accuracy", chosen[told], right[told])
        if self.settings.option_loss:
            scores = option_scores(outputs.logits, option_ends, letters)
            self._count("option_accuracy", scores, right)
            # A model that must also learn to write learns to tell options apart much later.
            loss = loss * (0 if is_bare else WRITING)
            both = F.cross_entropy(chosen, right) + F.cross_entropy(scores, right)
            loss = loss + self.settings.option_loss * both
        if self._selected is not None and state_labels is not None:
            spelled = self.accelerator.unwrap_model(model).lm_head(self._selected)
            loss = loss + self.settings.state_loss * self._state_loss(spelled, state_labels, PLAINNESS)
        self.meter.questions += len(labels)
        self.meter.tokens += (
            int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["input_ids"].numel()
        )
        return loss, outputs

    def _geometry_loss(self, model: nn.Module, asked: dict[str, Any], state_labels: Tensor) -> tuple[Tensor, Any]:
        """The state loss alone."""
        self.meter.questions += len(state_labels)
        self.meter.tokens += int(asked["question_mask"].sum())
        outputs = model(asked=asked)
        spelled = self.accelerator.unwrap_model(model).lm_head(outputs.geometry_tokens)
        return self._state_loss(spelled, state_labels, SHARPNESS), outputs

    def _state_loss(self, spelled: Tensor, state_labels: Tensor, sharpness: float) -> Tensor:
        scores = state_scores(spelled, state_labels, sharpness)
        first = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
        self._count("state_accuracy", scores, first)
        return F.cross_entropy(scores, first)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs |= {name: sum(right) / len(right) for name, right in self._counts.items() if right}
            self._counts.clear()
        super().log(logs, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        # The parent's takes the weights by the names in the file, which are the published ones and not the module's
        # (transformers 4.57): it warns, and goes on with random weights.
        renaming = self.model._checkpoint_conversion_mapping
        state = {}
        for path in Path(resume_from_checkpoint).glob("*.safetensors"):
            for name, tensor in load_file(path).items():
                for pattern, replacement in renaming.items():
                    name, found = re.subn(pattern, replacement, name)
                    if found:
                        break
                state[name] = tensor
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        # What is tied is in the file once.
        if unexpected or set(missing) - set(self.model._tied_weights_keys or ()):
            raise StageError(f"{resume_from_checkpoint} does not fit the model: remove it, and training begins anew")

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Zero, not an estimate: the parent's warns of a batch without a prompt."""
        return 0

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def _count(self, name: str, scores: Tensor, right: Tensor) -> None:
        self._counts[name] += (scores.detach().argmax(-1) == right).tolist()

    def _keep_selected(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._selected = output


def mark_trained(model: Qwen2_5_VLGSMForConditionalGeneration, train: Train) -> None:
    """Decide what learns: the merger, geometry (but for frozen encoders), the GSM, and the language model (in lessons
    without its word embeddings) or, with LoRA, its adapters."""
    encoders = getattr(model.model, "geometry", {})
    frozen = {f"model.geometry.{name}.encoder." for name in encoders if encoders[name].reads_video}
    for name, parameter in model.named_parameters():
        if name.startswith("model.visual."):
            learns = train.train_vision_tower or name.startswith("model.visual.merger.")
        elif name.startswith(("model.geometry.", "model.gsm.")):
            learns = not name.startswith(tuple(frozen))
        elif name.endswith(".embed_tokens.weight") and (train.text_steps or train.geometry_steps):
            learns = False
        else:
            learns = not train.lora_rank or MARK in name
        parameter.requires_grad_(learns)


def parameter_groups(model: Qwen2_5_VLGSMForConditionalGeneration, train: Train) -> list[dict[str, Any]]:
    """AdamW groups of the trained parameters, each with `name`, `params` as (name, parameter), `lr`, `weight_decay`.

    The merger, the geometry encoders and the GSM learn at their own rate; biases, norms and queries do not decay.
    """
    groups: dict[tuple[str, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        new = name.startswith(("model.visual.merger.", "model.geometry.", "model.gsm."))
        part = GEOMETRY if new else "vision tower" if ".visual." in name else "language model"
        part = "adapters" if MARK in name else part
        decays = _ndim(parameter) >= 2 and not name.endswith(".queries")
        groups.setdefault((part, decays), []).append((name, parameter))
    return [
        {
            "name": f"{part}, {'decayed' if decays else 'not decayed'}",
            "params": parameters,
            "lr": train.gsm_learning_rate if part == GEOMETRY else train.learning_rate,
            "weight_decay": train.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


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
        tied = model._tied_weights_keys if model.config.get_text_config().tie_word_embeddings else ()
        state = {name: tensor.to(dtype) for name, tensor in state.items() if name not in (tied or ())}
    with whole_folder(path) as partial:
        model.save_pretrained(partial, safe_serialization=True, state_dict=state)
        processor.save_pretrained(partial)
        write_json(partial / "params.json", made_from(params))
        write_json(partial / "training_summary.json", summary)


def final_metrics(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """First and last loss and the last accuracy, each a mean over up to ten logged values."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    right = [entry["accuracy"] for entry in history if "accuracy" in entry]
    if not losses:
        return {}
    return {
        "first_loss": round(losses[0], 4),
        "last_loss": round(sum(losses[-10:]) / len(losses[-10:]), 4),
        "last_accuracy": round(sum(right[-10:]) / len(right[-10:]), 4),
    }


class LiveCallback(TrainerCallback):
    """Loss, accuracy and learning rate of each logged step, by DVCLive; no timestamps, nothing done to git."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live: Live | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.live = Live(str(self.folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False)
        # What a resumed run logged before its checkpoint; what came after it is logged again.
        for entry in state.log_history:
            self._write(entry)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        self._write({**(logs or {}), "step": state.global_step})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.live:
            self.live.end()

    def _write(self, entry: dict[str, float]) -> None:
        if self.live and "loss" in entry:
            self.live.step = int(entry["step"])
            for name in ("loss", *ACCURACIES, "learning_rate"):
                if name in entry:
                    self.live.log_metric(name, entry[name])
            self.live.make_summary()


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
        size = sum(_size(parameter) for _, parameter in group["params"])
        rows[group["name"]] = f"{size:,} parameters, lr {group['lr']:g}, weight decay {group['weight_decay']:g}"
    frozen = sum(_size(p) for p in trainer.model.parameters() if not p.requires_grad)
    together = f"{train.batch_size * train.accumulation * world_size():,} questions"
    console.summary("parameter groups", rows | {"frozen": f"{frozen:,} parameters", "a step": together})


def _size(parameter: nn.Parameter) -> int:
    """Number of a parameter's values; ZeRO-3 keeps a part of it in each process, and its size aside."""
    return getattr(parameter, "ds_numel", parameter.numel())


def _ndim(parameter: nn.Parameter) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))
