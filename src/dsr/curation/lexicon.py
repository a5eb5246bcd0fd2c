"""Kinds of things that words name: WordNet's first senses (lexicon_build.py), corrected by lexicon/everyday.txt."""

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "lexicon"
AGENT_LETTERS = frozenset("PAGVR")
NOUN_LETTERS = frozenset("PAGVRON")
MAX_WORDS = 3
"""Words of the longest compound."""


@dataclass(frozen=True)
class Noun:
    """A noun as the lexicon knows it."""

    lemma: str
    letters: frozenset[str]
    plural: bool


@dataclass(frozen=True)
class Verb:
    """A form of a verb: `base`, `s` (drives), `ing` or `ed` (drove, driven)."""

    lemma: str
    form: str
    motion: bool


class Lexicon:
    """Words by their letters; the letters are explained in lexicon_build.py and lexicon/everyday.txt."""

    def __init__(self, letters: dict[str, str], irregular: dict[str, dict[str, str]], everyday: frozenset[str]) -> None:
        """Take over what `english` has read.

        Args:
            letters: letters of each word or compound, lower case.
            irregular: by "n" and "v", base form of each irregular form.
            everyday: words that are themselves even where they look like a plural ("glasses").
        """
        self._letters = letters
        self._irregular = irregular
        self._everyday = everyday

    def letters(self, text: str) -> str:
        return self._letters.get(text, "")

    def is_everyday(self, text: str) -> bool:
        """True for a word of everyday.txt."""
        return text in self._everyday

    def noun(self, text: str) -> Noun | None:
        """The noun of a word or compound, singular or plural; None if it is none."""
        for lemma, plural in self._singulars(text):
            letters = frozenset(self._letters.get(lemma, ""))
            if letters & NOUN_LETTERS:
                return Noun(lemma, letters, plural or lemma in _ALWAYS_PLURAL)
        return None

    def verb(self, word: str) -> Verb | None:
        """The verb that a word is a form of; None if of none."""
        for lemma, form in self._bases(word):
            letters = self._letters.get(lemma, "")
            if "M" in letters or "W" in letters:
                return Verb(lemma, form, "M" in letters)
        return None

    def knows(self, word: str) -> bool:
        """True for an English word."""
        return bool(self._letters.get(word) or self.noun(word) or self.verb(word))

    def _singulars(self, text: str) -> list[tuple[str, bool]]:
        """Words that `text` may be or be the plural of, the likeliest first."""
        head, _, last = text.rpartition(" ")
        prefix = f"{head} " if head else ""
        candidates = [(text, False)] if text in self._everyday else []
        if last in self._irregular["n"]:
            candidates.append((prefix + self._irregular["n"][last], True))
        if not last.endswith(("ss", "us")):
            for ending, instead in _PLURALS:
                if last.endswith(ending) and len(last) > len(ending) + 1:
                    candidates.append((prefix + last.removesuffix(ending) + instead, True))
        # Last, for nouns that happen to be spelled like the plural of a more common one ("falls").
        return [*candidates, (text, False)]

    def _bases(self, word: str) -> list[tuple[str, str]]:
        candidates = [(word, "base")]
        irregular = self._irregular["v"].get(word)
        if irregular:
            form = "ing" if word.endswith("ing") else "s" if word.endswith("s") else "ed"
            candidates.insert(0, (irregular, form))
        for ending, instead, form in _VERB_ENDINGS:
            stem = word.removesuffix(ending)
            # "riding" is of "ride", not of "rid", but "swinging" of "swing", not of "swinge".
            if stem != word and len(stem) > 1 and not (instead == "e" and stem.endswith("ng")):
                candidates.append((stem + instead, form))
                if form in ("ing", "ed") and len(stem) > 2 and stem[-1] == stem[-2]:
                    candidates.append((stem[:-1], form))
        return candidates


_ALWAYS_PLURAL = frozenset({"people", "police"})
_PLURALS = (
    ("men", "man"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("sses", "ss"),
    ("xes", "x"),
    ("ies", "y"),
    ("s", ""),
    ("es", ""),
)
_VERB_ENDINGS = (
    ("ies", "y", "s"),
    ("es", "e", "s"),
    ("es", "", "s"),
    ("s", "", "s"),
    ("ing", "e", "ing"),
    ("ing", "", "ing"),
    ("ied", "y", "ed"),
    ("ed", "e", "ed"),
    ("ed", "", "ed"),
)


def words(text: str) -> frozenset[str]:
    """The words of a list written as text."""
    return frozenset(text.split())


@cache
def english() -> Lexicon:
    """The lexicon that comes with the package."""
    letters: dict[str, str] = {}
    irregular: dict[str, dict[str, str]] = {"n": {}, "v": {}}
    with gzip.open(FOLDER / "wordnet.txt.gz", "rt", encoding="utf-8") as file:
        for line in file:
            word, value = line.rstrip("\n").split("\t")
            if value[0] == "=":
                irregular[value[1]].setdefault(word, value[2:])
            else:
                letters[word] = value
    everyday: set[str] = set()
    for line in (FOLDER / "everyday.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            added, words = line.split(": ")
            for word in words.split(", "):
                letters[word] = _corrected(letters.get(word, ""), added)
                everyday.add(word)
    return Lexicon(letters, irregular, frozenset(everyday))


def _corrected(letters: str, added: str) -> str:
    """A noun letter replaces a noun letter, a verb letter a verb letter; others are added."""
    for kind in (NOUN_LETTERS, frozenset("MW")):
        if set(added) & kind:
            letters = "".join(letter for letter in letters if letter not in kind)
    return letters + "".join(letter for letter in added if letter not in letters)
