"""Questions with a video of their own, as exports write them."""

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dsr import project
from dsr.clips.cutting import write_part
from dsr.clips.video import VideoError, probe
from dsr.console import track
from dsr.cues.schema import PIXELWISE, CuesError, cue_path, read_cues
from dsr.examples.clips import ClipStore
from dsr.mcq import Question, read_questions, read_row

VIDEOS = "videos"


@dataclass(frozen=True, kw_only=True)
class Exported(Question):
    """A question whose video is in the export's folder."""

    source_video: str
    quartet_id: str
    video: str
    """An MP4 file, relative to the export's folder, that shows what the model may see and no more."""


def read_exported(root: Path, questions: Path, folder: Path) -> tuple[list[Exported], Counter[str]]:
    """The questions whose clips have a video, which is put into the folder; and how many have none, by reason.

    Raises:
        StageError: no such table, or no catalogue.
    """
    table = read_questions(questions)
    files = ClipStore.of_project(root).videos
    placed: dict[tuple[str, int | None], str] = {}
    problems: dict[tuple[str, int | None], str] = {}
    exported = []
    left_out = Counter[str]()
    for row in track(table.to_dict("records"), "export", len(table)):
        question = read_row(row)
        key = question.clip_id, question.shown_frames
        if key not in placed and key not in problems:
            try:
                placed[key] = _place_video(root, files.get(question.clip_id), question.clip_id, key[1], folder)
            except (CuesError, VideoError) as error:
                problems[key] = str(error)
        if key in problems:
            left_out[problems[key]] += 1
            continue
        own = {"source_video": str(row["source_video"]), "quartet_id": str(row["quartet_id"]), "video": placed[key]}
        exported.append(Exported(**{**vars(question), **own}))
    return exported, left_out


def _place_video(root: Path, file: Path | None, clip_id: str, shown_frames: int | None, folder: Path) -> str:
    """Link a clip's video into the folder, or write the part of it that is shown."""
    if file is None:
        raise VideoError("no video (trajectories alone)")
    path = cue_path(root / project.CUES, clip_id)
    if not path.is_file():
        raise CuesError(f"no cues: {project.CUES / path.name} does not exist")
    index = read_cues(path, skip=PIXELWISE).frame_index
    info = probe(file)
    cut = shown_frames is not None and shown_frames < len(index)
    first, last = int(index[0]), int(index[shown_frames - 1 if cut and shown_frames else -1])
    # No clip's id has an "@". What an earlier export left here may be another clip's.
    target = folder / VIDEOS / (f"{clip_id}@{shown_frames:02d}.mp4" if cut else f"{clip_id}.mp4")
    target.unlink(missing_ok=True)
    if (first, last) == (0, info.num_frames - 1) and file.suffix == ".mp4":
        _link(file, target)
    else:
        write_part(file, target, first, last)
    return str(target.relative_to(folder))


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copyfile(file, target)
