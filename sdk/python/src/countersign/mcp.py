"""Tokens of Countersign for MCP servers that are built with the official package (`countersign-sdk[mcp]`).

    server = MCPServer(
        "docs",
        token_verifier=CountersignTokenVerifier(AsyncVerifier(issuer, "https://docs.example.com/mcp")),
        auth=AuthSettings(issuer_url=issuer, resource_server_url="https://docs.example.com/mcp", validate_token_resource=True),
    )

A token that cannot be checked is an error in that package, which answers 500. For a 503 as RFC 6750 clients understand it, put
`countersign.asgi.CountersignMiddleware` before the application.
"""

from __future__ import annotations

import logging

from .errors import RevocationUnknown, TokenRejected
from .verified import VerifiedToken
from .verifier import AsyncVerifier

try:
    from mcp.server.auth.middleware.auth_context import get_access_token
    from mcp.server.auth.provider import AccessToken as McpToken
    from mcp.server.auth.provider import TokenVerifier
    from pydantic import Field, PrivateAttr
except ImportError:
    raise ImportError("the package mcp is not installed: pip install 'countersign-sdk[mcp]'") from None

__all__ = ["CountersignTokenVerifier", "verified_token"]

_log = logging.getLogger("countersign")


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
