"""The `qa` stage: cues -> data/qa/pool.parquet, and metrics/qa.json with every candidate accounted for.

Blocks of source videos are independent of each other: one process finds a block's candidates and matches them, so
that memory holds a few blocks' candidates and the rows that were kept. What texts tell of answers, which the matching
balances out (questions/quartets/text_balance.py), is learned before, on a sample of clips of all blocks.
"""

import itertools
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsr import project
from dsr.console import StageError, num_workers, summary, track
from dsr.cues.schema import PIXELWISE, ClipCues, CuesError, cue_path, read_cues
from dsr.files import write_metrics, write_parquet
from dsr.mcq import LETTERS, PUBLISHED_COLUMNS, TYPES, lettered
from dsr.params import QA, Params
from dsr.questions.engine.candidates import (
    FORM_TYPES,
    STABLE,
    Candidates,
    describe_answer,
    find_candidates,
)
from dsr.questions.engine.scene import KINDS, build_scenes
from dsr.questions.engine.survey import ANSWERED
from dsr.questions.language.families import FORMS
from dsr.questions.language.templates import NUM_WORDINGS, Form, mention, question_text
from dsr.questions.motion import motion, ways
from dsr.questions.quartets.blocks import assign_blocks
from dsr.questions.quartets.matching import QUARTET, match_quartets
from dsr.questions.quartets.text_balance import TextLogit, fit
from dsr.workers import map_all

_CLIPS_AT_ONCE = 64
_PROBLEMS_SHOWN = 5
FAILED = "questions could not be made"
NO_CUES = f"no cues: see {project.CUES_MANIFEST}"


@dataclass(frozen=True, eq=False)
class ClipWords:
    """Facts of a clip that its questions are worded with; plain lists, as they are read one by one."""

    clip_id: str
    labels: list[str]
    """[E] "camera", then the tracks' labels."""
    kinds: list[str]
    """[E] of KINDS."""
    timestamps: list[float]
    """[T] seconds."""
    size: tuple[int, int]
    """Width and height of the original video in pixels."""


