"""The server behind the page: loopback alone, a token in the address, and nothing but the session's own answers.

Design choices:
- Files are never found by a path from the address: the page's own files and a clip's video are looked up by name.
- The token is the first part of every address; without it there is nothing. A name other than loopback's in the Host
  header (DNS rebinding), another origin, and a POST that is no JSON (a form of another site) are refused.
- The page may run its own script and load from this server, and nothing else (Content-Security-Policy).
- The library's threading server: requests are few, and one slow picture holds up no verdict.
"""

import contextlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dsr.console import StageError
from dsr.review.session import RefusedError, Session

LOOPBACK = "127.0.0.1"
PORT = 8384
"""Taken where it is free, so that the page of a session that was killed finds the next one."""
PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "review.js": ("review.js", "text/javascript; charset=utf-8"),
    "player.js": ("player.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "review.css": ("review.css", "text/css; charset=utf-8"),
}
VIDEO_TYPES = {
    **dict.fromkeys((".mp4", ".m4v", ".mov"), "video/mp4"),
    **dict.fromkeys((".webm", ".mkv"), "video/webm"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LARGEST_BODY = 1 << 16
_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes=(?=\d|-\d)(\d*)-(\d*)")


class ReviewServer(ThreadingHTTPServer):
    """Serves one session until it is shut down."""

    daemon_threads = True

    def __init__(self, session: Session, port: int | None = None) -> None:
        """
        Args:
            port: None for PORT, or any that is free where it is taken.

        Raises:
            StageError: the port that was asked for is taken.
        """
        self.session = session
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((LOOPBACK, PORT if port is None else port), _Handler)
        except OSError as error:
            if port is not None:
                raise StageError(f"port {port} cannot be used: {error.strerror}") from None
            super().__init__((LOOPBACK, 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "dsr", ""
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: addresses hold the token."""

    def do_GET(self) -> None:
        self._answer(_GET)

    def do_POST(self) -> None:
        self._answer(_POST)

    def _answer(self, routes: Mapping[str, Callable[["_Handler", dict[str, str]], None]]) -> None:
        # A browser that goes away in the middle of a video is no error.
        with contextlib.suppress(ConnectionError, TimeoutError):
            try:
                name, query = self._admit()
                if name in PAGE and routes is _GET:
                    self._page(name)
                elif name in routes:
                    routes[name](self, query)
                else:
                    raise RefusedError("there is no such page", 404)
            except RefusedError as error:
                self.close_connection = error.status != 409 or self.close_connection
                self._json({"problem": str(error), "current": error.current}, error.status)
            except StageError as error:
                self._json({"problem": str(error), "current": None}, 500)

    def _admit(self) -> tuple[str, dict[str, str]]:
        """Name and query of a request that may be answered."""
        hosts = {f"{name}:{self.server.server_port}" for name in (LOOPBACK, "localhost")}
        if self.headers.get("Host", "") not in hosts:
            raise RefusedError("another host", 403)
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in hosts}:
            raise RefusedError("another origin", 403)
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise RefusedError("another site", 403)
        parts = urlsplit(self.path)
        token, _, name = parts.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise RefusedError("open the address that `dsr review` printed last", 404)
        return name, {key: values[0] for key, values in parse_qs(parts.query).items()}

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not length.isdigit():
            raise RefusedError("JSON is expected", 415)
        if int(length) > LARGEST_BODY:
            raise RefusedError("too long", 413)
        try:
            value = json.loads(self.rfile.read(int(length)))
        except ValueError:
            raise RefusedError("no JSON") from None
        if not isinstance(value, dict):
            raise RefusedError("a JSON object is expected")
        return value

    # --- Replies ---

    def _head(self, status: int, kind: str, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        fixed = {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in (fixed | dict(headers or {})).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, content: bytes, kind: str, status: int = HTTPStatus.OK) -> None:
        self._head(status, kind, len(content))
        self.wfile.write(content)

    def _json(self, value: object, status: int = HTTPStatus.OK) -> None:
        self._send(json.dumps(value, allow_nan=False).encode(), "application/json", status)

    def _page(self, name: str) -> None:
        file, kind = PAGE[name]
        self._send(files("dsr.review").joinpath("page", file).read_bytes(), kind)

    def _file(self, path: Path) -> None:
        """Send a file, or the one range of it that is asked for."""
        size = path.stat().st_size
        kind = VIDEO_TYPES.get(path.suffix.lower(), "application/octet-stream")
        start, stop = 0, size
        found = _RANGE.fullmatch(self.headers.get("Range", "").strip())
        if found:
            first, last = found.groups()
            start = int(first) if first else max(size - int(last), 0)
            stop = min(int(last) + 1, size) if first and last else size
            if start >= stop:
                self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, kind, 0, {"Content-Range": f"bytes */{size}"})
                return
        partial = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if found else {}
        status = HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK
        self._head(status, kind, stop - start, {"Accept-Ranges": "bytes", **partial})
        with path.open("rb") as file:
            file.seek(start)
            left = stop - start
            while left > 0 and (chunk := file.read(min(_CHUNK, left))):
                self.wfile.write(chunk)
                left -= len(chunk)
            if left:
                self.close_connection = True  # The file has become shorter.

    # --- Routes ---

    def _session(self, query: dict[str, str]) -> None:
        self._json(self.server.session.listing())

    def _question(self, query: dict[str, str]) -> None:
        self._json(self.server.session.question(query.get("id", "")))

    def _video(self, query: dict[str, str]) -> None:
        session = self.server.session
        try:
            self._file(session.clips.video(session.clip_of(query.get("id", ""))))
        except (StageError, OSError) as error:
            raise RefusedError(str(error), 404) from None

    def _frames(self, query: dict[str, str]) -> None:
        self._json({"times": self.server.session.frames(query.get("id", "")).times})

    def _frame(self, query: dict[str, str]) -> None:
        jpegs = self.server.session.frames(query.get("id", "")).jpegs
        number = query.get("n", "")
        if not number.isdecimal() or int(number) >= len(jpegs):
            raise RefusedError("there is no such frame", 404)
        self._send(jpegs[int(number)], "image/jpeg")

    def _explanation(self, query: dict[str, str]) -> None:
        self._json({"lines": self.server.session.explanation(query.get("id", "")).lines})

    def _picture(self, query: dict[str, str]) -> None:
        self._send(self.server.session.explanation(query.get("id", "")).png, "image/png")

    def _own_answer(self, query: dict[str, str]) -> None:
        body = self._body()
        self._json(self.server.session.answer(str(body.get("id", "")), str(body.get("answer", ""))))

    def _verdict(self, query: dict[str, str]) -> None:
        self._json(self.server.session.judge(self._body()))

    def _undo(self, query: dict[str, str]) -> None:
        self._body()
        self._json(self.server.session.undo())


_GET = {
    "session": _Handler._session,
    "question": _Handler._question,
    "video": _Handler._video,
    "frames": _Handler._frames,
    "frame.jpg": _Handler._frame,
    "explanation": _Handler._explanation,
    "picture.png": _Handler._picture,
}
_POST = {"answer": _Handler._own_answer, "verdict": _Handler._verdict, "undo": _Handler._undo}
