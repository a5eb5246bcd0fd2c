"""The `simulate` stage: data/raw/simulated/ with a video, a truth file and a row in clips.csv for every clip."""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dsr import project
from dsr.console import StageError, num_workers, summary, track
from dsr.files import write_bytes
from dsr.params import Params, Simulate
from dsr.simulator.captions import caption
from dsr.simulator.truth import write_truth
from dsr.simulator.world import World, make_world
from dsr.workers import Failure, map_isolated, reason

_CLIPS_A_TASK = 50
"""Worlds without pixels, which take milliseconds; rendering takes seconds a clip."""


@dataclass(frozen=True)
class SimulatedClip:
    """A row of clips.csv (the first five fields), and what the closing table counts."""

    clip_id: str
    caption: str
    file: str
    truth: str
    source_video: str
    frames: int
    bodies: int
    camera: str


@dataclass(frozen=True)
class _Simulation:
    params: Simulate
    folder: Path

    def __call__(self, indices: range) -> list[SimulatedClip]:
        clips = []
        for index in indices:
            try:
                clips.append(simulate_clip(self.params, index, self.folder))
            except Exception as error:
                raise ValueError(f"{clip_id_of(index)}: {reason(error)}") from error
        return clips


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Write the simulated source; files of clips beyond `simulate.num_clips` are removed.

    Raises:
        StageError: a clip could not be made; what was made stays.
    """
    options = params.simulate
    folder = root / project.SIMULATED
    folder.mkdir(parents=True, exist_ok=True)
    tasks = _tasks(options)
    rows: list[SimulatedClip] = []
    with closing(map_isolated(_Simulation(options, folder), tasks, num_workers(workers))) as results:
        for number, result in track(results, "simulate", len(tasks)):
            if isinstance(result, Failure):
                # A process that died cannot say which clip of its task was at fault.
                first, last = clip_id_of(tasks[number][0]), clip_id_of(tasks[number][-1])
                raise StageError(f"simulating {first} to {last} failed: {result.reason}")
            rows += result
    rows.sort(key=lambda row: row.clip_id)
    table = pd.DataFrame(rows)[["clip_id", "caption", "file", "truth", "source_video"]]
    write_bytes(folder / "clips.csv", table.to_csv(index=False, lineterminator="\n").encode())
    wanted = {"clips.csv", *table.file, *table.truth}
    for path in folder.iterdir():
        if path.name not in wanted and path.name.startswith("sim_"):
            path.unlink()
    cameras = Counter(row.camera for row in rows)
    summary(
        "simulate",
        {
            "clips": len(rows),
            "rendered": sum(bool(row.file) for row in rows),
            "frames": sum(row.frames for row in rows),
            "bodies": sum(row.bodies for row in rows),
            **{f"camera: {name}": count for name, count in sorted(cameras.items())},
            "MiB": round(sum(path.stat().st_size for path in folder.iterdir()) / 2**20, 1),
        },
    )


def _tasks(params: Simulate) -> list[range]:
    rendered = min(params.rendered, params.num_clips)
    whole = [range(i, i + 1) for i in range(rendered)]
    rest = range(rendered, params.num_clips, _CLIPS_A_TASK)
    return whole + [range(i, min(i + _CLIPS_A_TASK, params.num_clips)) for i in rest]


def clip_id_of(index: int) -> str:
    return f"sim_{index:06d}"


def simulate_clip(params: Simulate, index: int, folder: Path) -> SimulatedClip:
    """Make one clip's files; the same parameters and index give the same bytes."""
    clip_id = clip_id_of(index)
    world: World = make_world(params, index)
    truth = world.truth
    # Apart from the world's own draws, so that rendering or not gives the same world and caption.
    rng = np.random.default_rng([params.seed, index, 1])
    text = caption(world, rng)
    video = ""
    if index < params.rendered:
        # PyBullet is an extra, and slow to import.
        from dsr.simulator.render import render

        video = f"{clip_id}.mp4"
        truth = render(world, rng, folder / video, params.fps)
    write_truth(folder / f"{clip_id}.truth.npz", truth)
    return SimulatedClip(
        clip_id=clip_id,
        caption=text,
        file=video,
        truth=f"{clip_id}.truth.npz",
        source_video=clip_id,
        frames=len(truth.timestamps),
        bodies=len(truth.labels),
        camera=world.camera_motion,
    )
