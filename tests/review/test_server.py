"""The server: what it gives, to whom, and what it refuses."""

import io
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dsr import project as places
from dsr.console import StageError
from dsr.files import write_bytes
from dsr.mcq import read_questions
from dsr.questions.verdicts import read_verdicts
from dsr.review.server import ReviewServer
from dsr.review.session import RefusedError
from tests.review.conftest import Client, command, serving, session_of

PNG = b"\x89PNG\r\n\x1a\n"


def ids(root: Path, clip: str = "clip_00", kind: str = "") -> list[str]:
    pool = read_questions(root / places.POOL)
    return pool[(pool.videoID == clip) & pool.type.str.endswith(kind)]["qa_id"].tolist()


def judge(client: Client, qa_id: str, verdict: str = "accept", **more: Any) -> Any:
    question = client.get(f"question?id={qa_id}")
    client.post("answer", id=qa_id, answer="A")
    previous = question["mine"]["time"] if question["mine"] else ""
    given = {"id": qa_id, "hash": question["hash"], "verdict": verdict, "seconds": 3.2, "previous": previous}
    return client.post("verdict", **(given | more))


# --- To whom ---


@pytest.mark.parametrize(
    ("headers", "token", "status"),
    [
        ({}, None, 200),
        ({}, "wrong", 404),
        ({}, "", 404),
        ({"Host": "evil.example"}, None, 403),
        ({"Host": ""}, None, 403),
        ({"Origin": "http://evil.example"}, None, 403),
        ({"Origin": "null"}, None, 403),
        ({"Sec_Fetch_Site": "cross-site"}, None, 403),
        ({"Sec_Fetch_Site": "same-origin"}, None, 200),
    ],
)
def test_only_the_page_of_this_session_is_answered(client: Client, headers, token, status) -> None:
    assert client.send("GET", "session", None, token, **headers)[0] == status
    assert client.send("POST", "undo", {}, token, **headers)[0] == (400 if status == 200 else status)


def test_the_servers_own_origin_is_answered(client: Client) -> None:
    own = f"http://127.0.0.1:{client.server.server_port}"
    assert client.send("GET", "session", None, Origin=own)[0] == 200


def test_it_listens_on_loopback_alone(client: Client) -> None:
    assert client.server.server_address[0] == "127.0.0.1"
    assert len(client.server.token) >= 32


@pytest.mark.parametrize(
    "name",
    [
        "../params.yaml",
        "%2e%2e/params.yaml",
        "video?id=../params.yaml",
        "params.yaml",
        "review.py",
        "page/index.html",
        "/",
    ],
)
def test_no_path_leads_to_a_file(client: Client, name: str) -> None:
    assert client.send("GET", name)[0] == 404


def test_a_page_may_load_from_its_server_alone_and_has_no_script_of_its_own(client: Client) -> None:
    status, headers, content = client.send("GET", "")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    page = content.decode()
    assert "http" not in page
    for script in page.split("<script")[1:]:
        assert script.split(">")[1].startswith("</script")
    for name in ("review.js", "player.js", "review.css", "icon.svg"):
        status, headers, content = client.send("GET", name)
        assert (status, name in page) == (200, True)
        assert b"innerHTML" not in content


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"verdict=accept", {"Content_Type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {"Content_Type": "text/plain"}, 415),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b" " * 70_000, {}, 413),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(client: Client, body: bytes, headers, status: int) -> None:
    assert client.send("POST", "verdict", body, **headers)[0] == status
    assert client.get("session")["reviewer"] == "ann"


# --- Video ---


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("", 200, 0, None),
        ("bytes=0-", 206, 0, None),
        ("bytes=100-199", 206, 100, 200),
        ("bytes=100-99999999", 206, 100, None),
        ("bytes=-50", 206, -50, None),
        ("bytes=99999999-", 416, 0, 0),
        ("bytes=5-2", 416, 0, 0),
        ("bytes=0-1,5-6", 200, 0, None),
        ("bytes=-", 200, 0, None),
    ],
)
def test_a_video_is_served_in_ranges(client: Client, project: Path, asked, status, start, stop) -> None:
    video = (project / "data/raw/own/clip_00.mp4").read_bytes()
    got, headers, content = client.send("GET", f"video?id={ids(project)[0]}", None, Range=asked)
    assert got == status
    assert content == video[start:stop]
    assert headers["Content-Length"] == str(len(content))
    if status == 206:
        first = start % len(video)
        assert headers["Content-Range"] == f"bytes {first}-{first + len(content) - 1}/{len(video)}"
        assert headers["Content-Type"] == "video/mp4"


