"""What a process that was forked off must not share with the one it comes from.

Two processes with one connection read each other's answers: a no could be taken for the yes that was meant for the other. And a lock
that another thread held at that moment is held for good, because that thread is not there.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Shared(Protocol):
    """What has connections, threads or locks."""

    def forked(self) -> None:
        """We are in the child: begin anew."""


_all: WeakSet[Shared] = WeakSet()


def anew_in_child(what: Shared) -> None:
    """Has it begin anew in each process that is forked off, as long as it lives."""
    _all.add(what)


def _in_child() -> None:
    for what in list(_all):
        what.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
