"""The attackers' strength: shortcuts planted into balanced pools must be found, a sound pool must stay at chance."""

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest

from dsr.audit.attackers import CHANCE, LETTERS, VIEWS, credits, folds_of_blocks, read_questions
from dsr.audit.audit import STRONGEST, _best_elsewhere, accuracy_table, blind_credits, find_leaks
from dsr.params import Audit
from dsr.questions.language.families import FORMS
from dsr.questions.language.templates import Answer, answer_text, encode_states, mention, question_text

BLOCKS, QUARTETS = 4, 80
AUDIT = Audit(bootstrap=200)
FORM = next(form for form in FORMS if form.type == "rel_dis" and form.viewer == "moving")
ANSWERS: list[Answer] = [
    tuple((s,) for s in states)
    for runs in (1, 2, 3, 4)
    for states in itertools.product((-1, 0, 1), repeat=runs)
    if all(a != b for a, b in itertools.pairwise(states))
]
LABELS = ("robot", "dog", "ball", "red cube")


def four_answers(rng: np.random.Generator) -> list[Answer]:
    return [ANSWERS[i] for i in rng.choice(len(ANSWERS), 4, replace=False)]


def row(
    rng: np.random.Generator, block: int, options: list[Answer], right: int, label: str = "", left: float | None = None
) -> dict[str, object]:
    """A question with random boxes, times, wording and, unless given, label."""
    corner = np.array([rng.uniform(0, 500) if left is None else left, rng.uniform(0, 400)])
    size = rng.uniform(15, 100, 2)
    start = rng.uniform(0, 3)
    names = {
        "viewer": "the camera",
        "a": mention(label or str(rng.choice(LABELS)), (*corner, *(corner + size)), start),
    }
    video = f"video_{block}_{rng.integers(30):02d}"
    return {
        "videoID": video,
        "source_video": video,
        "question": question_text(FORM, int(rng.integers(12)), start, start + rng.uniform(1, 4), start, names),
        "options": [f"{x}. {answer_text('dis', a)}" for x, a in zip(LETTERS, options, strict=True)],
        "option_states": [encode_states(a) for a in options],
        "states": encode_states(options[right]),
        "answer": LETTERS[right],
        "type": "rel_dis",
        "block": block,
    }


Quartet = Callable[[np.random.Generator, int], list[dict[str, object]]]


def make_pool(quartet: Quartet, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        question | {"quartet_id": f"{block}-{number}", "qa_id": f"{block}-{number}-{i}"}
        for block in range(BLOCKS)
        for number in range(QUARTETS)
        for i, question in enumerate(quartet(rng, block))
    ]
    return pd.DataFrame(rows)


def sound(rng: np.random.Generator, block: int) -> list[dict[str, object]]:
    options = four_answers(rng)
    return [row(rng, block, options, i) for i in range(4)]


def noise_distractors(rng: np.random.Generator, block: int) -> list[dict[str, object]]:
    """Right options are short smooth motions, wrong ones are made of uniform noise."""

    def noise() -> Answer:
        states = rng.integers(-1, 2, 4)
        kept = [s for i, s in enumerate(states) if i == 0 or s != states[i - 1]]
        return tuple((int(s),) for s in kept)

    short = [a for a in ANSWERS if len(a) <= 2]
    rows = []
    for _ in range(4):
        options = [short[rng.integers(len(short))]]
        while len(options) < 4:
            wrong = noise()
            if wrong not in options:
                options.append(wrong)
        order = rng.permutation(4)
        rows.append(row(rng, block, [options[i] for i in order], int(np.argmin(order))))
    return rows


