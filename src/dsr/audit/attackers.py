"""Attackers that answer questions without the video: what they reach above chance is a shortcut in the text.

Design choices:
- Two views: `options` reads the four options, `question` reads the question as well (labels, boxes, times, who
  looks, wording) and crosses it with the options. The pool's provenance columns are never read, but for
  `option_states`, which says what the option text says.
- Every attacker scores each option; its answer is the best scored one, and options that tie share the credit, so
  that an attacker that knows nothing gets exactly 1/4. It is trained on some blocks and tested on the others.
- In balanced quartets no option and no question is right more often than another: all that can be learned is in
  crosses of the two, which greedy trees alone do not find (no first split gains anything). So `counts` and `logit`
  work on all crosses of option n-grams with question tokens, and `trees` is given the scores of `counts`, made
  without the row's own group, next to the plain features.
- Abs and rel types of one signal share an attacker (each type is a token): more data makes it stronger.
- A small text model could be fine-tuned as well; the features below hold all that our templates vary.

Letters: Q questions of one signal, U different options, O option tokens, W question tokens, F numbers.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from dsr.mcq import LETTERS, bare
from dsr.questions.engine.answers import sequence_features
from dsr.questions.language.parsing import ParsedQuestion, parse_question
from dsr.questions.language.templates import ROLES
from dsr.questions.quartets.logit import fit_logit

VIEWS = ("options", "question")
ATTACKERS = ("counts", "logit", "trees")
CHANCE = 1 / len(LETTERS)
MAX_FOLDS = 5
_MAX_OPTION_TOKENS, _MAX_WORDS = 160, 120
_MIN_COUNT = 5
"""Rarer tokens are left out."""
_BINS = 5
_SPREAD = 6
"""Places over which a sequence of states is spread to compare it with others."""
_TIE = 1e-6


@dataclass(frozen=True, eq=False)
class Questions:
    """Features of the questions of one signal that attackers read."""

    option: np.ndarray
    """[Q, 4] int, which of the different options stands at each letter."""
    right: np.ndarray
    """[Q] int, position of the right one."""
    option_set: np.ndarray
    """[Q] int: equal where the same four options are offered, in whatever order."""
    option_tokens: np.ndarray
    """[U, O] float32, 1 where the option has the n-gram; the last four are the letters, set per question."""
    option_numbers: np.ndarray
    """[Q, 4, F] float32: lengths, states, smoothness, place among the four."""
    question_tokens: np.ndarray
    """[Q, W] float32; the first is 1 for every question."""
    token_group: np.ndarray
    """[W] int, what a token is about (labels, times, a box, …), 0 for the first."""
    question_numbers: np.ndarray
    """[Q, F] float32, NaN where the question does not say."""
    fold: np.ndarray
    """[Q] int: a fold is tested by attackers trained on the others."""
    group: np.ndarray
    """[Q] int, finer than folds: a training row's own counts are made without its group."""

    def take(self, index: np.ndarray) -> "Questions":
        per_question = ("option", "right", "option_set", "option_numbers", "question_tokens", "question_numbers")
        fields = {name: getattr(self, name)[index] for name in (*per_question, "fold", "group")}
        return Questions(option_tokens=self.option_tokens, token_group=self.token_group, **fields)


def folds_of_blocks(blocks: Sequence[int]) -> np.ndarray:
    """[Q] int, fold of each question: whole blocks, at most MAX_FOLDS folds of about equal size, largest first."""
    sizes = Counter(int(b) for b in blocks)
    load = [0] * min(MAX_FOLDS, len(sizes))
    fold = {}
    for block in sorted(sizes, key=lambda b: (-sizes[b], b)):
        fold[block] = int(np.argmin(load))
        load[fold[block]] += sizes[block]
    return np.array([fold[int(b)] for b in blocks], int)


