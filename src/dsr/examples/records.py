"""Questions that can be asked of their clips, and the order in which batches take them.

A row that cannot be used (no cues, no video, malformed) has a reason, so that used + missing = rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from dsr.examples.clips import ClipStore, find_problems
from dsr.examples.inputs import ClipInputs
from dsr.mcq import Question, read_row, row_problem


@dataclass(frozen=True)
class Example(Question):
    """A question that can be asked."""

    shown_frames: int = 0
    """At least one; no more than the clip has."""


def load_examples(table: pd.DataFrame, inputs: ClipInputs, workers: int = 1) -> tuple[list[Example], dict[str, str]]:
    """Check every row of a question table and its clip.

    Args:
        table: the published columns (videoID, question, options, answer, type); ours (qa_id, shown_frames) are used
            where they are there.
        workers: threads that decode.

    Returns:
        Examples, and the reason for every other row by its qa_id; together as many as there are rows.
    """
    problems = find_problems(table["videoID"].astype(str), inputs.problem, workers)
    examples: list[Example] = []
    missing: dict[str, str] = {}
    for number, row in enumerate(table.to_dict("records")):
        question = read_row({"qa_id": number, **row})
        if reason := problems.get(question.clip_id, "") or row_problem(row, published=True):
            missing[question.qa_id] = reason
        else:
            examples.append(example_of(question, inputs.clips))
    return examples, missing


def example_of(question: Question, clips: ClipStore) -> Example:
    """A question with the number of frames that its clip really shows."""
    frames = clips.cues(question.clip_id).num_frames
    return Example(**{**vars(question), "shown_frames": min(question.shown_frames or frames, frames)})


def length_batches(examples: Sequence[Example], batch_size: int) -> Iterator[list[int]]:
    """Indices of examples, similar lengths together, longest first (memory runs out at once or not at all)."""
    order = sorted(range(len(examples)), key=lambda i: (-text_length(examples[i]), i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def clip_batches(examples: Sequence[Example], batch_size: int) -> Iterator[list[int]]:
    """Indices of examples, those about the same frames of a clip in one batch where they fit into one."""

    def shown(index: int) -> tuple[str, int]:
        return examples[index].clip_id, examples[index].shown_frames

    batch: list[int] = []
    for _, rows in groupby(sorted(range(len(examples)), key=shown), shown):
        group = list(rows)
        if len(batch) + len(group) > batch_size and batch:
            yield batch
            batch = []
        while len(group) > batch_size:
            yield group[:batch_size]
            group = group[batch_size:]
        batch = batch + group
    if batch:
        yield batch


def text_length(example: Example) -> int:
    """A measure of a sample's length: characters of text, and for the video a few a frame."""
    return len(example.question) + sum(map(len, example.options)) + 8 * example.shown_frames
