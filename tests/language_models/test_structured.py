"""Answers that keep to a schema: found in any text, checked, asked for again, kept, and paid for once."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from dsr.console import StageError
from dsr.language_models.budget import BudgetError
from dsr.language_models.server import RefusedError
from dsr.language_models.structured import Answer, AnswerError, Asker, Prompt, json_objects, strict_schema
from dsr.params import LanguageModel
from dsr.text_cache import TextCache
from tests.language_models.servers import serving

RIGHT = '{"colour": "red", "number": 3}'


class Painted(BaseModel):
    colour: str
    number: int


def check(answer: Painted) -> None:
    if answer.number < 0:
        raise AnswerError("too small: number is below 0")


def model(url: str, **changes) -> LanguageModel:
    options = {"pause": 0.01, "retries": 2, "timeout": 5.0, "json_schema": False} | changes
    return replace(LanguageModel(url=url, model="toy"), **options)


def ask(asker: Asker, user: str = "Which?", **changes) -> Answer[Painted]:
    return asker.ask(Prompt("1", "You paint.", user, **changes), Painted, check)


def asked(script: Callable[[dict[str, Any], int], Any], **changes) -> tuple[Answer[Painted], Asker, list[Any]]:
    with serving(script) as server, TextCache() as cache:
        asker = Asker(model(server.url, **changes), cache)
        return ask(asker), asker, server.bodies


@pytest.mark.parametrize(
    "text",
    [
        RIGHT,
        f"Here it is:\n```json\n{RIGHT}\n```\nAnything else?",
        f'<think>{{"colour": "blue", "number": 1}} or so {{</think>{RIGHT}',
        f'For example {{"colour": "blue", "number": 1}}. But {RIGHT}',
        f"[{RIGHT}]",
        f"{{ { {1} } }} {RIGHT} }}",
        '{"colour": "red", "number": "3", "why": "it is"}',
    ],
)
def test_json_is_found_wherever_it_stands(text: str) -> None:
    answer, _, bodies = asked(lambda body, number: text)
    assert answer.value == Painted(colour="red", number=3)
    assert len(bodies) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("red", "no JSON in it"),
        (RIGHT[:-3], "no JSON: there is no complete JSON object in it"),
        ('{"colour": "red"}', "wrong schema: number: Field required"),
        ('{"colour": null, "number": NaN}', "no JSON: there is no complete JSON object in it"),
        ('{"colour": "red", "number": -1}', "too small: number is below 0"),
        ("{" * 100_000, "no JSON: there is no complete JSON object in it"),
        ('{"a":' * 100_000, "no JSON: there is no complete JSON object in it"),
        ('{"colour": "red", "number": ' + "9" * 10_000 + "}", "no JSON: there is no complete JSON object in it"),
    ],
)
def test_a_further_question_quotes_what_is_wrong(text: str, problem: str) -> None:
    answer, asker, bodies = asked(lambda body, number: text if number == 1 else RIGHT)
    assert answer.value == Painted(colour="red", number=3)
    system, user, own, again = bodies[1]["messages"]
    assert (system["role"], user["role"], own["role"], again["role"]) == ("system", "user", "assistant", "user")
    assert own["content"] == text[:4000]
    assert again["content"] == f"That answer cannot be used: {problem}. Answer again, with the JSON object alone."
    assert asker.counts["further questions"] == 1


def test_questions_come_to_an_end_and_a_refusal_is_not_argued_with() -> None:
    answer, _, bodies = asked(lambda body, number: "red", re_asks=1)
    assert (answer.value, answer.problem, len(bodies)) == (None, "no JSON in it", 2)
    no = {"choices": [{"message": {"content": None, "refusal": "No."}}]}
    answer, _, bodies = asked(lambda body, number: (200, no, {}))
    assert (answer.value, answer.problem, len(bodies)) == (None, "the model refuses: No.", 1)


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.booleans(), st.none())), st.text("ab {"))
def test_any_object_is_found_after_any_prose(value: dict[str, Any], prose: str) -> None:
    text = json.dumps(value)
    found = json_objects(f"{prose}\n{text}")
    assert value in found or "{" in prose or "</think>" in text


def test_the_schema_goes_out_and_is_left_out_where_it_is_refused() -> None:
    def script(body: dict[str, Any], number: int) -> Any:
        return (400, "unknown field response_format", {}) if "response_format" in body else RIGHT

    with serving(script) as server, TextCache() as cache:
        asker = Asker(model(server.url, json_schema=True), cache)
        assert [ask(asker, f"Which? {i}").value for i in range(3)] == [Painted(colour="red", number=3)] * 3
        assert ["response_format" in body for body in server.bodies] == [True, False, False, False]
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert (schema["required"], schema["additionalProperties"]) == (["colour", "number"], False)
    assert schema == strict_schema(Painted)


def test_temperature_and_the_name_of_the_limit_are_the_users() -> None:
    bodies = asked(lambda body, number: RIGHT)[2]
    assert (bodies[0]["temperature"], bodies[0]["max_tokens"]) == (0.0, 4096)
    bodies = asked(lambda body, number: RIGHT, temperature=None, max_tokens_key="max_completion_tokens")[2]
    assert set(bodies[0]) == {"model", "messages", "max_completion_tokens"}


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    read = []

    def images() -> list[str]:
        read.append(1)
        return ["data:image/jpeg;base64,AA=="]

    with serving(lambda body, number: "hm" if number == 1 else RIGHT) as server:
        for _ in range(2):
            with TextCache(tmp_path / "answers.sqlite") as cache:
                asker = Asker(model(server.url), cache)
                answer = ask(asker, images=images, images_are=["sha", 1])
                assert answer.value == Painted(colour="red", number=3)
        assert len(server.bodies) == len(read) == 2  # the answer that could not be used is kept as well
        assert asker.budget.requests == 0
        with TextCache(tmp_path / "answers.sqlite") as cache:
            for changes in ({"images_are": ["sha", 2]}, {"user": "What?"}):
                before = len(server.bodies)
                ask(Asker(model(server.url), cache), **{"images": images, "images_are": ["sha", 1]} | changes)
                assert len(server.bodies) == before + 1
            for changes in ({"model": "other"}, {"temperature": 0.5}, {"max_tokens": 7}):
                before = len(server.bodies)
                ask(Asker(replace(model(server.url), **changes), cache), images=images, images_are=["sha", 1])
                assert len(server.bodies) == before + 1


def test_more_questions_go_on_from_the_answers_that_are_kept(tmp_path: Path) -> None:
    with serving(lambda body, number: "hm" if number <= 2 else RIGHT) as server:
        with TextCache(tmp_path / "answers.sqlite") as cache:
            assert ask(Asker(model(server.url, re_asks=1), cache)).value is None
        with TextCache(tmp_path / "answers.sqlite") as cache:
            assert ask(Asker(model(server.url, re_asks=2), cache)).value is not None
        assert len(server.bodies) == 3


def test_a_refused_request_is_not_kept_and_a_server_that_refuses_all_stops_the_run() -> None:
    with serving(lambda body, number: (400, "too many images", {})) as server, TextCache() as cache:
        asker = Asker(model(server.url), cache)
        for _ in range(7):
            with pytest.raises(RefusedError, match="HTTP 400: too many images"):
                ask(asker)
        with pytest.raises(StageError, match=r"refuses one request after another: .*too many images.*num_frames"):
            ask(asker)
        server.answer = lambda body, number: RIGHT
        assert ask(asker).value is not None


@pytest.mark.parametrize(
    ("limits", "message", "answered"),
    [
        ({"max_requests": 3}, "curation.llm.max_requests is used up: 3 of 3 requests", 3),
        ({"max_total_tokens": 150}, "curation.llm.max_total_tokens is used up: 220 of 150 tokens", 2),
        ({"max_cost": 1.0, "price_in": 4000.0, "price_out": 10000.0}, "max_cost is used up: 1 of 1 spent", 2),
    ],
)
def test_a_budget_ends_at_its_limit(limits: dict[str, Any], message: str, answered: int) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    reply = {"choices": [{"message": {"content": RIGHT}}], "usage": usage}
    with serving(lambda body, number: (200, reply, {})) as server, TextCache() as cache:
        asker = Asker(model(server.url, **limits), cache)
        for i in range(answered):
            ask(asker, str(i))
        with pytest.raises(BudgetError, match=message):
            ask(asker, "one more")
        assert len(server.bodies) == answered
        assert asker.budget.tokens_in + asker.budget.tokens_out == 110 * answered
        ask(asker, "0")  # what is kept costs nothing


def test_failed_attempts_are_requests_too() -> None:
    with serving(lambda body, number: (500, "", {})) as server, TextCache() as cache:
        with pytest.raises(BudgetError, match="2 of 2 requests"):
            ask(Asker(model(server.url, max_requests=2), cache))
        assert len(server.bodies) == 2


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite").write_text("no database, but long enough for its header to be looked at" * 9)
    with pytest.raises(StageError, match=r"answers\.sqlite is not a cache of answers"):
        TextCache(tmp_path / "answers.sqlite")


def test_an_answer_in_the_cache_that_is_none_is_told(tmp_path: Path) -> None:
    with serving(lambda body, number: RIGHT) as server, TextCache(tmp_path / "answers.sqlite") as cache:
        ask(Asker(model(server.url), cache))
        (key,) = [row[0] for row in sqlite3.connect(tmp_path / "answers.sqlite").execute("SELECT key FROM replies")]
        for damaged in ("", "{", "[]", '{"text": 1, "odd": 2}'):
            cache.keep({key: damaged or "null"})
            with pytest.raises(StageError, match="delete the file"):
                ask(Asker(model(server.url), cache))


def test_the_first_answer_is_the_one_that_is_kept() -> None:
    with TextCache() as cache:
        assert cache.keep_first("key", "one") == "one"
        assert cache.keep_first("key", "two") == "one"
        assert cache.texts(["key", "other"]) == {"key": "one"}
