"""Reading a caption without a parser: which nouns it names, which verbs, by word order and agreement.

Many everyday words are nouns and verbs ("watch", "cross", "park", "duck", "train"). A determiner or adjective before
a word makes it a noun; after a noun, agreement decides: "a car parks" and "cars park" are verbs, "a car park" and
"sports cars" are nouns.
"""

import re
from dataclasses import dataclass, field

from dsr.curation.lexicon import AGENT_LETTERS, MAX_WORDS, Lexicon, Noun, Verb, words

MAX_TOKENS = 2000
"""Words read of a caption; what follows in a longer one is not looked at."""

DETERMINERS = words(
    "a an the this that these those his her its their my your our some any each every another several many few both "
    "all no one two three four five six seven eight nine ten eleven twelve other multiple various numerous"
)
PREPOSITIONS = words(
    "of in on at by with without from into onto over under behind before after through across along around past "
    "between among near beside toward towards against off up down out inside outside above below beneath next to as "
    "during for about upon via amid amidst like then while where when there here away together"
)
PRONOUNS = words("he she it they we you i who which what someone")
AUXILIARIES = words("is are was were be been being has have had do does did can could will would may might")
CONJUNCTIONS = words("and or but nor so because if than not n't also")
DEFINITE = words("the this that these those his her its their my your our both")
FUNCTION_WORDS = DETERMINERS | PREPOSITIONS | PRONOUNS | AUXILIARIES | CONJUNCTIONS
_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+|[.,;:!?()\n]")
_POSSESSIVE = re.compile(r"['’]s?$")


@dataclass(frozen=True)
class NounPhrase:
    """A noun phrase: its head, and the words before it that tell it from others of its kind."""

    head: Noun
    adjectives: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()
    definite: bool = False
    """True after "the" or the like: it may have been named already."""
    depicted: bool = False
    """"A statue of a lion": there is no lion."""


@dataclass
class Reading:
    """Mentions and verbs of a caption, in its order."""

    mentions: list[NounPhrase] = field(default_factory=list)
    verbs: list[tuple[int, Verb]] = field(default_factory=list)
    """With the index in `words`."""
    words: list[str] = field(default_factory=list)


@dataclass
class _Phrase:
    """The noun phrase being read."""

    is_open: bool = False
    """A determiner, preposition or adjective came, so that a noun is due."""
    definite: bool = False
    nouns: list[Noun] = field(default_factory=list)
    adjectives: list[str] = field(default_factory=list)


def tokens(caption: str) -> list[str]:
    """Lower-case words and punctuation; hyphens part words, a possessive 's becomes a mark of its own."""
    found = []
    for token in _TOKEN.findall(caption.lower()[: 40 * MAX_TOKENS])[:MAX_TOKENS]:
        word = _POSSESSIVE.sub("", token)
        found.append(word)
        if word != token:
            found.append("'s")
    return found


def read(caption: str, lexicon: Lexicon) -> Reading:
    """The mentions and verbs of a caption."""
    return _Reader(tokens(caption), lexicon).read()


