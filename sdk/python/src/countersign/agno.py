"""Countersign for Agno (`countersign-sdk[agno]`).

    guard = Guard(Client(), {"read_invoice": "invoice.read", "pay_invoice": Tool("payments.authorize", resource="invoice:{number}")})
    agent = guard_agent(Agent(model=..., tools=[read_invoice, pay_invoice], db=SqliteDb(...)), guard)

Every tool of the agent asks the guard before it runs, also those that Agno adds, such as `delegate_task_to_member` of a team: what is not
in the guard's map is denied.

A tool with `@tool(requires_confirmation=True)` pauses the run. `resume(agent, run)` then asks a person, or refuses what no person could
approve, and goes on once it is decided; in another process, with the run that the agent's `db` has kept. Agno's own confirmation is no
approval: the guard asks the authority again before the tool runs.

Agno tells a hook no id of a call. So a call is known by its run, the tool and the arguments: within one run the same call is the same call,
and an approved one is carried out once.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import wraps
from inspect import isasyncgen, isawaitable, iscoroutinefunction, isgenerator
from typing import Any, TypeAlias, TypeVar

from ._same_call import NO_RUN, Call, SubjectToken, is_resuming, resuming, threaded
from .approvals import ApprovalRequest
from .errors import ConfigurationError
from .guard import Denied, Guard, Pending, Permit

try:
    from agno.agent import Agent
    from agno.run.requirement import RunRequirement
    from agno.team import Team
    from agno.tools import Toolkit
    from agno.tools.function import Function
except ImportError:
    raise ImportError("the package agno (3.1 or later) is not installed: pip install 'countersign-sdk[agno]'") from None

__all__ = ["ToolGuard", "apending", "aresume", "guard_agent", "pending", "resume"]

Owner = TypeVar("Owner")
#: Where a workflow and its steps have agents, and further steps.
_PARTS = ("agent", "team", "workflow", "steps", "choices", "else_steps")
#: What is known of a call that a run waits for: True if it may go on, the request if a person has yet to decide, the no if there is
#: one, and None if nobody can tell now.
Known: TypeAlias = ApprovalRequest | Denied | bool | None


def guard_agent(
    owner: Owner,
    guard: Guard,
    *,
    subject_token: SubjectToken | None = None,
    registry: bool = True,
    arun_only: bool = False,
) -> Owner:
    """Guards all tools of an Agent, or of a Team and its members, and those of the agents that reason for them, and returns it.

    With `registry` the model hears only of those that the agent could come to use; that asks the authority at each run, and a run fails
    with Unavailable if it does not answer. `arun_only` is for agents in an event loop that only `arun` runs: it is not held up by that.
    `subject_token` gives the token with which the agent was called, at each call.
    """
    agent: Any = owner
    threaded(guard, "Agno")
    if not isinstance(agent, Agent | Team):
        raise ConfigurationError(
            f"the tools of a {type(agent).__name__} do not go through the guard",
            advice="Only an Agent and a Team of such can be guarded: in a workflow, guard the agent of each step.",
        )
    members = getattr(agent, "members", None) or []
    if callable(members):
        raise ConfigurationError("the members of the team are made by a function", advice="Guard each member where it is made.")
    if any(isinstance(hook, ToolGuard) for hook in agent.tool_hooks or []):
        raise ConfigurationError(f"{agent.name or 'the agent'} is guarded already")
    given = [] if callable(agent.tools) else _guardable(list(agent.tools or []))
    if registry and callable(agent.tools):
        raise ConfigurationError("the tools are made by a function", advice="Say registry=False, and filter there by guard.visible.")
    if callable(agent.tools):
        agent.tools = _looked_through(agent.tools)
    # Agno runs a tool with the arguments of the call, whatever a hook hands on: only the first hook sees those.
    agent.tool_hooks = [ToolGuard(guard, subject_token), *(agent.tool_hooks or [])]
    if registry:
        agent.tools = _listed(given, guard, arun_only)
        # Agno would keep the list of a user or session for good.
        agent.cache_callables = False
    for other in [*members, getattr(agent, "reasoning_agent", None)]:
        # One that is behind two others is guarded once.
        if other is not None and not _is_guarded(other, guard):
            guard_agent(other, guard, subject_token=subject_token, registry=registry, arun_only=arun_only)
    return owner


class ToolGuard:
    """The hook. One for `run` and `arun`, because Agno leaves out an asynchronous one in `run`, and the tool would run."""

    def __init__(self, guard: Guard, subject_token: SubjectToken | None = None) -> None:
        self.guard, self.subject_token = guard, subject_token

    def __deepcopy__(self, memo: Any) -> ToolGuard:
        """Agno copies agents; the guard of the copy is the same."""
        return self

    def __call__(
        self,
        name: str,
        func: Callable[..., Any],
        args: dict[str, Any],
        agent: Any = None,
        team: Any = None,
        run_context: Any = None,
    ) -> Any:
        """As Agno calls it, with arguments by these names. Returns what the model is told if the tool does not run."""
        call = Call(name, args, getattr(run_context, "run_id", None) or NO_RUN)
        owner = agent if agent is not None else team
        if iscoroutinefunction(func):
            return self._acall(call, func, owner)
        try:
            permit = self._check(call, owner)
        except (Denied, Pending) as answer:
            return answer.for_model()
        with permit:
            # A copy, so that no later hook changes what was asked about.
            result = func(**copy.deepcopy(args))
        return _within(permit, result)

    async def _acall(self, call: Call, func: Callable[..., Any], owner: Any) -> Any:
        try:
            permit = await asyncio.to_thread(self._check, call, owner)
        except (Denied, Pending) as answer:
            return answer.for_model()
        with permit:
            result = func(**copy.deepcopy(dict(call.args)))
            if isawaitable(result):
                result = await result
        return _within(permit, result)

    def _check(self, call: Call, owner: Any) -> Permit:
        if (getattr(owner, "tool_hooks", None) or [None])[0] is not self:
            raise Denied("the guard is not the first of the agent's tool_hooks: use guard_agent", code="guard_failed")
        if not _is_guarded(owner, self.guard):
            raise Denied("the team has a member that is not guarded: use guard_agent once it is complete", code="guard_failed")
        return call.check(self.guard, self.subject_token)


def pending(owner: Any, run: Any) -> list[ApprovalRequest]:
    """The requests that a paused run waits for; those that are not there yet are made. It uses no approval."""
    return [known for _, known in _looked_at(owner, run) if isinstance(known, ApprovalRequest)]


async def apending(owner: Any, run: Any) -> list[ApprovalRequest]:
    """The same for asyncio."""
    return await asyncio.to_thread(pending, owner, run)


def resume(owner: Any, run: Any = None, *, run_id: str | None = None, session_id: str | None = None, **more: Any) -> Any:
    """Goes on with a paused run once all its calls are decided, else returns it as it is. Call it again after a while, or when woken.

    In another process say `run_id` and `session_id` in place of `run`. What a person, or the authority, has refused is told to the model.
    `more` goes to `continue_run`.
    """
    found = run if run is not None else owner.get_run_output(run_id=run_id, session_id=session_id)
    if not _settled(_looked_at(owner, found)):
        return found
    with resuming():
        return owner.continue_run(**_continued(owner, found, more))


async def aresume(owner: Any, run: Any = None, *, run_id: str | None = None, session_id: str | None = None, **more: Any) -> Any:
    """The same for asyncio."""
    found = run if run is not None else await owner.aget_run_output(run_id=run_id, session_id=session_id)
    if not _settled(await asyncio.to_thread(_looked_at, owner, found)):
        return found
    with resuming():
        return await owner.acontinue_run(**_continued(owner, found, more))


def _looked_at(owner: Any, run: Any) -> list[tuple[RunRequirement, Known]]:
    hooks = getattr(owner, "tool_hooks", None) or [None]
    if not isinstance(hooks[0], ToolGuard):
        raise ConfigurationError(f"{getattr(owner, 'name', None) or 'the agent'} is not guarded", advice="Use guard_agent.")
    return [(requirement, _known(hooks[0], call)) for requirement, call in _calls_of(run)]


def _calls_of(run: Any) -> Iterator[tuple[RunRequirement, Call]]:
    for requirement in getattr(run, "requirements", None) or []:
        if requirement.needs_confirmation and requirement.tool_execution is not None:
            asked = requirement.tool_execution
            # A member of a team has a run of its own.
            yield requirement, Call(asked.tool_name, asked.tool_args or {}, requirement.member_run_id or run.run_id)


def _known(hook: ToolGuard, call: Call) -> Known:
    try:
        call.look(hook.guard, hook.subject_token)
    except Pending as answer:
        return answer.request
    except Denied as answer:
        return None if answer.code == "authority_unavailable" else answer
    return True


def _settled(looked: Sequence[tuple[Any, Known]]) -> bool:
    """Tells Agno what becomes of each call, if all are decided."""
    if not looked or any(known is None or isinstance(known, ApprovalRequest) for _, known in looked):
        return False
    for requirement, known in looked:
        if isinstance(known, Denied):
            requirement.reject(known.for_model())
        else:
            requirement.confirm()
    return True


def _continued(owner: Any, run: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    if owner.db is None:
        return {"run_response": run, **more}
    return {"run_id": run.run_id, "session_id": run.session_id, "requirements": run.requirements, **more}


def _guardable(tools: Any) -> Any:
    """The tools, if all that they run asks a guard, as far as they show it."""
    for tool in tools or []:
        if isinstance(tool, Mapping):
            raise ConfigurationError("a tool that the provider of the model runs cannot be guarded", advice="Leave it out.")
        if not all(map(_asks, _behind(tool))):
            raise ConfigurationError(f"behind a tool ({', '.join(_names(tool))}) is an agent that is not guarded", advice="Guard it first.")
    return tools


def _looked_through(make: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes tools, with a look at those that it made. It takes what the other takes."""
    if iscoroutinefunction(make):

        @wraps(make)
        async def amade(*args: Any, **more: Any) -> Any:
            return _guardable(await make(*args, **more))

        return amade

    @wraps(make)
    def made(*args: Any, **more: Any) -> Any:
        return _guardable(make(*args, **more))

    return made


