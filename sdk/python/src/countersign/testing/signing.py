"""The keys of a FakeAuthority, and what it signs."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class SigningKey:
    """A key that lives as long as the test."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        x = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        thumbprint = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":")).encode()
        self.kid = base64.urlsafe_b64encode(hashlib.sha256(thumbprint).digest()).rstrip(b"=").decode()
        self.jwk = {"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA", "use": "sig", "kid": self.kid}

    def sign(self, kind: str, claims: Mapping[str, Any]) -> str:
        """A JWT of that type."""
        return jwt.encode(dict(claims), self._key, algorithm="EdDSA", headers={"typ": kind, "kid": self.kid})


def agent_uid(agent: str) -> str:
    """The UID of the registration of an agent: the same for the same name."""
    digest = hashlib.sha256(agent.encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


def access_claims(
    issuer: str,
    chain: Sequence[str],
    *,
    audience: str,
    scope: str,
    epochs: Mapping[str, int],
    user: str | None = None,
    details: Sequence[Mapping[str, Any]] = (),
    lifetime: int = 300,
    txn: str | None = None,
    ancestors: Sequence[str] = (),
) -> dict[str, Any]:
    """The claims of an access token, as the real authority writes them: `chain` has the agents, first the one that began."""
    now = int(time.time())
    acting = chain[-1]
    act: dict[str, Any] | None = None
    for agent in chain if user is not None else chain[1:]:
        act = {"iss": issuer, "sub": agent, "sub_profile": "ai_agent", **({"act": act} if act else {})}
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": f"user:{user}" if user is not None else chain[0],
        "client_id": acting,
        "aud": audience,
        "scope": scope,
        "iat": now,
        "exp": now + lifetime,
        "jti": secrets.token_urlsafe(16),
        "txn": txn or secrets.token_urlsafe(16),
        "agent_uid": agent_uid(acting),
        "links": [{"sub": a, "agent_uid": agent_uid(a), "epoch": epochs.get(a, 0), "sa": a.rpartition("/")[2]} for a in chain],
    }
    if act is not None:
        claims["act"] = act
    if details:
        claims["authorization_details"] = [dict(entry) for entry in details]
    if ancestors:
        claims["ancestors"] = list(ancestors)
    if user is not None:
        claims["user"] = {"issuer": {"name": "users", "uid": agent_uid("users")}, "epoch": 0}
    return claims
