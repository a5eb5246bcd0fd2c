"""The `rules` backend: agents, objects, movement and category from a caption's words, offline.

An agent is a thing with a meaningful facing direction: a person, an animal, a group of them, a vehicle or a robot. An
object is any other thing with a place and a body. Landscape, rooms, roads, clothes and parts of bodies are neither.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dsr.curation.captions import DETERMINERS, FUNCTION_WORDS, NounPhrase, Reading, read
from dsr.curation.curated import NOTHING_NAMED, Curated
from dsr.curation.lexicon import AGENT_LETTERS, Lexicon, english, words
from dsr.params import Curation

CATEGORIES = {"P": "people", "G": "people", "A": "animals", "V": "vehicles", "R": "robots"}
"""Category of a clip by the kind of most of its agents; `sports` and `objects` (no agent) come by other rules."""

_NOT_MOVING = "static: the caption names no movement"
_NEGATIONS = words("no not nothing nobody without never n't")
_SHOTS = words("camera shot view frame")


@dataclass(frozen=True)
class _Sense:
    """Another meaning of a word, where certain words are near."""

    letter: str
    near: frozenset[str]


_SENSES = {
    "crane": _Sense("A", words("bird wade water lake marsh wetland nest feather beak flock fly sandhill peck")),
    "mouse": _Sense("O", words("desk computer keyboard click laptop screen monitor cursor wireless pad")),
    "bat": _Sense("O", words("baseball cricket ball batter pitcher batsman swing hit player game helmet")),
    "seal": _Sense("O", words("wax envelope stamp letter document")),
    "jaguar": _Sense("V", words("road drive car engine park highway sedan wheel driver garage street")),
    "nail": _Sense("N", words("polish manicure finger paint salon toe")),
    "driver": _Sense("O", words("golf golfer tee")),
    "bass": _Sense("O", words("play guitar band music concert stage")),
    "ram": _Sense("V", words("truck pickup tow dodge")),
    "beetle": _Sense("V", words("volkswagen road drive parked highway")),
    "mustang": _Sense("V", words("ford road drive parked highway race engine")),
    "model": _Sense("O", words("scale miniature train railway plastic clay")),
    "tank": _Sense("O", words("fish aquarium water")),
}
"""Everyday words of two meanings; the lexicon's is the one without context."""


@dataclass(frozen=True)
class _Named:
    """A mention, resolved."""

    lemma: str
    letter: str
    label: str
    """The lemma with the words that tell it from others of its kind."""
    definite: bool


def curate(captions: Sequence[str], params: Curation) -> list[Curated]:
    """Curate captions one by one."""
    return [_curate(caption, params.max_nouns, english()) for caption in captions]


def _curate(caption: str, max_nouns: int, lexicon: Lexicon) -> Curated:
    if not caption.strip():
        return Curated(reason="empty caption")
    reading = read(caption, lexicon)
    if not _is_english(reading.words, lexicon):
        return Curated(reason="not English: too few English words in the caption")
    named = _resolve(reading, lexicon)
    agents, objects = _labels(named, max_nouns)
    dynamic = _is_dynamic(reading, bool(agents), lexicon)
    category = _category(named, reading)
    reason = "" if dynamic else _NOT_MOVING
    return Curated(agents, objects, dynamic, category, reason if agents or objects else NOTHING_NAMED)


def _is_english(tokens: list[str], lexicon: Lexicon) -> bool:
    """At least half of the words are English, and a longer caption has some of the little ones."""
    spelled = [word for word in tokens if word[0].isalpha()]
    known = sum(word in FUNCTION_WORDS or lexicon.knows(word) for word in spelled)
    has_little = any(word in FUNCTION_WORDS for word in spelled)
    return known > 0 and 2 * known >= len(spelled) and (has_little or len(spelled) < 6)


