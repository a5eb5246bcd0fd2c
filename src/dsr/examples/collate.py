"""Examples to the tensors that the model takes.

Samples are padded on the left, so that every answer, or the place where one is read, is at the end of its row. Or, with
a shared prefix, the samples of a clip that show the same frames hold its video once, in one packed row without padding
(dsr.model.shared_prefix). In training, and of a packed row, the model returns logits of the places that are read alone,
sample by sample, so that what follows is the same for both.

Letters: b samples, s tokens, r tokens that are read, v videos (one a sample, or none), N geometry tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsr.examples.inputs import ClipInputs, Video
from dsr.examples.records import Example
from dsr.examples.views import VIDEO_OF, VIEWS
from dsr.model.chat import ANSWER_TOKENS, Prompt, build_prompt
from dsr.model.geometry_encoders import ENCODERS, Grid, pad_arrays
from dsr.model.qwen2_5_vl_gsm import IGNORED, Qwen2_5_VLGSMConfig
from dsr.model.shared_prefix import PackedClip, Packing


class Batch(dict[str, Any]):
    """Inputs of the model's forward, by name."""

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(_move(self, device))


class Collator:
    """Makes batches of examples.

    Args:
        view: name of a view of the clips (dsr.examples.views).
        lenders: for a view with shuffled geometry, the clip that lends each clip its own.
        training: add `reads` [b, r], the places of the options' last tokens, of the last one of the prompt and of the
            answer's; `labels` [b, r], a loss on the answer alone; and `option_ends` [b, 4], which of what is read are
            the options' ends (dsr.training.losses).
        shared_prefix: pack samples about the same frames of a clip together, where all of a batch have a video.
        form: of the prompt (dsr.mcq.PROMPTS); "" for the model's own.
    """

    def __init__(
        self,
        inputs: ClipInputs,
        config: Qwen2_5_VLGSMConfig,
        view: str = "whole",
        lenders: Mapping[str, str] | None = None,
        training: bool = False,
        shared_prefix: bool = False,
        form: str = "",
    ) -> None:
        self.inputs, self.config, self.view = inputs, config, VIEWS[view]
        if self.view.geometry == "shuffled" and lenders is None:
            raise ValueError(f"{view} needs lenders")
        self.lenders, self.training, self.shared_prefix = lenders or {}, training, shared_prefix
        self.tokenizer, self.form = inputs.processor.tokenizer, form

    def __call__(self, examples: Sequence[Example]) -> Batch:
        # A view makes what it shows anew each time.
        shown = {(e.clip_id, e.shown_frames): e for e in examples}
        made = {key: self._video(example) for key, example in shown.items()}
        videos = [made[e.clip_id, e.shown_frames] for e in examples]
        prompts = [self.prompt(example, video) for example, video in zip(examples, videos, strict=True)]
        if self.shared_prefix and all(video is not None for video in videos):
            return self._packed(examples, prompts, videos)
        pad = self.tokenizer.pad_token_id
        batch = Batch(
            input_ids=pad_left([p.input_ids for p in prompts], pad),
            attention_mask=pad_left([[1] * len(p.input_ids) for p in prompts], 0),
            question_mask=pad_left([p.asks for p in prompts], 0).bool(),
        )
        if self.training:
            length = batch["input_ids"].shape[1]
            shifts = [length - len(prompt.input_ids) for prompt in prompts]
            batch["reads"] = torch.tensor([self._reads(*pair) for pair in zip(prompts, shifts, strict=True)])
            batch |= self._answer_labels(batch["input_ids"].gather(1, batch["reads"]))
        seen = [(example, video) for example, video in zip(examples, videos, strict=True) if video is not None]
        if seen:
            batch |= self.vision(seen)
        return batch

    @staticmethod
    def groups(examples: Sequence[Example]) -> dict[tuple[str, int], list[int]]:
        """Rows about the same frames of a clip, in the order in which a packed row has them."""
        groups: dict[tuple[str, int], list[int]] = {}
        for row, example in enumerate(examples):
            groups.setdefault((example.clip_id, example.shown_frames), []).append(row)
        return groups

    def _packed(self, examples: Sequence[Example], prompts: Sequence[Prompt], videos: Sequence[Any]) -> Batch:
        """One row [1, s]; `reads` [b, r], `labels` and `option_ends` (in what is read) in the order of the examples."""
        groups = self.groups(examples)
        clips, ids, asks = [], [], []
        reads: list[list[int]] = [[] for _ in examples]
        for rows in groups.values():
            first = prompts[rows[0]]
            prefix = first.input_ids.index(self.config.video_token_id) + self._vision_tokens(videos[rows[0]])
            ids += first.input_ids[:prefix]
            asks += first.asks[:prefix]
            for row in rows:
                prompt = prompts[row]
                reads[row] = self._reads(prompt, len(ids) - prefix)
                ids += prompt.input_ids[prefix:]
                asks += prompt.asks[prefix:]
            clips.append(PackedClip(prefix, tuple(len(prompts[row].input_ids) - prefix for row in rows)))
        batch = Batch(
            input_ids=torch.tensor([ids]),
            question_mask=torch.tensor([asks]),
            packing=Packing(tuple(clips)),
            reads=torch.tensor(reads),
            **self.vision([(examples[rows[0]], videos[rows[0]]) for rows in groups.values()]),
        )
        if self.training:
            batch |= self._answer_labels(batch["input_ids"][0, batch["reads"]])
        return batch

    def _reads(self, prompt: Prompt, shift: int) -> list[int]:
        """Places that are read of a prompt which begins at `shift`."""
        length = len(prompt.input_ids)
        ending = range(length - ANSWER_TOKENS - 1, length) if self.training else [length - 1]
        return [shift + place for place in (*(prompt.option_ends if self.training else ()), *ending)]

    @staticmethod
    def _answer_labels(read: Tensor) -> dict[str, Tensor]:
        """Labels, and the places of the options' ends, out of the tokens [b, r] that are read."""
        ends = read.shape[1] - ANSWER_TOKENS - 1
        labels = read.clone()
        labels[:, :-ANSWER_TOKENS] = IGNORED
        return {"labels": labels, "option_ends": torch.arange(ends).expand(len(read), -1)}

    def _video(self, example: Example) -> Video | None:
        if self.view.video == "none":
            return None
        return self.inputs.video(example.clip_id, example.shown_frames, self.view.video)

    def prompt(self, example: Example, video: Video | None) -> Prompt:
        """Tokens of a question, with places for a video and what follows it."""
        places = 0 if video is None else self._vision_tokens(video) + self.config.num_geometry_tokens
        return build_prompt(
            self.tokenizer,
            example.question,
            example.options,
            video_tokens=places,
            line_alone=self.config.reads_line_alone,
            answer=example.answer if self.training else "",
            form=self.form or self.config.prompt,
        )

    def _vision_tokens(self, video: Video) -> int:
        return int(np.prod(video.grid_thw)) // self.config.vision_config.spatial_merge_size**2

    def vision(self, seen: Sequence[tuple[Example, Video]], patches: bool = True) -> dict[str, Any]:
        """Inputs of videos, with their geometry, each for one example."""
        inputs: dict[str, Any] = {
            "video_grid_thw": torch.tensor([video.grid_thw for _, video in seen]),
            "second_per_grid_ts": torch.tensor([self.inputs.seconds_per_group(e.clip_id) for e, _ in seen]),
        }
        if patches:
            pixels = torch.cat([video.patches for _, video in seen])
            inputs["pixel_values_videos"] = self.inputs.normalise(pixels)
        if self.config.gsm["fusion"] != "none":
            geometry = {name: self._geometry(name, seen) for name in self.config.gsm["encoders"]}
            inputs["geometry"] = {name: arrays for name, arrays in geometry.items() if arrays}
        return inputs

    def _geometry(self, encoder: str, seen: Sequence[tuple[Example, Video]]) -> dict[str, Tensor]:
        """Inputs of an encoder; none for one that looks at the video itself, if that is what its geometry is of."""
        geometry, merge = self.view.geometry, self.config.vision_config.spatial_merge_size
        of = [self.lenders[e.clip_id] if geometry == "shuffled" else e.clip_id for e, _ in seen]
        if ENCODERS[encoder].reads_video:
            if geometry != "shuffled" and VIDEO_OF[geometry] == self.view.video:
                return {}
            lent = [
                self.inputs.video(clip_id, example.shown_frames, VIDEO_OF[geometry])
                for clip_id, (example, _) in zip(of, seen, strict=True)
            ]
            return {
                "patches": self.inputs.normalise(torch.cat([video.patches for video in lent])),
                "grid_thw": torch.tensor([video.grid_thw for video in lent]),
            }
        arrays = []
        for clip_id, (example, video) in zip(of, seen, strict=True):
            _, rows, columns = video.grid_thw
            grid = Grid(example.shown_frames, rows // merge, columns // merge)
            arrays.append(self.arrays(encoder, clip_id, example, grid))
        return {part: pad_arrays([a[part] for a in arrays]) for part in arrays[0]}

    def arrays(self, encoder: str, clip_id: str, example: Example, grid: Grid) -> dict[str, np.ndarray]:
        """An encoder's arrays of a clip, for an example."""
        view = self.view.geometry
        return self.inputs.geometry(clip_id, encoder, grid, "own" if view == "shuffled" else view)


def pad_left(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """[b, s] int64."""
    length = max(map(len, rows))
    return torch.tensor([[fill] * (length - len(row)) + list(map(int, row)) for row in rows])


def _move(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Mapping):
        return {name: _move(item, device) for name, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