def credits(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[Q] share of the point for the right option: 1, or 1/n where n options tie for the best score [Q, 4]."""
    best = scores >= scores.max(axis=1, keepdims=True) - _TIE
    return best[np.arange(len(right)), right] / best.sum(axis=1)


def signal_of(question_type: str) -> str:
    return question_type.removeprefix("abs_").removeprefix("rel_")


def attack(questions: Questions, seed: int) -> dict[tuple[str, str], np.ndarray]:
    """Scores of every attacker on questions that it was not trained on.

    Returns:
        {(view, attacker): [Q, 4]}.
    """
    scores = {(view, name): np.zeros((len(questions.right), 4)) for view in VIEWS for name in ATTACKERS}
    # One thread, so that sums are taken in one order and the result is the same everywhere.
    with threadpool_limits(limits=1):
        for view in VIEWS:
            seen = questions if view == "question" else _without_question(questions)
            counts = _Counts(seen)
            for fold in np.unique(questions.fold):
                test = np.flatnonzero(questions.fold == fold)
                train = np.flatnonzero(questions.fold != fold)
                if not len(train):
                    continue
                evidence, memory = counts.features(train, test)
                scores[view, "counts"][test] = evidence[test].sum(axis=2)
                scores[view, "logit"][test] = _logit(seen.take(train), seen.take(test))
                scores[view, "trees"][test] = _trees(seen, train, test, np.concatenate([evidence, memory], 2), seed)
    return scores


HEURISTICS = ("longest", "shortest", "constant", "medoid", "frequent", "letter", "used", "unused")


def heuristics(questions: Questions) -> dict[str, np.ndarray]:
    """Scores [Q, 4] of rules that need no training, or only counts of what was right in the other folds.

    `longest` and `shortest` option; `constant`: the one that tells of no change; `medoid`: the one nearest to the
    other three; `frequent`: the option most often right elsewhere; `letter`: the letter most often right elsewhere;
    `used` and `unused`: the option most and least often right elsewhere among the same four.
    """
    named = dict(zip(OPTION_NUMBERS, np.moveaxis(questions.option_numbers, -1, 0), strict=True))
    q = len(questions.right)
    frequent, letter, used = (np.zeros((q, 4)) for _ in range(3))
    key = questions.option_set[:, None] * len(questions.option_tokens) + questions.option
    right = np.arange(q), questions.right
    for fold in np.unique(questions.fold):
        test, elsewhere = questions.fold == fold, questions.fold != fold
        letter[test] = np.bincount(questions.right[elsewhere], minlength=4)
        for scores, name in ((frequent, questions.option), (used, key)):
            scores[test] = _times(name[right][elsewhere], name[test])
    return {
        "longest": named["characters"],
        "shortest": -named["characters"],
        "constant": (named["runs"] == 1).astype(float),
        "medoid": -named["mean distance"],
        "frequent": frequent,
        "letter": letter,
        "used": used,
        "unused": -used,
    }


def _times(values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Counts of each of `asked` (any shape) among the integers `values`."""
    known, counts = np.unique(np.append(values, -1), return_counts=True)
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[place] == asked, counts[place], 0)


def _without_question(questions: Questions) -> Questions:
    q = len(questions.right)
    return Questions(
        **{
            **vars(questions),
            "question_tokens": np.ones((q, 1), np.float32),
            "token_group": np.zeros(1, int),
            "question_numbers": np.zeros((q, 0), np.float32),
        }
    )


def _token_block(questions: Questions) -> np.ndarray:
    """[Q, 4, O] float32 tokens of the options offered, letters included."""
    tokens = questions.option_tokens[questions.option]
    tokens[:, :, -4:] = np.eye(4, dtype=np.float32)
    return tokens


