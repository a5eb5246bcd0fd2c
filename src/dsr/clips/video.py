"""Video decoding: a file's properties, and chosen frames of it, exactly.

Design choices:
- A file is indexed by the timestamps of its packets (PyAV demuxes, nothing is decoded): exact at a variable
  rate, and what counts is the frames that are in the file, not the number in its header.
- At full size PyAV decodes what the chosen frames need and no more: the packets from the keyframe before each on, and
  of those only the ones that others refer to. Of 32 frames of a 60 s 720p H.264 file that takes less than half of the
  processor time of decord or OpenCV (benchmarks/test_decoding.py), and the pixels are the same.
- Frames made smaller are decoded by decord in one batched call. It is only trusted where its own index is the same: of
  files without true timestamps (AVI with B-frames, some muxers' MP4), of transport streams, and of files with
  hidden or cut-off frames, decord returns other frames without a word, or never returns. PyAV decodes those.
- Frames come as they are meant to be shown: rotated, with square pixels. Of rotated video decord's batches are
  of the wrong shape, so PyAV decodes that too.
- Only the frames that were asked for are kept, so memory does not grow with the length of a clip.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsr.console import package

if TYPE_CHECKING:
    import av
    import decord
    from av.container import InputContainer as Container
else:
    av, decord = (package(name, f"pip install {name}") for name in ("av", "decord"))

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "mpegts",
    "mpeg",
    "mpegvideo",
    "h264",
    "hevc",
    "flv",
    "asf",
    "ogg",
    "gif",
)
"""Demuxers allowed. Playlists (HLS, DASH, concat) are not: a file must not make FFmpeg open other files."""

SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Demuxers whose keyframes can be decoded from."""
SKIPPABLE = ("h264", "hevc", "mpeg4")
"""Codecs whose decoders leave out frames that no other refers to."""


class VideoError(ValueError):
    """A file that cannot be read as a video; the message is one line, `kind: detail`, without the path."""


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """Properties of a video file."""

    num_frames: int
    fps: float
    """Average rate in frames a second; 0 for a single frame."""
    duration: float
    """Seconds, the last frame's own time included."""
    width: int
    height: int
    """Pixels as shown: rotation and pixel aspect applied."""
    timestamps: np.ndarray
    """[num_frames] float64, seconds since the first frame, strictly increasing."""

    @classmethod
    def of_frames(cls, timestamps: np.ndarray, width: int, height: int) -> VideoInfo:
        """Properties of the video whose frames are shown at `timestamps`.

        >>> info = VideoInfo.of_frames(np.array([0.0, 0.5, 1.0]), 320, 240)
        >>> info.fps, info.duration
        (2.0, 1.5)
        """
        last = float(timestamps[-1])
        fps = (len(timestamps) - 1) / last if len(timestamps) > 1 else 0.0
        return cls(len(timestamps), fps, last + (1 / fps if fps else 0.0), width, height, timestamps)


@dataclass(frozen=True, eq=False)
class _Index:
    """The frames of a file in the order in which they are shown."""

    pts: np.ndarray
    """[F] int64, strictly increasing, in units of time_base seconds."""
    time_base: Fraction
    by_order: bool
    """True: decoded frames are identified by their order, since the file does not say when each is shown; False: by
    their pts."""
    width: int
    height: int
    rotation: int
    packets: np.ndarray | None
    """[F] int64, the frames' pts in the order in which they are decoded, where keyframes can be trusted; else None."""
    keyframes: np.ndarray
    """[F] bool, in that order."""

    def seconds(self, pts: np.ndarray) -> np.ndarray:
        return pts * self.time_base.numerator / self.time_base.denominator


def uniform_frames(num_frames_in_clip: int, count: int, first: int = 0) -> np.ndarray:
    """[count] int64, indices of `count` frames spread evenly over a clip, first and last included.

    Args:
        num_frames_in_clip: frames of the clip.
        first: index of the clip's first frame in the decoded video.

    Raises:
        ValueError: the clip has fewer frames than `count`, so that indices would repeat.

    >>> uniform_frames(9, 3, first=100).tolist()
    [100, 104, 108]
    """
    if not 1 <= count <= num_frames_in_clip:
        raise ValueError(f"{count} frames of a clip that has {num_frames_in_clip}")
    return first + np.round(np.linspace(0, num_frames_in_clip - 1, count)).astype(np.int64)


