"""The page in a browser: by keyboard, through broken videos, other tabs, killed servers and hostile texts."""

from collections.abc import Iterator
from pathlib import Path

import av
import pandas as pd
import pytest

from dsr import project as places
from dsr.files import write_bytes
from dsr.mcq import read_questions
from dsr.params import Params
from dsr.questions import split
from dsr.questions.verdicts import read_verdicts
from dsr.review.session import Session
from tests.review.browser import Page, chromium, needs_browser
from tests.review.conftest import command, free_port, serving, session_of
from tests.small_project import HOSTILE, PARAMS

pytestmark = [pytest.mark.slow, pytest.mark.browser, needs_browser]
ENTER, ESCAPE, BACKSPACE, END = "\ue007", "\ue00c", "\ue003", "\ue010"
LEFT, RIGHT, DOWN = "\ue012", "\ue014", "\ue015"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield Page(driver)


@pytest.fixture(autouse=True)
def _one_window(page: Page) -> Iterator[None]:
    page.complaints()
    yield
    first, *others = page.driver.window_handles
    for handle in others:
        page.driver.switch_to.window(handle)
        page.driver.close()
    page.driver.switch_to.window(first)
    page.driver.set_window_size(1280, 900)
    page.driver.get("about:blank")


def rows(root: Path) -> list[tuple[str, str, str]]:
    return [(row.qa_id, row.verdict, row.reason) for row in read_verdicts(root / places.VERDICTS)]


def with_video(root: Path) -> list[str]:
    pool = read_questions(root / places.POOL)
    return pool[pool.videoID == "clip_00"]["qa_id"].tolist()


def test_a_whole_session_by_keyboard(project: Path, page: Page) -> None:
    ids = read_questions(project / places.BENCH).qa_id.tolist()
    with serving(session_of(project, places.BENCH)) as server:
        page.open(server.address)
        assert page.qa_id == ids[0]
        assert page.text("count") == f"0 of {len(ids)} reviewed, 0 rejected, 0 edited"
        page.press(ENTER)
        assert page.text("status").startswith("Answer first")
        assert not page.shown("revealed")
        # Accepted.
        page.answer("c")
        assert page.text("derived").startswith(("You agree: C", "You say C; derived: "))
        page.judge(ENTER)
        # Rejected for a reason, by its number.
        page.answer("4")
        page.press("r")
        assert page.shown("reasons")
        page.judge("2")
        # Rejected with a note: "other" asks for one.
        page.answer("0")
        assert page.text("derived").startswith("You cannot tell; derived: ")
        page.press("r", "6")
        assert page.text("status").startswith("Say what it is in the note")
        page.press("a rabbit, 2 of them!")
        page.judge(ENTER)
        # Edited; a wording without its numbers is refused, with its reason.
        page.answer("a")
        page.press("e", " Right", BACKSPACE * 5, "or?", ENTER)
        page.wait(lambda: not page.run("return busy") and page.qa_id != ids[3], "the next question")
        page.answer("b")
        page.press("e")
        page.run("element('wording').value = 'Where?'")
        page.press(ENTER)
        page.wait(lambda: page.shown("banner"), "a refusal")
        assert "must not come or go" in page.text("banner")
        page.press(ESCAPE)
        assert not page.shown("editor")
        page.judge(ENTER)
        assert page.text("count") == f"5 of {len(ids)} reviewed, 2 rejected, 1 edited"
        # Undone, and given otherwise.
        page.press("u")
        page.wait(lambda: page.qa_id == ids[4] and page.text("status").startswith("Withdrawn"), "the last question")
        assert page.run("return current.revealed.own") == "B"
        page.press("r")
        page.judge("5")
        given = read_verdicts(project / places.VERDICTS)
        assert rows(project) == [
            (ids[0], "accept", ""),
            (ids[1], "reject", "unclear wording"),
            (ids[2], "reject", "other"),
            (ids[3], "edit", ""),
            (ids[4], "accept", ""),
            (ids[4], "withdraw", ""),
            (ids[4], "reject", "too easy"),
        ]
        assert [row.own_answer for row in given] == ["C", "D", "unsure", "A", "B", "", "B"]
        assert given[2].note == "a rabbit, 2 of them!"
        assert given[3].edited_question.endswith("or?")
        assert all(0 < row.seconds < 60 for row in given if row.verdict != "withdraw")
        # Loaded again, it goes on where it was; another session begins with what is left.
        page.press("p")
        page.wait(lambda: page.qa_id == ids[4], "the question before")
        page.driver.refresh()
        page.wait(lambda: page.run("return Boolean(current)") and page.qa_id == ids[4], "the same question")
        page.open(server.address)
        assert page.qa_id == ids[5]
        # "409" and "400" are refusals that the page shows.
        assert [line for line in page.complaints() if "400 (Bad Request)" not in line] == []
    split.run(PARAMS, project)
    bench = read_questions(project / places.BENCH).set_index("qa_id")
    assert not {ids[1], ids[2], ids[4]} & set(bench.index)
    assert ids[3] not in bench.index or bench.question[ids[3]].endswith("or?")


