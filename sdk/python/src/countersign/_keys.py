"""Where an issuer is and with which keys it signs (RFC 8414, RFC 7517)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import jwt

from . import _calls as calls
from ._flow import Clock, Flow, Request, join
from ._jws import keys_of
from .config import endpoint
from .errors import ConfigurationError

#: How long keys are kept at most, in seconds, whatever the answer allows.
KEEP_MAX: Final = 300.0
#: How often they are read again for the sake of a key that is not among them, in seconds.
AGAIN: Final = 5.0
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=(\d+)", re.ASCII)


class Keys:
    """The metadata and the keys of one issuer."""

    def __init__(self, issuer: str, clock: Clock, *, timeout: float = 5.0, retries: int = 1) -> None:
        self.issuer, self._clock, self._timeout, self._retries = issuer, clock, timeout, retries
        self._metadata: Mapping[str, Any] | None = None
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at, self._keep = float("-inf"), 0.0

    def for_kid(self, kid: str | None) -> Flow[Mapping[str, jwt.PyJWK]]:
        """The keys. They are read again when they are old, and, not more often than every 5 s, for a name that is not among them."""
        age = self._clock.ticks() - self._read_at
        if age >= self._keep or (kid is not None and kid not in self._keys and age >= AGAIN):
            yield from join("keys", self._read)
        return self._keys

    def at(self, name: str) -> Flow[str]:
        """An endpoint from the metadata."""
        metadata = yield from join("metadata", self._discover)
        url = metadata.get(name)
        if not isinstance(url, str):
            raise ConfigurationError(f"the metadata of {self.issuer} has no {name}")
        # Credentials are sent to it, and what it says is believed.
        return endpoint(url, f"the {name} of {self.issuer}")

    def _read(self) -> Flow[None]:
        url = yield from self.at("jwks_uri")
        reply = yield from self._get(url)
        document = calls.expect(reply, "read")
        found = _MAX_AGE.search(reply.headers.get("cache-control", ""))
        keep = float(found.group(1)) if found else KEEP_MAX
        self._keys, self._keep, self._read_at = keys_of(document), min(keep, KEEP_MAX), self._clock.ticks()

    def _discover(self) -> Flow[Mapping[str, Any]]:
        if self._metadata is None:
            url = self.issuer.rstrip("/") + "/.well-known/oauth-authorization-server"
            document = calls.expect((yield from self._get(url)), "read")
            # RFC 8414 section 3.3: or somebody else's keys would be taken for the issuer's.
            if document.get("issuer") != self.issuer:
                raise ConfigurationError(f"the metadata at {url} is that of another issuer", code="wrong_issuer")
            self._metadata = document
        return self._metadata

    def _get(self, url: str) -> Flow[Any]:
        def make() -> Flow[Request]:
            return Request("GET", url)
            yield

        return (yield from calls.ask(make, "read", clock=self._clock, timeout=self._timeout, retries=self._retries))