def frames_between(timestamps: np.ndarray, start: float, end: float) -> tuple[int, int]:
    """First frame and number of frames in [start, end] seconds; half a millisecond of tolerance at both ends.

    Args:
        timestamps: [F] float64, increasing.

    >>> frames_between(np.array([0.0, 0.5, 1.0, 1.5, 2.0]), 0.5, 1.5)
    (1, 3)
    """
    first, stop = np.searchsorted(timestamps, [start - 5e-4, end + 5e-4])
    return int(first), int(max(stop - first, 0))


def probe(path: Path) -> VideoInfo:
    """Index a video and decode its first and last frame.

    Raises:
        VideoError: not a video, damaged, truncated, or without frames.
    """
    index = _read_index(path)
    read_frames(path, [0, len(index.pts) - 1], max_pixels=64 * 64)
    return VideoInfo.of_frames(index.seconds(index.pts - index.pts[0]), index.width, index.height)


def read_frames(path: Path, indices: Sequence[int] | np.ndarray, max_pixels: int | None = None) -> np.ndarray:
    """Decode frames of a video.

    Args:
        indices: [T] indices of frames, in any order.
        max_pixels: frames with more pixels are made smaller as they are decoded, keeping their aspect.

    Returns:
        [T, H, W, 3] uint8, RGB.

    Raises:
        VideoError: as `probe`; a frame that the video does not have or that cannot be decoded.
    """
    index = _read_index(path)
    wanted = np.asarray(indices, dtype=np.int64)
    outside = wanted[(wanted < 0) | (wanted >= len(index.pts))]
    if len(outside):
        raise VideoError(f"no such frame: {outside[0]} of {len(index.pts)}")
    size = _fit(index.width, index.height, max_pixels)
    if not len(wanted):
        return np.zeros((0, size[1], size[0], 3), np.uint8)
    if size == (index.width, index.height) and index.packets is not None:
        return _read_planned(path, index, wanted, size)
    reader = _decord_reader(path, index, size)
    if reader is None:
        return _read_with_pyav(path, index, wanted, size)
    try:
        return reader.get_batch(wanted).asnumpy()
    except decord.DECORDError as error:
        raise VideoError(f"cannot be decoded: {_first_line(error)}") from None


def stream_frames(path: Path, first: int, last: int) -> Iterator[np.ndarray]:
    """Frames `first` to `last` of a video at full size, [H, W, 3] uint8 RGB, decoded one after the other.

    Raises:
        VideoError: as `read_frames`.
    """
    index = _read_index(path)
    if not 0 <= first <= last < len(index.pts):
        raise VideoError(f"no such frames: {first} to {last} of {len(index.pts)}")
    with _open(path) as (container, stream):
        following = first
        for place, frame in _decode_part(container, stream, index, first, last):
            if place == following:
                yield _picture(frame, (index.width, index.height), index.rotation)
                following += 1
            if following > last:
                return
    raise VideoError(f"cannot be decoded: frame {following} of {len(index.pts)}")


def _decode_part(
    container: Container, stream: av.VideoStream, index: _Index, first: int, last: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames `first` to `last`, and perhaps others, each with its place in the index, -1 if it has none."""
    if index.packets is None:
        yield from _decode(container, stream, index)
        return
    wanted = index.pts[first : last + 1]
    needed = _needed_packets(index.packets, index.keyframes, wanted)
    places = {pts: place for place, pts in enumerate(wanted.tolist(), first)}
    for frame in _decode_needed(container, stream, needed, places):
        yield places.get(frame.pts, -1), frame


def _fit(width: int, height: int, max_pixels: int | None) -> tuple[int, int]:
    """Width and height within `max_pixels`, in the same proportion."""
    scale = min(1.0, (max_pixels / (width * height)) ** 0.5) if max_pixels else 1.0
    return max(1, int(width * scale)), max(1, int(height * scale))


@contextmanager
def _open(path: Path) -> Iterator[tuple[Container, av.VideoStream]]:
    """The container and its main video stream; FFmpeg's errors become VideoError."""
    # An absolute path cannot be taken for a protocol ("concat:…").
    name = str(path.absolute())
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}
    try:
        if path.stat().st_size == 0:
            raise VideoError("empty file: zero bytes")
        with av.open(name, options=options, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
                raise VideoError("no video stream: " + (_held(container) or "nothing that can be played"))
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"not a readable video: {getattr(error, 'strerror', None) or _first_line(error)}") from None


def _held(container: Container) -> str:
    kinds = sorted({stream.type for stream in container.streams if stream.type})
    return f"{', '.join(kinds)} only" if kinds else ""


