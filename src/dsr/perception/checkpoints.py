"""Published checkpoints: read without executing anything in them, loaded only if they fit exactly."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dsr.console import StageError
from dsr.weights import count_names, file_problem


def read_safetensors(path: Path, published: str, prefix: str = "") -> dict[str, Tensor]:
    """Tensors whose names start with `prefix`, without it, on the CPU.

    Args:
        published: where the checkpoint can be had, for the error.

    Raises:
        StageError: no such file, or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, published, error) from None


def read_pt(path: Path, published: str, entry: str = "") -> dict[str, Tensor]:
    """Tensors of a `torch.save`d state dict, on the CPU; pickled code is refused, not run.

    Args:
        entry: key of the file's mapping that holds the state dict; the whole file if not given.

    Raises:
        StageError: no such file, or not a state dict of tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state[entry] if entry else state
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise _unreadable(path, published, error) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise _unreadable(path, published, "not a mapping of names to tensors")
    return dict(state)


def load_exactly(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    path: Path,
    published: str,
    layout: Mapping[str, tuple[str, ...]] | None = None,
) -> None:
    """Put tensors into a module, which may be on the meta device; floating ones become float32.

    Args:
        tensors: the checkpoint, read from `path`.
        layout: for each of the module's names, the checkpoint's names whose tensors are stacked along the first axis
            to make it; the same name where it is not given.

    Raises:
        StageError: a name is missing or unexpected, or a shape differs.
    """
    state = module.state_dict()
    layout = {name: (name,) for name in state} if layout is None else layout
    expected = {name: _part(state[ours].shape, len(names)) for ours, names in layout.items() for name in names}
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        ],
    }
    if any(problems.values()):
        counts = "; ".join(count_names(names, kind) for kind, names in problems.items() if names)
        raise StageError(f"{path}: not the parameters of this model: {counts}; get it from {published}")
    merged = {
        ours: _as_float32(torch.cat([tensors[name] for name in names]) if len(names) > 1 else tensors[names[0]])
        for ours, names in layout.items()
    }
    module.load_state_dict(merged, assign=True)


def _part(shape: torch.Size, count: int) -> torch.Size:
    return torch.Size([shape[0] // count, *shape[1:]]) if count > 1 else shape


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _unreadable(path: Path, published: str, reason: object) -> StageError:
    if not path.is_file():
        return StageError(f"{path}: no such file; get it from {published}")
    # A pointer or a file cut short is told as such, whatever the library makes of it.
    first_line = file_problem(path) or str(reason).split("\n", 1)[0]
    return StageError(f"{path}: not a readable checkpoint ({first_line}); get it from {published}")
