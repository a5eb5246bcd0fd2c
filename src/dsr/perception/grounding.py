"""Grounding DINO (Swin-T): boxes of named things in key frames, by the package `groundingdino-py`.

Design choices:
- All words of a clip are one prompt ("man . dog . red car ."), all key frames one batch.
- A box keeps the published meaning: its best token is above the box threshold. Which word it is follows from the
  tokens' places in the prompt, not from the decoded phrase: the word whose tokens are best on the mean ("red car"
  and "blue car" share a token), if one of them is above the text threshold. So a curated word comes back as itself.
- The published .pth holds BERT's weights too; the local folder gives its configuration and vocabulary.
- The package's wrapper around BERT calls methods that transformers 5 no longer has: `TextEncoder` is in its place.

Source: IDEA-Research/GroundingDINO (arXiv 2303.05499); thresholds 0.35 and 0.25 are those of its demo.
"""

import contextlib
import io
import itertools
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import groundingdino
import numpy as np
import torch
from groundingdino.models import build_model
from groundingdino.models.GroundingDINO import groundingdino as architecture
from groundingdino.util.slconfig import SLConfig
from torch.nn import functional
from torchvision.ops import batched_nms, box_convert
from transformers import BertConfig, BertModel, BertTokenizerFast

from dsr.perception.batches import in_batches
from dsr.perception.checkpoints import load_exactly, read_pt
from dsr.perception.dinov2 import image_statistics
from dsr.perception.tracks import Detection, Word
from dsr.weights import foundation_weights

PUBLISHED = foundation_weights()["grounding"].published
SHORT_SIDE, LONG_SIDE = 800, 1333
"""Pixels that frames are resized to: the short side, and the most that the long one may have."""
MAX_TOKENS = 256
IGNORED_KEYS = {"label_enc.weight", "bert.embeddings.position_ids"}
"""Tensors of the published checkpoint to leave out: a head of the training, and a buffer that transformers drops."""

CONFIG = Path(groundingdino.__file__).parent / "config/GroundingDINO_SwinT_OGC.py"
TINY = {"enc_layers": 1, "dec_layers": 1, "dim_feedforward": 32, "num_queries": 24}