def _read_index(path: Path) -> _Index:
    with _open(path) as (container, stream):
        stamps: list[tuple[int | None, int | None]] = []
        keyframes: list[bool] = []
        discarded, end, frame = 0, 0.0, None
        for packet in _packets(container):
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            # A damaged file may change the kind of a stream on the way.
            if packet.stream_index != stream.index or not isinstance(packet.stream, av.VideoStream):
                continue
            if frame is None:
                frame = next((f for f in packet.decode() if isinstance(f, av.VideoFrame)), None)
            if packet.is_discard:
                discarded += 1
            elif packet.size:
                stamps.append((packet.pts, packet.dts))
                keyframes.append(packet.is_keyframe)
        if frame is None or not stamps:
            raise VideoError("no frames: the video stream is empty")
        _refuse_truncated(container, stream, len(stamps) + discarded, end)
        return _index(stamps, np.array(keyframes), container, stream, frame)


def _packets(container: Container) -> Iterator[av.Packet]:
    """The packets of all streams."""
    try:
        yield from container.demux()
    except (IndexError, AttributeError) as error:
        # What PyAV raises on streams that appear in the middle of a damaged file.
        raise VideoError(f"damaged: {_first_line(error)}") from None


def _index(
    stamps: list[tuple[int | None, int | None]],
    keyframes: np.ndarray,
    container: Container,
    stream: av.VideoStream,
    frame: av.VideoFrame,
) -> _Index:
    """Index of packets with these presentation and decoding times."""
    time_base = stream.time_base or Fraction(1)
    # Frames that are decoded ahead of their turn cannot be presented when they are decoded: such a file has only
    # decoding times, whatever it calls them. They are the frames' times all the same, in the order of presentation.
    reordered = bool(stream.codec_context.has_b_frames)
    by_order = reordered and (container.format.name == "avi" or all(pts == dts for pts, dts in stamps))
    times = [dts if by_order else pts for pts, dts in stamps]
    known = np.sort(np.array([time for time in times if time is not None], np.int64))
    if len(known) < len(stamps):
        # Raw H.264 has no timestamps: the nominal rate is all there is.
        by_order, known = True, np.arange(len(stamps))
        time_base = 1 / (stream.average_rate or stream.guessed_rate or Fraction(25))
    elif len(known) > 1 and np.diff(known).min() == 0:
        # Some muxers write the same time twice; one tick apart keeps the frames' order and their times.
        order = np.arange(len(known))
        by_order, known = True, np.maximum.accumulate(known - order) + order
    width, height = frame.width, frame.height
    aspect = stream.sample_aspect_ratio or Fraction(1)
    # A wider range than any real format; outside it the header is wrong.
    if Fraction(1, 4) <= aspect <= 4:
        width = round(width * aspect)
    if frame.rotation % 180:
        width, height = height, width
    # Elsewhere (transport streams, raw video) a keyframe may be one after which frames become right by and by.
    planned = not by_order and container.format.name in SEEKABLE and bool(keyframes[0])
    packets = np.array([pts for pts, _ in stamps], np.int64) if planned else None
    return _Index(known, time_base, by_order, width, height, frame.rotation, packets, keyframes)


def _refuse_truncated(container: Container, stream: av.VideoStream, present: int, end: float) -> None:
    """Compare what is there with what the header promises.

    Args:
        present: video packets in the file.
        end: seconds at which the last packet of any stream ends.
    """
    if "mp4" in container.format.name and stream.frames > present:
        raise VideoError(f"truncated: {present} of {stream.frames} frames are in the file")
    promised = (container.duration or 0) / av.time_base
    if container.format.name == "avi" and stream.average_rate:
        # FFmpeg estimates the duration of an AVI without its index; the header's frame count stays.
        promised = float(stream.frames / stream.average_rate)
    end -= (container.start_time or 0) / av.time_base
    # Rounded durations are common; a missing twentieth is not.
    if end < 0.95 * promised - 0.25:
        raise VideoError(f"truncated: {max(end, 0):.2f} s of {promised:.2f} s are in the file")


def _decord_reader(path: Path, index: _Index, size: tuple[int, int]) -> decord.VideoReader | None:
    """decord's reader of a file, if it reads the file right."""
    if index.rotation or index.by_order:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path.absolute()), width=size[0], height=size[1], num_threads=1)
        return reader if _same_index(reader, index) else None
    except (decord.DECORDError, RuntimeError):
        return None  # What decord cannot open PyAV, with an FFmpeg that is six years younger, may.