def test_filters_by_type_and_state(project: Path, page: Page) -> None:
    pool = read_questions(project / places.POOL)
    kind = pool.type.value_counts().index[-1]
    own = pool[pool.type == kind]["qa_id"].tolist()
    with serving(session_of(project)) as server:
        page.open(server.address)
        page.press("t", *[DOWN] * (1 + sorted(set(pool.type)).index(kind)))
        page.wait(lambda: page.qa_id == own[0], "the first of the type")
        page.press(ESCAPE)
        seen = []
        for _ in range(3):
            seen.append(page.qa_id)
            page.answer("a")
            page.judge(ENTER)
        assert seen == own[:3]
        page.press("f", DOWN, DOWN)
        page.wait(lambda: page.qa_id == own[0], "the first accepted one")
        page.press(ESCAPE, "n")
        page.wait(lambda: page.qa_id == own[1], "the second accepted one")
        page.press("f", END)
        page.wait(lambda: page.text("status") == "No question matches the filter.", "nothing")


def test_boxes_are_drawn_at_the_moment_that_the_question_gives(project: Path, page: Page) -> None:
    pool = read_questions(project / places.POOL).set_index("qa_id")
    qa_id = next(i for i in with_video(project) if any(len(box) for box in pool.boxes[i]) and pool.start_time[i] > 0.3)
    with serving(session_of(project)) as server:
        page.open(f"{server.address}#{qa_id}")
        page.wait(lambda: page.run("return player.byVideo && video.readyState >= 2"), "the video")
        drawn = """
            const place = current.about.targets.findIndex((target) => target.box.length);
            const [left, top] = current.about.targets[place].box, canvas = element("overlay");
            const x = left * canvas.width / current.about.width, y = (top + 4) * canvas.height / current.about.height;
            return canvas.getContext("2d").getImageData(Math.max(x - 1, 0), Math.max(y, 0), 3, 1).data.some(Boolean)"""
        page.press("h")
        page.wait(lambda: page.run(drawn), "a box")
        stated = page.run("return player.time")
        assert stated == pytest.approx(page.run("return current.about.stated"), abs=0.1)
        page.press(RIGHT)
        page.wait(lambda: not page.run(drawn), "no box")
        assert page.run("return player.time") > stated
        page.press(LEFT)
        page.wait(lambda: page.run(drawn), "the box again")
        # Between the key moments, and slower.
        page.press("s", "s")
        assert page.text("rate") == "0.25"
        page.press(" ")
        page.wait(
            lambda: page.run("return player.playing && !video.paused && player.time > current.about.start"), "play"
        )
        assert page.run("return video.playbackRate") == 0.25
        assert page.run("return player.span()") == page.run("return [current.about.start, current.about.end]")
        page.press("w")
        assert page.run("return player.span()") == page.run("return [current.about.first, current.about.last]")


def unplayable(path: Path) -> None:
    """Turn a video into a codec that browsers do not have."""
    frames = [frame.to_ndarray(format="rgb24") for frame in av.open(path).decode(video=0)]
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def test_a_video_that_the_browser_does_not_play_comes_as_frames(project: Path, page: Page) -> None:
    unplayable(project / "data/raw/own/clip_00.mp4")
    with serving(session_of(project)) as server:
        page.open(f"{server.address}#{with_video(project)[0]}")
        page.wait(lambda: "single frames" in page.text("problem"), "frames")
        page.wait(lambda: page.run("return player.images.every((image) => image.naturalWidth)"), "the frames' images")
        page.press("h")
        page.wait(
            lambda: page.run("return sized(element('overlay')).getImageData(5, 5, 1, 1).data[3]") == 255, "a picture"
        )


def test_a_broken_video_costs_its_picture_alone(project: Path, page: Page) -> None:
    write_bytes(project / "data/raw/own/clip_00.mp4", b"\0" * 2000)
    qa_id = with_video(project)[0]
    with serving(session_of(project)) as server:
        page.open(f"{server.address}#{qa_id}")
        page.wait(lambda: page.text("problem").startswith("No video: "), "the reason")
        page.answer("a")
        page.press("r")
        page.judge("3")
        assert rows(project) == [(qa_id, "reject", "target not visible")]


