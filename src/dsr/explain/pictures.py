"""Figures as files: PNG, and JPEG inside a page. matplotlib is imported only when a picture is asked for."""

import base64
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.console import StageError
from dsr.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PNG_DPI, _JPEG_DPI, _JPEG_QUALITY = 100, 96, 80


def write_png(path: Path, draw: Callable[[], "Figure"]) -> None:
    """Write a figure whole; equal figures are equal bytes with the same matplotlib.

    Raises:
        StageError: matplotlib is not installed.
    """
    write_bytes(path, png_bytes(draw))


def png_bytes(draw: Callable[[], "Figure"]) -> bytes:
    """A figure as PNG; equal figures are equal bytes with the same matplotlib.

    Raises:
        StageError: matplotlib is not installed.
    """
    content = io.BytesIO()
    with _settings():
        draw().savefig(content, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return content.getvalue()


def jpeg_data_url(draw: Callable[[], "Figure"]) -> str:
    """A figure as a small `data:` URL.

    Raises:
        StageError: matplotlib is not installed.
    """
    content = io.BytesIO()
    with _settings():
        draw().savefig(content, format="jpeg", dpi=_JPEG_DPI, pil_kwargs={"quality": _JPEG_QUALITY, "optimize": True})
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _settings() -> AbstractContextManager[None]:
    try:
        import matplotlib
    except ImportError:
        raise StageError("pictures need matplotlib: pip install 'dsr[report]'") from None
    # A dollar sign in a label is no formula.
    return matplotlib.rc_context({"text.parse_math": False, "font.family": "DejaVu Sans"})
