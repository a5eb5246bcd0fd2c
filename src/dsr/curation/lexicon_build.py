"""Derive lexicon/wordnet.txt.gz from WordNet 3.0: `python -m dsr.curation.lexicon_build <WordNet folder>`.

The folder is Debian's /usr/share/wordnet (package wordnet-base). A line is a word or compound, a tab and letters:

    P person, A animal, G group of people or animals, V vehicle, R robot    (agents: they face somewhere)
    O object                                                                (a thing with a place and a body)
    N any other noun        S also the name of a sport
    M verb of motion        W any other verb        J adjective or adverb

or an irregular form, a tab, `=` and its base form. A noun's letter is decided by its first sense that is not the
name of one person or place: by the lexicographer's file where that is enough (whatever the hypernyms of "driver"
say, it is in noun.person), and by subtrees where it is not (noun.animal holds tails as well, and noun.artifact
vehicles and teapots, but also roads, rooms and trousers, which no question is about).
"""

import gzip
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dsr.files import write_bytes

LEXICON = Path(__file__).parent / "lexicon" / "wordnet.txt.gz"
MAX_WORDS = 3

_FILES = {3: "Tops", 4: "act", 5: "animal", 6: "artifact", 13: "food", 14: "group", 17: "object", 18: "person"}
_FILES |= {20: "plant"}
_VERB_MOTION = 38
"""Numbers of lexicographer files, as in lexnames(5WN)."""

# A root is a word and the file that holds the meant sense of it.
_ROOTS = {
    "R": "robot:artifact",
    "V": "vehicle:artifact public_transport:artifact",
    "G": "animal_group:group crowd:group audience:group multitude:group team:group squad:group crew:group "
    "musical_organization:group family:group police:group troop:group choir:group",
    "A": "animal:Tops",
    "S": "sport:act",
}
_THINGS = ("artifact", "food", "plant")
_NO_THINGS = (
    "room:artifact area:artifact way:artifact surface:artifact facility:artifact establishment:artifact "
    "building_complex:artifact excavation:artifact opening:artifact system:artifact clothing:artifact "
    "footwear:artifact cloth_covering:artifact coating:artifact fabric:artifact adornment:artifact "
    "needlework:artifact floor:artifact ceiling:artifact wall:artifact roof:artifact "
    "padding:artifact fixture:artifact line:artifact side:artifact representation:artifact meal:food beverage:food "
    "plant_tissue:plant"
)
"""Places, surfaces, matter and what is worn."""
_NATURAL_THINGS = "rock:object nest:object ice_mass:object"
"""The rest of noun.object is landscape."""
_TAXA = {"genus", "family", "order", "class", "suborder", "subfamily", "superfamily", "phylum", "subphylum"}
_TAXA |= {"division", "subclass", "superorder", "suborder", "tribe", "kingdom", "subkingdom", "superclass"}


@dataclass(frozen=True)
class _Synset:
    file: int
    words: tuple[str, ...]
    hypernyms: tuple[str, ...]
    is_instance: bool


def main(folder: Path) -> None:
    """Write the lexicon; the same WordNet gives the same bytes."""
    lines = sorted(_lines(folder))
    write_bytes(LEXICON, gzip.compress("".join(f"{line}\n" for line in lines).encode(), 9, mtime=0))
    print(f"{LEXICON}: {len(lines)} lines, {LEXICON.stat().st_size} bytes")


def _lines(folder: Path) -> Iterator[str]:
    letters: dict[str, str] = defaultdict(str)
    for word, letter in _nouns(folder):
        letters[word] += letter
    for name in ("verb", "adj", "adv"):
        synsets = _synsets(folder, name)
        for word, senses in _senses(folder, name):
            if "_" not in word:
                motion = name == "verb" and synsets[senses[0]].file == _VERB_MOTION
                letters[word] += "M" if motion else "W" if name == "verb" else "J" * ("J" not in letters[word])
    for word, kinds in letters.items():
        text = word.replace("_", " ").replace("-", " ")
        words = text.split()
        # A compound of the last word's own kind is found by that word, and is listed for its name alone.
        if word.isascii() and len(words) <= MAX_WORDS and words[0] not in _TAXA and not (" " in text and kinds == "N"):
            yield f"{text}\t{kinds}"
        elif kinds == "N" and len(words) <= MAX_WORDS and set(letters.get(words[-1], "")) & set("PAGVRO"):
            yield f"{text}\tN"
    for name in ("noun", "verb"):
        for line in (folder / f"{name}.exc").read_text().splitlines():
            form, base = line.split()[:2]
            if "_" not in form:
                yield f"{form}\t={'n' if name == 'noun' else 'v'}{base}"


def _nouns(folder: Path) -> Iterator[tuple[str, str]]:
    """Every noun and the letters of its first sense."""
    synsets = _synsets(folder, "noun")
    senses = dict(_senses(folder, "noun"))
    trees = {letter: _below(roots, synsets, senses) for letter, roots in _ROOTS.items()}
    no_things, natural = _below(_NO_THINGS, synsets, senses), _below(_NATURAL_THINGS, synsets, senses)
    for word, offsets in senses.items():
        first = next((offset for offset in offsets if not synsets[offset].is_instance), None)
        if first is None:
            yield word, "N"
            continue
        file = _FILES.get(synsets[first].file, "")
        tree = next((letter for letter in "RVGA" if first in trees[letter]), "")
        thing = (file in _THINGS and first not in no_things) or first in natural
        letter = tree or ("P" if file == "person" else "O" if thing else "N")
        yield word, letter + "S" * (first in trees["S"])


def _below(roots: str, synsets: dict[str, _Synset], senses: dict[str, list[str]]) -> set[str]:
    """Offsets of the roots' synsets and of everything under them."""
    children = defaultdict(list)
    for offset, synset in synsets.items():
        for hypernym in synset.hypernyms:
            children[hypernym].append(offset)
    numbers = {name: number for number, name in _FILES.items()}
    waiting = []
    for root in roots.split():
        word, file = root.split(":")
        meant = [offset for offset in senses.get(word, []) if synsets[offset].file == numbers[file]]
        if not meant:
            raise ValueError(f"{word} has no sense in noun.{file}: is this WordNet 3.0?")
        waiting.append(meant[0])
    found: set[str] = set()
    while waiting:
        offset = waiting.pop()
        if offset not in found:
            found.add(offset)
            waiting += children[offset]
    return found


def _synsets(folder: Path, name: str) -> dict[str, _Synset]:
    """data.<name> by offset; the format is wndb(5WN)."""
    synsets = {}
    for line in (folder / f"data.{name}").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split(" | ")[0].split()
        pointers = 4 + 2 * int(fields[3], 16)
        words = tuple(fields[4:pointers:2])
        pairs = [(fields[i], fields[i + 1]) for i in range(pointers + 1, pointers + 1 + 4 * int(fields[pointers]), 4)]
        above = tuple(offset for symbol, offset in pairs if symbol == "@")
        synsets[fields[0]] = _Synset(int(fields[1]), words, above, any(symbol == "@i" for symbol, _ in pairs))
    return synsets


def _senses(folder: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """Each word of index.<name> with the offsets of its senses, the most frequent first."""
    for line in (folder / f"index.{name}").read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            yield fields[0], fields[-int(fields[2]) :]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
