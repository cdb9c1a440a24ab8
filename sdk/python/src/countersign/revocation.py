"""Follows the revocation feed, so that a verifier that works offline knows within a second what has ended (docs/revocation.md)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Final

import jwt

from . import _calls as calls
from . import _wire as wire
from ._drive import SyncDriver
from ._flow import Clock, Flow, Request
from ._fork import anew_in_child
from ._jws import parse, verify
from ._keys import Keys
from .errors import CountersignError
from .feed_state import Event, FeedState, Reader, reason, step

__all__ = ["RevocationFeed"]

_log = logging.getLogger("countersign")

#: How long the first tokens wait for the first state, in seconds.
FIRST: Final = 5.0
#: How long the stream may be silent, in seconds. A heartbeat comes every second.
SILENCE: Final = 3.0
_TYPES: Final = {
    "snapshot": frozenset({"revocations+jwt"}),
    "change": frozenset({"revocations-change+jwt"}),
    "heartbeat": frozenset({"revocations-heartbeat+jwt"}),
}


class RevocationFeed:
    """Follows the feed in a thread, from `start` to `stop`. Whatever goes wrong, the last state counts until it ends, and no longer."""

    def __init__(self, issuer: str, *, ca_file: str | None = None, clock: Clock | None = None) -> None:
        self._issuer, self._clock = issuer, clock or Clock()
        self._keys = Keys(issuer, self._clock)
        self._clients = wire.Clients(None, ca_file)
        self._driver = SyncDriver(self._clients)
        self._stopped = threading.Event()
        self._anew()
        anew_in_child(self)

    def _anew(self) -> None:
        self._state: FeedState | None = None
        #: When the state ends by the clock that only grows, because the other may be set back.
        self._until = float("-inf")
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._begun: float | None = None
        self._was_heard = False

    def forked(self) -> None:
        """Nobody follows it here yet."""
        was_stopped = self._stopped.is_set()
        self._stopped = threading.Event()
        if was_stopped:
            self._stopped.set()
        self._anew()

    def start(self) -> None:
        """Begins to follow, unless it does."""
        with self._start:
            if self._thread is None and not self._stopped.is_set():
                self._begun = self._clock.ticks()
                self._thread = threading.Thread(target=self._follow, name="countersign-feed", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Ends it. Nothing is known from then on."""
        self._stopped.set()
        self._driver.close()
        with self._start:
            thread = self._thread
        if thread is not None:
            thread.join(SILENCE + 1)
        self._take(None)

    @property
    def state(self) -> FeedState | None:
        """What is known, for whoever wants to look."""
        return self._state

    def reason(self, claims: Mapping[str, Any]) -> str | None:
        """Why a token that was verified is dead, `unknown` if nobody can tell, None if it is alive."""
        return reason(self._living(), claims, self._clock.now())

    @property
    def is_new(self) -> bool:
        """Whether the first state is still to be waited for."""
        begun = self._begun
        return not self._was_heard and (begun is None or self._clock.ticks() < begun + FIRST)

    def ready(self) -> None:
        """Begins to follow, and waits for the first state: for all who ask together no longer than for the first of them."""
        self.start()
        if self._begun is not None:
            self.wait(self._begun + FIRST - self._clock.ticks())

    def wait(self, timeout: float) -> bool:
        """Waits for a state that counts. Whether there is one."""

        def known() -> bool:
            state = self._living()
            return state is not None and self._clock.now() < state.exp

        with self._news:
            return self._news.wait_for(known, timeout)

    def _follow(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            before = self._state
            try:
                self._read()
                why = "the stream has ended"
            except CountersignError as error:
                why = error.code
            except Exception as error:
                why = type(error).__name__
            failures = 0 if self._state is not before else failures + 1
            _log.debug("the revocation feed is asked for anew: %s", why)
            self._stopped.wait(calls.backoff(min(failures, 3)))

    def _read(self) -> None:
        url = self._driver.run(self._keys.at("countersign_revocations_endpoint"))
        client, reader = self._clients.for_(Request("GET", url)), Reader()
        timeout = (wire.CONNECT, SILENCE, SILENCE, SILENCE)
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        with client.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=False) as response:
            if response.status_code != 200:
                raise CountersignError("the feed is not told", code=f"http_{response.status_code}")
            for chunk in response.iter_raw():
                for event in reader.feed(chunk):
                    if self._stopped.is_set():
                        return
                    self._hear(event)

    def _hear(self, event: Event) -> None:
        if event.name == "stale":
            self._take(None)
        elif event.name in _TYPES:
            claims = self._driver.run(self._verified(event))
            state = step(self._state, event.name, claims)
            known = self._living()
            if known is not None and state.as_of < known.as_of:
                # Of another replica, say, whose view lags: what was ended would live again.
                raise CountersignError("what is told is older than what is known", code="feed_too_old")
            self._take(state)

    def _verified(self, event: Event) -> Flow[Mapping[str, Any]]:
        jws = parse(event.data, _TYPES[event.name], feed=True)
        keys: Mapping[str, jwt.PyJWK] = yield from self._keys.for_kid(jws.kid)
        verify(jws, keys)
        if jws.claims.get("iss") != self._issuer:
            raise CountersignError("the feed is that of another issuer", code="wrong_issuer")
        return jws.claims

    def _living(self) -> FeedState | None:
        return self._state if self._clock.ticks() < self._until else None

    def _take(self, state: FeedState | None) -> None:
        with self._news:
            self._state = state
            if state is not None:
                self._until, self._was_heard = self._clock.ticks() + state.exp - state.iat, True
            self._news.notify_all()
