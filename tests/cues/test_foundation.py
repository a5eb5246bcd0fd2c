"""The foundation backend in the cues stage, with small random models on rendered and real video.

What the models see is noise; what is tested is that a user's clips go the whole way, once, and come back as cues.
"""

import json
import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sam2", reason="the perception extra is not installed")
pytest.importorskip("groundingdino", reason="the perception extra is not installed")

from dsr import weights
from dsr.clips import catalog
from dsr.console import StageError
from dsr.cues import extract, store
from dsr.cues.backends import Decoded, foundation
from dsr.cues.backends.foundation import Backend, Models, cues_from_frames, unique_labels, words
from dsr.cues.clips import Clip
from dsr.cues.extract import make_backend
from dsr.cues.schema import read_cues
from dsr.curation import curate
from dsr.params import Clips, Cues, FoundationCues, Params
from dsr.perception.reconstruction import Reconstruction
from dsr.perception.tracks import Track, TrackingResult, Word, encode
from dsr.weights import foundation_weights
from dsr.workers import Failure, reason
from tests.real_clips import CAPTIONS, real_clips
from tests.safetensors_files import tensor_file
from tests.videos import make_video

TINY = Params(
    clips=Clips(source="mine"), cues=Cues(backend="foundation", foundation=FoundationCues(preset="tiny", decoders=1))
)

pytestmark = pytest.mark.slow


def map_here(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int, ahead: int = 1
) -> Generator[tuple[int, Any], None, None]:
    """As `map_isolated`, in this process, so that models are loaded once for all tests."""
    for k, item in enumerate(items):
        try:
            yield k, function(item)
        except Exception as error:
            yield k, Failure(reason(error))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "map_isolated", map_here)


def project(root: Path, rows: list[tuple[str, str, str, float, float]]) -> Path:
    """A project whose source is the files that lie in data/raw/mine, catalogued and curated."""
    table = pd.DataFrame(rows, columns=["clip_id", "file", "caption", "start", "end"])
    table.to_csv(root / "data/raw/mine/clips.csv", index=False)
    catalog.run(TINY, root, 1)
    curate.run(TINY, root, 1)
    return root


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered")
    source = root / "data/raw/mine"
    for name, rotation in (("plain", 0), ("turned", 90)):
        make_video(source / f"{name}.mp4", 40, (128, 96), rotation=rotation)
    caption = "A man walks past a red car."
    project(root, [(name, f"{name}.mp4", caption, 0.0, 4.0) for name in ("plain", "turned")])
    # Damaged after it was catalogued.
    extra = source / "gone.mp4"
    table = pd.read_parquet(root / "data/clips/curated.parquet")
    row = table.iloc[[0]].assign(clip_id="gone", file=str(extra.relative_to(root)))
    pd.concat([table, row]).to_parquet(root / "data/clips/curated.parquet")
    extra.write_bytes((source / "plain.mp4").read_bytes()[:3000])
    extract.run(TINY, root, 1)
    return root


def test_cues_of_a_video_come_from_frames_alone(rendered: Path) -> None:
    cues = read_cues(rendered / "data/cues/plain.npz")
    assert cues.num_frames == 32
    assert cues.num_tracks >= 1
    assert set(cues.labels.tolist()) <= {"man", "red car", "car", "second man", "second car", "third man", "third car"}
    assert cues.meta["identity"]["params"]["preset"] == "tiny"
    turned = read_cues(rendered / "data/cues/turned.npz")
    assert (turned.meta["width"], turned.meta["height"]) == (96, 128)
    assert turned.boxes[turned.visible][:, 2].max() <= 96
    assert turned.mask(0, int(np.argmax(turned.visible[0]))).shape == (128, 96)


def test_a_file_that_cannot_be_decoded_is_a_row_with_its_reason(rendered: Path) -> None:
    rows = store.read_manifest(rendered / "data/cues")["clips"]
    assert {name: row["status"] for name, row in rows.items()} == {"plain": "ok", "turned": "ok", "gone": "failed"}
    assert rows["gone"]["reason"].startswith("decoding: ")


def test_finished_clips_are_kept_and_decoded_frames_are_not(rendered: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (rendered / "data/cues").glob("*.npz")}
    extract.run(TINY, rendered, 1)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_same_clip_gives_the_same_bytes_in_another_process(rendered: Path, here: None) -> None:
    path = rendered / "data/cues/plain.npz"
    before = path.read_bytes()
    path.unlink()
    extract.run(TINY, rendered, 1)
    assert path.read_bytes() == before


