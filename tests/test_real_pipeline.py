"""Real videos through catalogue, curation, annotated cues and questions.

The pixels are real; nobody measured these clips, so the annotations tell made-up scenes. What is tested is the path
that a user with ground truth goes.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.clips import catalog
from dsr.cues import extract
from dsr.cues.schema import read_cues
from dsr.curation import curate
from dsr.params import Clips, Cues, Params, Split
from dsr.questions import generate, split
from tests.real_clips import CAPTIONS, real_clips
from tests.scenes import HEIGHT, WIDTH, random_cues

pytestmark = pytest.mark.slow

SECONDS = 6.0
FROM_VTEST = 10
PARAMS = Params(clips=Clips(source="real"), cues=Cues(backend="annotated"), split=Split(bench_fraction=0.5))


def annotation(seed: int, start: float, size: tuple[int, int]) -> dict[str, object]:
    """A made-up scene, told as somebody with a motion-capture room would."""
    scene = random_cues(seed)
    times = start + scene.timestamps / scene.timestamps[-1] * SECONDS
    scale = np.tile(np.array(size) / [WIDTH, HEIGHT], 2)
    tracks = []
    for track, label in enumerate(scene.labels.tolist()):
        seen = scene.visible[track]
        told: dict[str, object] = {
            "label": label,
            "agent": bool(scene.is_agent[track]),
            "frame": "camera",
            "boxes": [(scene.boxes[track, t] * scale).tolist() if seen[t] else None for t in range(len(seen))],
            "centers": [scene.centers[track, t].tolist() if seen[t] else None for t in range(len(seen))],
        }
        if scene.is_agent[track]:
            told["orientations"] = [
                scene.orientations[track, t].tolist() if seen[t] else None for t in range(len(seen))
            ]
        tracks.append(told)
    return {"timestamps": times.tolist(), "camera_poses": scene.camera_poses.tolist(), "tracks": tracks}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose source is real clips: trimmed pedestrians, cyclists, a man on the phone, and a broken file."""
    clips = real_clips()
    root = tmp_path_factory.mktemp("real")
    source = root / "data/raw/real"
    source.mkdir(parents=True)
    for name in ("vtest", "bikes"):
        (source / clips[name].name).write_bytes(clips[name].read_bytes())
    (source / "broken.json").write_text("{}")
    (source / "broken.mp4").write_bytes(clips["bikes"].read_bytes()[:20_000])
    rows = []
    for number in range(FROM_VTEST):
        start = 7.0 * number
        rows.append((f"vtest_{number}", clips["vtest"].name, CAPTIONS["vtest"], start, start + SECONDS))
        (source / f"vtest_{number}.json").write_text(json.dumps(annotation(number, start, (768, 576))))
    rows.append(("bikes", clips["bikes"].name, CAPTIONS["bikes"], 0.0, SECONDS))
    (source / "bikes.json").write_text(json.dumps(annotation(FROM_VTEST, 0.0, (640, 272))))
    rows.append(("broken", "broken.mp4", "A dog runs.", 0.0, SECONDS))
    table = pd.DataFrame(rows, columns=["clip_id", "file", "caption", "start", "end"])
    table["source_video"] = table.clip_id  # the made-up scenes have nothing in common
    table["annotation"] = table.clip_id + ".json"
    table.to_csv(source / "clips.csv", index=False)
    for stage in (catalog, curate, extract, generate, split):
        stage.run(PARAMS, root, 2)
    return root


def test_real_files_are_probed_and_the_broken_one_is_a_row(project: Path):
    table = pd.read_parquet(project / "data/clips/catalog.parquet").set_index("clip_id")
    assert table.loc["broken", "status"] == "failed"
    assert table.loc["broken", "reason"]
    good = table.drop("broken")
    assert (good.status == "ok").all()
    assert (good.loc[good.index.str.startswith("vtest"), ["width", "height"]] == [768, 576]).all(axis=None)
    # 10 frames a second in [start, start + 6].
    assert good.loc["vtest_3", "num_frames"] in (60, 61)


def test_real_captions_tell_agents(project: Path):
    table = pd.read_parquet(project / "data/clips/curated.parquet").set_index("clip_id")
    assert (table.status == "kept").all()
    assert any("pedestrian" in word for word in table.loc["vtest_0", "agents"])
    assert any("cyclist" in word for word in table.loc["bikes", "agents"])


def test_annotated_cues_tell_the_annotated_scene(project: Path):
    cues = read_cues(project / "data/cues/vtest_2.npz")
    told = random_cues(2)
    assert cues.labels.tolist() == told.labels.tolist()
    assert cues.num_frames == PARAMS.cues.num_frames
    both = cues.visible & told.visible
    assert both.sum() > 0.8 * told.visible.sum()
    # The clip's frames lie between the scene's moments, less than a 50th of it apart.
    error = np.linalg.norm(cues.centers - told.centers, axis=-1)[both]
    assert np.median(error) < 0.2


def test_questions_follow_on_both_sides(project: Path):
    pool = pd.read_parquet(project / "data/qa/pool.parquet")
    train, bench = (pd.read_parquet(project / f"data/qa/{name}.parquet") for name in ("train", "bench"))
    assert len(train) + len(bench) == len(pool) >= 40
    assert not set(train.source_video) & set(bench.source_video)
    assert set(pool.videoID) <= {f"vtest_{n}" for n in range(FROM_VTEST)} | {"bikes"}
