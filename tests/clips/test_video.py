"""Decoding: the frames that are asked for, at their exact times, as they are meant to be shown, or a reason."""

import resource
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.clips import video
from dsr.clips.video import VideoError, frames_between, probe, read_frames, uniform_frames
from tests.videos import frame_grey, make_video


def greys(frames: np.ndarray) -> np.ndarray:
    """[T] grey of each frame, away from its marked corners."""
    return frames[:, frames.shape[1] // 2, frames.shape[2] // 2, 0].astype(int)


def assert_are_frames(frames: np.ndarray, indices: np.ndarray) -> None:
    assert np.abs(greys(frames) - [frame_grey(int(i)) for i in indices]).max() <= 3


def test_uniform_frames_hold_the_first_and_the_last() -> None:
    assert uniform_frames(10, 4).tolist() == [0, 3, 6, 9]
    assert uniform_frames(5, 5, first=7).tolist() == [7, 8, 9, 10, 11]
    with pytest.raises(ValueError, match="32 frames of a clip that has 31"):
        uniform_frames(31, 32)


@given(st.integers(2, 5000), st.data())
def test_uniform_frames_never_repeat(num_frames: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, min(num_frames, 64)))
    frames = uniform_frames(num_frames, count)
    assert (np.diff(frames) > 0).all()
    assert (frames[0], frames[-1]) == (0, num_frames - 1)


def test_frames_between_includes_both_ends() -> None:
    timestamps = np.arange(40) / 10
    assert frames_between(timestamps, 1.0, 2.0) == (10, 11)
    assert frames_between(timestamps, 0.0, 4.0) == (0, 40)
    assert frames_between(timestamps, 9.0, 10.0)[1] == 0


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "avi", "ts", "flv", "mpg"])
def test_every_container_gives_the_frames_asked_for(tmp_path: Path, suffix: str) -> None:
    """decord alone returns wrong frames for .ts, and knows no times of .avi."""
    path = make_video(tmp_path / f"clip.{suffix}", 100)
    info = probe(path)
    assert (info.num_frames, info.width, info.height) == (100, 64, 48)
    assert (info.fps, info.duration) == (pytest.approx(10), pytest.approx(10))
    wanted = np.array([99, 0, 57, 31, 32, 12, 57])
    assert_are_frames(read_frames(path, wanted), wanted)


