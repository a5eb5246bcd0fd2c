"""pi3: points, confidence and camera poses of all frames of a clip in one pass (arXiv 2507.13347, github yyfz/Pi3).

- No frame is the reference: attention alternates between the tokens of one frame and those of all frames, and nothing
  tells frames apart, so the outputs permute with the frames.
- Parameters carry the names and shapes of the published `model.safetensors` (huggingface.co/yyfz233/Pi3).
- Depth is exp(z), so it is positive; x and y are predicted per unit of depth.
- The transformers run under autocast (bfloat16 on a GPU), what turns their tokens into geometry in float32.

Letters: t frames, n tokens a frame (registers, then p patches), d width, h x w pixels.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsr.perception.checkpoints import load_exactly, read_safetensors
from dsr.perception.dinov2 import PATCH, DinoV2, DinoV2Config, image_statistics
from dsr.perception.reconstruction import Reconstruction
from dsr.perception.transformer import (
    Rotary,
    TransformerBlock,
    computing_in,
    default_dtype,
    learned_tokens,
    patch_positions,
)
from dsr.weights import foundation_weights

PUBLISHED = foundation_weights()["reconstruction"].published
FILE = "model.safetensors"
MAX_PIXELS = 255_000
ROTARY_BASE = 100.0
LAYER_SCALE = 0.01


@dataclass(frozen=True)
class Pi3Config:
    """Sizes; the defaults are the published model's (959 million parameters)."""

    encoder: DinoV2Config = field(default_factory=lambda: DinoV2Config(registers=4))
    decoder_depth: int = 36
    """Blocks, frame-wise and global ones in turn; even. They are as wide as the encoder."""
    decoder_heads: int = 16
    registers: int = 5
    """Tokens that the decoder adds to a frame's patches."""
    head_width: int = 1024
    """Width of the transformers that turn the decoder's tokens into points, confidence and poses."""
    head_depth: int = 5
    head_heads: int = 16
    camera_width: int = 512
    max_pixels: int = MAX_PIXELS
    """Frames are resized to about this area."""

    def __post_init__(self) -> None:
        if self.decoder_depth < 2 or self.decoder_depth % 2:
            raise ValueError(f"decoder_depth is {self.decoder_depth}: frame-wise and global blocks come in pairs")

    @classmethod
    def tiny(cls) -> "Pi3Config":
        """The same architecture with 200 thousand parameters on small pictures, for tests."""
        return cls(
            DinoV2Config.tiny(registers=4),
            decoder_depth=4,
            decoder_heads=2,
            head_width=32,
            head_depth=2,
            head_heads=2,
            camera_width=16,
            max_pixels=10_000,
        )


class TransformerHead(nn.Module):
    """Frame-wise transformer from the decoder's tokens to a head's."""

    def __init__(self, config: Pi3Config, out_width: int) -> None:
        super().__init__()
        width = config.head_width
        self.projects = nn.Linear(2 * config.encoder.width, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, config.head_heads) for _ in range(config.head_depth))
        self.linear_out = nn.Linear(width, out_width)

    def forward(self, tokens: Tensor, rotary: Rotary) -> Tensor:
        x = self.projects(tokens)
        for block in self.blocks:
            x = block(x, rotary)
        return self.linear_out(x)


