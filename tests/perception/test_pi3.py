"""pi3: the published layout, the reference's outputs, and what pictures and checkpoints can go wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dsr.console import StageError
from dsr.perception.dinov2 import DinoV2Config
from dsr.perception.pi3 import Pi3, Pi3Config, load_encoder, model_size, nearest_rotations, resize_frames
from dsr.perception.reconstruction import ReconstructionError, load_reconstructor
from tests.perception import seeded
from tests.perception.parity import FIXTURES, FRAMES, HEIGHT, WIDTH

TOLERANCE = 1e-4
TINY = Pi3Config.tiny()
PUBLISHED_FILE = Path("models/weights/pi3/model.safetensors")


def checkpoint() -> dict[str, torch.Tensor]:
    """Seeded weights of the tiny model, as the reference had them."""
    state = Pi3(TINY).state_dict()
    statistics = ("image_mean", "image_std")
    made = seeded.weights({name: tuple(value.shape) for name, value in state.items() if name not in statistics})
    return made | {name: state[name] for name in statistics}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pi3")
    save_file(checkpoint(), path / "model.safetensors")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Pi3:
    return Pi3.from_folder(folder, config=TINY)


def relative(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())


def test_parameters_are_the_published_ones() -> None:
    published = json.loads((FIXTURES / "pi3.json").read_text())
    with torch.device("meta"):
        ours = {name: list(value.shape) for name, value in Pi3().state_dict().items()}
    assert ours == published
    assert len(ours) == 1210


def test_outputs_are_the_references(model: Pi3) -> None:
    theirs = np.load(FIXTURES / "pi3.npz")
    images = resize_frames(seeded.pictures("pi3", FRAMES, HEIGHT, WIDTH), HEIGHT * WIDTH)
    assert images.shape[2:] == (HEIGHT, WIDTH)
    with torch.inference_mode():
        points, logits, poses = model(images)
        tokens = model.encoder((images - model.image_mean) / model.image_std).patches
    assert relative(tokens, theirs["patch_tokens"]) < TOLERANCE
    error = np.linalg.norm(points.numpy() - theirs["points"], axis=-1) / np.linalg.norm(theirs["points"], axis=-1)
    assert error.max() < TOLERANCE
    assert relative(logits, theirs["logits"]) < TOLERANCE
    assert relative(poses, theirs["camera_poses"]) < TOLERANCE
    # What is compared is no constant.
    assert points.std() > 0.1
    assert (poses[1:] - poses[:1]).abs().max() > 1e-2


def test_every_parameter_has_a_part_in_the_parity(model: Pi3) -> None:
    images = resize_frames(seeded.pictures("pi3", FRAMES, HEIGHT, WIDTH), HEIGHT * WIDTH)
    trained = Pi3(TINY)
    trained.load_state_dict(model.state_dict())
    points, logits, poses = trained(images)
    (points.sum() + logits.sum() + (poses * torch.arange(16.0).view(4, 4)).sum()).backward()
    silent = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


def test_nothing_tells_frames_apart(model: Pi3) -> None:
    frames = seeded.pictures("order", 3, 60, 80)
    order = [2, 0, 1]
    with torch.inference_mode():
        straight, shuffled = (model(resize_frames(f, TINY.max_pixels)) for f in (frames, frames[order]))
    for a, b in zip(straight, shuffled, strict=True):
        assert relative(a[order], b.numpy()) < TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(60, 80), (160, 90), (48, 200)])
@pytest.mark.parametrize("count", [1, 3])
def test_a_clip_of_any_shape(model: Pi3, count: int, height: int, width: int) -> None:
    made = model.reconstruct(seeded.pictures("clip", count, height, width))
    h, w = model_size(height, width, TINY.max_pixels)
    assert made.points.shape == (count, h, w, 3)
    assert made.confidence.shape == made.valid.shape == (count, h, w)
    assert made.camera_poses.shape == (count, 4, 4)
    assert made.camera_poses[0].tolist() == np.eye(4).tolist()
    assert (made.points[..., 2] > 0).all()
    assert ((made.confidence > 0) & (made.confidence < 1)).all()
    assert np.linalg.det(made.camera_poses[:, :3, :3]) == pytest.approx(1)


def test_an_untrained_model_sees_a_wall() -> None:
    torch.manual_seed(0)
    made = Pi3(TINY).eval().reconstruct(seeded.pictures("wall", 2, 60, 80))
    assert made.valid.mean() > 0.9
    assert made.points[..., 2] == pytest.approx(1, abs=0.1)


def test_outputs_that_are_not_finite(model: Pi3) -> None:
    broken = Pi3(TINY).eval()
    broken.load_state_dict(model.state_dict())
    frames = seeded.pictures("broken", 2, 60, 80)
    with torch.no_grad():
        broken.point_head.proj.bias[0] = torch.nan  # x of the pixel at the corner of each patch
    made = broken.reconstruct(frames)
    assert np.isnan(made.points[:, ::14, ::14]).all()
    assert not made.valid[:, ::14, ::14].any()
    assert np.isfinite(made.points).mean() == pytest.approx(1 - 1 / 14**2)
    with torch.no_grad():
        broken.camera_head.fc_rot.bias[0] = torch.nan
    with pytest.raises(ReconstructionError, match="camera pose of frame 0 is not finite"):
        broken.reconstruct(frames)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((0, 8, 8, 3), np.uint8), ((8, 8, 3), np.uint8), ((1, 8, 8, 4), np.uint8), ((1, 8, 8, 3), float)],
)
def test_frames_that_are_none(model: Pi3, shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(ValueError, match=r"not uint8 \[T, H, W, 3\]"):
        model.reconstruct(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((720, 1280), (378, 672)),  # 378.7 x 673.3 -> 27 x 48 patches
        ((1280, 720), (672, 378)),
        ((480, 640), (434, 574)),  # 437.3 x 583.1 -> 31 x 42 patches are 255,192 pixels: too many, one column less
        ((640, 480), (574, 434)),
        ((100, 100), (504, 504)),  # enlarged; 36 x 36 patches
        ((1080, 1920), (378, 672)),
        ((1, 100_000), (14, 18_214)),  # not what anyone films, but within the bound
    ],
)
def test_size_for_the_model(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert model_size(*size) == expected
    assert expected[0] * expected[1] <= 255_000


def test_pixel_values_are_scaled_to_one() -> None:
    frames = np.zeros((1, 28, 28, 3), np.uint8)
    frames[..., 0], frames[..., 1] = 255, 51
    images = resize_frames(frames, 28 * 28)
    assert images.shape == (1, 3, 28, 28)
    assert images[0, :, 3, 5].tolist() == pytest.approx([1, 0.2, 0])


def test_nearest_rotations() -> None:
    turned = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    mirrored = torch.diag(torch.tensor([1.0, 1, -1]))
    matrices = torch.stack([5 * turned, mirrored, torch.full((3, 3), torch.nan)])
    made = nearest_rotations(matrices)
    torch.testing.assert_close(made[0], turned)
    assert float(torch.linalg.det(made[1])) == pytest.approx(1)
    assert made[2].isnan().all()


def test_the_encoder_alone(folder: Path, model: Pi3) -> None:
    encoder = load_encoder(folder, config=TINY)
    assert encoder.state_dict().keys() == model.encoder.state_dict().keys()
    pictures = torch.from_numpy(seeded.uniform("encoder", (2, 3, 42, 28)).astype(np.float32))
    tokens = encoder(pictures)
    assert (tokens.cls.shape, tokens.registers.shape, tokens.patches.shape) == ((2, 32), (2, 4, 32), (2, 6, 32))
    torch.testing.assert_close(tokens.patches, model.encoder(pictures).patches)


def test_the_registry_loads_the_published_size(folder: Path) -> None:
    with pytest.raises(StageError, match=r"model\.safetensors: not the parameters of this model: .* missing"):
        load_reconstructor("pi3", folder, "cpu")


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"model\.safetensors: no such file; get it from huggingface\.co/yyfz233/Pi3"):
        Pi3.from_folder(tmp_path / "model.safetensors", config=TINY)
    with pytest.raises(StageError, match="no such file"):
        Pi3.from_folder(tmp_path, config=TINY)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"):
        file.write_bytes(content)
        with pytest.raises(StageError, match="not a readable checkpoint"):
            Pi3.from_folder(tmp_path, config=TINY)


def test_a_truncated_file(tmp_path: Path, folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(StageError, match="not a readable checkpoint"):
        Pi3.from_folder(tmp_path, config=TINY)


def test_parameters_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = checkpoint()
    for name in ("camera_head.fc_t.bias", "camera_head.fc_t.weight", "conf_head.proj.bias", "conf_head.proj.weight"):
        del state[name]
    state["mask_token"] = torch.zeros(1, 32)
    state["register_token"] = torch.zeros(1, 1, 5, 48)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(StageError) as error:
        Pi3.from_folder(tmp_path, config=TINY)
    message = str(error.value)
    assert "4 missing (conf_head.proj.weight, conf_head.proj.bias, camera_head.fc_t.weight, …)" in message
    assert "1 unexpected (mask_token)" in message
    assert "1 of another shape (register_token [1, 1, 5, 48] instead of [1, 1, 5, 32])" in message
    assert message.endswith("get it from huggingface.co/yyfz233/Pi3")


def test_half_precision_checkpoints_compute_in_single(tmp_path: Path, model: Pi3) -> None:
    save_file({name: value.bfloat16() for name, value in checkpoint().items()}, tmp_path / "model.safetensors")
    loaded = Pi3.from_folder(tmp_path, config=TINY)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_bfloat16_is_close(folder: Path, model: Pi3) -> None:
    half = Pi3.from_folder(folder, dtype=torch.bfloat16, config=TINY)
    images = resize_frames(seeded.pictures("pi3", FRAMES, HEIGHT, WIDTH), HEIGHT * WIDTH)
    with torch.inference_mode():
        outputs = zip(half(images), model(images), strict=True)
    for rough, exact in outputs:
        assert rough.dtype == torch.float32
        assert 0 < relative(rough, exact.numpy()) < 0.1


@pytest.mark.parametrize("depth", [0, 3])
def test_blocks_come_in_pairs(depth: int) -> None:
    with pytest.raises(ValueError, match="decoder_depth"):
        Pi3Config(DinoV2Config.tiny(registers=4), decoder_depth=depth)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_computes_in_bfloat16(folder: Path, model: Pi3) -> None:
    there = Pi3.from_folder(folder, "cuda", config=TINY)
    assert there.compute_dtype == torch.bfloat16
    frames = seeded.pictures("gpu", 3, 60, 80)
    ours, exact = there.reconstruct(frames), model.reconstruct(frames)
    assert np.abs(ours.camera_poses - exact.camera_poses).max() < 0.1
    assert np.median(np.abs(ours.points[..., 2] / exact.points[..., 2] - 1)) < 0.1


@pytest.mark.weights
@pytest.mark.skipif(not PUBLISHED_FILE.is_file(), reason=f"needs {PUBLISHED_FILE}")
def test_published_weights() -> None:
    made = load_reconstructor("pi3", PUBLISHED_FILE.parent, "cpu").reconstruct(seeded.pictures("clip", 2, 90, 160))
    assert np.isfinite(made.points).all()
    assert made.valid.any()
