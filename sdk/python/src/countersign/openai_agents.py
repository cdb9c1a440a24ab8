"""OpenAI Agents SDK: the guard before each call of a tool (`countersign-sdk[openai-agents]`).

    agent = guard_agent(Agent(name="Payments", tools=[pay_invoice]), Guard(client, {"pay_invoice": ...}, mode="interrupt"))
    result = await Runner.run(agent, "Pay invoice INV-7.")

With `mode="interrupt"` a call that a person must approve interrupts the run. Its state can be kept, and gone on with in any process:

    state = await RunState.from_string(agent, kept)
    if not await settle(state, guard):  # nobody is waited for any more
        result = await Runner.run(agent, state)

`state.approve` alone is a wake-up and nothing else: the guard asks the authority again before the tool runs.
"""

from __future__ import annotations

import copy
import inspect
import json
import logging
from asyncio import Task, create_task, get_running_loop, shield
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from .approvals import ApprovalRequest
from .errors import ConfigurationError
from .guard import Denied, Guard, Pending, Permit
from .tokens import AccessToken

try:
    from agents import (
        Agent,
        FunctionTool,
        Handoff,
        RunContextWrapper,
        RunState,
        Tool,
        ToolGuardrailFunctionOutput,
        ToolInputGuardrail,
        ToolInputGuardrailData,
    )
    from agents.items import ToolApprovalItem
    from agents.sandbox import SandboxAgent
    from agents.tool_context import ToolContext
except ImportError as missing:
    raise ImportError(f"{missing.name} is not installed: pip install 'countersign-sdk[openai-agents]'") from None

__all__ = ["PendingApproval", "guard_agent", "guard_tools", "settle"]

_log = logging.getLogger("countersign")

#: To what run a call belongs, for models whose call ids are not unique: see `Guard.check`.
RunId = Callable[[RunContextWrapper[Any]], "str | None"]
#: The token with which the agent was called, if it was called by somebody.
SubjectToken = Callable[[RunContextWrapper[Any]], "str | AccessToken | None"]
AnyAgent = TypeVar("AnyAgent", bound=Agent[Any])

#: What marks a tool that asks a guard.
_GUARDED = "__countersign_guarded__"
#: On such a tool: whether the application asks about a call too, as its `needs_approval` said before.
_ASKS = "_countersign_asks"


def guard_agent(agent: AnyAgent, guard: Guard, *, run_id: RunId | None = None, subject_token: SubjectToken | None = None) -> AnyAgent:
    """The agent with all its tools guarded, and the agents to which it hands over alike. What was given is left as it is.

    Raises ConfigurationError for what would not go through the guard: tools that OpenAI or the SDK runs itself, MCP servers, the agents
    of a sandbox, and agents behind a `handoff()` or `as_tool()` that were not guarded before.
    """
    guarded: AnyAgent = _Guarding(guard, run_id, subject_token).agent(agent, {})
    return guarded


def guard_tools(
    tools: Iterable[Tool], guard: Guard, *, run_id: RunId | None = None, subject_token: SubjectToken | None = None
) -> list[FunctionTool]:
    """The tools, each of which asks the guard before it runs, and is not shown to a model that could not come to use it."""
    return _Guarding(guard, run_id, subject_token).tools(tools)


@dataclass(frozen=True)
class PendingApproval:
    """A call that waits for a person."""

    item: ToolApprovalItem
    request: ApprovalRequest


async def settle(
    state: RunState[Any, Any],
    guard: Guard,
    *,
    run_id: str | None = None,
    subject_token: str | AccessToken | None = None,
) -> list[PendingApproval]:
    """Wakes the calls of which somebody has decided, one way or the other, and says which still wait.

    Go on with `Runner.run(agent, state)`: what wakes is asked of the guard again, and what waits interrupts the run again. Interruptions
    of tools that are not in the map of the guard, or about which the application asks too (`needs_approval`), are left to the
    application, which answers them with `state.approve` or `state.reject`. Raises Denied if the authority cannot be asked: later.
    """
    waiting: list[PendingApproval] = []
    for item in state.get_interruptions():
        if item.tool_name not in guard.tools:
            continue
        call: dict[str, Any] = {"call_id": item.call_id or "", "run_id": run_id, "subject_token": subject_token}
        try:
            request = await guard.apeek(item.tool_name, _arguments(item.arguments), **call)
        except (Denied, ValueError) as denied:
            if isinstance(denied, Denied) and denied.code == "authority_unavailable":
                raise
            # The guard tells the model. Nobody else is asked about what is denied.
            state.approve(item)
            continue
        if request is not None:
            waiting.append(PendingApproval(item, request))
        elif not await _is_asked_too(item, state):
            state.approve(item)
    return waiting


