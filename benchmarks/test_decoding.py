"""Decoding 32 uniform frames of a clip: `read_frames` beside PyAV and OpenCV, on a file made on the spot.

`pytest benchmarks/test_decoding.py --benchmark-enable`. All give the same frames, which is checked.
"""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dsr.clips.video import probe, read_frames, uniform_frames

NUM_FRAMES, SIZE, COUNT = 300, (1280, 720), 32


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of 720p at 30 frames a second: noise that drifts, so that there is something to decode."""
    path = tmp_path_factory.mktemp("decoding") / "clip.mp4"
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8 + NUM_FRAMES, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.options = {"preset": "veryfast", "crf": "23"}
        for i in range(NUM_FRAMES):
            window = texture[:, i : i + SIZE[0] // 8]
            picture = np.ascontiguousarray(window.repeat(8, axis=0).repeat(8, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def with_pyav(path: Path, wanted: np.ndarray) -> np.ndarray:
    """Reading through, as is fastest where keyframes are far apart."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        chosen = set(wanted.tolist())
        frames = enumerate(container.decode(video=0))
        return np.stack([frame.to_ndarray(format="rgb24") for i, frame in frames if i in chosen])


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


READERS = {"read_frames": read_frames, "PyAV": with_pyav, "OpenCV": with_opencv}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_uniform_frames(
    benchmark: BenchmarkFixture, clip: Path, reader: Callable[[Path, np.ndarray], np.ndarray]
) -> None:
    wanted = uniform_frames(NUM_FRAMES, COUNT)
    frames = benchmark.pedantic(reader, (clip, wanted), rounds=3)
    assert frames.shape == (COUNT, SIZE[1], SIZE[0], 3)
    assert np.abs(frames.astype(int) - read_frames(clip, wanted)).mean() < 2


def test_uniform_frames_small(benchmark: BenchmarkFixture, clip: Path) -> None:
    """As for a model: frames made smaller while they are decoded."""
    wanted = uniform_frames(NUM_FRAMES, COUNT)
    frames = benchmark.pedantic(read_frames, (clip, wanted, 320 * 180), rounds=3)
    assert frames.shape == (COUNT, 180, 320, 3)


def test_probe(benchmark: BenchmarkFixture, clip: Path) -> None:
    info = benchmark.pedantic(probe, (clip,), rounds=3)
    assert info.num_frames == NUM_FRAMES