def test_a_clip_without_video_says_so(client: Client, project: Path) -> None:
    qa_id = ids(project, "clip_01")[0]
    status, _, content = client.send("GET", f"video?id={qa_id}")
    assert (status, json.loads(content)["problem"]) == (404, "the clip is trajectories alone")
    about = client.get(f"question?id={qa_id}")["about"]
    assert about["video"] == "the clip is trajectories alone"
    named = [entity for entity in about["above"]["entities"] if entity["named"]]
    assert {entity["label"] for entity in named} == {target["label"] for target in about["targets"]}
    assert all(len(entity["places"]) == len(about["above"]["times"]) for entity in about["above"]["entities"])


def test_a_video_outside_of_the_project_is_not_served_and_a_linked_source_folder_is(
    project: Path, tmp_path: Path
) -> None:
    video = project / "data/raw/own/clip_00.mp4"
    elsewhere = tmp_path / "disk/clip_00.mp4"
    elsewhere.parent.mkdir()
    video.rename(elsewhere)
    video.symlink_to(elsewhere)
    with serving(session_of(project)) as server:
        status, _, content = Client(server).send("GET", f"video?id={ids(project)[0]}")
        assert status == 404
        assert "outside of the project's folders" in json.loads(content)["problem"]
    video.unlink()
    video.parent.rmdir()
    video.parent.symlink_to(elsewhere.parent)
    with serving(session_of(project)) as server:
        assert Client(server).send("GET", f"video?id={ids(project)[0]}")[0] == 200


def test_frames_stand_for_a_video_that_a_browser_does_not_play(client: Client, project: Path) -> None:
    qa_id = ids(project)[0]
    about, times = client.get(f"question?id={qa_id}")["about"], client.get(f"frames?id={qa_id}")["times"]
    assert 2 <= len(times) <= 60
    assert times[0] <= about["start"] + 0.2
    assert times[-1] >= min(about["end"], about["last"]) - 0.2
    status, headers, content = client.send("GET", f"frame.jpg?id={qa_id}&n={len(times) - 1}")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(content)).size == (64, 48)
    for number in (len(times), "x", "-1", ""):
        assert client.send("GET", f"frame.jpg?id={qa_id}&n={number}")[0] == 404


def test_a_broken_video_is_a_reason_and_its_question_can_be_judged(project: Path) -> None:
    write_bytes(project / "data/raw/own/clip_00.mp4", b"no video")
    qa_id = ids(project)[0]
    with serving(session_of(project)) as server:
        client = Client(server)
        about = client.get(f"question?id={qa_id}")["about"]
        assert about["video"]
        assert about["tracks"]["times"]
        assert client.send("GET", f"frames?id={qa_id}")[0] == 404
        assert judge(client, qa_id, "reject", reason="target not visible")["state"]["verdict"] == "reject"


# --- What is not told before the answer ---


def test_the_derived_answer_and_what_follows_come_after_the_reviewers_own(client: Client, project: Path) -> None:
    qa_id = ids(project)[0]
    question = client.get(f"question?id={qa_id}")
    assert question["revealed"] is None
    assert not {"answer", "states", "signal"} & (question.keys() | question["about"].keys())
    assert "answer" not in json.dumps(client.get("session"))
    for name in ("explanation", "picture.png"):
        assert client.send("GET", f"{name}?id={qa_id}")[0] == 403
    pool = read_questions(project / places.POOL).set_index("qa_id")
    derived = pool.answer[qa_id]
    wrong = "AB"[derived == "A"]
    assert client.post("answer", id=qa_id, answer=wrong)["derived"] == derived
    # The first own answer stays.
    assert client.post("answer", id=qa_id, answer=derived)["own"] == wrong
    judged = judge(client, qa_id, own_answer=derived)
    assert judged["mine"]["own_answer"] == wrong
    assert client.get(f"question?id={qa_id}")["revealed"] == {"own": wrong, "derived": derived}
    assert client.get(f"explanation?id={qa_id}")["lines"][0].startswith("Closest call: ")
    status, headers, content = client.send("GET", f"picture.png?id={qa_id}")
    assert (status, headers["Content-Type"], content[:8]) == (200, "image/png", PNG)


def test_of_a_prediction_nothing_after_its_stop_is_shown_before_the_answer(client: Client, project: Path) -> None:
    pool = read_questions(project / places.POOL)
    row = pool[pool.type.str.endswith("dir_pred")].iloc[0]
    before = client.get(f"question?id={row.qa_id}")["about"]
    assert before["last"] == before["end"] == before["stated"] == row.end_time
    assert max(before["tracks"]["times"]) <= row.end_time + 1e-3
    assert len(before["moments"]) == 2
    after = client.post("answer", id=row.qa_id, answer="unsure")["about"]
    assert after["last"] > row.end_time
    assert len(after["moments"]) == 3
    assert after["end"] == after["moments"][-1]


