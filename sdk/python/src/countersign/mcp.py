"""Tokens of Countersign for MCP servers built with the official `mcp` package (`countersign-sdk[mcp]`).

    server = FastMCP(
        "docs",
        token_verifier=CountersignTokenVerifier(AsyncVerifier(issuer, "https://docs.example.com/mcp")),
        auth=AuthSettings(issuer_url=issuer, resource_server_url="https://docs.example.com/mcp"),
    )
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

from .errors import RevocationUnknown, TokenRejected
from .verified import VerifiedToken
from .verifier import AsyncVerifier

try:
    from mcp.server.auth.provider import AccessToken as McpToken
    from mcp.server.auth.provider import TokenVerifier
except ImportError:
    raise ImportError("the package mcp is not installed: pip install 'countersign-sdk[mcp]'") from None

__all__ = ["CountersignTokenVerifier", "verified_token"]

_log = logging.getLogger("countersign")
_verified: ContextVar[VerifiedToken | None] = ContextVar("countersign_verified", default=None)


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
        _verified.set(verified)
        return McpToken(
            token=token,
            client_id=verified.actor,
            scopes=sorted(verified.scopes),
            expires_at=verified.expires_at,
            resource=self._verifier.audience,
        )


def verified_token() -> VerifiedToken:
    """The token of the request that a tool serves, for `.require(...)`. Raises LookupError outside of one."""
    found = _verified.get()
    if found is None:
        raise LookupError("there is no verified token here")
    return found
