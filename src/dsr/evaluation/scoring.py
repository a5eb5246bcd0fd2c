"""Scoring by a checkpoint: log-likelihood of the letters A to D after the prompt, one forward pass a question."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dsr import console
from dsr.clips.video import VideoError
from dsr.cues.schema import CuesError
from dsr.evaluation.predictions import Control, ControlError, geometry_donors
from dsr.model import load_model
from dsr.model.chat import option_log_probs
from dsr.model.presets import share_cores
from dsr.splits.split import LETTERS
from dsr.training.collate import Collator, length_batches
from dsr.training.records import ClipStore, Example, load_examples


class CheckpointScorer:
    """A `dsr.evaluation.predictions.Scorer` over a checkpoint folder.

    Controls: `blind` gives the question and the options alone, no video and no geometry; `shuffled_geometry`
    the video as it is with the geometry of a clip from another source video.
    """

    def __init__(
        self, checkpoint: Path, root: Path, questions: pd.DataFrame, batch_size: int, seed: int, workers: int = 0
    ) -> None:
        """Load the model and find out which questions can be scored.

        Args:
            checkpoint: folder written by the train stage.
            root: project folder, below which clips and cues are.
            questions: as `dsr.splits.split.read_questions` gives them.
            seed: decides which clip lends its geometry.
            workers: threads that decode and compute; 0 = all cores.

        Raises:
            StageError: the checkpoint is missing or damaged.
        """
        self.model, self.processor = load_model(checkpoint)
        share_cores(self.model, workers)
        self.store = ClipStore(root, self.processor)
        examples, missing = load_examples(questions, self.store, console.num_workers(workers))
        self.examples = {example.qa_id: example for example in examples}
        self.missing: dict[str, str] = {row.qa_id: row.reason for row in missing}
        self.source_videos = dict(zip(questions["videoID"], questions["source_video"], strict=True))
        self.batch_size = batch_size
        self.seed = seed

    def __call__(self, qa_ids: Sequence[str], control: Control) -> np.ndarray:
        """[n, 4] float32 log-probability of each letter over the whole vocabulary; see `Scorer`."""
        examples = [self.examples[qa_id] for qa_id in qa_ids]
        donors = None
        if control == "shuffled_geometry":
            if self.model.config.gsm["fusion"] == "none":
                raise ControlError("the model takes no geometry (gsm.fusion: none)")
            donors = geometry_donors({e.clip_id: self.source_videos[e.clip_id] for e in examples}, self.seed)
        collate = Collator(self.processor, self.model.config, self.store, control=control, donors=donors)
        scores = np.full((len(examples), len(LETTERS)), np.nan, np.float32)
        batches = self._batches(examples)
        for batch in console.track(batches, f"evaluate: {control}"):
            rows = [i for i in batch if control == "blind" or self._readable(examples[i])]
            if rows:
                inputs = collate([examples[i] for i in rows]).to(self.model.device)
                with torch.inference_mode():
                    scores[rows] = option_log_probs(self.model, inputs).numpy()
        return scores

    def _batches(self, examples: Sequence[Example]) -> list[list[int]]:
        """Indices in batches: questions of similar length together, or, where the clips do not fit into the cache,
        those of a clip, so that it is decoded once."""
        if not self.store.is_full:
            return list(length_batches(examples, self.batch_size))
        order = sorted(range(len(examples)), key=lambda i: (examples[i].clip_id, i))
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def _readable(self, example: Example) -> bool:
        """Whether the clip decodes; a question whose clip turns out not to is missing from here on."""
        try:
            self.store.video(example.clip_id, example.shown_frames)
        except (CuesError, VideoError) as error:
            self.missing[example.qa_id] = str(error)
            return False
        return True
