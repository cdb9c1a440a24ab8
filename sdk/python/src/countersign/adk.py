"""Google ADK: a plugin that asks the authority before any tool of any agent runs.

    guard = Guard(Client(), {"pay_invoice": Tool("payments.transfer", resource="invoice:{number}")}, mode="interrupt")
    app = App(name="billing", root_agent=agent, plugins=[CountersignPlugin(guard)])

As a plugin of the App it stands before the tools of every agent and toolset, before the callbacks of the agents. What is not run on
this side, such as a model's own search, it takes out of the request unless that is mapped and allowed at once. The code that a
`code_executor` runs here it does not see. An `AgentTool` that leaves the plugins out is refused, mapped or not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final
from uuid import uuid4
from weakref import WeakKeyDictionary

try:
    from google.adk.agents.callback_context import CallbackContext
    from google.adk.agents.invocation_context import InvocationContext
    from google.adk.events.event import Event
    from google.adk.models.llm_request import LlmRequest
    from google.adk.plugins.base_plugin import BasePlugin
    from google.adk.tools.agent_tool import AgentTool
    from google.adk.tools.base_tool import BaseTool
    from google.adk.tools.tool_confirmation import ToolConfirmation
    from google.adk.tools.tool_context import ToolContext
    from google.genai import types
except ImportError as error:
    raise ImportError("countersign.adk needs Google ADK: pip install 'countersign-sdk[adk]'") from error

from .approvals import ApprovalRequest
from .canonical import canonical
from .errors import CountersignError, InvalidRequest
from .guard import Denied, Guard, Pending, Permit
from .tokens import AccessToken

__all__ = ["CountersignPlugin", "PendingApproval", "pending_approvals", "resume_message"]

_log = logging.getLogger("countersign")

#: The call by which ADK asks whoever runs the agent. It has no public name.
_CONFIRMATION: Final = "adk_request_confirmation"
#: Said to the model if whoever was asked by the framework did not confirm.
_DECLINED: Final = "This was not confirmed. Nothing was done. Do not try again."


class CountersignPlugin(BasePlugin):
    """Asks the guard before a tool runs, and shows a model only the tools that its agent could come to use.

    In the guard's mode `interrupt`, a call that a person must approve pauses the run by `adk_request_confirmation`, whose payload names
    the request. Whoever answers that with `confirmed: true` wakes the run, here or in another process with the same session service;
    whether it was approved, the authority is asked again. In the mode `wait` the call waits; in `reject` the model is told.

    `subject_token` says with whose token the agent was called, if it acts on somebody's behalf. It must not come from the session's
    state, which is stored.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        subject_token: Callable[[ToolContext], str | AccessToken | None] | None = None,
        name: str = "countersign",
    ) -> None:
        super().__init__(name=name)
        self._guard, self._subject_token = guard, subject_token

    async def before_model_callback(self, *, callback_context: CallbackContext, llm_request: LlmRequest) -> None:
        """Takes the tools out of the request that the agent could not use. A call of one nevertheless is denied as any other."""
        # Anything else is a function that the client of the model would call without asking.
        tools = [tool for tool in llm_request.config.tools or [] if isinstance(tool, types.Tool)]
        declared_names = [declared.name for tool in tools for declared in tool.function_declarations or () if declared.name]
        shown = await self._shown([name for name in declared_names if not _is_past_the_plugins(llm_request.tools_dict.get(name))])
        allowed = await self._allowed(sorted({field for tool in tools for field in _provided(tool)}))
        left = [_left(tool, shown, allowed) for tool in tools]
        # A tool without anything is none that a model's API accepts.
        llm_request.config.tools = [types.Tool(**fields) for fields in left if fields] or None

    async def before_tool_callback(self, *, tool: BaseTool, tool_args: dict[str, Any], tool_context: ToolContext) -> dict[str, Any] | None:
        """None lets the tool run. What is returned otherwise is its result, which the model sees."""
        try:
            if tool_context.tool_confirmation is not None and not tool_context.tool_confirmation.confirmed:
                return _said(_DECLINED)
            if _is_past_the_plugins(tool):
                raise Denied("the guard does not see the tools of an agent that runs without the plugins", code="unguarded")
            if not tool_context.function_call_id:
                raise Denied("the call has no id", code="guard_failed")
            asked = canonical(tool_args)
            permit = await self._guard.acheck(
                tool.name,
                tool_args,
                call_id=tool_context.function_call_id,
                run_id=_session(tool_context),
                subject_token=None if self._subject_token is None else self._subject_token(tool_context),
                request_id=_paused_for(tool_context),
            )
            _bind(tool)
            _leaves[tool_context] = _Leave(permit, asked)
        except Denied as denied:
            return _said(denied.for_model())
        except Pending as pending:
            if self._guard.mode == "interrupt":
                tool_context.request_confirmation(hint=pending.for_model(), payload={"countersign": pending.request.to_dict()})
                # Without it the model is asked to go on from here, and ends the run with what it makes up.
                tool_context.actions.skip_summarization = True
            return _said(pending.for_model())
        except Exception as error:
            # Its words may quote the arguments of the call.
            _log.warning("%s: the plugin failed (%s), so the tool does not run", tool.name, type(error).__name__)
            return _said(Denied("the plugin failed", code="guard_failed").for_model())
        return None

    async def on_event_callback(self, *, invocation_context: InvocationContext, event: Event) -> Event | None:
        """Asks whoever runs the agent again, if a call was woken before it was approved. ADK itself asks once for each call."""
        paused = {id: asked for id, asked in event.actions.requested_tool_confirmations.items() if _request_in(asked.payload)}
        if not paused or event.content is None:
            return None
        answered = {answer.id for past in invocation_context.session.events for answer in past.get_function_responses()}
        calls = {call.id: call for past in invocation_context.session.events for call in past.get_function_calls()}
        for call in list(calls.values()):
            if call.name == _CONFIRMATION and call.id not in answered:
                paused.pop(str(((call.args or {}).get("originalFunctionCall") or {}).get("id")), None)
        asking = [_confirmation(calls[id], asked) for id, asked in paused.items() if id in calls]
        parts = [*(event.content.parts or ()), *(types.Part(function_call=call) for call in asking)]
        ids = {*(event.long_running_tool_ids or ()), *(call.id for call in asking if call.id)}
        return event.model_copy(
            update={"content": types.Content(role=event.content.role, parts=parts), "long_running_tool_ids": ids or None}
        )

    async def _shown(self, names: list[str]) -> set[str]:
        try:
            return set(await self._guard.avisible(names))
        except CountersignError as error:
            # What is shown permits nothing: each call is asked about, and the model is told then that nobody can tell now.
            _log.warning("the tools that are of use cannot be listed now [%s]", error.code)
            return {name for name in names if name in self._guard.tools}

    async def _allowed(self, names: list[str]) -> set[str]:
        try:
            return set(await self._guard.aallowed(names))
        except CountersignError as error:
            # Nobody asks again before the provider runs one.
            _log.warning("the tools of the provider that are allowed cannot be listed now [%s]", error.code)
            return set()


