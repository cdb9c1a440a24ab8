"""An agent of Agno that reads an invoice, and pays it once a person has approved that. README.md says how to run it."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.tools import tool
from countersign import Client, Guard, Tool
from countersign.agno import guard_agent, pending, resume


@tool
def read_invoice(number: str) -> str:
    """Reads an invoice."""
    return f"{number}: 500 EUR, due today"


@tool(requires_confirmation=True)
def pay_invoice(number: str, amount: int, currency: str) -> str:
    """Pays an invoice."""
    return f"{number} is paid: {amount} {currency}"


@tool
def delete_mailbox(user: str) -> str:
    """Deletes a mailbox, which nobody has granted, so the model does not hear of it."""
    return f"the mailbox of {user} is gone"


SCRIPT = [
    ("read_invoice", {"number": "INV-7"}),
    ("delete_mailbox", {"user": "alice"}),
    ("pay_invoice", {"number": "INV-7", "amount": 500, "currency": "EUR"}),
]


@dataclass
class Scripted(Model):
    """Stands for a model, so that this runs without one: it says what the script says."""

    id: str = "scripted"

    def invoke(self, messages: Any, *args: Any, **more: Any) -> ModelResponse:
        said = sum(message.role == "assistant" for message in messages)
        if said >= len(SCRIPT):
            return ModelResponse(role="assistant", content="Done.")
        name, arguments = SCRIPT[said]
        call = {"id": f"call-{said}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        return ModelResponse(role="assistant", tool_calls=[call])

    async def ainvoke(self, *args: Any, **more: Any) -> ModelResponse:
        return self.invoke(*args, **more)

    def invoke_stream(self, *args: Any, **more: Any) -> Iterator[ModelResponse]:
        yield self.invoke(*args, **more)

    async def ainvoke_stream(self, *args: Any, **more: Any) -> AsyncIterator[ModelResponse]:
        yield self.invoke(*args, **more)

    def _parse_provider_response(self, response: ModelResponse, **more: Any) -> ModelResponse:
        return response

    def _parse_provider_response_delta(self, response: ModelResponse) -> ModelResponse:
        return response


def main(database: str) -> None:
    """Runs the agent to its end. A call that waits pauses it meanwhile."""
    model, tools = Scripted(), [read_invoice, pay_invoice, delete_mailbox]
    # ANCHOR: guard
    guard = Guard(
        Client(),
        {
            "read_invoice": Tool("invoice.read", resource="invoice:{number}", parameters=None),
            "pay_invoice": Tool("payments.authorize", resource="invoice:{number}", parameters=["amount", "currency"]),
            "delete_mailbox": Tool("mailbox.delete", resource="mailbox:{user}", parameters=None),
        },
        mode="interrupt",
    )
    agent = guard_agent(Agent(id="clerk", model=model, tools=tools, db=SqliteDb(db_file=database), telemetry=False), guard)
    # ANCHOR_END: guard
    # ANCHOR: resume
    run = agent.run("Pay invoice INV-7.", session_id="invoices")
    while run.is_paused:
        for request in pending(agent, run):
            print(f"waits for somebody to approve request {request.id}", flush=True)
        time.sleep(3)  # or wait for the notification that somebody has decided
        # This could be another process: the run is in the agent's database.
        run = resume(agent, run_id=run.run_id, session_id=run.session_id)
    # ANCHOR_END: resume
    for message in run.messages:
        if message.role != "system" and message.content:
            print(f"{message.role}: {message.content}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else f"{tempfile.mkdtemp()}/agno.db")
