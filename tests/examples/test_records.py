"""Rows and clips: every row is used or missing with a reason, and frames are what the video processor makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dsr.clips import video
from dsr.console import StageError
from dsr.cues.schema import read_cues
from dsr.examples import clips
from dsr.examples.clips import ClipStore
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import load_examples
from dsr.model import presets
from dsr.model.geometry_encoders import Grid
from dsr.params import GSM
from tests.training.projects import FRAMES, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def processor(project: Path) -> Any:
    return presets.tiny(GSM(num_tokens=4), ["Which way?"], max_pixels=56 * 84)[1]


def inputs_of(project: Path, processor: Any, **options: Any) -> ClipInputs:
    return ClipInputs(ClipStore.of_project(project, **options), processor)


@pytest.fixture
def store(project: Path, processor: Any) -> ClipInputs:
    return inputs_of(project, processor)


def questions(project: Path) -> pd.DataFrame:
    return pd.read_parquet(project / "data/qa/train.parquet")


@pytest.mark.parametrize("shown", [FRAMES, 6, 5, 1])
def test_patches_are_those_of_the_video_processor(shown: int, project: Path, processor: Any, store: ClipInputs) -> None:
    cues = read_cues(project / "data/cues/clip_1.npz")
    frames = video.read_frames(project / "data/raw/toy/clip_1.mp4", cues.frame_index[:shown])
    expected = processor.video_processor(videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)], return_tensors="pt")
    got = store.video("clip_1", shown)
    assert list(got.grid_thw) == expected["video_grid_thw"][0].tolist() == [-(-shown // 2), 4, 4]
    torch.testing.assert_close(store.normalise(got.patches), expected["pixel_values_videos"], atol=1e-6, rtol=0)


def test_a_clip_is_decoded_once(store: ClipInputs, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(clips, "read_frames", lambda *a: calls.append(a[0]) or video.read_frames(*a))
    load_examples(questions(project), store, workers=2)
    for shown in (8, 3, 8):
        store.video("clip_0", shown)
        store.video("clip_1", shown)
    assert sorted(path.stem for path in calls) == ["clip_0", "clip_1"]


def test_a_small_cache_forgets_but_gives_the_same(project: Path, processor: Any, store: ClipInputs) -> None:
    small = inputs_of(project, processor, cache_bytes=1)
    assert len(load_examples(questions(project), small)[0]) == 12
    assert small.clips.is_full
    for clip in ("clip_0", "clip_1", "clip_0"):
        assert torch.equal(small.video(clip, FRAMES).patches, store.video(clip, FRAMES).patches)


def test_every_row_is_an_example_or_missing_with_its_reason(tmp_path: Path, processor: Any) -> None:
    root = make_project(tmp_path, clips=7, rows=1, videos=5)
    (root / "data/cues/clip_0.npz").unlink()
    (root / "data/cues/clip_1.npz").write_bytes(b"nothing")
    (root / "data/raw/toy/clip_2.mp4").unlink()
    (root / "data/raw/toy/clip_3.mp4").write_bytes(b"nothing")
    table = questions(root)
    table.loc[7] = table.loc[4].to_dict() | {"videoID": "unknown", "qa_id": "q7"}
    table.loc[8] = table.loc[4].to_dict() | {"options": ["A. a", "B. b", "C. c"], "qa_id": "q8"}
    table.loc[9] = table.loc[4].to_dict() | {"answer": "E", "qa_id": "q9"}
    table.loc[10] = table.loc[4].to_dict() | {"shown_frames": 0, "qa_id": "q10"}
    store = inputs_of(root, processor)
    examples, reasons = load_examples(table, store)
    assert [example.qa_id for example in examples] == ["q4_0", "q5_0", "q6_0"]
    assert store.clips.without_video(["clip_4", "clip_5", "clip_6", "unknown"]) == ["clip_5", "clip_6"]
    assert len(examples) + len(reasons) == len(table)
    assert "no cues" in reasons["q0_0"]
    assert "not a readable cue file" in reasons["q1_0"]
    assert reasons["q2_0"] == f"no video: {root}/data/raw/toy/clip_2.mp4 does not exist"
    assert "not a readable video" in reasons["q3_0"]
    assert reasons["q7"] == "not in the catalogue"
    assert reasons["q8"] == "options must be a list of 4 texts, not ['A. a', 'B. b', 'C. c']"
    assert reasons["q9"] == "answer must be A, B, C or D, not 'E'"
    assert reasons["q10"] == "shown_frames is 0"


def test_published_columns_alone_are_enough(project: Path, store: ClipInputs) -> None:
    published = questions(project)[["videoID", "question", "options", "answer", "type"]]
    examples, missing = load_examples(published, store)
    assert [example.qa_id for example in examples] == [str(row) for row in range(12)]
    assert {example.shown_frames for example in examples} == {FRAMES}
    assert missing == {}


def test_a_clip_without_video_is_black_frames_of_its_size(store: ClipInputs) -> None:
    blank, real = store.video("clip_3", FRAMES), store.video("clip_0", FRAMES)
    assert blank.grid_thw == real.grid_thw
    assert blank.patches.sum() == 0
    assert real.patches.float().mean() > 10


def test_geometry_is_of_the_shown_frames_on_the_grid_of_the_video(store: ClipInputs) -> None:
    arrays = store.geometry("clip_0", "point_map", Grid(5, 2, 3))
    assert arrays["values"].shape == (3 * 2 * 3, 46)
    assert store.seconds_per_group("clip_0") == pytest.approx(2 * 6 / 7)


def test_without_a_catalogue_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="run `dsr catalog`"):
        ClipStore.of_project(tmp_path)


def test_odd_frames_repeat_the_last_one_shown(store: ClipInputs) -> None:
    whole, odd = store.video("clip_1", FRAMES), store.video("clip_1", 5)
    last = odd.patches[-16:].view(16, 3, 2, 196)
    assert torch.equal(last[:, :, 0], last[:, :, 1])
    assert torch.equal(odd.patches[:32], whole.patches[:32])
    # The cached patches stay as they were.
    assert not np.array_equal(whole.patches[32:48].view(16, 3, 2, 196)[:, :, 0], last[:, :, 1] * 0)
    assert torch.equal(store.video("clip_1", FRAMES).patches, whole.patches)