class _Counts:
    """Counts of an option n-gram being right with a question token, of the times that it was offered."""

    smoothing = 12.0

    def __init__(self, questions: Questions) -> None:
        self.questions = questions
        self.groups = np.unique(questions.group)
        self.tokens = _token_block(questions)
        shape = (len(self.groups), questions.question_tokens.shape[1], self.tokens.shape[2])
        self.right, self.offered = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for i, group in enumerate(self.groups):
            rows = np.flatnonzero(questions.group == group)
            words = questions.question_tokens[rows].T
            self.right[i] = words @ self.tokens[rows, questions.right[rows]]
            self.offered[i] = words @ self.tokens[rows].sum(axis=1)

    def features(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evidence by token group [Q, 4, groups], and how often this option of this set was right [Q, 4, 2].

        Test rows are counted on all training rows, training rows on those of other groups.
        """
        questions = self.questions
        known = np.isin(self.groups, questions.group[train])
        sums = self.right[known].sum(axis=0), self.offered[known].sum(axis=0)
        evidence = np.zeros((*questions.option.shape, int(questions.token_group.max()) + 1), np.float32)
        memory = np.zeros((*questions.option.shape, 2), np.float32)
        evidence[test] = self._evidence(test, *sums)
        memory[test] = self._memory(test, train)
        for i in np.flatnonzero(known):
            own = questions.group[train] == self.groups[i]
            rows = train[own]
            evidence[rows] = self._evidence(rows, sums[0] - self.right[i], sums[1] - self.offered[i])
            memory[rows] = self._memory(rows, train[~own])
        return evidence, memory

    def _evidence(self, rows: np.ndarray, right: np.ndarray, offered: np.ndarray) -> np.ndarray:
        a = self.smoothing
        weight = np.log((np.maximum(right, 0) + CHANCE * a) / (np.maximum(offered, 0) + a) / CHANCE)
        groups = self.questions.token_group
        parts = []
        for group in range(groups.max() + 1):
            about = np.flatnonzero(groups == group)
            cross = self.questions.question_tokens[np.ix_(rows, about)] @ weight[about]
            parts.append(np.einsum("qo,qko->qk", cross, self.tokens[rows]))
        return np.stack(parts, axis=-1)

    def _memory(self, rows: np.ndarray, known: np.ndarray) -> np.ndarray:
        questions = self.questions
        key = questions.option_set[:, None] * len(questions.option_tokens) + questions.option
        used = _times(key[known, questions.right[known]], key[rows])
        seen = _times(questions.option_set[known], questions.option_set[rows])
        return np.stack([used, np.repeat(seen[:, None], 4, axis=1)], axis=-1)


def _logit(train: Questions, test: Questions) -> np.ndarray:
    """Conditional logit of crosses of question tokens with option n-grams."""
    weights = fit_logit(train.question_tokens, _token_block(train), train.right, penalty=4.0, steps=30)
    return np.einsum("qo,qko->qk", test.question_tokens @ weights, _token_block(test))


def _trees(questions: Questions, train: np.ndarray, test: np.ndarray, crosses: np.ndarray, seed: int) -> np.ndarray:
    """Boosted trees over an option's numbers, its place among the four, the crosses, and the question's numbers."""
    own = np.concatenate([questions.option_numbers, crosses], axis=2)
    relative = own - own.mean(axis=1, keepdims=True)
    asked = np.repeat(questions.question_numbers[:, None], 4, axis=1)
    features = np.concatenate([own, relative, asked], axis=2)
    # A column that is never known is not for trees.
    features = features[:, :, np.isfinite(features[train]).any(axis=(0, 1))]
    is_right = np.arange(4) == questions.right[:, None]
    model = HistGradientBoostingClassifier(
        max_iter=60, learning_rate=0.1, max_leaf_nodes=12, min_samples_leaf=30, early_stopping=False, random_state=seed
    )
    model.fit(features[train].reshape(-1, features.shape[2]), is_right[train].ravel())
    return model.decision_function(features[test].reshape(-1, features.shape[2])).reshape(-1, 4)


# --- What an attacker reads ---


def read_questions(table: pd.DataFrame, fold: np.ndarray) -> Questions:
    """Features of the questions of one signal, in the table's order.

    Args:
        table: columns question, options, answer, type; used if there: option_states, quartet_id.
        fold: [Q] int of `folds_of_blocks`.
    """
    texts = [[bare(str(option)) for option in options] for options in table["options"]]
    states = table["option_states"] if "option_states" in table else [("",) * 4] * len(table)
    # Free-form codes are numbers of a family's answers; the text says more.
    free = (table["type"] == "non_temp").any()
    codes = [[""] * 4] * len(table) if free else [[str(s) for s in four] for four in states]
    pairs = [list(zip(*four, strict=True)) for four in zip(texts, codes, strict=True)]
    names = {pair: i for i, pair in enumerate(sorted({p for four in pairs for p in four}))}
    option = np.array([[names[p] for p in four] for four in pairs], int).reshape(-1, 4)
    _, option_set = np.unique(np.sort(option, axis=1), axis=0, return_inverse=True)
    right = np.array([LETTERS.index(letter) for letter in table["answer"]], int)
    if len(np.unique(fold)) > 2 or "quartet_id" not in table:
        group = fold
    else:
        # One training fold: its quartets, which stay whole, take the place of folds.
        group = 4 * fold + pd.factorize(table["quartet_id"])[0] % 4
    kinds = table["type"].tolist()
    parsed = [parse_question(text, kind) for text, kind in zip(table["question"], kinds, strict=True)]
    numbers = np.array([_question_numbers(p) for p in parsed], np.float32).reshape(-1, len(NUMBERS))
    tokens, token_group = _question_tokens([_words(p, k) for p, k in zip(parsed, kinds, strict=True)], numbers)
    return Questions(
        option=option,
        right=right,
        option_set=option_set.ravel(),
        option_tokens=_option_tokens(list(names), option),
        option_numbers=_option_numbers(list(names), option),
        question_tokens=tokens,
        token_group=token_group,
        question_numbers=numbers,
        fold=fold,
        group=group,
    )


_STATES = re.compile(r"[-0+]{1,3}( [-0+]{1,3})*")


def _sequence(code: str) -> np.ndarray | None:
    """[runs, axes] states in -1, 0, 1 of a state code such as "+0- 00-"; None for a free-form answer."""
    if not _STATES.fullmatch(code) or len({len(run) for run in code.split()}) > 1:
        return None
    return np.array([["-0+".index(sign) - 1 for sign in run] for run in code.split()], np.float32)


def _ngrams(text: str, code: str) -> set[str]:
    """An option's tokens: n-grams over its states (all axes and each one), or over its words."""
    sequence = _sequence(code)
    if sequence is None:
        words = [re.sub(r"\d+", "0", w) for w in re.findall(r"\w+", text.lower())]
        pairs = [" ".join(pair) for pair in itertools.pairwise(words)]
        return {f"text={text}", f"words={len(words)}", *words, *pairs}
    return set(sequence_features(tuple(map(tuple, sequence.astype(int).tolist()))))


def _option_tokens(options: list[tuple[str, str]], offered: np.ndarray) -> np.ndarray:
    """[U, O] of Questions: the most frequent n-grams, and room for the four letters."""
    ngrams = [_ngrams(*option) for option in options]
    times = np.bincount(offered.ravel(), minlength=len(options))
    counts = Counter[str]()
    for tokens, n in zip(ngrams, times, strict=True):
        counts.update(dict.fromkeys(tokens, int(n)))
    kept = _most_frequent(counts, _MAX_OPTION_TOKENS)
    return np.concatenate([_indicator(ngrams, kept), np.zeros((len(options), 4), np.float32)], axis=1)


def _most_frequent(counts: Counter[str], limit: int) -> list[str]:
    ranked = sorted((-n, token) for token, n in counts.items() if n >= _MIN_COUNT)
    return [token for _, token in ranked[:limit]]


def _indicator(rows: Sequence[Iterable[str]], names: list[str]) -> np.ndarray:
    """[rows, names] float32, 1 where the row has the token."""
    place = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(rows), len(names)), np.float32)
    for row, tokens in zip(matrix, rows, strict=True):
        row[[place[t] for t in tokens if t in place]] = 1
    return matrix


