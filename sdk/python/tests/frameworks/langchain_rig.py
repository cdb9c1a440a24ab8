"""An agent of LangChain for the cells, whatever authority it has.

Run as a program it is one process of that agent: `langchain_rig.py start|resume DIRECTORY`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from authorities import PAYMENT, TOOLS, Authority, done
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from countersign import Operation
from countersign.canonical import idempotency_key
from countersign.guard import Guard
from countersign.langchain import CountersignMiddleware, guard_tool_call, pending_approvals, resume_command

THREAD: Any = {"configurable": {"thread_id": "t1"}}
ASKED = {"messages": [{"role": "user", "content": "Do your work."}]}


def call(name: str, args: dict[str, Any] | None = None, call_id: str = "c1") -> dict[str, Any]:
    """A call of a tool, as a model writes it."""
    return {"name": name, "args": PAYMENT if args is None else args, "id": call_id, "type": "tool_call"}


class Scripted(BaseChatModel):
    """A model that says what it was told to, by how much has been said: also in the process that goes on."""

    turns: list[list[dict[str, Any]]]
    offered: list[list[str]] = []

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **more: Any) -> Scripted:
        self.offered.append([each["name"] if isinstance(each, dict) else each.name for each in tools])
        return self

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **more: Any) -> ChatResult:
        said = sum(isinstance(message, AIMessage) for message in messages)
        calls = self.turns[said] if said < len(self.turns) else []
        answer = AIMessage("" if calls else "Done.", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=answer)])


def tools_of(ran: Path) -> list[Any]:
    """The tools of the tests. What they do is a line in a file, which outlives the process."""

    did = partial(done, ran)

    @tool
    def read_invoice(number: str) -> str:
        """Reads an invoice."""
        return did(f"read {number}")

    @tool
    def pay_invoice(number: str, amount: int, currency: str) -> str:
        """Pays an invoice."""
        return did(f"paid {number} {amount} {currency}")

    @tool
    def delete_mailbox(user: str) -> str:
        """Deletes a mailbox."""
        return did(f"deleted {user}")

    @tool
    def wire_money(amount: int) -> str:
        """Sends money."""
        return did(f"wired {amount}")

    return [read_invoice, pay_invoice, delete_mailbox, wire_money]


class Rig:
    """An agent, run in one of the ways that LangChain knows."""

    def __init__(self, authority: Authority, ran: Path, way: str) -> None:
        self.authority, self.ran, self.way = authority, ran, way
        self.loop = asyncio.new_event_loop()
        self.client: Any = authority.async_client() if way == "ainvoke" else authority.client()
        self.model = Scripted(turns=[])
        self.guard: Guard | None = None
        self.agent: Any = None

    def close(self) -> None:
        if self.way == "ainvoke":
            self.loop.run_until_complete(self.client.aclose())
        else:
            self.client.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def build(
        self,
        *turns: list[dict[str, Any]],
        mode: Any = "interrupt",
        max_wait: float = 30.0,
        saver: Any = "memory",
        before: Sequence[Any] = (),
        after: Sequence[Any] = (),
        given: Sequence[Any] | None = None,
        tools: dict[str, Any] | None = None,
        **more: Any,
    ) -> Rig:
        """An agent whose model says this."""
        self.guard = Guard(self.client, TOOLS if tools is None else tools, mode=mode, max_wait=max_wait)
        self.model = Scripted(turns=list(turns), offered=[])
        self.agent = create_agent(
            self.model,
            tools_of(self.ran) if given is None else given,
            middleware=[*before, CountersignMiddleware(self.guard, **more), *after],
            checkpointer=InMemorySaver() if saver == "memory" else saver,
        )
        return self

    def invoke(self, given: Any = ASKED, config: Any = THREAD) -> dict[str, Any]:
        """Runs it until it ends or pauses."""
        if self.way == "invoke":
            return self.agent.invoke(given, config)
        return self.loop.run_until_complete(self.agent.ainvoke(given, config))

    def did(self) -> list[str]:
        """What the tools have done."""
        return self.ran.read_text(encoding="utf-8").splitlines() if self.ran.exists() else []


@pytest.fixture(params=["invoke", "ainvoke"])
def rig(request: pytest.FixtureRequest, authority: Authority, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(authority, tmp_path / "ran", request.param)
    yield made
    made.close()


@pytest.fixture
def plain(authority: Authority, tmp_path: Path) -> Iterator[Rig]:
    """One way, for what is the same in all."""
    made = Rig(authority, tmp_path / "ran", "invoke")
    yield made
    made.close()


def told(result: dict[str, Any]) -> list[ToolMessage]:
    """What the model was told by its tools."""
    return [message for message in result["messages"] if isinstance(message, ToolMessage)]


def code(message: ToolMessage) -> str:
    """Why a call was refused."""
    assert message.status == "error"
    return str(message.artifact["countersign"]["code"])


EXAMPLE = Path(__file__).parents[4] / "examples" / "frameworks" / "langchain" / "agent.py"
#: How long the process that is killed would have waited, in seconds.
LOOK = 25.0
PAID = "paid INV-7 500 EUR payments.authorize"


class Between(AgentMiddleware[Any, Any, Any]):
    """A person who approves between two turns of the model."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig, self.decided = rig, False

    def before_model(self, state: Any, runtime: Any) -> None:
        if self.rig.authority.filed() and not self.decided:
            self.rig.authority.approve(self.rig.authority.wait_for_request())
            self.decided = True