@dataclass(frozen=True, eq=False)
class Offered:
    """Candidates and facts that clips offer to the matching."""

    candidates: Candidates
    """Their `clip` counts in `words`."""
    words: list[ClipWords]
    counts: Counter[str]
    problems: dict[str, str]
    """Clip id -> why there is nothing to ask."""

    @classmethod
    def concatenate(cls, parts: Sequence["Offered"]) -> "Offered":
        starts = np.cumsum([0, *(len(part.words) for part in parts)])
        shifted = [
            replace(p.candidates, clip=p.candidates.clip + start) for p, start in zip(parts, starts, strict=False)
        ]
        return cls(
            Candidates.concatenate(shifted),
            [words for part in parts for words in part.words],
            sum((part.counts for part in parts), Counter[str]()),
            {clip_id: why for part in parts for clip_id, why in part.problems.items()},
        )


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Write the question pool.

    Raises:
        StageError: the stages before have not run, or no quartet was found at all.
    """
    clips = _read_clips(root)
    blocks = assign_blocks(list(clips.source_video), params.qa.num_blocks, params.qa.seed)
    clips["block"] = clips.source_video.map(blocks)
    clips = clips.sort_values(["block", "clip_id"], ignore_index=True)
    processes = num_workers(workers)
    still = still_clips(root, clips.clip_id.tolist(), params.curation.min_motion, processes)
    moving = clips[~clips.clip_id.isin(list(still))].reset_index(drop=True)
    text_logits = learn_text_logits(root, moving.clip_id.tolist(), params.qa, processes)
    allowed = _quartets_a_block(moving.block.value_counts().sort_index(), params.qa.max_questions)
    tasks = [Block(int(b), members, allowed[int(b)]) for b, members in moving.groupby("block", sort=True)]
    results = map_all(_BlockQuestions(root, params.qa, text_logits), tasks, processes, FAILED)
    made = [result for _, result in sorted(track(results, "questions: blocks", len(tasks)), key=lambda item: item[0])]
    counts = sum((counts for _, counts, _ in made), Counter[str]())
    problems = still | {clip_id: why for _, _, problems in made for clip_id, why in problems.items()}
    pool = pd.concat([table for table, _, _ in made], ignore_index=True)
    if pool.empty:
        nothing = "".join(f"; {n} clips: {why}" for why, n in Counter(problems.values()).most_common(_PROBLEMS_SHOWN))
        raise StageError(
            f"no quartet of questions among {counts['candidates']} candidates of {len(clips)} clips: "
            f"add clips, raise qa.candidates, or lower qa.answer_margin{nothing}"
        )
    write_parquet(root / project.POOL, pool)
    figures = _figures(pool, clips, counts, problems)
    nothing = pd.DataFrame(sorted(problems.items()), columns=["clip_id", "reason"])
    write_metrics(root / project.QA_METRICS, figures, {"clips_without_candidates": nothing})
    _show(figures, problems)


def _read_clips(root: Path) -> pd.DataFrame:
    """The kept clips: clip_id, source_video, category."""
    columns = ["clip_id", "source_video", "category"]
    table = project.read_table(root, project.CURATED, "curate", ("status", *columns))
    clips = table.loc[table.status == "kept", columns].copy()
    if not any(cue_path(root / project.CUES, clip_id).exists() for clip_id in clips.clip_id):
        raise StageError(
            f"no clip of {root / project.CURATED} has cues under {project.CUES}/: see {project.CUES_MANIFEST}"
        )
    return clips


def still_clips(root: Path, clip_ids: Sequence[str], least: float, processes: int) -> dict[str, str]:
    """Clips in which nothing goes as far as `least` (`curation.min_motion`), with the reason.

    Raises:
        StageError: there is no other clip.
    """
    if not least:
        return {}
    measured = map_all(_Motion(root), clip_ids, processes, "motion could not be measured")
    found = {clip_ids[place]: way for place, way in track(measured, "questions: motion", len(clip_ids))}
    still = {
        clip_id: "too little motion: nothing goes as far as curation.min_motion"
        for clip_id in clip_ids
        if (way := found[clip_id]) is not None and way < least
    }
    if len(still) == len(clip_ids):
        farthest = max(way for way in found.values() if way is not None)
        raise StageError(f"nothing in {len(still)} clips goes as far as curation.min_motion, {least:g}: {farthest:.3g}")
    return still


@dataclass(frozen=True)
class _Motion:
    """Motion of a clip, None where it has no readable cues; picklable."""

    root: Path

    def __call__(self, clip_id: str) -> float | None:
        cues, _ = _read_cues(self.root, [clip_id])
        return motion(ways(cues[0][1])) if cues else None


def _quartets_a_block(clips_in: pd.Series, max_questions: int | None) -> dict[int, int | None]:
    """Most quartets of each block, in proportion to its clips; whole ones, by largest remainder."""
    if max_questions is None:
        return dict.fromkeys(clips_in.index)
    exact = max_questions // QUARTET * clips_in / clips_in.sum()
    quartets = exact.astype(int)
    left = max_questions // QUARTET - int(quartets.sum())
    quartets[(quartets - exact).sort_values(kind="stable").index[:left]] += 1
    return quartets.to_dict()


def offer(root: Path, clip_ids: Sequence[str], qa: QA) -> Offered:
    """Candidates of clips; an unreadable file or an empty scene is a problem, not an error.

    What a clip offers depends on the clips beside it only through the noise and the draws that they share.
    """
    parts = []
    for start in range(0, len(clip_ids), _CLIPS_AT_ONCE):
        cues, problems = _read_cues(root, clip_ids[start : start + _CLIPS_AT_ONCE])
        parts.append(Offered(Candidates.concatenate([]), [], Counter(), problems))
        for _, same_length in itertools.groupby(cues, key=lambda item: item[1].num_frames):
            parts.append(offer_cues(list(same_length), qa))
    return Offered.concatenate(parts)


def _read_cues(root: Path, clip_ids: Sequence[str]) -> tuple[list[tuple[str, ClipCues]], dict[str, str]]:
    cues, problems = [], {}
    for clip_id in clip_ids:
        path = cue_path(root / project.CUES, clip_id)
        try:
            cues.append((clip_id, read_cues(path, skip=PIXELWISE)))
        except CuesError as error:
            problems[clip_id] = str(error).replace(str(path), path.name) if path.exists() else NO_CUES
    return cues, problems


def offer_cues(cues: Sequence[tuple[str, ClipCues]], qa: QA) -> Offered:
    """Offer of clips, by id, with the same number of frames."""
    words = [
        ClipWords(
            clip_id,
            ["camera", *clip.labels.tolist()],
            ["camera", *("agent" if agent else "object" for agent in clip.is_agent.tolist())],
            clip.timestamps.tolist(),
            (int(clip.meta["width"]), int(clip.meta["height"])),
        )
        for clip_id, clip in cues
    ]
    rng = np.random.default_rng([qa.seed, zlib.crc32(" ".join(clip_id for clip_id, _ in cues).encode())])
    scene = build_scenes([clip for _, clip in cues], qa.ensemble, rng)
    if scene is None:
        problems = {clip_id: "no track is seen in front of the camera" for clip_id, _ in cues}
        return Offered(Candidates.concatenate([]), words, Counter(), problems)
    candidates, counts = find_candidates(scene, qa, rng)
    asked, known = set(candidates.clip.tolist()), set(scene.clip.tolist())
    problems = {
        clip_id: "no candidate question holds" if i in known else "no track is seen in front of the camera"
        for i, (clip_id, _) in enumerate(cues)
        if i not in asked
    }
    return Offered(candidates, words, counts, problems)


# --- What texts tell of answers ---


@dataclass(frozen=True)
class _Offering:
    """Candidates of some clips; picklable, so that a worker process has it once."""

    root: Path
    qa: QA

    def __call__(self, clip_ids: list[str]) -> Candidates:
        return offer(self.root, clip_ids, self.qa).candidates


def learn_text_logits(root: Path, clip_ids: list[str], qa: QA, processes: int) -> dict[int, TextLogit]:
    """Logits by form of what texts give away, learned on quartets of a sample of the clips matched without them."""
    rng = np.random.default_rng([qa.seed, 2])
    sample = [clip_ids[i] for i in sorted(rng.permutation(len(clip_ids))[: qa.balance_clips])]
    tasks = [sample[i : i + _CLIPS_AT_ONCE] for i in range(0, len(sample), _CLIPS_AT_ONCE)]
    offers = map_all(_Offering(root, qa), tasks, processes, FAILED)
    results = track(offers, "questions: what texts tell", len(tasks))
    parts = [part for _, part in sorted(results, key=lambda item: item[0])]
    for start, part in zip(range(0, len(sample), _CLIPS_AT_ONCE), parts, strict=True):
        part.clip += start
    candidates = Candidates.concatenate(parts)
    generous = replace(qa, max_per_clip=qa.keep_per_clip_type * len(TYPES), max_per_clip_type=qa.keep_per_clip_type)
    quartets = match_quartets(candidates, generous, rng).quartets
    forms = candidates.form[quartets[:, 0]]
    return {int(form): fit(candidates, quartets[forms == form]) for form in np.unique(forms)}


# --- A block's questions ---


@dataclass(frozen=True)
class Block:
    number: int
    clips: pd.DataFrame
    """clip_id, source_video, category."""
    allowed: int | None
    """Most quartets."""


@dataclass(frozen=True)
class _BlockQuestions:
    """Rows of a block; picklable, so that a worker process has it once."""

    root: Path
    qa: QA
    text_logits: Mapping[int, TextLogit]

    def __call__(self, block: Block) -> tuple[pd.DataFrame, Counter[str], dict[str, str]]:
        offered = offer(self.root, block.clips.clip_id.tolist(), self.qa)
        rng = np.random.default_rng([self.qa.seed, block.number, 1])
        candidates, counts = offered.candidates, offered.counts
        matching = match_quartets(candidates, self.qa, rng, self.text_logits)
        counts["no partners for a quartet"] += matching.no_partners
        counts["clip has enough questions"] += matching.capped
        quartets = matching.quartets
        if block.allowed is not None:
            kept = _spread_over_types(FORM_TYPES[candidates.form[quartets[:, 0]]], block.allowed)
            counts["over qa.max_questions"] += QUARTET * (len(quartets) - len(kept))
            quartets = quartets[kept]
        return question_rows(offered, quartets, block, rng), counts, offered.problems


def question_rows(offered: Offered, quartets: np.ndarray, block: Block, rng: np.random.Generator) -> pd.DataFrame:
    """COLUMNS of the questions of quartets [Q, 4]."""
    if not len(quartets):
        return pd.DataFrame()
    wordings = rng.integers(NUM_WORDINGS, size=len(quartets))
    columns = _columns(offered.candidates.take(quartets.ravel()), offered.words, wordings)
    table = pd.DataFrame(columns)
    table["quartet_id"] = np.repeat([f"{block.number:02d}-{number:06d}" for number in range(len(quartets))], QUARTET)
    table["block"] = block.number
    about = block.clips.set_index("clip_id")
    table["source_video"] = table.videoID.map(about.source_video)
    table["category"] = table.videoID.map(about.category)
    table["qa_id"] = table.videoID + "-" + table.type + "-" + table.groupby(["videoID", "type"]).cumcount().astype(str)
    return table[COLUMNS]


def _spread_over_types(types: np.ndarray, allowed: int) -> np.ndarray:
    """Indices of at most `allowed` quartets, the types taken in turn."""
    turn = pd.Series(types).groupby(types).cumcount().to_numpy()
    return np.sort(np.argsort(turn, kind="stable")[:allowed])


COLUMNS = [
    *PUBLISHED_COLUMNS,
    "qa_id",
    "quartet_id",
    "block",
    "source_video",
    "category",
    "form",
    "wording",
    "labels",
    "boxes",
    "viewpoint_kind",
    "viewpoint",
    "viewpoint_mode",
    "targets",
    "target_kinds",
    "start_time",
    "end_time",
    "frames",
    "shown_frames",
    "states",
    "signal",
    "option_states",
]
"""Columns of pool.parquet: the published ones first.

