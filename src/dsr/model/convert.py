"""`dsr convert`: the published DSR_Suite-Model checkpoint to this project's model folder, and back.

Both are folders of safetensors with the same tensors under other names (plain Qwen2.5-VL's are the same in both), and a
config.json. Only names change, so a weight file is written as a new header and a copy of the bytes: a tensor is never
held in memory as a whole, whatever the size of the checkpoint.

The published model has one arrangement: fusion `gsm`, 32 tokens, the encoder `pi3`. Any other of this project's models
is refused in that direction.
"""

import json
import shutil
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dsr import console
from dsr.console import StageError
from dsr.files import whole_folder, write_json
from dsr.model.qwen2_5_vl_gsm import GSM_DEFAULTS, Qwen2_5_VLGSMConfig
from dsr.model.transformers_versions import with_older_rope
from dsr.weights import read_tensor_header

Layout = Literal["ours", "published"]
PREFIXES = (
    ("visual.q_former_queries", "model.gsm.queries"),
    ("visual.q_former_1.", "model.gsm.condenser."),
    ("visual.q_former_2.", "model.gsm.selector."),
    ("visual.q_former_norm.", "model.gsm.norm."),
    ("visual.spatial_encoder.", "model.geometry.pi3.encoder."),
    ("visual.spatial_merger.", "model.geometry.pi3.merger."),
)
"""Beginnings of names, published and ours."""
UNUSED = ("visual.spatial_encoder.mask_token",)
"""Tensors of DINOv2's training; the published class deletes them."""
QUERIES = "visual.q_former_queries"
PATCH_EMBED = "visual.patch_embed.proj.weight"
PUBLISHED_GSM = {"fusion": "gsm", "num_tokens": 32, "encoders": ["pi3"], "question": "embeddings"}
PUBLISHED_PROMPT = "published"
TOKENS_PER_SECOND = 2
"""Positions of 3D tokens in a second; the published class has the number in its code."""
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
CHUNK = 1 << 24
"""Bytes copied at a time."""


def run(source: Path, target: Path, to: Layout) -> None:
    """Write `source` as `target` in the other layout.

    Raises:
        StageError: not such a checkpoint, damaged, or of an arrangement that the other layout lacks; the target exists.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StageError(f"{target} exists and is not empty: name a new folder")
    config = _read_config(source)
    files = {path: TensorFile.read(path) for path in _weight_files(source)}
    shapes = {name: tensor["shape"] for file in files.values() for name, tensor in file.tensors.items()}
    converted = to_ours(config, shapes, source) if to == "ours" else to_published(config, source)
    rename = our_name if to == "ours" else published_name
    weight_map: dict[str, str] = {}
    size = 0
    with whole_folder(target) as partial:
        for path, file in console.track(files.items(), "convert", len(files)):
            kept = {name: rename(name) for name in file.tensors if name not in UNUSED}
            size += file.write(partial / path.name, kept)
            weight_map |= dict.fromkeys(kept.values(), path.name)
        if len(weight_map) != len([name for name in shapes if name not in UNUSED]):
            raise StageError(f"{source}: two tensors would have the same name; is it {to} already?")
        if len(files) > 1:
            write_json(partial / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
        write_json(partial / CONFIG, converted)
        for path in sorted(source.iterdir()):
            if (
                path.is_file()
                and path.suffix in (".json", ".txt", ".jinja", ".model")
                and path.name not in (CONFIG, INDEX)
            ):
                shutil.copyfile(path, partial / path.name)
    console.summary("convert", {"tensors": len(weight_map), "files": len(files), "GiB": f"{size / 2**30:.2f}"})


def refuse_unconverted(folder: Path) -> None:
    """Refuse a folder in the published layout, of which only what Qwen2.5-VL has could be read.

    Raises:
        StageError: its tensors have published names.
    """
    published = tuple(name for name, _ in PREFIXES)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            _, header = read_tensor_header(path)
        except (OSError, ValueError):
            continue  # a file that is not whole is told where it is loaded
        if any(name.startswith(published) for name in header):
            raise StageError(
                f"{folder} is a DSR_Suite-Model in its published layout ({path.name} has its GSM's tensors): "
                f"`dsr convert {folder} <new folder>`, and name that folder"
            )


def our_name(name: str) -> str:
    """A tensor's name in this project's files, from the published one."""
    return _replace(name, PREFIXES)


def published_name(name: str) -> str:
    """The published name of a tensor of this project's files."""
    return _replace(name, ((ours, published) for published, ours in PREFIXES))


def to_ours(config: Mapping[str, Any], shapes: Mapping[str, list[int]], source: Path) -> dict[str, Any]:
    """config.json of this project from the published one.

    Raises:
        StageError: no published GSM among the tensors.
    """
    missing = [name for name, _ in PREFIXES if not any(tensor.startswith(name) for tensor in shapes)]
    if missing:
        raise StageError(f"{source} holds no published GSM: no tensor {missing[0]}")
    vision = dict(config.get("vision_config") or {})
    vision.pop("config_all", None)
    # The published class overwrites the vision tower's width in its configuration with the language model's.
    vision["hidden_size"] = shapes[PATCH_EMBED][0]
    plain = {key: value for key, value in config.items() if key not in ("model_type", "architectures", "vision_config")}
    gsm = GSM_DEFAULTS | PUBLISHED_GSM | {"num_tokens": shapes[QUERIES][0]}
    sizes = _encoder_sizes(shapes)
    gsm |= {"sizes": sizes} if sizes else {}
    converted = Qwen2_5_VLGSMConfig(**plain, vision_config=vision, gsm=gsm, prompt=PUBLISHED_PROMPT)
    if (found := converted.vision_config.tokens_per_second) != TOKENS_PER_SECOND:
        raise StageError(
            f"{source / CONFIG}: vision_config.tokens_per_second is {found}, and the published GSM counts "
            f"{TOKENS_PER_SECOND}: set it to {TOKENS_PER_SECOND}, as in Qwen2.5-VL"
        )
    converted.architectures = ["Qwen2_5_VLGSMForConditionalGeneration"]
    return converted.to_dict()


