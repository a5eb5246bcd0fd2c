"""Small files of weights for tests."""

import numpy as np
from safetensors.numpy import save

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 3556377672\n"
"""What git leaves in the place of a file that git-lfs has."""


def tensor_file(text: str = "x") -> bytes:
    """A safetensors file whose content is a text's."""
    return save({"text": np.frombuffer(text.encode(), np.uint8)})
