"""Orient Anything: the published layout, the reference's outputs and drawings, angles by hand, and bad pictures."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsr.console import StageError
from dsr.perception.dinov2 import image_statistics
from dsr.perception.orientation import (
    OUTPUTS,
    OrientAnything,
    OrientAnythingConfig,
    agent_crop,
    decode,
    orientations,
    published_layout,
    rotation_matrices,
    turned_to,
)
from tests.perception import seeded
from tests.perception.parity import FIXTURES, example_mask

TOLERANCE = 1e-4
TINY = OrientAnythingConfig.tiny()
PUBLISHED_FILE = Path("models/weights/croplargeEX2/dino_weight.pt")
HEIGHT, WIDTH = 90, 120
DOWN, UP = [0, 1, 0], [0, -1, 0]
AWAY, NEARER = [0, 0, 1], [0, 0, -1]
LEFT, RIGHT = [-1, 0, 0], [1, 0, 0]


def published_shapes(model: OrientAnything) -> dict[str, list[int]]:
    """Names and shapes of the checkpoint that the model takes."""
    shapes, state = {"dinov2.embeddings.mask_token": [1, model.config.backbone.width]}, model.state_dict()
    for ours, names in published_layout(model).items():
        shape = list(state[ours].shape)
        if len(names) > 1:
            shape[0] //= len(names)
        shapes |= dict.fromkeys(names, shape)
    return shapes


def checkpoint() -> dict[str, torch.Tensor]:
    """Seeded weights of the tiny model in the published layout, as the reference had them."""
    return seeded.weights(published_shapes(OrientAnything(TINY)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OrientAnything:
    file = tmp_path_factory.mktemp("weights") / "dino_weight.pt"
    torch.save(checkpoint(), file)
    return OrientAnything.from_file(file, config=TINY)


@pytest.fixture
def view() -> tuple[np.ndarray, np.ndarray]:
    """What the reference was shown."""
    return seeded.pictures("agent", 1, HEIGHT, WIDTH)[0], example_mask(HEIGHT, WIDTH)


def normalised(crop: np.ndarray) -> torch.Tensor:
    mean, std = image_statistics()
    return (torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255 - mean) / std


def test_parameters_are_the_published_ones() -> None:
    published = json.loads((FIXTURES / "orient_anything.json").read_text())
    with torch.device("meta"):
        model = OrientAnything()
    assert published_shapes(model) == published
    assert published["down_sampler.net2.0.weight"] == [722, 722]


def test_pictures_are_what_the_published_preprocessing_makes(view: tuple[np.ndarray, np.ndarray]) -> None:
    theirs = np.load(FIXTURES / "orient_anything.npz")["pixels"]
    crop = agent_crop(*view)
    assert crop is not None
    np.testing.assert_allclose(normalised(crop)[0, :, ::7, ::7].numpy(), theirs, atol=1e-5)


def test_outputs_are_the_references(model: OrientAnything, view: tuple[np.ndarray, np.ndarray]) -> None:
    theirs = np.load(FIXTURES / "orient_anything.npz")["logits"]
    crop = agent_crop(*view)
    assert crop is not None
    with torch.inference_mode():
        ours = model(normalised(crop)).numpy()
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < TOLERANCE
    assert theirs.std() > 0.1
    angles, confidence = decode(torch.from_numpy(theirs))
    rotations, sure = orientations(model, [view])
    np.testing.assert_allclose(rotations, rotation_matrices(angles), atol=1e-6)
    np.testing.assert_allclose(sure, confidence, atol=1e-5)


def test_axes_are_where_the_reference_draws_them() -> None:
    stored = np.load(FIXTURES / "orient_anything.npz")
    front, right, top = np.moveaxis(stored["arrows"], 1, 0)
    ours = rotation_matrices(stored["angles"])
    picture = np.array([1, -1])  # the drawing's y points up
    np.testing.assert_allclose(ours[:, :2, 0] * picture, front, atol=1e-12)
    np.testing.assert_allclose(-ours[:, :2, 1] * picture, right, atol=1e-12)
    np.testing.assert_allclose(ours[:, :2, 2] * picture, top, atol=1e-12)


@pytest.mark.parametrize(
    ("angles", "forward", "left", "up"),
    [
        ((0, 0, 0), NEARER, RIGHT, UP),  # faces the camera: its left hand is at the picture's right
        ((180, 0, 0), AWAY, LEFT, UP),
        ((90, 0, 0), LEFT, NEARER, UP),  # faces the picture's left: its left hand is towards us
        ((270, 0, 0), RIGHT, AWAY, UP),
        ((0, 90, 0), DOWN, RIGHT, NEARER),  # from straight above, feet away from us, front at the bottom
        ((180, 90, 0), UP, LEFT, NEARER),
        ((0, -90, 0), UP, RIGHT, AWAY),  # from straight below
        ((270, 0, 90), UP, AWAY, LEFT),  # faced right, then the picture turned counter-clockwise
        ((0, 0, -90), NEARER, DOWN, RIGHT),
    ],
)
def test_directions_by_hand(angles: tuple[float, ...], forward: list[int], left: list[int], up: list[int]) -> None:
    made = rotation_matrices(np.array(angles, np.float64))
    np.testing.assert_allclose(made, np.array([forward, left, up]).T, atol=1e-12)


def test_looked_down_on_at_30_degrees() -> None:
    forward, _, up = rotation_matrices(np.array([0.0, 30, 0])).T
    np.testing.assert_allclose(forward, [0, 0.5, -np.sqrt(0.75)], atol=1e-12)  # still at us, dipping
    np.testing.assert_allclose(up, [0, -np.sqrt(0.75), -0.5], atol=1e-12)


@given(st.tuples(st.floats(0, 360), st.floats(-90, 90), st.floats(-90, 90)))
def test_matrices_are_rotations(angles: tuple[float, float, float]) -> None:
    made = rotation_matrices(np.array([angles]))[0]
    np.testing.assert_allclose(made @ made.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(made) == pytest.approx(1)


def test_what_faces_the_camera_from_the_side_faces_the_cameras_place() -> None:
    # One to the right and one ahead at 45 degrees, one straight ahead, one below at 45 degrees.
    directions = np.array([[2.0, 0, 2], [0, 0, 7], [0, 3, 3]])
    half = np.sqrt(0.5)
    facing = turned_to(directions) @ rotation_matrices(np.zeros(3))
    np.testing.assert_allclose(facing[..., 0], [[-half, 0, -half], [0, 0, -1], [0, -half, -half]], atol=1e-12)
    np.testing.assert_allclose(facing[..., 2], [[0, -1, 0], [0, -1, 0], [0, -half, half]], atol=1e-12)


@given(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.1, 5)))
def test_turning_to_a_ray_is_a_rotation_without_roll(direction: tuple[float, float, float]) -> None:
    made, ray = turned_to(np.array(direction)), np.array(direction) / np.linalg.norm(direction)
    np.testing.assert_allclose(made @ made.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(made[:, 2], ray, atol=1e-12)
    axis = np.cross([0, 0, 1], ray)
    np.testing.assert_allclose(made @ axis, axis, atol=1e-9)


def test_directions_turn_the_orientations_and_an_unknown_one_takes_them_away(
    model: OrientAnything, view: tuple[np.ndarray, np.ndarray]
) -> None:
    directions = np.array([[0, 0, 3], [1, 0, 1], [np.nan, 0, 1], [0, 0, 0], [0, 0, -1]])
    straight, sure = orientations(model, [view])
    turned, confidence = orientations(model, [view] * 5, directions=directions)
    np.testing.assert_allclose(turned[0], straight[0], atol=1e-6)
    np.testing.assert_allclose(turned[1], turned_to(directions[1]) @ straight[0], atol=1e-6)
    assert np.isnan(turned[2:]).all()
    assert confidence.tolist() == pytest.approx([sure[0], sure[0], 0, 0, 0])


def test_decoding_takes_the_likeliest_classes() -> None:
    logits = torch.zeros(3, OUTPUTS)
    logits[0, 90] = logits[0, 360 + 90] = logits[0, 540 + 90] = 5
    logits[1, 359] = logits[1, 360 + 179] = logits[1, 540] = 5
    logits[0, 720], logits[1, 721] = np.log(3), np.log(4)
    logits[2, 7] = torch.nan
    angles, confidence = decode(logits)
    assert angles[:2].tolist() == [[90, 0, 0], [359, 89, -90]]
    assert np.isnan(angles[2]).all()
    assert confidence.tolist() == pytest.approx([0.75, 0.2, 0])


def test_the_background_is_gone_and_the_thing_fills_its_share() -> None:
    frame = np.full((100, 200, 3), 200, np.uint8)
    mask = np.zeros((100, 200), bool)
    mask[20:80, 150:170] = True  # 60 high, 20 wide: a square of 70
    crop = agent_crop(frame, mask)
    assert crop is not None
    assert crop.shape == (224, 224, 3)
    assert crop.dtype == np.uint8
    shown = crop[..., 0] > 100
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    scale = 256 / 70
    assert [len(rows), len(columns)] == pytest.approx([60 * scale, 20 * scale], abs=2)
    assert [rows.mean(), columns.mean()] == pytest.approx([111.5, 111.5], abs=2)
    assert (crop[~shown] < 100).all()
    assert (crop[:, :60] == 0).all()


def test_what_lies_outside_the_mask_does_not_matter(model: OrientAnything) -> None:
    frame, mask = seeded.pictures("outside", 1, HEIGHT, WIDTH)[0], example_mask(HEIGHT, WIDTH)
    other = np.where(mask[..., None], frame, 255 - frame)
    first, second = (orientations(model, [(f, mask)]) for f in (frame, other))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_a_thing_at_the_edge_of_the_picture() -> None:
    frame, mask = seeded.pictures("edge", 1, 40, 50)[0], np.zeros((40, 50), bool)
    mask[:, 45:] = True
    assert agent_crop(frame, mask) is not None
    assert agent_crop(frame, np.ones((40, 50), bool)) is not None


def test_masks_with_nothing_to_see_have_no_orientation(model: OrientAnything) -> None:
    frame = seeded.pictures("tiny", 1, HEIGHT, WIDTH)[0]
    empty, speck, whole = np.zeros((3, HEIGHT, WIDTH), bool)
    speck[10:25, 10:25] = True
    whole[10:26, 10:11] = True  # thin, but as long as it must be
    rotations, confidence = orientations(model, [(frame, empty), (frame, whole), (frame, speck)])
    assert np.isnan(rotations[[0, 2]]).all()
    assert confidence[[0, 2]].tolist() == [0, 0]
    assert np.isfinite(rotations[1]).all()
    assert 0 < confidence[1] < 1
    assert (rotations.dtype, confidence.dtype) == (np.float32, np.float32)


def test_only_such_masks_or_none_at_all(model: OrientAnything) -> None:
    frame = seeded.pictures("none", 1, HEIGHT, WIDTH)[0]
    rotations, confidence = orientations(model, [(frame, np.zeros((HEIGHT, WIDTH), bool))] * 3)
    assert rotations.shape == (3, 3, 3)
    assert confidence.tolist() == [0, 0, 0]
    rotations, confidence = orientations(model, [])
    assert (rotations.shape, confidence.shape) == ((0, 3, 3), (0,))


def test_batches_do_not_change_the_result_and_are_read_as_needed(model: OrientAnything) -> None:
    frames, mask = seeded.pictures("batch", 5, HEIGHT, WIDTH), example_mask(HEIGHT, WIDTH)
    masks = [mask, mask.T[:HEIGHT].repeat(2, axis=1)[:, :WIDTH], ~mask, np.zeros_like(mask), mask]
    held = 0

    def views() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal held
        for frame, shown in zip(frames, masks, strict=True):
            held += 1
            yield frame, shown

    together = orientations(model, views(), batch_size=8)
    assert held == 5
    for size in (1, 2):
        apart = orientations(model, views(), batch_size=size)
        np.testing.assert_allclose(apart[0], together[0], atol=1e-5)
        np.testing.assert_allclose(apart[1], together[1], atol=1e-5)


def test_a_batch_that_does_not_fit_is_tried_in_halves(
    model: OrientAnything, view: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, mask = view
    views = [(frame, mask), (frame, np.zeros_like(mask)), (frame[:, ::-1], mask[:, ::-1]), (frame, mask), (frame, mask)]
    rotations, confidence = orientations(model, views)
    sizes: list[int] = []
    forward = model.forward

    def small(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(images)

    monkeypatch.setattr(model, "forward", small)
    halved, sure = orientations(model, views)
    assert sizes == [4, 2, 1, 1, 1, 1]
    np.testing.assert_allclose(halved, rotations, atol=1e-6)
    np.testing.assert_allclose(sure, confidence, atol=1e-5)
    assert np.isnan(halved[1]).all()


def test_a_model_that_breaks_gives_no_orientation(view: tuple[np.ndarray, np.ndarray]) -> None:
    torch.manual_seed(0)
    broken = OrientAnything(TINY).eval()
    with torch.no_grad():
        broken.down_sampler.net2[0].bias[3] = torch.nan
    rotations, confidence = orientations(broken, [view])
    assert np.isnan(rotations).all()
    assert confidence.tolist() == [0]


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask of 20x10 on a frame of 10x20"):
        agent_crop(np.zeros((20, 10, 3), np.uint8), np.zeros((10, 20), bool))


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no such file; get it from huggingface\.co/Viglong/Orient-Anything"):
        OrientAnything.from_file(tmp_path / "dino_weight.pt", config=TINY)


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    file, sprung = tmp_path / "dino_weight.pt", tmp_path / "sprung"
    torch.save({"dinov2": Trap(sprung)}, file)
    with pytest.raises(StageError, match="not a readable checkpoint"):
        OrientAnything.from_file(file, config=TINY)
    file.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    with pytest.raises(StageError, match="not a readable checkpoint"):
        OrientAnything.from_file(file, config=TINY)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "dino_weight.pt"
    file.write_bytes(content)
    with pytest.raises(StageError, match="not a readable checkpoint"):
        OrientAnything.from_file(file, config=TINY)


def test_parameters_that_do_not_fit_are_named(tmp_path: Path) -> None:
    file, state = tmp_path / "dino_weight.pt", checkpoint()
    name = "dinov2.encoder.layer.1.attention.attention.key.weight"
    del state[name]
    state["down_sampler.net2.0.bias"] = torch.zeros(902)  # another of the published models
    torch.save(state, file)
    with pytest.raises(StageError) as error:
        OrientAnything.from_file(file, config=TINY)
    assert f"1 missing ({name})" in str(error.value)
    assert "1 of another shape (down_sampler.net2.0.bias [902] instead of [722])" in str(error.value)
    torch.save([1, 2], file)
    with pytest.raises(StageError, match="not a mapping of names to tensors"):
        OrientAnything.from_file(file, config=TINY)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_computes_in_bfloat16(tmp_path: Path, view: tuple[np.ndarray, np.ndarray]) -> None:
    torch.save(checkpoint(), tmp_path / "dino_weight.pt")
    there = OrientAnything.from_file(tmp_path / "dino_weight.pt", "cuda", config=TINY)
    assert there.compute_dtype == torch.bfloat16
    crop = agent_crop(*view)
    assert crop is not None
    theirs = np.load(FIXTURES / "orient_anything.npz")["logits"]
    ours = there(normalised(crop).cuda()).cpu().numpy()
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < 0.05


@pytest.mark.weights
@pytest.mark.skipif(not PUBLISHED_FILE.is_file(), reason=f"needs {PUBLISHED_FILE}")
def test_published_weights(view: tuple[np.ndarray, np.ndarray]) -> None:
    rotations, confidence = orientations(OrientAnything.from_file(PUBLISHED_FILE), [view])
    assert np.isfinite(rotations).all()
    assert 0 < confidence[0] < 1
