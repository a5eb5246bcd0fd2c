"""The trainer: what learns at which rate, in which order, by which losses.

transformers' Trainer with explicit parameter groups, the curriculum's batches, losses on options, states and attention
beside the answer's (dsr.training.losses), and errors instead of bad steps.

While the GSM is trained alone, its selector is first shown where to look: a share of its attention is put there, less
and less of it, and the attention loss fades. Afterwards it learns at a small part of its rate, and word embeddings stay
as they are: what one has learned to say, the other has learned to read.
"""

import math
import re
from collections import defaultdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from dsr import console, project
from dsr.console import StageError
from dsr.examples.inputs import ClipInputs
from dsr.model.chat import ANSWER_TOKENS
from dsr.model.geometry_encoders import spelled
from dsr.model.gsm import Look
from dsr.model.qwen2_5_vl_gsm import IGNORED, OWN_PARTS, READER, Qwen2_5_VLGSMForConditionalGeneration
from dsr.model.transformers_versions import tensorboard_arguments
from dsr.training.batches import TrainingCollator
from dsr.training.curriculum import Curriculum
from dsr.training.launch import world_size
from dsr.training.lora import MARK, add_adapters
from dsr.training.losses import attention_loss, option_scores, state_loss
from dsr.training.progress import Meter, ProgressCallback
from dsr.training.readings import Readings

if TYPE_CHECKING:
    from dsr.params import Train

MARKS = (".queries", ".slots", ".roles", ".kind")
"""Ends of the names of vectors that are added to states or ask for them."""
GEOMETRY = "merger and geometry"
"""Name of the parameter groups of the merger, the geometry encoders and the GSM."""
LOG_STEPS = 10
WRITING = 0.1
"""Weight of the loss on the answer's tokens among all others, beside the option loss."""
LATER = 0.1
"""Share of its learning rate that the GSM keeps where it was trained alone before."""
SHOWN = 0.6
"""Share of the steps of the GSM alone in which attention is put where it should be, from all of it to none."""
GUIDED, UNGUIDED = 0.7, 0.1
"""Share of these steps in which the weight of the attention loss falls, from all of it to the second."""


