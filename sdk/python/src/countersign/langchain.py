"""LangChain and LangGraph: the guard before each call of a tool (`countersign-sdk[langchain]`).

    agent = create_agent(model, tools, middleware=[..., CountersignMiddleware(guard)], checkpointer=checkpointer)
    node = ToolNode(tools, **guard_tool_call(guard))

List the middleware last: what comes after it could still change the arguments, or the tool, or call it twice. Where other middleware
for calls of tools comes after it, nothing runs.

With `mode="interrupt"` a call that a person must approve pauses the graph. Resuming is a wake-up and nothing else: the guard asks the
authority again, and pauses again while nobody has decided. Where a pause could not be resumed, without a checkpointer, it waits instead.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypedDict

from .approvals import ApprovalRequest
from .errors import ConfigurationError
from .guard import Denied, Guard, Pending, Permit
from .tokens import AccessToken

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
    from langchain_core.messages import ToolMessage
    from langgraph.errors import GraphInterrupt
    from langgraph.prebuilt.tool_node import ToolCallRequest, ToolNode
    from langgraph.types import Command, Interrupt, interrupt
except ImportError as missing:
    raise ImportError(f"{missing.name} is not installed: pip install 'countersign-sdk[langchain]'") from None

__all__ = ["CountersignMiddleware", "PendingApproval", "guard_tool_call", "pending_approvals", "resume_command"]

_log = logging.getLogger("countersign")

#: The `type` of the value with which the graph is interrupted.
APPROVAL: Final = "countersign_approval"
#: Where LangGraph keeps the checkpointer of the graph that runs. There is no public name for it, and an interrupt without one is lost.
_CHECKPOINTER: Final = "__pregel_checkpointer"

#: The token with which the agent was called, if it was called by somebody: see `Guard.check`.
SubjectToken = Callable[[ToolCallRequest], "str | AccessToken | None"]
_Answer: TypeAlias = ToolMessage | Command[Any]
_Handler = Callable[[ToolCallRequest], _Answer]
_AsyncHandler = Callable[[ToolCallRequest], Awaitable[_Answer]]


class CountersignMiddleware(AgentMiddleware[Any, Any, Any]):
    """Shows the model the tools that the agent could use, and asks the guard before each call, in `invoke` and in `ainvoke`.

    A call that is denied, or waits, is answered with a ToolMessage of status `error` for the model; its `artifact` has the details for the
    application. `subject_token` says with which token the agent was called, for example
    `lambda request: request.runtime.context.called_with`.
    """

    def __init__(self, guard: Guard, *, subject_token: SubjectToken | None = None) -> None:
        super().__init__()
        self._gate = _Gate(guard, subject_token)

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]) -> ModelResponse[Any]:
        """The model is shown what the agent could come to use."""
        here, elsewhere = self._gate.mapped(request.tools)
        try:
            seen = self._gate.guard.visible(here), self._gate.guard.allowed(elsewhere)
        except Exception as error:
            seen = _all_of(here, error), []
        return handler(request.override(tools=_shown(request.tools, *seen)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """The same for asyncio."""
        here, elsewhere = self._gate.mapped(request.tools)
        try:
            seen = await self._gate.guard.avisible(here), await self._gate.guard.aallowed(elsewhere)
        except Exception as error:
            seen = _all_of(here, error), []
        return await handler(request.override(tools=_shown(request.tools, *seen)))

    def wrap_tool_call(self, request: ToolCallRequest, handler: _Handler) -> _Answer:
        """The tool runs if it may."""
        _must_be_last(handler)
        return self._gate.wrap(request, handler)

    async def awrap_tool_call(self, request: ToolCallRequest, handler: _AsyncHandler) -> _Answer:
        """The same for asyncio."""
        _must_be_last(handler)
        return await self._gate.awrap(request, handler)


class Wrappers(TypedDict):
    """What a ToolNode takes."""

    wrap_tool_call: Callable[[ToolCallRequest, _Handler], _Answer]
    awrap_tool_call: Callable[[ToolCallRequest, _AsyncHandler], Awaitable[_Answer]]


def guard_tool_call(guard: Guard, *, subject_token: SubjectToken | None = None) -> Wrappers:
    """The same for a graph of one's own: `ToolNode(tools, **guard_tool_call(guard))`.

    To show the model what it could use, bind `guard.visible(names)`. A node that gets several calls at once begins all of them anew when
    one of them pauses; send each call to the node alone, as `create_agent` does, if tools that need no approval must not run twice.
    """
    gate = _Gate(guard, subject_token)
    return {"wrap_tool_call": gate.wrap, "awrap_tool_call": gate.awrap}


@dataclass(frozen=True)
class PendingApproval:
    """A call for which a graph has paused."""

    interrupt_id: str
    tool: str
    call_id: str
    request: ApprovalRequest


def pending_approvals(paused: Any) -> list[PendingApproval]:
    """The calls that wait for a person, in what `invoke` has returned or in a state of `get_state`."""
    interrupts = paused.get("__interrupt__", ()) if isinstance(paused, Mapping) else getattr(paused, "interrupts", ())
    return [found for found in map(_pending_approval, interrupts) if found is not None]


def resume_command(paused: Any) -> Command[Any]:
    """What wakes a graph that has paused: `agent.invoke(resume_command(result), config)`, in any process, as often as you like.

    It approves nothing. A call of which nobody has decided pauses again; one whose arguments were changed meanwhile is refused.
    """
    waiting = pending_approvals(paused)
    if not waiting:
        raise ConfigurationError("this graph does not wait for an approval of Countersign")
    requests = {each.call_id: each.request.id for each in waiting}
    return Command(resume={each.interrupt_id: {"type": APPROVAL, "requests": requests} for each in waiting})


class _Gate:
    """Between a call and the tool. What is decided is the guard's; here it is put into the words of LangChain."""

    def __init__(self, guard: Guard, subject_token: SubjectToken | None) -> None:
        self.guard, self._subject_token = guard, subject_token
        # For where a pause could not be resumed.
        self._patient = Guard(guard.client, guard.tools, mode="wait", max_wait=guard.max_wait, justification=guard.justification)

    def mapped(self, tools: list[Any]) -> tuple[list[str], list[str]]:
        """The names of the tools that are in the map of the guard: of those that run here, and of those that the model's provider runs."""
        mapped = [tool for tool in tools if _name(tool) in self.guard.tools]
        here = [_name(tool) for tool in mapped if not _runs_elsewhere(tool)]
        return here, [_name(tool) for tool in mapped if _runs_elsewhere(tool)]

    def wrap(self, request: ToolCallRequest, handler: _Handler) -> _Answer:
        """Asks, and pauses or refuses, or lets the tool run."""
        try:
            outcome: Permit | Denied | Pending = self._guard_for(request, is_async=False).check(**self._question(request))
        except Exception as error:
            outcome = _refusal(error)
        if woken := self._woken(request, outcome, is_async=False):
            try:
                outcome = self.guard.check(**self._question(request), request_id=woken)
            except Exception as error:
                outcome = _refusal(error)
        if not isinstance(outcome, Permit):
            return _refused(request, outcome)
        if outcome.request is not None and self._can_pause(request, is_async=False):
            _take_wake_ups()
        with outcome:
            return handler(request)

    async def awrap(self, request: ToolCallRequest, handler: _AsyncHandler) -> _Answer:
        """The same for asyncio."""
        try:
            outcome: Permit | Denied | Pending = await self._guard_for(request, is_async=True).acheck(**self._question(request))
        except Exception as error:
            outcome = _refusal(error)
        if woken := self._woken(request, outcome, is_async=True):
            try:
                outcome = await self.guard.acheck(**self._question(request), request_id=woken)
            except Exception as error:
                outcome = _refusal(error)
        if not isinstance(outcome, Permit):
            return _refused(request, outcome)
        if outcome.request is not None and self._can_pause(request, is_async=True):
            _take_wake_ups()
        with outcome:
            return await handler(request)

    def _woken(self, request: ToolCallRequest, outcome: Permit | Denied | Pending, *, is_async: bool) -> str | None:
        """Pauses if a person has to approve, and does not return while the graph is not resumed with another request than that which
        waits.

        A graph that is resumed begins the node anew, so what the guard has just said is what it says after the last wake-up.
        """
        if not isinstance(outcome, Pending) or not self._can_pause(request, is_async=is_async):
            return None
        while True:
            woken = _woken_for(interrupt(_payload(request, outcome)), str(request.tool_call["id"]))
            if woken is not None and woken != outcome.request.id:
                return woken

    def _guard_for(self, request: ToolCallRequest, *, is_async: bool) -> Guard:
        return self.guard if self.guard.mode != "interrupt" or self._can_pause(request, is_async=is_async) else self._patient

    def _can_pause(self, request: ToolCallRequest, *, is_async: bool) -> bool:
        """A pause needs a checkpointer, and in asyncio Python 3.11, from which on tasks hand on their context."""
        has_checkpointer = _configurable(request).get(_CHECKPOINTER) is not None
        return self.guard.mode == "interrupt" and has_checkpointer and not (is_async and sys.version_info < (3, 11))

    def _question(self, request: ToolCallRequest) -> dict[str, Any]:
        call = request.tool_call
        call_id = call["id"]
        if not call_id:
            raise ConfigurationError("the call of the tool has no id")
        if request.tool is not None and request.tool.name != call["name"]:
            raise ConfigurationError(f"{request.tool.name} would run where {call['name']} was called")
        thread = _configurable(request).get("thread_id")
        return {
            "tool": call["name"],
            "args": call["args"],
            "call_id": call_id,
            # The same call in another thread is another call.
            "run_id": None if thread is None else str(thread),
            "subject_token": None if self._subject_token is None else self._subject_token(request),
        }


