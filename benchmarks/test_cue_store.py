"""Throughput of the cue store, next to plain np.savez / np.load of the same arrays.

pytest benchmarks/test_cue_store.py --benchmark-enable --benchmark-group-by=group
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dsr.cues import store
from dsr.cues.backends.simulated import cues_from_truth
from dsr.cues.clips import Clip
from dsr.cues.schema import ARRAYS, SCHEMA_VERSION, ClipCues, read_cues, read_meta, write_cues
from dsr.params import CueNoise
from tests.cues.worlds import walk

CLIPS = 10
FRAMES = np.round(np.linspace(0, 59, 32)).astype(np.int64)
POINTS = {"point_map", "confidence"}


def perceive(grid: tuple[int, int] = (24, 32)) -> list[ClipCues]:
    truths = [walk(seed=k, frames=60, count=5) for k in range(CLIPS)]
    clips = [
        cues_from_truth(truth, FRAMES, grid, CueNoise(), np.random.default_rng(k)) for k, truth in enumerate(truths)
    ]
    for cues in clips:
        cues.meta["schema_version"] = SCHEMA_VERSION
    return clips


@pytest.fixture(scope="module")
def clips() -> list[ClipCues]:
    return perceive()


def _arrays(cues: ClipCues) -> dict[str, np.ndarray]:
    return {name: getattr(cues, name) for name in ARRAYS}


def _measure(benchmark: BenchmarkFixture, work: Callable[[], object]) -> None:
    benchmark.pedantic(work, rounds=10, warmup_rounds=1)


@pytest.mark.benchmark(group="cues from truth: 10 clips of 5 bodies, 32 frames")
@pytest.mark.parametrize("grid", [(24, 32), (4, 4)], ids=["24x32 points", "4x4 points"])
def test_simulated_backend(benchmark: BenchmarkFixture, grid: tuple[int, int]) -> None:
    truths = [walk(seed=k, frames=60, count=5) for k in range(CLIPS)]
    rng = np.random.default_rng(0)
    _measure(benchmark, lambda: [cues_from_truth(truth, FRAMES, grid, CueNoise(), rng) for truth in truths])


@pytest.mark.benchmark(group="write 10 clips")
@pytest.mark.parametrize("points", ["24x32 points", "no points"])
@pytest.mark.parametrize("kind", ["store", "savez", "savez_compressed"])
def test_write(benchmark: BenchmarkFixture, tmp_path: Path, kind: str, points: str) -> None:
    clips = perceive((24, 32) if points == "24x32 points" else (1, 1))
    save = {
        "store": write_cues,
        "savez": lambda path, cues: np.savez(path, **_arrays(cues)),
        "savez_compressed": lambda path, cues: np.savez_compressed(path, **_arrays(cues)),
    }[kind]
    _measure(benchmark, lambda: [save(tmp_path / f"{k}.npz", cues) for k, cues in enumerate(clips)])
    benchmark.extra_info["bytes a clip"] = sum(p.stat().st_size for p in tmp_path.glob("*.npz")) // CLIPS


@pytest.mark.benchmark(group="read 10 clips")
@pytest.mark.parametrize("kind", ["store", "store without points", "store meta", "load", "load compressed"])
def test_read(benchmark: BenchmarkFixture, clips: list[ClipCues], tmp_path: Path, kind: str) -> None:
    save: Callable[..., None] = write_cues
    if kind.startswith("load"):
        plain = np.savez_compressed if "compressed" in kind else np.savez
        save = lambda path, cues: plain(path, **_arrays(cues))  # noqa: E731
    for k, cues in enumerate(clips):
        save(tmp_path / f"{k}.npz", cues)

    def load(path: Path) -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    read: Callable[[Path], object] = {
        "store": read_cues,
        "store without points": lambda path: read_cues(path, skip=POINTS),
        "store meta": read_meta,
    }.get(kind, load)
    _measure(benchmark, lambda: [read(tmp_path / f"{k}.npz") for k in range(CLIPS)])


@pytest.mark.benchmark(group="decide that 10 clips are current")
def test_current(benchmark: BenchmarkFixture, clips: list[ClipCues], tmp_path: Path) -> None:
    rows = [Clip(f"c{k}", "0" * 64, None, None, None, 0.0, 6.0, 320, 240) for k in range(CLIPS)]
    identity = {"backend": "simulated", "version": 1}
    for clip, cues in zip(rows, clips, strict=True):
        store.put(tmp_path, clip, identity, cues)
    keys = [store.clip_key(clip, identity) for clip in rows]
    assert all(store.current(tmp_path, clip, key) for clip, key in zip(rows, keys, strict=True))
    _measure(benchmark, lambda: [store.current(tmp_path, c, key) for c, key in zip(rows, keys, strict=True)])
