"""Rewritten questions, by hand and against the geometry of scenes played backwards and mirrored."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.audit.labels import confirmed_labels
from dsr.cues.schema import read_cues, write_cues
from dsr.examples.views import change_cues
from dsr.files import write_parquet
from dsr.mcq import Question, read_row
from dsr.params import QA, Ensemble, Params
from dsr.questions.engine.scene import build_scene
from dsr.questions.generate import run
from dsr.questions.language.families import FORM_INDEX, FORMS, Family
from dsr.questions.language.templates import encode_states, parse_answer
from dsr.questions.language.transforms import (
    ClipFacts,
    UndefinedError,
    mirror,
    reverse_time,
    rotate_options,
    without_text,
)
from tests.scenes import WIDTH, random_cues

CLIP = ClipFacts(width=640, first=0.0, last=6.0)
BOX = "(box [100, 50, 200, 150] at 1.0 s)"
FLIPPED = "(box [440, 50, 540, 150] at 1.0 s)"


def ask(kind: str, text: str, *options: str, start: float = 1.0, end: float = 4.0) -> Question:
    lettered = tuple(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))
    return Question("q", "clip", text, lettered, "A", kind, None, start, end)


DISTANCE = ask(
    "rel_dis",
    f"How does the gap between the dog {BOX} and the cat {BOX} develop from 1.0 s to 4.0 s?",
    "It grows, then shrinks, then grows.",
    "It shrinks, then stays about the same.",
)
DIRECTION = ask(
    "abs_dir",
    f"Keep the viewpoint that the camera had at 1.0 s. In which direction is the dog {BOX} between 1.0 s and 4.0 s?",
    "It is in front and left, then behind.",
    "It is right and above.",
)


def test_backwards_times_count_from_the_other_end_and_changes_turn_round() -> None:
    question = reverse_time(DISTANCE, CLIP)
    box = BOX.replace("1.0", "5.0")
    assert question.question == f"How does the gap between the dog {box} and the cat {box} develop from 2.0 s to 5.0 s?"
    assert question.options == ("A. It shrinks, then grows, then shrinks.", "B. It stays about the same, then grows.")
    assert (question.answer, question.start_time, question.end_time) == ("A", 2.0, 5.0)


def test_backwards_directions_come_in_the_other_order() -> None:
    question = reverse_time(DIRECTION, CLIP)
    assert question.question.startswith("Keep the viewpoint that the camera had at 5.0 s.")
    assert question.options == ("A. It is behind, then in front and left.", "B. It is right and above.")


def test_mirrored_left_and_right_change_places_and_boxes_sides() -> None:
    question = mirror(DIRECTION, CLIP)
    assert question.question == DIRECTION.question.replace(BOX, FLIPPED)
    assert question.options == ("A. It is in front and right, then behind.", "B. It is left and above.")
    assert mirror(DISTANCE, CLIP).options == DISTANCE.options
    assert mirror(mirror(DIRECTION, CLIP), CLIP) == DIRECTION


def test_what_a_question_was_made_from_takes_the_place_of_its_parsed_text(pool: tuple[Path, pd.DataFrame]) -> None:
    """With the pool's columns and without them the same comes out."""
    asked = [read_row(row) for row in pool[1].to_dict("records")]
    changed = 0
    for question in asked:
        assert question.form
        foreign = replace(question, form="", wording=0, labels=(), boxes=())
        for change in (mirror, reverse_time):
            try:
                expected = change(foreign, CLIP)
            except UndefinedError as error:
                with pytest.raises(UndefinedError, match=re.escape(str(error))):
                    change(question, CLIP)
                continue
            changed += 1
            made = change(question, CLIP)
            assert (made.question, made.options) == (expected.question, expected.options)
        assert mirror(mirror(question, CLIP), CLIP) == question
    assert changed > 1.5 * len(asked)


