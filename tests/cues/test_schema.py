"""The cue file: what it refuses, and that it comes back as it went in."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsr.cues.schema import ARRAYS, ClipCues, CuesError, encode_masks, no_masks, read_cues, read_meta, write_cues

T, N, H, W = 4, 2, 6, 8


def make_cues() -> ClipCues:
    """Track 0 is an agent seen throughout, track 1 an object that is not seen in frame 2."""
    visible = np.ones((N, T), bool)
    visible[1, 2] = False
    masks = np.zeros((N, T, H, W), bool)
    masks[0, :, 1:3, 2:5] = True
    masks[1, :, 4:, :] = True
    rle, offsets = encode_masks(masks, visible)
    orientations = np.full((N, T, 3, 3), np.nan, np.float32)
    orientations[0] = np.eye(3)
    point_map = np.ones((T, 2, 3, 3), np.float32)
    point_map[0, 0, 0] = np.nan
    return ClipCues(
        timestamps=np.arange(T) / 10,
        frame_index=np.arange(T) * 2,
        camera_poses=np.tile(np.eye(4), (T, 1, 1)),
        intrinsics=np.full((T, 3, 3), np.nan),
        point_map=point_map,
        confidence=np.isfinite(point_map[..., 0]).astype(np.float32),
        labels=np.array(["dog", "red ball"]),
        is_agent=np.array([True, False]),
        boxes=np.where(visible[..., None], np.array([1, 2, 3, 4]), np.nan).astype(np.float32),
        visible=visible,
        centers=np.where(visible[..., None], np.array([0.5, 0.1, 2.0]), np.nan).astype(np.float32),
        center_uncertainty=np.where(visible, 0.02, np.nan).astype(np.float32),
        orientations=orientations,
        orientation_confidence=np.isfinite(orientations[..., 0, 0]).astype(np.float32),
        mask_rle=rle,
        mask_offsets=offsets,
        meta={"clip_id": "a", "height": H, "width": W, "schema_version": 1},
    )


def test_a_file_comes_back_as_it_went_in(tmp_path: Path) -> None:
    cues = make_cues()
    write_cues(tmp_path / "a.npz", cues)
    back = read_cues(tmp_path / "a.npz")
    for name in ARRAYS:
        array = getattr(cues, name)
        np.testing.assert_array_equal(getattr(back, name), array)
        assert getattr(back, name).dtype == array.dtype
    assert back.meta == cues.meta == read_meta(tmp_path / "a.npz")


def test_equal_cues_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_cues(tmp_path / name, make_cues())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_masks_come_back_and_are_empty_where_a_track_is_not_visible() -> None:
    cues = make_cues()
    expected = np.zeros((H, W), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(cues.mask(0, 3), expected)
    assert cues.mask(1, 1).sum() == 2 * W
    assert not cues.mask(1, 2).any()


def test_a_mask_that_is_none_is_refused() -> None:
    cues = replace(make_cues(), mask_rle=np.full_like(make_cues().mask_rle, 0x6F))
    with pytest.raises(CuesError, match="mask_rle: track 0, frame 1"):
        cues.mask(0, 1)


def test_skipped_arrays_come_back_empty(tmp_path: Path) -> None:
    write_cues(tmp_path / "a.npz", make_cues())
    cues = read_cues(tmp_path / "a.npz", skip={"point_map", "confidence", "mask_rle", "mask_offsets"})
    assert cues.point_map.shape == (T, 0, 0, 3)
    assert not cues.mask(0, 0).any()
    np.testing.assert_array_equal(cues.centers, make_cues().centers)


def test_a_clip_without_tracks_is_valid(tmp_path: Path) -> None:
    cues = make_cues()
    rle, offsets = no_masks(0, T)
    tracks = {name: getattr(cues, name)[:0] for name in ARRAYS if len(getattr(cues, name)) == N}
    write_cues(tmp_path / "a.npz", replace(cues, **tracks, mask_rle=rle, mask_offsets=offsets))
    assert read_cues(tmp_path / "a.npz").num_tracks == 0


def _with(name: str, index: object, value: object) -> ClipCues:
    array = getattr(make_cues(), name).copy()
    array[index] = value
    return replace(make_cues(), **{name: array})


@pytest.mark.parametrize(
    ("name", "index", "value", "problem"),
    [
        ("timestamps", 2, 0.1, "timestamps does not increase strictly"),
        ("timestamps", 3, np.inf, "timestamps has NaN or infinity"),
        ("frame_index", 0, -1, "frame_index has a negative index"),
        ("camera_poses", (1, 0, 0), np.nan, "camera_poses has NaN"),
        ("camera_poses", (1, 0, 0), 1.2, "camera_poses has a matrix that is no rotation"),
        ("camera_poses", (1, 3, 0), 1.0, "camera_poses has a last row"),
        ("labels", 1, "dog", "labels are not unique"),
        ("boxes", (0, 1), np.nan, "boxes has NaN or infinity where visible"),
        ("boxes", (0, 1, 2), 1.0, "boxes has an empty box"),
        ("centers", (1, 2), 0.0, "centers has values where not visible"),
        ("center_uncertainty", (0, 0), -0.1, "center_uncertainty is negative"),
        ("center_uncertainty", (0, 0), np.nan, "center_uncertainty has NaN"),
        ("orientations", (1, 0), np.eye(3), "orientations set for an object"),
        ("orientations", (0, 0), -np.eye(3), "orientations has a matrix that is no rotation"),
        ("orientations", (0, 0, 0, 0), np.nan, "orientations has a matrix that is partly known"),
        ("orientation_confidence", (1, 0), 0.5, "orientation_confidence set without orientation"),
        ("confidence", (1, 0, 0), 1.5, r"confidence is not in \[0, 1\]"),
        ("confidence", (0, 0, 0), 0.5, "confidence is set where point_map is not finite"),
        ("mask_offsets", 0, 1, "mask_offsets do not cover"),
    ],
)
def test_wrong_content_is_refused_by_name(name: str, index: object, value: object, problem: str) -> None:
    with pytest.raises(CuesError, match=problem):
        _with(name, index, value)


def test_wrong_shapes_and_types_are_refused_by_name() -> None:
    with pytest.raises(CuesError, match=r"boxes has shape \(2, 3, 4\)"):
        replace(make_cues(), boxes=make_cues().boxes[:, 1:])
    with pytest.raises(CuesError, match="centers has dtype float64"):
        replace(make_cues(), centers=make_cues().centers.astype(np.float64))


def _stored(tmp_path: Path) -> bytes:
    write_cues(tmp_path / "good.npz", make_cues())
    return (tmp_path / "good.npz").read_bytes()


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -30])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    (tmp_path / "bad.npz").write_bytes(_stored(tmp_path)[:cut])
    for read in (read_meta, read_cues):
        with pytest.raises(CuesError, match=r"bad\.npz: not a readable cue file"):
            read(tmp_path / "bad.npz")


def test_every_changed_byte_is_noticed_or_without_effect(tmp_path: Path) -> None:
    content = _stored(tmp_path)
    path = tmp_path / "bad.npz"
    expected = read_cues(tmp_path / "good.npz")
    refused = 0
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        try:
            cues = read_cues(path)
        except CuesError:
            refused += 1
        else:
            for name in ARRAYS:
                np.testing.assert_array_equal(getattr(cues, name), getattr(expected, name))
    assert refused > 100


def test_files_that_are_no_cues_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    np.savez(bad, a=np.zeros(3))
    with pytest.raises(CuesError, match="without boxes, camera_poses"):
        read_meta(bad)
    with bad.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(CuesError, match="not a readable cue file"):
        read_cues(bad)
    with pytest.raises(CuesError, match="not a readable cue file"):
        read_cues(tmp_path / "absent.npz")


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    _stored(tmp_path)
    with np.load(tmp_path / "good.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(bad, **arrays | {"labels": np.array(["dog", object()], dtype=object)}, allow_pickle=True)
    with pytest.raises(CuesError, match="not a readable cue file"):
        read_cues(bad)


def test_meta_that_is_no_mapping_and_headers_that_promise_too_much_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.npz"
    _stored(tmp_path)
    with zipfile.ZipFile(tmp_path / "good.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    huge = members["boxes.npy"].replace(b"(2, 4, 4)", b"(2, 4, 9)")
    for name, content in (("boxes.npy", huge), ("meta.npy", members["visible.npy"])):
        with zipfile.ZipFile(bad, "w") as archive:
            for member, original in members.items():
                archive.writestr(member, content if member == name else original)
        with pytest.raises(CuesError, match="not a readable cue file"):
            read_cues(bad)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    write_cues(tmp_path / "a.npz", replace(make_cues(), meta={"schema_version": 0}))
    with pytest.raises(CuesError, match="schema version is not 1"):
        read_cues(tmp_path / "a.npz")