A question is made from form, wording, labels, boxes and times (`language/templates.py`): labels and boxes are those of
viewer and targets, in the order of `Form.roles`, boxes in pixels at the stated moment, and empty for the camera.
"""


_MODES = {"moving": "relative", "fixed": "absolute", "none": "none"}


def _columns(asked: Candidates, words: list[ClipWords], wordings: np.ndarray) -> dict[str, list[Any]]:
    """Columns of candidates, quartet by quartet, of which each has a wording; plain lists, as most of it is text."""
    clips = [words[clip] for clip in asked.clip]
    forms = [FORMS[form] for form in asked.form]
    known = np.isfinite(asked.signal)
    numbers, last = asked.signal[known].tolist(), np.cumsum(known.sum(axis=(1, 2))).tolist()
    columns = {
        "videoID": [clip.clip_id for clip in clips],
        "type": [form.type for form in forms],
        "form": [form.name for form in forms],
        "wording": np.repeat(wordings, QUARTET).tolist(),
        "signal": [numbers[start:end] for start, end in itertools.pairwise([0, *last])],
    }
    columns |= _answer_columns(asked, forms) | _entity_columns(asked, forms, clips) | _time_columns(asked, forms, clips)
    made_from = (columns[name] for name in ("wording", "start_time", "end_time", "frames", "labels", "boxes"))
    columns["question"] = [
        _question(form, clip, *parts) for form, clip, *parts in zip(forms, clips, *made_from, strict=True)
    ]
    return columns


def _question(
    form: Form,
    clip: ClipWords,
    wording: int,
    start: float,
    end: float,
    frames: list[int],
    labels: list[str],
    boxes: list[list[int]],
) -> str:
    moment = clip.timestamps[frames[form.stated]]
    mentions = [mention(label, box, moment) for label, box in zip(labels, boxes, strict=True)]
    return question_text(form, wording, start, end, moment, dict(zip(form.roles, mentions, strict=True)))


def _answer_columns(asked: Candidates, forms: list[Form]) -> dict[str, list[Any]]:
    answers = [describe_answer(form, code) for form, code in zip(forms, asked.answer.tolist(), strict=True)]
    quartets = [answers[i : i + QUARTET] for i in range(0, len(answers), QUARTET)]
    # The questions of a quartet share the lists of their options: whatever lives until the end costs time in Python's
    # search for cycles.
    options = [list(lettered(text for text, _ in four)) for four in quartets]
    option_states = [[states for _, states in four] for four in quartets]
    return {
        "options": [four for four in options for _ in LETTERS],
        "option_states": [four for four in option_states for _ in LETTERS],
        "answer": list(LETTERS) * len(quartets),
        "states": [states for _, states in answers],
    }


def _entity_columns(asked: Candidates, forms: list[Form], clips: list[ClipWords]) -> dict[str, list[Any]]:
    viewers, targets = asked.viewer.tolist(), [[t for t in row if t >= 0] for row in asked.targets.tolist()]
    pixels = np.rint(np.nan_to_num(asked.boxes * np.array([[clip.size * 2] for clip in clips])))
    pixels = pixels.astype(int).reshape(len(clips), -1).tolist()
    mentioned = [[viewer, *own] if viewer >= 0 else own for viewer, own in zip(viewers, targets, strict=True)]
    return {
        # Tracks are counted from 0 in the cue file, the camera is -1 and no viewpoint -2.
        "viewpoint": [viewer - 1 for viewer in viewers],
        "viewpoint_kind": ["none" if viewer < 0 else KINDS[min(viewer, 1)] for viewer in viewers],
        "viewpoint_mode": [_MODES[form.viewer] for form in forms],
        "targets": [[t - 1 for t in own] for own in targets],
        "target_kinds": [[clip.kinds[t] for t in own] for clip, own in zip(clips, targets, strict=True)],
        "labels": [[clip.labels[e] for e in own] for clip, own in zip(clips, mentioned, strict=True)],
        "boxes": [
            [flat[4 * role : 4 * role + 4] if entity else [] for role, entity in enumerate(own, viewer < 0)]
            for viewer, own, flat in zip(viewers, mentioned, pixels, strict=True)
        ],
    }


def _time_columns(asked: Candidates, forms: list[Form], clips: list[ClipWords]) -> dict[str, list[Any]]:
    frames = [[f for f in row if f >= 0] for row in asked.frames.tolist()]
    predicts = [form.signal == "dir_pred" for form in forms]
    stated = [row[form.stated] for row, form in zip(frames, forms, strict=True)]
    ends = [at if p else row[-1] for row, at, p in zip(frames, stated, predicts, strict=True)]
    starts = [0 if p else row[0] for row, p in zip(frames, predicts, strict=True)]
    return {
        "frames": frames,
        "start_time": [clip.timestamps[frame] for clip, frame in zip(clips, starts, strict=True)],
        "end_time": [clip.timestamps[frame] for clip, frame in zip(clips, ends, strict=True)],
        "shown_frames": [
            at + 1 if p else len(clip.timestamps) for clip, at, p in zip(clips, stated, predicts, strict=True)
        ],
    }


def _figures(pool: pd.DataFrame, clips: pd.DataFrame, counts: Counter[str], problems: dict[str, str]) -> dict[str, Any]:
    """The scalars of metrics/qa.json; DVC shows keys in the order of their letters."""
    per_type = pool.type.value_counts()
    per_clip = pool.videoID.value_counts().reindex(clips.clip_id, fill_value=0)
    stable = {name: counts[STABLE + name] / max(counts[ANSWERED + name], 1) for name in TYPES}
    reasons = sorted(name for name in counts if not name.startswith((ANSWERED, STABLE)))
    return {
        "questions": len(pool),
        "quartets": int(pool.quartet_id.nunique()),
        "clips": len(clips),
        "clips_with_10_questions": int((per_clip >= 10).sum()),
        "clips_without_candidates": len(problems),
        "drawn": int(counts["drawn"]),
        "candidates": int(counts["candidates"]),
        "type_questions": {name: int(per_type.get(name, 0)) for name in TYPES},
        "type_stable": {name: round(share, 4) for name, share in stable.items()},
        "unasked": {name: int(counts[name]) for name in reasons if name not in ("drawn", "candidates")},
    }


def _show(figures: dict[str, Any], problems: dict[str, str]) -> None:
    rows: dict[str, object] = {
        name: figures[name] for name in ("questions", "quartets", "clips", "clips_with_10_questions")
    }
    rows |= {
        f"type {name}": f"{n:,} (label stable: {figures['type_stable'][name]:.0%} of those with an answer)"
        for name, n in figures["type_questions"].items()
    }
    rows |= {f"candidates: {name}": figures[name] for name in ("drawn", "candidates")}
    rows |= {f"not asked: {name}": n for name, n in figures["unasked"].items()}
    rows |= {f"nothing to ask: {clip_id}": problem for clip_id, problem in sorted(problems.items())[:_PROBLEMS_SHOWN]}
    summary("qa", rows)
