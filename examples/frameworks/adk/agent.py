"""An agent of Google ADK that reads an invoice, and pays it once a person has approved that. README.md says how to run it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

from countersign import Client, Guard, Tool
from countersign.adk import CountersignPlugin, pending_approvals, resume_message
from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types


def read_invoice(number: str) -> str:
    """Reads an invoice."""
    return f"{number}: 500 EUR, due today"


def pay_invoice(number: str, amount: int, currency: str) -> str:
    """Pays an invoice."""
    return f"{number} is paid: {amount} {currency}"


def delete_mailbox(user: str) -> str:
    """Deletes a mailbox, which nobody has granted."""
    return f"the mailbox of {user} is gone"


SCRIPT = [
    ("read_invoice", {"number": "INV-7"}),
    ("delete_mailbox", {"user": "alice"}),
    ("pay_invoice", {"number": "INV-7", "amount": 500, "currency": "EUR"}),
]


class Scripted(BaseLlm):
    """Stands for a model, so that this runs without one: it says what the script says."""

    model: str = "scripted"

    async def generate_content_async(self, llm_request: LlmRequest, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        said = sum(content.role == "model" for content in llm_request.contents)
        calls = [types.FunctionCall(name=name, args=args) for name, args in SCRIPT[said : said + 1]]
        parts = [types.Part(function_call=call) for call in calls] or [types.Part(text="Done.")]
        yield LlmResponse(content=types.Content(role="model", parts=parts))


async def main() -> None:
    """Runs the agent to its end. A call that waits pauses it meanwhile."""
    who: dict[str, Any] = {"user_id": "alice", "session_id": sys.argv[1] if len(sys.argv) > 1 else str(time.time_ns())}
    model, tools = Scripted(), [read_invoice, pay_invoice, delete_mailbox]
    # ANCHOR: guard
    guard = Guard(
        Client(),
        {
            "read_invoice": Tool("invoice.read", resource="invoice:{number}", parameters=None),
            "pay_invoice": Tool("payments.authorize", resource="invoice:{number}", parameters=["amount", "currency"]),
            "delete_mailbox": Tool("mailbox.delete", resource="mailbox:{user}"),
        },
        mode="interrupt",
    )
    agent = LlmAgent(name="payer", model=model, tools=tools)
    app = App(name="billing", root_agent=agent, plugins=[CountersignPlugin(guard)])
    runner = Runner(app=app, session_service=InMemorySessionService(), auto_create_session=True)
    # ANCHOR_END: guard
    # ANCHOR: resume

    async def run(message: types.Content) -> list[Event]:
        events = []
        async for event in runner.run_async(**who, new_message=message):
            show(event)
            events.append(event)
        return events

    events = await run(types.Content(role="user", parts=[types.Part(text="Pay invoice INV-7.")]))
    while waiting := pending_approvals(events):
        for each in waiting:
            print(f"{each.tool} waits for somebody to approve request {each.request.id}", flush=True)
        await asyncio.sleep(3)  # or wait for the notification that somebody has decided, in this process or another
        events = await run(resume_message(waiting))
    # ANCHOR_END: resume


def show(event: Event) -> None:
    """Prints what the tools and the model say."""
    for response in event.get_function_responses():
        print(f"{response.name}: {response.response}")
    for part in (event.content and event.content.parts) or ():
        if part.text:
            print(f"model: {part.text}")


if __name__ == "__main__":
    asyncio.run(main())
