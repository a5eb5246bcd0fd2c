"""Texts that the small backbone is pre-trained on: names, questions in the project's wordings, and options.

Nothing here comes from a clip. Names are drawn from the curation lexicon, boxes and times at random; states walk at
random over an answer's moments; which of four options is right is drawn after them.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from dsr.curation.lexicon import english
from dsr.mcq import LETTERS, lettered
from dsr.questions.engine.answers import pair_distances, run_lengths
from dsr.questions.language.families import FORMS, Family
from dsr.questions.language.templates import (
    _PHRASES,
    NUM_STATES,
    NUM_WORDINGS,
    ROLES,
    Answer,
    Form,
    answer_text,
    mention,
    num_axes,
    question_text,
)

START, END = len(ROLES) + 1, len(ROLES) + 2
"""Tags of the times; a role's tag is its place in ROLES + 1, and 0 is no part of an address."""
NUM_TAGS = END + 1
NUM_SECONDS = 6
"""Key moments that a question is read for."""
WORDNET_NAMES = 3000
"""Names that are taken from WordNet beside all of everyday.txt."""
EVERYDAY_TIMES = 5
"""Copies of everyday.txt in the list, so that its names are drawn about as often as the others."""
HELD_OUT = 10
"""One noun in so many is held out."""
MARGIN = 0.4
"""Distance of wrong options from the right one, as `qa.answer_margin`."""
SIZES = ((320, 240), (320, 240), (640, 480), (1280, 720), (480, 854))
"""Pictures, width and height, that boxes are drawn in."""
_MARKS = [(chr(0xE000 + 2 * i), chr(0xE001 + 2 * i)) for i in range(len(ROLES))]
"""Marks around the label of each role while a text is made."""


@dataclass(frozen=True)
class Names:
    """Nouns and the words that tell two of a kind apart."""

    nouns: Sequence[str]
    colours: Sequence[str]

    def draw(self, rng: np.random.Generator, count: int) -> list[str]:
        """Different labels, half of them with a colour or material."""
        labels: dict[str, None] = {}
        while len(labels) < count:
            noun = self.nouns[rng.integers(len(self.nouns))]
            colour = f"{self.colours[rng.integers(len(self.colours))]} " if rng.random() < 0.5 else ""
            labels[colour + noun] = None
            if rng.random() < 0.2 and len(labels) < count:  # another of its kind
                labels[f"{self.colours[rng.integers(len(self.colours))]} {noun}"] = None
        return list(labels)


@cache
def names(held_out: bool = False) -> Names:
    """Names to train on, or those held out: the nouns whose checksum is a multiple of HELD_OUT."""
    words = english()
    things = {word: set(letters) for word, letters in words._letters.items()}
    everyday = sorted(word for word, letters in things.items() if words.is_everyday(word) and letters & set("PAVRO"))
    others = sorted(
        word
        for word, letters in things.items()
        if letters & set("AVRO") and word.isascii() and word.replace(" ", "").isalpha() and len(word) < 20
    )
    rng = np.random.default_rng(0)
    nouns = sorted(rng.choice(others, WORDNET_NAMES, replace=False).tolist())
    nouns = [
        noun for noun in (*nouns, *EVERYDAY_TIMES * everyday) if (zlib.crc32(noun.encode()) % HELD_OUT == 0) == held_out
    ]
    colours = sorted(word for word, letters in words._letters.items() if "C" in letters and words.is_everyday(word))
    return Names(nouns, colours)


@dataclass(frozen=True)
class QuestionText:
    """A question and what it is about."""

    form: int
    """Index into FORMS."""
    text: str
    spans: tuple[tuple[int, int, int], ...]
    """Characters (start, end) of each label and time, and their tags."""
    seconds: tuple[float, ...]
    """NUM_SECONDS times of the key moments."""


def key_seconds(form: Form, start: float, end: float) -> tuple[float, ...]:
    """Times of the key moments that a text names, NUM_SECONDS of them: from start to end at equal steps, the last one
    repeated; a prediction's stop, and what a family asks about the end, is one moment.
    """
    if form.signal == "dir_pred" or (isinstance(form, Family) and form.at_end):
        return (end,) * NUM_SECONDS
    steps = (5 if isinstance(form, Family) else form.num_moments) - 1
    return tuple(start + (end - start) * min(k, steps) / steps for k in range(NUM_SECONDS))


