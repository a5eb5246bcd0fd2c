"""3D tokens out of cues: hand-computed values, what may not matter, and what is not known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2VLVideoProcessor

from dsr.cues.schema import ClipCues
from dsr.examples.views import bare_cues
from dsr.model.address import Address
from dsr.model.geometry_encoders import (
    PADDING,
    Grid,
    PairEncoder,
    Pi3Encoder,
    PointMapEncoder,
    TrackEncoder,
    imagenet_frames,
    pad_arrays,
)
from dsr.perception.dinov2 import IMAGE_MEAN, IMAGE_STD
from tests.scenes import HEIGHT, WIDTH, heading, looking, make_cues

T = 4
GRID = Grid(frames=T, rows=2, columns=2)


def encode(text: str) -> list[int]:
    return [ord(character) for character in text.strip()]


@pytest.fixture
def cues() -> ClipCues:
    """A camera that moves one length a frame along world y, a robot that stands 4 lengths ahead and faces world x, and
    a ball 8 ahead."""
    position = np.stack([np.zeros(T), np.arange(T, dtype=float), np.ones(T)], axis=-1)
    ahead = position + np.array([0, 1, 0])
    tracks = {
        "robot": (np.tile([0.0, 4, 1], (T, 1)), heading(0.0, T)),
        "ball": (np.tile([0.0, 8, 1], (T, 1)), None),
    }
    return make_cues(looking(position, ahead), tracks, seconds=3.0)


def with_points(cues: ClipCues) -> ClipCues:
    """A wall 10 ahead of the first camera: depth falls as the camera comes closer; one quarter was not seen."""
    points = np.zeros((T, 4, 4, 3), np.float32)
    points[..., 2] = (10 - np.arange(T))[:, None, None]
    points[:, :2, :2] = np.nan
    confidence = np.where(np.isnan(points[..., 0]), 0, 0.5).astype(np.float32)
    return replace(cues, point_map=points, confidence=confidence)


def test_point_map_tokens_of_a_wall(cues: ClipCues) -> None:
    arrays = PointMapEncoder.extract(with_points(cues), GRID, encode)
    values, cells = arrays["values"], arrays["cells"]
    assert cells.tolist() == [[t, r, c] for t in range(2) for r in range(2) for c in range(2)]
    scale = np.median([10, 9, 8, 7])
    # Cell (1, 1, 1), its second frame is the last one: the wall is 7 ahead of the camera, which came 3 lengths.
    second = values[7, 17:34] * scale
    assert second[:3].tolist() == pytest.approx([0, 0, 10])
    assert second[3:6].tolist() == pytest.approx([0, 0, 7])
    assert values[7, 17 + 6 : 17 + 8].tolist() == pytest.approx([0.5, 1])
    assert second[8:11].tolist() == pytest.approx([0, 0, 3])
    assert values[7, 17 + 11 : 17 + 17].tolist() == pytest.approx([1, 0, 0, 0, 1, 0])
    # The quarter that was not seen is zero, its validity too, but the camera is known.
    assert values[0, :8].tolist() == [0] * 8
    assert values[0, 11:17].tolist() == pytest.approx([1, 0, 0, 0, 1, 0])


def test_track_tokens_of_a_robot_a_ball_and_the_camera(cues: ClipCues) -> None:
    arrays = TrackEncoder.extract(cues, GRID, encode)
    values, cells, labels = arrays["values"], arrays["cells"], arrays["labels"]
    assert values.shape == (6, 2 * 49)
    scale = np.median([4, 3, 2, 1, 8, 7, 6, 5])
    robot, ball, camera = values[1, 49:98], values[3, 49:98], values[5, 49:98]
    # visible, agent, camera, orientation known; box centre; centre in the first and in the current camera's frame
    assert robot[:4].tolist() == [1, 1, 0, 1]
    assert robot[4:6].tolist() == pytest.approx([0.5, 0.5])
    assert (robot[8:14] * scale).tolist() == pytest.approx([0, 0, 4, 0, 0, 1])
    assert robot[14:18].tolist() == pytest.approx([0, 0, 1, np.log(1 / scale)], abs=1e-6)
    # It faces world x: right in either camera, and its left, world y, is the camera's forward.
    assert robot[18:24].tolist() == pytest.approx([1, 0, 0, 0, 0, 1], abs=1e-6)
    assert robot[24:30].tolist() == pytest.approx([1, 0, 0, 0, 0, 1], abs=1e-6)
    # The camera is to its right and faces its left.
    assert robot[30:36].tolist() == pytest.approx([0, -1, 0, 0, 1, 0], abs=1e-6)
    # It stands still, and comes towards the moving camera.
    assert robot[36:45].tolist() == pytest.approx([0] * 9, abs=1e-6)
    assert robot[45:].tolist() == pytest.approx([0, 0, -1, np.log(0.02)], abs=1e-6)
    assert ball[:4].tolist() == [1, 0, 0, 0]
    assert ball[18:36].tolist() == [0] * 18
    assert camera[:8].tolist() == [1, 1, 1, 1, 0.5, 0.5, 1, 1]
    assert (camera[8:14] * scale).tolist() == pytest.approx([0, 0, 3, 0, 0, 0])
    assert camera[14:18].tolist() == pytest.approx([0, 0, 0, np.log(0.05)])
    assert camera[18:30].tolist() == pytest.approx([0, 0, 1, -1, 0, 0] * 2)
    assert camera[30:36].tolist() == pytest.approx([0, 0, 0, 1, 0, 0])
    # It moves ahead, one length a second: its own forward.
    assert (camera[36:39] * scale).tolist() == pytest.approx([0, 0, 1])
    assert camera[39:45].tolist() == pytest.approx([0, 0, 1, 1, 0, 0])
    assert camera[45:].tolist() == pytest.approx([0, 0, 0, np.log(1 / scale)])
    assert cells.tolist() == [[t, 1, 1] for _ in range(3) for t in range(2)]
    assert arrays["things"].tolist() == [[0], [0], [1], [1], [2], [2]]
    assert labels[0].tolist() == [*encode("robot"), PADDING, PADDING, PADDING]
    assert labels[2].tolist() == [*encode("camera"), PADDING, PADDING]


def test_pair_tokens_of_a_robot_a_ball_and_the_camera(cues: ClipCues) -> None:
    arrays = PairEncoder.extract(cues, GRID, encode)
    values, things = arrays["values"], arrays["things"]
    assert values.shape == (8, 2 * 36)
    # The robot and the camera are viewers, the ball is not; two groups each.
    assert things[::2].tolist() == [[0, 1], [0, 2], [2, 0], [2, 1]]
    assert things[1::2].tolist() == things[::2].tolist()
    scale = np.median([4, 3, 2, 1, 8, 7, 6, 5])
    ball, camera, robot = values[1, 36:], values[3, 36:], values[5, 36:]
    # The robot faces world x, its left is world y: the ball is 4 lengths to its left, faces nowhere, and neither moves.
    assert ball[:3].tolist() == [1, 1, 0]
    assert ball[3:7].tolist() == pytest.approx([0, 1, 0, np.log(4 / scale)], abs=1e-6)
    assert ball[7:16].tolist() == pytest.approx([0] * 9, abs=1e-5)
    assert ball[16:].tolist() == pytest.approx(
        [np.log(0.02), *[0] * 6, np.log(0.02), 0, 0, 4 / scale, 1, 0, 0, 0, 0, 1, 0, 4 / scale, 0], abs=1e-5
    )
    # The camera is one length to its right in the last frame, faces its left and comes that way, a length a second.
    assert camera[:3].tolist() == [1, 1, 1]
    assert camera[3:7].tolist() == pytest.approx([0, -1, 0, np.log(1 / scale)], abs=1e-6)
    assert camera[7:13].tolist() == pytest.approx([0, 1, 0, -1, 0, 0], abs=1e-6)
    speed = np.log(1 / scale)
    assert camera[13:24].tolist() == pytest.approx([0, 1, 0, speed, 0, 1, 0, 0, 1, 0, speed], abs=1e-6)
    # The camera sees the robot ahead, which comes nearer although it stands still.
    assert robot[3:7].tolist() == pytest.approx([1, 0, 0, np.log(1 / scale)], abs=1e-6)
    assert robot[7:13].tolist() == pytest.approx([0, -1, 0, 1, 0, 0], abs=1e-6)
    assert robot[13:24].tolist() == pytest.approx([-1, 0, 0, speed, -1, 0, 0, 0, 0, 0, np.log(0.02)], abs=1e-6)
    assert robot[24:].tolist() == pytest.approx([0, 0, 1 / scale, 0, 0, 1, -1, 0, 0, 1 / scale, 0, 0], abs=1e-6)
    assert arrays["labels"][things[5, 0], :6].tolist() == encode("camera")
    assert arrays["labels"][things[5, 1], :5].tolist() == encode("robot")
    assert arrays["cells"].tolist() == [[t, 1, 1] for _ in range(4) for t in range(2)]


@pytest.mark.parametrize("encoder", [TrackEncoder, PairEncoder])
def test_an_address_has_the_seconds_of_the_clip_and_the_labels_of_its_things(encoder: type, cues: ClipCues) -> None:
    arrays = encoder.extract(cues, GRID, encode)
    # Frames are one second apart.
    assert arrays["seconds"][:2].tolist() == [0.5, 2.5]
    for words, name in zip(arrays["labels"], [*cues.labels, "camera"], strict=True):
        assert words[: len(name)].tolist() == encode(name)


@torch.no_grad()
def test_a_token_is_values_and_the_maps_of_its_address(cues: ClipCues) -> None:
    config = Qwen2_5_VLConfig(text_config={"hidden_size": 24, "vocab_size": 200}).text_config
    torch.manual_seed(0)
    address, encoder, words = Address(config), PairEncoder(config), torch.nn.Embedding(200, 24)
    arrays = {name: torch.from_numpy(a)[None] for name, a in PairEncoder.extract(cues, GRID, encode).items()}
    token = encoder(arrays, words, address).states[0, 5]
    named = [words(torch.tensor(encode(name))).mean(0) for name in ("camera", "robot")]
    viewer, target = (name / name.square().mean().sqrt() for name in named)
    expected = torch.cat([encoder.values(arrays["values"][0, 5]), torch.zeros(12)]) + encoder.kind
    expected = expected + address.viewer(viewer) + address.target(target) + address.time(torch.tensor(2.5))
    torch.testing.assert_close(token, expected)


def test_a_thing_out_of_sight_has_no_token(cues: ClipCues) -> None:
    visible = cues.visible.copy()
    visible[0, 2:] = False
    visible[1, 3] = False
    hidden = ~visible[..., None]
    cues = replace(
        cues,
        visible=visible,
        boxes=np.where(hidden, np.nan, cues.boxes).astype(np.float32),
        centers=np.where(hidden, np.nan, cues.centers).astype(np.float32),
        center_uncertainty=np.where(hidden[..., 0], np.nan, cues.center_uncertainty).astype(np.float32),
        orientations=np.where(hidden[..., None], np.nan, cues.orientations).astype(np.float32),
        orientation_confidence=np.where(hidden[..., 0], 0, cues.orientation_confidence).astype(np.float32),
    )
    arrays = TrackEncoder.extract(cues, GRID, encode)
    assert arrays["cells"][:, 0].tolist() == [0, 0, 1, 0, 1]
    assert np.isfinite(arrays["values"]).all()
    assert arrays["values"][2, 49:98].tolist() == [0] * 49
    pairs = PairEncoder.extract(cues, GRID, encode)
    assert [*zip(pairs["things"].tolist(), pairs["cells"][:, 0].tolist(), strict=True)] == [
        *(([0, other], 0) for other in (1, 2)),
        ([2, 0], 0),
        *(([2, 1], group) for group in (0, 1)),
    ]
    assert np.isfinite(pairs["values"]).all()
    assert pairs["values"][4, 36:].tolist() == [0] * 36


@pytest.mark.parametrize("encoder", [PointMapEncoder, TrackEncoder, PairEncoder])
def test_only_the_shown_frames_are_read(encoder: type, cues: ClipCues) -> None:
    cues = with_points(cues)
    cut = replace(
        cues,
        point_map=np.where(np.arange(T)[:, None, None, None] < 2, cues.point_map, 77).astype(np.float32),
        confidence=np.where(np.arange(T)[:, None, None] < 2, cues.confidence, 1).astype(np.float32),
        centers=np.where(np.arange(T)[:, None] < 2, cues.centers, 77).astype(np.float32),
    )
    grid = Grid(frames=2, rows=2, columns=2)
    for one, other in zip(
        encoder.extract(cues, grid, encode).values(), encoder.extract(cut, grid, encode).values(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("encoder", [PointMapEncoder, TrackEncoder, PairEncoder])
def test_neither_scale_nor_world_frame_matters(encoder: type, cues: ClipCues) -> None:
    cues = with_points(cues)
    world = looking(np.array([3.0, -2, 5]), np.array([0.0, 1, 0]))
    poses = cues.camera_poses.copy()
    poses[:, :3, 3] *= 7
    other = replace(
        cues, camera_poses=world @ poses, point_map=cues.point_map * 7, centers=cues.centers * np.float32(7)
    )
    one, two = encoder.extract(cues, GRID, encode), encoder.extract(other, GRID, encode)
    np.testing.assert_allclose(one["values"], two["values"], atol=1e-5)


@pytest.mark.parametrize("frames", [3, 4])
@pytest.mark.parametrize("size", [(0, 0), (4, 4), (5, 7)])
def test_any_map_gives_numbers_for_any_grid(frames: int, size: tuple[int, int], cues: ClipCues) -> None:
    """No point map at all, one of NaN, and a grid that is finer than the map."""
    points = np.full((T, *size, 3), np.nan, np.float32)
    if size == (5, 7):
        points[:] = 1.0
    confidence = np.isfinite(points[..., 0]).astype(np.float32)
    empty = replace(cues, point_map=points, confidence=confidence)
    arrays = PointMapEncoder.extract(empty, Grid(frames, 6, 9), encode)
    assert arrays["values"].shape == (2 * 6 * 9, 46)
    assert np.isfinite(arrays["values"]).all()


def test_padding_is_zero_after_encoding(cues: ClipCues) -> None:
    config = Qwen2_5_VLConfig(text_config={"hidden_size": 8, "vocab_size": 200}).text_config
    one, two = (TrackEncoder.extract(cues, Grid(frames, 2, 2), encode) for frames in (2, 4))
    batch = {p: pad_arrays([one[p], two[p]]) for p in one}
    tokens = TrackEncoder(config)(batch, torch.nn.Embedding(200, 8), Address(config))
    assert tokens.mask.sum(1).tolist() == [3, 6]
    assert (tokens.states[0, 3:] == 0).all()
    assert (tokens.states[1] != 0).any(-1).all()


@pytest.mark.parametrize("encoder", [TrackEncoder, PairEncoder])
def test_a_clip_without_tracks_has_the_camera_alone(encoder: type, cues: ClipCues) -> None:
    arrays = encoder.extract(bare_cues(cues.timestamps, cues.frame_index, WIDTH, HEIGHT), GRID, encode)
    assert len(arrays["values"]) == (2 if encoder is TrackEncoder else 0)
    batch = {part: pad_arrays([array]) for part, array in arrays.items()}
    config = Qwen2_5_VLConfig(text_config={"hidden_size": 8, "vocab_size": 200}).text_config
    tokens = encoder(config)(batch, torch.nn.Embedding(200, 8), Address(config))
    assert tokens.mask.sum() == len(arrays["values"])
    assert tokens.states.shape[1] >= 1


def test_boxes_are_shares_of_the_picture(cues: ClipCues) -> None:
    boxes = np.tile(np.array([0, 0, WIDTH / 4, HEIGHT / 2], np.float32), (2, T, 1))
    values = TrackEncoder.extract(replace(cues, boxes=boxes), GRID, encode)
    assert values["values"][0, 4:8].tolist() == pytest.approx([0.125, 0.25, 0.25, 0.5])
    assert values["cells"][0].tolist() == [0, 0, 0]


PI3 = {"width": 32, "depth": 2, "heads": 2, "grid": 5}


@pytest.fixture(scope="module")
def pi3() -> Pi3Encoder:
    torch.manual_seed(0)
    return Pi3Encoder(Qwen2_5_VLConfig(text_config={"hidden_size": 24}).text_config, PI3)


def test_frames_come_back_from_patches_with_the_statistics_of_imagenet() -> None:
    frames = torch.randint(0, 256, (4, 3, 56, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processor = Qwen2VLVideoProcessor(size={"shortest_edge": 784, "longest_edge": 56 * 84})
    batch = processor(videos=[frames], return_tensors="pt")
    assert batch["video_grid_thw"].tolist() == [[2, 4, 6]]
    mean, std = torch.tensor(IMAGE_MEAN)[:, None, None], torch.tensor(IMAGE_STD)[:, None, None]
    # The mean of green that is put back is 0.0002 below the one that was taken off.
    torch.testing.assert_close(
        imagenet_frames(batch["pixel_values_videos"], (2, 4, 6)), (frames / 255 - mean) / std, atol=1e-3, rtol=0
    )


@torch.no_grad()
def test_a_pi3_token_is_two_by_two_patches_of_two_frames(pi3: Pi3Encoder) -> None:
    patches, grid = torch.randn(2 * 4 * 6, 1176), torch.tensor([[2, 4, 6]])
    tokens = pi3({"patches": patches, "grid_thw": grid, "places": grid}, torch.nn.Embedding(1, 24))
    assert tokens.cells[0].tolist() == [[t, r, c] for t in range(2) for r in range(2) for c in range(3)]
    features = pi3.encoder(imagenet_frames(patches, (2, 4, 6))).patches.view(4, 4, 6, 32)
    # Cell (1, 0, 2): frames 2 and 3, rows 0 and 1, columns 4 and 5.
    own = torch.cat([features[frame, row, column] for frame in (2, 3) for row in (0, 1) for column in (4, 5)])
    torch.testing.assert_close(tokens.states[0, 6 + 2], pi3.merger(own[None])[0])


@torch.no_grad()
def test_pi3_videos_of_different_sizes_and_another_clip_laid_over(pi3: Pi3Encoder) -> None:
    grids = torch.tensor([[1, 4, 4], [2, 2, 4]])
    patches, words = torch.randn(16 + 16, 1176), torch.nn.Embedding(1, 24)
    together = pi3({"patches": patches, "grid_thw": grids, "places": grids}, words)
    alone = pi3({"patches": patches[16:], "grid_thw": grids[1:], "places": grids[:1]}, words)
    torch.testing.assert_close(together.states[1], alone.states[0])
    # Its two groups of one row on a grid of one group and two rows.
    assert alone.cells[0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]]
    lent = Pi3Encoder.take({"patches": patches, "grid_thw": grids}, torch.tensor([1, 1, 0]))
    assert torch.equal(lent["patches"], torch.cat([patches[16:], patches[16:], patches[:16]]))
    assert lent["grid_thw"].tolist() == [[2, 2, 4], [2, 2, 4], [1, 4, 4]]


def test_the_pi3_encoder_is_frozen_and_its_merger_learns(pi3: Pi3Encoder) -> None:
    pi3.train()
    grid = torch.tensor([[1, 2, 2]])
    tokens = pi3({"patches": torch.randn(4, 1176), "grid_thw": grid, "places": grid}, torch.nn.Embedding(1, 24))
    tokens.states.sum().backward()
    assert not pi3.encoder.training
    assert all(p.grad is None and not p.requires_grad for p in pi3.encoder.parameters())
    assert all(p.grad is not None for p in pi3.merger.parameters())
