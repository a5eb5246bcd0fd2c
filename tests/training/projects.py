"""Small project folders that the train stage can run in: clips, cues, and questions that the geometry answers."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import TrainerCallback

from dsr.cues.schema import ClipCues, write_cues
from dsr.examples.clips import ClipStore
from dsr.examples.inputs import ClipInputs
from dsr.files import write_json, write_parquet
from dsr.model import presets
from dsr.params import GSM, Model, Params, Train
from dsr.training import train
from tests.scenes import HEIGHT, WIDTH, heading, looking, make_cues
from tests.videos import make_video

FRAMES = 8
SMALL = Params(
    gsm=GSM(num_tokens=4),
    model=Model(backbone="", max_pixels=28 * 28),
    train=Train(steps=4, geometry_steps=4, batch_size=4, save_steps=2),
)


def make_clip(number: int) -> ClipCues:
    """A robot and a ball before a camera that moves forward in even clips and backward in odd ones."""
    rng = np.random.default_rng(number)
    way = 1.0 if number % 2 == 0 else -1.0
    position = np.array([0, -10, 1.5]) + np.linspace(0, way * 3, FRAMES)[:, None] * [0, 1, 0]
    tracks = {
        "robot": (rng.normal(size=3) + np.linspace(0, 1, FRAMES)[:, None] * rng.normal(size=3), heading(1.0, FRAMES)),
        "ball": (np.tile(rng.normal(size=3), (FRAMES, 1)), None),
    }
    return replace(
        make_cues(looking(position, np.array([0.0, 20, 1.5])), tracks, clip_id=f"clip_{number}"),
        frame_index=np.arange(FRAMES) * 5,
    )


def question(number: int, row: int) -> dict[str, object]:
    """Which way the camera goes, the right letter depending on the row; the columns of a pool are filled in."""
    right = "forward" if number % 2 == 0 else "backward"
    texts = [right, *(text for text in ("forward", "backward", "left", "right") if text != right)]
    order = np.roll(np.arange(4), row)
    return {
        "videoID": f"clip_{number}",
        "question": "Which way does the camera move between 0.0 s and 6.0 s?",
        "options": [f"{letter}. It moves {texts[k]}." for letter, k in zip("ABCD", order, strict=True)],
        "answer": "ABCD"[int(np.argmax(order == 0))],
        "type": "abs_dir",
        "qa_id": f"q{number}_{row}",
        "quartet_id": "",
        "source_video": f"clip_{number}",
        "shown_frames": FRAMES - row,
        "form": "abs_dir_pred",
        "wording": row,
        "labels": ["robot", "camera"],
        "boxes": [[10, 20, 30, 40], []],
        "start_time": 0.0,
        "end_time": 1.0,
        "viewpoint": 0,
        "targets": [-1],
        "frames": [1, 3, 5],
        "states": "+00" if right == "forward" else "-00",
        "signal": [1.0, 0.0, 0.0] * 2 if right == "forward" else [-1.0, 0.0, 0.0] * 2,
    }


def make_project(root: Path, clips: int = 4, rows: int = 3, videos: int = 2) -> Path:
    """A project folder with a catalogue, cues and questions; the first `videos` clips have a video."""
    catalog = []
    for number in range(clips):
        clip_id, file = f"clip_{number}", ""
        write_cues(root / f"data/cues/{clip_id}.npz", make_clip(number))
        if number < videos:
            file = f"data/raw/toy/{clip_id}.mp4"
            make_video(root / file, num_frames=40, size=(WIDTH, HEIGHT), seed=number)
        catalog.append({"clip_id": clip_id, "status": "ok", "file": file})
    write_parquet(root / "data/clips/catalog.parquet", pd.DataFrame(catalog))
    write_json(root / "data/cues/manifest.json", {"clips": [row["clip_id"] for row in catalog]})
    table = pd.DataFrame([question(number, row) for number in range(clips) for row in range(rows)])
    write_parquet(root / "data/qa/train.parquet", table)
    return root


class SmallWorld:
    """A project with a small model that was drawn, not trained, and what the model is shown of the project's clips."""

    def __init__(self, root: Path, gsm: GSM) -> None:
        self.project = make_project(root)
        self.table = pd.read_parquet(self.project / "data/qa/train.parquet")
        texts = [text for row in self.table.itertuples() for text in (row.question, *row.options)]
        torch.manual_seed(0)
        self.model, self.processor = presets.tiny(gsm, texts, max_pixels=28 * 56)
        self.model.eval()
        self.inputs = ClipInputs(ClipStore.of_project(self.project), self.processor)


class _Kill(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_after(step: int) -> None:
    """Have the training run of this process killed once it has taken so many steps."""
    make = train.make_trainer

    def make_mortal(*args, **kwargs):
        trainer = make(*args, **kwargs)
        trainer.add_callback(_Kill(step))
        return trainer

    train.make_trainer = make_mortal
