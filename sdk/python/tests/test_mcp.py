"""An MCP server of the official package behind our verifier."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer

from countersign.mcp import CountersignTokenVerifier, verified_token
from countersign.testing import FakeAuthority
from countersign.verifier import AsyncVerifier

RESOURCE = "https://api.example.com/mcp"


def call(authority: FakeAuthority, token: str | None) -> httpx.Response:
    async def run() -> httpx.Response:
        async with AsyncVerifier(authority.url, RESOURCE, revocation="none", timeout=0.5) as verifier:
            auth = AuthSettings(issuer_url=authority.url, resource_server_url=RESOURCE, validate_token_resource=True)  # type: ignore[arg-type]
            server = MCPServer("docs", token_verifier=CountersignTokenVerifier(verifier), auth=auth)

            @server.tool()
            def read(name: str) -> str:
                verified_token().require("document.read", f"document:{name}")
                return verified_token().actor

            app = server.streamable_http_app(json_response=True, stateless_http=True, host="api.example.com")
            headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read", "arguments": {"name": "q3"}}}
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="https://api.example.com") as client,
            ):
                return await client.post("/mcp", json=body, headers=headers)

    return asyncio.run(run())


def result(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def test_a_tool_knows_who_calls_it_and_with_what(authority: FakeAuthority) -> None:
    limit = {"type": "countersign_capability", "capability": "document.read", "resources": ["document:q3"]}
    found = result(call(authority, authority.token_for("document.read", audience=RESOURCE, details=[limit])))
    assert found["content"][0]["text"] == authority.agent
    assert not found.get("isError")


def test_a_tool_is_told_what_the_token_is_not_good_for(authority: FakeAuthority) -> None:
    found = result(call(authority, authority.token_for("web.search", audience=RESOURCE)))
    assert found["isError"] is True
    assert authority.agent not in str(found)


def test_a_token_that_is_not_accepted_does_not_get_in(authority: FakeAuthority) -> None:
    other = authority.token_for("document.read", audience="https://other.example")
    for token in (None, "a.b.c", other, authority.token_for("document.read", audience=RESOURCE, lifetime=-60)):
        answer = call(authority, token)
        assert answer.status_code == 401
        assert "resource_metadata=" in answer.headers["www-authenticate"]


def test_what_cannot_be_told_is_no_yes(authority: FakeAuthority) -> None:
    token = authority.token_for("document.read", audience=RESOURCE)
    authority.fail(503, 50)
    assert call(authority, token).status_code >= 500


def test_outside_of_a_request_there_is_no_token() -> None:
    with pytest.raises(LookupError):
        verified_token()
