"""An MCP server with three tools: each needs a capability, and one of them an operation that a person has approved.

server.py URL
"""

import os
import sys
from urllib.parse import urlsplit

import uvicorn
from mcp.server.mcpserver import MCPServer

from countersign import AlreadyCompleted, Tool
from countersign.mcp import protect, verified_token
from countersign.verifier import AsyncVerifier

resource = sys.argv[1]  # its own address, which is also the audience of the tokens that it takes
verifier = AsyncVerifier(os.environ["COUNTERSIGN_URL"], resource)
server = MCPServer("invoices")


@server.tool()
async def read_invoice(number: str) -> str:
    """Reads an invoice."""
    return f"{number}: 500 EUR, read by {verified_token().actor}"


@server.tool()
async def delete_invoice(number: str) -> str:
    """Deletes an invoice."""
    return f"{number} is gone"


@server.tool()
async def pay_invoice(number: str, amount: int, currency: str) -> str:
    """Pays an invoice."""
    # The token is for exactly this payment, see below. It is used up before the money moves: whoever sends it again is refused.
    try:
        await verifier.complete(verified_token())
    except AlreadyCompleted:
        return f"{number} was paid before"
    return f"paid {amount} {currency} for {number}"


# What each call needs. Whatever is not here nobody may call.
tools = {
    "read_invoice": Tool("invoice.read", resource="invoice:{number}"),
    "delete_invoice": Tool("invoice.delete", resource="invoice:{number}"),
    "pay_invoice": Tool("payments.authorize", resource="invoice:{number}", parameters=["amount", "currency"]),
}
inner = server.streamable_http_app(stateless_http=True)
app = protect(inner, verifier, resource, tools, scopes=["invoice.read", "payments.authorize"])

if __name__ == "__main__":
    address = urlsplit(resource)
    uvicorn.run(app, host=address.hostname or "", port=address.port or 443, log_level="warning")
