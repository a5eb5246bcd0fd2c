"""View of a trained model on a question: where its selector looks, what its geometry tokens tell, what it answers.

How it is read from a model is in dsr.explain.model_reading; here it is said in words, without torch.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsr.mcq import LETTERS

MOST_TOKENS = 4
"""3D tokens that are named for a geometry token: as many as one is taught to look at."""
LEAST_SHARE = 0.05
"""Share of the attention that a 3D token has to have to be named; the first is always."""
WIDTH = 110


@dataclass(frozen=True)
class Seen:
    """A 3D token in words."""

    what: str
    """A thing, a thing as another sees it, or a cell of the picture."""
    seconds: float

    def __str__(self) -> str:
        return f"{self.what} at {self.seconds:.2f} s"


@dataclass(frozen=True)
class Told:
    """State that a geometry token tells, and the one that follows from the cues."""

    sentence: str
    """The form's state that the token is nearest to."""
    probability: float
    """Its probability among the form's states."""
    derived: str
    """Sentence of the state that follows from the cues; "" where none does."""

    @property
    def agrees(self) -> bool:
        return self.sentence == self.derived

    def __str__(self) -> str:
        beside = "as derived" if self.agrees else f"derived: {self.derived or 'no state'}"
        return f"{self.sentence} ({_percent(self.probability)}), {beside}"


@dataclass(frozen=True, eq=False)
class Glance:
    """Attention of a key moment's geometry token."""

    moment: str
    start: float
    end: float
    """Seconds of the moment, or of the step."""
    shares: np.ndarray
    """[k] of the attention to each 3D token, the mean over the heads; adds up to one."""
    told: Told | None
    """None where the model was not taught to tell states."""

    def largest(self) -> list[int]:
        """Places of the 3D tokens that are named, the largest share first."""
        order = np.argsort(-self.shares, kind="stable")[:MOST_TOKENS].tolist()
        return [place for i, place in enumerate(order) if i == 0 or self.shares[place] >= LEAST_SHARE]


@dataclass(frozen=True, eq=False)
class ModelView:
    """Attention, told states and letters of a model for a question."""

    name: str
    """Its folder."""
    trained_on: bool
    """True if the model learned from the question."""
    probabilities: Sequence[float]
    """Probabilities of the options' letters, among one another."""
    right: str
    """The right letter."""
    tokens: Sequence[Seen]
    """[k], the clip's 3D tokens."""
    glances: Sequence[Glance]

    @property
    def answer(self) -> str:
        return LETTERS[int(np.argmax(self.probabilities))]

    def letters(self) -> str:
        """Probabilities and answer in one line."""
        shares = ", ".join(f"{letter} {_percent(p)}" for letter, p in zip(LETTERS, self.probabilities, strict=True))
        verdict = "right" if self.answer == self.right else f"wrong, {self.right} is right"
        seen = "; it learned from this question" if self.trained_on else ""
        return f"{shares}: {self.answer}, {verdict}{seen}"


def view_text(view: ModelView | str) -> str:
    """A view for the terminal, or in one line why there is none."""
    if isinstance(view, str):
        return f"The model: not read, {view}"
    lines = [f"The model ({view.name})", *_wrapped(f"letters: {view.letters()}", "  ", "    ")]
    lines.append(f"  its selector looked at these of {len(view.tokens)} 3D tokens (shares of its attention)")
    for number, glance in enumerate(view.glances, start=1):
        told = f"   tells: {glance.told}" if glance.told else ""
        lines += _wrapped(f"{number}: {glance.moment}{told}", "  ", "       ")
        for place in glance.largest():
            lines += _wrapped(f"{_percent(glance.shares[place]):>4}  {view.tokens[place]}", "     ", " " * 11)
    return "\n".join(lines)


def things_shown(view: ModelView, most: int) -> list[str]:
    """Things that get some moment's attention over all times, the most of it first; one to `most` of them."""
    total, largest = dict[str, float](), dict[str, float]()
    for glance in view.glances:
        own = dict[str, float]()
        for token, share in zip(view.tokens, glance.shares.tolist(), strict=True):
            own[token.what] = own.get(token.what, 0.0) + share
        for name, share in own.items():
            total[name] = total.get(name, 0.0) + share
            largest[name] = max(largest.get(name, 0.0), share)
    order = sorted(total, key=lambda name: -total[name])[:most]
    return [name for i, name in enumerate(order) if i == 0 or largest[name] >= LEAST_SHARE]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _wrapped(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)