class _Guarding:
    """Puts a guard before tools. What is decided is the guard's; here it is put into the words of the SDK."""

    def __init__(self, guard: Guard, run_id: RunId | None, subject_token: SubjectToken | None) -> None:
        self._guard, self._run_id, self._subject_token = guard, run_id, subject_token
        #: The permits that guardrails got, for the calls that follow them: the SDK hands both the same context.
        self._permits: WeakKeyDictionary[ToolContext[Any], Permit] = WeakKeyDictionary()
        self._list = _List(guard)

    # --- agents -----------------------------------------------------------------------------------------------------------------

    def agent(self, agent: Agent[Any], known: dict[int, Any]) -> Any:
        """The agent, guarded. `known` are those that are being guarded already, for agents that hand over to one another."""
        if (already := known.get(id(agent))) is not None:
            return already
        if agent.mcp_servers:
            raise ConfigurationError(
                f"the MCP servers of agent {agent.name} do not go through the guard",
                advice="Guard what they serve where it is served, by the token, and list them in an agent without other rights.",
            )
        if isinstance(agent, SandboxAgent):
            raise ConfigurationError(
                f"the shell and the files of agent {agent.name}, which has a sandbox, do not go through the guard",
                advice="Use an Agent with function tools.",
            )
        guarded: Any = agent.clone(tools=self.tools(agent.tools), handoffs=[], mcp_servers=[])
        known[id(agent)] = guarded
        guarded.handoffs = [self._handoff(each, agent, known) for each in agent.handoffs]
        return guarded

    def _handoff(self, each: Any, of: Agent[Any], known: dict[int, Any]) -> Any:
        if not isinstance(each, Handoff):
            return self.agent(each, known)
        if not _is_guarded(_target(each)):
            raise ConfigurationError(
                f"agent {of.name} hands over to {each.agent_name}, which is not guarded",
                advice="Write handoff(guard_agent(agent, guard)).",
            )
        return each

    # --- tools ------------------------------------------------------------------------------------------------------------------

    def tools(self, tools: Iterable[Tool]) -> list[FunctionTool]:
        """The tools, guarded."""
        guarded = [self._tool(each) for each in tools]
        self._list.names.update(each.name for each in guarded if each.name in self._guard.tools)
        return guarded

    def _tool(self, tool: Tool) -> FunctionTool:
        if not isinstance(tool, FunctionTool):
            raise ConfigurationError(
                f"the tool {tool.name} is not run by the agent, or does not go through the guard",
                advice="Only function tools can be guarded.",
            )
        if getattr(tool, _GUARDED, False):
            return tool
        inner = getattr(tool, "_agent_instance", None)
        if inner is not None and not _is_guarded(inner):
            raise ConfigurationError(
                f"the tool {tool.name} is an agent that is not guarded", advice="Write guard_agent(agent, guard).as_tool(...)."
            )
        guarded = copy.copy(tool)
        run = guarded.on_invoke_tool

        async def invoke(context: ToolContext[Any], arguments: str) -> Any:
            return await self._invoke(guarded.name, run, context, arguments)

        async def is_enabled(context: RunContextWrapper[Any], agent: Any) -> bool:
            return await _true(tool.is_enabled, context, agent) and await self._list.shows(guarded.name)

        async def needs_approval(context: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str) -> bool:
            if self._guard.mode != "interrupt" and tool.needs_approval is False:
                return False
            waits = await self._waits(guarded.name, context, arguments, call_id)
            return waits if waits is not None else await _true(tool.needs_approval, context, arguments, call_id)

        guarded.on_invoke_tool = invoke
        guarded.is_enabled = is_enabled
        guarded.needs_approval = needs_approval
        # After those of the application, so that what they reject uses no approval up.
        guarded.tool_input_guardrails = [*(tool.tool_input_guardrails or []), ToolInputGuardrail(self._guardrail, "countersign")]
        setattr(guarded, _GUARDED, True)
        setattr(guarded, _ASKS, tool.needs_approval)
        return guarded

    async def _waits(self, tool: str, context: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str) -> bool | None:
        """Whether a call pauses the run; None if that is for the application to say."""
        try:
            asked = {"call_id": call_id, **self._of(context)}
            if await self._guard.apeek(tool, arguments, **asked) is not None:
                return True if self._guard.mode == "interrupt" else None
        except Denied:
            # The guardrail tells the model. Nobody is asked to approve what is denied.
            return False
        except Exception as error:
            _log.error("whether a tool waits could not be told: %s", type(error).__name__)
            return False
        return None

    async def _guardrail(self, data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        """Before a call: asks the guard, and keeps the permit for the call that follows."""
        context = data.context
        outcome = await self._ask(context.tool_name, context, context.tool_arguments)
        if isinstance(outcome, Permit):
            self._permits[context] = outcome
            return ToolGuardrailFunctionOutput.allow()
        if isinstance(outcome, Pending) and self._guard.mode == "interrupt" and not _was_woken(context):
            # With pre_approval_tool_input_guardrails this runs before the pause. The call itself refuses without a permit.
            return ToolGuardrailFunctionOutput.allow(_details(outcome))
        return ToolGuardrailFunctionOutput.reject_content(outcome.for_model(), _details(outcome))

    async def _invoke(self, tool: str, run: Callable[[ToolContext[Any], str], Any], context: ToolContext[Any], arguments: str) -> Any:
        """The call itself. It runs within a permit, or not at all, whoever begins it."""
        permit = self._permits.pop(context, None)
        outcome: Permit | Denied | Pending = permit if permit is not None else await self._ask(tool, context, arguments)
        if not isinstance(outcome, Permit):
            return outcome.for_model()
        with outcome:
            # As they were read for the guard: another reader may make something else of the same text.
            return await run(context, json.dumps(_arguments(arguments)))

    async def _ask(self, tool: str, context: ToolContext[Any], arguments: str) -> Permit | Denied | Pending:
        try:
            return await self._guard.acheck(tool, _arguments(arguments), call_id=context.tool_call_id, **self._of(context))
        except (Denied, Pending) as outcome:
            return outcome
        except Exception as error:
            _log.error("the guard of a tool failed: %s", type(error).__name__)
            # Its words may quote the arguments of the call.
            return Denied(f"the guard failed ({type(error).__name__})", code="guard_failed")

    def _of(self, context: RunContextWrapper[Any]) -> dict[str, Any]:
        return {
            "run_id": None if self._run_id is None else self._run_id(context),
            "subject_token": None if self._subject_token is None else self._subject_token(context),
        }


class _List:
    """Which tools a model is shown. It is asked once for all of an agent's tools, about which the SDK asks at the same time."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.names: set[str] = set()
        self._flight: Task[set[str]] | None = None

    async def shows(self, name: str) -> bool:
        """Whether the agent could come to use a tool."""
        flight = self._flight
        if flight is None or flight.done() or flight.get_loop() is not get_running_loop():
            flight = self._flight = create_task(self._ask())
        return name in await shield(flight)

    async def _ask(self) -> set[str]:
        try:
            return set(await self._guard.avisible(sorted(self.names)))
        except Exception as error:
            # The model tries, is refused, and can say so.
            _log.warning("the list of tools could not be narrowed down: %s", type(error).__name__)
            return self.names


def _arguments(text: str | None) -> dict[str, Any]:
    arguments = json.loads(text or "{}")
    if not isinstance(arguments, dict):
        raise ValueError("the arguments of a tool are no JSON object")
    return arguments


async def _true(setting: Any, *about: Any) -> bool:
    """A setting of a tool that is a bool, or a function that says so at once or later."""
    said = setting(*about) if callable(setting) else setting
    return bool(await said if inspect.isawaitable(said) else said)


async def _is_asked_too(item: ToolApprovalItem, state: RunState[Any, Any]) -> bool:
    """Whether the application itself asks about this call. Where that cannot be told it does."""
    asks = [getattr(tool, _ASKS, True) for tool in item.agent.tools if tool.name == item.tool_name]
    if all(setting is False for setting in asks):
        return not asks
    context = state._context
    return any([await _true(setting, context, _arguments(item.arguments), item.call_id or "") for setting in asks])


def _was_woken(context: ToolContext[Any]) -> bool:
    """Whether the application has said that the call may go on, which decides nothing but that it does not pause again."""
    return context.is_tool_approved(context.tool_name, context.tool_call_id) is True


def _target(handoff: Any) -> Any:
    """The agent to which a handoff leads, as far as it says so."""
    if not isinstance(handoff, Handoff):
        return handoff
    return None if handoff._agent_ref is None else handoff._agent_ref()


def _is_guarded(agent: Any, known: frozenset[int] = frozenset()) -> bool:
    """Whether all tools of an agent ask a guard, and those of each agent that it could come to hand over to."""
    if id(agent) in known:
        return True
    tools, servers, handoffs = (getattr(agent, name, None) for name in ("tools", "mcp_servers", "handoffs"))
    if (
        isinstance(agent, SandboxAgent)
        or not isinstance(tools, list)
        or servers
        or not all(getattr(tool, _GUARDED, False) for tool in tools)
    ):
        return False
    return isinstance(handoffs, list) and all(_is_guarded(_target(each), known | {id(agent)}) for each in handoffs)


def _details(why: Denied | Pending) -> dict[str, Any]:
    """What the application sees in the results of the guardrails."""
    details: dict[str, Any] = {"code": why.code}
    if isinstance(why, Pending):
        details["request"] = why.request.to_dict()
    elif why.evaluation_id is not None:
        details["evaluation_id"] = why.evaluation_id
    return {"countersign": details}