def _must_be_last(handler: Callable[..., Any]) -> None:
    """Raises ConfigurationError if what would be called next is not the ToolNode itself."""
    if getattr(handler, "__module__", None) != ToolNode.__module__:
        raise ConfigurationError("other middleware stands between the guard and the tools", advice="List CountersignMiddleware last.")


def _configurable(request: ToolCallRequest) -> Mapping[str, Any]:
    config: Mapping[str, Any] = request.runtime.config or {}
    return config.get("configurable") or {}


def _take_wake_ups() -> None:
    """Takes what the graph was resumed with. It was for the pause of the guard, and answers no `interrupt` of the tool itself."""
    with suppress(GraphInterrupt):
        while True:
            interrupt(None)


def _woken_for(resumed: Any, call_id: str) -> str | None:
    """The request that whoever resumes the graph says is decided, if they say which."""
    requests = resumed.get("requests") if isinstance(resumed, Mapping) else None
    found = requests.get(call_id) if isinstance(requests, Mapping) else None
    return None if found is None else str(found)


def _refusal(error: Exception) -> Denied | Pending:
    """Whatever went wrong, the tool does not run."""
    if isinstance(error, Denied | Pending):
        return error
    _log.error("the guard of a tool failed: %s", type(error).__name__)
    # Its words may quote the arguments of the call.
    return Denied(f"the guard failed ({type(error).__name__})", code="guard_failed")


