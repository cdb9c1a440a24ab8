"""Middleware for ASGI applications (FastAPI, Starlette and others): nothing gets past it without a token that was verified.

app.add_middleware(CountersignMiddleware, verifier=AsyncVerifier(issuer, audience), resource="https://docs.example.com")

@app.get("/reports/{name}")
async def report(name: str, token: VerifiedToken = Depends(require("document.read", "document:reports/{name}"))): ...
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from . import challenge
from .errors import CountersignError, InsufficientScope
from .mapping import Tool
from .verified import VerifiedToken
from .verifier import AsyncVerifier

__all__ = ["CountersignMiddleware", "require", "token_of"]

_log = logging.getLogger("countersign")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_KEY = "countersign"


class CountersignMiddleware:
    """Verifies the token of each request, and serves the metadata of the resource (RFC 9728).

    `resource` is the URL of the server as clients know it. `exempt` are paths that anybody may see, compared exactly.
    """

    def __init__(
        self,
        app: App,
        verifier: AsyncVerifier,
        resource: str,
        *,
        scopes: Sequence[str] = (),
        exempt: Collection[str] = (),
    ) -> None:
        self._app, self._verifier, self._exempt = app, verifier, frozenset(exempt)
        self._metadata_url = challenge.metadata_url(resource)
        self._metadata_path = urlsplit(self._metadata_url).path
        self._metadata = challenge.metadata(resource, verifier.issuer, scopes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if scope["type"] == "http" and path == self._metadata_path and scope["method"] in ("GET", "HEAD"):
            await answer(send, challenge.Refusal(200, {"Cache-Control": "max-age=300"}, self._metadata))
            return
        if path in self._exempt:
            await self._app(scope, receive, send)
            return
        token, refusal = await self._token(scope)
        if refusal is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await answer(send, refusal)
            return
        scope[_KEY] = (token, self._metadata_url)
        await self._app(scope, receive, send)

    async def _token(self, scope: Scope) -> tuple[VerifiedToken | None, challenge.Refusal | None]:
        sent = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"authorization"]
        error: CountersignError | None
        try:
            token = challenge.bearer(sent)
            if token is not None:
                return await self._verifier.verify(token), None
            error = None
        except CountersignError as refused:
            error = refused
            _log.info("a token was not accepted: %s", refused.code)
        return None, challenge.refusal(error, self._metadata_url)


def token_of(scope: Scope) -> VerifiedToken:
    """The token of a request, in an application behind the middleware. Raises LookupError where there is none."""
    found = scope.get(_KEY)
    if found is None:
        raise LookupError("there is no verified token: is CountersignMiddleware before this application?")
    token: VerifiedToken = found[0]
    return token


def metadata_url_of(scope: Scope) -> str:
    """Where the metadata of the server is, in an application behind the middleware."""
    url: str = scope[_KEY][1]
    return url


def require(capability: str, resource: str | None = None) -> Callable[..., VerifiedToken]:
    """A dependency for FastAPI: the token of the request if it allows this, else 403.

    `resource` may name parameters of the path: `"document:reports/{name}"`.
    """
    from starlette.exceptions import HTTPException
    from starlette.requests import HTTPConnection

    wanted = Tool(capability, resource=resource, parameters=None)

    def dependency(connection: HTTPConnection) -> VerifiedToken:
        token = token_of(connection.scope)
        try:
            operation = wanted.operation(connection.path_params)
            token.require(operation.capability, operation.resource)
        except InsufficientScope as error:
            missing = challenge.refusal(error, metadata_url_of(connection.scope))
        except (ValueError, KeyError):
            # What the path names cannot be a resource, so nobody was granted it.
            nowhere = InsufficientScope(f"the token does not allow {capability} here", scope=capability)
            missing = challenge.refusal(nowhere, metadata_url_of(connection.scope))
        else:
            return token
        raise HTTPException(missing.status, missing.body["error"], dict(missing.headers))

    # FastAPI reads the annotation, which must be the class and not its name.
    dependency.__annotations__["connection"] = HTTPConnection
    return dependency


async def answer(send: Send, what: challenge.Refusal) -> None:
    """Sends an answer."""
    body = json.dumps(what.body).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **what.headers}
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": what.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
