"""What would come to run past the guard of Agno: the module that imports it has the fixture `stage`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from acting import TOOLS, Ledger
from agno.agent import Agent
from agno.agents.base import BaseExternalAgent
from agno.team import Team
from agno.workflow import Step, Workflow
from agno_app import Script, tools_of
from cells_agno import Play, told

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
