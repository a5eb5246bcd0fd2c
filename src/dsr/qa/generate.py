"""The `qa` stage: cues -> data/qa/pool.parquet, and metrics/qa.json with every candidate accounted for.

Candidates are found clip by clip in parallel processes and matched block by block, so that memory holds one
block's candidates and the rows that were kept.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dsr.console import StageError, num_workers, summary, track
from dsr.cues.schema import CuesError, read_cues
from dsr.cues.store import FOLDER, cue_path
from dsr.files import write_json, write_parquet
from dsr.params import QA, Params
from dsr.qa.blocks import assign_blocks
from dsr.qa.candidates import FORM_TYPES, FORMS, Candidates, describe_answer, find_candidates
from dsr.qa.options import QUARTET, match_quartets
from dsr.qa.scene import KINDS, build_scene
from dsr.qa.templates import NUM_WORDINGS, TYPES, mention, question_text

LETTERS = "ABCD"
_CLIPS_A_TASK = 16
_NOT_NEEDED = ("point_map", "confidence", "mask_rle", "mask_offsets")


@dataclass(frozen=True, eq=False)
class ClipQuestions:
    """What a clip offers to the matching, and what its questions' words need."""

    clip_id: str
    candidates: Candidates | None
    """None where there is nothing to ask."""
    counts: Counter[str]
    labels: list[str]
    """[E] as in Scene."""
    kinds: np.ndarray
    """[E] as in Scene."""
    timestamps: np.ndarray
    """[T] seconds."""
    size: tuple[int, int]
    """Width and height of the original video in pixels."""
    problem: str = ""


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Write the question pool.

    Raises:
        StageError: the stages before have not run, or no quartet was found at all.
    """
    clips = _read_clips(root)
    blocks = assign_blocks(list(clips.source_video), params.qa.num_blocks, params.qa.seed)
    clips["block"] = clips.source_video.map(blocks)
    clips = clips.sort_values(["block", "clip_id"], ignore_index=True)
    allowed = _quartets_a_block(clips.block.value_counts().sort_index(), params.qa.max_questions)
    counts, problems = Counter[str](), {}
    tables = []
    with _clip_mapper(num_workers(workers)) as mapper:
        found = _questions_of_clips(root, clips.clip_id.tolist(), params.qa, mapper)
        progress = track(found, "questions", total=len(clips))
        for block, members in clips.groupby("block", sort=True):
            offered = [next(progress) for _ in range(len(members))]
            for clip in offered:
                counts.update(clip.counts)
                if clip.problem:
                    problems[clip.clip_id] = clip.problem
            tables.append(_block_rows(int(block), offered, members, params.qa, allowed[int(block)], counts))
        next(progress, None)
    pool = pd.concat(tables, ignore_index=True)
    if pool.empty:
        raise StageError(
            f"no quartet of questions among {counts['candidates']} candidates of {len(clips)} clips: "
            "add clips, raise qa.candidates, or lower qa.answer_margin"
        )
    write_parquet(root / "data/qa/pool.parquet", pool)
    report = _report(pool, clips, counts, problems)
    write_json(root / "metrics/qa.json", report)
    _show(report)


def _read_clips(root: Path) -> pd.DataFrame:
    """The kept clips: clip_id, source_video, category."""
    path = root / "data/clips/curated.parquet"
    if not path.exists():
        raise StageError(f"{path} does not exist: run `dsr curate` and `dsr cues` first, or `dvc repro`")
    table = pd.read_parquet(path)
    clips = table.loc[table.status == "kept", ["clip_id", "source_video", "category"]].copy()
    if not any(cue_path(root / FOLDER, clip_id).exists() for clip_id in clips.clip_id):
        raise StageError(f"no clip of {path} has cues under data/cues/: see data/cues/manifest.json")
    return clips


def _quartets_a_block(clips_in: pd.Series, max_questions: int | None) -> dict[int, int | None]:
    """Most quartets of each block, in proportion to its clips; whole ones, by largest remainder."""
    if max_questions is None:
        return dict.fromkeys(clips_in.index)
    exact = max_questions // QUARTET * clips_in / clips_in.sum()
    quartets = exact.astype(int)
    left = max_questions // QUARTET - int(quartets.sum())
    quartets[(quartets - exact).sort_values(kind="stable").index[:left]] += 1
    return quartets.to_dict()


@contextmanager
def _clip_mapper(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map` over processes, or in this one where one is enough."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _questions_of_clips(
    root: Path, clip_ids: list[str], qa: QA, mapper: Callable[..., Iterator[Any]]
) -> Iterator[ClipQuestions]:
    tasks = [clip_ids[i : i + _CLIPS_A_TASK] for i in range(0, len(clip_ids), _CLIPS_A_TASK)]
    for results in mapper(_clip_task, [root] * len(tasks), tasks, [qa] * len(tasks)):
        yield from results


def _clip_task(root: Path, clip_ids: list[str], qa: QA) -> list[ClipQuestions]:
    return [clip_questions(cue_path(root / FOLDER, clip_id), qa) for clip_id in clip_ids]


def clip_questions(path: Path, qa: QA) -> ClipQuestions:
    """Candidates of one cue file; an unreadable file or an empty scene is a problem, not an error."""
    clip_id = path.stem
    rng = np.random.default_rng([qa.seed, zlib.crc32(clip_id.encode())])
    try:
        cues = read_cues(path, skip=_NOT_NEEDED)
    except CuesError as error:
        problem = str(error).replace(str(path), path.name) if path.exists() else "no cues: see data/cues/manifest.json"
        return ClipQuestions(clip_id, None, Counter(), [], np.zeros(0), np.zeros(0), (0, 0), problem)
    size = (int(cues.meta["width"]), int(cues.meta["height"]))
    scene = build_scene(cues, qa.ensemble, rng)
    if scene is None:
        problem = "no track is seen in front of the camera"
        return ClipQuestions(clip_id, None, Counter(), [], np.zeros(0), cues.timestamps, size, problem)
    candidates, counts = find_candidates(scene, qa, rng)
    problem = "" if len(candidates) else "no candidate question holds"
    return ClipQuestions(clip_id, candidates, counts, scene.labels, scene.kinds, scene.timestamps, size, problem)


def _block_rows(
    block: int,
    offered: list[ClipQuestions],
    members: pd.DataFrame,
    qa: QA,
    allowed: int | None,
    counts: Counter[str],
) -> pd.DataFrame:
    """Match a block's candidates and write its rows."""
    rng = np.random.default_rng([qa.seed, block, 1])
    filled = [(i, clip.candidates) for i, clip in enumerate(offered) if clip.candidates is not None]
    if not filled:
        return pd.DataFrame()
    candidates = Candidates.concatenate([c for _, c in filled])
    clip = np.concatenate([np.full(len(c), i) for i, c in filled])
    matching = match_quartets(candidates, clip, qa, rng)
    counts["no partners for a quartet"] += matching.no_partners
    counts["clip has enough questions"] += matching.capped
    quartets = matching.quartets
    if allowed is not None:
        kept = _spread_over_types(FORM_TYPES[candidates.form[quartets[:, 0]]], allowed)
        counts["over qa.max_questions"] += QUARTET * (len(quartets) - len(kept))
        quartets = quartets[kept]
    rows = []
    for number, quartet in enumerate(quartets):
        wording = int(rng.integers(NUM_WORDINGS))
        rows += _quartet_rows(
            candidates, quartet, [offered[clip[k]] for k in quartet], wording, f"{block:02d}-{number:06d}"
        )
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table["block"] = block
    about = members.set_index("clip_id")
    table["source_video"] = table.videoID.map(about.source_video)
    table["category"] = table.videoID.map(about.category)
    table["qa_id"] = table.videoID + "-" + table.type + "-" + table.groupby(["videoID", "type"]).cumcount().astype(str)
    return table[COLUMNS]


