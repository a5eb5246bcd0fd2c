"""Answers of a checkpoint: log-likelihood of the option letters after the prompt, or the text that it writes, greedily.

For likelihoods, a clip can be computed once for the questions about it (`evaluate.shared_prefix`): the same answers, so
that neither a prediction's key nor the cache knows of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers

from dsr import console
from dsr.clips.video import VideoError
from dsr.cues.schema import CuesError
from dsr.evaluation.controls import CONTROLS, ControlError, geometry_donors
from dsr.evaluation.prediction_cache import Reply
from dsr.examples.collate import Collator, clip_batches, length_batches
from dsr.examples.fingerprints import cues_hash, file_fingerprint
from dsr.examples.records import ClipStore, Example, example_of
from dsr.examples.shown_clips import ShownClips
from dsr.files import sha256_file, sha256_json
from dsr.mcq import ALPHABET, Question
from dsr.model import load_model
from dsr.model.chat import letter_ids, option_log_probs
from dsr.model.presets import share_cores
from dsr.params import Evaluate
from dsr.questions.language.transforms import ClipFacts
from dsr.source import code_hash

_RECORDS = ("params.json", "training_summary.json")
"""Files of a model's folder that tell of its training and decide no answer."""
_DECIMALS = 4
"""Of a log-probability: what a batch's composition changes is smaller."""


def load_scorer(
    checkpoint: Path, store_of: Any, questions: pd.DataFrame, options: Evaluate, workers: int
) -> "CheckpointScorer":
    """The scorer of a checkpoint folder.

    Args:
        store_of: processor -> ClipStore of the questions' clips.

    Raises:
        StageError: the checkpoint is missing or damaged.
    """
    model, processor = load_model(checkpoint)
    share_cores(model, workers)
    identity = sha256_json(
        {
            "checkpoint": folder_hash(checkpoint),
            "code": [code_hash(__name__), torch.__version__, transformers.__version__],
        }
    )
    return CheckpointScorer(model, store_of(processor), questions, options, identity, workers)


