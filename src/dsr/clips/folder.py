"""Video files of a folder, by name."""

import os
from pathlib import Path

_SUFFIXES = "mp4 m4v mov avi mkv webm mpg mpeg ts mts m2ts wmv flv 3gp ogv gif"
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""Files that count as videos where no table names them."""


def find_videos(folder: Path, follow_links: bool = False) -> dict[str, list[Path]]:
    """Videos below a folder by stem, in the order of their paths; hidden files and folders are left out.

    Args:
        follow_links: look into folders that are links, too, each folder once.
    """
    found: dict[str, list[Path]] = {}
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=follow_links):
        if follow_links:
            status = os.stat(parent)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                found.setdefault(path.stem, []).append(path)
    return found