def draw_question(rng: np.random.Generator, known: Names, form: int | None = None) -> QuestionText:
    """A question of a form, drawn evenly where none is given, with labels, boxes and times drawn at random."""
    index = int(rng.integers(len(FORMS))) if form is None else form
    asked = FORMS[index]
    start = int(rng.integers(0, 120 if rng.random() < 0.2 else 70)) / 10
    end = start + int(rng.integers(3, 64)) / 10
    if rng.random() < 0.9:
        end = max(min(end, 8.0), start + 0.3)
    end = round(end, 1)
    labels = known.draw(rng, len(asked.roles))
    cameras = [k for k, role in enumerate(asked.roles) if role == "viewer" or asked.camera_target]
    camera = -1
    if cameras and rng.random() < 0.4:
        camera = cameras[0 if rng.random() < 0.6 else rng.integers(len(cameras))]
    width, height = SIZES[rng.integers(len(SIZES))]
    boxes = [
        () if k == camera else tuple(np.sort(rng.integers(0, (width + 1, height + 1), (2, 2)), axis=0).ravel().tolist())
        for k in range(len(labels))
    ]
    return write_question(index, int(rng.integers(NUM_WORDINGS)), start, end, labels, boxes)


def write_question(
    index: int, wording: int, start: float, end: float, labels: Sequence[str], boxes: Sequence[Sequence[float]]
) -> QuestionText:
    """The question of a form, as `dsr.questions` words it.

    Args:
        labels, boxes: of each role of the form; the camera has no box.
    """
    form, mentions = FORMS[index], {}
    moment = end if form.stated else start
    read_as, roles = (index, form.roles) if () in map(tuple, boxes) else _read_as(index, wording)
    for role, shown, label, box in zip(form.roles, roles, labels, boxes, strict=True):
        first, last = _MARKS[ROLES.index(shown)]
        mentions[role] = mention(f"{first}{label}{last}", list(box), moment) if len(box) else f"the {first}camera{last}"
    text, spans = _unmark(question_text(form, wording, start, end, moment, mentions))
    bare = re.sub(r"\([^)]*\)", lambda found: " " * len(found.group()), text)
    for found in re.finditer(r"\d+\.\d", bare):
        spans.append((*found.span(), START if found.group() == f"{start:.1f}" and not form.stated else END))
    return QuestionText(read_as, text, tuple(spans), key_seconds(form, start, end))


@cache
def _read_as(index: int, wording: int) -> tuple[int, tuple[str, ...]]:
    """Form that a question about tracks is read as, and the role there of each of its own.

    Two forms can have one text: the distance between a viewer and a target, or between two targets. Such a text is
    read as the one that needs no viewer.
    """

    def asked(form: Form) -> tuple[str, tuple[str, ...]]:
        text = question_text(form, wording, 0.0, 1.0, 0.0, {role: f"<{role}>" for role in form.roles})
        order = tuple(dict.fromkeys(re.findall(r"<(\w+)>", text)))
        return re.sub(r"<(\w+)>", lambda found: str(order.index(found.group(1))), text), order

    text, order = asked(FORMS[index])
    for other, form in enumerate(FORMS):
        if form.type == FORMS[index].type and form.viewer == "none" and len(form.roles) == len(order):
            same, renamed = asked(form)
            if same == text:
                return other, tuple(renamed[order.index(role)] for role in FORMS[index].roles)
    return index, FORMS[index].roles


def _unmark(marked: str) -> tuple[str, list[tuple[int, int, int]]]:
    text, spans, begun = "", [], 0
    tags = {mark: place + 1 for place, pair in enumerate(_MARKS) for mark in pair}
    for character in marked:
        if character not in tags:
            text += character
        elif character == _MARKS[tags[character] - 1][0]:
            begun = len(text)
        else:
            spans.append((begun, len(text), tags[character]))
    return text, spans