def middle_length(rng: np.random.Generator, block: int) -> list[dict[str, object]]:
    """Wrong options jitter about the right one in length."""
    rows = []
    for _ in range(4):
        lengths = (2, 1, 3, 3) if rng.random() < 0.5 else (3, 2, 4, 4)
        options: list[Answer] = []
        for runs in lengths:
            fitting = [a for a in ANSWERS if len(a) == runs and a not in options]
            options.append(fitting[rng.integers(len(fitting))])
        order = rng.permutation(4)
        rows.append(row(rng, block, [options[i] for i in order], int(np.argmin(order))))
    return rows


def majority_answer(rng: np.random.Generator, block: int) -> list[dict[str, object]]:
    """Wrong options are other clips' right ones, but answers are unbalanced."""
    share = 1.0 / np.arange(1, len(ANSWERS) + 1)
    rows = []
    for _ in range(4):
        right = int(rng.choice(len(ANSWERS), p=share / share.sum()))
        others = rng.choice([i for i in range(len(ANSWERS)) if i != right], 3, replace=False)
        order = rng.permutation([right, *others])
        rows.append(row(rng, block, [ANSWERS[i] for i in order], int(np.flatnonzero(order == right)[0])))
    return rows


def one_letter(rng: np.random.Generator, block: int) -> list[dict[str, object]]:
    """The right option stands at A half of the time."""
    return [row(rng, block, four_answers(rng), 0 if rng.random() < 0.5 else int(rng.integers(4))) for _ in range(4)]


def label_tells(rng: np.random.Generator, block: int) -> list[dict[str, object]]:
    """Balanced quartets, but what is asked about often tells how the answer begins."""
    options = four_answers(rng)
    of_start = {-1: "robot", 0: "ball", 1: "dog"}
    labels = [of_start[a[0][0]] if rng.random() < 0.6 else str(rng.choice(LABELS)) for a in options]
    return [row(rng, block, options, i, label=label) for i, label in enumerate(labels)]


def box_tells(rng: np.random.Generator, block: int) -> list[dict[str, object]]:
    """Balanced quartets, but what is far to the left mostly ends nearer than it was."""
    options = four_answers(rng)
    left = [250 + 180 * a[-1][0] + rng.normal(0, 120) for a in options]
    return [row(rng, block, options, i, left=float(np.clip(x, 0, 520))) for i, x in enumerate(left)]


def crossing(rng: np.random.Generator, block: int) -> list[dict[str, object]]:
    """Balanced quartets whose members lie in any block: what was right in one is not right in the others."""
    options = four_answers(rng)
    return [row(rng, int(rng.integers(BLOCKS)), options, i) for i in range(4)]


@cache
def attacked(plant: Quartet) -> pd.DataFrame:
    return blind_credits(make_pool(plant), seed=1)


def strongest(credit: pd.DataFrame) -> dict[str, float]:
    return {view: float(credit[view, STRONGEST].mean()) for view in VIEWS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "least"),
    [
        (noise_distractors, 0.6),
        (middle_length, 0.5),
        (majority_answer, 0.4),
        (one_letter, 0.5),
        (crossing, 0.35),
    ],
)
def test_shortcuts_in_the_options_are_found_without_the_question(plant: Quartet, least: float) -> None:
    found = strongest(attacked(plant))
    assert found["options"] > least
    assert found["question"] > least - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("plant", [label_tells, box_tells])
def test_shortcuts_between_question_and_options_are_found(plant: Quartet) -> None:
    found = strongest(attacked(plant))
    assert found["options"] == pytest.approx(CHANCE)
    assert found["question"] > 0.36


@pytest.mark.parametrize("attacker", ["counts", "logit", "trees"])
@pytest.mark.parametrize(("plant", "view"), [(noise_distractors, "options"), (label_tells, "question")])
def test_every_attacker_is_strong_by_itself(plant: Quartet, view: str, attacker: str) -> None:
    credit = attacked(plant)
    assert credit[view, attacker].mean() > (0.55 if view == "options" else 0.33)


