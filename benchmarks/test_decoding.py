"""Decoding 32 uniform frames of a 60 s 720p H.264 clip: `read_frames` beside decord, PyAV and OpenCV.

`pytest benchmarks/test_decoding.py --benchmark-enable`. All give the same frames, which is checked. The file is made on
the spot. Times of one run are compared with each other: each reader on one thread, in turns, by processor time.
"""

import time
from collections.abc import Callable
from pathlib import Path

import av
import decord
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dsr.clips.video import probe, read_frames, uniform_frames

SECONDS, FPS, SIZE, COUNT = 60, 30, (1280, 720), 32
NUM_FRAMES = SECONDS * FPS
ROUNDS = 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise that drifts, so that there is something to decode; x264's keyframes and B-frames."""
    path = tmp_path_factory.mktemp("decoding") / "clip.mp4"
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8 + NUM_FRAMES, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.options = {"preset": "veryfast", "crf": "23"}
        for i in range(NUM_FRAMES):
            window = texture[:, i : i + SIZE[0] // 8]
            picture = np.ascontiguousarray(window.repeat(8, axis=0).repeat(8, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def with_decord(path: Path, wanted: np.ndarray) -> np.ndarray:
    return decord.VideoReader(str(path), num_threads=1).get_batch(wanted).asnumpy()


def with_pyav(path: Path, wanted: np.ndarray) -> np.ndarray:
    """Reading through."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        chosen = set(wanted.tolist())
        frames = enumerate(container.decode(video=0))
        return np.stack([frame.to_ndarray(format="rgb24") for i, frame in frames if i in chosen])


def with_pyav_seeks(path: Path, wanted: np.ndarray) -> np.ndarray:
    """From the keyframe before each frame."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for index in wanted.tolist():
            pts = round(index / FPS / stream.time_base)
            container.seek(pts, stream=stream)
            frame = next(frame for frame in container.decode(stream) if frame.pts >= pts)
            found.append(frame.to_ndarray(format="rgb24"))
    return np.stack(found)


def with_opencv(path: Path, wanted: np.ndarray) -> np.ndarray:
    cv2 = pytest.importorskip("cv2", reason="the OpenCV baseline needs opencv-python")
    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    chosen, frames = set(wanted.tolist()), []
    for i in range(int(wanted[-1]) + 1):
        capture.grab()
        if i in chosen:
            frames.append(capture.retrieve()[1][..., ::-1])
    return np.stack(frames)


READERS = {"decord": with_decord, "PyAV": with_pyav, "PyAV with seeks": with_pyav_seeks, "OpenCV": with_opencv}


def test_uniform_frames(benchmark: BenchmarkFixture, clip: Path) -> None:
    """`extra_info` holds how many times our processor time the others take."""
    wanted = uniform_frames(NUM_FRAMES, COUNT)
    spent: dict[str, list[float]] = {name: [] for name in ("ours", *READERS)}

    def timed(name: str, reader: Callable[[Path, np.ndarray], np.ndarray]) -> np.ndarray:
        before = time.process_time()
        frames = reader(clip, wanted)
        spent[name].append(time.process_time() - before)
        return frames

    for _ in range(ROUNDS):
        ours = timed("ours", read_frames)
        assert ours.shape == (COUNT, SIZE[1], SIZE[0], 3)
        for name, reader in READERS.items():
            frames = timed(name, reader)
            assert np.abs(frames.astype(np.int16) - ours).mean() < 2, name
    least = {name: min(times) for name, times in spent.items()}
    ratios = {name: least[name] / least["ours"] for name in READERS}
    benchmark.extra_info.update({name: round(ratio, 2) for name, ratio in ratios.items()})
    print(f"ours {least['ours']:.2f} s;", ", ".join(f"{name} {ratio:.2f} x" for name, ratio in ratios.items()))
    benchmark.pedantic(read_frames, (clip, wanted), rounds=1)
    assert min(ratios.values()) >= 1, ratios


def test_uniform_frames_small(benchmark: BenchmarkFixture, clip: Path) -> None:
    """As for a model: frames made smaller while they are decoded."""
    wanted = uniform_frames(NUM_FRAMES, COUNT)
    frames = benchmark.pedantic(read_frames, (clip, wanted, 320 * 180), rounds=3)
    assert frames.shape == (COUNT, 180, 320, 3)


def test_probe(benchmark: BenchmarkFixture, clip: Path) -> None:
    info = benchmark.pedantic(probe, (clip,), rounds=3)
    assert info.num_frames == NUM_FRAMES