def _spread_over_types(types: np.ndarray, allowed: int) -> np.ndarray:
    """Indices of at most `allowed` quartets, the types taken in turn."""
    turn = pd.Series(types).groupby(types).cumcount().to_numpy()
    return np.sort(np.argsort(turn, kind="stable")[:allowed])


COLUMNS = [
    "videoID",
    "question",
    "options",
    "answer",
    "type",
    "qa_id",
    "quartet_id",
    "block",
    "source_video",
    "category",
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
"""Columns of pool.parquet: the published ones first."""


def _quartet_rows(
    candidates: Candidates, quartet: np.ndarray, clips: list[ClipQuestions], wording: int, quartet_id: str
) -> list[dict[str, Any]]:
    form = FORMS[candidates.form[quartet[0]]]
    texts, option_states = zip(*(describe_answer(form, int(candidates.answer[k])) for k in quartet), strict=True)
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=True)]
    rows = []
    for position, (k, clip) in enumerate(zip(quartet, clips, strict=True)):
        frames = candidates.frames[k][candidates.frames[k] >= 0]
        stated = int(frames[form.stated])
        predicts = form.signal == "dir_pred"
        start, end = (0, stated) if predicts else (int(frames[0]), int(frames[-1]))
        entities = [int(candidates.viewer[k]), *(int(t) for t in candidates.targets[k])]
        pixels = candidates.boxes[k] * np.array([*clip.size, *clip.size])
        moment = float(clip.timestamps[stated])
        names = {
            name: mention(clip.labels[entity], tuple(box) if entity > 0 else None, moment)
            for name, entity, box in zip(("viewer", "a", "b", "c"), entities, pixels, strict=True)
            if entity >= 0
        }
        times = clip.timestamps[[start, end]]
        targets = [t for t in entities[1:] if t >= 0]
        signal = candidates.signal[k]
        rows.append(
            {
                "videoID": clip.clip_id,
                "question": question_text(form, wording, times[0], times[1], moment, names),
                "options": options,
                "answer": LETTERS[position],
                "type": form.type,
                "quartet_id": quartet_id,
                "viewpoint_kind": "none" if form.viewer == "none" else ("camera", "agent")[entities[0] > 0],
                # Tracks are counted from 0 in the cue file, the camera is -1 and no viewpoint -2.
                "viewpoint": entities[0] - 1,
                "viewpoint_mode": {"moving": "relative", "fixed": "absolute", "none": "none"}[form.viewer],
                "targets": [t - 1 for t in targets],
                "target_kinds": [KINDS[clip.kinds[t]] for t in targets],
                "start_time": float(times[0]),
                "end_time": float(times[1]),
                "frames": [int(f) for f in frames],
                "shown_frames": stated + 1 if predicts else len(clip.timestamps),
                "states": option_states[position],
                "signal": [float(v) for v in signal[np.isfinite(signal)]],
                "option_states": list(option_states),
            }
        )
    return rows


def _report(pool: pd.DataFrame, clips: pd.DataFrame, counts: Counter[str], problems: dict[str, str]) -> dict[str, Any]:
    per_type = pool.type.value_counts()
    per_clip = pool.videoID.value_counts().reindex(clips.clip_id, fill_value=0)
    return {
        "questions": len(pool),
        "quartets": int(pool.quartet_id.nunique()),
        "clips": len(clips),
        "clips_with_10_questions": int((per_clip >= 10).sum()),
        "per_type": {name: int(per_type.get(name, 0)) for name in TYPES},
        "candidates": {name: int(counts[name]) for name in sorted(counts)},
        "clips_without_candidates": dict(sorted(problems.items())),
    }


def _show(report: dict[str, Any]) -> None:
    rows: dict[str, object] = {
        name: report[name] for name in ("questions", "quartets", "clips", "clips_with_10_questions")
    }
    rows |= {f"type {name}": n for name, n in report["per_type"].items()}
    rows |= {f"candidates: {name}": n for name, n in report["candidates"].items()}
    for clip_id, problem in list(report["clips_without_candidates"].items())[:5]:
        rows[f"nothing to ask: {clip_id}"] = problem
    summary("qa", rows)
