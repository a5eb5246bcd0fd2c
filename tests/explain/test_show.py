"""`dsr show`: a clip's cues as text, as a contact sheet and as a recording."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dsr.console import StageError
from dsr.cues.schema import read_cues
from dsr.explain import show
from dsr.explain.frames import find_clip
from tests.explain.test_explain import PNG
from tests.scenes import hide, random_cues
from tests.small_project import PARAMS


def test_a_clip_is_described(project: Path) -> None:
    cues = read_cues(project / "data/cues/clip_00.npz")
    known = show.facts(cues, find_clip(project, "clip_00"))
    assert str(known["video"]).endswith("clip_00.mp4")
    assert known["masks"] == f"{int(cues.visible.sum())} of {int(cues.visible.sum())} detections"
    for track, label in enumerate(cues.labels.tolist()):
        assert f"visible in {int(cues.visible[track].sum())}" in str(known[f"track {track}: {label}"])
    show.run(PARAMS, project, "clip_00")


def test_a_clip_without_cues_says_why(project: Path) -> None:
    with pytest.raises(StageError, match="clip gone has no cues: cannot be decoded"):
        show.run(PARAMS, project, "gone")
    with pytest.raises(StageError, match="knows no clip 'clip_0'; it has 10, such as clip_0"):
        show.run(PARAMS, project, "clip_0")
    with pytest.raises(StageError, match="not a file name"):
        show.run(PARAMS, project, "../../etc/passwd")


def test_the_contact_sheet_is_drawn_with_and_without_a_video(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for clip_id in ("clip_00", "clip_01", "clip_02"):
        show.run(PARAMS, project, clip_id, tmp_path / f"{clip_id}.png")
        assert (tmp_path / f"{clip_id}.png").read_bytes().startswith(PNG)


def test_masks_are_laid_over_in_their_tracks_colours(project: Path) -> None:
    pytest.importorskip("matplotlib")
    from dsr.explain.contact_sheet import mask_overlay

    cues = read_cues(project / "data/cues/clip_00.npz")
    frame = int(np.argmax(cues.visible.any(axis=0)))
    overlay = mask_overlay(cues, frame)
    assert overlay is not None
    covered = np.any([cues.mask(int(t), frame) for t in np.flatnonzero(cues.visible[:, frame])], axis=0)
    np.testing.assert_array_equal(overlay[..., 3] > 0, covered)
    assert mask_overlay(read_cues(project / "data/cues/clip_01.npz"), frame) is None


def test_a_clip_in_which_nothing_is_seen_can_still_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from dsr.explain.contact_sheet import write_contact_sheet

    cues = random_cues(3)
    nothing = hide(cues, np.ones(cues.visible.shape, bool))
    write_contact_sheet(tmp_path / "nothing.png", nothing, None)
    empty = {
        name: getattr(nothing, name)[:0]
        for name in ("labels", "is_agent", "boxes", "visible", "centers", "center_uncertainty", "orientations")
    }
    no_tracks = dataclasses.replace(
        nothing, orientation_confidence=nothing.orientation_confidence[:0], mask_offsets=np.zeros(1, np.int64), **empty
    )
    write_contact_sheet(tmp_path / "no_tracks.png", no_tracks, None)
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(PNG)


def test_a_recording_holds_every_part(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rerun = pytest.importorskip("rerun")
    rerun.set_strict_mode(True)  # A wrong value is an error, not a warning.
    logged: dict[str, int] = {}
    log = rerun.RecordingStream.log

    def count(self: object, path: str, *parts: object, **options: object) -> None:
        logged[path] = logged.get(path, 0) + 1
        log(self, path, *parts, **options)

    monkeypatch.setattr(rerun.RecordingStream, "log", count)
    show.run(PARAMS, project, "clip_00", recording=tmp_path / "clip.rrd")
    assert (tmp_path / "clip.rrd").read_bytes().startswith(b"RRF")
    cues = read_cues(project / "data/cues/clip_00.npz")
    frames = cues.num_frames
    assert logged["world/camera"] == logged["world/camera/points"] == frames
    assert logged["world/camera/image"] >= 2 * frames
    assert logged["world/camera/image/boxes"] == frames
    assert logged["world/camera/image/masks"] == int(cues.visible.any(axis=0).sum())
    tracks = {path for path in logged if path.startswith("world/tracks/") and path.endswith("/path")}
    assert len(tracks) == cues.num_tracks
    # A label with slashes is one part of a path.
    assert all(path.replace("\\/", "").count("/") == 3 for path in tracks)
    show.run(PARAMS, project, "clip_01", recording=tmp_path / "no_video.rrd")
    assert (tmp_path / "no_video.rrd").stat().st_size > 1000


def test_without_rerun_it_says_what_to_install(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rerun", None)
    with pytest.raises(StageError, match=r"dsr\[report\]"):
        show.run(PARAMS, project, "clip_00", recording=tmp_path / "clip.rrd")
    assert not (tmp_path / "clip.rrd").exists()
