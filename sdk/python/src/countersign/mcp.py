"""Tokens of Countersign for MCP servers that are built with the official package (`countersign-sdk[mcp]`).

    server = MCPServer(
        "docs",
        token_verifier=CountersignTokenVerifier(AsyncVerifier(issuer, "https://docs.example.com/mcp")),
        auth=AuthSettings(issuer_url=issuer, resource_server_url="https://docs.example.com/mcp", validate_token_resource=True),
    )

A token that cannot be checked is an error in that package, which answers 500, and what a token lacks is for each tool to say. Where
that is to be 503, and 403 with the scope that is missing, protect the whole application instead, and give the server neither of the two:

    tools = {"read": Tool("document.read", resource="document:{name}")}
    app = protect(server.streamable_http_app(), verifier, "https://docs.example.com/mcp", tools)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import challenge
from .asgi import App, CountersignMiddleware, Receive, Scope, Send, answer, metadata_url_of, token_of
from .errors import InsufficientScope, RevocationUnknown, TokenRejected
from .mapping import Tool
from .verified import VerifiedToken
from .verifier import AsyncVerifier

try:
    from mcp.server.auth.middleware.auth_context import AuthContextMiddleware, get_access_token
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken as McpToken
    from mcp.server.auth.provider import TokenVerifier
    from pydantic import Field, PrivateAttr
    from starlette.authentication import AuthCredentials
except ImportError:
    raise ImportError("the package mcp is not installed: pip install 'countersign-sdk[mcp]'") from None

__all__ = ["CountersignTokenVerifier", "protect", "verified_token"]

_log = logging.getLogger("countersign")

#: The longest request that is read, in bytes: as much as the package takes.
_BODY_MAX: Final = 4 * 1024 * 1024


class _Token(McpToken):
    """A token as that package has it, which is not printed, and what was verified beside it."""

    token: str = Field(repr=False)
    _verified: VerifiedToken | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, verified: VerifiedToken, audience: str) -> _Token:
        made = cls(
            token=verified.token.reveal(),
            client_id=verified.actor,
            scopes=sorted(verified.scopes),
            expires_at=verified.expires_at,
            resource=audience,
            # A session belongs to whoever acts and for whom: all of these are compared.
            subject=verified.subject,
            claims=dict(verified.claims),
        )
        made._verified = verified
        return made

    @property
    def verified(self) -> VerifiedToken | None:
        """What was verified."""
        return self._verified


class CountersignTokenVerifier(TokenVerifier):
    """Verifies the token of each request. What cannot be told is an error and never a yes."""

    def __init__(self, verifier: AsyncVerifier) -> None:
        self._verifier = verifier

    async def verify_token(self, token: str) -> McpToken | None:
        """As the package wants it: None for a token that is not accepted. Raises Unavailable or RevocationUnknown."""
        try:
            verified = await self._verifier.verify(token)
        except RevocationUnknown:
            raise
        except TokenRejected as refused:
            _log.info("a token was not accepted: %s", refused.code)
            return None
        return _Token.of(verified, self._verifier.audience)


def verified_token() -> VerifiedToken:
    """The token of the request that a tool serves, for `.require(...)`. Raises LookupError outside of one."""
    token = get_access_token()
    if not isinstance(token, _Token) or token.verified is None:
        raise LookupError("there is no verified token here")
    return token.verified


def protect(
    app: App,
    verifier: AsyncVerifier,
    resource: str,
    tools: Mapping[str, str | Tool],
    *,
    scopes: Sequence[str] = (),
) -> CountersignMiddleware:
    """An MCP server as a whole, behind `CountersignMiddleware`, which lets only those calls of tools by that their token allows.

    `tools` has the capability of each tool, and on what. A call that the token does not allow is answered with 403 and the scope that
    is missing, so that the client can get another token, and so is a call of a tool that is not among them.
    """
    inner = _Calls(AuthContextMiddleware(app), verifier.audience, {name: Tool.of(tool) for name, tool in tools.items()})
    return CountersignMiddleware(inner, verifier, resource, scopes=scopes)


class _Calls:
    """Looks at each call of a tool before the server does, with the token that was verified."""

    def __init__(self, app: App, audience: str, tools: Mapping[str, Tool]) -> None:
        self._app, self._audience, self._tools = app, audience, tools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # What is said in it is not looked at, so nothing is.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        verified = token_of(scope)
        user = AuthenticatedUser(_Token.of(verified, self._audience))
        scope = {**scope, "user": user, "auth": AuthCredentials(user.scopes)}
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            await answer(send, challenge.Refusal(413, {}, {"error": "invalid_request", "error_description": "the request is too long"}))
            return
        try:
            self._require(_messages(body), verified)
        except InsufficientScope as error:
            await answer(send, challenge.refusal(error, metadata_url_of(scope)))
        except ValueError:
            wrong = {"error": "invalid_request", "error_description": "the body is not JSON that can be read in one way only"}
            await answer(send, challenge.Refusal(400, {}, wrong))
        else:
            await self._app(scope, _again(body, receive), send)

    def _require(self, messages: list[Any], verified: VerifiedToken) -> None:
        """Raises InsufficientScope for a call that the token does not allow."""
        for message in messages:
            if not isinstance(message, dict) or message.get("method") != "tools/call":
                continue
            params = message.get("params")
            params = params if isinstance(params, dict) else {}
            name = params.get("name")
            tool = self._tools.get(name) if isinstance(name, str) else None
            if tool is None:
                raise InsufficientScope("no token allows this tool", scope="")
            try:
                operation = tool.operation(params.get("arguments") or {})
            except Exception:  # whatever the functions of the map raise: nobody was granted what has no name
                operation = None
            if operation is None:
                raise InsufficientScope("the arguments name nothing that a token could allow", scope=tool.capability)
            # A token for one operation allows that one alone; one for capabilities says nothing of parameters.
            verified.require(operation.capability, operation.resource, operation.parameters)


async def _body(receive: Receive) -> bytes | None:
    """What was sent; None if it is too long. If the client is gone, what there was of it, which nobody will read."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > _BODY_MAX:
            return None
        if not message.get("more_body", False):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """The same request for whoever reads it next."""
    sent = False

    async def replay() -> Any:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _messages(body: bytes) -> list[Any]:
    """The messages in it. Raises ValueError for what the server behind might read in another way than we do."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value if isinstance(value, list) else [value]


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a name is there twice")
    return found
