"""An agent of Google ADK for the tests, in this process or in one of its own: `python adk_agent.py DATABASE JOURNAL COMMAND [WORDS]`.

Its model is a script, so nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from authorities import TOOLS
from google.adk.agents import LlmAgent
from google.adk.apps import App, ResumabilityConfig
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, DatabaseSessionService
from google.genai import types
from pydantic import Field

from countersign import Client
from countersign.adk import CountersignPlugin, pending_approvals, resume_message
from countersign.guard import Guard, current_permit

WHO = {"user_id": "ana", "session_id": "s-1"}


class Script(BaseLlm):
    """Calls the tools that the user names, one a line, perhaps with an id before it, and then repeats what they said."""

    model: str = "script"
    #: The tools that it was shown, each time it was asked.
    shown: list[list[str]] = Field(default_factory=list)
    #: What the provider of the model, or its client, would run.
    provided: list[list[str]] = Field(default_factory=list)

    async def generate_content_async(self, llm_request: LlmRequest, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        tools = llm_request.config.tools or []
        given = [tool for tool in tools if isinstance(tool, types.Tool)]
        self.shown.append(sorted(d.name for tool in given for d in tool.function_declarations or ()))
        fields = {field for tool in given for field in tool.model_dump(exclude_none=True)} - {"function_declarations"}
        self.provided.append(sorted(fields) + [str(tool) for tool in tools if not isinstance(tool, types.Tool)])
        last = llm_request.contents[-1].parts or []
        answers = [part.function_response.response for part in last if part.function_response is not None]
        if answers:
            parts = [types.Part(text=json.dumps(answers))]
        else:
            asked = re.findall(r"^(?:(\S+): )?(\w+) ({.*})$", last[-1].text or "", re.MULTILINE)
            calls = [types.FunctionCall(id=id or None, name=name, args=json.loads(args)) for id, name, args in asked]
            parts = [types.Part(function_call=call) for call in calls] or [types.Part(text="What now?")]
        yield LlmResponse(content=types.Content(role="model", parts=parts))


def tools_of(journal: Path) -> list[Any]:
    """The tools, which write down that they ran, with what, and by which permit."""

    def ran(name: str, **args: Any) -> dict[str, Any]:
        permit = current_permit()
        with journal.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"tool": name, **args, "permit": permit and permit.tool}) + "\n")
        return {"done": name}

    def read_invoice(number: str) -> dict[str, Any]:
        """Reads an invoice."""
        return ran("read_invoice", number=number)

    async def pay_invoice(number: str, amount: int, currency: str) -> dict[str, Any]:
        """Pays an invoice."""
        return ran("pay_invoice", number=number, amount=amount, currency=currency)

    def delete_mailbox(user: str) -> dict[str, Any]:
        """Deletes a mailbox."""
        return ran("delete_mailbox", user=user)

    def wire_money(to: str) -> dict[str, Any]:
        """Is in no map."""
        return ran("wire_money", to=to)

    return [read_invoice, pay_invoice, delete_mailbox, wire_money]


def runner_of(
    guard: Guard, journal: Path, sessions: BaseSessionService, *, plugins: Sequence[BasePlugin] | None = None, **agent: Any
) -> Runner:
    """The App, and what runs it."""
    root = LlmAgent(**{"name": "payer", "model": Script(), "tools": tools_of(journal), **agent})
    app = App(
        name="billing",
        root_agent=root,
        plugins=[CountersignPlugin(guard)] if plugins is None else list(plugins),
        resumability_config=ResumabilityConfig(is_resumable=True),
    )
    return Runner(app=app, session_service=sessions, auto_create_session=True)


def user(words: str) -> types.Content:
    """What the user says."""
    return types.Content(role="user", parts=[types.Part(text=words)])


def said(events: Sequence[Event]) -> str:
    """What the model has said to the user in the end: what it was told by the tools."""
    texts = [part.text for event in events for part in (event.content and event.content.parts) or () if part.text]
    return texts[-1] if texts else ""


async def main(database: str, journal: str, command: str, words: str = "") -> None:
    """One life of the agent: it begins (`start`, or `wait` in the mode `wait`), or goes on with what another began (`resume`, `replay`)."""
    sessions = DatabaseSessionService(f"sqlite+aiosqlite:///{database}")
    with Client(timeout=5.0) as client:
        guard = Guard(client, TOOLS, mode="wait" if command in ("wait", "replay") else "interrupt", max_wait=60.0)
        runner = runner_of(guard, Path(journal), sessions)
        how: dict[str, Any] = {"new_message": user(words)}
        if command in ("replay", "resume"):
            session = await sessions.get_session(app_name="billing", **WHO)
            assert session is not None
            if command == "resume":
                how = {"new_message": resume_message(pending_approvals(session.events))}
            else:
                how = {"invocation_id": session.events[-1].invocation_id}
        events = [event async for event in runner.run_async(**WHO, **how)]
    print(json.dumps({"said": said(events), "waiting": [each.request.id for each in pending_approvals(events)]}), flush=True)
    if command == "start":
        # It dies while it waits, not by going home.
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