_STATE_NUMBERS = ("mean", "first", "last", "spread")
OPTION_NUMBERS = (
    *("runs", "change", "characters", "words"),
    *(f"{name} of axis {axis}" for name in _STATE_NUMBERS for axis in range(3)),
    *("length rank", "letter", "mean distance", "least distance", "largest distance"),
)
"""Names of an option's numbers; runs and change (its lack is smoothness) are 0 for a free-form answer."""


def _option_numbers(options: list[tuple[str, str]], offered: np.ndarray) -> np.ndarray:
    """[Q, 4, F] of Questions."""
    sequences = [_sequence(code) for _, code in options]
    spread = np.zeros((len(options), _SPREAD, 3), np.float32)
    for row, sequence in zip(spread, sequences, strict=True):
        if sequence is not None:
            row[:, : sequence.shape[1]] = _spread(sequence)
    runs = np.array([0 if s is None else len(s) for s in sequences], np.float32)
    change = np.array([0 if s is None else np.abs(np.diff(s, axis=0)).sum() for s in sequences], np.float32)
    length = np.array([len(text) for text, _ in options], np.float32)
    words = np.array([len(text.split()) for text, _ in options], np.float32)
    alone = np.concatenate(
        [np.stack([runs, change, length, words], 1), spread.mean(1), spread[:, 0], spread[:, -1], spread.std(1)], axis=1
    )
    # How an option stands among the four.
    rank = (length[offered][:, :, None] > length[offered][:, None]).sum(axis=2)
    among = np.stack([rank, np.broadcast_to(np.arange(4), rank.shape)], axis=2)
    return np.concatenate([alone[offered], among, _distances(options, offered)], axis=2).astype(np.float32)


