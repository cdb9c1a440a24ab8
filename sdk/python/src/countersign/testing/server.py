"""The HTTP server of a FakeAuthority, and its faults."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Asked:
    """A request that came. It is printed without what it says."""

    method: str
    path: str
    query: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    #: The members of a form, or of a JSON object.
    body: Mapping[str, Any] = field(repr=False)
    #: The status of the answer; 0 while there is none.
    status: int = 0

    @property
    def is_sidecar(self) -> bool:
        """Whether it is for the sidecar."""
        return self.headers.get("countersign-sidecar") == "true"


@dataclass
class Answer:
    """What is answered: a text as it is, or JSON. A stream has `events` in the place of a body."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Iterable[tuple[str, str]] | None = None


@dataclass
class _Fault:
    status: int
    times: int
    path: str | None
    retry_after: int | None


class Server:
    """Answers with a function, on one port for its whole life."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self._answer_to = answer
        self._port, self._server = 0, None  # type: int, _Threads | None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._lost: dict[str, int] = {}
        self.asked: list[Asked] = []
        self.delay = 0.0
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Begins to answer, under the port that it had before."""
        if self._server is not None:
            return
        self.stopping.clear()
        self._server = _Threads(self, ("127.0.0.1", self._port))
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fake-authority", daemon=True).start()

    def down(self) -> None:
        """Ends, and breaks every connection."""
        server, self._server = self._server, None
        if server is None:
            return
        self.stopping.set()
        server.shutdown()
        server.server_close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def fail(self, status: int, times: int, path: str | None, retry_after: int | None) -> None:
        """See FakeAuthority."""
        with self._lock:
            self._faults.append(_Fault(status, times, path, retry_after))

    def lose(self, path: str, times: int) -> None:
        """See FakeAuthority."""
        with self._lock:
            self._lost[path] = self._lost.get(path, 0) + times

    def opened(self, connection: socket.socket) -> None:
        """A connection is there."""
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """It is gone."""
        with self._lock:
            self._connections.discard(connection)

    def answer(self, asked: Asked) -> Answer | None:
        """The answer to a request; None if it gets lost."""
        with self._lock:
            self.asked.append(asked)
            fault = next((f for f in self._faults if f.times and f.path in (None, asked.path)), None)
            if fault is not None:
                fault.times -= 1
        if self.delay:
            time.sleep(self.delay)
        if fault is not None:
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            error = "temporarily_unavailable" if fault.status in (429, 503) else "invalid_request"
            answer = Answer(fault.status, {"error": error, "error_description": "a fault"}, headers)
        else:
            answer = self._answer_to(asked)
        asked.status = answer.status
        with self._lock:
            if self._lost.get(asked.path):
                self._lost[asked.path] -= 1
                return None
        return answer


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    # Many ask at once, and none of them shall be refused by the kernel.
    request_queue_size = 1024

    def __init__(self, owner: Server, address: tuple[str, int]) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever breaks a connection is told by it, not by us."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Threads

    def setup(self) -> None:
        super().setup()
        # Or an answer waits for the acknowledgement of its headers.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.owner.opened(self.connection)

    def finish(self) -> None:
        self.server.owner.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted, not printed."""

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length else b""
        headers = {name.lower(): value for name, value in self.headers.items()}
        is_json = "json" in headers.get("content-type", "")
        body = json.loads(raw) if is_json and raw else dict(parse_qsl(raw.decode(), keep_blank_values=True))
        asked = Asked(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
        answer = self.server.owner.answer(asked)
        if answer is None:
            self.close_connection = True
            return
        if answer.events is None:
            self._send(answer)
        else:
            self._stream(answer)

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _send(self, answer: Answer) -> None:
        body = answer.body
        content = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, answer: Answer) -> None:
        self.close_connection = True
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            for name, data in answer.events or ():
                self.wfile.write(f"event: {name}\ndata: {data}\n\n".encode())
                self.wfile.flush()