def test_all_readers_decode_the_same(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", 60)
    wanted = uniform_frames(60, 32)
    index = video._read_index(path)
    through = video._read_with_pyav(path, index, wanted, (64, 48)).astype(int)
    reader = video._decord_reader(path, index, (64, 48))
    assert reader is not None
    assert np.abs(reader.get_batch(wanted).asnumpy() - through).max() <= 2
    np.testing.assert_array_equal(video._read_planned(path, index, wanted, (64, 48)), through)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("rotation", [0, 90])
def test_few_frames_need_few_packets_and_are_exact(tmp_path: Path, suffix: str, rotation: int) -> None:
    """Keyframes are 12 frames apart."""
    path = make_video(tmp_path / f"clip.{suffix}", 200, rotation=rotation if suffix == "mp4" else 0)
    index = video._read_index(path)
    assert index.packets is not None
    for wanted in (np.array([5]), np.array([199, 0, 100, 100]), np.array([11, 12, 13]), uniform_frames(200, 7)):
        needed = video._needed_packets(index.packets, index.keyframes, index.pts[wanted])
        assert needed.sum() <= 13 * len(wanted)
        size = (index.width, index.height)
        exact = video._read_with_pyav(path, index, wanted, size)
        np.testing.assert_array_equal(video._read_planned(path, index, wanted, size), exact)
        np.testing.assert_array_equal(read_frames(path, wanted), exact)


def test_a_frame_shown_before_its_keyframe_needs_the_keyframe_before() -> None:
    #                     I  P  B  I  B  P  (an open group: the second B refers to both sides)
    packets = np.array([0, 2, 1, 4, 3, 5])
    keyframes = np.array([True, False, False, True, False, False])
    assert video._needed_packets(packets, keyframes, np.array([3])).tolist() == [True] * 5 + [False]
    assert video._needed_packets(packets, keyframes, np.array([5])).tolist() == [False] * 3 + [True] * 3


def test_timestamps_of_a_variable_rate_are_exact(tmp_path: Path) -> None:
    times = np.round(np.cumsum(np.random.default_rng(0).uniform(0.02, 0.3, 40)), 3)
    path = make_video(tmp_path / "clip.mp4", 40, timestamps=times.tolist())
    info = probe(path)
    np.testing.assert_allclose(info.timestamps, times - times[0], atol=1e-9)
    assert info.timestamps.dtype == np.float64
    assert info.fps == pytest.approx(39 / (times[-1] - times[0]))
    assert_are_frames(read_frames(path, np.arange(40)), np.arange(40))


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (270, (0, 1))])
def test_rotation_is_honoured(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    """The picture's bright top-left corner (row, column) ends where a player shows it."""
    path = make_video(tmp_path / "clip.mp4", 40, (64, 48), rotation=rotation)
    info = probe(path)
    assert (info.width, info.height) == ((48, 64) if rotation % 180 else (64, 48))
    frames = read_frames(path, [0, 20])
    assert frames.shape == (2, info.height, info.width, 3)
    corners = frames[1][3 :: info.height - 7, 3 :: info.width - 7, 0][:2, :2]
    assert tuple(np.argwhere(corners > 200)[0]) == corner
    assert (corners > 200).sum() == 1


def test_max_pixels_keeps_the_proportion(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", 40, (320, 240))
    frames = read_frames(path, [0, 39], max_pixels=80 * 60)
    assert frames.shape == (2, 60, 80, 3)
    assert_are_frames(frames, np.array([0, 39]))
    assert read_frames(path, [0], max_pixels=10**9).shape == (1, 240, 320, 3)


def test_no_frames_asked_for_none_given(tmp_path: Path) -> None:
    assert read_frames(make_video(tmp_path / "clip.mp4"), []).shape == (0, 48, 64, 3)


@pytest.mark.parametrize("index", [-1, 40])
def test_a_frame_that_is_not_there_is_an_error(tmp_path: Path, index: int) -> None:
    with pytest.raises(VideoError, match=f"no such frame: {index} of 40"):
        read_frames(make_video(tmp_path / "clip.mp4", 40), [0, index])


def broken_files(folder: Path) -> dict[str, Path]:
    """A file of each kind of damage, with what its reason says."""
    good = {suffix: make_video(folder / f"good.{suffix}", 100).read_bytes() for suffix in ("mp4", "mkv", "avi")}
    fast = faststart(good["mp4"])
    contents = {
        "empty file": b"",
        "not a readable video": np.random.default_rng(0).bytes(5000),
        "not a readable video: .*|header only": good["mp4"][:200],
        "truncated|not a readable|no frames": good["mp4"][: len(good["mp4"]) // 2],
        "truncated: [0-9]+ of 100 frames": fast[: int(len(fast) * 0.8)],
        "truncated: .* s of 10.00 s": good["mkv"][: int(len(good["mkv"]) * 0.7)],
        "truncated: .* of 10.00 s are in": good["avi"][: int(len(good["avi"]) * 0.8)],
        "no frames": good["mkv"][:700],
        "not a readable video: Invalid": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    }
    files = {}
    for i, (reason, content) in enumerate(contents.items()):
        files[reason] = folder / f"broken_{i}.mp4"
        files[reason].write_bytes(content)
    files["no video stream: audio only"] = make_video(folder / "audio.mp4", video=False, audio=True)
    return files


def faststart(content: bytes) -> bytes:
    """The MP4 with its index (moov) before its frames (mdat), as files for the web have it."""
    boxes, position = [], 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        boxes.append((content[position + 4 : position + 8], content[position : position + size]))
        position += size
    moov = bytearray(next(box for name, box in boxes if name == b"moov"))
    table = moov.find(b"stco") + 8
    for k in range(int.from_bytes(moov[table : table + 4], "big")):
        place = slice(table + 4 + 4 * k, table + 8 + 4 * k)
        moov[place] = (int.from_bytes(moov[place], "big") + len(moov)).to_bytes(4, "big")
    rest = [box for name, box in boxes if name not in (b"moov", b"ftyp")]
    return b"".join([boxes[0][1], bytes(moov), *rest])


def test_every_kind_of_damage_has_its_reason(tmp_path: Path) -> None:
    for reason, path in broken_files(tmp_path).items():
        with pytest.raises(VideoError, match=reason) as caught:
            probe(path)
        assert "\n" not in str(caught.value)
        with pytest.raises(VideoError):
            read_frames(path, [0, 50])


def test_faststart_itself_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "fast.mp4"
    path.write_bytes(faststart(make_video(tmp_path / "clip.mp4", 100).read_bytes()))
    assert probe(path).num_frames == 100


def test_a_video_with_sound_is_a_video(tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "clip.mp4", 40, audio=True))
    assert (info.num_frames, info.duration) == (40, pytest.approx(4))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="No such file"):
        probe(tmp_path / "none.mp4")
    with pytest.raises(VideoError):
        probe(tmp_path)


def test_a_name_that_looks_like_a_protocol_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "concat:clip.mp4")
    monkeypatch.chdir(tmp_path)
    assert probe(Path("concat:clip.mp4")).num_frames == 40


def test_square_pixels(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8))))
        container.mux(stream.encode())
    assert (probe(path).width, probe(path).height) == (128, 48)
    assert read_frames(path, [0, 9]).shape == (2, 48, 128, 3)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_clip(tmp_path: Path) -> None:
    """600 frames of 640 x 480 are 550 MB decoded; 8 of them are 7 MB."""
    path = make_video(tmp_path / "long.mp4", 600, (640, 480))
    wanted = uniform_frames(600, 8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_frames(path, wanted)
    video._read_with_pyav(path, video._read_index(path), wanted, (640, 480))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 150 * 1024, f"{grown} KiB"
