"""Planner begins: it acts for the user whose ID token the application sends along."""

from starlette.requests import Request
from starlette.responses import Response

from agent import call, client, serve


async def plan(request: Request) -> Response:
    id_token = request.headers.get("authorization", "").removeprefix("Bearer ")
    # Nobody has verified it yet. The exchange does, and is refused unless Planner may act for this user.
    token = await client.exchange(id_token, subject_token_type="id_token", audience="agent:research/researcher", scope="report.write")
    return await call(token, await request.json())


app = serve(plan)
