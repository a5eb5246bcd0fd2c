"""Free-form questions (`non_temp`), family by family: wordings, answers, and what becomes of an answer when the clip
is played backwards or mirrored.

A family has one set of answers, so that questions of different clips can share their options; a target is therefore
"the first", not a label.

How to add a family, with `faced_target` as the example:

1. Its words: an entry of FAMILIES below. At least two wordings, which name all of {viewer}, {a}, {b}, {c} that the
   family has; at least four answers, each a sentence.
2. Its rule: a function in engine/free_form.py, entered in RULES under the family's name. It measures, and says for each
   answer under which conditions it holds; questions, labels and explanations all come from it.
3. A scene for each answer in tests/questions/engine/test_free_form.py.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from dsr.questions.language.templates import TEMPLATES, Form, Viewer

ORDERS = tuple(itertools.permutations(range(3)))
"""Orders of three targets; an answer about an order is an index into these."""
PAIRS = ((0, 1), (0, 2), (1, 2))
"""Pairs of three targets; an answer about pairs has a bit for each."""
STAYS = range(8)
"""Table in which each answer becomes itself."""


@dataclass(frozen=True, eq=False)
class Family(Form):
    """A free-form family: a form with its own answers."""

    answers: tuple[str, ...] = ()
    backwards: Sequence[int] | None = STAYS
    """Answer k becomes answer backwards[k] when the clip is played backwards; None where it does not tell which (not to
    have come closer is not to have gone away)."""
    mirrored: Sequence[int] = STAYS
    """Likewise, when left and right are exchanged."""
    at_end: bool = False
    """True where the last moment alone is asked about: backwards it is the same instant, then the first."""

    @property
    def num_moments(self) -> int:
        return 9

    @property
    def needs_axes(self) -> bool:
        return self.viewer != "none"


def _family(
    name: str,
    viewer: Viewer,
    num_targets: int,
    answers: tuple[str, ...],
    *wordings: str,
    oriented_target: bool = False,
    backwards: Sequence[int] | None = STAYS,
    mirrored: Sequence[int] = STAYS,
    at_end: bool = False,
) -> Family:
    if num_targets == 3:
        wordings = tuple("Three are named: first {a}, second {b}, third {c}. " + wording for wording in wordings)
    return Family(
        "non_temp",
        name,
        viewer,
        num_targets,
        wordings,
        camera_target=False,
        oriented_target=oriented_target,
        answers=answers,
        backwards=backwards,
        mirrored=mirrored,
        at_end=at_end,
    )


_ORDINALS = ("first", "second", "third")
_ORDER_ANSWERS = tuple(f"The {', then the '.join(_ORDINALS[i] for i in order)}." for order in ORDERS)
_PAIR_NAMES = tuple(f"the {_ORDINALS[i]} and the {_ORDINALS[j]}" for i, j in PAIRS)
_PAIR_ANSWERS = (
    "No two of them.",
    *(
        f"{'; '.join(name for bit, name in enumerate(_PAIR_NAMES) if code >> bit & 1)}.".capitalize()
        for code in range(1, 7)
    ),
    "Every two of them.",
)
_COUNTS = ("Not once.", "Once.", "Twice.", "Three times.")
_QUARTERS = ("In the first quarter.", "In the second quarter.", "In the third quarter.", "In the last quarter.")

FAMILIES: tuple[Family, ...] = (
    _family(
        "nearest_at_end",
        "moving",
        3,
        _ORDER_ANSWERS,
        "In which order of distance from {viewer} are they at {end}, the nearest first?",
        "Rank them by how near they are to {viewer} at {end}, beginning with the nearest.",
        at_end=True,
    ),
    _family(
        "order_of_speed",
        "none",
        3,
        _ORDER_ANSWERS,
        "Rank them by the ground that each covers {interval}, beginning with the most.",
        "Which moves farthest {interval}, which comes next and which moves least?",
    ),
    _family(
        "order_of_approach",
        "moving",
        3,
        _ORDER_ANSWERS,
        "In which order do they come to their nearest point to {viewer} {interval}?",
        "{Interval}, each is nearest to {viewer} at some moment: in which order?",
        backwards=tuple(ORDERS.index(order[::-1]) for order in ORDERS),
    ),
    _family(
        "pairs_that_approach",
        "none",
        3,
        _PAIR_ANSWERS,
        "Which of them are clearly closer together at {end} than at {start}?",
        "Compare {end} with {start}: which pairs have come closer together?",
        backwards=None,
    ),
    _family(
        "count_approaching",
        "moving",
        3,
        ("None.", "One.", "Two.", "All three."),
        "How many of them are clearly nearer to {viewer} at {end} than at {start}?",
        "Compare {end} with {start}: how many of them have come closer to {viewer}?",
        backwards=None,
    ),
    _family(
        "passing",
        "moving",
        2,
        ("It does not pass.", "It passes behind.", "It passes in front.", "It passes and comes back."),
        "{Interval}, as seen by {viewer}, how does {a} pass {b} from side to side?",
        "Through the eyes of {viewer} {interval}: does {a} pass {b}, and how?",
    ),
    _family(
        "count_swaps",
        "moving",
        2,
        _COUNTS,
        "{Interval}, how many times do {a} and {b} exchange left and right as seen by {viewer}?",
        "Through the eyes of {viewer} {interval}: how often do {a} and {b} change sides?",
    ),
    _family(
        "count_reversals",
        "moving",
        1,
        _COUNTS,
        "{Interval}, how many times does {a} turn back between left and right as seen by {viewer}?",
        "Through the eyes of {viewer} {interval}: how often does the sideways motion of {a} reverse?",
    ),
    _family(
        "when_nearest",
        "moving",
        1,
        ("At its start.", "In its first half.", "In its second half.", "At its end."),
        "Take the time {interval}: when in it is {a} nearest to {viewer}?",
        "When in the time {interval} does the distance between {viewer} and {a} have its least value?",
        backwards=(3, 2, 1, 0),
    ),
    _family(
        "when_fastest",
        "none",
        1,
        _QUARTERS,
        "Take the time {interval} in four equal parts: in which does {a} cover most ground?",
        "In which quarter of the time {interval} is {a} fastest over the ground?",
        backwards=(3, 2, 1, 0),
    ),
    _family(
        "path_shape",
        "none",
        1,
        ("It is straight.", "It bends to the left.", "It bends to the right.", "It comes back."),
        "Seen from above, what shape has the path of {a} {interval}?",
        "How does the path of {a} {interval} run, as drawn on the ground?",
        backwards=(0, 2, 1, 3),
        mirrored=(0, 2, 1, 3),
    ),
    _family(
        "turn_of_heading",
        "none",
        1,
        ("Hardly at all.", "About a quarter turn to the left.", "About a quarter turn to the right.", "Half round."),
        "How far has {a} turned at {end}, compared with how it faced at {start}?",
        "{Interval}, by how much does the facing direction of {a} turn on the whole?",
        oriented_target=True,
        backwards=(0, 2, 1, 3),
        mirrored=(0, 2, 1, 3),
    ),
    *(
        _family(
            f"side_after_turn_{name}",
            "moving",
            1,
            ("In front of it.", "To its left.", "Behind it.", "To its right."),
            f"If {{viewer}} made {turn} on the spot at {{end}}, where would {{a}} then be?",
            f"Imagine that at {{end}} {{viewer}} makes {turn} without moving away. Where is {{a}} then?",
            # Who turns left in the mirror turned right: a target that was then in front would be behind.
            mirrored=(0, 3, 2, 1) if name == "round" else (2, 1, 0, 3),
            at_end=True,
        )
        for name, turn in (
            ("left", "a quarter turn to the left"),
            ("right", "a quarter turn to the right"),
            ("round", "half a turn"),
        )
    ),
    _family(
        "faced_target",
        "moving",
        3,
        ("The first.", "The second.", "The third.", "None of them."),
        "Which of them does {viewer} face at {end}?",
        "At {end}, towards which of them is {viewer} turned?",
        at_end=True,
    ),
)

FORMS: tuple[Form, ...] = (*TEMPLATES, *FAMILIES)
"""All forms; a question's form is an index into these."""
FORM_INDEX = {form.name: index for index, form in enumerate(FORMS)}
