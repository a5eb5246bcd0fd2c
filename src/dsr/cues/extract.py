"""The cues stage: data/clips/curated.parquet -> data/cues/<clip_id>.npz and manifest.json.

Each clip is handled on its own: current files are kept, the rest is made in worker processes, and a clip that fails
(or takes its process along) is a row in the manifest with its reason, tried again whenever the stage runs.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from dsr import console, project
from dsr.console import StageError
from dsr.cues import store
from dsr.cues.backends import Backend, ClipFailure, Decoded, DecodingBackend
from dsr.cues.clips import Clip, read_clips
from dsr.cues.store import ManifestEntry
from dsr.params import Cues, Params
from dsr.source import code_hash
from dsr.workers import Failure, map_isolated, reason

BACKENDS = {
    "simulated": "dsr.cues.backends.simulated",
    "annotated": "dsr.cues.backends.annotated",
    "foundation": "dsr.cues.backends.foundation",
}
"""Name in params.yaml -> module with a class `Backend(params: Cues)`. Imported only when it is asked for, so that
no backend's dependencies are another's."""
_REASONS_SHOWN = 5


@dataclass(frozen=True)
class _Task:
    """A clip to be made."""

    clip: Clip
    identity: dict[str, Any]
    frames: Path | None = None
    """File of its decoded frames, which goes with the task."""
    failed: str = ""
    """Reason why there are none."""


@dataclass(frozen=True)
class _Extraction:
    """Makes and stores one clip; picklable, so that a worker process has it once."""

    backend: Backend
    folder: Path

    def __call__(self, task: _Task) -> ManifestEntry:
        if task.failed:
            raise ClipFailure(task.failed)
        if task.frames is None or not isinstance(self.backend, DecodingBackend):
            cues = self.backend.extract(task.clip)
        else:
            with np.load(task.frames, allow_pickle=False) as arrays:
                decoded = Decoded(**arrays)
            task.frames.unlink()
            cues = self.backend.extract_decoded(task.clip, decoded)
        return store.put(self.folder, task.clip, task.identity, cues)


@dataclass(frozen=True)
class _Decoding:
    """Decodes one clip into a file; picklable, as above."""

    backend: DecodingBackend
    folder: Path

    def __call__(self, task: _Task) -> Path:
        path = self.folder / f"{task.clip.clip_id}.npz"
        # Not compressed: it is read once, moments later.
        np.savez(path, **vars(self.backend.decode(task.clip)))
        return path


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Make what is missing of data/cues.

    Raises:
        StageError: nothing to do cues of; every clip failed, or more than `cues.max_clips_failed`.
    """
    clips = read_clips(root)
    folder = root / project.CUES
    backend = make_backend(params.cues)
    backend.start(root)
    swept = store.sweep(folder, [clip.clip_id for clip in clips])
    entries, tasks = _plan(backend, params.cues.backend, clips, root)
    kept = sum(entry.ok for entry in entries.values())
    _stop_if_hopeless(entries, params.cues.max_clips_failed)
    # Closed at once when the stage stops early: the worker processes finish what they are at.
    with closing(_make(backend, tasks, root, backend.processes(workers))) as made:
        for clip_id, entry in console.track(made, "cues: making", len(tasks), unit="clips"):
            entries[clip_id] = entry
            _stop_if_hopeless(entries, params.cues.max_clips_failed)
    for clip_id, entry in entries.items():
        if not entry.ok:
            store.discard(folder, clip_id)
    store.write_manifest(folder, params.cues.backend, entries)
    _report(entries, kept, swept)
    if not any(entry.ok for entry in entries.values()):
        raise StageError(f"no clip has cues; {_reasons(entries)}")


def make_backend(params: Cues) -> Backend:
    return cast(Backend, import_module(BACKENDS[params.backend]).Backend(params))


def _plan(
    backend: Backend, name: str, clips: Sequence[Clip], root: Path
) -> tuple[dict[str, ManifestEntry], list[_Task]]:
    """Entries, by clip id, of the clips that are current or cannot be made, and the clips to make."""
    entries, tasks = {}, []
    code = code_hash(type(backend).__module__)
    for clip in console.track(clips, "cues: checking", len(clips)):
        try:
            identity = {"backend": name, "code": code, **backend.identity(clip)}
        except (OSError, ValueError) as error:
            entries[clip.clip_id] = _failed(reason(error), root)
            continue
        found = store.current(root / project.CUES, clip, store.clip_key(clip, identity))
        if found:
            entries[clip.clip_id] = found
        else:
            tasks.append(_Task(clip, identity))
    return entries, tasks