def token_tags(question: QuestionText, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Tag of each token of a question, by the characters (start, end) that it covers."""
    tags = [0] * len(offsets)
    for start, end, tag in question.spans:
        for k, (first, last) in enumerate(offsets):
            if last > start and first < end:
                tags[k] = tag
    return tags


# --- Options ---


@dataclass(frozen=True)
class Choice:
    """Four options, and the states that an answer tells at each of its moments."""

    options: tuple[str, ...]
    """Texts with their letters."""
    right: int
    words: tuple[tuple[str, ...], ...]
    """Words of each option, those between "A." and "."; " It is left", ", then right"."""
    states: tuple[str, ...]
    """Words of the right answer at each key moment, of a family's its parts, each as it would open an option."""
    vocabulary: "Vocabulary"
    """Words that a key moment could tell."""


@dataclass(frozen=True)
class Vocabulary:
    """Words of all states of a form's answers, each as it would open an option."""

    words: tuple[str, ...]
    axes: np.ndarray
    """[S, A] int8 of the states; a family's are 0 to S - 1 on one axis, [S, 1]."""


THEN = ", then"


def option_words(text: str) -> tuple[str, ...]:
    """Words of an option without its letter, as the tokenizer splits them.

    >>> option_words("It is left, then right.")
    (' It is left', ', then right')
    """
    first, *others = text.removesuffix(".").split(THEN)
    return (f" {first}", *(THEN + other for other in others))


def opening(word: str) -> str:
    """A word of an option as it would open one of a family.

    >>> opening(", then the first")
    ' The first'
    """
    return f" {word.removeprefix(THEN).strip().capitalize()}" if word.startswith(THEN) else word


@cache
def vocabulary_of(form: int) -> Vocabulary:
    """Words that the answers of a form are made of."""
    asked = FORMS[form]
    if isinstance(asked, Family):
        words = list(dict.fromkeys(opening(word) for answer in asked.answers for word in option_words(answer)))
        return Vocabulary(tuple(words), np.arange(len(words), dtype=np.int8)[:, None])
    states = states_of(asked.vocabulary)
    return Vocabulary(tuple(first_word(asked.vocabulary, s) for s in states), np.array(states, np.int8))


def states_of(vocabulary: str) -> list[tuple[int, ...]]:
    """States that an answer of a vocabulary is made of."""
    return list(_PHRASES[vocabulary])


def first_word(vocabulary: str, state: tuple[int, ...]) -> str:
    """A state's word at the beginning of an option."""
    return option_words(answer_text(vocabulary, (state,)))[0]


def draw_states(rng: np.random.Generator, signal: str) -> np.ndarray:
    """[M, A] int8: a random walk over an answer's moments that changes an axis at a time, and seldom all."""
    axes, moments = num_axes(signal), NUM_STATES[signal]
    if axes == 1:
        states = rng.integers(-1, 2, (moments, 1))
        stays = rng.random(moments) < rng.choice([0.2, 0.5, 0.8])
    else:
        states = rng.choice([-1, 0, 1], (moments, 3), p=[0.36, 0.28, 0.36])
        states[:, 2] *= rng.random() < 0.4
        stays = rng.random(moments) < rng.choice([0.2, 0.5, 0.7])
    for k in range(moments):
        if k and stays[k]:
            states[k] = states[k - 1]
        elif k and axes == 3 and rng.random() < 0.7:
            axis = rng.integers(3 if states[:, 2].any() else 2)
            states[k, np.arange(3) != axis] = states[k - 1, np.arange(3) != axis]
        if axes == 3 and not states[k].any():
            states[k] = states[k - 1] if k else (1, 0, 0)
    return states.astype(np.int8)


def _neighbour(rng: np.random.Generator, states: np.ndarray, signal: str) -> np.ndarray:
    """States with some moments changed, in another order, or drawn anew."""
    kind = rng.integers(4)
    if kind == 0:
        return states[::-1]
    if kind == 1:
        return states[rng.permutation(len(states))]
    if kind == 2:
        other, changed = draw_states(rng, signal), states.copy()
        cut = rng.integers(len(states))
        changed[cut:] = other[cut:]
        return changed
    return draw_states(rng, signal)


def runs_of(states: np.ndarray) -> Answer:
    """Run-length sequence of states [M, A]."""
    kept = [0, *(np.flatnonzero((states[1:] != states[:-1]).any(-1)) + 1)]
    return tuple(tuple(map(int, states[k])) for k in kept)


def draw_sequences(rng: np.random.Generator, signal: str) -> list[np.ndarray]:
    """Four sequences of states [M, A], each at least MARGIN from every other."""
    found = [draw_states(rng, signal)]
    while len(found) < len(LETTERS):
        source = found[rng.integers(len(found))]
        new = [*found, *(_neighbour(rng, source, signal) for _ in range(4))]
        codes = run_lengths(np.stack(new))
        one, other = np.nonzero(np.ones((len(new), len(new)), bool))
        apart = pair_distances(codes, one, other, num_axes(signal), NUM_STATES[signal]).reshape(len(new), -1)
        good = [k for k in range(len(found), len(new)) if apart[k, : len(found)].min() >= MARGIN]
        found += [new[k] for k in good[:1]]
    return found


def draw_choice(rng: np.random.Generator, form: int) -> Choice:
    """Options of a form, and states of one of them, chosen last."""
    asked = FORMS[form]
    right = int(rng.integers(len(LETTERS)))
    if isinstance(asked, Family):
        answers = [asked.answers[k] for k in rng.permutation(len(asked.answers))[: len(LETTERS)]]
        states = tuple(map(opening, option_words(answers[right])))
    else:
        sequences = draw_sequences(rng, asked.signal)
        sequences = [sequences[k] for k in rng.permutation(len(LETTERS))]
        answers = [answer_text(asked.vocabulary, runs_of(sequence)) for sequence in sequences]
        states = tuple(first_word(asked.vocabulary, tuple(map(int, state))) for state in sequences[right])
    return Choice(lettered(answers), right, tuple(map(option_words, answers)), states, vocabulary_of(form))
