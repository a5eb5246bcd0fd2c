"""SAM 2.1: masks of detected things through a clip, by the package `sam2`; one session a clip.

Design choices:
- Every cue frame is encoded once, and propagated at most twice: forwards with what was found so far, then backwards
  with what was found late. The package's own loop would track everything again in both directions.
- In each key frame the detections become masks first. One that overlaps a track's mask there is that track's thing;
  what is left starts a track of its own.
- Frames are given as arrays and resized when their turn comes; masks leave as run-length strings, so neither the
  number of things nor the video's size adds up in memory. The session's memory bank is kept off the device.
- Holes in masks are not filled: the package does so only where its CUDA extension was built, and cues must not depend
  on that.

Source: facebookresearch/sam2 (arXiv 2408.00714).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sam2.sam2_video_predictor as package
import torch
from PIL import Image
from sam2.build_sam import build_sam2_video_predictor
from torch.nn import functional

from dsr.perception.checkpoints import load_exactly, read_pt
from dsr.perception.dinov2 import image_statistics
from dsr.perception.tracks import Detection, Track, TrackingResult, by_frame, distinct, encode, join, match, overlap
from dsr.weights import foundation_weights

PUBLISHED = foundation_weights()["segmentation"].published
CONFIG = "configs/sam2.1/sam2.1_hiera_l.yaml"
TINY = {
    "image_size": 128,
    "image_encoder.trunk.embed_dim": 8,
    "image_encoder.trunk.num_heads": 1,
    "image_encoder.trunk.stages": [1, 1, 2, 1],
    "image_encoder.trunk.global_att_blocks": [3],
    "image_encoder.neck.backbone_channel_list": [64, 32, 16, 8],
    "memory_attention.layer.self_attention.feat_sizes": [8, 8],
    "memory_attention.layer.cross_attention.feat_sizes": [8, 8],
    "memory_attention.num_layers": 1,
}
"""Changes to CONFIG that make a small model of the same architecture."""


class Predictor(package.SAM2VideoPredictor):
    """SAM 2's video predictor, frame by frame, for arrays."""

    def open(self, frames: np.ndarray) -> dict[str, Any]:
        """A session on frames [T, H, W, 3] uint8 RGB."""
        images = _Images(frames, self.image_size, self.device)
        load = package.load_video_frames
        # The package reads frames from files alone.
        package.load_video_frames = lambda **_: (images, *frames.shape[1:3])
        try:
            session: dict[str, Any] = self.init_state("", offload_video_to_cpu=True, offload_state_to_cpu=True)
        finally:
            package.load_video_frames = load
        session["features"] = dict(session["cached_features"])
        return session

    @torch.inference_mode()
    def masks_of_boxes(self, session: dict[str, Any], frame: int, boxes: np.ndarray) -> np.ndarray:
        """[B, H, W] bool masks of boxes [B, 4] (xyxy, pixels of the video), tracks and memory left as they are."""
        corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 2, 2)
        corners = corners / torch.tensor([session["video_width"], session["video_height"]]) * self.image_size
        # 2 and 3 mark a box's first and second corner.
        labels = torch.tensor([[2, 3]], dtype=torch.int32).expand(len(boxes), 2)
        _, scores = self._run_single_frame_inference(
            inference_state=session,
            output_dict={"cond_frame_outputs": {}, "non_cond_frame_outputs": {}},
            frame_idx=frame,
            batch_size=len(boxes),
            is_init_cond_frame=True,
            point_inputs={"point_coords": corners.to(self.device), "point_labels": labels.to(self.device)},
            mask_inputs=None,
            reverse=False,
            run_mem_encoder=False,
        )
        return self._at_video_size(session, scores)

    @torch.inference_mode()
    def start(self, session: dict[str, Any], frame: int, thing: int, box: Sequence[float]) -> None:
        """Start tracking a thing from its box."""
        self.add_new_points_or_box(session, frame, thing, box=np.array(box, np.float32))
        self.propagate_in_video_preflight(session)

    @torch.inference_mode()
    def step(self, session: dict[str, Any], frame: int, thing: int, *, reverse: bool) -> np.ndarray:
        """[H, W] bool mask of a thing in a frame that it was not started in; it enters the thing's memory."""
        place = self._obj_id_to_idx(session, thing)
        outputs = session["output_dict_per_obj"][place]
        outputs["non_cond_frame_outputs"][frame], scores = self._run_single_frame_inference(
            inference_state=session,
            output_dict=outputs,
            frame_idx=frame,
            batch_size=1,
            is_init_cond_frame=False,
            point_inputs=None,
            mask_inputs=None,
            reverse=reverse,
            run_mem_encoder=True,
        )
        session["frames_tracked_per_obj"][place][frame] = {"reverse": reverse}
        return self._at_video_size(session, scores)[0]

    def _get_image_feature(self, inference_state: dict[str, Any], frame_idx: int, batch_size: int) -> Any:
        # The package keeps the latest frame's features alone, and would encode frames again on the way back.
        kept = inference_state.get("features", {})
        if frame_idx in kept:
            inference_state["cached_features"] = {frame_idx: kept[frame_idx]}
        features = super()._get_image_feature(inference_state, frame_idx, batch_size)
        if frame_idx not in kept:
            kept[frame_idx] = self._slim(inference_state["cached_features"][frame_idx], kept)
        return features

    @staticmethod
    def _slim(entry: tuple[torch.Tensor, dict[str, Any]], kept: Mapping[int, Any]) -> Any:
        """A frame's features without what is equal for all frames (position encodings) or not used (pixels)."""
        image, encoded = entry
        first = next(iter(kept.values()), entry)[1]
        # A copy: a view would keep all pixels.
        return image[..., :1, :1].clone(), {**encoded, "vision_pos_enc": first["vision_pos_enc"]}

    def _at_video_size(self, session: dict[str, Any], scores: torch.Tensor) -> np.ndarray:
        size = session["video_height"], session["video_width"]
        # One at a time: scores of many things at full size would be gigabytes.
        masks = [functional.interpolate(s[None].float(), size, mode="bilinear")[0, 0] > 0 for s in scores]
        return torch.stack(masks).cpu().numpy()