def _refused(request: ToolCallRequest, why: Denied | Pending) -> ToolMessage:
    """The answer to the model, which goes on with it; an exception would end the run."""
    details: dict[str, Any] = {"code": why.code}
    if isinstance(why, Pending):
        details["request"] = why.request.to_dict()
    elif why.evaluation_id is not None:
        details["evaluation_id"] = why.evaluation_id
    call = request.tool_call
    return ToolMessage(why.for_model(), tool_call_id=call["id"] or "", name=call["name"], status="error", artifact={"countersign": details})


def _payload(request: ToolCallRequest, waiting: Pending) -> dict[str, Any]:
    """What whoever sees the pause is told. It is kept in the checkpoint: nothing in it is secret, but the arguments are there."""
    return {
        "type": APPROVAL,
        "tool": request.tool_call["name"],
        "call_id": request.tool_call["id"],
        "request": waiting.request.to_dict(),
        "message": waiting.for_model(),
    }


def _pending_approval(found: Interrupt) -> PendingApproval | None:
    said = found.value
    if not isinstance(said, Mapping) or said.get("type") != APPROVAL:
        return None
    return PendingApproval(found.id, str(said["tool"]), str(said["call_id"]), ApprovalRequest.from_dict(said["request"]))


def _shown(tools: list[Any], here: list[str], elsewhere: list[str]) -> list[Any]:
    return [tool for tool in tools if _name(tool) in (elsewhere if _runs_elsewhere(tool) else here)]


def _runs_elsewhere(tool: Any) -> bool:
    """Whether the provider of the model runs a tool: whatever is not the schema of a function, of which the calls come here."""
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    return kind not in ("function", "custom") and not (kind is None and ("input_schema" in tool or "parameters" in tool))


def _name(tool: Any) -> str:
    """A tool's name. One that the provider of the model runs has at least a type; it is filtered, which is all that can be done here."""
    if not isinstance(tool, Mapping):
        return str(tool.name)
    function = tool.get("function")
    return str(tool.get("name") or (function.get("name") if isinstance(function, Mapping) else None) or tool.get("type"))


def _all_of(mapped: list[str], error: Exception) -> list[str]:
    """What is shown of what runs here while nobody can tell what may be used: the model tries, is refused, and can say so."""
    _log.warning("the list of tools could not be narrowed down: %s", type(error).__name__)
    return mapped