class Changes(AgentMiddleware[Any, Any, Any]):
    """Somebody who changes the arguments of a call after it was approved."""

    def __init__(self) -> None:
        super().__init__()
        self.amount = 500

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(self._changed(request))

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        return await handler(self._changed(request))

    def _changed(self, request: Any) -> Any:
        changed = {**request.tool_call, "args": {**request.tool_call["args"], "amount": self.amount}}
        return request.override(tool_call=changed)


def file_with_short_life(rig: Rig, seconds: int, run_id: str = "t1") -> str:
    """Files the request of the call beforehand, so that it ends soon."""
    operation = Operation("payments.authorize", "invoice:INV-7", {"amount": 500, "currency": "EUR"})
    key = idempotency_key(run_id, "c1", "pay_invoice", operation.details())
    with rig.authority.client() as client:
        return client.request_approval(operation, expires_in=seconds, idempotency_key=key).id


def graph(rig: Rig) -> None:
    """Replaces the agent by a graph with a ToolNode."""
    assert rig.guard is not None
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode(tools_of(rig.ran), **guard_tool_call(rig.guard)))
    builder.add_edge(START, "tools")
    rig.agent = builder.compile(checkpointer=InMemorySaver())


def process(authority: Authority, step: str, directory: Path) -> subprocess.Popen[str]:
    """A process of the agent."""
    environment = {**os.environ, **authority.environment, "PYTHONPATH": os.pathsep.join(sys.path), "LANGSMITH_TRACING": "false"}
    return subprocess.Popen([sys.executable, __file__, step, str(directory)], env=environment, stdout=subprocess.PIPE, text=True)


def finished(started: subprocess.Popen[str]) -> str:
    """What a process has said, once it is over."""
    said, _ = started.communicate(timeout=300)
    assert started.returncode == 0
    return said.strip()


def main(step: str, directory: Path) -> None:
    """One process of the agent."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    from countersign import Client

    mode: Any = "wait" if step in ("start-waiting", "go-on") else "interrupt"
    with Client() as client, sqlite3.connect(directory / "checkpoints", check_same_thread=False, timeout=30) as connection:
        agent = create_agent(
            Scripted(turns=[[call("pay_invoice")]]),
            tools_of(directory / "ran"),
            middleware=[CountersignMiddleware(Guard(client, TOOLS, mode=mode, max_wait=LOOK))],
            checkpointer=SqliteSaver(connection),
        )
        given: Any = ASKED if step.startswith("start") else None
        if step == "resume":
            given = resume_command(agent.get_state(THREAD))
        result = agent.invoke(given, THREAD, durability="sync")
        print("paused" if pending_approvals(result) else result["messages"][-1].content)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
