"""Differences between transformers 4.57 and 5: one name for each, which works with both.

| what                  | 4.57                                 | 5                                              |
| --------------------- | ------------------------------------ | ---------------------------------------------- |
| multimodal RoPE       | tables of each axis                  | one table, the axes' sections put together     |
| `get_*_features`      | tokens                               | an output that has them                        |
| positions of pictures | read from the token ids              | from `mm_token_type_ids`; without, as of text  |
| names in a checkpoint | a mapping of the class               | a table of the library                         |
| RoPE in a config.json | `rope_theta`, `rope_scaling`         | `rope_parameters`; it reads the older form too |
| Qwen's tokenizer      | tokenizer.json as it is              | its rules of cutting texts are made anew       |
| TensorBoard's folder  | an argument of training              | an environment variable                        |
| what is tied          | the text's configuration says it     | the whole model's does                         |
"""

import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, TrainingArguments
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel, Qwen2_5_VLRotaryEmbedding

TAKES_TOKEN_TYPES = "mm_token_type_ids" in signature(Qwen2_5_VLModel.forward).parameters
"""True if a model must be told where pictures are (transformers 5)."""


class MultimodalRotaryEmbedding(Qwen2_5_VLRotaryEmbedding):
    """Tables of multimodal RoPE (Qwen2-VL, arXiv 2409.12191, section 2.1).

    transformers 5 makes a loaded model's frequencies anew in classes that are named "…RotaryEmbedding".
    """

    def forward(self, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [b, n, e] in the dtype of `states`, of positions [3, b, n] (time, row, column)."""
        cos, sin = super().forward(states, positions)
        if cos.ndim == 3:
            return cos, sin
        sections = rope_sections(self.config) * 2
        both = (torch.cat([part[i % 3] for i, part in enumerate(t.split(sections, -1))], -1) for t in (cos, sin))
        return next(both), next(both)


def rope_sections(config: PretrainedConfig) -> list[int]:
    """Half head widths that time, row and column rotate (`mrope_section`)."""
    rope = getattr(config, "rope_parameters", None) or config.rope_scaling
    return list(rope["mrope_section"])


def with_older_rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """A text configuration with RoPE under the names that both versions read."""
    older, rope = dict(text), dict(text.get("rope_parameters") or {})
    if rope:
        del older["rope_parameters"]
        if "rope_theta" in rope:
            older["rope_theta"] = rope.pop("rope_theta")
        older["rope_scaling"] = rope
    return older


def picture_features(output: Any) -> list[Tensor]:
    """Tokens [n, d] of each image or video, of what `get_image_features` or `get_video_features` returned."""
    return list(getattr(output, "pooler_output", output))


def token_types(config: PretrainedConfig, input_ids: Tensor) -> dict[str, Tensor]:
    """Keyword `mm_token_type_ids` [b, s] of a forward pass: 0 text, 1 image, 2 video; none where it is not taken."""
    if not TAKES_TOKEN_TYPES:
        return {}
    types = (input_ids == config.image_token_id).long() + 2 * (input_ids == config.video_token_id).long()
    return {"mm_token_type_ids": types}


def register_names(model: type[PreTrainedModel], renaming: Mapping[str, str]) -> None:
    """Have checkpoints of a class read by a renaming of their tensors (pattern to its replacement)."""
    try:
        from transformers.conversion_mapping import WeightRenaming, register_checkpoint_conversion_mapping
    except ImportError:
        return  # the class's `_checkpoint_conversion_mapping` is read
    renamings = [WeightRenaming(source_patterns=pattern, target_patterns=new) for pattern, new in renaming.items()]
    register_checkpoint_conversion_mapping(model.__name__, renamings, overwrite=True)


def cut_as(tokenizer: Any, wanted: Tokenizer) -> None:
    """Have a fast tokenizer cut texts as another does; transformers 5 has given it the rules of Qwen's own."""
    backend = tokenizer.backend_tokenizer
    if TAKES_TOKEN_TYPES:
        for rule in ("normalizer", "pre_tokenizer", "decoder"):
            setattr(backend, rule, getattr(wanted, rule))


def tensorboard_arguments(folder: Path | None) -> dict[str, Any]:
    """Arguments of training that have TensorBoard's files written to a folder."""
    if folder is None:
        return {}
    if "logging_dir" in signature(TrainingArguments).parameters:
        return {"logging_dir": str(folder)}
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
    return {}


def tied_names(model: PreTrainedModel) -> set[str]:
    """Names of the parameters that are other parameters, which a checkpoint does not hold."""
    text = model.config.get_text_config()
    tied = getattr(text, "tie_word_embeddings", False) or getattr(model.config, "tie_word_embeddings", False)
    return set(model._tied_weights_keys or ()) if tied else set()
