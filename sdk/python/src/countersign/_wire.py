"""The one place that knows the HTTP library: requests out, answers in, and none of its exceptions any further.

Redirects are never followed, bodies are bounded, and there is always a timeout.
"""

from __future__ import annotations

import asyncio
import contextvars
import ssl
import threading
import time
from typing import Any, Final

import httpx

from ._flow import NoAnswer, Reply, Request
from ._fork import anew_in_child
from .errors import ConfigurationError

#: Longest body of an answer, in bytes.
BODY_MAX: Final = 1024 * 1024
#: Longest wait for a connection, in seconds.
CONNECT: Final = 5.0

_UNSENT: Final = {
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyError",
    "UnsupportedProtocol",
    "InvalidURL",
    "LocalProtocolError",
}


class Clients:
    """A client for the authority, and one for what is reached on this machine."""

    def __init__(self, given: Any, ca_file: str | None) -> None:
        self._given, self._ca_file = _Given(given), ca_file
        self._authority: httpx.Client | None = None
        self._local: httpx.Client | None = None
        self._lock = threading.Lock()
        anew_in_child(self)

    def for_(self, request: Request) -> Any:
        """The client that may send this."""
        with self._lock:
            if self._given.is_there and not request.local:
                return self._given.client()
            if request.local or _is_plain(request):
                if self._local is None:
                    self._local = httpx.Client(trust_env=False, follow_redirects=False)
                return self._local
            if self._authority is None:
                self._authority = httpx.Client(verify=trust(self._ca_file), follow_redirects=False, limits=_LIMITS)
            return self._authority

    def close(self) -> None:
        """Closes those that were made here."""
        with self._lock:
            for client in (self._local, self._authority):
                if client is not None:
                    client.close()

    def forked(self) -> None:
        """Without closing them: they are the other process's."""
        self._lock, self._local, self._authority = threading.Lock(), None, None
        self._given.forked()


class AsyncClients:
    """The same for asyncio. Connections are of one event loop, so another loop has others."""

    def __init__(self, given: Any, ca_file: str | None) -> None:
        self._given, self._ca_file = _Given(given), ca_file
        self._authority: httpx.AsyncClient | None = None
        self._local: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        anew_in_child(self)

    def for_(self, request: Request) -> Any:
        """The client that may send this."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._local, self._authority = loop, None, None
        if self._given.is_there and not request.local:
            return self._given.client()
        if request.local or _is_plain(request):
            if self._local is None:
                self._local = httpx.AsyncClient(trust_env=False, follow_redirects=False)
            return self._local
        if self._authority is None:
            self._authority = httpx.AsyncClient(verify=trust(self._ca_file), follow_redirects=False, limits=_LIMITS)
        return self._authority

    async def close(self) -> None:
        """Closes those that were made here."""
        for client in (self._local, self._authority):
            if client is not None and self._loop is asyncio.get_running_loop():
                await client.aclose()

    def forked(self) -> None:
        """Without closing them: they are the other process's."""
        self._loop, self._local, self._authority = None, None, None
        self._given.forked()


class _Given:
    """A client that the application has made, which nobody here can make again."""

    def __init__(self, given: Any) -> None:
        self._client, self._used, self._is_anothers = given, False, False

    @property
    def is_there(self) -> bool:
        return self._client is not None

    def client(self) -> Any:
        if self._is_anothers:
            raise ConfigurationError(
                "http_client has connections of the process from which this one was forked off",
                advice="Make the client of Countersign, and its http_client, after the fork.",
            )
        self._used = True
        return self._client

    def forked(self) -> None:
        self._is_anothers = self._is_anothers or self._used


def _is_plain(request: Request) -> bool:
    """Whether it is for an authority on this machine, without TLS: a proxy would be shown the credential."""
    return request.url.lower().startswith("http:")


_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=15.0)


def trust(ca_file: str | None) -> ssl.SSLContext:
    """What is trusted anyway, and the certificates in `ca_file` beside it."""
    context = httpx.create_ssl_context()
    if ca_file is None:
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        failure = type(error).__name__
    else:
        return context
    raise ConfigurationError(
        f"the certificates in {ca_file} cannot be used ({failure})", advice="COUNTERSIGN_CA is a file with PEM certificates."
    )


def exchange(client: Any, request: Request, timeout: float) -> Reply | NoAnswer:
    """Sends a request. What goes wrong is returned, so that no exception of the library is anybody's context.

    In a thread of its own: the limits of the library begin anew with each byte, and looking up a name has none.
    """
    outcome: list[Reply | NoAnswer] = []
    context = contextvars.copy_context()

    def send() -> None:
        outcome.append(context.run(_exchange, client, request, timeout))

    thread = threading.Thread(target=send, name="countersign-exchange", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter ends, or there is no room for a thread
        return _exchange(client, request, timeout)
    thread.join(max(timeout, 0.0))
    return outcome[0] if outcome else NoAnswer("timeout", "no answer in time", sent=True)


def _exchange(client: Any, request: Request, timeout: float) -> Reply | NoAnswer:
    sent_at, until = time.time(), time.monotonic() + timeout
    try:
        with client.stream(**_arguments(request, timeout)) as response:
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > BODY_MAX or time.monotonic() > until:
                    return _too_much(body)
            return _reply(response, bytes(body), sent_at)
    except Exception as error:
        return no_answer(error)


async def exchange_async(client: Any, request: Request, timeout: float) -> Reply | NoAnswer:
    """The same for asyncio."""
    sent_at = time.time()
    try:
        async with client.stream(**_arguments(request, timeout)) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > BODY_MAX:
                    return _too_much(body)
            return _reply(response, bytes(body), sent_at)
    except Exception as error:
        return no_answer(error)


def _arguments(request: Request, timeout: float) -> dict[str, Any]:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", **request.headers}
    return {
        "method": request.method,
        "url": request.url,
        "headers": headers,
        "content": None if request.body is None else request.body.reveal().encode(),
        # Connect, read, write, pool.
        "timeout": (min(CONNECT, timeout), timeout, timeout, timeout),
        "follow_redirects": False,
    }


def _reply(response: Any, body: bytes, sent_at: float) -> Reply | NoAnswer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    if headers.get("content-encoding", "identity").lower() != "identity":
        return NoAnswer("unreadable", "the answer is encoded in a way that was not asked for", sent=True)
    return Reply(response.status_code, headers, body, sent_at)


def _too_much(body: bytearray) -> NoAnswer:
    if len(body) > BODY_MAX:
        return NoAnswer("unreadable", "the answer is longer than 1 MiB", sent=True)
    return NoAnswer("timeout", "no answer in time", sent=True)


def no_answer(error: Exception) -> NoAnswer:
    """What went wrong, told by the names of the classes: the client may be of another library of the same kind."""
    names = {kind.__name__ for kind in type(error).__mro__}
    sent = not names & _UNSENT
    if names & {"TimeoutException", "TimeoutError"}:
        return NoAnswer("timeout", "no connection in time" if not sent else "no answer in time", sent=sent)
    if "ConnectError" in names:
        # Of all texts only that of a failed connection is passed on: others quote what was sent.
        words = str(error)
        kind = "tls" if "SSL" in words or "CERTIFICATE" in words else "connection"
        return NoAnswer(kind, f"no connection: {words[:200]}", sent=False)
    return NoAnswer("connection", f"the connection failed ({type(error).__name__})", sent=sent)
