"""Makes the fixtures of the parity tests by running the reference implementations of pi3 and Orient Anything.

    python -m tests.perception.parity --pi3 CHECKOUT --orient-anything CHECKOUT [--full-size]

The checkouts are github.com/yyfz/Pi3 and github.com/SpatialVision/Orient-Anything, read from where they are and no
part of this project. Orient Anything runs with the transformers that it pins (4.38), which resizes position embeddings
otherwise than later ones; put it first on PYTHONPATH:

    pip install --no-deps --target FOLDER transformers==4.38.2 tokenizers==0.15.2

Weights are random and made from the parameters' names (see `seeded`); computation is in float32. The tiny models are
built of the reference's own layers and run by its own `forward`; names and shapes come from its full-size classes.

With --full-size nothing is written: the full-size models run side by side on the same weights, and the largest
difference of each output is printed, relative to the largest value (pi3: 5 GiB of memory, Orient Anything: 3 GiB).

Seen on a CPU with PyTorch 2.14, with pi3 at 9fa3ddb and Orient Anything at d4ede77:

    pi3, full size, 2 frames of 252x140: points 3.1e-5 (of each point), confidence 1.1e-6, poses 3.9e-7
    Orient Anything, full size, 2 pictures: logits 6.6e-7
"""

import argparse
import contextlib
import functools
import json
import sys
import types
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn

from dsr.perception.checkpoints import load_exactly
from dsr.perception.dinov2 import image_statistics
from dsr.perception.orientation import UNUSED, OrientAnything, published_layout
from dsr.perception.pi3 import Pi3, resize_frames
from tests.perception import seeded

FIXTURES = Path(__file__).parent / "fixtures"
FRAMES, HEIGHT, WIDTH = 3, 28, 56
ANGLES = np.array([[0, 0, 0], [35, 20, 0], [120, -40, 15], [200, 10, -30], [275, 60, 80], [340, -75, -89]], np.float64)


def pi3_reference(checkout: Path, tiny: bool) -> nn.Module:
    sys.path.insert(0, str(checkout))
    reference = import_module("pi3.models.pi3")
    if not tiny:
        on_cpu = functools.partial(torch.linspace, device="cpu")  # its values are asked for while building
        with mock.patch("torch.linspace", on_cpu):
            return reference.Pi3()
    layers, heads = import_module("pi3.models.layers.transformer_head"), import_module("pi3.models.layers.camera_head")
    vits = import_module("pi3.models.dinov2.models.vision_transformer")

    class TinyPi3(reference.Pi3):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.encoder = vits.DinoVisionTransformer(
                img_size=70, patch_size=14, embed_dim=32, depth=2, num_heads=2, init_values=1.0, block_chunks=0,
                num_register_tokens=4, interpolate_antialias=True, interpolate_offset=0.0,
            )  # fmt: skip
            del self.encoder.mask_token
            self.patch_size, self.pos_type, self.patch_start_idx, self.dec_embed_dim = 14, "rope100", 5, 32
            self.rope, self.position_getter = reference.RoPE2D(freq=100.0), reference.PositionGetter()
            self.decoder = nn.ModuleList(
                reference.BlockRope(
                    dim=32, num_heads=2, mlp_ratio=4, qkv_bias=True, init_values=0.01, qk_norm=True, rope=self.rope,
                    norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6), attn_class=reference.FlashAttentionRope,
                    ffn_layer=reference.Mlp,
                )
                for _ in range(4)
            )  # fmt: skip
            self.register_token = nn.Parameter(torch.zeros(1, 1, 5, 32))
            sizes = {"in_dim": 64, "dec_embed_dim": 32, "dec_num_heads": 2, "depth": 2, "rope": self.rope}
            self.point_decoder = layers.TransformerDecoder(out_dim=32, **sizes)
            self.point_head = layers.LinearPts3d(patch_size=14, dec_embed_dim=32, output_dim=3)
            self.conf_decoder = layers.TransformerDecoder(out_dim=32, **sizes)
            self.conf_head = layers.LinearPts3d(patch_size=14, dec_embed_dim=32, output_dim=1)
            self.camera_decoder = layers.TransformerDecoder(out_dim=16, **sizes)
            self.camera_head = heads.CameraHead(dim=16)
            self.register_buffer("image_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
            self.register_buffer("image_std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    return TinyPi3()


def orient_anything_reference(checkout: Path, tiny: bool) -> nn.Module:
    sys.path.insert(0, str(checkout))
    tower = import_module("vision_tower")
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 518}
    if tiny:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 70}
    config = tower.Dinov2Config(patch_size=14, **sizes)
    # The class downloads its backbone; random weights of the same layout replace them.
    tower.FLIP_DINOv2.from_pretrained = lambda *_, **__: tower.FLIP_DINOv2(config)
    width = sizes["hidden_size"]
    return tower.DINOv2_MLP("large", width, 360 + 180 + 180 + 2, evaluate=True, mask_dino=False, frozen_back=False)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare_pi3(checkout: Path) -> None:
    with torch.device("meta"):
        theirs, ours = pi3_reference(checkout, tiny=False), Pi3()
    state = seeded.weights(names_and_shapes(theirs)) | dict(
        zip(("image_mean", "image_std"), image_statistics(), strict=True)
    )
    for model in (theirs, ours):
        model.load_state_dict(state, assign=True)
    images = resize_frames(seeded.pictures("full", 2, 90, 160), 140 * 252)
    with torch.inference_mode():
        points, logits, poses = ours.eval()(images)
        out = theirs.eval()(images[None])
    errors = (points - out["local_points"][0]).norm(dim=-1) / out["local_points"][0].norm(dim=-1)
    print("points", list(points.shape), "largest error of a point", float(errors.max()))
    print("confidence", relative(logits, out["conf"][0, ..., 0]))
    print("poses", relative(poses, out["camera_poses"][0]))