def test_what_has_no_counterpart_is_undefined() -> None:
    prediction = ask(
        "abs_dir_pred",
        f"The clip stops at 4.0 s. In which direction will the dog {BOX.replace('1.0', '4.0')} move next, in the axes "
        "that the camera has then?",
        "It moves forward.",
        "It moves backward.",
        start=0.0,
    )
    with pytest.raises(UndefinedError, match="dir_pred"):
        reverse_time(prediction, CLIP)
    assert "[440, 50, 540, 150]" in mirror(prediction, CLIP).question
    for change in (mirror, reverse_time):
        with pytest.raises(UndefinedError, match="no wording"):
            change(ask("rel_dis", "How far is the dog?", "It grows.", "It shrinks."), CLIP)
        with pytest.raises(UndefinedError, match="no wording"):
            # The table's interval is another one than the text's.
            change(replace(DISTANCE, end_time=5.0), CLIP)
        with pytest.raises(UndefinedError, match="no answer of the templates"):
            change(replace(DISTANCE, options=("A. It explodes.", "B. It grows.")), CLIP)
        with pytest.raises(UndefinedError, match="start_time"):
            change(replace(DISTANCE, start_time=None), CLIP)


def test_options_rotate_with_their_answer() -> None:
    question = ask("rel_dis", "?", "one", "two", "three")
    assert rotate_options(question, CLIP, 1).options == ("A. three", "B. one", "C. two")
    assert rotate_options(question, CLIP, 1).answer == "B"
    assert rotate_options(question, CLIP, 2).answer == "C"
    with pytest.raises(UndefinedError, match="no rotation by 3"):
        rotate_options(question, CLIP, 3)


def test_without_text_the_options_stay() -> None:
    assert without_text(DISTANCE, CLIP) == replace(DISTANCE, question="")


# --- Against geometry ---

PLAIN = Ensemble(members=1, margin=0.0)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Questions about random scenes that hold on perturbed copies, so for sure on the scenes themselves."""
    root = tmp_path_factory.mktemp("pool")
    clips = [random_cues(seed, uncertainty=0.02) for seed in range(30)]
    for cues in clips:
        write_cues(root / f"data/cues/{cues.meta['clip_id']}.npz", cues)
    names = [cues.meta["clip_id"] for cues in clips]
    table = pd.DataFrame({"clip_id": names, "source_video": names, "status": "kept", "category": "toy"})
    write_parquet(root / "data/clips/curated.parquet", table)
    run(
        Params(qa=QA(candidates=4096, keep_per_clip_type=80, num_blocks=1, max_per_clip=60, max_per_clip_type=10)),
        root,
        workers=1,
    )
    return root, pd.read_parquet(root / "data/qa/pool.parquet")


@pytest.mark.parametrize("view", ["mirrored", "reversed"])
def test_rewritten_answers_are_those_of_the_changed_scene(pool: tuple[Path, pd.DataFrame], view: str) -> None:
    root, table = pool
    change = {"mirrored": mirror, "reversed": reverse_time}[view]
    holds: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for clip, rows in table.groupby("videoID"):
        cues = read_cues(root / f"data/cues/{clip}.npz")
        scene = build_scene(change_cues(cues, view), PLAIN, np.random.default_rng(0))
        assert scene is not None
        facts = ClipFacts(WIDTH, float(cues.timestamps[0]), float(cues.timestamps[-1]))
        changed = []
        for row in rows.to_dict("records"):
            form = FORMS[FORM_INDEX[row["form"]]]
            if view == "reversed" and form.viewer == "fixed":
                continue  # Its viewpoint is then that of the last moment, which no form asks about.
            try:
                question = change(read_row(row), facts)
            except UndefinedError:
                continue
            frames = np.array(row["frames"])
            if view == "reversed":
                frames = cues.num_frames - 1 - frames[::-1]
                if form.signal in ("nearest_at_end", "faced_target") or form.signal.startswith("side_after"):
                    frames = np.repeat(frames[:1], len(frames))  # About one instant.
            changed.append(row | {"question": question.question, "frames": frames, "states": states_of(form, question)})
        if changed:
            confirmed = confirmed_labels(scene, changed, QA())[:, 0]
            for row, value in zip(changed, confirmed, strict=True):
                asked[row["type"]] += 1
                holds[row["type"]] += int(value)
    shares = {kind: holds[kind] / count for kind, count in asked.items()}
    assert len(asked) >= (11 if view == "mirrored" else 6), asked
    assert sum(asked.values()) > 100
    assert min(shares.values()) > 0.99, shares


def states_of(form, question: Question) -> str:
    right = question.bare_options["ABCD".index(question.answer)]
    if isinstance(form, Family):
        return str(form.answers.index(right))
    return encode_states(parse_answer(form.vocabulary, right))
