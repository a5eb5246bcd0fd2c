"""The lexicon: its words, their forms, and that it is what WordNet gives."""

import gzip
import subprocess
from pathlib import Path

import pytest

from dsr.curation import lexicon_build
from dsr.curation.lexicon import english
from tests.real_clips import debian_package


@pytest.mark.parametrize(
    ("text", "lemma", "plural"),
    [
        ("dogs", "dog", True),
        ("women", "woman", True),
        ("mice", "mouse", True),
        ("geese", "goose", True),
        ("buses", "bus", True),
        ("police officers", "police officer", True),
        ("glasses", "glasses", False),
        ("falls", "fall", True),
        ("knives", "knife", True),
        ("people", "people", True),
        ("bus", "bus", False),
    ],
)
def test_nouns_and_their_plurals(text: str, lemma: str, plural: bool) -> None:
    noun = english().noun(text)
    assert noun is not None
    assert (noun.lemma, noun.plural) == (lemma, plural)


@pytest.mark.parametrize(
    ("word", "lemma", "form", "motion"),
    [
        ("riding", "ride", "ing", True),
        ("swinging", "swing", "ing", True),
        ("running", "run", "ing", True),
        ("drove", "drive", "ed", True),
        ("carries", "carry", "s", True),
        ("chases", "chase", "s", True),
        ("sits", "sit", "s", False),
        ("stopped", "stop", "ed", True),
        ("flies", "fly", "s", True),
    ],
)
def test_verbs_and_their_forms(word: str, lemma: str, form: str, motion: bool) -> None:
    verb = english().verb(word)
    assert verb is not None
    assert (verb.lemma, verb.form, verb.motion) == (lemma, form, motion)


def test_no_word_is_none() -> None:
    assert english().noun("qwrtz") is None
    assert english().verb("qwrtz") is None
    assert not english().knows("läuft")


@pytest.mark.slow
def test_the_lexicon_is_what_wordnet_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        debian_package("wordnet-base", tmp_path)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"Debian's wordnet-base cannot be fetched: {error}")
    shipped = gzip.decompress(lexicon_build.LEXICON.read_bytes())
    monkeypatch.setattr(lexicon_build, "LEXICON", tmp_path / "lexicon.txt.gz")
    lexicon_build.main(tmp_path / "wordnet-base" / "usr" / "share" / "wordnet")
    assert gzip.decompress((tmp_path / "lexicon.txt.gz").read_bytes()) == shipped
