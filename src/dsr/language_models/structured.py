"""Answers of a language model that keep to a schema: asked for, found in its text, checked, asked for again, kept.

Design choices:
- The schema goes out as `response_format` where the server takes it, and in the prompt always: servers differ in what
  they take, and some take it without keeping to it. So the JSON is looked for in the text, wherever it stands (after
  `</think>`, in a fence, between sentences), and checked by pydantic and by the caller's rules.
- What is wrong with an answer is quoted in a further question, a few times at most.
- Each answer of the server is kept as it comes, under a hash of what was asked: model, prompt, images, and for a
  further question the answers before it. So a second run asks nothing and comes to the same result, a killed run loses
  what was under way and no more, and rules that are changed afterwards judge the kept answers anew.
- What a server refuses to answer (HTTP 400 and the like) is not kept: it costs nothing, and may be for the server's
  settings.
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from dsr.console import StageError
from dsr.files import sha256_json
from dsr.language_models.budget import Budget
from dsr.language_models.server import Completion, RefusedError, chat
from dsr.params import LanguageModel
from dsr.text_cache import TextCache

Model = TypeVar("Model", bound=BaseModel)
_STARTS = 100
"""Places in a text at which a JSON object is looked for, at most."""
_QUOTED = 4000
"""Characters of an answer that a further question quotes."""
_PROBLEMS_SHOWN = 3
_REFUSED_AT_FIRST = 8
"""Requests that a server refuses, before it has answered any, after which it is the settings that are wrong."""


class AnswerError(ValueError):
    """An answer that cannot be used; the message is read by the model and by the user."""


@dataclass(frozen=True)
class Prompt:
    """A question to a language model."""

    version: str
    system: str
    user: str
    images: Callable[[], Sequence[str]] | None = None
    """Makes the images, as data URLs, when they are needed."""
    images_are: Any = None
    """JSON value that tells these images from others: a hash, numbers of frames, sizes."""


@dataclass(frozen=True)
class Answer(Generic[Model]):
    """A checked answer, or the reason why there is none."""

    value: Model | None
    problem: str = ""


class Asker:
    """A language model behind a server, with its cache and its budget; threads may share it."""

    def __init__(self, model: LanguageModel, cache: TextCache) -> None:
        self.model, self.cache, self.budget = model, cache, Budget(model)
        self.counts: Counter[str] = Counter()
        """`asked` and `kept` answers, `further` questions, and what went wrong."""
        self.happened: Counter[str] = Counter()
        """Failures that were borne: busy, broken, out of reach."""
        self._schema_taken = model.json_schema
        self.stop = threading.Event()
        """Set when no more is to be asked."""
        self._at: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def ask(self, prompt: Prompt, schema: type[Model], check: Callable[[Model], None]) -> Answer[Model]:
        """Ask until an answer can be used, or questions are used up.

        Args:
            check: raises AnswerError for an answer that keeps to the schema and still cannot be used.

        Raises:
            RefusedError: the server refuses this question.
            StageError: it refuses all, is out of reach, or the budget is used up.
        """
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        problem = ""
        for turn in range(self.model.re_asks + 1):
            if turn:
                self._count("further questions")
            completion = self._completion(messages, prompt, schema)
            problem = completion.problem
            if completion.refused:
                break
            if not problem:
                try:
                    return Answer(_read(completion.text, schema, check))
                except AnswerError as error:
                    problem = str(error)
            self._count(f"answers that could not be used: {_kind(problem)}")
            again = f"That answer cannot be used: {problem}. Answer again, with the JSON object alone."
            messages = [
                *messages,
                {"role": "assistant", "content": completion.text[:_QUOTED] or "(nothing)"},
                {"role": "user", "content": again},
            ]
        return Answer(None, problem)

    def _completion(self, messages: list[dict[str, str]], prompt: Prompt, schema: type[BaseModel]) -> Completion:
        key = sha256_json(
            {
                "model": [self.model.model, self.model.max_tokens, self.model.temperature],
                "prompt": [prompt.version, messages],
                "images": prompt.images_are,
            }
        )
        with self._alone(key):
            if kept := self.cache.texts([key]).get(key):
                self._count("answers from the cache")
            else:
                completion = self._ask_server(self._body(messages, prompt), schema)
                kept = self.cache.keep_first(key, json.dumps(vars(completion), sort_keys=True))
                self._count("answers of the server")
        try:
            return Completion(**json.loads(kept))
        except (TypeError, ValueError):
            raise StageError("the cache of answers holds one that is none: delete the file") from None

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Let one thread at a time be at a question: clips with the same caption ask it once."""
        with self._lock:
            lock = self._at.setdefault(key, threading.Lock())
        with lock:
            yield

    def _body(self, messages: list[dict[str, str]], prompt: Prompt) -> dict[str, Any]:
        system, user, *rest = messages
        content: Any = user["content"]
        if prompt.images:
            parts = [{"type": "image_url", "image_url": {"url": url}} for url in prompt.images()]
            content = [*parts, {"type": "text", "text": user["content"]}]
        body: dict[str, Any] = {
            "model": self.model.model,
            "messages": [system, {"role": "user", "content": content}, *rest],
        }
        if self.model.temperature is not None:
            body["temperature"] = self.model.temperature
        return body | {self.model.max_tokens_key: self.model.max_tokens}

    def _ask_server(self, body: dict[str, Any], schema: type[BaseModel]) -> Completion:
        """The server's answer, without `response_format` where it is for that that it refuses."""
        try:
            if self._schema_taken:
                wanted = {"name": "answer", "strict": True, "schema": strict_schema(schema)}
                with_schema = body | {"response_format": {"type": "json_schema", "json_schema": wanted}}
                try:
                    return chat(self.model, with_schema, self.budget, self.happened, self.stop)
                except RefusedError as error:
                    if error.status not in (400, 422):
                        raise
                    completion = chat(self.model, body, self.budget, self.happened, self.stop)
                    self._schema_taken = False
                    self._count("response_format refused")
                    return completion
            return chat(self.model, body, self.budget, self.happened, self.stop)
        except RefusedError as error:
            self._count("requests refused")
            if not self.counts["answers of the server"] and self.counts["requests refused"] >= _REFUSED_AT_FIRST:
                raise StageError(
                    f"{self.model.url} refuses one request after another: {error}; are curation.llm.model, "
                    "num_frames, max_tokens and temperature what it takes?"
                ) from None
            raise

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1


