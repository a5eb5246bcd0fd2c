"""Progress of a training run: a bar, and a line each tenth with loss, speed, memory and time left."""

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from dsr import console
from dsr.files import write_bytes
from dsr.training.launch import is_first, wait_for_all, world_size

ACCURACIES = {
    "accuracy": "accuracy",
    "option_accuracy": "at options",
    "state_accuracy": "of geometry tokens",
    "attention_accuracy": "of attention",
}
"""Accuracies that a step may log, with their titles: right letters, right where the option loss reads, right states,
and heads that look most where they should."""
COMPLETE = "complete"
"""File in a checkpoint that was written to its end."""


@dataclass
class Meter:
    """Questions and tokens that this process has trained on since the run began or went on."""

    questions: int = 0
    tokens: int = 0
    started: float = 0.0

    def rates(self) -> tuple[float, float]:
        """Questions and tokens a second, of all processes."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        return self.questions * world_size() / seconds, self.tokens * world_size() / seconds


class ProgressCallback(TrainerCallback):
    """The bar, the lines, and the mark of complete checkpoints."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.bar: Iterator[int] = iter(())
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.first_step, self.meter.started = state.global_step, time.monotonic()
        self.bar = console.track(range(state.max_steps - state.global_step), "train")
        next(self.bar, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        next(self.bar, None)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        every = max(args.logging_steps, state.max_steps // 10 // args.logging_steps * args.logging_steps)
        if logs and "loss" in logs and state.global_step % every == 0:
            questions, tokens = self.meter.rates()
            done = max(state.global_step - self.first_step, 1)
            left = (time.monotonic() - self.meter.started) / done * (state.max_steps - state.global_step)
            told = "".join(f"{name} {logs[key]:.1%}  " for key, name in ACCURACIES.items() if key in logs)
            console.console.print(
                f"step {state.global_step:,}/{state.max_steps:,}  loss {logs['loss']:.3f}  "
                f"{told}{questions:.1f} questions/s  {tokens:,.0f} tokens/s  "
                f"{memory_gib():.1f} GiB  {duration(left)} left"
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wait_for_all()
        if is_first():
            write_bytes(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, b"")


class LiveCallback(TrainerCallback):
    """Loss, accuracy and learning rate of each logged step, by DVCLive; no timestamps, nothing done to git."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from dvclive import Live

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


def memory_gib() -> float:
    """The most memory that this process has held, of its GPU or, without one, of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
