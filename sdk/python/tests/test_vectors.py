"""What all SDKs say alike: sdk/vectors.json."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import pytest
from conftest import vectors

from countersign import Operation, errors
from countersign._flow import Reply
from countersign._jws import keys_of, parse, verify
from countersign._refusals import refusal
from countersign.canonical import canonical, idempotency_key
from countersign.challenge import parse as parse_challenge
from countersign.challenge import refusal as challenged
from countersign.errors import InsufficientScope, RevocationUnknown, TokenRejected
from countersign.feed_state import FeedState, OutOfStep, reason, step
from countersign.resources import matches
from countersign.secret import Secret
from countersign.verified import VerifiedToken, read

V = vectors()


def each(cases: list[dict[str, Any]], name: str = "name") -> Any:
    return pytest.mark.parametrize("case", cases, ids=[str(case.get(name, "")) for case in cases])


@each(V["canonical"])
def test_canonical_json_is_that_of_rfc_8785(case: dict[str, Any]) -> None:
    assert canonical(case["value"]).decode() == case["canonical"]
    assert hashlib.sha256(canonical(case["value"])).hexdigest() == case["sha256"]


@each(V["operations"])
def test_an_operation_has_one_form_and_one_fingerprint(case: dict[str, Any]) -> None:
    operation = Operation(**case["operation"])
    assert operation.details() == case["details"]
    assert operation.fingerprint() == case["fingerprint"]
    assert Operation.of(case["details"]) == operation
    assert {k: case["evaluation"][k] for k in ("action", "resource")} == operation.question()


@each(V["idempotency_keys"], "key")
def test_a_call_has_one_idempotency_key(case: dict[str, Any]) -> None:
    details = Operation(**case["operation"]).details()
    assert idempotency_key(case["run_id"], case["call_id"], case["tool"], details) == case["key"]


@each(V["resources"], "pattern")
def test_a_pattern_stands_for_what_the_authority_says(case: dict[str, Any]) -> None:
    assert matches(case["pattern"], case["resource"]) is case["matches"]


@each(V["requirements"])
def test_a_token_allows_what_it_says_and_nothing_else(case: dict[str, Any]) -> None:
    token = VerifiedToken(
        subject="agent:a/b",
        actor="agent:a/b",
        chain=("agent:a/b",),
        user=None,
        scopes=frozenset(case["scope"].split(" ")) - {""},
        details=tuple(case["details"]),
        jti="j",
        txn="t",
        expires_at=0,
        claims={},
        token=Secret("t"),
    )
    assert token.allows(**case["require"]) is case["allowed"]
    if not case["allowed"]:
        with pytest.raises(InsufficientScope) as refused:
            token.require(**case["require"])
        assert refused.value.scope == case["require"]["capability"]


@each(V["tokens"]["cases"])
def test_a_token_is_verified_as_everywhere(case: dict[str, Any]) -> None:
    given = V["tokens"]

    def verified() -> VerifiedToken:
        jws = parse(".".join(case["token"]), frozenset({"at+jwt"}))
        verify(jws, keys_of(given["jwks"]))
        return read(jws, issuer=given["issuer"], audience=given["audience"], now=given["now"], leeway=given["leeway"])

    if case["error"] is None:
        token, expected = verified(), case["verified"]
        assert (token.subject, token.actor, list(token.chain), token.user) == tuple(
            expected[name] for name in ("subject", "actor", "chain", "user")
        )
        assert sorted(token.scopes) == expected["scopes"]
        for name in ("jti", "txn", "expires_at"):
            assert name not in expected or getattr(token, name) == expected[name]
    else:
        with pytest.raises(TokenRejected) as refused:
            verified()
        assert (type(refused.value).__name__, refused.value.code) == (case["error"], case["code"])


@each(V["revocation"])
def test_a_token_is_dead_for_the_reason_that_the_feed_gives(case: dict[str, Any]) -> None:
    state = None if case["state"] is None else FeedState.of(case["state"])
    assert reason(state, case["claims"], case["now"]) == case["reason"]


@each(V["feed"])
def test_a_state_of_the_feed_follows_on_the_one_before(case: dict[str, Any]) -> None:
    state = None if case["state"] is None else FeedState.of(case["state"])
    if case["after"] is None:
        with pytest.raises(OutOfStep):
            step(state, case["event"], case["payload"])
    else:
        assert asdict(step(state, case["event"], case["payload"])) == case["after"]


@each(V["challenges"]["out"])
def test_a_resource_server_challenges_as_everywhere(case: dict[str, Any]) -> None:
    error = {
        "missing": None,
        "invalid": TokenRejected("no"),
        "scope": InsufficientScope("no", scope=case.get("scope", "")),
        "unknown": RevocationUnknown("who knows"),
    }[case["kind"]]
    answer = challenged(error, case["resource_metadata"])
    assert (answer.status, answer.headers.get("WWW-Authenticate")) == (case["status"], case["www_authenticate"])


@each(V["challenges"]["in"], "header")
def test_a_challenge_is_read_as_everywhere(case: dict[str, Any]) -> None:
    found = parse_challenge(case["header"])
    if case["scheme"] is None:
        assert found is None
    else:
        assert found is not None
        assert (found.scheme, found.parameters) == (case["scheme"], case["parameters"])


@each(V["errors"])
def test_an_answer_is_the_error_that_it_is_everywhere(case: dict[str, Any]) -> None:
    body = case["body"].encode() if isinstance(case["body"], str) else json.dumps(case["body"]).encode()
    headers = {name.lower(): value for name, value in case["headers"].items()}
    error = refusal(Reply(case["status"], headers, body), case["call"])
    assert type(error) is getattr(errors, case["class"])
    assert (error.code, error.status) == (case["code"], case["status"])
    if "retry_after" in case:
        assert error.retry_after == case["retry_after"]
