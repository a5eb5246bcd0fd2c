"""Published checkpoints: where each is had from, which file is expected, and whether it is there.

Nothing is downloaded at run time. What a clip's cues depend on is the content of a checkpoint, not its name, so
`fingerprint` hashes it. Reading gigabytes takes longer than starting, so hashes are kept beside the checkpoints under
the files' sizes and times; `dsr weights --check` reads the files themselves.
"""

import json
import os
import re
import struct
from collections.abc import Sequence
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
_POINTER = b"version https://git-lfs.github.com/spec/"
_SHOWN = 3
ABSENT = "is absent or empty"


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
    """Files of a checkpoint (a file, or a folder of Hugging Face files) that are absent or damaged; [] if it is whole.

    A folder is whole with its config.json and its weights: every shard that the index names, or one file. What is wrong
    with a file that is there, and not empty, stands behind its name.
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
    problems = {name: file_problem(folder / name) for name in wanted}
    return [name if reason == ABSENT else f"{name} ({reason})" for name, reason in problems.items() if reason]


def file_problem(path: Path) -> str:
    """Damage of a checkpoint's file in a few words, "" if it is whole as far as its beginning and its size tell."""
    if not path.is_file() or not path.stat().st_size:
        return ABSENT
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            return "is a git-lfs pointer: `git lfs pull` brings the file"
    try:
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        if path.suffix == ".safetensors":
            read_tensor_header(path)
    except ValueError as error:
        return str(error) if path.suffix == ".safetensors" else f"is not JSON: {error}"
    return ""


def read_tensor_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Header of a safetensors file, and the byte at which its tensors begin.

    Raises:
        ValueError: not such a file, one cut short, or one with a tensor of size 0 (as a process of several leaves it).
        OSError: it cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, size)))
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        empty = [name for name, tensor in tensors.items() if 0 in tensor["shape"]]
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"is not a safetensors file: {error}") from None
    if 8 + length + end != size:
        raise ValueError(f"has {size:,} bytes, its header says {8 + length + end:,}")
    if empty:
        raise ValueError(f"has {count_names(empty, 'of size 0')}")
    return 8 + length, header


def count_names(names: Sequence[str], kind: str) -> str:
    """Number of tensors of a kind, with the first names.

    >>> count_names(["a", "b", "c", "d"], "missing")
    '4 missing (a, b, c, …)'
    """
    return f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''})"


def weight_state(weight: Weight, root: Path, check: bool = False) -> str:
    """`found`, or what is wrong with a checkpoint, in a few words.

    Args:
        check: read the file whose hash is known, and compare.
    """
    path, main = project.locate(root, weight.path), project.locate(root, weight.main_file)
    absent = missing_files(path)
    if absent:
        more = " …" if len(absent) > _SHOWN else ""
        if path.is_dir():
            return f"incomplete, without {', '.join(absent[:_SHOWN])}{more}"
        return "missing" if absent == [path.name] else f"damaged, {absent[0]}"
    if weight.size and main.is_file():
        if main.stat().st_size != weight.size:
            return f"found, but {main.stat().st_size:,} bytes instead of {weight.size:,}"
        if check and sha256_file(main) != weight.sha256:
            return "found, but its content is not the published one (sha256)"
        return "found, content as published" if check else "found"
    return "found"


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
