"""Models to start from: a small one that is made here, a published backbone, or one that this project saved.

`tiny` is the real Qwen2.5-VL architecture (windowed vision tower, multimodal RoPE, grouped-query attention) at a size
that trains on two cores in minutes, randomly initialised, with a tokenizer trained on the questions.

A backbone may bring a question reader (dsr.model.reader) that was trained on its word embeddings, in a file of its own.
"""

import dataclasses
from collections.abc import Collection, Iterable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessorFast,
    Qwen2VLVideoProcessor,
)
from transformers.utils import is_flash_attn_2_available, logging

from dsr import project
from dsr.console import StageError, num_workers, warn
from dsr.mcq import INSTRUCTION, LETTERS, SYSTEM
from dsr.model.chat import letter_ids
from dsr.model.convert import refuse_unconverted
from dsr.model.geometry_encoders import CAMERA_LABEL, MERGE
from dsr.model.qwen2_5_vl_gsm import (
    GSM_DEFAULTS,
    READER,
    Qwen2_5_VLGSMConfig,
    Qwen2_5_VLGSMForConditionalGeneration,
    own_parts,
)
from dsr.model.transformers_versions import cut_as
from dsr.perception.dinov2 import PATCH
from dsr.perception.pi3 import load_encoder
from dsr.weights import count_names, missing_files

if TYPE_CHECKING:
    from dsr.params import GSM, Model

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""In the order of Qwen's vocabulary, without its object and box tokens."""
VOCABULARY = 4096
TINY_TEXT = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [8, 4, 4]},
    "tie_word_embeddings": True,
    # 0.02 is for widths of thousands; a narrow model starts with signals far too weak.
    "initializer_range": 0.07,
}
TINY_VISION = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 4,
    "out_hidden_size": TINY_TEXT["hidden_size"],
    "fullatt_block_indexes": [1],
    "tokens_per_second": 2,
    "initializer_range": 0.06,
}
TINY_PI3 = {"width": 32, "depth": 2, "heads": 2, "grid": 16}
TOKENIZER_FILE = "tokenizer.json"
READER_FILE = "reader.safetensors"
"""File of a backbone's folder with its question reader, names as in QuestionReader."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_STATE = r"(?<=^[A-D]\.)(?:(?!, then|\.).)+|, then(?:(?!, then|\.).)+"
_WORDS = rf"{_STATE}| ?\d+\.\d| ?\p{{L}}+|,? ?\d{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+|\s"
"""Words; numbers, a box's with the comma before them; and in a line that begins with an option's letter what stands
between two ", then" ("It is in front and left"). To a model of this size a time, a coordinate and a state are words."""


def train_tokenizer(texts: Iterable[str]) -> Qwen2TokenizerFast:
    """A byte-level BPE tokenizer with Qwen's special tokens; the same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fixed = [f"{SYSTEM}\n{INSTRUCTION}\nOptions:\nsystem\nuser\nassistant\n {CAMERA_LABEL}\n" + "\n".join(LETTERS)] * 2
    tokenizer.train_from_iterator([*fixed, *texts], trainer)
    fast = Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        bos_token=None,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )
    cut_as(fast, tokenizer)
    return fast


def tiny(gsm: "GSM", texts: Iterable[str], max_pixels: int) -> tuple[Qwen2_5_VLGSMForConditionalGeneration, Any]:
    """A randomly initialised model and its processor; torch's global generator decides the weights.

    Args:
        texts: what the tokenizer is trained on.
        max_pixels: of a frame; multiples of 28 x 28 are vision tokens.
    """
    tokenizer = train_tokenizer(texts)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    special = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    config = Qwen2_5_VLGSMConfig(
        gsm=_gsm(gsm) | ({"sizes": {"pi3": TINY_PI3}} if "pi3" in gsm.encoders else {}),
        special_token_ids=sorted(ids.values()),
        letter_token_ids=letter_ids(tokenizer),
        # transformers writes into the mappings that it is given.
        text_config=deepcopy(TINY_TEXT) | special | {"vocab_size": len(tokenizer), "bos_token_id": None},
        vision_config=deepcopy(TINY_VISION),
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    model = Qwen2_5_VLGSMForConditionalGeneration(config)
    model.generation_config.update(**special)
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessorFast(size=_frame_size(max_pixels)),
        tokenizer,
        Qwen2VLVideoProcessor(size=_frame_size(max_pixels)),
        CHAT_TEMPLATE,
    )
    return model, processor