def _resolve(reading: Reading, lexicon: Lexicon) -> list[_Named]:
    """The mentions that are agents or objects."""
    near = {noun.lemma for word in reading.words if (noun := lexicon.noun(word))}
    near |= {verb.lemma for _, verb in reading.verbs} | set(reading.words)
    named = [_resolve_one(mention, near, lexicon) for mention in reading.mentions if not mention.depicted]
    return [name for name in named if name.letter != "N"]


def _resolve_one(mention: NounPhrase, near: set[str], lexicon: Lexicon) -> _Named:
    lemma = mention.head.lemma
    letter = next(letter for letter in "PAGVRON" if letter in mention.head.letters)
    other = _SENSES.get(lemma)
    if other and near & other.near:
        letter = other.letter
    before = (*mention.adjectives, *mention.modifiers)
    for mark, kinds, instead in (("X", "PA", "O"), ("Y", "PA", "R")):
        marked = [word for word in before if mark in lexicon.letters(word)]
        if marked and letter in kinds:
            letter, lemma = instead, f"{marked[-1]} {lemma}"
            before = tuple(word for word in before if word != marked[-1])
    apart = [word for word in before if "C" in lexicon.letters(word) or word in mention.modifiers]
    return _Named(lemma, letter, " ".join([*apart, lemma]), mention.definite)


def _labels(named: list[_Named], max_nouns: int) -> tuple[list[str], list[str]]:
    """Agents and objects in the order of the caption; told apart by colour and the like only where several are
    named that way ("red cube", "blue cube", but "robot" where one robot is once called small)."""
    variants: dict[str, set[str]] = {}
    for name in named:
        if name.label != name.lemma:
            variants.setdefault(name.lemma, set()).add(name.label)
    chosen: dict[str, str] = {}
    for name in named:
        several = len(variants.get(name.lemma, ())) > 1
        if name.definite and any(label.endswith(f" {name.label}") for label in chosen):
            continue  # "A robot dog … the dog"
        if not several or name.label != name.lemma:
            chosen.setdefault(name.label if several else name.lemma, name.letter)
    kept = list(chosen.items())[:max_nouns]
    agents = [label for label, letter in kept if letter in AGENT_LETTERS]
    return agents, [label for label, letter in kept if letter not in AGENT_LETTERS]


def _is_dynamic(reading: Reading, has_agents: bool, lexicon: Lexicon) -> bool:
    """A verb of motion, or a noun of it ("a race"), moves; a word of rest does not; else what has an agent may."""
    moves = [
        _stated(reading.words, i) for i, verb in reading.verbs if verb.motion and not _parked(verb.lemma, verb.form)
    ]
    if any(moves) or any({"M", "N"} <= mention.head.letters for mention in reading.mentions):
        return True
    if moves or _says_rest(reading.words, lexicon):
        return False
    verbs = [verb for _, verb in reading.verbs]
    at_rest = bool(verbs) and all("T" in lexicon.letters(verb.lemma) for verb in verbs)
    return has_agents and not at_rest


def _parked(lemma: str, form: str) -> bool:
    """ "A parked car" does not move, though parking does."""
    return form == "ed" and lemma in ("park", "fall", "land", "stop", "stack", "build")


def _stated(tokens: list[str], i: int) -> bool:
    return not _NEGATIONS & set(tokens[max(i - 3, 0) : i])


def _says_rest(tokens: list[str], lexicon: Lexicon) -> bool:
    pairs = zip(tokens, [*tokens[1:], ""], strict=True)
    return any(
        "T" in lexicon.letters(f"{word} {following}")
        or ("T" in lexicon.letters(word) and following not in _SHOTS and word not in DETERMINERS)
        for word, following in pairs
    )


def _category(named: Iterable[_Named], reading: Reading) -> str:
    kinds = Counter(CATEGORIES[name.letter] for name in named if name.letter in CATEGORIES)
    if not kinds:
        return "objects"
    if kinds["people"] and any("S" in mention.head.letters for mention in reading.mentions):
        return "sports"
    # most_common keeps the order of the caption among equals.
    return kinds.most_common(1)[0][0]
