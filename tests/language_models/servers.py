"""A chat server on this machine that answers by a script and remembers what it was asked."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any, dict[str, str]]
"""Status, JSON or text, headers. A script may also give the text of an answer, or do what it likes with the request's
handler."""


class ChatServer(ThreadingHTTPServer):
    def __init__(self, answer: Callable[[dict[str, Any], int], Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.bodies, self.headers = answer, [], []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            number = len(self.server.bodies)
        answer = self.server.answer(body, number) if self.path == "/v1/chat/completions" else (404, "no such path", {})
        if callable(answer):
            self.close_connection = True
            answer(self)
            return
        if isinstance(answer, str):
            answer = 200, {"choices": [{"message": {"content": answer}}]}, {}
        status, content, headers = answer
        payload = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection off."""
    # Without lingering the end of a connection is a reset.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Say nothing until the other side has left."""
    handler.connection.settimeout(20)
    handler.connection.recv(1)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Begin an answer and go on with a byte now and then, so that no wait is a long one."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(400):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Any]) -> Iterator[ChatServer]:
    server = ChatServer(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