def to_published(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """The published class's config.json from this project's.

    Raises:
        StageError: not a model of this project, or one that the published class cannot hold.
    """
    if config.get("model_type") != Qwen2_5_VLGSMConfig.model_type:
        raise StageError(f"{source} holds a {config.get('model_type')!r} model, not one of this project")
    gsm = {key: (GSM_DEFAULTS | config["gsm"])[key] for key in PUBLISHED_GSM}
    if gsm != PUBLISHED_GSM:
        raise StageError(f"{source} has gsm {gsm}; the published class holds {PUBLISHED_GSM} alone")
    ours = {"gsm", "prompt", "special_token_ids", "letter_token_ids", "text_config", "vision_config", "model_type"}
    text = with_older_rope(config["text_config"])
    text = {key: value for key, value in text.items() if key not in ("model_type", "layer_types")}
    vision = {key: value for key, value in config["vision_config"].items() if key != "model_type"}
    plain = {key: value for key, value in config.items() if key not in ours}
    # transformers 4.51, for which the published class is written, has the text's keys at the top.
    return (
        text
        | plain
        | {
            "model_type": "qwen2_5_vl",
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            # transformers reads `patch_size`, the published class reads this name.
            "vision_config": vision | {"spatial_patch_size": vision.get("patch_size", 14)},
        }
    )


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file: its header. (The library reads and writes tensors, but renames none.)"""

    path: Path
    begin: int
    """Byte at which the tensors begin."""
    tensors: dict[str, dict[str, Any]]
    """`dtype`, `shape` and `data_offsets` (from `begin`) of each."""
    metadata: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "TensorFile":
        """
        Raises:
            StageError: not a whole safetensors file.
        """
        try:
            begin, header = read_tensor_header(path)
        except (OSError, ValueError) as error:
            raise StageError(f"{path} {error}: copy it again") from None
        return cls(path, begin, header, header.pop("__metadata__", {}))

    def write(self, path: Path, names: Mapping[str, str]) -> int:
        """Write the tensors that are keys of `names` under its values; returns their bytes."""
        order = sorted(names, key=lambda name: self.tensors[name]["data_offsets"])
        header: dict[str, Any] = {"__metadata__": self.metadata or {"format": "pt"}}
        place = 0
        for name in order:
            begin, end = self.tensors[name]["data_offsets"]
            header[names[name]] = self.tensors[name] | {"data_offsets": [place, place + end - begin]}
            place += end - begin
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with self.path.open("rb") as source, path.open("wb") as target:
            target.write(struct.pack("<Q", len(text)) + text)
            for name in order:
                begin, end = self.tensors[name]["data_offsets"]
                source.seek(self.begin + begin)
                _copy(source, target.write, end - begin)
        return place


def _copy(source: BinaryIO, write: Callable[[bytes], object], length: int) -> None:
    while length:
        chunk = source.read(min(CHUNK, length))
        write(chunk)
        length -= len(chunk)


def _replace(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for before, after in prefixes:
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name


def _encoder_sizes(shapes: Mapping[str, list[int]]) -> dict[str, Any]:
    """Sizes of the encoder where they are not ViT-L/14's: as many heads as make them 64 wide, as all DINOv2 have."""
    prefix = "visual.spatial_encoder."
    width = shapes[f"{prefix}cls_token"][-1]
    depth = len({name.split(".")[3] for name in shapes if name.startswith(f"{prefix}blocks.")})
    grid = round((shapes[f"{prefix}pos_embed"][1] - 1) ** 0.5)
    sizes = {"width": width, "depth": depth, "heads": max(width // 64, 1), "grid": grid}
    return {} if sizes == {"width": 1024, "depth": 24, "heads": 16, "grid": 37} else {"pi3": sizes}


def _read_config(source: Path) -> dict[str, Any]:
    try:
        return json.loads((source / CONFIG).read_text())
    except FileNotFoundError:
        raise StageError(f"{source / CONFIG} does not exist: name the folder of a checkpoint") from None
    except ValueError as error:
        raise StageError(f"{source / CONFIG} is not JSON: {error}") from None


def _weight_files(source: Path) -> list[Path]:
    """The weight files that the index names, or the one there is.

    Raises:
        StageError: none, or one that the index names is missing.
    """
    index = source / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise StageError(f"{index} is not an index of weights: {error!r}") from None
        files = [source / Path(name).name for name in names]
    else:
        files = sorted(source.glob("*.safetensors"))
    if not files:
        raise StageError(f"{source} holds no *.safetensors")
    for path in files:
        if not path.is_file():
            raise StageError(f"{path} does not exist, but {INDEX} names it: copy it again")
    return files
