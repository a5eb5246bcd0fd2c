"""Catalogue, decoding and curation on real video."""

import shutil
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from dsr import project
from dsr.clips import catalog
from dsr.clips.video import probe, read_frames, uniform_frames
from dsr.curation import curate
from dsr.params import Clips, Params
from tests.real_clips import CAPTIONS, real_clips

pytestmark = pytest.mark.slow


def test_real_clips_are_catalogued_decoded_and_curated(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "raw" / "real"
    folder.mkdir(parents=True)
    for path in real_clips().values():
        shutil.copy(path, folder)
    lines = [f'{name},"{caption}"\n' for name, caption in CAPTIONS.items()]
    (folder / "clips.csv").write_text("videoID,caption\n" + "".join(lines))
    params = Params(clips=Clips(source="real"))
    catalog.run(params, tmp_path, 1)
    curate.run(params, tmp_path, 1)
    table = pd.read_parquet(tmp_path / project.CURATED).set_index("clip_id")
    measured = table[["num_frames", "width", "height"]].apply(tuple, axis=1).to_dict()
    assert measured["vtest"] == (795, 768, 576)
    assert measured["bikes"] == (250, 640, 272)
    assert measured["carphone_pristine"] == (120, 193, 144), "176 pixels that are 12:11 wide"
    assert table.loc["vtest", "duration"] == pytest.approx(79.5)
    assert (table["status"] == "kept").all(), table["reason"].to_dict()
    assert table["agents"].map(list).to_dict() == {
        "bikes": ["cyclist", "bike", "car"],
        "box": ["man"],
        "carphone_pristine": ["man", "car"],
        "vtest": ["pedestrian"],
    }
    assert table["objects"].map(list)["vtest"] == ["building"]
    assert table["dynamic"].all()
    for path in real_clips().values():
        num_frames = probe(path).num_frames
        frames = read_frames(path, uniform_frames(num_frames, 32), max_pixels=320 * 240)
        assert len(frames) == 32
        changes = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
        assert (changes > 0.1).all()


@pytest.mark.parametrize("name", sorted(CAPTIONS))
def test_frames_are_those_that_reading_through_gives(name: str) -> None:
    """box.mp4 has B-frames and only decoding times, which decord takes for the times of presentation."""
    path = real_clips()[name]
    wanted = uniform_frames(probe(path).num_frames, 8)
    frames = dict(zip(wanted.tolist(), read_frames(path, wanted).astype(int), strict=True))
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i in frames:
                height, width = frames[i].shape[:2]
                through = frame.to_ndarray(format="rgb24", width=width, height=height)
                assert np.abs(frames[i] - through).mean() < 1.2