class CheckpointScorer:
    """A `dsr.evaluation.predictions.Scorer`."""

    def __init__(
        self, model: Any, store: ClipStore, questions: pd.DataFrame, options: Evaluate, identity: str, workers: int = 0
    ) -> None:
        """Find out which questions can be asked.

        Args:
            model: Qwen2.5-VL with GSM, in evaluation mode.
            store: of the questions' clips, with the model's processor.
            questions: columns qa_id, videoID, source_video.
            identity: hash of the model.
            workers: threads that decode; 0 = all cores.
        """
        self.model, self.store, self.options = model, store, options
        self.processor = store.processor
        self.source_videos = dict(zip(questions["videoID"], questions["source_video"], strict=True))
        clips = list(self.source_videos)
        with ThreadPoolExecutor(console.num_workers(workers)) as pool:
            found = console.track(pool.map(store.problem, clips), "clips", len(clips))
            self.problems = {clip: problem for clip, problem in zip(clips, found, strict=True) if problem}
        self.missing: dict[str, str] = {
            qa_id: self.problems[clip]
            for qa_id, clip in zip(questions["qa_id"], questions["videoID"], strict=True)
            if clip in self.problems
        }
        written = {"max_new_tokens": options.max_new_tokens} if options.mode == "generate" else {}
        self.identity = sha256_json({"model": identity, "mode": options.mode, **written})
        self._donors: dict[str, str] | None = None
        self._hashes: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """See `Scorer`."""
        notes = []
        if blank := self.store.blank_clips:
            notes.append(f"{len(blank):,} clips have no video (trajectories alone): the model saw black frames of them")
        if bare := getattr(self.store, "clips_without_cues", 0):
            notes.append(f"{bare:,} clips have no cues: the model saw the geometry of a scene without anything in it")
        return notes

    def facts(self, clip_id: str) -> ClipFacts:
        """See `Scorer`."""
        cues = self.store.cues(clip_id)
        return ClipFacts(int(cues.meta["width"]), float(cues.timestamps[0]), float(cues.timestamps[-1]))

    def clip_hash(self, clip_id: str, control: str) -> str:
        """See `Scorer`."""
        donor = self._donors_of(control).get(clip_id)
        return sha256_json([self._hash(clip_id), self._hash(donor) if donor else None])

    def __call__(self, questions: Sequence[Question], control: str) -> Iterator[dict[int, Reply]]:
        """See `Scorer`."""
        blind = CONTROLS[control].video == "none"
        examples = [example_of(question, self.store) for question in questions]
        collate = self._collator(control, examples)
        for batch in console.track(self._batches(examples, blind), f"evaluate: {control}"):
            problems = {} if blind else {i: self._unreadable(examples[i]) for i in batch}
            rows = [i for i in batch if not problems.get(i)]
            replies = {i: Reply(problem=problem) for i, problem in problems.items() if problem}
            if rows:
                inputs = collate([examples[i] for i in rows]).to(self.model.device)
                answers = (
                    self._written(inputs)
                    if self.options.mode == "generate"
                    else self._likelihoods(inputs, examples, rows)
                )
                replies |= dict(zip(rows, answers, strict=True))
            yield replies

    def _collator(self, control: str, examples: Sequence[Example]) -> Collator:
        shown, config, shared = CONTROLS[control], self.model.config, self._shares_prefixes
        if shown.video == "none":
            return Collator(self.processor, config, self.store, control="blind")
        if (shown.video, shown.geometry) == ("whole", "own"):
            return Collator(self.processor, config, self.store, shared_prefix=shared)
        clips = ShownClips(self.store, shown, self._donors_of(control))
        donors = clips.donors({example.clip_id for example in examples})
        return Collator(self.processor, config, clips, control="shuffled_geometry", donors=donors, shared_prefix=shared)

    @torch.inference_mode()
    def _likelihoods(self, inputs: Mapping[str, Any], examples: Sequence[Example], rows: Sequence[int]) -> list[Reply]:
        counts = [len(examples[i].options) for i in rows]
        tokens = letter_ids(self.processor.tokenizer, ALPHABET[: max(counts)])
        scores = option_log_probs(self.model, inputs, tokens).double().tolist()
        return [
            Reply(log_probs=tuple(round(score, _DECIMALS) for score in row[:count]))
            for row, count in zip(scores, counts, strict=True)
        ]

    @torch.inference_mode()
    def _written(self, inputs: Mapping[str, Any]) -> list[Reply]:
        tokens = self.model.generate(**inputs, max_new_tokens=self.options.max_new_tokens, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [Reply(text=text) for text in self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)]

    @property
    def _shares_prefixes(self) -> bool:
        return self.options.shared_prefix and self.options.mode == "likelihood"

    def _batches(self, examples: Sequence[Example], blind: bool) -> list[list[int]]:
        """Indices in batches: questions of similar length together, or, where their clips are computed once or do not
        fit into the cache, those of a clip."""
        by_clip = not blind and (self._shares_prefixes or self.store.is_full)
        return list((clip_batches if by_clip else length_batches)(examples, self.options.batch_size))

    def _unreadable(self, example: Example) -> str:
        """Why a clip does not decode, or ""; a question whose clip turns out not to is missing from here on."""
        try:
            self.store.video(example.clip_id, example.shown_frames)
        except (CuesError, VideoError) as error:
            self.missing[example.qa_id] = str(error)
            return str(error)
        return ""

    def _donors_of(self, control: str) -> dict[str, str]:
        view = CONTROLS[control].geometry
        if view in ("shuffled", "zeroed") and self.model.config.gsm["fusion"] == "none":
            raise ControlError("the model takes no geometry (gsm.fusion: none)")
        if view != "shuffled":
            return {}
        if self._donors is None:
            usable = {clip: video for clip, video in self.source_videos.items() if clip not in self.problems}
            self._donors = geometry_donors(usable, self.options.seed)
        return self._donors

    def _hash(self, clip_id: str) -> str:
        if clip_id not in self._hashes:
            file = self.store.files.get(clip_id)
            pixels = (
                [file_fingerprint(self.store.root / file), dict(self.processor.video_processor.size)] if file else None
            )
            self._hashes[clip_id] = sha256_json([cues_hash(self.store.cues(clip_id)), pixels])
        return self._hashes[clip_id]


def folder_hash(folder: Path) -> str:
    """Hash of a model folder's files, by name and content, but for the records of its training."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name not in _RECORDS]
    return sha256_json({file.name: sha256_file(file) for file in files})
