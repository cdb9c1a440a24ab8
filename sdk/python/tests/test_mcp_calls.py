"""An MCP server of the official package that is protected as a whole: the calls of its tools."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from mcp.server.mcpserver import MCPServer

from countersign import Tool
from countersign.challenge import parse
from countersign.mcp import protect, verified_token
from countersign.testing import FakeAuthority
from countersign.verifier import AsyncVerifier

RESOURCE = "https://api.example.com/mcp"
METADATA = "https://api.example.com/.well-known/oauth-protected-resource/mcp"
TOOLS = {
    "read": Tool("document.read", resource="document:{name}"),
    "pay": Tool("payments.authorize", resource="invoice:{number}", parameters=["amount"]),
}
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


def post(authority: FakeAuthority, token: str | None, body: Any, *, stateless: bool = True) -> httpx.Response:
    async def run() -> httpx.Response:
        async with AsyncVerifier(authority.url, RESOURCE, revocation="none") as verifier:
            server = MCPServer("docs")

            @server.tool()
            def read(name: str) -> str:
                return f"{name} by {verified_token().actor}"

            @server.tool()
            def pay(number: str, amount: int) -> str:
                return f"{number} {amount}"

            @server.tool()
            def unmapped() -> str:
                return "it ran"

            inner = server.streamable_http_app(json_response=True, stateless_http=stateless, host="api.example.com")
            app = protect(inner, verifier, RESOURCE, TOOLS, scopes=["document.read"])
            headers = HEADERS if token is None else {**HEADERS, "Authorization": f"Bearer {token}"}
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
            async with (
                inner.router.lifespan_context(inner),
                httpx.AsyncClient(transport=transport, base_url="https://api.example.com") as client,
            ):
                if content == b"":
                    return await client.get("/.well-known/oauth-protected-resource/mcp")
                return await client.post("/mcp", content=content, headers=headers)

    return asyncio.run(run())


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def token(authority: FakeAuthority, scope: str = "document.read", **more: Any) -> str:
    return authority.token_for(scope, audience=RESOURCE, **more)


def refused(answer: httpx.Response) -> str:
    """The scope that a 403 names."""
    assert answer.status_code == 403, answer.text
    challenge = parse(answer.headers["www-authenticate"])
    assert challenge is not None
    assert challenge.parameters["resource_metadata"] == METADATA
    assert challenge.parameters["error"] == "insufficient_scope"
    return challenge.parameters["scope"]


def test_a_call_that_the_token_allows_runs_and_knows_who_calls(authority: FakeAuthority) -> None:
    answer = post(authority, token(authority), call("read", name="q3"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"]["content"][0]["text"] == f"q3 by {authority.agent}"


def test_what_is_no_call_needs_no_capability(authority: FakeAuthority) -> None:
    answer = post(authority, token(authority, "web.search"), {"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert {tool["name"] for tool in answer.json()["result"]["tools"]} == {"read", "pay", "unmapped"}


def test_the_capability_that_a_call_lacks_is_named(authority: FakeAuthority) -> None:
    assert refused(post(authority, token(authority), call("pay", number="INV-7", amount=5))) == "payments.authorize"
    assert refused(post(authority, token(authority, "web.search"), call("read", name="q3"))) == "document.read"


def test_a_call_on_what_the_token_is_not_for_does_not_run(authority: FakeAuthority) -> None:
    limited = token(authority, details=[{"type": "countersign_capability", "capability": "document.read", "resources": ["document:q3"]}])
    assert post(authority, limited, call("read", name="q3")).status_code == 200
    assert refused(post(authority, limited, call("read", name="q4"))) == "document.read"


@pytest.mark.parametrize("arguments", [{}, {"name": "a/b"}, {"name": "*"}, {"name": ["q3"]}])
def test_arguments_that_name_nothing_do_not_run(authority: FakeAuthority, arguments: dict[str, Any]) -> None:
    assert refused(post(authority, token(authority), call("read", **arguments))) == "document.read"


def test_a_tool_that_is_not_in_the_map_does_not_run(authority: FakeAuthority) -> None:
    answer = post(authority, token(authority), call("unmapped"))
    assert refused(answer) == ""
    assert "it ran" not in answer.text


def test_a_token_for_one_operation_allows_exactly_that_call(authority: FakeAuthority) -> None:
    operation = {
        "type": "countersign_operation",
        "capability": "payments.authorize",
        "resource": "invoice:INV-7",
        "parameters": {"amount": 5},
    }
    approved = token(authority, "payments.authorize", details=[operation])
    answer = post(authority, approved, call("pay", number="INV-7", amount=5))
    assert answer.json()["result"]["content"][0]["text"] == "INV-7 5"
    for other in (call("pay", number="INV-7", amount=6), call("pay", number="INV-8", amount=5)):
        assert refused(post(authority, approved, other)) == "payments.authorize"


def test_each_message_of_a_batch_is_looked_at(authority: FakeAuthority) -> None:
    assert (
        refused(post(authority, token(authority), [call("read", name="q3"), call("pay", number="INV-7", amount=5)])) == "payments.authorize"
    )


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(call("pay", number="INV-7", amount=5)).replace('"params"', '"params": {"name": "read"}, "params"').encode(),
        json.dumps(call("pay", number="INV-7", amount=5)).replace('"method"', '"method": "ping", "method"').encode(),
        json.dumps(call("read", name="q3")).encode("utf-16"),
        b"{",
        b"\xff",
    ],
)
def test_a_body_that_could_be_read_in_two_ways_is_not_passed_on(authority: FakeAuthority, body: bytes) -> None:
    assert post(authority, token(authority), body).status_code == 400


def test_a_body_that_is_too_long_is_not_read(authority: FakeAuthority) -> None:
    assert post(authority, token(authority), call("read", name="q" * 4_200_000)).status_code == 413


def test_nobody_gets_in_without_a_token_that_was_verified(authority: FakeAuthority) -> None:
    answer = post(authority, None, call("read", name="q3"))
    assert answer.status_code == 401
    assert METADATA in answer.headers["www-authenticate"]
    other = authority.token_for("document.read", audience="https://other.example")
    assert post(authority, other, call("read", name="q3")).status_code == 401
    good = token(authority)
    authority.fail(503, 50)
    assert post(authority, good, call("read", name="q3")).status_code == 503


def test_the_metadata_says_where_tokens_are_from(authority: FakeAuthority) -> None:
    assert post(authority, None, b"").json() == {
        "resource": RESOURCE,
        "authorization_servers": [authority.url],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["document.read"],
    }


def test_mcp_a_body_that_is_nested_too_deeply_is_400(authority: FakeAuthority) -> None:
    assert post(authority, token(authority), b"[" * 200_000 + b"]" * 200_000).status_code == 400


def test_mcp_a_websocket_in_which_calls_could_be_made_unseen_is_not_opened(authority: FakeAuthority) -> None:
    reached, sent = [], []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        async with AsyncVerifier(authority.url, RESOURCE, revocation="none") as verifier:
            app = protect(inner, verifier, RESOURCE, TOOLS)
            headers = [(b"authorization", f"Bearer {token(authority)}".encode())]
            await app({"type": "websocket", "path": "/mcp/ws", "headers": headers}, None, send)  # type: ignore[arg-type]

    asyncio.run(run())
    assert (reached, sent) == ([], [{"type": "websocket.close", "code": 1008}])
