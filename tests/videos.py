"""Small videos for tests, made with PyAV: any rate, variable rate, rotation, audio, or damage."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TIME_BASE = Fraction(1, 1000)


def make_video(
    path: Path,
    num_frames: int = 40,
    size: tuple[int, int] = (64, 48),
    fps: float = 10,
    *,
    timestamps: Sequence[float] | None = None,
    rotation: int = 0,
    video: bool = True,
    audio: bool = False,
    seed: int = 0,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Write a video whose frame i is a grey of its own (see `frame_grey`), with a bright top-left corner.

    Args:
        size: width and height as stored.
        timestamps: seconds of each frame, for a variable rate; default i / fps.
        rotation: display rotation in degrees counter-clockwise, as a phone writes it.
        seed: another seed is other bytes and slightly other frames.
        pix_fmt: yuv420p10le for 10 bits; yuv444p for odd sizes.
    """
    times = [i / fps for i in range(num_frames)] if timestamps is None else list(timestamps)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if video:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.width, stream.height, stream.pix_fmt = size[0], size[1], pix_fmt
            time_base = TIME_BASE if timestamps is not None else 1 / Fraction(fps).limit_denominator(1001)
            stream.time_base = stream.codec_context.time_base = time_base
            stream.codec_context.gop_size = 12
            stream.codec_context.options = {"crf": "12", "threads": "1"}
        if audio:
            sound = container.add_stream("aac", rate=16000)
            sound.layout = "mono"
        if video:
            for i, seconds in enumerate(times):
                frame = av.VideoFrame.from_ndarray(_picture(i, size, seed), format="rgb24")
                frame.pts, frame.time_base = round(seconds / time_base), time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if audio:
            for i in range(20):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                frame.sample_rate, frame.pts = 16000, i * 1024
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
    if rotation:
        _rotate(path, rotation)
    return path


def _rotate(path: Path, degrees: int) -> None:
    """Write a display matrix into an MP4's track header, as phones do; PyAV has no way to."""
    one = 1 << 16
    cosine, sine = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    content = bytearray(path.read_bytes())
    matrix = struct.pack(">9i", cosine, -sine, 0, sine, cosine, 0, 0, 0, 1 << 30)
    start = content.find(b"tkhd") + 44
    content[start : start + len(matrix)] = matrix
    path.write_bytes(content)


def frame_grey(index: int) -> int:
    """Grey level of the body of frame `index`; neighbouring frames differ by more than the codec's loss."""
    return 16 + (index * 37) % 160


def _picture(index: int, size: tuple[int, int], seed: int) -> np.ndarray:
    picture = np.full((size[1], size[0], 3), frame_grey(index), np.uint8)
    picture[: size[1] // 4, : size[0] // 4] = 250
    if seed:
        picture[-8:, -8:] = np.random.default_rng(seed).integers(0, 255, (8, 8, 1))
    return picture