def test_a_sound_pool_stays_at_chance_and_within_the_limits() -> None:
    pool = make_pool(sound)
    table = accuracy_table(attacked(sound), pool, AUDIT)
    options = table[table["view"] == "options"]
    assert options["accuracy"].to_numpy() == pytest.approx(CHANCE)
    rows = table[(table["view"] == "question") & (table["type"] == "all")]
    assert (rows["low"] < 0.26).all()
    assert (rows["accuracy"] < 0.29).all()
    assert find_leaks(table, AUDIT) == []


@pytest.mark.slow
def test_a_leak_of_one_type_is_named() -> None:
    leaky = make_pool(label_tells).assign(type="abs_dis")
    pool = pd.concat([make_pool(sound), leaky], ignore_index=True)
    pool["quartet_id"] = pool["type"] + pool["quartet_id"]
    table = accuracy_table(blind_credits(pool, seed=1), pool, AUDIT)
    leaks = find_leaks(table, AUDIT)
    assert any("abs_dis" in leak for leak in leaks)
    assert not any("rel_dis" in leak for leak in leaks)


def test_two_blocks_are_enough() -> None:
    pool = make_pool(label_tells)
    pool = pool[pool["block"] < 2].reset_index(drop=True)
    assert strongest(blind_credits(pool, seed=1))["question"] > 0.3


@pytest.mark.slow
def test_result_does_not_depend_on_the_processes() -> None:
    pool = make_pool(label_tells)
    pool = pool[pool["block"] < 2].reset_index(drop=True)
    pool.loc[pool.index % 8 < 4, "type"] = "abs_spd"
    pd.testing.assert_frame_equal(blind_credits(pool, seed=1), blind_credits(pool, seed=1, workers=2))


@pytest.mark.slow
def test_published_columns_are_enough() -> None:
    pool = make_pool(noise_distractors)[["question", "options", "answer", "type", "block"]]
    assert blind_credits(pool, seed=1)["options", STRONGEST].mean() > 0.45


def test_ties_share_the_point() -> None:
    scores = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [2, 1, 0, 0], [2, 1, 0, 0]])
    assert credits(scores, np.array([0, 3, 0, 1])).tolist() == [0.5, 0.25, 1, 0]


def test_folds_are_whole_blocks_of_about_equal_size() -> None:
    blocks = np.repeat(np.arange(12), [50, 10, 30, 20, 20, 10, 40, 30, 10, 10, 10, 60])
    fold = folds_of_blocks(blocks.tolist())
    assert all(len(set(fold[blocks == b])) == 1 for b in range(12))
    assert np.bincount(fold).tolist() == [60, 60, 60, 60, 60]
    assert sorted(set(folds_of_blocks([7, 7, 3]))) == [0, 1]


def test_the_strongest_is_chosen_on_other_folds() -> None:
    """The best of many that know nothing would be far above chance; the one chosen elsewhere is not."""
    rng = np.random.default_rng(0)
    fold = np.repeat(np.arange(4), 50)
    guesses = (rng.random((400, 200)) < CHANCE).astype(float)
    assert guesses.mean(axis=1).max() > 0.33
    assert abs(_best_elsewhere(guesses, fold).mean() - CHANCE) < 0.08
    guesses[17] = rng.random(200) < 0.6
    np.testing.assert_array_equal(_best_elsewhere(guesses, fold), guesses[17])


def test_option_numbers_of_a_question() -> None:
    options: list[Answer] = [((0,),), ((1,), (-1,)), ((1,),), ((-1,), (0,), (1,), (0,))]
    table = pd.DataFrame([row(np.random.default_rng(0), 0, options, 2)])
    questions = read_questions(table, np.zeros(1, int))
    runs, change, characters = np.moveaxis(questions.option_numbers[0, :, :3], 1, 0)
    assert runs.tolist() == [1, 2, 1, 4]
    assert change.tolist() == [0, 2, 0, 3]
    assert characters.tolist() == [len(answer_text("dis", a)) for a in options]
    assert questions.right.tolist() == [2]