class _Reader:
    """One pass over a caption's tokens."""

    def __init__(self, caption: list[str], lexicon: Lexicon) -> None:
        self.words = caption
        self.lexicon = lexicon
        self.reading = Reading(words=caption)
        self.phrase = _Phrase()
        self.subject: Noun | None = None  # The noun just before, adverbs aside: what a verb would agree with.
        self.verb_due = False  # After a pronoun, an auxiliary or "to".
        self.last_verb: Verb | None = None
        self.after_and = False
        self.after_verb = False
        self.quantified = False  # After "a group of" or "a robot and", where agreement says nothing.
        self.depicted = False

    def read(self) -> Reading:
        i = 0
        while i < len(self.words):
            i += self._step(i)
        self._close()
        return self.reading

    def _step(self, i: int) -> int:
        """Read what starts at word i; returns how many words it is."""
        word, after_verb = self.words[i], self.after_verb
        self.after_verb = False
        length, noun = self._longest_noun(i)
        if length > 1 and noun is not None:
            self._add_noun(noun)
            return length
        if word in FUNCTION_WORDS or not word[0].isalpha():
            self._function_word(word)
            return 1
        verb = self.lexicon.verb(word)
        if verb and (noun is None or self._is_verb(i, verb, noun)):
            self._add_verb(i, verb)
        elif noun and not self._is_adjective(i, word, noun, after_verb):
            self._add_noun(noun)
        else:
            self._add_adjective(word)
        return 1

    def _longest_noun(self, i: int) -> tuple[int, Noun | None]:
        for length in range(min(MAX_WORDS, len(self.words) - i), 0, -1):
            noun = self.lexicon.noun(" ".join(self.words[i : i + length]))
            if noun and not (length > 1 and self._is_phrase(noun, self.words[i : i + length])):
                return length, noun
        return 0, None

    def _is_phrase(self, noun: Noun, phrase: list[str]) -> bool:
        """Tell a name from a subject and its verb ("the car parks") or an adjective and a noun ("young girl",
        "wooden horse")."""
        if set("CX") & set(self.lexicon.letters(phrase[0])) and set("PN") & noun.letters:
            return True
        verb = self.lexicon.verb(phrase[-1])
        return noun.plural and verb is not None and verb.form == "s" and "N" in noun.letters

    def _is_verb(self, i: int, verb: Verb, noun: Noun) -> bool:
        """Decide if a word that may be a noun or a verb is a verb here."""
        if self.verb_due:
            return True
        before = self.phrase.nouns[-1] if self.phrase.nouns else self.subject
        if before is not None:
            if verb.form in ("ing", "ed"):
                return not self.phrase.nouns or self._starts_phrase(i + 1) or "O" not in noun.letters
            if not before.letters & AGENT_LETTERS and noun.letters & (AGENT_LETTERS | {"O"}):
                return False  # "kitchen chairs", "a wood block": what does not act has no verb that is also a thing.
            if self.quantified:
                return True
            return before.plural if verb.form == "base" else not before.plural
        if self.phrase.is_open:
            return False
        if verb.form == "ing":
            return True
        return self.after_and and self.last_verb is not None and self.last_verb.form == verb.form

    def _starts_phrase(self, i: int) -> bool:
        return i < len(self.words) and self.words[i] in DETERMINERS

    def _is_adjective(self, i: int, word: str, noun: Noun, after_verb: bool) -> bool:
        """Decide if a noun that may also be an adjective or adverb is one here: a colour or size before another noun
        or where it can be no thing, "round" and "straight" after a verb."""
        letters = self.lexicon.letters(word)
        if after_verb and "J" in letters and not noun.plural and not self.lexicon.is_everyday(word):
            return True
        if "C" not in letters:
            return False
        return self._longest_noun(i + 1)[1] is not None or not noun.letters & (AGENT_LETTERS | {"O"})

    def _function_word(self, word: str) -> None:
        if word == "'s":
            self.phrase = _Phrase(is_open=True)
            self.subject = None
            return
        if word == "of" and self.phrase.nouns and set("QI") & self.phrase.nouns[-1].letters:
            if "I" in self.phrase.nouns[-1].letters:
                self._close()
                self.depicted = True
            self.phrase = _Phrase(is_open=True)
            self.subject = None
            self.quantified = True
            return
        joined = word == "and" and (self.phrase.nouns or self.subject is not None)
        self._close()
        self.after_and = word in ("and", ",", "or")
        self.verb_due = word in PRONOUNS or word in AUXILIARIES or word == "to"
        if word in DETERMINERS or word in PREPOSITIONS:
            self.phrase.is_open = True
            self.phrase.definite = word in DEFINITE
        if word not in AUXILIARIES and word not in ("not", "also", "and", ",", "'s"):
            self.subject = None
        if word in DETERMINERS:
            return
        self.quantified = bool(joined) or (self.quantified and word in AUXILIARIES)
        if word in (".", "!", "?", ";", "\n"):
            self.last_verb = None

    def _add_noun(self, noun: Noun) -> None:
        self.phrase.nouns.append(noun)
        self.subject = noun
        self.verb_due = self.after_and = False

    def _add_verb(self, i: int, verb: Verb) -> None:
        self.reading.verbs.append((i, verb))
        modifies = self.phrase.is_open and not self.phrase.nouns and verb.form in ("ing", "ed")
        if not modifies:
            self._close()
            self.phrase = _Phrase()
            self.subject = None
            self.quantified = False
        self.last_verb = verb
        self.after_verb = True
        self.verb_due = self.after_and = False

    def _add_adjective(self, word: str) -> None:
        if self.phrase.nouns:
            subject = self.subject
            self._close()
            self.subject = subject
        else:
            self.phrase.adjectives.append(word)
        self.after_and = False

    def _close(self) -> None:
        """End the phrase; what it named becomes a mention."""
        if self.phrase.nouns:
            *modifiers, head = self.phrase.nouns
            if modifiers and {"M", "N"} <= head.letters:
                # "A horse race": there is a horse.
                self.reading.mentions.append(NounPhrase(modifiers[-1]))
            adjectives = tuple(self.phrase.adjectives)
            names = tuple(noun.lemma for noun in modifiers)
            self.reading.mentions.append(NounPhrase(head, adjectives, names, self.phrase.definite, self.depicted))
            self.subject = head
            self.depicted = False
        self.phrase = _Phrase()