@dataclass(frozen=True)
class PendingApproval:
    """A call for which a run has paused."""

    confirmation_id: str
    tool: str
    call_id: str
    request: ApprovalRequest


def pending_approvals(events: Iterable[Event]) -> list[PendingApproval]:
    """The calls that wait for a person, in what a run has yielded, or in the events of a session."""
    waiting: dict[str, PendingApproval] = {}
    answered: set[str] = set()
    for event in events:
        for answer in event.get_function_responses():
            if answer.id in waiting:
                answered.add(answer.id)
            # An answer alone is not the end: whoever was woken by it may have died before the tool ran.
            for one in [one for one in waiting.values() if one.call_id == answer.id and one.confirmation_id in answered]:
                del waiting[one.confirmation_id]
        for call in event.get_function_calls():
            asked = _request_in((call.args or {}).get("toolConfirmation", {}).get("payload"))
            if call.name == _CONFIRMATION and call.id and asked is not None:
                paused = (call.args or {})["originalFunctionCall"]
                waiting[call.id] = PendingApproval(call.id, paused["name"], paused["id"], asked)
    return list(waiting.values())


def resume_message(pending: PendingApproval | Iterable[PendingApproval]) -> types.Content:
    """What wakes a run that has paused: the `new_message` for the runner, in any process, as often as you like.

    It approves nothing. A call of which nobody has decided pauses again; one whose arguments were changed meanwhile is refused.
    """
    each = [pending] if isinstance(pending, PendingApproval) else list(pending)
    answers = [types.FunctionResponse(id=one.confirmation_id, name=_CONFIRMATION, response={"confirmed": True}) for one in each]
    return types.Content(role="user", parts=[types.Part(function_response=answer) for answer in answers])


