"""Researcher is called by Planner, and calls Writer. It sees who called it, and for whom; it cannot say so itself."""

from starlette.requests import Request
from starlette.responses import Response

from agent import call, client, serve
from countersign.asgi import token_of


async def research(request: Request) -> Response:
    called_with = token_of(request.scope)
    print(f"for {called_with.user}, called by {called_with.actor}", flush=True)
    # A token for this agent is of no use anywhere else: for the next one it needs another, which names it too.
    token = await client.exchange(called_with.token.reveal(), audience="agent:tools/writer", scope="report.write")
    return await call(token, {**await request.json(), "sources": ["https://example.com/1"]})


app = serve(research, audience="agent:research/researcher")
