"""Countersign for CrewAI (`countersign-sdk[crewai]`).

    guard = Guard(Client(), {"read_invoice": "invoice.read", "pay_invoice": Tool("payments.authorize", resource="invoice:{number}")})
    with GuardHooks(guard):
        clerk = Agent(role="Clerk", ..., tools=guard_tools([read_invoice, pay_invoice], guard))
        Crew(agents=[clerk], tasks=[...]).kickoff()

The tools that `guard_tools` returns enforce by themselves. `GuardHooks` covers all others, such as those that CrewAI adds; alone it is not
enough, because CrewAI runs the tool when a hook fails, and hooks can be cleared. The guard's map has the names that the model sees:
`pay_invoice`, also for a tool called "Pay Invoice".

CrewAI tells a tool no id of its call, so a call is known by its run, the tool and the arguments: within one kickoff an approved call is
carried out once. A run is the `crewai.execution` id, which a paused flow keeps; `run_id` also survives a restart of a plain crew.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeAlias

from ._same_call import NO_RUN, Call, SubjectToken, closed, threaded
from .errors import ConfigurationError
from .guard import Denied, Guard, Pending, Permit

try:
    from crewai.execution import get_execution_uuid
    from crewai.flow.async_feedback import HumanFeedbackPending, PendingFeedbackContext
    from crewai.hooks import HookAborted, InterceptionPoint
    from crewai.hooks.dispatch import register, unregister
    from crewai.tools import BaseTool
    from crewai.tools.agent_tools.base_agent_tools import BaseAgentTool
    from crewai.tools.base_tool import Tool as FunctionTool
    from crewai.tools.structured_tool import CrewStructuredTool
    from crewai.tools.tool_failure import ToolFailure
    from crewai.utilities.string_utils import sanitize_tool_name
    from pydantic import PrivateAttr
    from pydantic_core import to_jsonable_python
except ImportError:
    raise ImportError("the package crewai (1.15.30 or later) is not installed: pip install 'countersign-sdk[crewai]'") from None

__all__ = ["ApprovalProvider", "GuardHooks", "GuardedTool", "guard_tools", "resume_flow", "tool_call"]

#: The id of the run: one for all calls, or asked for at each.
RunId: TypeAlias = str | Callable[[], str | None] | None

#: What the hook before a call has said no to, for the hook after it: the arguments, by identity, and what the model is told.
_refused: ContextVar[tuple[Mapping[str, Any], str] | None] = ContextVar("countersign_crewai_refused", default=None)


def guard_tools(
    tools: Iterable[BaseTool],
    guard: Guard,
    *,
    run_id: RunId = None,
    subject_token: SubjectToken | None = None,
    registry: bool = True,
) -> list[BaseTool]:
    """The tools, each of which asks the guard before it runs, whoever calls it and by whichever way.

    With `registry` those that the agent could not come to use are left out, so that no model hears of them; that asks the authority, and
    raises Unavailable if it does not answer. `subject_token` gives the token with which the agent was called, at each call.

    Raises ConfigurationError for a tool that delegates to an agent with tools of its own that ask nobody.
    """
    threaded(guard, "CrewAI")
    guarded: dict[str, BaseTool] = {}
    for tool in tools:
        if not isinstance(tool, BaseTool):
            raise ConfigurationError(f"{type(tool).__name__} is no tool of CrewAI", advice="Write @tool, or a subclass of BaseTool.")
        name = sanitize_tool_name(tool.name)
        if name in guarded:
            raise ConfigurationError(f"two tools have the name {name}")
        if name != tool.name and tool.name in guard.tools:
            raise ConfigurationError(f"the guard's map must have {name!r}, which is what the model sees of {tool.name!r}")
        if isinstance(tool, BaseAgentTool):
            _all_guarded(tool)
        guarded[name] = GuardedTool.of(tool, guard, run_id, subject_token)
    return [guarded[name] for name in (guard.visible(guarded) if registry else guarded)]


def _all_guarded(tool: BaseAgentTool) -> None:
    """Raises ConfigurationError if an agent to which the tool delegates has what does not ask a guard."""
    for agent in tool.agents:
        past = [name for name in ("mcps", "apps", "a2a") if getattr(agent, name, None)]
        past += [each.name for each in agent.tools or () if not isinstance(each, GuardedTool)]
        if past:
            raise ConfigurationError(
                f"{tool.name} delegates to the agent {agent.role}, of which the guard would not see: {', '.join(past)}",
                advice="Give that agent what guard_tools returns, or leave delegation to allow_delegation and GuardHooks.",
            )


class GuardedTool(BaseTool):
    """A tool that asks the guard before it runs. Made by `guard_tools`; one that comes from a checkpoint has no guard, and never runs."""

    _wrapped: BaseTool | None = PrivateAttr(default=None)
    _guard: Guard | None = PrivateAttr(default=None)
    _run_id: RunId = PrivateAttr(default=None)
    _subject_token: SubjectToken | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, tool: BaseTool, guard: Guard, run_id: RunId, subject_token: SubjectToken | None) -> GuardedTool:
        """The tool `tool`, guarded."""
        if isinstance(tool, GuardedTool):
            raise ConfigurationError(f"{tool.name} is guarded already")
        kept = ("name", "description", "env_vars", "args_schema", "result_schema", "result_as_answer", "max_usage_count")
        made = cls(
            **{name: getattr(tool, name) for name in kept},
            tool_failure_policy=tool.tool_failure_policy,
            # A result from the cache would be one that nobody was asked about.
            cache_function=never_cached,
        )
        made._wrapped, made._guard, made._run_id, made._subject_token = tool, guard, run_id, subject_token
        return made

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> GuardedTool:
        # Its locks and connections cannot be copied: it is the same tool, with the same guard.
        return self.__copy__()

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        try:
            tool, named, permit = self._ask(args, kwargs)
        except (Denied, Pending) as answer:
            return failure(answer)
        with permit:
            result = tool._run(**named)
            return finished(result) if inspect.iscoroutine(result) else result

    async def _arun(self, *args: Any, **kwargs: Any) -> Any:
        try:
            tool, named, permit = await asyncio.to_thread(self._ask, args, kwargs)
        except (Denied, Pending) as answer:
            return failure(answer)
        with permit:
            # CrewAI's own _arun of a tool without an asynchronous function runs it, and then says that it cannot.
            if not isinstance(tool, FunctionTool) and type(tool)._arun is not BaseTool._arun:
                return await tool._arun(**named)
            result = await asyncio.to_thread(tool._run, **named)
            return await result if inspect.iscoroutine(result) else result

    def to_structured_tool(self) -> CrewStructuredTool:
        """As CrewAI runs it where the model writes calls as text."""
        made = super().to_structured_tool()
        structured = _Structured(**{name: getattr(made, name) for name in type(made).model_fields})
        structured._original_tool = self
        return structured

    def format_output_for_agent(self, raw_result: Any) -> str:
        """As the tool itself would show its result."""
        if self._wrapped is None or isinstance(raw_result, ToolFailure):
            return super().format_output_for_agent(raw_result)
        return self._wrapped.format_output_for_agent(raw_result)

    def _ask(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[BaseTool, dict[str, Any], Permit]:
        """The tool, the arguments by their names, and the permit for exactly these. Raises Denied or Pending and nothing else."""
        if self._guard is None or self._wrapped is None:
            raise Denied(f"{self.name} has no guard", code="guard_failed")
        try:
            named = {**dict(zip(self.args_schema.model_fields, args, strict=False)), **kwargs}
            if len(named) != len(args) + len(kwargs):
                raise ValueError("the arguments do not fit the schema")
            _no_secret(named)
            call = Call(sanitize_tool_name(self.name), to_jsonable_python(named), current_run(self._run_id))
        except Exception as error:
            outcome = closed(self.name, error)
        else:
            return self._wrapped, named, call.check(self._guard, self._subject_token)
        raise outcome


def _no_secret(value: Any) -> None:
    """Raises for a secret of pydantic: as JSON it is asterisks, so that one would be approved and another one used."""
    if hasattr(value, "get_secret_value"):
        raise ConfigurationError("an argument is a secret, which whoever approves the call could not see")
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            _no_secret(each)


class _Structured(CrewStructuredTool):
    """The executor that CrewAI would use has no context, and so would not know the run."""

    async def ainvoke(self, input: str | dict[str, Any], config: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self.invoke, input, config, **kwargs)


class GuardHooks:
    """Asks the guard about every call of a tool that is not a GuardedTool, in all crews of the process, while it is installed.

    So CrewAI's own tools, those of MCP servers and forgotten ones are denied unless the guard's map has them. The model is told why.
    """

    def __init__(self, guard: Guard, *, run_id: RunId = None, subject_token: SubjectToken | None = None) -> None:
        threaded(guard, "CrewAI")
        self._guard, self._run_id, self._subject_token = guard, run_id, subject_token

    def install(self) -> GuardHooks:
        """Registers the hooks. Say nothing of `agents=` or `tools=` to hooks that guard: CrewAI skips those that do not match."""
        register(InterceptionPoint.PRE_TOOL_CALL, self._before)
        register(InterceptionPoint.POST_TOOL_CALL, self._after)
        return self

    def remove(self) -> None:
        """Takes them out again."""
        unregister(InterceptionPoint.PRE_TOOL_CALL, self._before)
        unregister(InterceptionPoint.POST_TOOL_CALL, self._after)

    def __enter__(self) -> GuardHooks:
        return self.install()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    def _before(self, context: Any) -> None:
        # Whatever is raised here but HookAborted lets the tool run.
        try:
            if _enforces(context):
                _not_from_the_cache(context)
            else:
                call = Call(context.tool_name, to_jsonable_python(context.tool_input), current_run(self._run_id))
                call.check(self._guard, self._subject_token)
                _once(context.tool)
            return
        except (Denied, Pending) as answer:
            told = answer.for_model()
        except Exception as error:
            told = closed(str(getattr(context, "tool_name", "")), error).for_model()
        _refused.set((context.tool_input, told))
        raise HookAborted(told, source="countersign")

    def _after(self, context: Any) -> str | None:
        _as_before(context.tool)
        refused = _refused.get()
        if refused is None or refused[0] is not context.tool_input:
            return None
        _refused.set(None)
        return refused[1]


def _enforces(context: Any) -> bool:
    """Whether what will run is a GuardedTool. Where two tools have the name, CrewAI need not run the one that it shows to a hook."""
    held = [*(getattr(context.agent, "tools", None) or ()), *(getattr(context.task, "tools", None) or ())]
    named = [tool for tool in held if sanitize_tool_name(tool.name) == context.tool_name]
    return all(isinstance(tool, GuardedTool) for tool in [getattr(context.tool, "_original_tool", None), *named])


def _not_from_the_cache(context: Any) -> None:
    """Takes out what CrewAI would answer in place of a GuardedTool: its cache knows names only, and another agent's tool may have this."""
    cache = getattr(getattr(context.agent, "tools_handler", None), "cache", None)
    if cache is not None:
        cache.add(tool=context.tool_name, input=json.dumps(context.tool_input) if context.tool_input else "", output=None)


