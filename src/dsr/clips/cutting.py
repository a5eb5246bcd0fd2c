"""Clips cut out of longer videos: the same frames at the same times, in a file of their own.

A cut is H.264 of what is shown: upright, with square pixels and 8 bits, without sound. Copying packets would be faster,
but such a file must begin at a keyframe and hide what comes before the clip, and many readers show it all the same.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from dsr import project
from dsr.clips.video import VideoError, frames_between, probe, stream_frames
from dsr.console import StageError, num_workers, summary, track, warn
from dsr.files import whole_file
from dsr.params import Params
from dsr.workers import Failure, ended_after, map_isolated

FOLDER = "cut"
"""Folder of the cut clips, in that of the videos."""
TIME_LIMIT = 3600
"""Seconds that a cut may take."""
_TICK = Fraction(1, 90_000)
"""Seconds of the unit in which times are written: whole for the usual rates."""
_FAILURES_SHOWN = 5


def cut_koala(params: Params, root: Path, workers: int = 0) -> None:
    """Cut the clips of the catalogue that are parts of full videos into files named by videoID, which the catalogue
    then takes instead; a file that is there stays as it is.

    Raises:
        StageError: there is no catalogue of Koala-36M, or not one clip can be cut.
    """
    folder = project.locate(root, params.clips.koala.videos) / FOLDER
    catalog = project.read_table(
        root, project.CATALOG, "catalog", ("clip_id", "status", "file", "start", "end", "source")
    )
    rows = catalog[(catalog["source"] == project.KOALA.name) & (catalog["status"] == "ok")]
    if rows.empty:
        raise StageError(f"{project.CATALOG} has no clip of Koala-36M: run `dsr catalog` with clips.source koala first")
    parts = [
        (root / file, folder / f"{clip}.mp4", float(start), float(end))
        for clip, file, start, end in zip(rows.clip_id, rows.file, rows.start, rows.end, strict=True)
        if Path(file).stem != clip
    ]
    waiting = [part for part in parts if not part[1].is_file()]
    reasons: list[str] = []
    results = map_isolated(_cut, waiting, num_workers(workers))
    for number, result in track(results, "cutting", total=len(waiting), unit="clips"):
        if isinstance(result, Failure):
            reasons.append(f"{waiting[number][1].stem}: {result.reason}")
            if len(reasons) <= _FAILURES_SHOWN:
                warn(reasons[-1])
    cut = len(waiting) - len(reasons)
    there = len(rows) - len(waiting)
    summary(f"clips in {folder}", {"cut": cut, "cut before": there, "failed": len(reasons)})
    if waiting and not cut:
        raise StageError(f"none of {len(waiting):,} clips could be cut; the first: {reasons[0]}")


def _cut(part: tuple[Path, Path, float, float]) -> None:
    file, target, start, end = part
    with ended_after(TIME_LIMIT):
        first, count = frames_between(probe(file).timestamps, start, end)
        if not count:
            raise VideoError(f"no frames between {start:g} s and {end:g} s")
        write_part(file, target, first, first + count - 1)


def write_part(file: Path, target: Path, first: int, last: int) -> None:
    """Write frames `first` to `last` of a video, with their times, so that no other is in the file.

    Raises:
        VideoError: it cannot be decoded.
    """
    info = probe(file)
    ticks = np.round((info.timestamps[first : last + 1] - info.timestamps[first]) / float(_TICK)).astype(np.int64)
    rate = Fraction((len(ticks) - 1) / float(ticks[-1] * _TICK) if last > first else info.fps or 1)
    with whole_file(target) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate.limit_denominator(1001))
        stream.time_base = stream.codec_context.time_base = _TICK
        # One thread: how a frame is split among several shows in the bytes.
        stream.options = {"crf": "16", "threads": "1"}
        for tick, picture in zip(ticks.tolist(), stream_frames(file, first, last), strict=True):
            if not tick:
                stream.height, stream.width = picture.shape[:2]
                # Colour at half the size needs even sizes.
                stream.pix_fmt = "yuv444p" if stream.height % 2 or stream.width % 2 else "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = tick, _TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
