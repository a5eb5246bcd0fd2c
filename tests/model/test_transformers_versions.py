"""What both versions of transformers must give alike."""

from pathlib import Path

from dsr.model import presets

TINY = Path(__file__).parents[2] / "models/tiny"
TEXT = "How does it move (12, 40, 33, 80) from 1.5 s?\nA. forward, then left and up\n"
WORDS = [
    *("How", " does", " it", " move", " (", "12", ", 40", ", 33", ", 80", ")", " from", " 1.5", " s", "?", "\n"),
    *("A", ".", " forward", ", then left and up", "\n"),
]


def test_a_tokenizer_cuts_texts_by_the_rules_in_its_folder() -> None:
    tokenizer = presets._load_processor(TINY).tokenizer
    assert [text for text, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(TEXT)] == [
        word.replace(" ", "Ġ").replace("\n", "Ċ") for word in WORDS
    ]


def test_a_trained_tokenizer_cuts_texts_as_it_did_in_training() -> None:
    tokenizer = presets.train_tokenizer([TEXT] * 3)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode([token]) for token in ids] == WORDS
