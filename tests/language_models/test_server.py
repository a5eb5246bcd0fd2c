"""Requests to a chat server: how its moods are borne, and that the key stays secret."""

import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from dsr.console import StageError
from dsr.language_models.server import RefusedError, answers, chat
from dsr.params import ChatServer
from tests.language_models.servers import drip, hang, reset, serving

KEY = "sk-very-secret"
BODY = {"model": "toy", "messages": []}


def endpoint(url: str, **changes) -> ChatServer:
    return replace(ChatServer(url=url, model="toy", pause=0.01, retries=2, timeout=5), **changes)


def test_a_busy_server_is_asked_again() -> None:
    moods = [(429, "slow down", {"Retry-After": "0.02"}), (503, "overloaded", {}), "C"]
    with serving(lambda body, number: moods[number - 1]) as server:
        assert chat(endpoint(server.url), BODY).text == "C"
        assert len(server.bodies) == 3


@pytest.mark.parametrize("broken", ["", "no json", '{"choices": '])
def test_a_garbled_answer_is_asked_for_again(broken: str) -> None:
    with serving(lambda body, number: (200, broken, {}) if number == 1 else "D") as server:
        assert chat(endpoint(server.url), BODY).text == "D"


def test_a_server_that_stays_busy_is_an_error_that_says_what_to_do() -> None:
    with (
        serving(lambda body, number: (503, "overloaded", {})) as server,
        pytest.raises(StageError, match=r"no answer in 3 attempts \(HTTP 503: overloaded\).*run the command again"),
    ):
        chat(endpoint(server.url), BODY)
    with pytest.raises(StageError, match="no answer in 1 attempts"):
        chat(endpoint(server.url, retries=0), BODY)  # nobody listens any more


def test_a_refusal_stops_at_once_and_does_not_show_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)
    with serving(lambda body, number: (401, f"wrong key {KEY}", {})) as server:
        with pytest.raises(StageError, match="refuses: HTTP 401: wrong key …") as caught:
            chat(endpoint(server.url, api_key_env="TOY_KEY"), BODY)
        assert len(server.bodies) == 1
        assert KEY not in str(caught.value)
        monkeypatch.delenv("TOY_KEY")
        with pytest.raises(StageError, match="is TOY_KEY set"):
            chat(endpoint(server.url, api_key_env="TOY_KEY"), BODY)
        assert "Authorization" not in server.headers[1]


def test_a_redirect_does_not_take_the_key_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda body, number: "A") as other:
        with (
            serving(lambda body, number: (302, "", {"Location": f"{other.url}/chat/completions"})) as server,
            pytest.raises(StageError, match="HTTP 302"),
        ):
            chat(endpoint(server.url), BODY)
        assert not other.bodies