def compare_orient_anything(checkout: Path) -> None:
    with torch.device("meta"):
        theirs, ours = orient_anything_reference(checkout, tiny=False), OrientAnything()
    state = seeded.weights(names_and_shapes(theirs))
    theirs.load_state_dict(state, assign=True)
    state.pop(UNUSED)
    load_exactly(ours, state, checkout, "", published_layout(ours))
    images = torch.from_numpy(seeded.uniform("full", (2, 3, 224, 224)).astype(np.float32))
    with torch.inference_mode():
        print("logits", relative(ours.eval()(images), theirs.eval()({"pixel_values": images})))


def fill(model: nn.Module) -> nn.Module:
    """Seeded weights; the statistics of pictures stay."""
    state = model.state_dict()
    kept = {name: value for name, value in state.items() if name in ("image_mean", "image_std")}
    shapes = {name: tuple(value.shape) for name, value in state.items() if name not in kept}
    model.load_state_dict(seeded.weights(shapes) | kept)
    return model.eval()


def names_and_shapes(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def published_orientation_pictures(frame: np.ndarray, mask: np.ndarray, utils: types.ModuleType) -> np.ndarray:
    """Pixel values [1, 3, 224, 224] that the published preprocessing makes of a cut-out."""
    from transformers import BitImageProcessor  # the one of the pinned version

    alpha = mask.copy()
    # `resize_foreground` leaves the last row and column of the cut-out away; here it is an empty one.
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    alpha[rows[-1] + 1, columns[-1] + 1] = True
    cutout = np.where(mask[..., None], frame, 0)
    rgba = np.dstack([cutout, 255 * alpha.astype(np.uint8)])
    # preprocessor_config.json of facebook/dinov2-large
    processor = BitImageProcessor(
        do_resize=True, size={"shortest_edge": 256}, resample=3, do_center_crop=True,
        crop_size={"height": 224, "width": 224}, do_rescale=True, rescale_factor=1 / 255, do_normalize=True,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], do_convert_rgb=True,
    )  # fmt: skip
    return np.array(processor(images=utils.resize_foreground(Image.fromarray(rgba), 0.85))["pixel_values"])