def _make(
    backend: Backend, tasks: Sequence[_Task], root: Path, workers: int
) -> Generator[tuple[str, ManifestEntry], None, None]:
    with ExitStack() as stack:
        extraction, items, ahead = _Extraction(backend, root / project.CUES), iter(tasks), {}
        if isinstance(backend, DecodingBackend):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dsr-frames-")))
            items = stack.enter_context(closing(_decoded(backend, tasks, folder, backend.decoders * workers)))
            # Decoded frames are large: one clip at work and one that waits for each process are enough.
            ahead = {"ahead": 2}
        numbers: dict[int, _Task] = {}
        noted = (numbers.setdefault(k, task) for k, task in enumerate(items))
        for index, result in stack.enter_context(closing(map_isolated(extraction, noted, workers, **ahead))):
            task = numbers.pop(index)
            if isinstance(result, Failure):
                result = _failed(result.reason, root, store.clip_key(task.clip, task.identity))
            yield task.clip.clip_id, result


def _decoded(
    backend: DecodingBackend, tasks: Sequence[_Task], folder: Path, workers: int
) -> Generator[_Task, None, None]:
    """The tasks with their frames, or with the reason why there are none, in the order in which they are decoded."""
    with closing(map_isolated(_Decoding(backend, folder), tasks, workers, ahead=1)) as results:
        for index, result in results:
            if isinstance(result, Failure):
                yield replace(tasks[index], failed=f"decoding: {result.reason}")
            else:
                yield replace(tasks[index], frames=result)


def _failed(why: str, root: Path, key: str = "") -> ManifestEntry:
    # Files are named from the project folder on, so that the manifest is the same wherever that is.
    return ManifestEntry(reason=why.replace(f"{root}/", ""), key=key)


def _stop_if_hopeless(entries: dict[str, ManifestEntry], most: int) -> None:
    failed = sum(not entry.ok for entry in entries.values())
    if failed > most:
        raise StageError(
            f"stopped after {failed} failed clips (cues.max_clips_failed: {most}), finished ones stay; "
            + _reasons(entries)
        )


def _count_reasons(entries: dict[str, ManifestEntry]) -> list[tuple[str, int]]:
    """Reasons and how often they occur, the most frequent first; the clip's own name is left out of them."""
    counts = Counter(
        re.sub(rf"(?<![\w-]){re.escape(clip_id)}(?![\w-])", "<clip>", entry.reason)
        for clip_id, entry in entries.items()
        if not entry.ok
    )
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _reasons(entries: dict[str, ManifestEntry]) -> str:
    counts = _count_reasons(entries)
    shown = "; ".join(f"{count} x {why}" for why, count in counts[:_REASONS_SHOWN])
    return shown + (f"; and {len(counts) - _REASONS_SHOWN} other reasons" if len(counts) > _REASONS_SHOWN else "")


def _report(entries: dict[str, ManifestEntry], kept: int, swept: store.Swept) -> None:
    ok = [entry for entry in entries.values() if entry.ok]
    counts: dict[str, object] = {"clips made": len(ok) - kept, "clips kept": kept, "clips removed": len(swept.removed)}
    reasons = _count_reasons(entries)
    counts |= {f"failed: {why}": count for why, count in reasons[:_REASONS_SHOWN]}
    if len(reasons) > _REASONS_SHOWN:
        counts["failed: other reasons (manifest.json)"] = sum(count for _, count in reasons[_REASONS_SHOWN:])
    counts |= {
        "tracks": sum(entry.tracks for entry in ok),
        "agents": sum(entry.agents for entry in ok),
        "bytes": sum(entry.bytes for entry in ok),
    }
    console.summary("cues", counts)
    full = [entry.left_out for entry in ok if entry.left_out]
    if full:
        console.warn(
            f"{len(full)} clips show more things than are followed: {sum(full)} detections were left out "
            "(manifest.json says where); raise cues.foundation.max_tracks (the preset tiny follows 3)"
        )
    if swept.foreign:
        shown = ", ".join(swept.foreign[:_REASONS_SHOWN])
        console.warn(f"{project.CUES} holds {len(swept.foreign)} entries that are no cues, left alone: {shown}")