def _behind(tool: Any) -> Iterator[Any]:
    """What could be an agent behind a tool: what a toolkit has, and what a method is of."""
    if isinstance(tool, Toolkit):
        yield from vars(tool).values()
        for function in (*tool.functions.values(), *tool.async_functions.values()):
            yield from _behind(function)
    else:
        yield getattr(tool.entrypoint if isinstance(tool, Function) else tool, "__self__", None)


def _asks(thing: Any) -> bool:
    """Whether the agents that something runs are guarded: itself, those in a list, or those of the steps of a workflow."""
    if isinstance(thing, list | tuple):
        return all(map(_asks, thing))
    if isinstance(thing, Agent | Team):
        return isinstance(next(iter(thing.tool_hooks or ()), None), ToolGuard)
    if not type(thing).__module__.startswith("agno.workflow."):
        return True
    return all(_asks(getattr(thing, part, None)) for part in _PARTS)


def _is_guarded(agent: Any, guard: Guard) -> bool:
    """Whether an agent asks this guard, and all members of a team do."""
    first = (getattr(agent, "tool_hooks", None) or [None])[0]
    members = getattr(agent, "members", None) or []
    return isinstance(first, ToolGuard) and first.guard is guard and all(_is_guarded(member, guard) for member in members)


def _listed(tools: Sequence[Any], guard: Guard, arun_only: bool) -> Callable[[], Any]:
    """The tools of which the model hears, as a factory that asks the registry at each run."""
    names = sorted({name for tool in tools for name in _names(tool)})

    def shown() -> list[Any]:
        # What is hidden by the time of a resume must be there, so that the model is told why it does not run.
        visible = names if is_resuming() else guard.visible(names)
        return [part for tool in tools for part in _shown(tool, visible)]

    async def ashown() -> list[Any]:
        return await asyncio.to_thread(shown)

    return ashown if arun_only else shown


