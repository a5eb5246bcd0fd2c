"""Batches of a curriculum: a collator's, with what the losses compare, of clips that may be changed.

Letters: b questions, v videos, N geometry tokens, S states, h heads, k 3D tokens.
"""

import zlib
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsr.examples.collate import Batch, Collator, pad_left
from dsr.examples.inputs import ClipInputs
from dsr.model.chat import encode
from dsr.model.geometry_encoders import ENCODERS, FRAMES, PADDING, Grid, label_words
from dsr.model.qwen2_5_vl_gsm import IGNORED, Qwen2_5_VLGSMConfig
from dsr.training.curriculum import TrainingBatch
from dsr.training.guidance import CAMERA, NOBODY, NUM_SIGHTS, STATES, STATES_OF_FORM, GuidedExample
from dsr.training.readings import Readings

_SENTENCE = "A."
"""Beginning of an option's line: a tokenizer of ours takes what a line of an option says apart in its own way."""


class TrainingCollator(Collator):
    """Makes batches of whole questions, and of questions for the GSM alone.

    A batch of guided questions has `states` [b, N] int64, the place in `STATES` of each geometry token's state, IGNORED
    without one, and `possible_states` [b, S] bool, those of the question's form.

    Args:
        readings: of the questions for the GSM alone, where they are read before.
    """

    def __init__(
        self,
        inputs: ClipInputs,
        config: Qwen2_5_VLGSMConfig,
        shared_prefix: bool = False,
        readings: Readings | None = None,
    ) -> None:
        super().__init__(inputs, config, training=True, shared_prefix=shared_prefix)
        self._readings = readings
        self._labels: dict[str, list[int]] = {}

    def collate(self, batches: Sequence[TrainingBatch]) -> Batch:
        """The only batch of a list."""
        (batch,) = batches
        return self.for_gsm(batch.examples) if batch.gsm_alone else self.whole(batch.examples)

    def whole(self, examples: Sequence[GuidedExample]) -> Batch:
        batch = self(examples)
        if not self.config.num_geometry_tokens or not all(example.guide for example in examples):
            return batch
        order = [row for rows in self.groups(examples).values() for row in rows] if "packing" in batch else None
        return Batch(batch | self._states(examples if order is None else [examples[row] for row in order]))

    def for_gsm(self, examples: Sequence[GuidedExample]) -> Batch:
        """Inputs of Qwen2_5_VLGSMModel.select as `asked`, and `keys` [b, h, N] int64, the 3D token of a question's
        video that each head of a geometry token's query should look at; negative: any."""
        groups = self.groups(examples)
        seen = [
            (examples[rows[0]], self.inputs.video(examples[rows[0]].clip_id, examples[rows[0]].shown_frames))
            for rows in groups.values()
        ]
        videos = torch.zeros(len(examples), dtype=torch.int64)
        for video, rows in enumerate(groups.values()):
            videos[rows] = video
        asked = {
            **(self._readings.of(examples) if self._readings else self._questions(examples)),
            "videos": videos,
            **self.vision(seen, patches=any(ENCODERS[name].reads_video for name in self.config.gsm["encoders"])),
        }
        return Batch(asked=asked, keys=self._keys(examples, asked), **self._states(examples))

    def state_words(self) -> Tensor:
        """[S, n] int64 token ids of the states' sentences as an option's line has them, PADDING after them."""
        ids = encode(self.tokenizer, [_SENTENCE, *(f"{_SENTENCE} {sentence}" for sentence in STATES)])
        spelled = [line[len(ids[0]) :] for line in ids[1:]]
        words = torch.full((len(spelled), max(map(len, spelled))), PADDING)
        for row, line in zip(words, spelled, strict=True):
            row[: len(line)] = torch.tensor(line)
        return words

    def arrays(self, encoder: str, clip_id: str, example: Any, grid: Grid) -> dict[str, np.ndarray]:
        arrays, change = super().arrays(encoder, clip_id, example, grid), example.change
        if change.names and "labels" in arrays:
            cues = self.inputs.clips.cues(clip_id)
            arrays = arrays | {"labels": label_words(cues, lambda text: self._renamed(text, change.names))}
        if change.shift and "seconds" in arrays:
            arrays = arrays | {"seconds": arrays["seconds"] + np.float32(change.shift)}
        if change.noise:
            rng, values = np.random.default_rng([change.seed, zlib.crc32(encoder.encode())]), arrays["values"]
            noise = np.float32(change.noise) * rng.standard_normal(values.shape, np.float32)
            arrays = arrays | {"values": values + noise * (values != 0)}
        return arrays

    def _questions(self, examples: Sequence[GuidedExample]) -> dict[str, Tensor]:
        """Tokens that the GSM reads as each question."""
        if self.config.reads_line_alone:
            questions = encode(self.tokenizer, [example.question for example in examples])
        else:
            prompts = [self.prompt(example, None) for example in examples]
            questions = [list(compress(prompt.input_ids, prompt.asks)) for prompt in prompts]
        return {
            "question_ids": pad_left(questions, self.tokenizer.pad_token_id),
            "question_mask": pad_left([[1] * len(ids) for ids in questions], 0).bool(),
        }

    def _renamed(self, text: str, names: Mapping[str, str]) -> list[int]:
        """Tokens of a name, with the space before it, or of the one that it is exchanged for."""
        name = names.get(text[1:], text[1:])
        if name not in self._labels:
            self._labels[name] = self.inputs.tokens(f" {name}")
        return self._labels[name]

    def _states(self, examples: Sequence[GuidedExample]) -> dict[str, Tensor]:
        states = torch.full((len(examples), self.config.num_geometry_tokens), IGNORED)
        possible = torch.zeros(len(examples), len(STATES), dtype=torch.bool)
        for row, example in enumerate(examples):
            if example.guide is not None:
                # Tokens after the last key moment repeat it.
                own = example.guide.states
                states[row] = torch.tensor([own[min(token, len(own) - 1)] for token in range(states.shape[1])])
                possible[row, STATES_OF_FORM[example.guide.form]] = True
        return {"states": states, "possible_states": possible}

    def _keys(self, examples: Sequence[GuidedExample], asked: Mapping[str, Any]) -> Tensor:
        keys = np.full((len(examples), self.config.num_geometry_tokens, NUM_SIGHTS), PADDING)
        videos = asked["videos"].tolist()
        places = {video: self._places(asked["geometry"], video) for video in set(videos)}
        for example, video, own in zip(examples, videos, keys, strict=True):
            if example.guide is None:
                continue
            camera = self.inputs.clips.cues(example.clip_id).num_tracks
            last = (example.shown_frames - 1) // FRAMES
            told = example.guide.sights()
            for number, token in enumerate(own):
                for slot, sight in enumerate(told[min(number, len(told) - 1)]):
                    viewer, thing = (camera if who == CAMERA else who for who in (sight.viewer, sight.thing))
                    token[slot] = places[video].get((viewer, thing, min(sight.frame // FRAMES, last)), PADDING)
        heads = self.config.text_config.num_attention_heads
        of_heads = np.arange(heads) * NUM_SIGHTS // heads
        return torch.from_numpy(keys[:, :, of_heads].transpose(0, 2, 1).copy())

    def _places(self, geometry: Mapping[str, Mapping[str, Tensor]], video: int) -> dict[tuple[int, int, int], int]:
        """Places of a video's 3D tokens by viewer (NOBODY without one), thing and time group."""
        places, start = dict[tuple[int, int, int], int](), 0
        for name in self.config.gsm["encoders"]:
            if "cells" not in geometry.get(name, {}):
                break  # an encoder of frames: how many tokens it makes is not known here
            groups = geometry[name]["cells"][video, :, 0]
            if "things" in geometry[name]:
                things = geometry[name]["things"][video]
                viewers = things[:, 0] if things.shape[1] == 2 else torch.full_like(groups, NOBODY)
                seen = zip(viewers.tolist(), things[:, -1].tolist(), groups.tolist(), strict=True)
                places |= {sight: start + place for place, sight in enumerate(seen) if sight[2] != PADDING}
            start += len(groups)
        return places
