"""Models to start from: a small one that is made here, a published backbone, or one that this project saved.

`tiny` is the real Qwen2.5-VL architecture (windowed vision tower, multimodal RoPE, grouped-query attention) at a size
that trains on two cores in minutes, randomly initialised, with a tokenizer trained on the questions.
"""

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessorFast,
    Qwen2VLVideoProcessor,
)
from transformers.utils import is_flash_attn_2_available

from dsr import project
from dsr.console import StageError, num_workers
from dsr.mcq import INSTRUCTION, LETTERS, SYSTEM
from dsr.model.chat import letter_ids
from dsr.model.geometry_encoders import CAMERA_LABEL, MERGE
from dsr.model.qwen2_5_vl_gsm import Qwen2_5_VLGSMConfig, Qwen2_5_VLGSMForConditionalGeneration
from dsr.params import GSM, Model
from dsr.perception.dinov2 import PATCH
from dsr.perception.pi3 import load_encoder

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
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 2, 2]},
    "tie_word_embeddings": True,
    # 0.02 is for widths of thousands; a narrow model starts with signals far too weak.
    "initializer_range": 0.1,
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
    return Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        bos_token=None,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )


def tiny(gsm: GSM, texts: Iterable[str], max_pixels: int) -> tuple[Qwen2_5_VLGSMForConditionalGeneration, Any]:
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
    folder: Path, gsm: GSM, max_pixels: int, dtype: torch.dtype, pi3: Path = Path(Model.pi3)
) -> tuple[Qwen2_5_VLGSMForConditionalGeneration, Any]:
    """A published Qwen2.5-VL (or a model saved by this project) with the GSM of the parameters.

    Weights that the folder lacks (all of the GSM's, for a published backbone) are drawn from torch's global generator,
    but for the encoder `pi3`, whose are read from its checkpoint.

    Raises:
        StageError: no such folder, or not a Qwen2.5-VL; no checkpoint of pi3 where one is needed.
    """
    _require_weights(folder)
    source = Qwen2_5_VLConfig.get_config_dict(folder)[0]
    if source.get("model_type") not in (Qwen2_5_VLConfig.model_type, Qwen2_5_VLGSMConfig.model_type):
        raise StageError(f"{folder} holds a {source.get('model_type')!r} model: model.backbone must be a Qwen2.5-VL")
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    letters = letter_ids(processor.tokenizer)
    former = source.get("gsm", {})
    sizes = {"sizes": former["sizes"]} if "sizes" in former else {}
    config = Qwen2_5_VLGSMConfig(**{**source, "gsm": _gsm(gsm) | sizes, "letter_token_ids": letters})
    # Read first: a file that is missing is told before the backbone is loaded.
    lacks_pi3 = "pi3" in gsm.encoders and gsm.fusion != "none" and "pi3" not in former.get("encoders", ())
    encoder = load_encoder(pi3) if lacks_pi3 else None
    model = Qwen2_5_VLGSMForConditionalGeneration.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation=_attention(dtype), local_files_only=True
    )
    if encoder is not None:
        model.model.geometry["pi3"].encoder.load_state_dict(encoder.state_dict())
    processor.tokenizer.padding_side = "left"
    processor.video_processor.size = _frame_size(max_pixels)
    return model, processor


SMALL = 1024
"""Hidden size below which one thread is fastest."""


def share_cores(model: Qwen2_5_VLGSMForConditionalGeneration, workers: int) -> None:
    """Set how many cores one operation on the CPU is spread over.

    A small model's operations take microseconds: threads would wait for one another longer than they compute (with
    another busy process beside it, the small model's forward pass took 0.23 s on one thread and 6.3 s on two).
    """
    small = model.config.get_text_config().hidden_size < SMALL
    torch.set_num_threads(1 if small else num_workers(workers))


def load_model(path: Path, device: str = "") -> tuple[Qwen2_5_VLGSMForConditionalGeneration, Any]:
    """A model that the `train` stage saved, in evaluation mode, and its processor.

    Args:
        device: '' takes a GPU where there is one.

    Raises:
        StageError: no model there.
    """
    if not (path / "config.json").is_file():
        raise StageError(f"{path} holds no model: run `dsr train`, or `dvc repro train`")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = Qwen2_5_VLGSMForConditionalGeneration.from_pretrained(path, dtype="auto", local_files_only=True)
        processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"{path} cannot be loaded ({error}): remove it and run `dsr train`") from error
    return model.to(device).eval(), processor


def make_model(
    params: Model, gsm: GSM, root: Path, texts: Iterable[str], dtype: torch.dtype = torch.float32
) -> tuple[Qwen2_5_VLGSMForConditionalGeneration, Any]:
    """The model that training starts from, seeded by `model.seed`, and its processor."""
    torch.manual_seed(params.seed)
    if params.backbone:
        folder, pi3 = project.locate(root, params.backbone), project.locate(root, params.pi3)
        return backbone(folder, gsm, params.max_pixels, dtype, pi3)
    model, processor = tiny(gsm, texts, params.max_pixels)
    for parameter in model.parameters():  # not the buffers, which RoPE needs exact
        parameter.data = parameter.data.to(dtype)
    return model, processor


def _frame_size(max_pixels: int) -> dict[str, int]:
    """Pixels of a frame as Qwen's processors take them: from one vision token's to `max_pixels`."""
    return {"shortest_edge": (PATCH * MERGE) ** 2, "longest_edge": max_pixels}


def _attention(dtype: torch.dtype) -> str:
    """The fastest attention that is installed; flash-attention has no float32."""
    flash = torch.cuda.is_available() and is_flash_attn_2_available() and dtype != torch.float32
    return "flash_attention_2" if flash else "sdpa"


def _gsm(gsm: GSM) -> dict[str, Any]:
    return {"fusion": gsm.fusion, "num_tokens": gsm.num_tokens, "encoders": list(gsm.encoders)}


def _require_weights(folder: Path) -> None:
    missing = "config.json" if not (folder / "config.json").is_file() else ""
    if not missing and not any(folder.glob("*.safetensors")):
        missing = "*.safetensors"
    if missing:
        name = folder.name if folder.name.startswith("Qwen2.5-VL") else "Qwen2.5-VL-7B-Instruct"
        raise StageError(
            f"model.backbone: no {missing} in {folder}. The weights are published at "
            f"https://huggingface.co/Qwen/{name}; put the folder's files there "
            f"(`hf download Qwen/{name} --local-dir {folder}`), or set model.backbone: '' for a small one"
        )
