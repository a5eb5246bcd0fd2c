"""Low-rank adapters (LoRA, arXiv 2106.09685; peft) of the language model, for GPUs that cannot hold its gradients.

Adapters are put into the model in place, and merged into its weights before it is saved, so that a model folder is the
same whether it was trained with them or without.
"""

import re
from importlib.util import find_spec

from torch import nn

from dsr.console import StageError

ADAPTED = re.compile(r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj")
MARK = ".lora_"
"""In the name of an adapter's parameter."""


def add_adapters(model: nn.Module, rank: int) -> None:
    """Put adapters beside every projection of the language model's layers; alpha is twice the rank.

    Raises:
        StageError: peft is not installed.
    """
    if find_spec("peft") is None:
        raise StageError(f"train.lora_rank is {rank}, but peft is not installed: pip install 'dsr[lora]'")
    from peft import LoraConfig, inject_adapter_in_model

    targets = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ADAPTED.fullmatch(name)
    ]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), model)


def merge_adapters(model: nn.Module) -> None:
    """Add every adapter to its weights, and leave the model without any."""
    if find_spec("peft") is None:
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