class Segmenter:
    """Follows detections through a clip."""

    def __init__(self, predictor: Predictor, *, match_iou: float, max_tracks: int) -> None:
        """Args: see params.FoundationCues."""
        self.predictor = predictor
        self.match_iou, self.max_tracks = match_iou, max_tracks

    def __call__(self, frames: np.ndarray, detections: Sequence[Detection]) -> TrackingResult:
        """Tracks of all detected things, at most `max_tracks`, in the order in which they are found.

        Args:
            frames: [T, H, W, 3] uint8 RGB, the cue frames.
        """
        found = by_frame(detections)
        if not found:
            return TrackingResult([])
        on_gpu = self.predictor.device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
            session = self.predictor.open(frames)
            tracks: list[Track] = []
            left_out = 0
            for t in range(min(found), len(frames)):
                self._advance(session, tracks, t, reverse=False)
                new = self._new(session, tracks, t, found.get(t, ()), frames.shape[1:3])
                tracks += new.tracks
                left_out += new.left_out
            for t in reversed(range(max((track.first for track in tracks), default=0))):
                self._advance(session, tracks, t, reverse=True)
        return TrackingResult(join(tracks, frames.shape[1:3], self.match_iou), left_out)

    def _advance(self, session: dict[str, Any], tracks: Sequence[Track], t: int, *, reverse: bool) -> None:
        for thing, track in enumerate(tracks):
            if t < track.first if reverse else t > track.first:
                mask = self.predictor.step(session, t, thing, reverse=reverse)
                if mask.any():
                    track.masks[t] = encode(mask)

    def _new(
        self,
        session: dict[str, Any],
        tracks: Sequence[Track],
        t: int,
        detections: Sequence[Detection],
        size: tuple[int, int],
    ) -> TrackingResult:
        """Start tracks of the detections of a frame that belong to none; the others are counted for theirs."""
        if not detections:
            return TrackingResult([])
        boxes = np.array([detection.box for detection in detections])
        drawn = self.predictor.masks_of_boxes(session, t, boxes)
        detections = [detection for detection, mask in zip(detections, drawn, strict=True) if mask.any()]
        masks = [encode(mask) for mask in drawn if mask.any()]
        kept = distinct(masks, [detection.score for detection in detections], size, self.match_iou)
        seen = [track for track in tracks if t in track.masks]
        overlaps = overlap([masks[i] for i in kept], [track.masks[t] for track in seen], size)
        pairs = match(overlaps, self.match_iou)
        started: list[Track] = []
        left_out = 0
        for row, i in enumerate(kept):
            if row in pairs:
                seen[pairs[row]].called(detections[i])
            elif len(tracks) + len(started) < self.max_tracks:
                self.predictor.start(session, t, len(tracks) + len(started), detections[i].box)
                started.append(Track(first=t, masks={t: masks[i]}))
                started[-1].called(detections[i])
            else:
                left_out += 1
        return TrackingResult(started, left_out)


class _Images:
    """The session's frames, [3, size, size] each, normalised when they are asked for."""

    def __init__(self, frames: np.ndarray, size: int, device: torch.device) -> None:
        self.frames, self.size, self.device = frames, size, device

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        # Pillow's resize is the published preprocessing.
        image = np.asarray(Image.fromarray(self.frames[index]).resize((self.size, self.size)))
        pixels = torch.from_numpy(image.copy()).to(self.device).permute(2, 0, 1).float() / 255
        mean, std = (statistic.to(self.device) for statistic in image_statistics())
        return ((pixels - mean) / std)[0]


def load_published(checkpoint: Path, device: str) -> Predictor:
    """The published model.

    Args:
        checkpoint: sam2.1_hiera_large.pt.

    Raises:
        StageError: no such file, or not this model's checkpoint.
    """
    model = _build({}, device)
    load_exactly(model, read_pt(checkpoint, PUBLISHED, "model"), checkpoint, PUBLISHED)
    return model.to(device)


def random_model(seed: int, *, tiny: bool, device: str = "cpu") -> Predictor:
    """Seeded random weights: the published architecture, or a small one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _build(TINY if tiny else {}, device)
    # Without it a random model says of every thing that it is not there.
    torch.nn.init.constant_(model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 10.0)
    return model


def _build(changes: Mapping[str, Any], device: str) -> Predictor:
    overrides = [f"++model.{key}={value}".replace(" ", "") for key, value in changes.items()]
    model: Predictor = build_sam2_video_predictor(
        CONFIG, device=device, hydra_overrides_extra=[f"++model._target_={__name__}.Predictor", *overrides]
    )
    model.fill_hole_area = 0
    return model
