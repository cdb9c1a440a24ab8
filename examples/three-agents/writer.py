"""Writer is called by Researcher, and writes chapter after chapter to the documents, with one token."""

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent import call, client, serve
from countersign.asgi import token_of


async def write(request: Request) -> Response:
    report = await request.json()
    token = await client.exchange(token_of(request.scope).token.reveal(), audience="https://docs.acme.com", scope="report.write")
    for chapter in range(1, report["chapters"] + 1):
        answer = await call(token, {"chapter": chapter}, f"/reports/{report['name']}")
        if answer.status_code != 200:
            # If somebody stops an agent of the chain, it ends here, in the middle.
            return JSONResponse({"written": chapter - 1, "documents said": answer.status_code}, answer.status_code)
        await asyncio.sleep(0.2)
    return JSONResponse({"written": report["chapters"]})


app = serve(write, audience="agent:tools/writer")