def _shown(tool: Any, visible: Sequence[str]) -> Iterator[Any]:
    names = _names(tool)
    if all(name in visible for name in names):
        yield tool
    elif isinstance(tool, Toolkit) and any(name in visible for name in names):
        part = copy.copy(tool)
        part.functions = type(tool.functions)((n, f) for n, f in tool.functions.items() if n in visible)
        part.async_functions = type(tool.async_functions)((n, f) for n, f in tool.async_functions.items() if n in visible)
        yield part


def _names(tool: Any) -> list[str]:
    """The names that the model sees. A toolkit that is not connected yet has none; the hook guards what it will have."""
    if isinstance(tool, Toolkit):
        return sorted({*tool.functions, *tool.async_functions})
    return [tool.name if isinstance(tool, Function) else tool.__name__]


def _within(permit: Permit, result: Any) -> Any:
    """A generator runs when it is read: then, too, it has its permit."""
    if isgenerator(result):
        return _items(permit, result)
    return _aitems(permit, result) if isasyncgen(result) else result


def _items(permit: Permit, generator: Iterator[Any]) -> Iterator[Any]:
    while True:
        with permit:
            try:
                item = next(generator)
            except StopIteration:
                return
        yield item


async def _aitems(permit: Permit, generator: AsyncIterator[Any]) -> AsyncIterator[Any]:
    while True:
        with permit:
            try:
                item = await anext(generator)
            except StopAsyncIteration:
                return
        yield item