def make_trainer(
    model: Qwen2_5_VLGSMForConditionalGeneration,
    inputs: ClipInputs,
    curriculum: Curriculum,
    train: "Train",
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
    # With every clip in memory one process makes batches ahead; more would only copy it.
    cores = console.num_workers(workers)
    loaders = cores if inputs.clips.is_full else min(cores - 1, 1)
    arguments = _arguments(curriculum, train, folder, loaders, deepspeed, tensorboard)
    model.config.use_cache = False
    if train.lora_rank:
        add_adapters(model, train.lora_rank)
    mark_trained(model, train)
    if train.bf16 and not deepspeed:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    readings = None
    if not deepspeed and _reads_alike(model):  # DeepSpeed may spread the reader over processes
        readings = Readings(model, inputs.processor.tokenizer, curriculum.for_gsm)
    collator = TrainingCollator(inputs, model.config, train.shared_prefix, readings)
    trainer = GSMTrainer(
        train,
        collator,
        model=model,
        args=arguments,
        train_dataset=curriculum,
        data_collator=collator.collate,
    )
    trainer.add_callback(ProgressCallback(trainer.meter))
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(
    curriculum: Curriculum, train: "Train", folder: Path, loaders: int, deepspeed: str | None, tensorboard: Path | None
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=len(curriculum) // (train.accumulation * world_size()),
        # The curriculum's items are batches.
        per_device_train_batch_size=1,
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
        dataloader_num_workers=loaders,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        ddp_find_unused_parameters=True,
        disable_tqdm=True,
        deepspeed=deepspeed,
        report_to=["tensorboard"] if tensorboard else [],
        **tensorboard_arguments(tensorboard),
    )


class GSMTrainer(Trainer):
    """Explicit parameter groups, the curriculum's batches, its losses, and errors instead of bad steps."""

    model: Qwen2_5_VLGSMForConditionalGeneration
    train_dataset: Curriculum
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None

    def __init__(self, train: "Train", collator: TrainingCollator, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.collator, self._state_words = collator, collator.state_words()
        self.gsm_steps = self.train_dataset.geometry_batches // (train.accumulation * world_size())
        self.settings = train
        self.meter = Meter()
        self._selected: Tensor | None = None
        self._counts: dict[str, list[bool]] = defaultdict(list)
        self._letters = torch.tensor(self.model.config.letter_token_ids)
        gsm = getattr(self.model.model, "gsm", None)
        if gsm is not None and train.state_loss:
            gsm.register_forward_hook(self._keep_selected)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups = [{**g, "params": [p for _, p in g["params"]]} for g in parameter_groups(self.model, self.settings)]
            # Fused, it is as fast in the host's memory as DeepSpeed's own, which has to be compiled and goes on from a
            # checkpoint with other rounding. The configuration keeps accelerate from putting that in its place.
            fused = True if self.settings.deepspeed.endswith("offload") else None
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=fused)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Rates that go up, and down as a cosine, in the steps of the GSM alone and in those of whole questions; in the
        second, what was trained in the first learns little."""
        if self.lr_scheduler is None:
            optimizer = optimizer or self.create_optimizer()
            first = self.gsm_steps
            parts = (first, 0, 1.0), (num_training_steps, first, LATER)

            def share(step: int, taught: bool) -> float:
                end, start, most = next((part for part in parts if step < part[0]), parts[-1])
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
        """Loss on the answer, and the other losses by their weights.

        Raises:
            StageError: no answer token in the batch, or a loss that is not finite.
        """
        loss, outputs = (self._gsm_loss if "asked" in inputs else self._question_loss)(model, **inputs)
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
        states: Tensor | None = None,
        possible_states: Tensor | None = None,
        **inputs: Any,
    ) -> tuple[Tensor, Any]:
        labels = inputs["labels"][:, -ANSWER_TOKENS:]
        if (labels == IGNORED).any() or (inputs["labels"] != IGNORED).sum() != labels.numel():
            step = self.state.global_step + 1
            raise StageError(f"train: step {step} has a sample without an answer; check the answers of {project.TRAIN}")
        outputs = model(**inputs, use_cache=False)
        loss, letters = outputs.loss, self._letters.to(labels.device)
        right = (labels[:, :1] == letters).long().argmax(-1)
        chosen = outputs.logits[:, -ANSWER_TOKENS - 1, letters].float()
        self._count("accuracy", chosen.argmax(-1) == right)
        if self.settings.option_loss:
            scores = option_scores(outputs.logits, option_ends, letters)
            self._count("option_accuracy", scores.argmax(-1) == right)
            # A model that must also learn to write learns to tell options apart much later.
            both = F.cross_entropy(chosen, right) + F.cross_entropy(scores, right)
            loss = loss * WRITING + self.settings.option_loss * both
        if self._selected is not None and states is not None and possible_states is not None:
            loss = loss + self.settings.state_loss * self._state_loss(model, self._selected, states, possible_states)
        self.meter.questions += len(labels)
        self.meter.tokens += (
            int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["input_ids"].numel()
        )
        return loss, outputs

    def _gsm_loss(
        self, model: nn.Module, asked: dict[str, Any], keys: Tensor, states: Tensor, possible_states: Tensor
    ) -> tuple[Tensor, Any]:
        """The losses on states and attention alone."""
        self.meter.questions += len(states)
        self.meter.tokens += int(asked["question_mask"].sum())
        done = self.state.global_step / self.gsm_steps
        outputs = model(asked=asked | {"look": Look(keys, max(0.0, 1 - done / SHOWN))})
        loss = self.settings.state_loss * self._state_loss(model, outputs.geometry_tokens, states, possible_states)
        weight = self.settings.attention_loss * max(UNGUIDED, 1 - done / GUIDED)
        self._count("attention_accuracy", (outputs.attention.argmax(-1) == keys)[keys >= 0])
        return loss + weight * attention_loss(outputs.attention, keys), outputs

    def _state_loss(self, model: nn.Module, tokens: Tensor, states: Tensor, possible_states: Tensor) -> Tensor:
        words = self.accelerator.unwrap_model(model).get_input_embeddings()
        sentences = spelled(self._state_words.to(tokens.device), words)
        loss, right = state_loss(tokens, sentences, possible_states, states)
        self._count("state_accuracy", right)
        return loss

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

    def _count(self, name: str, right: Tensor) -> None:
        self._counts[name] += right.tolist()

    def _keep_selected(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._selected = output


def mark_trained(model: Qwen2_5_VLGSMForConditionalGeneration, train: "Train") -> None:
    """Decide what learns: the merger, geometry (but for frozen encoders), the GSM, the question reader unless it was
    pre-trained, and the language model (with a state loss without its word embeddings) or, with LoRA, its adapters."""
    encoders = getattr(model.model, "geometry", {})
    frozen = {f"model.geometry.{name}.encoder." for name in encoders if encoders[name].reads_video}
    for name, parameter in model.named_parameters():
        if name.startswith("model.visual."):
            learns = train.train_vision_tower or name.startswith("model.visual.merger.")
        elif name.startswith(OWN_PARTS):
            learns = not name.startswith(tuple(frozen))
        elif name.startswith(READER):
            learns = not model.config.gsm.get("pretrained_reader")
        elif name.endswith(".embed_tokens.weight") and train.state_loss:
            learns = False
        else:
            learns = not train.lora_rank or MARK in name
        parameter.requires_grad_(learns)


def _reads_alike(model: Qwen2_5_VLGSMForConditionalGeneration) -> bool:
    """True if a question reader will read the same in each step: neither it nor word embeddings learn."""
    reader = getattr(model.model, "reader", None)
    if reader is None:
        return False
    return not any(p.requires_grad for p in (*reader.parameters(), model.get_input_embeddings().weight))


def parameter_groups(model: Qwen2_5_VLGSMForConditionalGeneration, train: "Train") -> list[dict[str, Any]]:
    """AdamW groups of the trained parameters, each with `name`, `params` as (name, parameter), `lr`, `weight_decay`.

    The merger, the geometry encoders and the GSM learn at their own rate; biases, norms and marks do not decay.
    """
    groups: dict[tuple[str, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        new = name.startswith(("model.visual.merger.", READER, *OWN_PARTS))
        part = GEOMETRY if new else "vision tower" if ".visual." in name else "language model"
        part = "adapters" if MARK in name else part
        decays = _ndim(parameter) >= 2 and not name.endswith(MARKS)
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


def parameter_size(parameter: nn.Parameter) -> int:
    """Number of a parameter's values; ZeRO-3 keeps a part of it in each process, and its size aside."""
    return getattr(parameter, "ds_numel", parameter.numel())


def _ndim(parameter: nn.Parameter) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))
