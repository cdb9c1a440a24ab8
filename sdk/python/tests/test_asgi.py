"""A server behind the middleware: nothing gets past it without a token that was verified."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from countersign.asgi import CountersignMiddleware, require, token_of
from countersign.challenge import metadata_url, parse
from countersign.testing import FakeAuthority
from countersign.verified import VerifiedToken
from countersign.verifier import AsyncVerifier

RESOURCE = "https://api.example.com/v1"
METADATA = "https://api.example.com/.well-known/oauth-protected-resource/v1"


def ask(authority: FakeAuthority, path: str, headers: Any = None, **more: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with AsyncVerifier(authority.url, authority.audience, revocation=more.pop("revocation", "none"), timeout=0.5) as verifier:
            app = FastAPI()
            app.add_middleware(CountersignMiddleware, verifier=verifier, resource=RESOURCE, exempt=["/healthz"], scopes=["document.read"])
            read = require("document.read", "document:{name}")

            @app.get("/reports/{name}")
            async def report(name: str, token: VerifiedToken = Depends(read)) -> dict[str, Any]:  # noqa: B008
                return {"actor": token.actor}

            @app.get("/healthz")
            async def health() -> str:
                return "ok"

            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="https://api.example.com") as client:
                return await client.get(path, headers=headers)

    return asyncio.run(run())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_good_token_gets_in_and_the_application_sees_it(authority: FakeAuthority) -> None:
    answer = ask(authority, "/reports/q3", bearer(authority.token_for("document.read")))
    assert (answer.status_code, answer.json()) == (200, {"actor": authority.agent})


def test_without_a_token_one_is_told_where_to_get_it(authority: FakeAuthority) -> None:
    answer = ask(authority, "/reports/q3")
    challenge = parse(answer.headers["www-authenticate"])
    assert answer.status_code == 401
    assert challenge is not None
    assert challenge.parameters == {"resource_metadata": METADATA}
    assert metadata_url(RESOURCE) == METADATA


def test_the_metadata_of_the_resource_is_for_everybody(authority: FakeAuthority) -> None:
    answer = ask(authority, "/.well-known/oauth-protected-resource/v1")
    assert answer.json() == {
        "resource": RESOURCE,
        "authorization_servers": [authority.url],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["document.read"],
    }


@pytest.mark.parametrize("sent", ["Basic x", "Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer a.b.c", "DPoP a.b.c"])
def test_anything_but_one_good_bearer_token_is_invalid(authority: FakeAuthority, sent: str) -> None:
    answer = ask(authority, "/reports/q3", {"Authorization": sent})
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_two_tokens_are_none(authority: FakeAuthority) -> None:
    good = authority.token_for("document.read")
    answer = ask(authority, "/reports/q3", [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")])
    assert answer.status_code == 401


def test_a_token_in_the_address_is_not_looked_at(authority: FakeAuthority) -> None:
    assert ask(authority, f"/reports/q3?access_token={authority.token_for('document.read')}").status_code == 401


def test_a_scope_that_is_missing_is_named(authority: FakeAuthority) -> None:
    limit = {"type": "countersign_capability", "capability": "document.read", "resources": ["document:q4"]}
    for token in (authority.token_for("web.search"), authority.token_for("document.read", details=[limit])):
        answer = ask(authority, "/reports/q3", bearer(token))
        challenge = parse(answer.headers["www-authenticate"])
        assert answer.status_code == 403
        assert challenge is not None
        assert (challenge.parameters["error"], challenge.parameters["scope"]) == ("insufficient_scope", "document.read")


def test_a_path_that_names_no_resource_is_nobodys(authority: FakeAuthority) -> None:
    for name in ("*", "..%5c", "%2e%2e"):
        assert ask(authority, f"/reports/{name}", bearer(authority.token_for("document.read"))).status_code in (403, 404)


def test_what_cannot_be_told_is_503_and_nobody_gets_in(authority: FakeAuthority) -> None:
    token = authority.token_for("document.read")
    authority.fail(503, 50)
    answer = ask(authority, "/reports/q3", bearer(token))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "www-authenticate" not in answer.headers


def test_a_path_that_is_exempt_is_for_everybody_and_no_other(authority: FakeAuthority) -> None:
    assert ask(authority, "/healthz").status_code == 200
    for path in ("/healthz/", "/healthz/../reports/q3", "//healthz", "/HEALTHZ"):
        assert ask(authority, path).status_code == 401


def test_a_websocket_without_a_token_is_closed(authority: FakeAuthority) -> None:
    sent: list[Any] = []

    async def run() -> None:
        async def inner(*_: Any) -> None:
            raise AssertionError("it got in")

        async def send(message: Any) -> None:
            sent.append(message)

        async with AsyncVerifier(authority.url, authority.audience, revocation="none") as verifier:
            middleware = CountersignMiddleware(inner, verifier, RESOURCE)
            await middleware({"type": "websocket", "path": "/", "headers": []}, None, send)  # type: ignore[arg-type]

    asyncio.run(run())
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_an_application_without_the_middleware_has_no_token() -> None:
    with pytest.raises(LookupError):
        token_of({"type": "http"})
