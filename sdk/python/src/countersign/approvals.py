"""A request that waits for a person, and how often one may look."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ._flow import Clock
from ._fork import anew_in_child
from .errors import InvalidRequest
from .operation import Operation

__all__ = ["ApprovalRequest"]

#: How often one may look, in seconds, if nobody has said.
INTERVAL: Final = 2.0
#: How much longer to pause once one was told to slow down (CIBA Core section 11).
SLOWER: Final = 5.0
#: How many requests are remembered with their pace.
PACES_MAX: Final = 256


@dataclass(frozen=True)
class ApprovalRequest:
    """One operation that a person is asked to approve. `to_dict` holds nothing secret: another process of the agent can go on with it."""

    id: str
    #: Until when somebody may decide, in unix seconds; None if that is not known.
    expires_at: float | None = None
    #: How long to pause between two looks, in seconds.
    interval: float = INTERVAL
    operation: Operation | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        operation = None if self.operation is None else self.operation.details()
        return {"id": self.id, "expires_at": self.expires_at, "interval": self.interval, "operation": operation}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ApprovalRequest:
        """What `to_dict` has made."""
        request_id, expires_at, interval = value.get("id"), value.get("expires_at"), value.get("interval", INTERVAL)
        good = isinstance(request_id, str) and isinstance(interval, int | float) and isinstance(expires_at, int | float | None)
        if not good:
            raise InvalidRequest("this is no ApprovalRequest")
        operation = value.get("operation")
        return cls(str(request_id), expires_at, float(interval), None if operation is None else Operation.of(operation))

    @classmethod
    def named(cls, request: ApprovalRequest | str) -> ApprovalRequest:
        """A request of which perhaps only the id is known."""
        return request if isinstance(request, ApprovalRequest) else cls(request)


@dataclass
class Pace:
    """When one may look again."""

    interval: float
    next_at: float = 0.0

    def looked(self, now: float) -> None:
        """From when a look began the interval counts."""
        self.next_at = now + self.interval

    def slow_down(self, now: float) -> None:
        """From now on pauses are longer."""
        self.interval += SLOWER
        self.next_at = now + self.interval


class Paces:
    """The pace of each request. Safe for threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._paces: OrderedDict[str, Pace] = OrderedDict()
        self._lock = threading.Lock()
        anew_in_child(self)

    def forked(self) -> None:
        """The paces count on; a lock that another thread held does not."""
        self._lock = threading.Lock()

    def of(self, request: ApprovalRequest) -> Pace:
        """That of a request, which is remembered."""
        with self._lock:
            pace = self._paces.setdefault(request.id, Pace(max(request.interval, 0.0)))
            self._paces.move_to_end(request.id)
            while len(self._paces) > PACES_MAX:
                self._paces.popitem(last=False)
            return pace

    def forget(self, request: ApprovalRequest) -> None:
        """It is over."""
        with self._lock:
            self._paces.pop(request.id, None)