@pytest.mark.parametrize("answer", ["E", "", "a", "AB"])
def test_an_answer_that_is_none_is_refused(client: Client, project: Path, answer: str) -> None:
    status, _, content = client.send("POST", "answer", {"id": ids(project)[0], "answer": answer})
    assert status == 400
    assert "an answer is A, B, C, D or unsure" in json.loads(content)["problem"]


def test_explanations_that_nobody_waits_for_any_more_are_not_drawn(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, many = session_of(project), ids(project, "clip_01")
    begun, go_on = threading.Event(), threading.Event()
    drawn: list[str] = []

    def draw(qa_id: str) -> str:
        begun.set()
        assert go_on.wait(30)
        drawn.append(qa_id)
        return "drawn"

    monkeypatch.setattr(session, "_explain", draw)
    session.question(many[0])
    assert begun.wait(30)
    for qa_id in many[1:8]:
        session.question(qa_id)
    session.answer(many[7], "A")
    go_on.set()
    with pytest.raises(RefusedError, match="drawn"):
        session.explanation(many[7])
    # The one that was under way, and the last four.
    assert drawn == [many[0], *many[4:8]]


# --- Verdicts ---


def test_a_verdict_is_a_row_at_once(client: Client, project: Path) -> None:
    qa_id = ids(project)[0]
    judge(client, qa_id, "reject", reason="wrong box", note=" too \n small ")
    (row,) = read_verdicts(project / places.VERDICTS)
    assert (row.qa_id, row.reviewer, row.verdict, row.reason, row.note) == (
        qa_id,
        "ann",
        "reject",
        "wrong box",
        "too small",
    )
    assert (row.own_answer, row.seconds) == ("A", 3.2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "perhaps"}, "verdict must be one of"),
        ({"verdict": "withdraw"}, "verdict must be one of"),
        ({"verdict": "reject"}, "reason must be one of"),
        ({"reason": "other"}, "reason must be"),
        ({"verdict": "edit", "edited_question": "Where?"}, "must not come or go"),
        ({"seconds": "long"}, "seconds must be"),
        ({"seconds": -1}, "seconds must be"),
        ({"note": "a" * 2000}, "note has 2,000 characters"),
        ({"note": "\u202e"}, "note must be printable"),
        ({"hash": "0" * 16}, "the question has changed since"),
        ({"id": "none"}, "no question 'none' in this review"),
    ],
)
def test_a_verdict_that_is_none_is_refused_with_its_reason(client: Client, project: Path, change, said: str) -> None:
    qa_id = ids(project)[0]
    question = client.get(f"question?id={qa_id}")
    client.post("answer", id=qa_id, answer="A")
    given = {"id": qa_id, "hash": question["hash"], "verdict": "accept", "seconds": 1, "previous": ""} | change
    status, _, content = client.send("POST", "verdict", given)
    assert status in (400, 404, 409)
    assert said in json.loads(content)["problem"]
    assert read_verdicts(project / places.VERDICTS) == []


def test_a_verdict_needs_an_answer_first(client: Client, project: Path) -> None:
    qa_id = ids(project)[0]
    given = {"id": qa_id, "hash": client.get(f"question?id={qa_id}")["hash"], "verdict": "accept", "seconds": 1}
    assert client.send("POST", "verdict", given)[0] == 400
    # One that a killed session could not take brings its own.
    assert client.post("verdict", **given, own_answer="B")["mine"]["own_answer"] == "B"


def test_a_verdict_given_in_another_tab_is_not_overwritten_unseen(client: Client, project: Path) -> None:
    qa_id = ids(project)[0]
    first = judge(client, qa_id)
    hash_ = client.get(f"question?id={qa_id}")["hash"]
    late = {"id": qa_id, "hash": hash_, "verdict": "reject", "reason": "other", "seconds": 1, "previous": ""}
    status, _, content = client.send("POST", "verdict", late)
    assert (status, json.loads(content)["current"]["verdict"]) == (409, "accept")
    changed = client.post("verdict", **(late | {"previous": first["mine"]["time"]}))
    assert changed["state"]["verdict"] == "reject"
    assert changed["mine"]["time"] > first["mine"]["time"]


def test_undo_withdraws_the_latest_verdict_by_a_row(client: Client, project: Path) -> None:
    first, second = ids(project)[:2]
    judge(client, first)
    judge(client, second, "reject", reason="too easy")
    assert client.post("undo")["id"] == second
    assert client.get(f"question?id={second}")["revealed"]["own"] == "A"
    states = {q["id"]: q["verdict"] for q in client.get("session")["questions"]}
    assert (states[first], states[second]) == ("accept", "")
    assert client.post("undo")["id"] == first
    assert [row.verdict for row in read_verdicts(project / places.VERDICTS)] == [
        "accept",
        "reject",
        "withdraw",
        "withdraw",
    ]
    assert client.send("POST", "undo", {})[0] == 400