def test_real_video_goes_the_whole_way(tmp_path: Path, here: None) -> None:
    clips = real_clips()
    source = tmp_path / "data/raw/mine"
    source.mkdir(parents=True)
    for name in ("vtest", "bikes"):
        (source / clips[name].name).write_bytes(clips[name].read_bytes())
    rows = [
        ("vtest", clips["vtest"].name, CAPTIONS["vtest"], 8.0, 14.0),
        ("bikes", clips["bikes"].name, CAPTIONS["bikes"], 0.0, 6.0),
    ]
    extract.run(TINY, project(tmp_path, rows), 1)
    manifest = store.read_manifest(tmp_path / "data/cues")["clips"]
    assert {row["status"] for row in manifest.values()} == {"ok"}, manifest
    for name, _, _, start, end in rows:
        cues = read_cues(tmp_path / f"data/cues/{name}.npz")
        # Seconds of the clip, not of the video that it is a part of.
        assert -1e-3 <= cues.timestamps[0] < cues.timestamps[-1] <= end - start + 1e-3
        assert cues.num_tracks >= 1
        assert (tmp_path / f"data/cues/{name}.npz").stat().st_size < 5 * 2**20


CLIP = Clip("c", "0" * 64, Path("c.mp4"), None, None, 0, 4, 64, 48, agents=("man",), objects=("car", "man"))


def write_weights(root: Path, skip: str = "") -> None:
    for use, weight in foundation_weights().items():
        if use == skip:
            continue
        path = root / weight.path
        if weight.is_file:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tensor_file(use))
        else:
            path.mkdir(parents=True)
            (path / "config.json").write_text("{}")
            (path / "model.safetensors").write_bytes(tensor_file())


def test_missing_weights_stop_the_stage_before_any_work(rendered: Path, tmp_path: Path) -> None:
    published = replace(TINY, cues=Cues(backend="foundation"))
    before = sorted((rendered / "data/cues").iterdir())
    with pytest.raises(StageError) as caught:
        extract.run(published, rendered, 1)
    for weight in foundation_weights().values():
        assert weight.path in str(caught.value)
        assert weight.published in str(caught.value)
    assert sorted((rendered / "data/cues").iterdir()) == before

    write_weights(tmp_path, skip="segmentation")
    with pytest.raises(StageError, match=r"1 checkpoints are missing.*sam2\.1_hiera_large\.pt"):
        Backend(published.cues).start(tmp_path)


def test_the_key_depends_on_weights_words_and_thresholds_and_hashes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_weights(tmp_path)
    read: list[Path] = []
    hash_file = weights.sha256_file
    monkeypatch.setattr(weights, "sha256_file", lambda path: read.append(path) or hash_file(path))

    def key(clip: Clip = CLIP, **changes: object) -> str:
        backend = make_backend(Cues(backend="foundation", foundation=FoundationCues(**changes)))  # type: ignore[arg-type]
        backend.start(tmp_path)
        return json.dumps(backend.identity(clip), sort_keys=True)

    first = key()
    # Four files and the two of BERT's folder.
    assert len(read) == 6
    assert key(replace(CLIP, clip_id="d")) == first
    assert key(device="cpu", batch_size=2, decoders=1, timeout=5.0, seed=9) == first
    assert len(read) == 6
    assert key(box_threshold=0.4) != first
    assert key(replace(CLIP, agents=("dog",))) != first
    (tmp_path / foundation_weights()["reconstruction"].path).write_bytes(tensor_file("other weights"))
    assert key() != first
    assert len(read) == 7


def test_hashes_of_weights_are_kept_from_run_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_weights(tmp_path)
    read: list[str] = []
    hash_file = weights.sha256_file
    monkeypatch.setattr(weights, "sha256_file", lambda path: read.append(path.name) or hash_file(path))

    def key() -> dict[str, str]:
        weights._hash.cache_clear()  # as another process
        read.clear()
        backend = Backend(Cues(backend="foundation"))
        backend.start(tmp_path)
        return backend.identity(CLIP)["weights"]

    first, kept = key(), tmp_path / "models/weights/.hashes.json"
    assert len(read) == 6
    assert (key(), read) == (first, [])
    sam = tmp_path / foundation_weights()["segmentation"].path
    sam.write_bytes(b"other weights")
    assert key()["segmentation"] == hash_file(sam) != first["segmentation"]
    assert read == [sam.name]
    # Same size, another time: read again, for it may be another file.
    os.utime(sam, ns=(1, 1))
    key()
    assert read == [sam.name]
    for damaged in ("{", "[]", kept.read_text().replace(hash_file(sam), "x"), kept.read_text().replace("size", "s")):
        kept.write_text(damaged)
        assert key()["segmentation"] == hash_file(sam)
        assert sam.name in read
    # A folder that is moved keeps its hashes.
    tmp_path = (tmp_path / "models").rename(tmp_path / "elsewhere").parent
    (tmp_path / "elsewhere").rename(tmp_path / "models")
    key()
    assert read == []


