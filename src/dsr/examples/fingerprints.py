"""What a prediction depends on of a clip, as hashes."""

import hashlib
from pathlib import Path

import numpy as np

from dsr.cues.schema import ARRAYS, ClipCues

_SAMPLE = 1 << 20


def cues_hash(cues: ClipCues) -> str:
    """Of all arrays but the masks (no model reads them), and of the size of the video."""
    digest = hashlib.sha256(f"{cues.meta.get('width')}x{cues.meta.get('height')}".encode())
    for name in ARRAYS:
        if not name.startswith("mask"):
            array = np.ascontiguousarray(getattr(cues, name))
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """Of a file's size and its first and last MiB: videos of a benchmark have gigabytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(f"{size} ".encode() + file.read(_SAMPLE))
        if size > _SAMPLE:
            file.seek(max(size - _SAMPLE, _SAMPLE))
            digest.update(file.read())
    return digest.hexdigest()
