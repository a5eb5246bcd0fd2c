"""The `audit` stage: data/qa/pool.parquet -> metrics/audit.json, and the tables of metrics/audit/ behind it.

What it asks of the pool, and how to read the answers:

- Can questions be answered without the video (audit/attackers.py)? Attackers are trained on some blocks and tested on
  the others, with the options alone and with the question's text as well. `strongest` is no maximum over results,
  which would be too high by chance: each fold is answered by the attacker that did best on the *other* folds (all
  attackers, and the rules, that read no more than this view does; for a type, best on that type). So it is one
  honest attacker, with an ordinary interval, and can be below the best row of the table.
- Intervals are 95 % percentile intervals over source videos: questions about one video are right or wrong together.
- Do labels hold (audit/labels.py)? Under fresh noise, noise of another shape, and against the truth if simulated.
- Is the pool balanced? Letters, answers, whole quartets, nothing across blocks.

The stage fails, after it has written its files, where the lower end of the strongest attacker's interval is above
`qa.audit.max_blind_accuracy`, or a type's above `qa.audit.max_type_blind_accuracy`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from dsr import project
from dsr.audit import labels as stability
from dsr.audit.attackers import (
    ATTACKERS,
    CHANCE,
    HEURISTICS,
    VIEWS,
    attack,
    credits,
    folds_of_blocks,
    heuristics,
    read_questions,
    signal_of,
)
from dsr.console import StageError, num_workers, summary, track, warn
from dsr.cues.clips import read_clips
from dsr.files import metrics_table, write_metrics
from dsr.intervals import interval, resampled_means
from dsr.mcq import LETTERS, TYPES, bare
from dsr.params import Audit, Params
from dsr.workers import Failure, map_all, map_isolated

STRONGEST = "strongest"
PLOT_COLUMNS = ["run", "type", "accuracy", "low", "high", "chance"]
"""Columns of metrics/audit/blind.csv; a run is what the attacker reads: options alone, or the question too."""
ALL = "all"
ANSWERS_SHOWN = 10
"""Most frequent answers of a type that metrics/audit/frequent_answers.csv lists."""
ONE_BLOCK = "no attack: the pool has one block of source videos, and an attacker is tested on another block"
_NEEDED = ("videoID", "question", "options", "answer", "type", "quartet_id", "block", "source_video", "option_states")


def run(params: Params, root: Path, workers: int = 0) -> None:
    """Audit the pool.

    Raises:
        StageError: no pool, or one that is answered blind too often (metrics/audit.json is written first).
    """
    audit = params.qa.audit
    pool = project.read_table(root, project.POOL, "qa", (*_NEEDED, *stability.COLUMNS))
    if pool.empty:
        raise StageError(f"{root / project.POOL} has no questions: run `dsr qa` again")
    processes = num_workers(workers)
    blind, tables, leaks = _blind_report(pool, audit, processes)
    labels, checks = _label_report(pool, params, root, processes)
    figures = {"balance": balance(pool), **blind, **labels}
    tables |= {**checks, **answer_shares(pool)}
    write_metrics(root / project.AUDIT_METRICS, figures, tables)
    _show(figures, checks["clips_not_checked"])
    if leaks:
        raise StageError(
            f"questions are answered without the video: {'; '.join(leaks)}. "
            f"See {metrics_table(project.AUDIT_METRICS, 'attackers')} for what finds it; the remedy is in what "
            "quartets are matched on (questions/quartets/), not a higher limit"
        )


# --- Answered without the video ---


@dataclass(frozen=True)
class AttackTask:
    """Questions of one signal; picklable."""

    table: pd.DataFrame
    fold: np.ndarray
    seed: int


def attack_signal(task: AttackTask) -> dict[tuple[str, str], np.ndarray]:
    """{(view, attacker or rule): [Q] share of the point}."""
    questions = read_questions(task.table, task.fold)
    scores = attack(questions, task.seed) | {("options", name): s for name, s in heuristics(questions).items()}
    return {key: credits(value, questions.right) for key, value in scores.items()}


def blind_credits(table: pd.DataFrame, seed: int, workers: int = 1) -> pd.DataFrame:
    """Share of the point of every attacker and rule, `strongest` of each view included, on every question.

    Args:
        table: columns question, options, answer, type, block; used if there: option_states, quartet_id. At least
            two blocks.

    Returns:
        Index as the table; columns (view, attacker).
    """
    fold = folds_of_blocks(table["block"].tolist())
    signals = table["type"].map(signal_of)
    places = [np.flatnonzero(signals == s) for s in sorted(signals.unique(), key=lambda s: (-(signals == s).sum(), s))]
    read = [c for c in ("question", "options", "answer", "type", "option_states", "quartet_id") if c in table]
    tasks = [AttackTask(table[read].iloc[p], fold[p], seed) for p in places]
    columns = [*(("options", name) for name in HEURISTICS), *((view, a) for view in VIEWS for a in ATTACKERS)]
    found = {column: np.full(len(table), CHANCE) for column in columns}
    attacks = map_all(attack_signal, tasks, workers, "audit: an attack on the questions failed")
    for index, result in track(attacks, "audit: attackers", len(tasks)):
        for column, values in result.items():
            found[column][places[index]] = values
    for view in VIEWS:
        # Who reads the question also reads the options.
        rivals = [c for c in columns if c[0] in ("options", view)]
        found[view, STRONGEST] = _best_elsewhere(np.stack([found[c] for c in rivals]), fold)
    return pd.DataFrame(found, index=table.index)


def _best_elsewhere(credit: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """[Q] of [rivals, Q]: on each fold the rival that did best on the other folds."""
    best = np.empty(credit.shape[1])
    for f in np.unique(fold):
        here, elsewhere = fold == f, fold != f
        chosen = credit[:, elsewhere].mean(axis=1).argmax() if elsewhere.any() else 0
        best[here] = credit[chosen, here]
    return best


def accuracy_table(credit: pd.DataFrame, table: pd.DataFrame, audit: Audit) -> pd.DataFrame:
    """Accuracy and interval of every column of `blind_credits`, overall and by type.

    Returns:
        Columns view, attacker, type ("all" or a type), questions, accuracy, low, high, deviation (of the mean, over
        source videos).
    """
    kinds = [t for t in TYPES if (table["type"] == t).any()]
    fold = folds_of_blocks(table["block"].tolist())
    rows = []
    for group in (ALL, *kinds):
        own = np.ones(len(table), bool) if group == ALL else (table["type"] == group).to_numpy()
        values = credit[own].to_numpy().copy()
        if group != ALL:
            for view in VIEWS:
                rivals = [i for i, (v, a) in enumerate(credit.columns) if v in ("options", view) and a != STRONGEST]
                place = credit.columns.get_loc((view, STRONGEST))
                values[:, place] = _best_elsewhere(values[:, rivals].T, fold[own])
        low, high, deviation = bootstrap(values, table["source_video"][own], audit.bootstrap, audit.seed)
        for i, (view, attacker) in enumerate(credit.columns):
            numbers = {"accuracy": values[:, i].mean(), "low": low[i], "high": high[i], "deviation": deviation[i]}
            rows.append({"view": view, "attacker": attacker, "type": group, "questions": int(own.sum()), **numbers})
    return pd.DataFrame(rows)


def bootstrap(
    values: np.ndarray, source_videos: Sequence[str], resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """95 % interval and standard deviation of the means of values [Q, C] over draws of source videos: [C] each.

    A single source video gives no interval: 0 to 1.
    """
    videos, place = np.unique(np.asarray(source_videos), return_inverse=True)
    v, c = len(videos), values.shape[1]
    if v < 2:
        return np.zeros(c), np.ones(c), np.ones(c)
    sums = np.zeros((v, c + 1))
    np.add.at(sums, place, np.concatenate([values, np.ones((len(values), 1))], axis=1))
    means = resampled_means(sums[:, :-1], sums[:, -1:], resamples, seed)
    low, high = interval(means)
    return low, high, means.std(axis=0)


def find_leaks(table: pd.DataFrame, audit: Audit) -> list[str]:
    """Rows of `accuracy_table` that are above their limit for sure, one line each."""
    rows = table[(table["view"] == "question") & (table["attacker"] == STRONGEST)].set_index("type")
    leaks = []
    everything = rows.loc[ALL]
    if everything["low"] > audit.max_blind_accuracy:
        leaks.append(
            f"{everything['accuracy']:.1%} overall (at least {everything['low']:.1%}; "
            f"qa.audit.max_blind_accuracy is {audit.max_blind_accuracy:g})"
        )
    types = rows.drop(index=ALL)
    # Bonferroni: all types together stay within the level of one interval.
    z = NormalDist().inv_cdf(1 - 0.025 / max(len(types), 1))
    for name, row in types.iterrows():
        low = row["accuracy"] - z * row["deviation"]
        if low > audit.max_type_blind_accuracy:
            leaks.append(
                f"{row['accuracy']:.1%} of {name} (at least {low:.1%}; "
                f"qa.audit.max_type_blind_accuracy is {audit.max_type_blind_accuracy:g})"
            )
    return leaks


def _blind_report(
    pool: pd.DataFrame, audit: Audit, workers: int
) -> tuple[dict[str, Any], dict[str, pd.DataFrame], list[str]]:
    """Figures of metrics/audit.json, tables of metrics/audit/, and what is above its limit."""
    sample = _sample(pool, "quartet_id", audit.max_questions, audit.seed)
    if sample["block"].nunique() < 2:
        warn(ONE_BLOCK)
        empty = pd.DataFrame(columns=["view", "attacker", "type", "questions", "accuracy", "low", "high"])
        return {"blind": {"chance": CHANCE}}, {"attackers": empty, "blind": pd.DataFrame(columns=PLOT_COLUMNS)}, []
    credit = blind_credits(sample, audit.seed, workers)
    table = accuracy_table(credit, sample, audit)
    strongest = table[table["attacker"] == STRONGEST]
    blind: dict[str, float] = {"chance": CHANCE, "limit": audit.max_blind_accuracy}
    for view in VIEWS:
        row = strongest[(strongest["view"] == view) & (strongest["type"] == ALL)].iloc[0]
        blind |= {view: _rounded(row["accuracy"]), f"{view}_low": _rounded(row["low"])}
        blind |= {f"{view}_high": _rounded(row["high"])}
    by_type = strongest[(strongest["view"] == "question") & (strongest["type"] != ALL)]
    figures = {"blind": blind, "blind_by_type": {row.type: _rounded(row.accuracy) for row in by_type.itertuples()}}
    plot = strongest.rename(columns={"view": "run"}).assign(chance=CHANCE)[PLOT_COLUMNS]
    return figures, {"attackers": table.drop(columns="deviation"), "blind": plot}, find_leaks(table, audit)


def _sample(pool: pd.DataFrame, unit: str, limit: int, seed: int) -> pd.DataFrame:
    """At most `limit` questions, all of a unit or none, drawn by seed and in the pool's order."""
    if len(pool) <= limit:
        return pool
    sizes = pool[unit].value_counts(sort=False)
    drawn = sizes.iloc[np.random.default_rng(seed).permutation(len(sizes))]
    kept = drawn.index[drawn.cumsum() <= limit]
    return pool[pool[unit].isin(kept)]


