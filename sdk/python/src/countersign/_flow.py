"""Flows: what is done, without doing it.

A flow is a generator that yields what it needs from the outside, an effect, and is sent the result. All that decides is written once,
as flows; a driver carries the effects out, with threads or with asyncio (`_drive`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlencode

from .errors import CountersignError
from .secret import Secret

T = TypeVar("T")
Flow: TypeAlias = Generator["Effect", Any, T]


@dataclass(frozen=True)
class Request:
    """A request to be sent. It is printed without what could be a secret."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Secret | None = None
    #: Sent past every proxy, and without the trust that was configured for the authority: to the sidecar, or a cloud's metadata server.
    local: bool = False


@dataclass(frozen=True)
class Reply:
    """An answer, with the names of its headers in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    #: When the request was sent, in unix seconds.
    sent_at: float = 0.0


class NoAnswer(Exception):
    """No answer came. `sent` says whether the request may have arrived. It never leaves the package."""

    def __init__(self, kind: str, words: str, *, sent: bool) -> None:
        super().__init__(words)
        self.kind, self.words, self.sent = kind, words, sent


@dataclass(frozen=True)
class Send:
    """Sends a request and waits for at most `timeout` seconds. The result is a Reply; NoAnswer is thrown if there is none."""

    request: Request
    timeout: float


@dataclass(frozen=True)
class Sleep:
    """Waits."""

    seconds: float


@dataclass(frozen=True)
class Call:
    """Calls what may block: reads a file, or asks somebody else's library."""

    function: Callable[[], Any] = field(repr=False)


@dataclass(frozen=True)
class Join:
    """Takes part in a flow of which there is one at a time for each key: begins it, or waits for the one that runs."""

    key: Hashable
    make: Callable[[], Flow[Any]] = field(repr=False)


@dataclass(frozen=True)
class Spawn:
    """Begins such a flow unless it runs, and does not wait."""

    key: Hashable
    make: Callable[[], Flow[Any]] = field(repr=False)


Effect: TypeAlias = Send | Sleep | Call | Join | Spawn


def send(request: Request, timeout: float) -> Flow[Reply]:
    """Sends, with the type of what comes back."""
    reply: Reply = yield Send(request, timeout)
    return reply


def call(function: Callable[[], T]) -> Flow[T]:
    """Calls, with the type of what comes back."""
    result: T = yield Call(function)
    return result


def join(key: Hashable, make: Callable[[], Flow[T]]) -> Flow[T]:
    """Joins, with the type of what comes back."""
    result: T = yield Join(key, make)
    return result


def while_wanted(flow: Flow[T], gone: threading.Event) -> Flow[T]:
    """The same flow, which does nothing more once whoever waited for it is gone: it may run in a thread that nobody can cancel."""
    try:
        effect = next(flow)
        while True:
            if gone.is_set():
                raise CountersignError("whoever has asked does not wait any more", code="cancelled")
            try:
                result = yield effect
            except Exception as error:
                thrown = error
            else:
                effect = flow.send(result)
                continue
            effect = flow.throw(thrown)
    except StopIteration as stop:
        found: T = stop.value
        return found
    finally:
        flow.close()


def form(parameters: list[tuple[str, str | Secret | None]]) -> Secret:
    """The parameters that are there, as a form."""
    revealed = [(n, v.reveal() if isinstance(v, Secret) else v) for n, v in parameters if v is not None]
    return Secret(urlencode(revealed))


class Clock:
    """The time. Tests put another in its place."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def ticks(self) -> float:
        """Seconds that only grow, for how long something takes."""
        return time.monotonic()