def test_another_reviewers_verdicts_are_seen_once_one_has_judged(project: Path) -> None:
    qa_id = ids(project)[0]
    with serving(session_of(project)) as server:
        judge(Client(server), qa_id, "reject", reason="too easy")
    with serving(session_of(project, reviewer="ben")) as server:
        ben = Client(server)

        def state() -> Any:
            return next(q for q in ben.get("session")["questions"] if q["id"] == qa_id)

        assert state() == {"id": qa_id, "type": state()["type"], "verdict": "", "others": 1, "stale": False}
        judge(ben, qa_id)
        assert state()["disputed"]
        # Ann's verdict is not Ben's to withdraw.
        ben.post("undo")
        assert ben.send("POST", "undo", {})[0] == 400


def test_a_session_goes_on_where_another_ended_and_takes_up_what_is_merged(project: Path) -> None:
    first, second = ids(project)[:2]
    with serving(session_of(project)) as server:
        judge(Client(server), first)
    with serving(session_of(project)) as server, serving(session_of(project)) as other:
        client = Client(server)
        judge(Client(other), second, "reject", reason="other", note="a merge")
        states = {q["id"]: q["verdict"] for q in client.get("session")["questions"]}
        assert (states[first], states[second]) == ("accept", "reject")


def test_an_edit_is_mine_in_the_benchmark_that_has_it(project: Path) -> None:
    from dsr.questions import split
    from tests.small_project import PARAMS

    bench = read_questions(project / places.BENCH)
    qa_id, text = bench.qa_id[0], f"Now: {bench.question[0]}"
    with serving(session_of(project, places.BENCH)) as server:
        client = Client(server)
        assert judge(client, qa_id, "edit", edited_question=text)["mine"]["edited_question"] == text
    split.run(PARAMS, project)
    with serving(session_of(project, places.BENCH)) as server:
        client = Client(server)
        question = client.get(f"question?id={qa_id}")
        assert (question["question"], question["state"]["verdict"]) == (text, "edit")
        assert question["revealed"]
        # Judged again, it is the new wording's verdict that counts, and the split keeps the wording.
        judge(client, qa_id, "accept")
    split.run(PARAMS, project)
    assert read_questions(project / places.BENCH).question[0] == text


def test_a_verdict_on_a_text_that_has_changed_is_stale(project: Path) -> None:
    qa_id = ids(project)[0]
    with serving(session_of(project)) as server:
        judge(Client(server), qa_id)
    pool = read_questions(project / places.POOL)
    pool.loc[pool.qa_id == qa_id, "question"] = "What now?"
    from dsr.files import write_parquet

    write_parquet(project / places.POOL, pool)
    with serving(session_of(project)) as server:
        question = Client(server).get(f"question?id={qa_id}")
        assert question["state"] == {"verdict": "", "others": 0, "stale": True}
        assert question["revealed"] is None


def test_a_file_of_verdicts_that_is_broken_is_said_and_not_written_to(client: Client, project: Path) -> None:
    path = project / places.VERDICTS
    path.write_text("<<<<<<< HEAD\n")
    status, _, content = client.send("GET", "session")
    assert status == 500
    assert "review.csv, line 1" in json.loads(content)["problem"]
    assert path.read_text() == "<<<<<<< HEAD\n"


def test_a_disk_that_is_full_is_said(client: Client, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dsr.questions.verdicts.write_bytes", full)
    qa_id = ids(project)[0]
    hash_ = client.get(f"question?id={qa_id}")["hash"]
    client.post("answer", id=qa_id, answer="A")
    given = {"id": qa_id, "hash": hash_, "verdict": "accept", "seconds": 1}
    status, _, content = client.send("POST", "verdict", given)
    assert (status, "No space left" in json.loads(content)["problem"]) == (500, True)
    assert client.get(f"question?id={qa_id}")["mine"] is None


# --- The process ---


def test_a_port_that_is_taken_is_said_when_it_was_asked_for(project: Path) -> None:
    session = session_of(project)
    with serving(session) as server, pytest.raises(StageError, match=f"port {server.server_port} cannot be used"):
        ReviewServer(session, server.server_port)


@pytest.mark.slow
def test_the_command_ends_by_a_signal_and_a_killed_one_has_kept_its_verdicts(project: Path) -> None:
    qa_id = read_questions(project / places.BENCH).qa_id[0]
    for number, ending in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        with command(project, f"r{number}") as (process, client):
            judge(client, qa_id)
            os.kill(process.pid, number)
            rest = process.communicate(timeout=30)[1]
            assert process.returncode == ending
            assert ("1 verdicts given" in rest) == (number == signal.SIGTERM)
    assert [row.reviewer for row in read_verdicts(project / places.VERDICTS)] == ["r15", "r9"]
