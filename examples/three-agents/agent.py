"""What the three agents share: to be called, and to call the next one in the name of whoever called."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from countersign import AccessToken, AsyncClient, CountersignError, Unavailable
from countersign.asgi import CountersignMiddleware
from countersign.verifier import AsyncVerifier

client = AsyncClient()  # who this agent is, it finds in its pod


def serve(work: Callable[[Request], Awaitable[Response]], audience: str | None = None, path: str = "/") -> Starlette:
    """An application behind the middleware: nothing gets past without a token for this audience that is alive at this moment."""
    verifier = audience and AsyncVerifier(os.environ["COUNTERSIGN_URL"], audience, revocation="feed")
    protection = [Middleware(CountersignMiddleware, verifier=verifier, resource=os.environ["OWN_URL"])] if verifier else []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(client)
            if verifier:
                await stack.enter_async_context(verifier)
                await verifier.start()  # follows the feed of what was ended
            yield

    handlers: dict[Any, Any] = {CountersignError: refused}
    return Starlette(routes=[Route(path, work, methods=["POST"])], middleware=protection, exception_handlers=handlers, lifespan=lifespan)


async def call(token: AccessToken, what: Any, path: str = "/") -> Response:
    """Calls the next one. What that answers is the answer of this agent too."""
    async with httpx.AsyncClient(timeout=300, trust_env=False) as http:
        answer = await http.post(os.environ["NEXT_URL"] + path, json=what, headers=token.headers())
    return Response(answer.content, answer.status_code, media_type="application/json")


async def refused(_: Request, error: CountersignError) -> Response:
    """The answer where this agent itself gets no token."""
    answer = {"refused": os.environ["OWN_NAME"], "error": error.code, "message": error.message}
    return JSONResponse(answer, 503 if isinstance(error, Unavailable) else 403)