def _once(tool: CrewStructuredTool | None) -> None:
    """One run for one question: where the model writes calls as text, CrewAI runs a tool that raises up to six times, and asks no hook."""
    if tool is None:
        return
    _as_before(tool)
    run, came_of_it = tool.func, list[Exception]()

    def begin() -> None:
        if came_of_it:
            raise came_of_it[-1]
        came_of_it.append(RuntimeError("it was run already"))

    def once(*args: Any, **kwargs: Any) -> Any:
        begin()
        try:
            return run(*args, **kwargs)
        except Exception as error:
            came_of_it.append(error)
            raise

    async def once_async(*args: Any, **kwargs: Any) -> Any:
        begin()
        try:
            return await run(*args, **kwargs)
        except Exception as error:
            came_of_it.append(error)
            raise

    made: Any = once_async if inspect.iscoroutinefunction(run) else once
    made.countersign_run = run
    tool.func = made


def _as_before(tool: CrewStructuredTool | None) -> None:
    """Undoes `_once`."""
    if tool is not None:
        tool.func = getattr(tool.func, "countersign_run", tool.func)


def tool_call(tool: str, **args: Any) -> dict[str, Any]:
    """What a method under `@human_feedback` returns, for ApprovalProvider: the call that a person shall approve."""
    return {"tool": tool, "args": to_jsonable_python(args)}


