"""Published checkpoints: where each is had from, which file is expected, and whether it is there.

Nothing is downloaded at run time. What a clip's cues depend on is the content of a checkpoint, not its name, so
`fingerprint` hashes it. Reading gigabytes takes longer than starting, so hashes are kept beside the checkpoints under
the files' sizes and times; `dsr weights --check` reads the files themselves.
"""

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dsr import project
from dsr.files import sha256_file, sha256_json, write_json

FOUNDATION, BACKBONE = "cues.backend: foundation", "model.backbone"
WEIGHT_FILES = (".pth", ".pt", ".safetensors")
HASHES = ".hashes.json"
"""File in the folder of the checkpoints that keeps their hashes from run to run."""
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Weight:
    """A published checkpoint."""

    name: str
    path: str
    """File or folder (of Hugging Face files), relative to the project folder."""
    published: str
    needed_for: str
    """The setting that loads it."""
    size: int | None = None
    """Bytes of the file, or of the folder's model.safetensors, where known."""
    sha256: str = ""
    """Hash of the same file, where known."""

    @property
    def is_file(self) -> bool:
        return Path(self.path).suffix in WEIGHT_FILES

    @property
    def main_file(self) -> str:
        """The file that `size` and `sha256` are of."""
        return self.path if self.is_file else f"{self.path}/model.safetensors"


def foundation_weights(folder: str = str(project.WEIGHTS)) -> dict[str, Weight]:
    """The checkpoints of the `foundation` backend in a folder, by what they are used for.

    Sizes and hashes are those that the publishers' pages and several public projects state.
    """
    return {
        "grounding": Weight(
            "Grounding DINO Swin-T",
            f"{folder}/groundingdino_swint_ogc.pth",
            "github.com/IDEA-Research/GroundingDINO, release v0.1.0-alpha",
            FOUNDATION,
            693_997_677,
            "3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
        ),
        "text_encoder": Weight(
            "BERT (its text encoder)",
            f"{folder}/bert-base-uncased",
            "huggingface.co/google-bert/bert-base-uncased",
            FOUNDATION,
            440_449_768,
            "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
        ),
        "segmentation": Weight(
            "SAM 2.1 large",
            f"{folder}/sam2.1_hiera_large.pt",
            "huggingface.co/facebook/sam2.1-hiera-large",
            FOUNDATION,
            898_083_611,
            "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        ),
        "reconstruction": Weight("Pi3", f"{folder}/pi3/model.safetensors", "huggingface.co/yyfz233/Pi3", FOUNDATION),
        "orientation": Weight(
            "Orient Anything",
            f"{folder}/croplargeEX2/dino_weight.pt",
            "huggingface.co/Viglong/Orient-Anything",
            FOUNDATION,
        ),
    }


PUBLISHED_WEIGHTS = (
    Weight(
        "Qwen2.5-VL 7B",
        f"{project.WEIGHTS}/Qwen2.5-VL-7B-Instruct",
        "huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct",
        BACKBONE,
    ),
    *foundation_weights().values(),
)


def missing_files(path: Path) -> list[str]:
    """Files that are absent or empty of a weight file or a folder of Hugging Face files; [] if it is whole.

    A folder is whole with its config.json and its weights: every shard that the index names, or one file.
    """
    if path.suffix in WEIGHT_FILES:
        folder, wanted = path.parent, [path.name]
    else:
        folder, wanted = path, ["config.json"]
        index = path / "model.safetensors.index.json"
        if index.is_file():
            try:
                wanted += sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError):
                return [f"{index.name} (damaged)"]
        elif not (path / "pytorch_model.bin").is_file():
            wanted.append("model.safetensors")
    return [name for name in wanted if not (folder / name).is_file() or not (folder / name).stat().st_size]


def fingerprint(path: Path, known: Path | None = None) -> str:
    """Hash of a weight file, or of the files of a folder; read once, and again only if its size or time changes.

    Args:
        known: file that keeps hashes from run to run; without it, or where it cannot be written, they are kept for
            this run.
    """
    if path.is_file():
        stat = path.stat()
        return _hash(path.absolute(), stat.st_size, stat.st_mtime_ns, known)
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    return sha256_json({file.name: fingerprint(file, known) for file in files})


@cache
def _hash(path: Path, size: int, mtime_ns: int, known: Path | None) -> str:
    if known is None:
        return sha256_file(path)
    # Relative, so that a project folder can be moved with its weights.
    name = os.path.relpath(path, known.parent)
    hashes = _read_hashes(known)
    entry = hashes.get(name)
    if isinstance(entry, dict) and (entry.get("size"), entry.get("mtime_ns")) == (size, mtime_ns):
        kept = entry.get("sha256")
        if isinstance(kept, str) and _SHA256.fullmatch(kept):
            return kept
    sha256 = sha256_file(path)
    # A folder that cannot be written costs time at the next run, nothing else.
    with suppress(OSError):
        write_json(known, {**hashes, name: {"size": size, "mtime_ns": mtime_ns, "sha256": sha256}})
    return sha256


def _read_hashes(known: Path) -> dict[str, Any]:
    try:
        hashes = json.loads(known.read_text())
    except (OSError, ValueError):
        return {}
    return hashes if isinstance(hashes, dict) else {}