def _spread(sequence: np.ndarray) -> np.ndarray:
    """[_SPREAD, axes] states of a sequence whose runs last about equally long."""
    return sequence[np.arange(_SPREAD) * len(sequence) // _SPREAD]


def _distances(options: list[tuple[str, str]], offered: np.ndarray) -> np.ndarray:
    """[Q, 4, 3] mean, smallest and largest distance of an option to the other three offered.

    The distance of two sequences of states is their mean difference when both are spread evenly over a few places;
    of two free-form answers, the share of their words that they do not share.
    """
    sequences = [_sequence(code) for _, code in options]
    known = [_spread(s).ravel() for s in sequences if s is not None]
    if len(known) == len(options):
        four = np.stack(known)[offered]
        apart = np.abs(four[:, :, None] - four[:, None]).mean(axis=3)
    else:
        words = [text.lower().split() for text, _ in options]
        four = _indicator(words, sorted({w for row in words for w in row}))[offered]
        shared = np.einsum("qiw,qjw->qij", four, four)
        size = four.sum(axis=2)
        apart = 1 - shared / np.maximum(size[:, :, None] + size[:, None] - shared, 1)
    others = apart[:, ~np.eye(4, dtype=bool)].reshape(-1, 4, 3)
    return np.stack([others.mean(axis=2), others.min(axis=2), others.max(axis=2)], axis=2)


NUMBERS = (
    *(f"{role} {name}" for role in ROLES for name in ("x", "y", "log size", "log shape")),
    *(f"{p}-{q} {name}" for p, q in itertools.combinations(ROLES, 2) for name in ("x", "y", "log size")),
    *("start", "end", "duration"),
)
"""Names of a question's numbers: boxes by role, how they lie to each other, times; NaN where it does not say."""
_ABOUT = ("anything", "labels", "words", "times", *ROLES, "boxes to each other")
"""Subjects of question tokens: the numbers of `token_group`."""


def _question_numbers(parsed: ParsedQuestion) -> list[float]:
    boxes = np.full((len(ROLES), 4), np.nan)
    for place, role in zip(boxes, ROLES, strict=True):
        mention = parsed.mentions.get(role)
        if mention and mention.box:
            x1, y1, x2, y2 = mention.box
            width, height = max(x2 - x1, 1), max(y2 - y1, 1)
            place[:] = (x1 + x2) / 2, (y1 + y2) / 2, np.log(width * height) / 2, np.log(width / height)
    pairs = [boxes[q, :3] - boxes[p, :3] for p, q in itertools.combinations(range(len(ROLES)), 2)]
    times = parsed.times or (np.nan,)
    start, end = min(times), max(times)
    return [*boxes.ravel(), *np.concatenate(pairs), start, end, end - start]


def _words(parsed: ParsedQuestion, kind: str) -> list[str]:
    """Tokens of a question but for its numbers: type, labels by role, wording, or the words of a foreign text."""
    labels = [f"{role}={mention.label}" for role, mention in parsed.mentions.items()]
    if parsed.form is not None:
        return [f"type={kind}", f"form={parsed.form}", f"wording={parsed.form}.{parsed.wording}", *labels]
    plain = re.findall(r"[a-z]+", parsed.plain.lower())
    return [f"type={kind}", *labels, *plain, *(" ".join(pair) for pair in itertools.pairwise(plain))]


def _question_tokens(words: list[list[str]], numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`question_tokens` and `token_group` of Questions: words, and numbers in bins of equal counts."""
    names = _most_frequent(Counter(w for row in words for w in set(row)), _MAX_WORDS)
    parts = [np.ones((len(words), 1), np.float32), _indicator(words, names)]
    groups = [0, *(_ABOUT.index("labels" if name.split("=")[0] in ROLES else "words") for name in names)]
    for name, column in zip(NUMBERS, numbers.T, strict=True):
        known = np.isfinite(column)
        if known.any():
            edges = np.unique(np.quantile(column[known], np.linspace(0, 1, _BINS + 1)[1:-1]))
            place = np.where(known, np.searchsorted(edges, np.nan_to_num(column), side="right"), -1)
            parts.append((place[:, None] == np.arange(len(edges) + 1)).astype(np.float32))
            subject = name.split(" ")[0]
            about = subject if subject in ROLES else "boxes to each other" if "-" in subject else "times"
            groups += [_ABOUT.index(about)] * (len(edges) + 1)
    return np.concatenate(parts, axis=1), np.array(groups)
