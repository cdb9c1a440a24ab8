"""Resource servers: what is taken, and what is not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from countersign import (
    AlreadyCompleted,
    ConfigurationError,
    Operation,
    RevocationUnknown,
    TokenExpired,
    TokenRejected,
    TokenRevoked,
    Unauthenticated,
    Unavailable,
)
from countersign.revocation import RevocationFeed
from countersign.testing import FakeAuthority
from countersign.verifier import AsyncVerifier, Verifier

AUDIENCE = "https://api.example.com"
JWKS = "/oauth2/jwks"


@pytest.fixture(params=["threads", "asyncio"])
def verifier_of(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes verifiers, of both kinds in turn."""
    from conftest import Blocking

    opened: list[Any] = []
    loop = asyncio.new_event_loop()

    def make(*args: Any, **more: Any) -> Any:
        made = Verifier(*args, **more) if request.param == "threads" else AsyncVerifier(*args, **more)
        opened.append(made)
        return made if isinstance(made, Verifier) else Blocking(made, loop)

    yield make
    for made in opened:
        if isinstance(made, Verifier):
            made.close()
        else:
            loop.run_until_complete(made.aclose())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def offline(verifier_of: Any, authority: FakeAuthority) -> Any:
    return verifier_of(authority.url, AUDIENCE, revocation="none")


def within(condition: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


def rejected(verifier: Any, token: str) -> str:
    with pytest.raises(TokenRejected) as refused:
        verifier.verify(token)
    return refused.value.code


def test_a_token_says_who_acts_for_whom_and_with_what(offline: Any, authority: FakeAuthority) -> None:
    chain = ["agent:a/first", "agent:b/second"]
    token = offline.verify(authority.token_for("document.read", chain=chain, user="alice@acme.example"))
    assert (token.subject, token.actor, token.chain, token.user) == (
        "user:alice@acme.example",
        "agent:b/second",
        tuple(chain),
        "alice@acme.example",
    )
    token.require("document.read", "document:any")


def test_a_token_that_was_issued_is_one_that_is_taken(offline: Any, authority: FakeAuthority, client_of: Any) -> None:
    authority.allow("document.read", resource="document:reports/*")
    token = offline.verify(client_of(url=authority.url, credential=lambda: "a.b.c").token().value)
    assert token.allows("document.read", "document:reports/q3")
    assert not token.allows("document.read", "document:private/q3")


def test_another_issuer_audience_or_time_is_refused(offline: Any, authority: FakeAuthority) -> None:
    assert rejected(offline, authority.token_for("x", iss="https://other.example")) == "wrong_issuer"
    assert rejected(offline, authority.token_for("x", audience="https://other.example")) == "wrong_audience"
    with pytest.raises(TokenExpired):
        offline.verify(authority.token_for("x", lifetime=-6))
    offline.verify(authority.token_for("x", lifetime=-2))
    assert rejected(offline, authority.token_for("x", nbf=time.time() + 60)) == "not_yet_valid"


def test_a_token_of_somebody_elses_authority_is_refused(offline: Any, authority: FakeAuthority) -> None:
    with FakeAuthority() as other:
        assert rejected(offline, other.token_for("x", iss=authority.url)) == "unknown_key"


def test_metadata_that_names_another_issuer_is_not_believed(verifier_of: Any, authority: FakeAuthority) -> None:
    # The same server under another name.
    other = authority.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ConfigurationError, match="another issuer"):
        verifier_of(other, AUDIENCE, revocation="none").verify(authority.token_for("x", iss=other))


def test_keys_are_kept_and_read_again_for_a_name_that_is_new(offline: Any, authority: FakeAuthority) -> None:
    for _ in range(3):
        offline.verify(authority.token_for("x"))
    assert authority.count(JWKS) == 1
    old = authority.token_for("x")
    authority.rotate_keys()
    assert rejected(offline, authority.token_for("x")) == "unknown_key", "not more often than every 5 s"
    offline._flows.keys._read_at -= 5
    offline.verify(authority.token_for("x"))
    assert authority.count(JWKS) == 2
    assert rejected(offline, old) == "unknown_key"


def test_a_thousand_tokens_with_unknown_keys_make_one_request(authority: FakeAuthority) -> None:
    with FakeAuthority() as other, Verifier(authority.url, AUDIENCE, revocation="none") as verifier:
        verifier.verify(authority.token_for("x"))
        verifier._flows.keys._read_at -= 60
        tokens = [other.token_for("x", iss=authority.url) for _ in range(200)]
        with ThreadPoolExecutor(50) as threads:
            assert set(threads.map(lambda token: rejected(verifier, token), tokens)) == {"unknown_key"}
    assert authority.count(JWKS) == 2


@pytest.mark.parametrize("where", ["http://10.0.0.1/keys", "http://countersign.example.com", "ftp://127.0.0.1", "keys", 5])
@pytest.mark.parametrize("name", ["jwks_uri", "introspection_endpoint"])
def test_metadata_that_lead_out_of_this_machine_without_tls_lead_nowhere(
    verifier_of: Any, authority: FakeAuthority, name: str, where: Any
) -> None:
    verifier = verifier_of(authority.url, AUDIENCE, revocation="introspect", credential=lambda: "a.server.token")
    verifier.verify(authority.token_for("x"))
    keys = verifier._flows.keys
    keys._metadata, keys._read_at = {**keys._metadata, name: where}, float("-inf")
    with pytest.raises(ConfigurationError):
        verifier.verify(authority.token_for("x"))


