"""An agent that uses the tools of an MCP server. It gets its tokens by the SDK, and has a person approve what needs that.

client.py URL
"""

import asyncio
import os
import sys
from collections.abc import Awaitable
from typing import Any

import httpx2
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from countersign import AccessToken, AsyncClient, Operation
from countersign.challenge import Challenge, parse

url = sys.argv[1]


class Refused(Exception):
    """The server did not take a request: its status, and what it says is missing."""

    def __init__(self, status: int, challenge: Challenge | None) -> None:
        super().__init__(status)
        self.status, self.asks = status, challenge.parameters if challenge else {}


def refusal(response: httpx2.Response) -> Refused:
    return Refused(response.status_code, parse(response.headers["www-authenticate"]))


async def refused(calling: Awaitable[str]) -> Refused:
    """What a call raises if the server refuses it."""
    try:
        await calling
    except Refused as no:
        return no
    raise RuntimeError("it was not refused")


async def discover() -> dict[str, Any]:
    """Whoever comes without a token is told where the metadata of the server is, and there who issues tokens for it (RFC 9728)."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        no = refusal(await http.post(url, json={}))
        metadata: dict[str, Any] = (await http.get(no.asks["resource_metadata"])).json()
    print(no.status, "resource:", metadata["resource"], "issuer:", metadata["authorization_servers"][0])
    return metadata


async def call(token: AccessToken, tool: str, **arguments: Any) -> str:
    """Calls one tool, with this token in each request."""
    refusals: list[Refused] = []

    async def look(response: httpx2.Response) -> None:
        if response.status_code in (401, 403):
            refusals.append(refusal(response))

    async with (
        httpx2.AsyncClient(headers=token.headers(), event_hooks={"response": [look]}, trust_env=False) as http,
        McpClient(streamable_http_client(url, http_client=http)) as mcp,
    ):
        try:
            result = await mcp.call_tool(tool, arguments)
        except MCPError:  # which does not say what the server answered
            if not refusals:
                raise
    if refusals:
        raise refusals[0]
    return " ".join(part.text for part in result.content if part.type == "text")


async def main() -> None:
    async with AsyncClient() as client:  # who this agent is, it finds in its pod
        # 1. Who issues tokens for this server. It has to be whom this agent trusts: it shows its credential to nobody else.
        metadata = await discover()
        if metadata["authorization_servers"] != [os.environ["COUNTERSIGN_URL"]] or metadata["resource"] != url:
            sys.exit("this server is not what it says, or takes tokens of somebody else")

        # 2. A token for this server, with all that the agent may do without asking.
        token = await client.token(audience=url)
        print("read:", await call(token, "read_invoice", number="INV-7"))

        # 3. A tool whose capability the agent was not granted, and an invoice that is not for it.
        for tool, number in (("delete_invoice", "INV-7"), ("read_invoice", "SALARY-7")):
            no = await refused(call(token, tool, number=number))
            print(no.status, no.asks["error"], tool, number, "needs", no.asks["scope"])

        # 4. A tool that a person must approve: the token is for this call and no other.
        payment: dict[str, Any] = {"number": "INV-7", "amount": 500, "currency": "EUR"}
        no = await refused(call(token, "pay_invoice", **payment))
        print(no.status, no.asks["error"], "pay_invoice needs", no.asks["scope"])
        operation = Operation("payments.authorize", "invoice:INV-7", {"amount": 500, "currency": "EUR"}, audience=url)
        approved = await client.require_approval(operation, timeout=120, justification="Invoice INV-7 is due today.")
        no = await refused(call(approved, "pay_invoice", **{**payment, "amount": 501}))
        print(no.status, no.asks["error"], "for another amount")
        print("pay:", await call(approved, "pay_invoice", **payment))
        print("pay again:", await call(approved, "pay_invoice", **payment))


asyncio.run(main())
