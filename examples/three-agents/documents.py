"""The documents are no agent. They look at the token alone: for whom, by whom, called by whom, and for what."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent import serve
from countersign.asgi import require

may_write = require("report.write", "report:{year}/{name}")


async def save(request: Request) -> Response:
    token = may_write(request)  # or 403 insufficient_scope
    chapter = (await request.json())["chapter"]
    who = ", called by ".join(reversed(token.chain))
    print(f"{request.url.path} chapter {chapter}: for {token.user}, by {who}", flush=True)
    return JSONResponse({"saved": chapter})


app = serve(save, audience="https://docs.acme.com", path="/reports/{year}/{name}")
