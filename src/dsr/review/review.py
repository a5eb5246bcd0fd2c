"""`dsr review`: people look at questions, answer them, and accept, reject or edit them."""

import getpass
import signal
import subprocess
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import pandas as pd

from dsr import console, project
from dsr.console import StageError
from dsr.mcq import read_questions
from dsr.params import Params
from dsr.questions.verdicts import LONGEST_NAME, read_verdicts
from dsr.review.sampling import By, doubted_labels, draw_sample, margins_of
from dsr.review.server import ReviewServer
from dsr.review.session import Session


def run(
    params: Params,
    root: Path,
    table: Path = project.BENCH,
    qa_ids: Sequence[str] = (),
    sample: int = 0,
    by: By = "type",
    reviewer: str = "",
    port: int | None = None,
    open_browser: bool = False,
    workers: int = 0,
) -> None:
    """Serve the page until Ctrl-C or a signal to end.

    Args:
        table: of questions, from the project folder on.
        qa_ids: those to review, in this order; all of the table without.
        sample: how many to draw, the most urgent first; 0 for all in the table's order.
        reviewer: name in the file of verdicts; by default git's user.name, or else the login.

    Raises:
        StageError: no such questions, a bad row among the verdicts, or a port that is taken.
    """
    questions = choose(params, root, table, qa_ids, sample, by, workers)
    name = reviewer_name(reviewer, root)
    read_verdicts(root / project.VERDICTS)
    session = Session(params, root, questions, name)
    with ReviewServer(session, port) as server:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        console.console.print(
            f"{len(questions):,} questions of {table} for {name}; verdicts go to {project.VERDICTS}\n"
            f"open {server.address}   (Ctrl-C ends; the address is for this computer and this session alone)",
            highlight=False,
            markup=False,
        )
        if open_browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            pass
        finally:
            session.close()
    console.console.print(f"{session.given:,} verdicts given", highlight=False)


def choose(
    params: Params, root: Path, table: Path, qa_ids: Sequence[str], sample: int, by: By, workers: int
) -> pd.DataFrame:
    """The questions to review, in their order.

    Raises:
        StageError: no table, no question of a given id, or nothing to review.
    """
    questions = read_questions(root / table)
    if not {"start_time", "end_time"} <= set(questions):
        raise StageError(f"{root / table} has no start_time and end_time: only questions of `dsr qa` can be reviewed")
    if qa_ids:
        unknown = sorted(set(qa_ids) - set(questions["qa_id"]))
        if unknown:
            raise StageError(f"{root / table} has no question {unknown[0]!r}: --pool looks among all questions")
        questions = questions.set_index("qa_id", drop=False).loc[list(dict.fromkeys(qa_ids))].reset_index(drop=True)
    if questions.empty:
        raise StageError(f"{root / table} holds no question")
    if not sample:
        return questions
    drawn = draw_sample(questions, sample, by, margins_of(params, root, questions, workers), doubted_labels(root))
    return questions.set_index("qa_id", drop=False).loc[drawn].reset_index(drop=True)


def reviewer_name(given: str, root: Path) -> str:
    """Name in the file of verdicts: as given, git's user.name, or the login.

    Raises:
        StageError: no name, or one that is no single short line.
    """
    name = given.strip() or _git_name(root) or getpass.getuser()
    if not name.isprintable() or len(name) > LONGEST_NAME:
        raise StageError(f"--reviewer must be a name of at most {LONGEST_NAME} printable characters, not {name!r}")
    return name


def _git_name(root: Path) -> str:
    try:
        done = subprocess.run(["git", "config", "user.name"], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
