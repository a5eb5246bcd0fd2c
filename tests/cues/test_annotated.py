"""Cues from annotation files: poses, tracks and depth that somebody measured."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsr.cues import extract as stage
from dsr.cues import store
from dsr.cues.annotations import AnnotationError
from dsr.cues.backends import ClipFailure
from dsr.cues.backends.annotated import Backend
from dsr.cues.clips import Clip
from dsr.cues.sampling import Sampling
from dsr.cues.schema import ClipCues
from dsr.geometry.frames import rotations_from_vectors
from dsr.params import Cues, Params
from tests.cues.worlds import LOOKING_ALONG_X, Project, pose
from tests.videos import make_video

FRAMES = 17
"""At 10 frames a second; the eight cue frames are every second or third."""
BACKEND = Backend(Cues(num_frames=8, point_map_size=(4, 6)))
INTRINSICS = [[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]
BOX = [22.0, 14.0, 42.0, 34.0]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "clip.mp4", FRAMES, size=(64, 48), fps=10)


def car(**fields: Any) -> dict[str, Any]:
    """A car 5 m ahead of the standing camera that drives off along the world's x at 1 m a frame."""
    track = {
        "label": "car",
        "agent": True,
        "boxes": [BOX] * FRAMES,
        "centers": [[5.0 + k, 0, 1] for k in range(FRAMES)],
        "headings": [[2.0, 0, 0]] * FRAMES,
    }
    return track | fields


def scene(*tracks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "frames": list(range(FRAMES)),
        "camera_poses": [pose(LOOKING_ALONG_X, [0, 0, 1]).tolist()],
        "intrinsics": INTRINSICS,
        "tracks": list(tracks),
    } | fields


def clip_of(video: Path, tmp_path: Path, tree: object) -> Clip:
    path = tmp_path / "clip.annotation.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return Clip("clip", "0" * 64, video, None, path, start=0.0, end=FRAMES / 10, width=64, height=48)


@pytest.fixture
def extract(video: Path, tmp_path: Path) -> Any:
    return lambda tree: BACKEND.extract(clip_of(video, tmp_path, tree))


def without(tree: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in names}