def example_mask(height: int, width: int) -> np.ndarray:
    """[height, width] bool: a slanted ellipse off the middle."""
    y, x = np.mgrid[0:height, 0:width]
    u, v = (x - 0.55 * width) / (0.2 * width), (y - 0.45 * height) / (0.35 * height)
    return (u + 0.4 * v) ** 2 + v**2 < 1


def make_pi3(checkout: Path) -> None:
    model = fill(pi3_reference(checkout, tiny=True))
    frames = seeded.pictures("pi3", FRAMES, HEIGHT, WIDTH)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        out = model(images[None])
        encoded = model.encoder((images - model.image_mean) / model.image_std, is_training=True)
        edges = import_module("pi3.utils.geometry").depth_edge(out["local_points"][0, ..., 2], rtol=0.03)
        slope = torch.from_numpy(slope_with_a_step())
        slope_edges = import_module("pi3.utils.geometry").depth_edge(slope, rtol=0.03)
    arrays = {
        "points": out["local_points"][0].numpy().astype(np.float32),
        "logits": out["conf"][0, ..., 0].numpy(),
        "camera_poses": out["camera_poses"][0].numpy(),
        "patch_tokens": encoded["x_norm_patchtokens"].numpy(),
        "edges": edges.numpy(),
        "slope_edges": slope_edges.numpy(),
    }
    np.savez_compressed(FIXTURES / "pi3.npz", **arrays)
    with torch.device("meta"):
        shapes = names_and_shapes(pi3_reference(checkout, tiny=False))
    (FIXTURES / "pi3.json").write_text(json.dumps(shapes, indent=0, sort_keys=True) + "\n")


def slope_with_a_step() -> np.ndarray:
    """[2, 20, 24] float32 depths: a ground that recedes, with a thing in front of it; the second one farther away."""
    rows, columns = np.mgrid[0:20, 0:24]
    depth = 2 + 0.04 * rows + 0.01 * columns
    depth[5:12, 6:14] = 1.5
    return np.stack([depth, depth + 3]).astype(np.float32)


def make_orient_anything(checkout: Path) -> None:
    model = fill(orient_anything_reference(checkout, tiny=True))
    for absent in ("rembg", "matplotlib", "matplotlib.pyplot", "gradio"):
        sys.modules.setdefault(absent, types.ModuleType(absent))
    with contextlib.chdir(checkout):  # it opens its drawings on import
        utils = import_module("utils")
    frame, mask = seeded.pictures("agent", 1, 90, 120)[0], example_mask(90, 120)
    pixels = published_orientation_pictures(frame, mask, utils)
    with torch.no_grad():
        logits = model({"pixel_values": torch.from_numpy(pixels)})
    drawn = [utils.get_proj2D_XYZ(*np.radians(angles * [1, 1, -1])) for angles in ANGLES]
    arrays = {
        "pixels": pixels[0, :, ::7, ::7],
        "logits": logits.numpy(),
        "angles": ANGLES,
        # front, right and top as arrows in the picture, x right and y up; the drawing is three times as large
        "arrows": np.array(drawn) / 3,
    }
    np.savez_compressed(FIXTURES / "orient_anything.npz", **arrays)
    with torch.device("meta"):
        shapes = names_and_shapes(orient_anything_reference(checkout, tiny=False))
    (FIXTURES / "orient_anything.json").write_text(json.dumps(shapes, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pi3", type=lambda text: Path(text).resolve())
    parser.add_argument("--orient-anything", type=lambda text: Path(text).resolve())
    parser.add_argument("--full-size", action="store_true")
    options = parser.parse_args()
    if options.pi3:
        (compare_pi3 if options.full_size else make_pi3)(options.pi3)
    if options.orient_anything:
        (compare_orient_anything if options.full_size else make_orient_anything)(options.orient_anything)
