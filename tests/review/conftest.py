"""A project to review: a clip with a video, clips that are trajectories alone, one label and one caption hostile."""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dsr import project as places
from dsr.mcq import read_questions
from dsr.params import Params
from dsr.review.server import ReviewServer
from dsr.review.session import Session
from tests.small_project import PARAMS, coarse_pictures
from tests.small_project import project as pristine
from tests.videos import make_video

__all__ = ["coarse_pictures", "pristine"]


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    """A copy in which a test may write and break files."""
    root = tmp_path / "project"
    shutil.copytree(pristine, root)
    # As long as the cues that were made up for it.
    make_video(root / "data/raw/own/clip_00.mp4", num_frames=80)
    return root


def session_of(root: Path, table: Path = places.POOL, reviewer: str = "ann", params: Params = PARAMS) -> Session:
    return Session(params, root, read_questions(root / table), reviewer)


@contextmanager
def serving(session: Session, port: int = 0) -> Iterator[ReviewServer]:
    with ReviewServer(session, port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Client:
    """Requests as a browser's page makes them."""

    def __init__(self, server: "ReviewServer | Address") -> None:
        self.server = server
        self.headers = {"Host": f"127.0.0.1:{server.server_port}"}

    def send(
        self, method: str, name: str, body: Any = None, token: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content; a header of "" is left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        path = f"/{self.server.token if token is None else token}/{name}"
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if content is not None:
            connection.putheader("Content-Length", str(len(content)))
        for key, value in sent.items():
            if value:
                connection.putheader(key, value)
        connection.endheaders(content)
        reply = connection.getresponse()
        received = reply.status, dict(reply.getheaders()), reply.read()
        connection.close()
        return received

    def get(self, name: str) -> Any:
        status, _, content = self.send("GET", name)
        assert status == 200, content
        return json.loads(content)

    def post(self, name: str, **body: Any) -> Any:
        status, _, content = self.send("POST", name, body)
        assert status == 200, content
        return json.loads(content)


@pytest.fixture
def client(project: Path) -> Iterator[Client]:
    with serving(session_of(project)) as server:
        yield Client(server)


@dataclass(frozen=True)
class Address:
    """Where a server listens that another process runs."""

    server_port: int
    token: str


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


@contextmanager
def command(
    root: Path, reviewer: str = "ann", port: int | None = None
) -> Iterator[tuple["subprocess.Popen[str]", Client]]:
    """`dsr review` as a process, once it answers."""
    arguments = ["review", "--reviewer", reviewer, "--port", str(port or free_port()), "--root", str(root)]
    process = subprocess.Popen([sys.executable, "-m", "dsr", *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if line.startswith("open http"))
        parts = urlsplit(line.split()[1])
        assert parts.port
        yield process, Client(Address(parts.port, parts.path.strip("/")))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
