"""From the text that a model wrote to one option letter, or to none: a text is never guessed at.

`strict` takes a letter alone, with or without brackets and a full stop. `lenient` looks for an answer in the ways in
which models give one, the most explicit way first: a tag or box, a sentence that names it, a line that begins with it,
an option's own words. The first way that the text uses decides; if it names two letters there, nothing is decided.
What stands inside a <think> block is not an answer.
"""

import re
from collections.abc import Iterator
from typing import Literal

Parser = Literal["strict", "lenient"]

_CLOSED_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_OPEN_THOUGHT = re.compile(r"<think(?:ing)?>.*", re.DOTALL | re.IGNORECASE)
_DENIAL = re.compile(
    r"\b(?:not|never|neither|nor|wrong|incorrect|false|unlikely|except|excluded?)\b|n[’']t\b", re.IGNORECASE
)
_DENIED = re.compile(r"(?:\b(?:not|never|neither|nor|doubt)|n[’']t)\s+(?:\w+\s+){0,3}$", re.IGNORECASE)
"""Before a statement, which then says the contrary."""
_END_OF_THOUGHT = re.compile(r".*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def parse_answer(text: str, options: tuple[str, ...], parser: Parser) -> str:
    """The letter that a text gives as its answer, "" where it gives none or more than one.

    Args:
        options: the texts that the model was offered, "A. …".
    """
    letters = "".join(option[0] for option in options)
    alone = _letter_alone(text, letters)
    if parser == "strict" or alone:
        return alone
    said = _END_OF_THOUGHT.sub("", _CLOSED_THOUGHT.sub("", text))
    said = _OPEN_THOUGHT.sub("", said).replace("**", "").replace("__", "").strip()
    for found in _ways(said, options, letters):
        named = {letter.upper() for letter in found}
        if named:
            return named.pop() if len(named) == 1 else ""
    return ""


def _letter_alone(text: str, letters: str) -> str:
    found = re.fullmatch(rf"\s*[(\[]?\s*([{letters}])\s*[)\]]?\s*[.:]?\s*", text.replace("**", ""), re.IGNORECASE)
    return found[1].upper() if found else ""


def _ways(text: str, options: tuple[str, ...], letters: str) -> Iterator[list[str]]:
    """The letters that each way of answering finds in a text, the most explicit way first."""
    yield [alone] if (alone := _letter_alone(text, letters)) else []
    yield _tagged(text, options, letters)
    yield from _stated(text, options, letters)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    yield [found for line in lines for found in _of_line(line, options, letters)]
    yield [] if _DENIAL.search(text) else re.findall(rf"\(([{letters}])\)", text)


def _tagged(text: str, options: tuple[str, ...], letters: str) -> list[str]:
    """Answer in the last <answer> or box: a letter, a letter with its text, or an option's text."""
    tags = r"<answer>(.*?)</answer>|\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
    insides = [a or b for a, b in re.findall(tags, text, re.DOTALL | re.IGNORECASE)]
    if not insides:
        return []
    return _of_line(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", insides[-1]).strip(), options, letters)


def _stated(text: str, options: tuple[str, ...], letters: str) -> Iterator[list[str]]:
    """The letters that sentences name: as the final answer; then as the answer, the correct or the chosen option."""
    letter = rf"[(\[]?\s*(?:option\s+|choice\s+)?[(\[]?([{letters}])\b[)\]]?"
    is_it = rf"(?:answer|option|choice)(?:\s+\w+){{0,2}}?\s*(?:is|would\s+be|should\s+be|[:=])\s*[:\"'`]*\s*{letter}"
    own_texts = [rf"{option[0]}\b[)\]]?(?:\s*[.:]\s*{re.escape(option[2:].strip(' .'))}\.?)?" for option in options]
    correct = rf"\b(?=([{letters}]))(?:{'|'.join(own_texts)})\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
    chosen = rf"(?:choose|pick|select|go\s+with|opt\s+for)\s+(?:the\s+)?{letter}"
    answers, correct_ones, choices = (
        [*re.finditer(pattern, text, re.IGNORECASE)] for pattern in (is_it, correct, chosen)
    )
    final = [m for m in answers if re.search(r"final\s+(?:answer|choice)", text[max(0, m.start() - 8) : m.end()], re.I)]
    yield _certain(final, text, options, letters)
    yield [
        *_certain([*answers, *choices], text, options, letters),
        *_certain(correct_ones, text, options, letters, closed=True),
    ]


def _certain(
    matches: list[re.Match[str]], text: str, options: tuple[str, ...], letters: str, closed: bool = False
) -> list[str]:
    """The letters of matches that are letters for sure: "a" can be a word, and "A or B" is two.

    Args:
        closed: what follows the letter is part of the match.
    """
    found = []
    for match in matches:
        if _DENIED.search(text[: match.start()]):
            continue
        letter, rest = match[1], text[match.end() if closed else match.end(1) :]
        other = re.match(rf"[)\]\s,]*(?:or|and|/|,|&)\s*(?:option\s+)?[(\[]?([{letters}])\b", rest)
        if other:
            found += [letter, other[1]]
        elif letter.isupper() if closed else _ends_or_continues(letter, rest, options):
            found.append(letter)
    return found


def _ends_or_continues(letter: str, rest: str, options: tuple[str, ...]) -> bool:
    if re.match(r"[)\]\"'`}]*\s*(?:[.,;:!)\]\n]|$|-|–|—)", rest):
        return True
    own = next(option[2:].strip() for option in options if option[0] == letter.upper())
    if _bare(rest).startswith(_bare(own)):
        return True
    return letter.isupper() and bool(re.match(r"\s*\(?\s*(?:because|since|as|given|based|which|is|\()", rest))


def _of_line(line: str, options: tuple[str, ...], letters: str) -> list[str]:
    """Answer that a line gives: a letter at its beginning, or an option's own words and nothing else."""
    if alone := _letter_alone(line, letters):
        return [alone]
    if found := re.match(rf"[(\[]?([{letters}])(?:[)\]]\s*[.:]?|[.:])\s+(\S.*)", line):
        own = next(option[2:].strip() for option in options if option[0] == found[1])
        return [found[1]] if _bare(found[2]).startswith(_bare(own)) or not _DENIAL.search(found[2]) else []
    return [option[0] for option in options if _bare(line) == _bare(option[2:])]


def _bare(text: str) -> str:
    return re.sub(r"[^\w,; ]", "", re.sub(r"\s+", " ", text)).strip().casefold()
