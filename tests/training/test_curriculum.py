"""Order and form of a run's questions."""

from dataclasses import replace

import numpy as np
import pytest

from dsr.training.curriculum import GSM_CLIPS, GSM_QUESTIONS, Curriculum, TrainingBatch, permute_options
from dsr.training.guidance import Change, Guide, GuidedExample

OPTIONS = ("A. It moves left.", "B. It moves right.", "C. It moves up.", "D. It moves forward.")
GUIDE = Guide("abs_dir_pred", (0,), 0, (1,), (1, 3, 5))


def example(clip: int, number: int) -> GuidedExample:
    return GuidedExample(
        f"q{clip}-{number}",
        f"clip_{clip}",
        "Which way?",
        OPTIONS,
        "B",
        "abs_dir_pred",
        8,
        0.0,
        1.0,
        "abs_dir_pred",
        0,
        ("robot", f"thing {clip}"),
        ((1, 2, 3, 4), (5, 6, 7, 8)),
        GUIDE,
    )


EXAMPLES = [example(clip, number) for clip in range(4) for number in range(3)]


def batches(curriculum: Curriculum) -> list[TrainingBatch]:
    return [curriculum[i] for i in range(len(curriculum))]


def test_it_is_a_function_of_the_seed() -> None:
    first, again, other = (batches(Curriculum(EXAMPLES, 4, 2, 3, True, seed, augment=0.1)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_gsm_alone_comes_first_then_whole_questions_once_an_epoch() -> None:
    made = batches(Curriculum(EXAMPLES, 4, 2, 3, False, 1))
    assert [batch.gsm_alone for batch in made] == [True, True, False, False, False]
    assert [len(batch.examples) for batch in made] == [64, 64, 4, 4, 4]
    whole = [e.qa_id for batch in made[2:] for e in batch.examples]
    assert sorted(whole) == sorted(e.qa_id for e in EXAMPLES)


def test_the_gsm_alone_is_given_guided_questions_clip_by_clip() -> None:
    many = [example(clip, number) for clip in range(12) for number in range(16)]
    unguided = [replace(e, qa_id=f"other {e.qa_id}", guide=None) for e in many]
    made = batches(Curriculum([*unguided, *many], 4, 3, 1, False, 1))[:3]
    used = [e for batch in made for e in batch.examples]
    assert sorted(e.qa_id for e in used) == sorted(e.qa_id for e in many)
    for batch in made:
        units = [batch.examples[i : i + GSM_QUESTIONS] for i in range(0, len(batch.examples), GSM_QUESTIONS)]
        assert len(units) == GSM_CLIPS
        assert all(len({e.clip_id for e in unit}) == 1 for unit in units)


def test_the_gsm_alone_always_shares_clips_evenly_and_asks_each_question_as_often() -> None:
    sizes = [1, 3, 8, 11]
    many = [example(clip, number) for clip, size in enumerate(sizes) for number in range(size)]
    many = [replace(e, shown_frames=4 + k % 2) if e.clip_id == "clip_3" else e for k, e in enumerate(many)]
    made = batches(Curriculum(many, 4, 300, 0, False, 1))
    count = dict.fromkeys((e.qa_id for e in many), 0)
    for batch in made:
        for start in range(0, len(batch.examples), GSM_QUESTIONS):
            unit = batch.examples[start : start + GSM_QUESTIONS]
            assert len({(e.clip_id, e.shown_frames) for e in unit}) == 1
            for e in unit:
                count[e.qa_id] += 1
    mean = 300 * GSM_CLIPS * GSM_QUESTIONS / len(many)
    assert all(0.8 * mean < number < 1.2 * mean for number in count.values())


def test_grouped_it_gives_each_question_once_and_those_of_a_clip_together() -> None:
    curriculum = Curriculum(EXAMPLES, 4, 0, 6, True, 1, questions_per_clip=2)  # 4 clips of 3 questions
    used = [e for batch in batches(curriculum) for e in batch.examples]
    ids = sorted(e.qa_id for e in EXAMPLES)
    assert sorted(e.qa_id for e in used[:12]) == sorted(e.qa_id for e in used[12:]) == ids
    pairs = [used[i].clip_id == used[i + 1].clip_id for i in range(0, 12, 2)]
    assert sum(pairs) == 4  # a pair of each clip, and the four third questions in pairs
    assert [e.qa_id for e in used[:12]] != [e.qa_id for e in used[12:]]


def test_options_in_another_order_keep_their_text() -> None:
    moved = permute_options(EXAMPLES[0], np.array([3, 1, 0, 2]))
    assert moved.options == ("A. It moves forward.", "B. It moves right.", "C. It moves left.", "D. It moves up.")
    assert moved.answer == "B"
    assert permute_options(EXAMPLES[0], np.array([1, 0, 2, 3])).answer == "A"


def test_all_questions_about_a_clip_are_changed_alike() -> None:
    curriculum = Curriculum(EXAMPLES, 4, 2, 0, False, 1, augment=0.1, shifts_clocks=True)
    for batch in batches(curriculum):
        changes = {e.clip_id: e.change for e in batch.examples}
        assert len(changes) == len({change.seed for change in changes.values()}) > 1
        assert all(e.change == changes[e.clip_id] for e in batch.examples)
        for clip_id, change in changes.items():
            assert set(change.names) == {"robot", "thing 0", "thing 1", "thing 2", "thing 3"}
            assert change.noise == 0.1
            asked = [e.question for e in batch.examples if e.clip_id == clip_id]
            assert all(
                f"the {change.names['robot']} (box [1, 2, 3, 4] at {1 + change.shift:.1f} s)" in q for q in asked
            )


@pytest.mark.parametrize("guide", [GUIDE, None])
def test_nothing_is_changed_without_a_guide_or_augmentation(guide: Guide | None) -> None:
    examples = [replace(e, guide=guide) for e in EXAMPLES]
    curriculum = Curriculum(examples, 4, 0, 3, False, 1, augment=0.0 if guide else 0.1)
    used = [e for batch in batches(curriculum) for e in batch.examples]
    assert all(e.change == Change() for e in used)
    assert {e.question for e in used} == {"Which way?"}