class PixelHead(nn.Module):
    """Every patch's token to the values of its pixels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, channels * PATCH**2)
        # Untrained, it sees a wall at depth 1 rather than noise.
        nn.init.trunc_normal_(self.proj.weight, std=1e-3)
        nn.init.zeros_(self.proj.bias)

    def forward(self, patches: Tensor, rows: int) -> Tensor:
        """[t, p, d] to [t, h, w, channels]."""
        values = self.proj(patches).transpose(1, 2).unflatten(2, (rows, -1))
        return functional.pixel_shuffle(values, PATCH).permute(0, 2, 3, 1)


class ResidualLayers(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv1 = nn.Linear(width, width)
        self.res_conv2 = nn.Linear(width, width)
        self.res_conv3 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in (self.res_conv1, self.res_conv2, self.res_conv3):
            y = functional.relu(layer(y))
        return x + y


class CameraHead(nn.Module):
    """The mean of a frame's patches to its camera-to-world pose."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv = nn.ModuleList(ResidualLayers(width) for _ in range(2))
        self.more_mlps = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_t = nn.Linear(width, 3)
        self.fc_rot = nn.Linear(width, 9)

    def forward(self, patches: Tensor) -> Tensor:
        """[t, p, d] to [t, 4, 4]."""
        for layers in self.res_conv:
            patches = layers(patches)
        x = self.more_mlps(patches.mean(dim=1))
        poses = torch.eye(4, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
        poses[:, :3, :3] = nearest_rotations(self.fc_rot(x).view(-1, 3, 3))
        poses[:, :3, 3] = self.fc_t(x)
        return poses


class Pi3(nn.Module):
    """The network, and the reconstructor built on it (`dsr.perception.reconstruction.Reconstructor`)."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: Pi3Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Pi3Config()
        width = config.encoder.width
        self.compute_dtype = torch.float32
        self.encoder = DinoV2(config.encoder)
        self.register_token = learned_tokens(1, config.registers, width)
        self.decoder = nn.ModuleList(
            TransformerBlock(width, config.decoder_heads, layer_scale=LAYER_SCALE, qk_norm=True)
            for _ in range(config.decoder_depth)
        )
        self.point_decoder = TransformerHead(config, config.head_width)
        self.point_head = PixelHead(config.head_width, 3)
        self.conf_decoder = TransformerHead(config, config.head_width)
        self.conf_head = PixelHead(config.head_width, 1)
        self.camera_decoder = TransformerHead(config, config.camera_width)
        self.camera_head = CameraHead(config.camera_width)
        mean, std = image_statistics()
        self.register_buffer("image_mean", mean)
        self.register_buffer("image_std", std)

    @classmethod
    def from_folder(
        cls,
        path: Path,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        config: Pi3Config | None = None,
    ) -> "Pi3":
        """The published model in evaluation mode.

        Args:
            path: folder with `model.safetensors`, or the file itself.
            dtype: what the transformers compute in; bfloat16 on a GPU and float32 elsewhere if not given.

        Raises:
            StageError: no such file, not a safetensors file, or parameters missing, unexpected or of another shape.
        """
        with torch.device("meta"):
            model = cls(config)
        file = _file(path)
        load_exactly(model, read_safetensors(file, PUBLISHED), file, PUBLISHED)
        model.compute_dtype = dtype or default_dtype(device)
        return model.to(device).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Geometry of one clip.

        Args:
            images: [t, 3, h, w] float in [0, 1], h and w multiples of 14.

        Returns:
            points [t, h, w, 3] in each camera's frame, confidence logits [t, h, w], camera-to-world poses [t, 4, 4].
        """
        rows, columns = images.shape[2] // PATCH, images.shape[3] // PATCH
        with computing_in(self.compute_dtype, images.device):
            patches = self.encoder((images - self.image_mean) / self.image_std).patches
            tokens = self._decode(patches, self._rotary(rows, columns, self.config.decoder_heads))
            rotary = self._rotary(rows, columns, self.config.head_heads, width=self.config.head_width)
            point, conf, camera = (
                head(tokens, rotary)[:, self.config.registers :].float()
                for head in (self.point_decoder, self.conf_decoder, self.camera_decoder)
            )
        xy, z = self.point_head(point, rows).split([2, 1], dim=-1)
        depth = z.exp()
        points = torch.cat([xy * depth, depth], dim=-1)
        return points, self.conf_head(conf, rows)[..., 0], self.camera_head(camera)

    def reconstruct(self, frames: np.ndarray) -> Reconstruction:
        """Geometry of a clip's frames [T, H, W, 3] uint8 RGB at `model_size(H, W)`.

        Raises:
            ReconstructionError: a camera pose is not finite.
            ValueError: no frames, or frames of another shape or type.
        """
        with torch.inference_mode():
            images = resize_frames(frames, self.config.max_pixels)
            points, logits, poses = self(images.to(self.image_mean.device))
            confidence = logits.sigmoid()
        return Reconstruction.from_outputs(points.cpu().numpy(), confidence.cpu().numpy(), poses.cpu().numpy())

    def _decode(self, patches: Tensor, rotary: Rotary) -> Tensor:
        """[t, p, d] to [t, n, 2 d]: the outputs of the last frame-wise and of the last global block, side by side."""
        t = len(patches)
        x = torch.cat([self.register_token[0].expand(t, -1, -1), patches], dim=1)  # [t, n, d]
        every_frame = rotary.repeat(t)
        within = x
        for frame_wise, across in zip(self.decoder[::2], self.decoder[1::2], strict=True):
            within = frame_wise(x, rotary)
            x = across(within.flatten(0, 1)[None], every_frame)[0].unflatten(0, (t, -1))
        return torch.cat([within, x], dim=-1)

    def _rotary(self, rows: int, columns: int, heads: int, width: int | None = None) -> Rotary:
        """Registers stand at 0, patches from 1 on."""
        device = self.image_mean.device
        registers = torch.zeros(self.config.registers, 2, dtype=torch.int64, device=device)
        positions = torch.cat([registers, 1 + patch_positions(rows, columns, device)])
        return Rotary.at(positions, (width or self.config.encoder.width) // heads, ROTARY_BASE)


def load(path: Path, device: str) -> Pi3:
    """Entry of the registry of reconstruction models."""
    return Pi3.from_folder(path, device)


def load_encoder(path: Path, device: str = "cpu", config: Pi3Config | None = None) -> DinoV2:
    """pi3's DINOv2 encoder alone, from the published checkpoint (its `encoder.*`), in evaluation mode.

    It takes pictures normalised with `dinov2.image_statistics`.

    Raises:
        StageError: as `Pi3.from_folder`.
    """
    with torch.device("meta"):
        encoder = DinoV2((config or Pi3Config()).encoder)
    file = _file(path)
    load_exactly(encoder, read_safetensors(file, PUBLISHED, prefix="encoder."), file, PUBLISHED)
    return encoder.to(device).eval().requires_grad_(False)


def model_size(height: int, width: int, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width that a picture is resized to: multiples of 14, at most `max_pixels`, nearly the same aspect.

    The published rule: the size of the same aspect ratio with exactly `max_pixels` is rounded to multiples of 14, then
    the side that is too long for the aspect ratio loses 14 pixels until the area fits. Small pictures are enlarged.
    """
    scale = math.sqrt(max_pixels / (height * width))
    exact_height, exact_width = height * scale, width * scale
    rows, columns = max(1, round(exact_height / PATCH)), max(1, round(exact_width / PATCH))
    while rows * columns * PATCH**2 > max_pixels:
        if rows == 1 or (columns > 1 and columns / rows > exact_width / exact_height):
            columns -= 1
        else:
            rows -= 1
    return rows * PATCH, columns * PATCH


def resize_frames(frames: np.ndarray, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Frames [T, H, W, 3] uint8 as the model takes them: [T, 3, h, w] float32 in [0, 1], Lanczos.

    Raises:
        ValueError: no frames, or frames of another shape or type.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"frames are {frames.dtype} {list(frames.shape)}, not uint8 [T, H, W, 3] with T >= 1")
    height, width = model_size(frames.shape[1], frames.shape[2], max_pixels)
    from PIL import Image

    pictures = (Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS) for frame in frames)
    resized = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).float() / 255


def nearest_rotations(matrices: Tensor) -> Tensor:
    """Rotations [..., 3, 3] nearest to matrices [..., 3, 3] whose rows are first made unit vectors; NaN where the
    matrix is not finite."""
    finite = matrices.isfinite().all(dim=-1).all(dim=-1)[..., None, None]
    rows = functional.normalize(torch.where(finite, matrices, torch.eye(3).to(matrices)), dim=-1)
    u, _, vt = torch.linalg.svd(rows)
    # The least certain direction is flipped where the product would be a reflection.
    signs = torch.ones_like(rows[..., 0])
    signs[..., 2] = torch.linalg.det(u @ vt)
    return torch.where(finite, (u * signs[..., None, :]) @ vt, torch.nan)


def _file(path: Path) -> Path:
    return path / FILE if path.is_dir() else path