class _Leave:
    """That one call may run, with the arguments with which it was asked about."""

    def __init__(self, permit: Permit, asked: bytes) -> None:
        self.permit, self._asked = permit, asked

    def covers(self, args: dict[str, Any]) -> bool:
        try:
            return canonical(args) == self._asked
        except InvalidRequest:
            # It was JSON when it was asked about.
            return False


_binding = Lock()
#: By the context that ADK makes for each call, and gives to the plugins and to the tool.
_leaves: WeakKeyDictionary[ToolContext, _Leave] = WeakKeyDictionary()


def _bind(tool: BaseTool) -> None:
    """Has the tool itself look once more, when it runs, whether it is the call that may.

    ADK runs the callbacks of an agent after every plugin, and they may change the arguments: the tool would do something else than
    what was allowed, or approved. From its first permit on the tool runs in no other way.
    """
    with _binding:
        if getattr(tool.run_async, "countersign_bound", False):
            return
        tool.run_async = _bound(tool)  # type: ignore[method-assign]


def _bound(tool: BaseTool) -> Callable[..., Any]:
    unbound = tool.run_async

    async def run_async(*, args: dict[str, Any], tool_context: ToolContext) -> Any:
        leave = _leaves.pop(tool_context, None)
        if leave is None or not leave.covers(args):
            _log.warning("%s: this is not the call that was permitted, so the tool does not run", tool.name)
            return _said(Denied("the call is not the one that was permitted", code="approval_mismatch").for_model())
        with leave.permit:
            return await unbound(args=args, tool_context=tool_context)

    run_async.countersign_bound = True  # type: ignore[attr-defined]
    return run_async


def _is_past_the_plugins(tool: BaseTool | None) -> bool:
    """Whether it is an agent as a tool that ADK runs without the plugins of the App."""
    return isinstance(tool, AgentTool) and not tool.include_plugins


def _provided(tool: types.Tool) -> dict[str, Any]:
    """What a tool of a request has for the provider of the model to run."""
    return {field: value for field, value in tool if value is not None and field != "function_declarations"}


def _left(tool: types.Tool, shown: set[str], allowed: set[str]) -> dict[str, Any]:
    """What stays of a tool of a request: of the functions, and of what the provider runs. The tool itself may be others' as well."""
    left = {field: value for field, value in _provided(tool).items() if field in allowed}
    if functions := [declared for declared in tool.function_declarations or () if declared.name in shown]:
        left["function_declarations"] = functions
    return left


def _confirmation(call: types.FunctionCall, asked: ToolConfirmation) -> types.FunctionCall:
    """The call by which ADK asks whoever runs the agent whether another call is confirmed."""
    args = {
        "originalFunctionCall": call.model_dump(exclude_none=True, by_alias=True),
        "toolConfirmation": asked.model_dump(exclude_none=True, by_alias=True),
    }
    return types.FunctionCall(id=f"adk-{uuid4()}", name=_CONFIRMATION, args=args)


def _session(context: ToolContext) -> str:
    """Calls have ids of their own within a session, of whatever process. An invocation's id may change when it is resumed."""
    session = context.session
    return json.dumps([session.app_name, session.user_id, session.id])


def _paused_for(context: ToolContext) -> str | None:
    """The request for which this call was paused, as the session has it: what was answered says nothing about that."""
    if context.tool_confirmation is None or context.function_call_id is None:
        return None
    for event in reversed(context.session.events):
        asked = event.actions.requested_tool_confirmations.get(context.function_call_id)
        request = None if asked is None else _request_in(asked.payload)
        if request is not None:
            return request.id
    return None


def _request_in(payload: Any) -> ApprovalRequest | None:
    """The request that the payload of a confirmation names, if it is one of ours."""
    request = payload.get("countersign") if isinstance(payload, dict) else None
    return ApprovalRequest.from_dict(request) if isinstance(request, dict) else None


def _said(words: str) -> dict[str, Any]:
    """As ADK tells a model that a call failed."""
    return {"error": words}