def test_while_the_keys_cannot_be_read_nothing_is_taken(verifier_of: Any, authority: FakeAuthority) -> None:
    verifier = verifier_of(authority.url, AUDIENCE, revocation="none", timeout=0.5)
    token = authority.token_for("x")
    authority.down()
    with pytest.raises(Unavailable):
        verifier.verify(token)
    authority.up()
    verifier.verify(token)


def test_the_feed_says_within_a_second_that_a_token_was_ended(verifier_of: Any, authority: FakeAuthority) -> None:
    verifier = verifier_of(authority.url, AUDIENCE)
    first, second = authority.token_for("x"), authority.token_for("x")
    verifier.verify(first)
    authority.revoke(first)
    within(lambda: _code(verifier, first) == "token_revoked", 1.0)
    verifier.verify(second)
    authority.suspend()
    within(lambda: _code(verifier, second) == "agent_ended", 1.0)


def _code(verifier: Any, token: str) -> str | None:
    try:
        verifier.verify(token)
    except TokenRevoked as refused:
        return refused.code
    return None


def test_without_the_feed_nothing_is_taken(verifier_of: Any, authority: FakeAuthority, monkeypatch: Any) -> None:
    from countersign import revocation as module

    monkeypatch.setattr(module, "FIRST", 0.3)
    authority.fail(503, 1000, path="/revocations")
    verifier = verifier_of(authority.url, AUDIENCE)
    for _ in range(2):
        with pytest.raises(RevocationUnknown) as unknown:
            verifier.verify(authority.token_for("x"))
    assert unknown.value.status == 503


def test_a_state_counts_until_it_ends_and_no_longer(verifier_of: Any, authority: FakeAuthority) -> None:
    verifier = verifier_of(authority.url, AUDIENCE)
    token = authority.token_for("x")
    verifier.verify(token)
    authority.down()
    verifier.verify(token)
    verifier.feed._clock = type("Later", (), {"now": lambda self: time.time() + 11, "ticks": lambda self: time.monotonic()})()
    with pytest.raises(RevocationUnknown):
        verifier.verify(token)
    authority.up()


def test_the_feed_is_found_again_after_a_restart_and_with_new_keys(authority: FakeAuthority) -> None:
    feed = RevocationFeed(authority.url)
    feed.start()
    assert feed.wait(5)
    before = feed.state
    authority.down()
    authority.up()
    within(lambda: feed.state is not None and before is not None and feed.state.iat > before.iat, 5)
    authority.rotate_keys()
    feed._keys._read_at -= 60
    renewed = feed.state
    within(lambda: feed.state is not None and renewed is not None and feed.state.iat > renewed.iat + 1, 8)
    feed.stop()
    assert feed.state is None
    assert not any(thread.name == "countersign-feed" for thread in threading.enumerate())


def test_a_feed_that_somebody_else_signed_is_not_believed(authority: FakeAuthority, monkeypatch: Any) -> None:
    with FakeAuthority() as other:
        monkeypatch.setattr(authority, "sign", other.sign)
        feed = RevocationFeed(authority.url)
        feed.start()
        assert not feed.wait(1)
        feed.stop()


def test_introspection_asks_for_each_token(verifier_of: Any, authority: FakeAuthority) -> None:
    verifier = verifier_of(authority.url, AUDIENCE, revocation="introspect", credential=lambda: "server.credential.x")
    token = authority.token_for("x")
    verifier.verify(token)
    assert authority.requests[-1].headers["authorization"] == "Bearer server.credential.x"
    authority.revoke(token)
    with pytest.raises(TokenRevoked):
        verifier.verify(token)
    authority.fail(503, 10, path="/oauth2/introspect")
    with pytest.raises(Unavailable):
        verifier.verify(authority.token_for("x"))


def test_a_server_whose_own_credential_is_refused_blames_nobody_else(verifier_of: Any, authority: FakeAuthority) -> None:
    verifier = verifier_of(authority.url, AUDIENCE, revocation="introspect", credential=lambda: "server.credential.x")
    authority.fail(401, 1, path="/oauth2/introspect")
    with pytest.raises(Unauthenticated):
        verifier.verify(authority.token_for("x"))


def test_a_server_asks_about_a_token_and_completes_it_once(verifier_of: Any, authority: FakeAuthority, client_of: Any) -> None:
    authority.allow("web.search")
    authority.require_approval("payments.authorize")
    client = client_of(url=authority.url, credential=lambda: "a.b.c")
    verifier = verifier_of(authority.url, AUDIENCE, revocation="none", credential=lambda: "server.credential.x")
    operation = Operation("payments.authorize", "invoice:INV-7", {"amount": 500})
    request = client.request_approval(operation)
    authority.approve(request.id)
    token = verifier.verify(client.approval(request).value)
    token.require("payments.authorize", "invoice:INV-7", {"amount": 500})
    assert verifier.evaluate(token, Operation("web.search")).allowed
    assert authority.requests[-1].body["subject"] == {"type": "agent", "id": authority.agent}
    verifier.complete(token)
    with pytest.raises(AlreadyCompleted):
        verifier.complete(token)


def test_a_verified_token_is_not_printed(offline: Any, authority: FakeAuthority) -> None:
    text = authority.token_for("x")
    assert text not in repr(offline.verify(text))
    assert text.split(".")[2] not in repr(offline.verify(text))