def backbone(
    folder: Path,
    gsm: "GSM",
    max_pixels: int,
    dtype: torch.dtype | str,
    pi3: Path = project.WEIGHTS / "pi3/model.safetensors",
    prompt: str = "",
) -> tuple[Qwen2_5_VLGSMForConditionalGeneration, Any]:
    """A published Qwen2.5-VL (or a model saved by this project) with the GSM of the parameters.

    Weights of the GSM, of encoders and of the question reader that the folder's model is without are drawn from torch's
    global generator, but for those of the encoder `pi3`, which are read from its checkpoint, and those of the reader
    where the folder has a file of it.

    Args:
        max_pixels: of a frame; 0 leaves it to the folder's processor.
        prompt: form of its prompts (dsr.mcq.PROMPTS); "" leaves it to the folder's configuration.

    Raises:
        StageError: no such folder, not a Qwen2.5-VL, or not its tensors; no checkpoint of pi3 where one is needed.
    """
    source = _read_config(folder)
    if source["model_type"] not in (Qwen2_5_VLConfig.model_type, Qwen2_5_VLGSMConfig.model_type):
        raise StageError(f"{folder} holds a {source['model_type']!r} model: model.backbone must be a Qwen2.5-VL")
    _require_weights(folder)
    processor = _load_processor(folder)
    letters = letter_ids(processor.tokenizer)
    former, wanted = source.get("gsm", {"fusion": "none"}), _gsm(gsm)
    former = GSM_DEFAULTS | former
    new, old = own_parts(wanted), own_parts(former)
    kept = {name: former[name] for name in ("sizes", "pretrained_reader") if name in former}
    reader = _read_reader(folder) if READER in new - old else {}
    if reader:
        kept["pretrained_reader"] = True
    form = {"prompt": prompt} if prompt else {}
    config = Qwen2_5_VLGSMConfig(**{**source, "gsm": wanted | kept, "letter_token_ids": letters, **form})
    # Read first: a file that is missing is told before the backbone is loaded.
    encoder = load_encoder(pi3) if "model.geometry.pi3." in new - old else None
    model = _load(folder, config, dtype, _attention(dtype), drawn=new - old, left_out=old - new)
    if encoder is not None:
        model.get_submodule("model.geometry.pi3.encoder").load_state_dict(encoder.state_dict())
    if reader:
        try:
            model.get_submodule(READER.removesuffix(".")).load_state_dict(reader)
        except RuntimeError as error:
            detail = str(error).splitlines()[1].strip()
            raise StageError(f"{folder / READER_FILE} is not a reader for this model: {detail}") from None
    processor.tokenizer.padding_side = "left"
    if max_pixels:
        processor.video_processor.size = _frame_size(max_pixels)
    return model, processor


def _load(
    folder: Path,
    config: Qwen2_5_VLGSMConfig,
    dtype: torch.dtype | str,
    attention: str,
    drawn: Collection[str] = (),
    left_out: Collection[str] = (),
) -> Qwen2_5_VLGSMForConditionalGeneration:
    """Model with a folder's weights, all of them and no others.

    Args:
        drawn: beginnings of names that the folder lacks, whose weights are drawn.
        left_out: beginnings of names that the folder has and the model does not take.

    Raises:
        StageError: a tensor is missing, unknown or of another shape.
    """
    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # what transformers warns of is told below, where it is not as it should be
    try:
        model, report = Qwen2_5_VLGSMForConditionalGeneration.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise StageError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from None
    finally:
        logging.set_verbosity(shown)
    problems = {
        "missing": [name for name in report["missing_keys"] if not name.startswith(tuple(drawn))],
        "unknown": [name for name in report["unexpected_keys"] if not name.startswith(tuple(left_out))],
        "of another shape": [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]],
    }
    if any(problems.values()):
        counts = "; ".join(count_names(sorted(names), kind) for kind, names in problems.items() if names)
        raise StageError(
            f"{folder}: its tensors are not this model's: {counts}; copy it again (`dsr convert` for a published "
            "DSR_Suite-Model, `dsr train` for one of this project)"
        )
    return model


def _read_reader(folder: Path) -> dict[str, Tensor]:
    """Weights of a backbone's question reader; none, with a warning, where it has none."""
    path = folder / READER_FILE
    if not path.is_file():
        warn(f"{folder} has no {READER_FILE}: its question reader is drawn at random, and learns with the GSM")
        return {}
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StageError(f"{path} cannot be read: {error}; copy it again") from None


def _load_processor(folder: Path) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        if (folder / TOKENIZER_FILE).is_file():
            cut_as(processor.tokenizer, Tokenizer.from_file(str(folder / TOKENIZER_FILE)))
        return processor
    # A broken tokenizer.json is a plain Exception of the tokenizers library.
    except Exception as error:
        raise StageError(f"{folder}: tokenizer or processor cannot be loaded: {str(error).splitlines()[0]}") from None