def test_a_word_that_is_both_is_an_agent() -> None:
    assert words(CLIP) == [Word("man", True), Word("car", False)]


def test_things_of_one_word_are_numbered() -> None:
    assert unique_labels(["man", "car", "man", "man"]) == ["man", "car", "second man", "third man"]
    assert unique_labels(["second man", "man", "man"]) == ["second man", "man", "third man"]
    assert unique_labels(["man"] * 12)[-1] == "12th man"


def test_nothing_found_is_a_finding(rendered: Path) -> None:
    models = replace(foundation.load_models(TINY.cues.foundation, Path()), ground=lambda frames, places, words: [])
    frames = np.random.default_rng(0).integers(0, 255, (32, 48, 64, 3), dtype=np.uint8)
    cues = cues_from_frames(Decoded(frames, np.arange(32), np.arange(32) / 8), [Word("man", True)], models, TINY.cues)
    assert cues.num_tracks == 0
    assert cues.camera_poses.shape == (32, 4, 4)


def test_many_ragged_tracks_at_720p_take_less_than_five_mebibytes(tmp_path: Path) -> None:
    """Sixteen people a third of the picture's height, their outlines as ragged as SAM's 256 x 256 masks can be."""
    size, cell = (720, 1280), 5
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0] // cell, : size[1] // cell]
    ragged = [
        np.kron(((y - 72) / 30) ** 2 + ((x - 20 - 14 * k) / 15) ** 2 + rng.normal(0, 0.2, y.shape) < 1, np.ones((5, 5)))
        for k in range(16)
    ]
    masks = [encode(mask > 0) for mask in ragged]
    tracks = [Track({Word("man", True): 1.0}, 0, {t: masks[(k + t) % 16] for t in range(32)}) for k in range(16)]
    points = np.concatenate([rng.normal(size=(32, 24, 32, 2)), 2 + rng.uniform(0, 0.01, (32, 24, 32, 1))], axis=-1)
    models = Models(
        ground=lambda frames, places, words: [],
        segment=lambda frames, detections: TrackingResult(tracks, left_out=3),
        reconstruct=lambda frames: Reconstruction.from_outputs(
            points, np.ones((32, 24, 32)), np.tile(np.eye(4), (32, 1, 1))
        ),
        orient=lambda views, rays: (np.tile(np.eye(3), (len(rays), 1, 1)), np.ones(len(rays))),
    )
    frames = np.zeros((32, *size, 3), np.uint8)
    cues = cues_from_frames(Decoded(frames, np.arange(32), np.arange(32) / 8), [Word("man", True)], models, TINY.cues)
    assert cues.visible.all()
    assert cues.num_tracks == 16
    entry = store.put(tmp_path, replace(CLIP, width=1280, height=720), {}, cues)
    assert 2**19 < entry.bytes < 5 * 2**20
    assert entry.left_out == 3
    store.write_manifest(tmp_path, "foundation", {"c": entry})
    assert store.read_manifest(tmp_path)["clips"]["c"]["left_out"] == 3


def test_on_the_cpu_the_detector_sees_frames_one_by_one() -> None:
    options = replace(TINY.cues.foundation, device="cpu")
    assert foundation.load_models(options, Path()).ground.batch_size == 1  # type: ignore[attr-defined]


def test_one_process_for_each_gpu_and_one_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Backend(TINY.cues)
    monkeypatch.setattr(foundation, "_num_gpus", lambda device: 0)
    assert [backend.processes(n) for n in (0, 1, 2, 16)] == [1, 1, 2, 2]
    monkeypatch.setattr(foundation, "_num_gpus", lambda device: 4)
    assert [backend.processes(n) for n in (0, 1, 16)] == [4, 1, 4]
