"""An agent with a scripted model, as the cells run it here and in other processes.

python agno_app.py LEDGER run               pauses on a payment; prints the run
python agno_app.py LEDGER resume RUN        goes on with that run
python agno_app.py LEDGER wait              waits within the run for a person
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acting import PAYMENT, TOOLS, Ledger
from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.tools import tool

from countersign import Client, Guard
from countersign.agno import guard_agent, pending, resume

SESSION = "session-1"


@dataclass
class Script(Model):
    """Says what stands in the script: calls of tools as `(name, arguments)` or a list of them, else text."""

    id: str = "scripted"
    lines: list[Any] = field(default_factory=list)
    #: The tools that it was told of, call by call, and the messages of the last one.
    offered: list[list[str]] = field(default_factory=list)
    heard: list[Any] = field(default_factory=list)

    def invoke(self, messages: Any = None, assistant_message: Any = None, tools: Any = None, **kwargs: Any) -> ModelResponse:
        self.offered.append([each["function"]["name"] for each in tools or []])
        self.heard[:] = messages
        line = self.lines.pop(0)
        if isinstance(line, str):
            return ModelResponse(role="assistant", content=line)
        calls = line if isinstance(line, list) else [line]
        said = [
            {"id": f"call-{len(self.offered)}-{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
            for n, (name, args) in enumerate(calls)
        ]
        return ModelResponse(role="assistant", tool_calls=said)

    async def ainvoke(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return self.invoke(*args, **kwargs)

    def invoke_stream(self, *args: Any, **kwargs: Any) -> Iterator[ModelResponse]:
        yield self.invoke(*args, **kwargs)

    async def ainvoke_stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ModelResponse]:
        yield self.invoke(*args, **kwargs)

    def _parse_provider_response(self, response: Any, **kwargs: Any) -> ModelResponse:
        return response

    def _parse_provider_response_delta(self, response: Any) -> ModelResponse:
        return response

    def told(self) -> str:
        """All that the model was told at last."""
        return "\n".join(str(message.content) for message in self.heard)


def tools_of(ledger: Ledger, *, confirm: bool = False, asynchronous: bool = False) -> list[Any]:
    """The tools of the cells. With `confirm` a payment pauses the run."""

    def read_invoice(number: str) -> str:
        """Reads an invoice."""
        ledger.write("read_invoice", number=number)
        return f"Invoice {number}: 500 EUR"

    def pay_invoice(number: str, amount: int, currency: str) -> str:
        """Pays an invoice."""
        ledger.write("pay_invoice", number=number, amount=amount, currency=currency)
        return f"Paid {amount} {currency} on {number}"

    def close_ledger() -> str:
        """Closes the ledger."""
        ledger.write("close_ledger")
        return "Closed"

    async def aread_invoice(number: str) -> str:
        """Reads an invoice."""
        return read_invoice(number)

    async def apay_invoice(number: str, amount: int, currency: str) -> str:
        """Pays an invoice."""
        return pay_invoice(number, amount, currency)

    async def aclose_ledger() -> str:
        """Closes the ledger."""
        return close_ledger()

    if asynchronous:
        return [
            tool(name="read_invoice")(aread_invoice),
            tool(name="pay_invoice", requires_confirmation=confirm)(apay_invoice),
            tool(name="close_ledger")(aclose_ledger),
        ]
    return [read_invoice, tool(requires_confirmation=confirm)(pay_invoice), close_ledger]


def database(ledger: Ledger) -> SqliteDb:
    """Where runs are kept."""
    return SqliteDb(db_file=str(ledger.path) + ".db")


def main(ledger_path: str, what: str, run_id: str | None = None) -> Any:
    ledger = Ledger(Path(ledger_path))
    with Client() as client:
        script = Script(lines=["done"] if what == "resume" else [("pay_invoice", PAYMENT), "done"])
        tools = tools_of(ledger, confirm=what != "wait")
        agent = Agent(id="clerk", model=script, tools=tools, db=database(ledger), telemetry=False)
        agent = guard_agent(agent, Guard(client, TOOLS, mode="wait" if what == "wait" else "interrupt"))
        if what == "resume":
            run = resume(agent, run_id=run_id, session_id=SESSION)
        else:
            # The id of the run is that of the work, so that the work can be begun anew.
            run = agent.run("Pay.", session_id=SESSION, run_id="run-17" if what == "wait" else None)
        asked = [each.id for each in pending(agent, run)] if run.is_paused else []
        return {"run": run.run_id, "paused": run.is_paused, "requests": asked, "told": script.told()}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