def _same_index(reader: decord.VideoReader, index: _Index) -> bool:
    """Compare decord's frames and their times with ours."""
    if len(reader) != len(index.pts):
        return False
    own = index.seconds(index.pts)
    seen = np.asarray(reader.get_frame_timestamp(np.arange(len(own))), np.float64)[:, 0]
    step = np.diff(own).min(initial=1.0)
    # decord's times are float32.
    return bool((np.abs(seen - own) < max(step / 2, 1e-6 * np.abs(own).max())).all())


def _read_planned(path: Path, index: _Index, wanted: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Read frames, decoding only the packets that they need."""
    assert index.packets is not None
    needed = _needed_packets(index.packets, index.keyframes, np.unique(index.pts[wanted]))
    rows: dict[int, list[int]] = {}
    for row, pts in enumerate(index.pts[wanted].tolist()):
        rows.setdefault(pts, []).append(row)
    frames = np.zeros((len(wanted), size[1], size[0], 3), np.uint8)
    with _open(path) as (container, stream):
        stream.thread_count = 1
        for frame in _decode_needed(container, stream, needed, set(rows)):
            if frame.pts in rows:
                frames[rows.pop(frame.pts)] = _picture(frame, size, index.rotation)
            if not rows:
                return frames
    missing = int(np.searchsorted(index.pts, min(rows)))
    raise VideoError(f"cannot be decoded: frame {missing} of {len(index.pts)}")


def _needed_packets(packets: np.ndarray, keyframes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[F] bool, in the order of decoding: the packets from the last keyframe before each wanted frame on up to it.

    A frame that is decoded after a keyframe but shown before it may refer to what lies before the keyframe, so only a
    keyframe that is shown first counts.

    Args:
        packets: [F] int64, pts in the order of decoding.
        wanted: [T] int64, pts.
    """
    needed = np.zeros(len(packets), bool)
    starts = np.flatnonzero(keyframes)
    order = np.argsort(packets, kind="stable")
    for own in order[np.searchsorted(packets, wanted, sorter=order)]:
        before = starts[(starts <= own) & (packets[starts] <= packets[own])]
        needed[(before[-1] if len(before) else 0) : own + 1] = True
    return needed


def _decode_needed(
    container: Container, stream: av.VideoStream, needed: np.ndarray, wanted: Collection[int]
) -> Iterator[av.VideoFrame]:
    """Frames of the packets that are needed, and perhaps some more."""
    decoder = stream.codec_context
    skips = decoder.name in SKIPPABLE
    place, running = 0, False
    for packet in container.demux(stream):
        if not packet.size:
            continue
        counted = not packet.is_discard
        if needed[place] if counted and place < len(needed) else running:
            if skips:
                decoder.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from (frame for frame in packet.decode() if isinstance(frame, av.VideoFrame))
            running = True
        elif running:
            # What the decoder holds back belongs to the stretch that has just ended.
            yield from decoder.decode(None)
            decoder.flush_buffers()
            running = False
        place += counted
    if running:
        yield from decoder.decode(None)


def _picture(frame: av.VideoFrame, size: tuple[int, int], rotation: int) -> np.ndarray:
    """[H, W, 3] of a frame as shown, `size` being its width and height then."""
    width, height = size[::-1] if rotation % 180 else size
    return np.rot90(frame.to_ndarray(format="rgb24", width=width, height=height), round(rotation / 90))


def _read_with_pyav(path: Path, index: _Index, wanted: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Read frames by decoding the whole file: the files that come here have no index that a seek could trust."""
    frames = np.zeros((len(wanted), size[1], size[0], 3), np.uint8)
    with _open(path) as (container, stream):
        decoded = _decode(container, stream, index)
        position = -1
        for row in np.argsort(wanted, kind="stable"):
            target = int(wanted[row])
            while position < target:
                following = next(decoded, None)
                if following is None:
                    raise VideoError(f"cannot be decoded: frame {target} of {len(index.pts)}")
                position, frame = following
            frames[row] = _picture(frame, size, index.rotation)
    return frames


def _decode(container: Container, stream: av.VideoStream, index: _Index) -> Iterator[tuple[int, av.VideoFrame]]:
    """Each decoded frame with its place in the index."""
    for order, frame in enumerate(container.decode(stream)):
        shown = frame.pts if frame.pts is not None else index.pts[min(order, len(index.pts) - 1)]
        yield order if index.by_order else int(np.searchsorted(index.pts, shown)), frame


def _first_line(error: Exception) -> str:
    """A decoder's message on one line: decord's come with places in its source and a stack trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = re.sub(r"\[\d\d:\d\d:\d\d\] |/github/\S+?:\d+: |\[/[^\]]*\]", "", lines[0]) if lines else ""
    return message[:200] or type(error).__name__
