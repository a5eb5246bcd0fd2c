"""A small project whose clips, labels and captions a report must survive: one label is HTML, one is a formula."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.cues.schema import SCHEMA_VERSION, ClipCues, encode_masks
from dsr.cues.schema import write_cues as write
from dsr.files import write_json, write_parquet
from dsr.params import QA, Params
from dsr.questions import generate, split
from tests.scenes import HEIGHT, WIDTH, random_cues
from tests.videos import make_video

NUM_CLIPS = 10
HOSTILE, FORMULA = "<script>alert(1)</script>", "$x^{_"
PARAMS = Params(qa=QA(candidates=2560, keep_per_clip_type=80, num_blocks=2, max_per_clip=12, max_per_clip_type=3))


@pytest.fixture(scope="session", autouse=True)
def coarse_pictures() -> Iterator[None]:
    """Pictures are laid out as always and drawn with fewer pixels, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsr.explain.pictures._PNG_DPI", 25)
        patch.setattr("dsr.explain.pictures._JPEG_DPI", 25)
        yield


def with_label(cues: ClipCues, track: int, label: str) -> ClipCues:
    labels = [label if i == track else name for i, name in enumerate(cues.labels.tolist())]
    return dataclasses.replace(cues, labels=np.array(labels))


def with_masks(cues: ClipCues) -> ClipCues:
    """Every visible track gets the middle of its box as mask."""
    masks = np.zeros((cues.num_tracks, cues.num_frames, HEIGHT, WIDTH), bool)
    for track, frame in zip(*np.nonzero(cues.visible), strict=True):
        left, top, right, bottom = np.clip(cues.boxes[track, frame], 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(int)
        masks[track, frame, top:bottom, left:right] = True
    rle, offsets = encode_masks(masks, cues.visible)
    rng = np.random.default_rng(0)
    points = rng.normal((0, 0, 5), size=(cues.num_frames, 4, 4, 3)).astype(np.float32)
    return dataclasses.replace(
        cues,
        mask_rle=rle,
        mask_offsets=offsets,
        point_map=points,
        confidence=np.ones(points.shape[:3], np.float32),
    )


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips with cues (the first with a video and masks), a pool of questions, and its split."""
    root = tmp_path_factory.mktemp("report") / "project"
    rows = []
    for number in range(NUM_CLIPS):
        clip_id = f"clip_{number:02d}"
        cues = random_cues(number)
        cues.meta.update(clip_id=clip_id, key=f"key{number}", identity={"backend": "annotated"})
        file = ""
        if number == 0:
            file = f"data/raw/own/{clip_id}.mp4"
            make_video(root / file, num_frames=40)
            cues = with_masks(cues)
        cues = with_label(cues, 0, (HOSTILE, FORMULA)[number % 2])
        write(root / f"data/cues/{clip_id}.npz", cues)
        rows.append(
            {
                "clip_id": clip_id,
                "status": "kept",
                "reason": "",
                "source_video": clip_id,
                "category": HOSTILE,
                "file": file,
                "truth": "",
                "annotation": "",
                "sha256": "",
                "start": 0.0,
                "end": 6.0,
                "width": WIDTH,
                "height": HEIGHT,
                "agents": [HOSTILE],
                "objects": ["ball"],
            }
        )
    dropped = {**rows[-1], "clip_id": "still", "status": "dropped", "reason": f"static: {HOSTILE}"}
    curated = pd.DataFrame([*rows, dropped])
    write_parquet(root / "data/clips/curated.parquet", curated)
    write_parquet(root / "data/clips/catalog.parquet", curated.assign(status="ok", reason=""))
    clips = {row["clip_id"]: {"status": "ok", "reason": "", "key": "", "tracks": 4} for row in rows}
    clips["gone"] = {"status": "failed", "reason": "cannot be decoded", "key": "", "tracks": 0}
    manifest = {"schema_version": SCHEMA_VERSION, "backend": "annotated", "clips": clips}
    write_json(root / "data/cues/manifest.json", manifest)
    (root / "params.yaml").write_text("")
    generate.run(PARAMS, root, workers=1)
    split.run(PARAMS, root)
    return root