def test_an_answer_of_another_form_is_refused() -> None:
    numbers = {"choices": [{"message": {"content": [1]}}]}
    for other in ({"result": "A"}, {"error": {"message": "too long"}}, {"choices": []}, ["A"], numbers):
        with serving(lambda body, number, other=other: (200, other, {})) as server:
            with pytest.raises(RefusedError, match="choices"):
                chat(endpoint(server.url), BODY)
            assert len(server.bodies) == 1
    parts = {"choices": [{"message": {"content": [{"type": "text", "text": "A"}]}}]}
    with serving(lambda body, number: (200, parts, {})) as server:
        assert chat(endpoint(server.url), BODY).text == "A"
    with serving(lambda body, number: (200, {"choices": [{"message": {"content": None}}]}, {})) as server:
        assert chat(endpoint(server.url), BODY).text == ""


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}\r\n"])
def test_a_line_end_after_the_key_is_not_part_of_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving(lambda body, number: f"The key is {KEY}: A") as server:
        assert chat(endpoint(server.url), BODY).text == "The key is …: A"
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_key_that_no_header_can_hold_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n{KEY}")
    with serving(lambda body, number: "A") as server:
        with pytest.raises(StageError, match="OPENAI_API_KEY holds a line end") as caught:
            chat(endpoint(server.url), BODY)
        assert not server.bodies
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("before", [0, 280, 4085, 4090, 5000])
def test_an_echoed_key_is_not_shown_wherever_it_stands(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for filler in ("x", " "):
        with serving(lambda body, number, filler=filler: (400, filler * before + KEY, {})) as server:
            with pytest.raises(RefusedError) as caught:
                chat(endpoint(server.url), BODY)
            assert KEY[:6] not in str(caught.value)


@pytest.mark.parametrize("mood", [hang, drip])
def test_a_server_that_does_not_come_to_an_end_is_left_in_time(mood) -> None:
    happened: Counter[str] = Counter()
    with serving(lambda body, number: mood if number == 1 else "A") as server:
        assert chat(endpoint(server.url, timeout=0.3, retries=9), BODY, happened=happened).text == "A"
    assert happened["no answer in time"] >= 1


def test_a_broken_connection_is_tried_again() -> None:
    happened: Counter[str] = Counter()
    with serving(lambda body, number: reset if number <= 2 else "A") as server:
        assert chat(endpoint(server.url), BODY, happened=happened).text == "A"
        assert len(server.bodies) == 3
    assert happened == {"connection lost": 2}


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    with serving(lambda body, number: "x" * (2 << 20)) as server:
        answer = chat(endpoint(server.url), BODY)
    assert (answer.text, answer.problem) == ("", "the answer is longer than 1 MiB")


@pytest.mark.parametrize("asked", ["90000", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_server_that_asks_for_a_pause_of_a_day_stops_the_run(asked: str) -> None:
    with serving(lambda body, number: (429, "quota", {"Retry-After": asked})) as server:
        with pytest.raises(StageError, match=r"asks to be left alone for \d+ s .*run the command again after that"):
            chat(endpoint(server.url), BODY)
        assert len(server.bodies) == 1


@pytest.mark.parametrize("asked", ["", "soon", "-3", "nan", "inf", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_pause_that_says_nothing_is_that_of_the_parameters(asked: str) -> None:
    with serving(lambda body, number: (429, "", {"Retry-After": asked}) if number == 1 else "A") as server:
        assert chat(endpoint(server.url), BODY).text == "A"


@pytest.mark.parametrize(
    ("choice", "problem", "refused"),
    [
        ({"message": {"content": None, "refusal": "I will not"}}, "the model refuses: I will not", True),
        ({"message": {"content": ""}, "finish_reason": "content_filter"}, "the model refuses: content_filter", True),
        ({"message": {"content": " \n"}}, "the answer is empty", False),
        ({"message": {"content": ""}, "finish_reason": "length"}, "the answer is empty (cut off at max_tokens)", False),
        ({"message": {"content": '{"a'}, "finish_reason": "length"}, "the answer is cut off at max_tokens", False),
        ({"message": {"content": "", "reasoning_content": "Hm."}}, "the answer is empty", False),
    ],
)
def test_an_answer_that_says_nothing_says_why(choice, problem: str, refused: bool) -> None:
    with serving(lambda body, number: (200, {"choices": [choice]}, {})) as server:
        answer = chat(endpoint(server.url), BODY)
    assert (answer.problem, answer.refused) == (problem, refused)


def test_tokens_are_the_servers_or_an_estimate() -> None:
    usage = {"prompt_tokens": 120, "completion_tokens": 7}
    message = {"choices": [{"message": {"content": "four"}}]}
    with serving(lambda body, number: (200, message | {"usage": usage if number == 1 else None}, {})) as server:
        url = {"type": "image_url", "image_url": {"url": "data:"}}
        body = {"model": "toy", "messages": [{"role": "user", "content": [url, {"type": "text", "text": "12345"}]}]}
        told, guessed = (chat(endpoint(server.url), body) for _ in range(2))
    assert (told.tokens_in, told.tokens_out) == (120, 7)
    assert (guessed.tokens_in, guessed.tokens_out) == (1002, 1)  # 1,000 an image, 4 characters a token
    odd = {"prompt_tokens": -1, "completion_tokens": True}
    with serving(lambda body, number: (200, message | {"usage": odd}, {})) as server:
        assert chat(endpoint(server.url), body).tokens_in == 1002


def test_text_that_no_file_takes_is_replaced() -> None:
    payload = '{"choices": [{"message": {"content": "a\\ud800b"}}]}'
    with serving(lambda body, number: (200, payload, {})) as server:
        assert chat(endpoint(server.url), BODY).text == "a?b"


def test_what_pauses_when_the_run_stops_is_not_waited_for() -> None:
    """The first request is told to wait for ten minutes; the second finds a wrong key."""
    paused = threading.Event()

    def script(body: dict[str, Any], number: int) -> Any:
        if number == 1:
            paused.set()
            return 429, "wait", {"Retry-After": "600"}
        assert paused.wait(20)
        return 401, "wrong key", {}

    stop = threading.Event()
    with serving(script) as server:
        asked = answers(lambda place: chat(endpoint(server.url), BODY, stop=stop), range(9), 2, stop)
        with pytest.raises(StageError, match="HTTP 401: wrong key"):
            list(asked)
        assert len(server.bodies) == 2


def test_answers_are_given_as_they_come_and_none_twice() -> None:
    with serving(lambda body, number: str(body["n"])) as server:
        ask = lambda place: chat(endpoint(server.url), BODY | {"n": place}).text  # noqa: E731
        found = dict(answers(ask, range(20), 3, threading.Event()))
    assert found == {place: str(place) for place in range(20)}