# --- Labels ---


def _label_report(
    pool: pd.DataFrame, params: Params, root: Path, workers: int
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Shares of labels that hold, overall and by type, with intervals; clips that could not be checked, and why."""
    audit = params.qa.audit
    names = np.sort(pool["videoID"].unique())
    drawn = np.random.default_rng(audit.seed).permutation(names)[: audit.max_clips]
    rows = pool[pool["videoID"].isin(drawn)].sort_values(["videoID", "qa_id"], kind="stable")
    clips = {clip.clip_id: clip for clip in read_clips(root)} if params.cues.backend == "simulated" else {}
    groups = list(rows.groupby("videoID", sort=True))
    tasks = [
        stability.ClipTask(
            root / project.CUES / f"{name}.npz", clips.get(str(name)), group[list(stability.COLUMNS)].to_dict("records")
        )
        for name, group in groups
    ]
    parts: list[np.ndarray] = [np.full((len(group), len(stability.CHECKS)), np.nan) for _, group in groups]
    problems: dict[str, str] = {}
    results = map_isolated(stability.LabelCheck(params.qa), tasks, workers)
    for index, result in track(results, "audit: labels", len(tasks)):
        if isinstance(result, Failure):
            problems[str(groups[index][0])] = result.reason.replace(f"{root}/", "")
        else:
            parts[index] = result
    checked = pd.DataFrame(np.concatenate(parts), columns=list(stability.CHECKS))
    kinds, videos = rows["type"].to_numpy(), rows["source_video"].to_numpy()
    table = [
        entry
        for check in stability.CHECKS
        for group in (ALL, *TYPES)
        if (entry := _label_row(checked[check].to_numpy(), check, group, kinds, videos, audit))
    ]
    tables = {
        "label_checks": pd.DataFrame(table, columns=["check", "type", "questions", "accuracy", "low", "high"]),
        "clips_not_checked": pd.DataFrame(sorted(problems.items()), columns=["clip_id", "reason"]),
    }
    labels = {row["check"]: _rounded(row["accuracy"]) for row in table if row["type"] == ALL}
    return {"labels": labels, "clips_not_checked": len(problems)}, tables


def _label_row(
    values: np.ndarray, check: str, group: str, kinds: np.ndarray, videos: np.ndarray, audit: Audit
) -> dict[str, Any] | None:
    own = np.isfinite(values) & ((kinds == group) | (group == ALL))
    if not own.any():
        return None
    low, high, _ = bootstrap(values[own, None], videos[own], audit.bootstrap, audit.seed)
    numbers = {"accuracy": values[own].mean(), "low": low[0], "high": high[0]}
    return {"check": check, "type": group, "questions": int(own.sum()), **numbers}


# --- Balance ---


def balance(pool: pd.DataFrame) -> dict[str, Any]:
    """Letters, and quartets and source videos that are not as they must be (all four counts are 0 in a sound pool)."""
    letters = pool["answer"].value_counts()
    quartets = pool.groupby("quartet_id", sort=False)
    whole = quartets.apply(_is_whole, include_groups=False)
    per_video = pool.groupby("source_video")["block"].nunique()
    return {
        "letters": {letter: int(letters.get(letter, 0)) for letter in LETTERS},
        "quartets": int(quartets.ngroups),
        "quartets_broken": int((~whole).sum()),
        "quartets_across_blocks": int((quartets["block"].nunique() > 1).sum()),
        "source_videos_across_blocks": int((per_video > 1).sum()),
        "options_repeated": int(sum(len(set(o)) < len(LETTERS) for o in pool["option_states"].map(tuple))),
    }


def _is_whole(quartet: pd.DataFrame) -> bool:
    """Four questions that offer the same options, each of which is right once."""
    offered = {tuple(sorted(states)) for states in quartet["option_states"]}
    right = [states[LETTERS.index(a)] for states, a in zip(quartet["option_states"], quartet["answer"], strict=True)]
    return len(quartet) == len(LETTERS) and len(offered) == 1 and sorted(right) == list(next(iter(offered)))


def answer_shares(pool: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Number of answers of each type, how evenly they are used (entropy, 1 is even), and the most frequent."""
    kinds, frequent = [], []
    for name in TYPES:
        own = pool[pool["type"] == name]
        if own.empty:
            continue
        # A free-form code means something within its family, so its text stands for it.
        texts = [bare(o[LETTERS.index(a)]) for o, a in zip(own["options"], own["answer"], strict=True)]
        counts = Counter(texts if name == "non_temp" else own["states"])
        share = np.array(list(counts.values())) / len(own)
        even = np.log(len(counts)) or 1.0
        kinds.append((name, len(own), len(counts), -(share * np.log(share)).sum() / even))
        frequent += [(name, answer, n / len(own)) for answer, n in counts.most_common(ANSWERS_SHOWN)]
    return {
        "answers": pd.DataFrame(kinds, columns=["type", "questions", "answers", "evenness"]),
        "frequent_answers": pd.DataFrame(frequent, columns=["type", "answer", "share"]),
    }


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _show(figures: dict[str, Any], not_checked: pd.DataFrame) -> None:
    blind = figures["blind"]
    rows: dict[str, object] = {}
    for view in VIEWS:
        if view in blind:
            name = f"answered blind, {'options alone' if view == 'options' else 'with the question'}"
            rows[name] = f"{blind[view]:.1%} ({blind[f'{view}_low']:.1%} to {blind[f'{view}_high']:.1%})"
    rows |= {f"  {kind}": f"{value:.1%}" for kind, value in figures.get("blind_by_type", {}).items()}
    rows |= {f"label holds: {check}": f"{value:.1%}" for check, value in figures["labels"].items()}
    rows |= {name.replace("_", " "): n for name, n in figures["balance"].items() if name != "letters"}
    if len(not_checked):
        rows["clips not checked"] = len(not_checked)
        rows["  such as"] = ": ".join(not_checked.iloc[0])
    summary("audit", rows)