def test_two_tabs_do_not_overwrite_each_other(project: Path, page: Page) -> None:
    with serving(session_of(project)) as server:
        page.open(server.address)
        first, qa_id = page.driver.current_window_handle, page.qa_id
        page.answer("a")
        # A tab that is not looked at again takes up nothing.
        page.run("addEventListener('visibilitychange', (event) => event.stopImmediatePropagation(), true)")
        page.driver.switch_to.new_window("tab")
        page.open(f"{server.address}#{qa_id}")
        page.judge(ENTER)
        page.driver.switch_to.window(first)
        page.press("r", "1")
        page.wait(lambda: "judged this question elsewhere: accepted" in page.text("banner"), "the other verdict")
        assert page.qa_id == qa_id
        page.wait(lambda: "accepted" in page.text("derived"), "what stands")
        assert rows(project) == [(qa_id, "accept", "")]
        # Seen, it may be changed; a tab that is looked at again shows what stands.
        page.press("r")
        page.judge("1")
        assert rows(project)[1:] == [(qa_id, "reject", "wrong label")]
        page.driver.switch_to.window(page.driver.window_handles[1])
        page.run("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait(lambda: ", 1 rejected," in page.text("count"), "the other tab's count")


def test_a_verdict_that_a_killed_server_did_not_take_is_sent_to_the_next_one(project: Path, page: Page) -> None:
    port = free_port()
    with command(project, port=port) as (process, client):
        page.open(f"http://127.0.0.1:{port}/{client.server.token}/")
        qa_id = page.qa_id
        page.answer("b")
        process.kill()
        process.wait()
        page.press("r", "2")
        page.wait(lambda: "The server does not answer" in page.text("banner"), "a warning")
        assert "is kept in this browser" in page.text("banner")
        assert rows(project) == []
    with command(project, port=port) as (_, client):
        page.open(f"http://127.0.0.1:{port}/{client.server.token}/")
        assert rows(project) == [(qa_id, "reject", "unclear wording")]
        assert read_verdicts(project / places.VERDICTS)[0].own_answer == "B"
        assert page.qa_id != qa_id
        page.driver.refresh()
        page.wait(lambda: page.run("return Boolean(current)"), "a question")
    assert len(rows(project)) == 1


def test_hostile_texts_are_texts(project: Path, page: Page) -> None:
    pool = read_questions(project / places.POOL)
    image = "<img src=x onerror=alert(1)>"
    pool["question"] = HOSTILE + pool.question
    pool["options"] = [[f"{letter}. {image}{letter}" for letter in "ABCD"]] * len(pool)
    session = Session(PARAMS, project, pool, f"{image}&amp;")
    with serving(session) as server:
        named = pool[[HOSTILE in labels for labels in pool.labels.map(list)]]["qa_id"].iloc[0]
        page.open(f"{server.address}#{named}")
        assert page.text("question").startswith(HOSTILE)
        page.answer("a")
        page.wait(lambda: page.text("lines"), "the explanation")
        page.press("e")
        assert page.text("who") == f"as {image}&amp;"
        assert image in page.text("options")
        labels = page.run("return [...document.querySelectorAll('#targets span')].map((e) => e.textContent)")
        assert any(HOSTILE in label for label in labels)
        pictures = "main script, main img:not(#picture), header img"
        assert page.run("return document.querySelectorAll(arguments[0]).length", pictures) == 0
        assert page.complaints() == []


def test_five_thousand_questions_are_no_more_page_than_ten(project: Path, page: Page) -> None:
    pool = read_questions(project / places.POOL)
    many = pd.concat([pool] * (5000 // len(pool) + 1), ignore_index=True)[:5000]
    many["qa_id"] = [f"{qa_id}-{number}" for number, qa_id in enumerate(many.qa_id)]
    counts = []
    for questions in (many, many[:10]):
        with serving(Session(Params(), project, questions, "ann")) as server:
            page.open(server.address)
            assert page.text("about").startswith(f"1 of {len(questions)}")
            page.press("p")
            page.wait(lambda last=questions.qa_id.iloc[-1]: page.qa_id == last, "the last question")
            page.press("j")
            page.wait(lambda first=questions.qa_id.iloc[0]: page.qa_id == first, "the first question")
            counts.append(page.run("return document.querySelectorAll('*').length"))
    assert abs(counts[0] - counts[1]) < 20


def test_everything_has_a_name_and_fits_a_narrow_window(project: Path, page: Page) -> None:
    with serving(session_of(project)) as server:
        page.open(server.address)
        page.answer("a")
        page.press("r")
        for width in (1280, 360):
            page.driver.set_window_size(width, 800)
            assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
        controls = page.driver.find_elements("css selector", "button, select, input, textarea, video, canvas, img")
        shown = [control for control in controls if control.is_displayed()]
        assert len(shown) > 20
        assert [control.get_attribute("id") for control in shown if not control.accessible_name] == []
        buttons = page.driver.find_elements("css selector", "[aria-keyshortcuts]")
        keys = {button.get_attribute("aria-keyshortcuts") for button in buttons}
        assert {"Enter", "r", "e", "u", "n", "p", "j", "Space", "ArrowLeft", "ArrowRight"} <= keys
        page.press(ESCAPE, "?")
        assert page.run("return element('help').open")
        page.press(ESCAPE)
        page.wait(lambda: not page.run("return element('help').open"), "no help")
