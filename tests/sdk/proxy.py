"""A TCP proxy before the operator, so that the way to it can be cut, held and opened again."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes on. `cut` refuses connections and breaks those that are there, `hang` takes them and says nothing."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 443)
        self._host, self._scheme, self._path = parts.hostname, parts.scheme, parts.path
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._hangs = False
        self._listener: socket.socket | None = None
        self._port = 0
        #: How many connections there were.
        self.connections = 0
        self.restore()

    @property
    def url(self) -> str:
        """The address of the operator behind it."""
        return f"{self._scheme}://{self._host}:{self._port}{self._path}"

    def cut(self) -> None:
        """Nobody gets through, and whoever was through is no more."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # Wakes the thread that accepts, which close alone does not.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._break()

    def hang(self) -> None:
        """Connections are taken, and nothing is said on them."""
        self._hangs = True
        self._break()
        self._listen()

    def restore(self) -> None:
        """The way is open."""
        self._hangs = False
        self._break()
        self._listen()

    def close(self) -> None:
        """Ends it."""
        self.cut()

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port), reuse_port=False, backlog=128)
            self._port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self._keep(client)
            if not self._hangs:
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._upstream, timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        self._keep(server)
        threading.Thread(target=self._pump, args=(client, server), daemon=True).start()
        self._pump(server, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _keep(self, end: socket.socket) -> None:
        with self._lock:
            self._sockets.add(end)

    def _break(self) -> None:
        with self._lock:
            ends, self._sockets = self._sockets, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