class Grounder:
    """Finds words in frames."""

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        box_threshold: float,
        text_threshold: float,
        nms_iou: float,
        batch_size: int,
        sides: tuple[int, int] = (SHORT_SIDE, LONG_SIDE),
    ) -> None:
        """Args: see params.FoundationCues; `sides` as SHORT_SIDE, LONG_SIDE."""
        self.model = model
        self.box_threshold, self.text_threshold, self.nms_iou = box_threshold, text_threshold, nms_iou
        self.batch_size = batch_size
        self.sides = sides

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray, places: Sequence[int], words: Sequence[Word]) -> list[Detection]:
        """Detections of all words, by frame and falling score.

        Args:
            frames: [K, H, W, 3] uint8 RGB.
            places: [K] the frames' places among the cue frames.
        """
        found: list[list[tuple[float, Detection]]] = [[] for _ in places]
        for prompt, spans in prompts(words, self.model.tokenizer):
            for k, (logits, boxes) in enumerate(self._forward(frames, prompt)):
                for detection in self._read(logits, boxes, spans, places[k], (frames.shape[2], frames.shape[1])):
                    found[k].append((detection.score, detection))
        return list(itertools.chain.from_iterable(self._suppress([d for _, d in of_frame]) for of_frame in found))

    def _forward(self, frames: np.ndarray, prompt: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Probabilities [Q, tokens] and boxes [Q, 4] (cxcywh, shares of the image) of each frame, on the CPU."""
        device = next(self.model.parameters()).device

        def run(batch: Sequence[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
            images = torch.stack([self._image(frame, device) for frame in batch])
            out = self.model(images, captions=[prompt] * len(images))
            logits, boxes = out["pred_logits"].float().sigmoid().cpu(), out["pred_boxes"].float().cpu()
            return list(zip(logits, boxes, strict=True))

        return in_batches(run, frames, self.batch_size)

    def _image(self, frame: np.ndarray, device: torch.device) -> torch.Tensor:
        """[3, h, w] float32, resized as published, one frame at a time so that memory stays flat."""
        height, width = frame.shape[:2]
        scale = min(self.sides[0] / min(height, width), self.sides[1] / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        image = torch.from_numpy(frame).to(device).permute(2, 0, 1)[None].float() / 255
        image = functional.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (statistic.to(device) for statistic in image_statistics())
        return ((image - mean) / std)[0]

    def _read(
        self,
        logits: torch.Tensor,
        boxes: torch.Tensor,
        spans: Sequence[tuple[Word, list[int]]],
        place: int,
        size: tuple[int, int],
    ) -> Iterator[Detection]:
        """The detections of one frame, none suppressed."""
        chosen = (logits.max(dim=1).values > self.box_threshold).nonzero()[:, 0].tolist()
        for query in chosen:
            word = self._word(logits[query].numpy(), spans)
            box = _pixels(boxes[query].numpy(), size)
            if word is not None and box is not None:
                yield Detection(place, box, word, float(logits[query].max()))

    def _word(self, tokens: np.ndarray, spans: Sequence[tuple[Word, list[int]]]) -> Word | None:
        """The word that a query means, from the probabilities of its tokens."""
        means = [float(tokens[span].mean()) for _, span in spans]
        best = int(np.argmax(means))
        word, span = spans[best]
        return word if tokens[span].max() > self.text_threshold else None

    def _suppress(self, detections: list[Detection]) -> list[Detection]:
        """Drop detections that overlap a better one, whatever they are called; the others by falling score."""
        if not detections:
            return []
        boxes = torch.tensor([d.box for d in detections])
        scores = torch.tensor([d.score for d in detections])
        return [detections[i] for i in batched_nms(boxes, scores, torch.zeros(len(scores)), self.nms_iou).tolist()]


def prompts(words: Sequence[Word], tokenizer: Any) -> Iterator[tuple[str, list[tuple[Word, list[int]]]]]:
    """Prompts that hold all words, each with the places of its words' tokens; one, unless there are very many words.

    Args:
        tokenizer: a fast tokenizer (one that knows characters' places).
    """
    prompt = ""
    starts: list[tuple[Word, int, int]] = []
    for word in words:
        # A full stop or question mark would end the word for the model.
        text = " ".join(re.sub(r"[.?]", " ", word.text.lower()).split())
        longer = f"{prompt}{text} . "
        if starts and len(tokenizer(longer)["input_ids"]) > MAX_TOKENS:
            yield prompt.strip(), _token_places(prompt, starts, tokenizer)
            prompt, starts, longer = "", [], f"{text} . "
        starts.append((word, len(prompt), len(prompt) + len(text)))
        prompt = longer
    if starts:
        yield prompt.strip(), _token_places(prompt, starts, tokenizer)


def _token_places(prompt: str, starts: Sequence[tuple[Word, int, int]], tokenizer: Any) -> list[tuple[Word, list[int]]]:
    offsets = tokenizer(prompt.strip(), return_offsets_mapping=True)["offset_mapping"]
    spans = []
    for word, start, end in starts:
        span = [k for k, (a, b) in enumerate(offsets[:MAX_TOKENS]) if a < b and start <= a and b <= end]
        if span:
            spans.append((word, span))
    return spans


def _pixels(box: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """xyxy in pixels inside the image, None for one thinner than a pixel."""
    corners = box_convert(torch.from_numpy(box)[None], "cxcywh", "xyxy")[0].numpy() * np.array(size * 2)
    x1, y1, x2, y2 = np.clip(corners, 0, np.array(size * 2)).tolist()
    return (x1, y1, x2, y2) if x2 - x1 >= 1 and y2 - y1 >= 1 else None


def load_published(checkpoint: Path, bert: Path, device: str) -> torch.nn.Module:
    """The published model.

    Args:
        checkpoint: groundingdino_swint_ogc.pth.
        bert: folder of bert-base-uncased.

    Raises:
        StageError: no such file, or not this model's checkpoint.
    """
    model = _build({}, bert)
    tensors = {name.removeprefix("module."): value for name, value in read_pt(checkpoint, PUBLISHED, "model").items()}
    load_exactly(model, {k: v for k, v in tensors.items() if k not in IGNORED_KEYS}, checkpoint, PUBLISHED)
    return model.to(device).eval()


def random_model(seed: int, *, tiny: bool, device: str = "cpu") -> torch.nn.Module:
    """Seeded random weights: the published architecture, or one with small layers (its Swin-T has one size)."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        torch.manual_seed(seed)
        vocabulary = _write_vocabulary(Path(folder))
        config = BertConfig(**(sizes if tiny else {}), vocab_size=vocabulary if tiny else 30522)
        BertModel(config).save_pretrained(folder)
        model = _build(TINY if tiny else {}, Path(folder))
        # This head starts at zero and would put every box of a random model in the same place.
        torch.nn.init.normal_(model.get_parameter("bbox_embed.0.layers.2.weight"), std=0.5)
    return model.to(device).eval()


def _write_vocabulary(folder: Path) -> int:
    """A vocabulary of single characters, which spells every English word; returns its size."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.?-'&/,"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return len(tokens)


class TextEncoder(torch.nn.Module):
    """BERT's states under the package's mask: the words of a prompt do not see one another."""

    def __init__(self, bert_model: BertModel) -> None:
        super().__init__()
        self.config = bert_model.config
        self.embeddings, self.encoder, self.pooler = bert_model.embeddings, bert_model.encoder, bert_model.pooler

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """`last_hidden_state` [b, n, d].

        Args:
            input_ids, position_ids, token_type_ids: [b, n].
            attention_mask: [b, n, n] bool, True where a token sees another.
        """
        states = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids)
        unseen = (1 - attention_mask[:, None].to(states.dtype)) * torch.finfo(states.dtype).min
        return {"last_hidden_state": self.encoder(states, attention_mask=unseen)[0]}


def _build(changes: dict[str, Any], bert: Path) -> torch.nn.Module:
    config = SLConfig.fromfile(str(CONFIG))
    # Checkpointing saves memory in a backward pass, and there is none.
    settings = {"use_checkpoint": False, "use_transformer_ckpt": False, **changes}
    for key, value in {**settings, "text_encoder_type": str(bert), "device": "cpu"}.items():
        config[key] = value
    # The package prints what it builds.
    with contextlib.redirect_stdout(io.StringIO()), patch.object(architecture, "BertModelWarper", TextEncoder):
        model: torch.nn.Module = build_model(config)
    return model
