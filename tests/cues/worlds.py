"""Tiny worlds with hand-placed bodies, as truth files and project folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dsr.files import sha256_file, write_parquet
from dsr.simulator.truth import Truth, write_truth

SIZE = (240, 320)
FOCAL = 300.0
INTRINSICS = np.array([[FOCAL, 0, SIZE[1] / 2], [0, FOCAL, SIZE[0] / 2], [0, 0, 1.0]])
LOOKING_ALONG_X = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""[3, 3] camera-to-world of a level camera that looks along world x (z up)."""
LOOKING_ALONG_Y = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def pose(rotation: np.ndarray, position: Sequence[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, position
    return matrix


def facing(degrees: float) -> np.ndarray:
    """[3, 3] rotation about the vertical: 0 faces world x, 90 faces world y."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def make_truth(
    cameras: np.ndarray,
    bodies: np.ndarray,
    *,
    agents: Sequence[bool],
    half_extents: float = 0.5,
    seen: np.ndarray | None = None,
    fps: float = 10,
) -> Truth:
    """A trajectory-only truth whose boxes are the projected corners of the bodies.

    Args:
        cameras: [F, 4, 4] camera-to-world.
        bodies: [F, B, 4, 4] world-from-body.
        seen: [F, B] visible fraction; default 1 for every body in front of the camera and in the image.
    """
    frames, count = bodies.shape[:2]
    extents = np.full((count, 3), half_extents)
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
    corners = np.einsum("fbij,bkj->fbki", bodies[..., :3, :3], signs * extents[:, None]) + bodies[:, :, None, :3, 3]
    local = np.einsum("fji,fbkj->fbki", cameras[:, :3, :3], corners - cameras[:, None, None, :3, 3])
    ahead = (local[..., 2] > 0.1).all(axis=-1)
    pixels = np.einsum("ij,fbkj->fbki", INTRINSICS, local)
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = pixels[..., :2] / pixels[..., 2:]
    limit = np.array([SIZE[1], SIZE[0]], float)
    low, high = np.clip(pixels.min(axis=2), 0, limit), np.clip(pixels.max(axis=2), 0, limit)
    fraction = (ahead & (high - low > 1).all(axis=-1)).astype(np.float32)
    if seen is not None:
        fraction *= seen
    boxes = np.where(fraction[..., None] > 0, np.concatenate([low, high], axis=-1), np.nan)
    return Truth(
        timestamps=np.arange(frames) / fps,
        camera_poses=cameras,
        intrinsics=INTRINSICS,
        size=np.array(SIZE, np.int64),
        labels=np.array([f"body {k}" for k in range(count)]),
        words=np.array(["body"] * count),
        is_agent=np.array(agents, bool),
        body_poses=bodies,
        half_extents=extents,
        boxes=boxes.astype(np.float32),
        visible_fraction=fraction.astype(np.float32),
        rendered=np.array(False),
    )


def walk(seed: int, frames: int = 40, count: int = 3) -> Truth:
    """Bodies that drift about in front of a camera that sways; bodies 0, 2, … are agents."""
    rng = np.random.default_rng(seed)
    steps = np.linspace(0, 1, frames)[:, None]
    starts, ends = rng.uniform([4, -2, 0.5], [9, 2, 0.5], (2, count, 3))
    bodies = np.tile(np.eye(4), (frames, count, 1, 1))
    bodies[..., :3, 3] = starts + (ends - starts) * steps[..., None]
    for k in range(count):
        bodies[:, k, :3, :3] = facing(rng.uniform(0, 360))
    cameras = np.stack([pose(LOOKING_ALONG_X, [0.0, 0.3 * np.sin(6 * s[0]), 1.5]) for s in steps])
    return make_truth(cameras, bodies, agents=[k % 2 == 0 for k in range(count)])


class Project:
    """A project folder with a simulated source whose clips come and go."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw = root / "data/raw/simulated"
        self.raw.mkdir(parents=True)
        self.rows: dict[str, dict[str, object]] = {}

    @property
    def cues(self) -> Path:
        return self.root / "data/cues"

    def add(self, clip_id: str, truth: Truth | None = None) -> None:
        """Add a trajectory-only clip; each id has a walk of its own unless `truth` is given."""
        path = self.raw / f"{clip_id}.npz"
        truth = truth or walk(seed=sum(clip_id.encode()))
        write_truth(path, truth)
        self.add_row(
            clip_id,
            truth=str(path.relative_to(self.root)),
            sha256=sha256_file(path),
            end=float(truth.timestamps[-1]) + 0.1,
        )

    def add_row(self, clip_id: str, **columns: object) -> None:
        row = {"clip_id": clip_id, "status": "kept", "reason": "", "file": "", "truth": "", "annotation": ""}
        row |= {"sha256": "0" * 64, "start": 0.0, "end": 4.0, "width": SIZE[1], "height": SIZE[0]}
        self.rows[clip_id] = row | {"agents": ["body 0"], "objects": ["body 1"]} | columns
        self.save()

    def remove(self, clip_id: str) -> None:
        del self.rows[clip_id]
        self.save()

    def save(self) -> None:
        rows = [self.rows[clip_id] for clip_id in sorted(self.rows)]
        write_parquet(self.root / "data/clips/curated.parquet", pd.DataFrame(rows))
