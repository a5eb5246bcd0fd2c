"""Parser of question texts: the form, who is mentioned in which role with which box, the times.

It is for attackers, which know no more than a model does, and for tables that do not say what a question was made from
(the pool does: its columns form, wording, labels and boxes).

Patterns are made from the wordings themselves, so that a new wording is read without a change here.
"""

import re
from dataclasses import dataclass
from functools import cache

from dsr.questions.language.families import FORMS
from dsr.questions.language.templates import ROLES

_MENTION = r"the camera|the [^()\[\]]+? \(box \[[^\]]*\] at [\d.]+ s\)"
_TRACK = re.compile(r"the (.+) \(box \[(-?\d+), (-?\d+), (-?\d+), (-?\d+)\] at [\d.]+ s\)", re.IGNORECASE)
_TIME = r"\d+(?:\.\d+)? s\b"
_FIELDS = {
    "moment": _TIME,
    "start": _TIME,
    "end": _TIME,
    "interval": rf"(?:between {_TIME} and {_TIME}|from {_TIME} to {_TIME})",
}


@dataclass(frozen=True)
class Mention:
    label: str
    box: tuple[int, int, int, int] | None
    """xyxy in pixels; None for the camera."""


@dataclass(frozen=True)
class ParsedQuestion:
    form: int | None
    """Index into FORMS, None for a text that is no wording of ours."""
    wording: int
    """Index into the form's wordings."""
    mentions: dict[str, Mention]
    """Mentions by role; in order of appearance where the form is not known."""
    times: tuple[float, ...]
    """Seconds, but for those at which the boxes are given."""
    plain: str
    """The text without mentions and times."""


def parse_question(text: str, question_type: str) -> ParsedQuestion:
    """Parse the text of a question; any text is parsed, as far as possible."""
    bare = re.sub(_MENTION, "", text, flags=re.IGNORECASE)
    times = tuple(float(t.removesuffix(" s")) for t in re.findall(_TIME, bare))
    plain = re.sub(_TIME, "", bare)
    for form, wording, pattern in _patterns().get(question_type, ()):
        found = pattern.fullmatch(text)
        if found:
            mentions = {role: _mention(m) for role, m in found.groupdict().items()}
            return ParsedQuestion(form, wording, mentions, times, plain)
    mentioned = re.findall(_MENTION, text, re.IGNORECASE)
    mentions = {role: _mention(m) for role, m in zip(ROLES, mentioned, strict=False)}
    return ParsedQuestion(None, 0, mentions, times, plain)


def _mention(text: str) -> Mention:
    track = _TRACK.fullmatch(text)
    if track is None:
        return Mention("camera", None)
    x1, y1, x2, y2 = (int(v) for v in track.groups()[1:])
    return Mention(track.group(1), (x1, y1, x2, y2))


@cache
def _patterns() -> dict[str, list[tuple[int, int, re.Pattern[str]]]]:
    """Forms, wordings and their patterns of each type, with a group for every role."""
    patterns: dict[str, list[tuple[int, int, re.Pattern[str]]]] = {}
    for index, form in enumerate(FORMS):
        for number, wording in enumerate(form.wordings):
            compiled = re.compile(_pattern(wording), re.IGNORECASE)
            patterns.setdefault(form.type, []).append((index, number, compiled))
    return patterns


def _pattern(wording: str) -> str:
    """Regular expression of the questions in a wording; its fields are in braces."""
    seen = set()
    parts = []
    for part in re.split(r"(\{\w+\})", wording):
        name = part.strip("{}").lower()
        if not part.startswith("{"):
            parts.append(re.escape(part))
        elif name in ROLES:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{_MENTION})")
            seen.add(name)
        else:
            parts.append(_FIELDS[name])
    return "".join(parts)
