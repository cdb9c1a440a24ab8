"""Tokens that are kept, and when they are renewed. It asks nobody."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ._flow import Clock
from ._fork import anew_in_child
from .tokens import AccessToken

#: Most tokens that are kept.
ENTRIES_MAX: Final = 128
#: A token is renewed at the latest so long before its end, in seconds.
BEFORE_END: Final = 30.0
#: How long nobody tries again after a renewal was not answered, in seconds.
PAUSE: Final = 5.0

#: Audience, scope, and the digest of the token that was exchanged.
Key = tuple[str | None, str | None, str | None]


@dataclass
class _Entry:
    token: AccessToken
    #: By the clock that only grows.
    dead_at: float
    renew_at: float


class Cache:
    """At most 128 tokens; the one that was not asked for the longest goes first. Safe for threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        anew_in_child(self)

    def forked(self) -> None:
        """Tokens are kept on; a lock that another thread held is not."""
        self._lock = threading.Lock()

    def find(self, key: Key) -> tuple[AccessToken, bool] | None:
        """A token that lives, and whether it is time for another."""
        now, wall = self._clock.ticks(), self._clock.now()
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            # By both clocks: one stands still while the machine sleeps, the other may be set back.
            if now >= entry.dead_at or wall >= entry.token.expires_at:
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return entry.token, now >= entry.renew_at

    def keep(self, key: Key, token: AccessToken, until: float | None = None) -> None:
        """Keeps a token, no longer than it lives, and no longer than `until` in unix seconds."""
        now, wall = self._clock.ticks(), self._clock.now()
        life = token.expires_at - wall
        if until is not None:
            life = min(life, until - wall)
        if life <= 0:
            return
        with self._lock:
            self._entries[key] = _Entry(token, now + life, now + _renew_after(life))
            self._entries.move_to_end(key)
            while len(self._entries) > ENTRIES_MAX:
                self._entries.popitem(last=False)

    def postpone(self, key: Key) -> None:
        """A renewal was not answered: the token is used on, and the next try is a little later."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                entry.renew_at = self._clock.ticks() + PAUSE

    def drop(self, key: Key) -> None:
        """A renewal was refused: the token is not handed out any more."""
        with self._lock:
            self._entries.pop(key, None)

    def clear(self) -> None:
        """The credential was refused: nothing is handed out any more."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


def _renew_after(life: float) -> float:
    """Two thirds of a life, a tenth earlier or later so that not all renew at once, and not within the last 30 s of a long one."""
    planned = life * 2 / 3 * random.uniform(0.9, 1.1)  # noqa: S311
    return min(planned, max(life - BEFORE_END, life / 3))