def test_a_car_that_drives_off(extract: Any) -> None:
    cues: ClipCues = extract(scene(car()))
    np.testing.assert_array_equal(cues.frame_index, [0, 2, 5, 7, 9, 11, 14, 16])
    np.testing.assert_allclose(cues.timestamps, cues.frame_index / 10, atol=1e-3)
    np.testing.assert_allclose(cues.centers[0], [[0, 0, 5 + k] for k in cues.frame_index], atol=1e-5)
    np.testing.assert_array_equal(cues.orientations[0, 0], [[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    np.testing.assert_array_equal(cues.boxes[0, 3], BOX)
    np.testing.assert_allclose(cues.center_uncertainty, 0.01)
    assert np.isnan(cues.point_map).all()
    assert not cues.confidence.any()


def test_the_same_car_in_every_way_of_saying_it(extract: Any) -> None:
    expected = extract(scene(car()))
    in_camera = car(frame="camera", centers=[[0, 0, 5.0 + k] for k in range(FRAMES)], headings=[[0, 0, 1]] * FRAMES)
    depths = without(car(depths=[5.0 + k for k in range(FRAMES)]), "centers")
    rotations = without(car(orientations=[np.eye(3).tolist()] * FRAMES), "headings")
    moving = [pose(LOOKING_ALONG_X, [0, 0, 1]).tolist()] * FRAMES
    ways = [scene(car(frames=list(range(FRAMES)))), scene(in_camera), scene(depths), scene(rotations)]
    ways.append(scene(car(), camera_poses=moving))
    ways.append(without(scene(car(), timestamps=[k / 10 for k in range(FRAMES)]), "frames"))
    for way in ways:
        cues = extract(way)
        np.testing.assert_allclose(cues.centers, expected.centers, atol=2e-3)
        np.testing.assert_allclose(cues.orientations, expected.orientations, atol=1e-6)
        np.testing.assert_array_equal(cues.visible, expected.visible)


def test_a_world_with_y_down(extract: Any) -> None:
    """KITTI's world is its first camera's frame: up is -y, and a heading of +z faces away from the camera."""
    track = car(centers=[[0, 0, 5]] * FRAMES, headings=[[0, 0, 1]] * FRAMES)
    cues = extract(scene(track, camera_poses=[np.eye(4).tolist()], up=[0, -1, 0]))
    np.testing.assert_array_equal(cues.orientations[0, 0], [[0, -1, 0], [0, 0, -1], [1, 0, 0]])


def test_what_is_null_is_not_visible(extract: Any) -> None:
    track = car()
    track["boxes"] = [None if k in (5, 6) else BOX for k in range(FRAMES)]
    track["centers"] = [None if k == 9 else c for k, c in enumerate(track["centers"])]
    track["headings"] = [None if k == 2 else h for k, h in enumerate(track["headings"])]
    track["boxes"][14] = [70, 0, 90, 10]
    cues = extract(scene(track))
    np.testing.assert_array_equal(cues.visible[0], [True, True, False, True, False, True, False, True])
    assert np.isnan(cues.orientations[0, 1]).all()
    assert cues.orientation_confidence[0].tolist() == [1, 0, 0, 1, 0, 1, 0, 1]


def test_boxes_are_clipped_and_tracks_never_seen_left_out(extract: Any) -> None:
    nobody = car(label="ghost", boxes=[None] * FRAMES)
    cues = extract(scene(nobody, car(boxes=[[-5, 10, 20, 60]] * FRAMES)))
    assert cues.labels.tolist() == ["car"]
    np.testing.assert_array_equal(cues.boxes[0, 0], [0, 10, 20, 48])
    assert extract(scene()).num_tracks == 0


def test_key_frames_are_interpolated_in_the_world(extract: Any) -> None:
    """Entries at 2.5 Hz; the camera turns, the car moves straight on in the world."""
    keys = [0, 4, 8, 12, 16]
    turn = rotations_from_vectors(np.outer(keys, [0, 0, 0.02]))
    tree = scene(
        car(
            boxes=[BOX] * 5,
            frame="camera",
            centers=[(np.linalg.inv(turn[i] @ LOOKING_ALONG_X) @ [5.0 + k, 0, 0]).tolist() for i, k in enumerate(keys)],
            headings=[(np.linalg.inv(turn[i] @ LOOKING_ALONG_X) @ [1.0, 0, 0]).tolist() for i in range(5)],
        ),
        frames=keys,
        camera_poses=[pose(r @ LOOKING_ALONG_X, [0, 0, 1]).tolist() for r in turn],
    )
    cues = extract(tree)
    for t, k in enumerate(cues.frame_index):
        expected = rotations_from_vectors(np.array([0, 0, 0.02 * k])) @ LOOKING_ALONG_X
        np.testing.assert_allclose(cues.camera_poses[t, :3, :3], expected, atol=1e-5)
        world = cues.camera_poses[t] @ [*cues.centers[0, t], 1]
        np.testing.assert_allclose(world[:3], [5 + k, 0, 1], atol=3e-3)
        np.testing.assert_allclose(cues.camera_poses[t, :3, :3] @ cues.orientations[0, t], np.eye(3), atol=1e-6)
    tree["max_gap"] = 0.3
    with pytest.raises(AnnotationError, match=r"camera_poses: none near 0\.200 s"):
        extract(tree)


def test_how_entries_are_matched_to_times() -> None:
    entries, known = np.array([0.0, 1.0, 2.0, 5.0]), np.array([True, True, False, True])
    times = np.array([-0.05, 0.0, 0.25, 1.05, 1.5, 2.0, 3, 5.2])
    match = Sampling(tolerance=0.1, max_gap=1.5).match(entries, known, times)
    np.testing.assert_array_equal(match.known, [True, True, True, True, False, False, False, False])
    values = np.array([[0.0], [10.0], [np.nan], [50.0]])
    np.testing.assert_allclose(match.blend(values)[:, 0], [0, 0, 2.5, 10, *[np.nan] * 4])


def test_depth_maps_of_another_size(extract: Any, tmp_path: Path) -> None:
    """Depth at half the video's size, measured at frames 2 and 7; 0 means no return."""
    depth = np.full((2, 24, 32), 4, np.float32)
    depth[1] = 8
    depth[:, :12] = 0
    np.savez(tmp_path / "clip.annotation.depth.npz", depth=depth, frames=np.array([2, 7]))
    cues = extract(scene(car()))
    assert np.isfinite(cues.point_map).all(axis=-1).any(axis=(1, 2)).tolist() == [k in (2, 7) for k in cues.frame_index]
    assert np.isnan(cues.point_map[1, :2]).all()
    # Cell (3, 0) samples depth pixel (21, 2): (2.5, 21.5) with focal length 25 and centre (16, 12).
    np.testing.assert_allclose(cues.point_map[1, 3, 0], [(2.5 - 16) / 25 * 4, (21.5 - 12) / 25 * 4, 4], rtol=1e-6)
    assert cues.point_map[3, 3, 0, 2] == 8
    np.savez(tmp_path / "clip.annotation.depth.npz", depth=depth)
    with pytest.raises(AnnotationError, match=r"depth\.npz: depth has 2 maps for 17 times"):
        extract(scene(car()))


WRONG: list[tuple[str, object, str]] = [
    ("tracks.0.boxes.3", [1, 2, 3], r"tracks\[0\] 'car': boxes\[3\] must be 4 numbers"),
    ("tracks.0.boxes.3", [9, 2, 3, 4], r"tracks\[0\] 'car': boxes needs x1 < x2"),
    ("tracks.0.boxes.3", ["1", 2, 3, 4], r"boxes\[3\] must be 4 numbers"),
    ("tracks.0.boxes.3", [[1], 2, 3, 4], r"boxes\[3\] must be 4 numbers"),
    ("tracks.0.boxes", [BOX], r"boxes has 1 entries for 17 times"),
    ("tracks.0.centers.0", [1e999, 0, 0], "not a readable JSON file .*Infinity|is not finite"),
    ("tracks.0.agent", "yes", r"tracks\[0\] 'car': agent must be true or false, not 'yes'"),
    ("tracks.0.agent", False, r"tracks\[0\] 'car': agent is false, but there are headings"),
    ("tracks.0.label", None, r"tracks\[0\]: label is missing"),
    ("tracks.0.label", " ", r"label must be a text"),
    ("tracks.0.headings.2", [0, 0, 1], r"headings \[2\] is zero or along the world's up axis"),
    ("tracks.0.frame", "body", r"frame must be world or camera, not 'body'"),
    ("tracks.0.depths", [1] * FRAMES, r"tracks\[0\] 'car': centers or depths is needed, and not both"),
    ("tracks.0.centres", [], r"tracks\[0\] 'car': centres is unknown; did you mean 'centers'\?"),
    ("tracks.0", 3, r"tracks\[0\]: must be a mapping, not int"),
    ("camera_poses.0.0.0", 2, r"camera_poses\[0\] is no rotation"),
    ("camera_poses.0.3.0", 2, r"camera_poses needs a last row 0 0 0 1"),
    ("camera_poses", None, r"annotation\.json: camera_poses is missing"),
    ("frames.2", 1, "frames must increase strictly"),
    ("frames.16", 400, "frames must be whole numbers from 0 to 16"),
    ("frames.2", 1.5, "frames must be whole numbers"),
    ("timestamps", [0], "timestamps or frames is needed, and not both"),
    ("intrinsics.0.0", -50, "intrinsics needs focal lengths > 0"),
    ("tolerance", -1, "tolerance must be at least 0"),
    ("up", [0, 0, 0], "up is zero"),
    ("max_gaps", 1, r"annotation\.json: max_gaps is unknown; did you mean 'max_gap'\?"),
]


@pytest.mark.parametrize(("key", "value", "problem"), WRONG, ids=[f"{key}={value}"[:40] for key, value, _ in WRONG])
def test_an_error_names_file_track_and_field(extract: Any, key: str, value: object, problem: str) -> None:
    tree = copy.deepcopy(scene(car()))
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    node: Any = tree
    for part in path:
        node = node[part]
    node[last] = value
    with pytest.raises(AnnotationError, match=problem) as caught:
        extract(tree)
    assert "/clip.annotation.json: " in str(caught.value)


def test_labels_must_tell_tracks_apart(extract: Any) -> None:
    with pytest.raises(AnnotationError, match=r"tracks\[1\] 'car': label: tracks\[0\] has the same"):
        extract(scene(car(), car()))


def test_depths_without_intrinsics_are_an_error(extract: Any) -> None:
    tree = scene(without(car(depths=[5] * FRAMES), "centers"))
    with pytest.raises(AnnotationError, match=r"intrinsics: needed, because tracks have depths"):
        extract(without(tree, "intrinsics"))


@pytest.mark.parametrize("text", ["", "[1, 2", "[]", "3", "[" * 200_000, '{"tolerance": NaN}', "\x00"])
def test_what_is_no_annotation_is_refused(extract: Any, text: str) -> None:
    with pytest.raises(AnnotationError, match=r"clip\.annotation\.json: "):
        extract(text)


def test_the_identity_follows_annotation_and_depth(video: Path, tmp_path: Path) -> None:
    clip = clip_of(video, tmp_path, scene(car()))
    identities = [BACKEND.identity(clip)]
    np.savez(tmp_path / "clip.annotation.depth.npz", depth=np.ones((FRAMES, 4, 4)))
    identities.append(BACKEND.identity(clip))
    identities.append(BACKEND.identity(clip_of(video, tmp_path, scene())))
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == 3
    assert BACKEND.identity(clip) == identities[2]


def test_an_annotation_lies_beside_the_video_unless_the_table_says_otherwise(video: Path, tmp_path: Path) -> None:
    clip = Clip("clip", "0" * 64, video, None, None, 0.0, 1.6, 64, 48)
    with pytest.raises(ClipFailure, match=r"clip\.annotation\.json: no such annotation file"):
        BACKEND.identity(clip)


def test_the_stage_with_annotated_clips(video: Path, tmp_path: Path) -> None:
    project = Project(tmp_path)
    (project.raw / "good.mp4").write_bytes(video.read_bytes())
    (project.raw / "good.annotation.json").write_text(json.dumps(scene(car())))
    for name, file in (("good", "good.mp4"), ("bad", "absent.mp4")):
        project.add_row(name, file=f"data/raw/simulated/{file}", end=1.7, width=64, height=48)
    params = Params(cues=Cues(backend="annotated", num_frames=8, point_map_size=(4, 6)))
    stage.run(params, tmp_path, workers=1)
    rows = store.read_manifest(project.cues)["clips"]
    assert (rows["good"]["status"], rows["good"]["tracks"]) == ("ok", 1)
    assert rows["bad"]["reason"] == "data/raw/simulated/bad.annotation.json: no such annotation file"