def _read_config(folder: Path) -> dict[str, Any]:
    """A model's configuration as it is in its folder.

    Raises:
        StageError: none, or not one of a model.
    """
    path = folder / "config.json"
    if not path.is_file():
        _require_weights(folder)
    refuse_unconverted(folder)
    try:
        source = Qwen2_5_VLConfig.get_config_dict(folder)[0]
    except (OSError, ValueError) as error:
        raise StageError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if "model_type" not in source:
        raise StageError(f"{path} names no model_type: copy it again")
    return source


SMALL = 1024
"""Hidden size below which one thread is fastest."""


def share_cores(model: Qwen2_5_VLGSMForConditionalGeneration, workers: int) -> None:
    """Set how many cores one operation on the CPU is spread over.

    A small model's operations take microseconds: threads would wait for one another longer than they compute (with
    another busy process beside it, the small model's forward pass took 0.23 s on one thread and 6.3 s on two).
    """
    small = model.config.get_text_config().hidden_size < SMALL
    torch.set_num_threads(1 if small else num_workers(workers))


def load_model(path: Path, device: str = "", max_pixels: int = 0) -> tuple[Qwen2_5_VLGSMForConditionalGeneration, Any]:
    """A model that the `train` stage saved, in evaluation mode, and its processor; a published Qwen2.5-VL has no GSM.

    Args:
        device: '' takes a GPU where there is one.
        max_pixels: of a frame, for a published Qwen2.5-VL; 0 leaves it to its processor.

    Raises:
        StageError: no model there, a file of it that is not whole, or tensors that are not the model's.
    """
    absent = missing_files(path)
    if absent[:1] == ["config.json"]:
        raise StageError(f"{path} holds no model: run `dsr train`, or `dvc repro train`")
    if absent:
        raise StageError(f"{path} is not whole: {', '.join(absent)}; copy it again, or remove it and run `dsr train`")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    source = _read_config(path)
    if source["model_type"] == Qwen2_5_VLConfig.model_type:
        warn(f"{path} is a published Qwen2.5-VL: it is scored without a GSM")
        from dsr.params import GSM

        model, processor = backbone(path, GSM(fusion="none"), max_pixels, "auto")
    elif source["model_type"] == Qwen2_5_VLGSMConfig.model_type:
        model, processor = _load(path, Qwen2_5_VLGSMConfig(**source), "auto", "sdpa"), _load_processor(path)
    else:
        raise StageError(f"{path} holds a {source['model_type']!r} model, not a Qwen2.5-VL")
    return model.to(device).eval(), processor


def make_model(
    params: "Model", gsm: "GSM", root: Path, texts: Iterable[str], dtype: torch.dtype = torch.float32
) -> tuple[Qwen2_5_VLGSMForConditionalGeneration, Any]:
    """The model that training starts from, seeded by `model.seed`, and its processor."""
    torch.manual_seed(params.seed)
    if params.backbone:
        folder, pi3 = project.locate(root, params.backbone), project.locate(root, params.pi3)
        return backbone(folder, gsm, params.max_pixels, dtype, pi3, params.prompt)
    model, processor = tiny(gsm, texts, params.max_pixels)
    if params.prompt:
        model.config.prompt = params.prompt
    for parameter in model.parameters():  # not the buffers, which RoPE needs exact
        parameter.data = parameter.data.to(dtype)
    return model, processor


def _frame_size(max_pixels: int) -> dict[str, int]:
    """Pixels of a frame as Qwen's processors take them: from one vision token's to `max_pixels`."""
    return {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": max_pixels}


def _attention(dtype: torch.dtype | str) -> str:
    """The fastest attention that is installed; flash-attention has no float32."""
    flash = torch.cuda.is_available() and is_flash_attn_2_available() and dtype in (torch.bfloat16, torch.float16)
    return "flash_attention_2" if flash else "sdpa"


def _gsm(gsm: "GSM") -> dict[str, Any]:
    return dataclasses.asdict(gsm) | {"encoders": list(gsm.encoders)}


def _require_weights(folder: Path) -> None:
    if missing := missing_files(folder):
        problem = f"no {missing[0]} in {folder}" if "(" not in missing[0] else f"{folder}: {missing[0]}"
        name = folder.name if folder.name.startswith("Qwen2.5-VL") else "Qwen2.5-VL-7B-Instruct"
        raise StageError(
            f"model.backbone: {problem}. The weights are published at "
            f"https://huggingface.co/Qwen/{name}; put the folder's files there "
            f"(`hf download Qwen/{name} --local-dir {folder}`), or set model.backbone: '' for a small one"
        )
