"""Answers of a checkpoint: log-likelihood of the option letters after the prompt, or the text that it writes, greedily.

For likelihoods, a clip can be computed once for the questions about it (`evaluate.shared_prefix`): the same answers, so
that neither a prediction's key nor the cache knows of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import transformers

from dsr import console
from dsr.evaluation.controls import CONTROLS, ControlError, clip_facts, geometry_lenders
from dsr.evaluation.prediction_cache import Reply
from dsr.examples.clips import ClipStore, find_problems
from dsr.examples.collate import Collator
from dsr.examples.inputs import ClipInputs
from dsr.examples.records import Example, clip_batches, example_of, length_batches
from dsr.files import sha256_file, sha256_json
from dsr.mcq import ALPHABET, Question
from dsr.model import load_model
from dsr.model.chat import letter_ids, option_log_probs
from dsr.model.presets import share_cores
from dsr.questions.language.transforms import ClipFacts
from dsr.source import code_hash

if TYPE_CHECKING:
    from dsr.params import Evaluate

_RECORDS = ("params.json", "training_summary.json")
"""Files of a model's folder that tell of its training and decide no answer."""
_SHOWN = 3
"""Clips without cues that a note names."""
_DECIMALS = 4
"""Digits of a log-probability that are kept: what a batch's composition changes is smaller."""


def load_scorer(
    checkpoint: Path, clips: ClipStore, questions: pd.DataFrame, options: "Evaluate", workers: int, max_pixels: int = 0
) -> "CheckpointScorer":
    """Scorer of a checkpoint folder.

    Raises:
        StageError: the checkpoint is missing or damaged.
    """
    model, processor = load_model(checkpoint, max_pixels=max_pixels)
    share_cores(model, workers)
    identity = sha256_json(
        {
            "checkpoint": folder_hash(checkpoint),
            "frames": dict(processor.video_processor.size),
            "code": [code_hash(__name__), torch.__version__, transformers.__version__],
        }
    )
    return CheckpointScorer(model, ClipInputs(clips, processor), questions, options, identity, workers)


class CheckpointScorer:
    """A `dsr.evaluation.predictions.Scorer`."""

    def __init__(
        self,
        model: Any,
        inputs: ClipInputs,
        questions: pd.DataFrame,
        options: "Evaluate",
        identity: str,
        workers: int = 0,
    ) -> None:
        """Find out which questions can be asked.

        Args:
            model: Qwen2.5-VL with GSM, in evaluation mode.
            inputs: of the questions' clips, with the model's processor.
            questions: columns qa_id, videoID, source_video.
            identity: hash of the model.
            workers: threads that decode; 0 = all cores.
        """
        self.model, self.inputs, self.options = model, inputs, options
        self.tokenizer = inputs.processor.tokenizer
        self.source_videos = dict(zip(questions["videoID"], questions["source_video"], strict=True))
        self.problems = find_problems(self.source_videos, inputs.problem, workers)
        self.missing: dict[str, str] = {
            qa_id: self.problems[clip]
            for qa_id, clip in zip(questions["qa_id"], questions["videoID"], strict=True)
            if clip in self.problems
        }
        written = {"max_new_tokens": options.max_new_tokens} if options.mode == "generate" else {}
        form = {"prompt": options.prompt} if options.prompt else {}
        self.identity = sha256_json({"model": identity, "mode": options.mode, **written, **form})
        self._lenders: dict[str, str] | None = None

    @property
    def notes(self) -> list[str]:
        """See `Scorer`."""
        notes, clips = [], self.inputs.clips
        shown = [clip for clip in self.source_videos if clip not in self.problems]
        if blank := clips.without_video(shown):
            notes.append(f"{len(blank):,} clips have no video (trajectories alone): the model saw black frames of them")
        if bare := clips.without_cues(shown):
            named = f"{', '.join(bare[:_SHOWN])}{', …' if len(bare) > _SHOWN else ''}"
            notes.append(
                f"{len(bare):,} clips have no cues ({named}): the model saw the geometry of a scene in which nothing is"
            )
        return notes

    def facts(self, clip_id: str) -> ClipFacts:
        """See `Scorer`."""
        return clip_facts(self.inputs.clips.cues(clip_id))

    def clip_hash(self, clip_id: str, control: str) -> str:
        """See `Scorer`."""
        lender, clips = self._lenders_of(control).get(clip_id), self.inputs.clips
        return sha256_json([clips.hash(clip_id), clips.hash(lender) if lender else None])

    def __call__(self, questions: Sequence[Question], control: str) -> Iterator[dict[int, Reply]]:
        """See `Scorer`."""
        blind = CONTROLS[control].shown.video == "none"
        examples = [example_of(question, self.inputs.clips) for question in questions]
        collate = Collator(
            self.inputs,
            self.model.config,
            CONTROLS[control].view,
            self._lenders_of(control),
            shared_prefix=self._shares_prefixes,
            form=self.options.prompt,
        )
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

    @torch.inference_mode()
    def _likelihoods(self, inputs: Mapping[str, Any], examples: Sequence[Example], rows: Sequence[int]) -> list[Reply]:
        counts = [len(examples[i].options) for i in rows]
        tokens = letter_ids(self.tokenizer, ALPHABET[: max(counts)])
        scores = option_log_probs(self.model, inputs, tokens).double().tolist()
        return [
            Reply(log_probs=tuple(round(score, _DECIMALS) for score in row[:count]))
            for row, count in zip(scores, counts, strict=True)
        ]

    @torch.inference_mode()
    def _written(self, inputs: Mapping[str, Any]) -> list[Reply]:
        tokens = self.model.generate(**inputs, max_new_tokens=self.options.max_new_tokens, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [Reply(text=text) for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    @property
    def _shares_prefixes(self) -> bool:
        return self.options.shared_prefix and self.options.mode == "likelihood"

    def _batches(self, examples: Sequence[Example], blind: bool) -> list[list[int]]:
        """Indices in batches: questions of similar length together, or, where their clips are computed once or do not
        fit into the cache, those of a clip."""
        by_clip = not blind and (self._shares_prefixes or self.inputs.clips.is_full)
        return list((clip_batches if by_clip else length_batches)(examples, self.options.batch_size))

    def _unreadable(self, example: Example) -> str:
        """Reason why a clip does not decode, or ""; a question whose clip turns out not to is missing from here on."""
        if reason := self.inputs.unreadable(example.clip_id):
            self.missing[example.qa_id] = reason
        return reason

    def _lenders_of(self, control: str) -> dict[str, str]:
        view = CONTROLS[control].shown.geometry
        if view in ("shuffled", "zeroed") and self.model.config.gsm["fusion"] == "none":
            raise ControlError("the model takes no geometry (gsm.fusion: none)")
        if view != "shuffled":
            return {}
        if self._lenders is None:
            usable = {clip: video for clip, video in self.source_videos.items() if clip not in self.problems}
            self._lenders = geometry_lenders(usable, self.options.seed)
        return self._lenders


def folder_hash(folder: Path) -> str:
    """Hash of a model folder's files, by name and content, but for the records of its training."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name not in _RECORDS]
    return sha256_json({file.name: sha256_file(file) for file in files})
