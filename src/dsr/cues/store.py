"""The keyed store of cue files: what is current, what must be made, what must go.

`data/cues/<clip_id>.npz` carries in its meta the key of everything that it was made from. A file is current if that
key is the one that the clip has now; times and names decide nothing. Files are written whole or not at all, so
whatever moment a run is killed at, each file is a finished one or absent, and the next run makes the rest.
manifest.json is a function of the outcome alone: which clips have cues, which failed and why.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr import project
from dsr.cues.clips import Clip
from dsr.cues.schema import SCHEMA_VERSION, ClipCues, CuesError, cue_path, read_meta, write_cues
from dsr.files import PARTIAL, sha256_json, write_json

MANIFEST = project.CUES_MANIFEST.name


@dataclass(frozen=True)
class ManifestEntry:
    """Outcome of a clip."""

    reason: str = ""
    """Reason why there are no cues; empty if there are."""
    key: str = ""
    tracks: int = 0
    agents: int = 0
    bytes: int = 0
    left_out: int = 0
    """Detections that became no track, since the clip has as many as it may have."""

    @property
    def ok(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Swept:
    """Names that `sweep` removed, and those that it found and left."""

    removed: list[str]
    foreign: list[str]


def clip_key(clip: Clip, identity: Mapping[str, Any]) -> str:
    """Hash of all that a clip's cues depend on."""
    return sha256_json(
        {
            "schema_version": SCHEMA_VERSION,
            "clip_id": clip.clip_id,
            "sha256": clip.sha256,
            "interval": [clip.start, clip.end],
            "size": [clip.width, clip.height],
            "identity": identity,
        }
    )


def current(folder: Path, clip: Clip, key: str) -> ManifestEntry | None:
    """The entry of a clip whose file is whole and of this key; None if it must be made.

    Bytes changed inside a whole file are found by their checksum when the arrays are read, not here: reading
    everything would take minutes where this takes seconds.
    """
    path = cue_path(folder, clip.clip_id)
    try:
        meta = read_meta(path)
        return _entry(path, meta) if meta["key"] == key else None
    except (CuesError, KeyError, TypeError, ValueError):
        return None


def put(folder: Path, clip: Clip, identity: Mapping[str, Any], cues: ClipCues) -> ManifestEntry:
    """Write a clip's cues with their meta."""
    path = cue_path(folder, clip.clip_id)
    cues.meta.update(
        clip_id=clip.clip_id,
        sha256=clip.sha256,
        width=clip.width,
        height=clip.height,
        key=clip_key(clip, identity),
        identity=dict(identity),
        num_tracks=cues.num_tracks,
        num_agents=int(cues.is_agent.sum()),
        schema_version=SCHEMA_VERSION,
    )
    write_cues(path, cues)
    return _entry(path, cues.meta)


def sweep(folder: Path, clip_ids: Collection[str]) -> Swept:
    """Remove partial files and the cues of clips that are not among `clip_ids`; leave what the store did not make."""
    removed, foreign = [], []
    known = set(clip_ids)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name == MANIFEST or (path.suffix == ".npz" and path.stem in known):
            continue
        if path.name.startswith(".") and path.name.endswith(PARTIAL) and path.is_file():
            path.unlink()
        elif path.suffix == ".npz" and _is_ours(path):
            path.unlink()
            removed.append(path.stem)
        # DVC writes a .gitignore beside an output, not inside it; other dot files are some tool's business.
        elif not path.name.startswith("."):
            foreign.append(path.name)
    return Swept(removed, foreign)


def discard(folder: Path, clip_id: str) -> None:
    """Remove what an earlier run made for a clip that now fails."""
    cue_path(folder, clip_id).unlink(missing_ok=True)


def write_manifest(folder: Path, backend: str, entries: Mapping[str, ManifestEntry]) -> None:
    clips = {
        clip_id: {
            "status": "ok" if entry.ok else "failed",
            "reason": entry.reason,
            "key": entry.key,
            "tracks": entry.tracks,
            "left_out": entry.left_out,
        }
        for clip_id, entry in entries.items()
    }
    write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, "backend": backend, "clips": clips})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest as written.

    Raises:
        CuesError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if manifest["schema_version"] != SCHEMA_VERSION or not isinstance(manifest["clips"], dict):
            raise ValueError(f"not of schema version {SCHEMA_VERSION}")
        return manifest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CuesError(f"{path}: not a readable manifest ({error}); run the cues stage again") from None


def _entry(path: Path, meta: Mapping[str, Any]) -> ManifestEntry:
    tracks, agents = int(meta["num_tracks"]), int(meta["num_agents"])
    left_out = int(meta.get("left_out", 0))
    return ManifestEntry(
        key=str(meta["key"]), tracks=tracks, agents=agents, bytes=path.stat().st_size, left_out=left_out
    )


def _is_ours(path: Path) -> bool:
    try:
        return read_meta(path).get("clip_id") == path.stem
    except CuesError:
        return False