class ApprovalProvider:
    """Asks a person through the authority, for methods of a flow that return a `tool_call`, and pauses the flow meanwhile.

        @human_feedback(message="Pay?", provider=ApprovalProvider(guard))
        def ask(self):
            return tool_call("pay_invoice", number="INV-7", amount=500)

        @listen(ask)
        def pay(self, asked):
            return guarded_pay_invoice.run(**asked.output["args"])

    The flow's feedback only says that it may go on: what counts is what the guarded tool is told when it asks again. So `emit`, for which
    a model would read the feedback, is not needed.
    """

    def __init__(self, guard: Guard, *, run_id: RunId = None, subject_token: SubjectToken | None = None) -> None:
        threaded(guard, "CrewAI")
        self._guard, self._run_id, self._subject_token = guard, run_id, subject_token

    def request_feedback(self, context: PendingFeedbackContext, flow: Any) -> str:
        """As CrewAI calls it. Raises HumanFeedbackPending while nobody has decided, with the request in `callback_info`, or nobody can be
        asked."""
        try:
            asked = context.method_output
            run = current_run(self._run_id if self._run_id is not None else context.execution_uuid)
            Call(asked["tool"], asked["args"], run).look(self._guard, self._subject_token)
        except Pending as pending:
            waiting = pending.request.to_dict()
        except Denied as denied:
            if denied.code != "authority_unavailable":
                return denied.for_model()
            # Whoever resumes the flow asks again.
            waiting = {"unavailable": denied.message}
        except Exception as error:
            return closed(context.method_name, error).for_model()
        else:
            return "approved"
        raise HumanFeedbackPending(context, callback_info=waiting)