def strict_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of a model in the part of it that structured output takes: every property required, no others."""

    def strict(node: Any) -> Any:
        if isinstance(node, list):
            return [strict(item) for item in node]
        if not isinstance(node, dict):
            return node
        left_out = ("title", "default", "maxLength", "minLength", "maxItems", "minimum", "maximum")
        kept = {name: strict(value) for name, value in node.items() if name not in left_out or isinstance(value, dict)}
        if "properties" in kept:
            kept |= {"required": list(kept["properties"]), "additionalProperties": False}
        return kept

    found: dict[str, Any] = strict(schema.model_json_schema())
    return found


def json_objects(text: str) -> list[dict[str, Any]]:
    """JSON objects that stand in a text, the last first; what a model thinks aloud before `</think>` is not read.

    >>> json_objects('<think>{"a": 0}</think> Here: ```json\\n{"a": {"b": 1}}\\n``` Done {.')
    [{'a': {'b': 1}}]
    """
    text = text.rpartition("</think>")[2]
    found: list[dict[str, Any]] = []
    place = 0
    for _ in range(_STARTS):
        start = text.find("{", place)
        if start < 0:
            break
        try:
            value, place = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            place = start + 1
        else:
            found.append(value)
    return found[::-1]


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number, strict=False)


def _read(text: str, schema: type[Model], check: Callable[[Model], None]) -> Model:
    """The answer that a text holds: the last object that keeps to the schema.

    Raises:
        AnswerError: there is none, or it fails the check.
    """
    objects = json_objects(text)
    if not objects:
        raise AnswerError("no JSON: there is no complete JSON object in it" if "{" in text else "no JSON in it")
    problems = []
    for value in objects:
        try:
            answer = schema.model_validate(value)
        except ValidationError as error:
            mistakes = error.errors(include_url=False, include_context=False, include_input=False)
            shown = [f"{'.'.join(map(str, m['loc'])) or 'the answer'}: {m['msg']}" for m in mistakes[:_PROBLEMS_SHOWN]]
            problems.append((len(json.dumps(value)), f"wrong schema: {'; '.join(shown)}"))
        else:
            check(answer)
            return answer
    # The largest is what was meant: a smaller one is a part of an answer that is cut off, or an example.
    raise AnswerError(max(problems)[1])


def _kind(problem: str) -> str:
    """Kind of a problem, for the counts.

    >>> _kind("wrong schema: moving: Field required")
    'wrong schema'
    """
    return re.split(r":|\(", problem, maxsplit=1)[0].strip()
