"""Which call a call is, for frameworks that tell a tool no id of it, and asking the guard about such a call."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias
from uuid import uuid4

from .canonical import canonical
from .client import Client
from .errors import ConfigurationError
from .guard import Denied, Guard, Pending, Permit
from .tokens import AccessToken

_log = logging.getLogger("countersign")

#: The token with which the agent was called, asked for at each call, so that none is kept.
SubjectToken: TypeAlias = Callable[[], str | AccessToken | None]

#: Stands for the run of a call that is outside of any: as long as the process lives.
NO_RUN: Final = f"process-{uuid4().hex}"

_resuming: ContextVar[bool] = ContextVar("countersign_resuming", default=False)


@contextmanager
def resuming() -> Iterator[None]:
    """What runs within goes on after a pause."""
    before = _resuming.set(True)
    try:
        yield
    finally:
        _resuming.reset(before)


def is_resuming() -> bool:
    """Whether we are within `resuming`."""
    return _resuming.get()


def threaded(guard: Guard, framework: str) -> Client:
    """The guard's client, which must be one for threads, because the framework runs tools in such."""
    if not isinstance(guard.client, Client):
        raise ConfigurationError(f"{framework} runs tools in threads", advice="Make the guard with a Client, not an AsyncClient.")
    return guard.client


@dataclass(frozen=True)
class Call:
    """One call of a tool within a run, with arguments as JSON has them.

    The same run, tool and arguments are the same call, also in another process.
    """

    tool: str
    args: Mapping[str, Any]
    run_id: str

    def check(self, guard: Guard, subject_token: SubjectToken | None = None) -> Permit:
        """A permit, once; raises Denied or Pending and nothing else."""
        return self._check(guard, subject_token)

    def look(self, guard: Guard, subject_token: SubjectToken | None = None) -> None:
        """Returns if the call may run. Raises Pending, once somebody is asked, or Denied. It reports nothing as done."""
        # An approval is not redeemed if that can be helped: its token is handed out for seconds only, and the call may come later.
        if subject_token is None and self._allowed(guard):
            return
        tools = {name: replace(tool, sends_token=True) for name, tool in guard.tools.items()}
        self._check(Guard(guard.client, tools, mode="interrupt", justification=guard.justification), subject_token)

    def _check(self, guard: Guard, subject_token: SubjectToken | None) -> Permit:
        try:
            call_id = "args-" + hashlib.sha256(canonical([self.tool, self.args])).hexdigest()
            subject = None if subject_token is None else subject_token()
            return guard.check(self.tool, self.args, call_id=call_id, run_id=self.run_id, subject_token=subject)
        except (Denied, Pending):
            raise
        except Exception as error:
            outcome = closed(self.tool, error)
        raise outcome

    def _allowed(self, guard: Guard) -> bool:
        """Whether the authority says yes now, after an approval too, of which it takes nothing. Whatever it does not say is no."""
        tool = guard.tools.get(self.tool)
        try:
            return tool is not None and threaded(guard, "this").evaluate(tool.operation(self.args)).allowed
        except Exception as error:
            # The check that follows says what is wrong.
            _log.debug("%s: %s", self.tool, type(error).__name__)
            return False


def closed(tool: str, error: Exception) -> Denied:
    """What an error is that came from around the guard: a no. Its words may quote arguments, and are not repeated."""
    _log.warning("%s: the guard could not be asked (%s)", tool, type(error).__name__)
    return Denied(f"the guard could not be asked ({type(error).__name__})", code="guard_failed")
