"""For resource servers: whether a token is good, for whom, and for what."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal

from . import _calls as calls
from . import _waiting as waiting
from ._drive import AsyncDriver, SyncDriver
from ._flow import Clock, Flow, Reply, Request, call, form, join
from ._jws import parse, verify
from ._keys import Keys
from ._refusals import Asked, refusal
from ._routes import CLIENT_ASSERTION, FORM, Form, json_of
from ._wire import AsyncClients, Clients
from .config import DEFAULT_TOKEN_FILE, Settings, endpoint
from .credentials import Credential, PrivateKey, Supplied, TokenFile
from .errors import ConfigurationError, RevocationUnknown, TokenRevoked
from .operation import Decision, Operation
from .revocation import RevocationFeed
from .secret import Secret
from .verified import VerifiedToken, read

__all__ = ["AsyncVerifier", "VerifiedToken", "Verifier"]

Revocation = Literal["feed", "introspect", "none"]
GivenCredential = Credential | Callable[[], str] | str | os.PathLike[str] | None

_ACCESS_TOKEN: Final = frozenset({"at+jwt"})
_DEAD: Final = {
    "agent_ended": "an agent of the chain was stopped, or its tokens were",
    "token_revoked": "the token, or one from which it descends, was revoked",
    "issuer_ended": "whoever vouched for an agent of the chain is not trusted any more",
    "user_revoked": "the tokens of the user were revoked",
}


class _Flows:
    """What both verifiers do."""

    def __init__(
        self, issuer: str, audience: str, revocation: Revocation, credential: GivenCredential, leeway: float, timeout: float
    ) -> None:
        if revocation not in ("feed", "introspect", "none"):
            raise ConfigurationError("revocation is feed, introspect or none")
        if not audience:
            raise ConfigurationError("audience is empty", advice="It is the name by which agents ask for tokens for this server.")
        self.issuer, self.audience, self.revocation, self.leeway = endpoint(issuer, "issuer"), audience, revocation, leeway
        self._clock, self._timeout = Clock(), timeout
        self.keys = Keys(issuer, self._clock, timeout=timeout)
        self._credential = credential

    def verify(self, token: str | Secret) -> Flow[VerifiedToken]:
        """The signature and what the token says; with `introspect` also whether it lives. The feed is asked by whoever calls."""
        secret = token if isinstance(token, Secret) else Secret(token)
        del token
        jws = parse(secret.reveal(), _ACCESS_TOKEN)
        verify(jws, (yield from self.keys.for_kid(jws.kid)))
        verified = read(jws, issuer=self.issuer, audience=self.audience, now=self._clock.now(), leeway=self.leeway)
        if self.revocation == "introspect":
            yield from self._introspect(verified)
        return verified

    def first(self, feed: RevocationFeed) -> Flow[None]:
        """Begins to follow the feed, and has everybody who comes meanwhile wait for its first state."""
        if feed.is_new:
            yield from join("feed", lambda: call(feed.ready))

    def _introspect(self, verified: VerifiedToken) -> Flow[None]:
        reply = yield from self._post("introspection_endpoint", [("token", verified.token)], "introspect")
        if calls.expect(reply, "introspect").get("active") is not True:
            raise TokenRevoked("the token is not alive", code="inactive")

    def evaluate(self, verified: VerifiedToken, operation: Operation, context: Mapping[str, Any] | None) -> Flow[Decision]:
        body = {
            "subject": {"type": "agent", "id": verified.actor},
            **operation.question(),
            "context": {**(context or {}), "access_token": verified.token},
        }

        content = json_of(body)

        def make() -> Flow[Request]:
            assertion = yield from self._credential_of().assertion(self.issuer, self._clock)
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {assertion.reveal()}"}
            return Request("POST", self.issuer.rstrip("/") + "/access/v1/evaluation", headers, content)

        asking = calls.ask(make, "question", clock=self._clock, timeout=self._timeout, retries=1)
        return Decision.of(calls.expect((yield from asking), "question"))

    def complete(self, verified: VerifiedToken) -> Flow[None]:
        def once(timeout: float) -> Flow[Reply]:
            parameters: Form = [("token", verified.token)]
            endpoint = "countersign_completion_endpoint"
            return (yield from self._post(endpoint, parameters, "complete", repeatable=False, timeout=timeout))

        yield from waiting.once_only(once, self._clock, self._timeout)

    def _post(self, endpoint: str, parameters: Form, asked: Asked, *, repeatable: bool = True, timeout: float | None = None) -> Flow[Reply]:
        url = yield from self.keys.at(endpoint)
        credential = self._credential_of()

        def make() -> Flow[Request]:
            assertion = yield from credential.assertion(self.issuer, self._clock)
            if isinstance(credential, PrivateKey):
                proved: Form = [("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", assertion), *parameters]
                return Request("POST", url, {"Content-Type": FORM}, form(proved))
            headers = {"Content-Type": FORM, "Authorization": f"Bearer {assertion.reveal()}"}
            return Request("POST", url, headers, form(parameters))

        asking = calls.ask(make, asked, clock=self._clock, timeout=timeout or self._timeout, retries=1, repeatable=repeatable)
        reply = yield from asking
        if reply.status == 401:
            # The server's own credential, not the token that was shown to it.
            raise refusal(reply, asked)
        return reply

    def _credential_of(self) -> Credential:
        given = self._credential
        if given is None:
            given = os.environ.get("COUNTERSIGN_TOKEN_FILE") or DEFAULT_TOKEN_FILE
        if isinstance(given, Credential):
            return given
        if callable(given):
            return Supplied(given)
        return TokenFile(given)


def _dead(reason: str | None) -> None:
    """Raises what a reason of the feed means."""
    if reason is None:
        return
    if reason == "unknown":
        raise RevocationUnknown("nobody can tell whether the token is alive: the revocation feed is not up to date", status=503)
    raise TokenRevoked(_DEAD[reason], code=reason)


class Verifier:
    """Verifies the tokens that agents show to a resource server.

    `audience` is the server's own name, compared exactly. `revocation` says how it learns that a token was ended: `feed` follows the
    authority, `introspect` asks it for each token, `none` waits until tokens end by themselves. `credential` is the server's own, for
    introspection, `evaluate` and `complete`: a path, a function or a Credential; else COUNTERSIGN_TOKEN_FILE or the file in the pod.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        ca_file: str | None = None,
        revocation: Revocation = "feed",
        credential: GivenCredential = None,
        leeway: float = 5.0,
        timeout: float = 5.0,
        http_client: Any = None,
    ) -> None:
        self._flows = _Flows(issuer, audience, revocation, credential, leeway, timeout)
        ca_file = Settings.read(ca_file=ca_file).ca_file
        self._driver = SyncDriver(Clients(http_client, ca_file))
        self.feed = RevocationFeed(issuer, ca_file=ca_file) if revocation == "feed" else None

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def issuer(self) -> str:
        """Whose tokens are taken."""
        return self._flows.issuer

    @property
    def audience(self) -> str:
        """For whom they must be."""
        return self._flows.audience

    def start(self) -> None:
        """Begins to follow the feed, which the first token does otherwise."""
        if self.feed is not None:
            self._driver.run(self._flows.first(self.feed))

    def close(self) -> None:
        """Ends what runs, and closes the connections."""
        if self.feed is not None:
            self.feed.stop()
        self._driver.close()

    def verify(self, token: str) -> VerifiedToken:
        """Who shows this token, and for what. Raises TokenRejected, or Unavailable if it cannot be told: neither is a yes."""
        verified = self._driver.run(self._flows.verify(token))
        if self.feed is not None:
            self._driver.run(self._flows.first(self.feed))
            _dead(self.feed.reason(verified.claims))
        return verified

    def evaluate(self, token: VerifiedToken, operation: Operation, *, context: Mapping[str, Any] | None = None) -> Decision:
        """Asks the authority: with the conditions, and as everything is now."""
        return self._driver.run(self._flows.evaluate(token, operation, context))

    def complete(self, token: VerifiedToken) -> None:
        """Reports that the approved operation is done. Do it before acting, and act only if this returns: it does so once."""
        self._driver.run(self._flows.complete(token))


