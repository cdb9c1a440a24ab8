"""What would come to run past the guard of Agno: the module that imports it has the fixture `stage`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import pytest
from acting import TOOLS, Ledger
from agno.agent import Agent
from agno.agents.base import BaseExternalAgent
from agno.team import Team
from agno.tools import Toolkit
from agno.tools.function import Function
from agno.tools.workflow import WorkflowTools
from agno.workflow import Loop, Step, Workflow
from agno_app import Script, tools_of
from cells_agno import READ, Play, told

from countersign import ConfigurationError, Tool
from countersign.agno import guard_agent

CLOSE: Any = ("close_ledger", {})
DELEGATE: Any = ("delegate_task_to_member", {"member_id": "helper", "task": "Do it."})
DELEGATION = {**TOOLS, "delegate_task_to_member": Tool("invoice.read", "invoice:any", None)}


def helper(play: Play, *lines: Any) -> Agent:
    """An agent that nobody has guarded."""
    tools = tools_of(play.ledger, asynchronous=play.tools == "async")
    return Agent(id="helper", name="helper", model=Script(lines=[*lines, "helped"]), tools=tools, telemetry=False)


@dataclass
class Shell(BaseExternalAgent):
    """As the agents of other makers are that Agno runs: whatever tools it has are its own."""


def test_agno_what_is_no_agent_and_no_team_of_such_is_refused(play: Play) -> None:
    shell: Any = Shell(id="helper", name="helper")
    workflow: Any = Workflow(name="w", steps=[Step(name="s", agent=helper(play))], telemetry=False)
    for owner in (shell, workflow, Team(members=[shell], model=Script(), telemetry=False)):
        with pytest.raises(ConfigurationError, match="Only an Agent and a Team"):
            guard_agent(owner, play.guard())


def test_agno_guards_the_agent_that_reasons_for_another(play: Play, ledger: Ledger) -> None:
    """Agno runs it with its own tools before the other is asked."""
    reasons = helper(play, CLOSE)
    play.agent(reasoning_agent=reasons, registry=False)
    play.run(reasons)
    assert ledger.read() == []
    assert "This is not allowed." in told(reasons)


@pytest.mark.parametrize("nested", [False, True])
def test_agno_denies_delegation_in_a_team_with_a_member_that_came_later(play: Play, ledger: Ledger, nested: bool) -> None:
    """Agno finds the members of a team within a team as well."""
    inner = Team(name="inner", members=[], model=Script(), telemetry=False)
    team = Team(members=[inner], model=Script(lines=[DELEGATE, "done"]), telemetry=False)
    guard_agent(team, play.guard(tools=DELEGATION), registry=False)
    members: Any = (inner if nested else team).members
    members.append(helper(play, CLOSE))
    play.run(team)
    assert ledger.read() == []
    assert "It cannot be checked whether this is allowed" in told(team)


def test_agno_guards_once_who_is_in_two_teams(play: Play, ledger: Ledger) -> None:
    both = helper(play, CLOSE)
    teams = [Team(name=name, members=[both], model=Script(), telemetry=False) for name in ("one", "two")]
    guard_agent(Team(members=[*teams], model=Script(), telemetry=False), play.guard(), registry=False)
    assert len(both.tool_hooks or []) == 1
    play.run(both)
    assert ledger.read() == []


@pytest.mark.parametrize("way", ["a method", "a function of a method", "a toolkit", "a workflow", "a team in a loop of a workflow"])
def test_agno_an_agent_behind_a_tool_is_guarded_or_the_tool_is_refused(play: Play, ledger: Ledger, way: str) -> None:
    """Agno runs it with tools of its own, past the hooks of whoever has the tool."""
    inner = helper(play, CLOSE)
    whole: Any = Team(name="whole", members=[inner], model=Script(), telemetry=False) if "team" in way else inner
    steps: list[Any] = [Loop(name="l", steps=[Step(name="s", team=whole)])] if "loop" in way else [Step(name="s", agent=inner)]
    kit = WorkflowTools(Workflow(name="w", steps=steps, telemetry=False), async_mode=play.asynchronous)
    plain = {"a method": inner.run, "a function of a method": Function(name="ask", entrypoint=inner.run)}
    tool = Toolkit(name="kit", tools=[inner.run]) if way == "a toolkit" else plain.get(way, kit)
    with pytest.raises(ConfigurationError, match="is an agent that is not guarded"):
        play.agent(tools=[tool])
    guard_agent(whole, play.guard(), registry=False)
    call = ("run_workflow", {"input": {"input_data": "Do it."}})
    agent = play.agent(call, tools=[tool], guard=play.guard(tools={**TOOLS, "run_workflow": Tool("invoice.read", "invoice:any", None)}))
    if way == "a workflow":
        play.run(agent)
        assert "This is not allowed." in told(inner)
    assert ledger.read() == []


@pytest.mark.parametrize("asynchronously", [False, True])
def test_agno_runs_nothing_with_tools_of_a_function_that_could_not_be_guarded(play: Play, ledger: Ledger, asynchronously: bool) -> None:
    search: Any = {"type": "web_search", "function": {"name": "web_search"}}
    seen: list[Any] = []
    made: list[Any] = tools_of(ledger, asynchronous=play.tools == "async")

    def tools(run_context: Any) -> list[Any]:
        seen.append(run_context.run_id)
        return made

    async def atools(run_context: Any) -> list[Any]:
        return tools(run_context)

    if asynchronously and not play.asynchronous:
        pytest.skip("Agno makes no tools asynchronously in run")
    agent = Agent(model=Script(lines=[READ, "done"]), tools=atools if asynchronously else tools, telemetry=False, cache_callables=False)
    guard_agent(agent, play.guard(), registry=False)
    play.run(agent)
    assert [entry["tool"] for entry in ledger.read()] == ["read_invoice"]
    assert seen[0], "the function is given what it asks for"
    made.append(search)
    model: Any = agent.model
    model.offered.clear()
    with contextlib.suppress(ConfigurationError):
        assert play.run(agent).status.value == "ERROR"
    assert model.offered == []