def resume_flow(flow: Any, provider: ApprovalProvider) -> Any:
    """Goes on with a flow from `from_pending` if somebody has decided; else returns HumanFeedbackPending, as `kickoff` does.

    In asyncio: `await asyncio.to_thread(resume_flow, flow, provider)`.
    """
    context = flow.pending_feedback
    if context is None:
        raise ConfigurationError("the flow waits for nobody", advice="Make it with from_pending(flow_id).")
    try:
        feedback = provider.request_feedback(context, flow)
    except HumanFeedbackPending as pending:
        return pending
    return flow.resume(feedback)


def current_run(run_id: RunId) -> str:
    """The run of a call: what was said, else CrewAI's own id of it, else the process."""
    said = run_id() if callable(run_id) else run_id
    return said or get_execution_uuid() or NO_RUN


def failure(answer: Denied | Pending) -> ToolFailure:
    """A no as CrewAI knows it: told to the model, counted as a failure, never the final answer."""
    return ToolFailure(message=answer.for_model(), code=answer.code, retryable=isinstance(answer, Pending))


def never_cached(_args: Any = None, _result: Any = None) -> bool:
    """For `cache_function`."""
    return False


def finished(coroutine: Any) -> Any:
    """The result of an asynchronous tool that was called synchronously, perhaps within an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()