class AsyncVerifier:
    """The same for asyncio. The feed is followed in a thread."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        ca_file: str | None = None,
        revocation: Revocation = "feed",
        credential: GivenCredential = None,
        leeway: float = 5.0,
        timeout: float = 5.0,
        http_client: Any = None,
    ) -> None:
        self._flows = _Flows(issuer, audience, revocation, credential, leeway, timeout)
        ca_file = Settings.read(ca_file=ca_file).ca_file
        self._driver = AsyncDriver(AsyncClients(http_client, ca_file))
        self.feed = RevocationFeed(issuer, ca_file=ca_file) if revocation == "feed" else None

    async def __aenter__(self) -> AsyncVerifier:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    @property
    def issuer(self) -> str:
        """Whose tokens are taken."""
        return self._flows.issuer

    @property
    def audience(self) -> str:
        """For whom they must be."""
        return self._flows.audience

    async def start(self) -> None:
        """Begins to follow the feed, which the first token does otherwise."""
        if self.feed is not None:
            await self._driver.run(self._flows.first(self.feed))

    async def aclose(self) -> None:
        """Ends what runs, and closes the connections."""
        if self.feed is not None:
            await asyncio.to_thread(self.feed.stop)
        await self._driver.close()

    async def verify(self, token: str) -> VerifiedToken:
        """Who shows this token, and for what."""
        verified = await self._driver.run(self._flows.verify(token))
        if self.feed is not None:
            await self._driver.run(self._flows.first(self.feed))
            _dead(self.feed.reason(verified.claims))
        return verified

    async def evaluate(self, token: VerifiedToken, operation: Operation, *, context: Mapping[str, Any] | None = None) -> Decision:
        """Asks the authority: with the conditions, and as everything is now."""
        return await self._driver.run(self._flows.evaluate(token, operation, context))

    async def complete(self, token: VerifiedToken) -> None:
        """Reports that the approved operation is done."""
        await self._driver.run(self._flows.complete(token))
