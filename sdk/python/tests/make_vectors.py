"""Writes sdk/vectors.json, the cases that the SDKs of all languages must agree on.

    python make_vectors.py >../../vectors.json

It uses nothing of an SDK, so that no SDK is held against itself: expectations are written here by hand, and only hashes and
signatures are computed. The keys come from fixed seeds and are worth nothing; running it twice writes the same bytes.
"""

import base64
import hashlib
import json
import sys

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.hashes import SHA256

COMMENT = (
    "Cases on which the SDKs of all languages agree; both test suites run every one. Written by sdk/python/tests/make_vectors.py. "
    "Times are unix seconds. A token is a list of its parts, to be joined with '.', so that no scanner takes it for a secret. "
    "canonical: value -> its text by RFC 8785 and the SHA-256 of that. operations: what is sent of an operation, its fingerprint, "
    "and the question about it (AuthZEN), asked as the agent agent:research/bot; an operation without a resource asks about null. "
    "idempotency_keys: hex SHA-256 over RFC 8785 of [run_id, call_id, tool, details]. resources: does the pattern match? "
    "requirements: does a token with this scope and these authorization_details allow that? "
    "tokens: what a verifier says of a token at the time 'now'. revocation: why claims are dead by a state, null if they are alive. "
    "feed: what becomes of a state by an event, null if one must connect anew. challenges: what a resource server answers (out), and "
    "how a client reads it (in). errors: what a client raises for an answer."
)

ISSUER = "https://countersign.example.com"
AUDIENCE = "https://docs.example.com"
NOW = 1795484900


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(value):
    # RFC 8785 for what is used here: ASCII names, texts without escapes beyond JSON's own, whole numbers.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


# --- canonical JSON -----------------------------------------------------------------------------------------------------------

CANONICAL = [
    ("members are sorted", {"b": 1, "a": {"d": [], "c": {}}}, '{"a":{"c":{},"d":[]},"b":1}'),
    (
        "numbers are as short as they can be",
        [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27],
        "[333333333.3333333,1e+30,4.5,0.002,1e-27]",
    ),
    ("a whole number has no fraction", {"amount": 500.0, "n": 1e2}, '{"amount":500,"n":100}'),
    (
        "large whole numbers are written out",
        [1e20, 9007199254740991, -9007199254740991],
        "[100000000000000000000,9007199254740991,-9007199254740991]",
    ),
    ("very large ones are not", [1e21], "[1e+21]"),
    ("texts escape what must be escaped alone", '\u20ac$\u000f\nA\'B"\\\\"/', '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
    (
        "names are sorted by UTF-16, not by code point",
        {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7},
        '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\U0001f600":5,"\ufb33":3}',
    ),
    ("literals", [None, True, False], "[null,true,false]"),
]


def canonical():
    return [{"name": n, "value": v, "canonical": t, "sha256": sha256(t)} for n, v, t in CANONICAL]


# --- operations ---------------------------------------------------------------------------------------------------------------

OPERATIONS = [
    (
        "everything",
        {
            "capability": "payments.authorize",
            "resource": "invoice:INV-7",
            "parameters": {"currency": "EUR", "amount": 500},
            "audience": "https://pay.example.com",
            "expiration_seconds": 120,
        },
    ),
    ("a capability alone", {"capability": "web.search"}),
    ("a resource with a path", {"capability": "document.read", "resource": "document:reports/2026/q3"}),
    ("a resource with a second colon", {"capability": "bucket.read", "resource": "arn:aws:s3"}),
    ("parameters without a member are there", {"capability": "job.run", "parameters": {}}),
    (
        "nested parameters",
        {
            "capability": "mail.send",
            "resource": "mailbox:team",
            "parameters": {"to": ["a@example.com"], "meta": {"tries": 1, "note": "Gr\u00fc\u00dfe"}},
        },
    ),
]


def details(operation):
    return {"type": "countersign_operation", **operation}


def evaluation(operation):
    kind, _, name = operation.get("resource", "").partition(":")
    about = {"type": kind, "id": name} if "resource" in operation else None
    action = {"name": operation["capability"]}
    if "parameters" in operation:
        action["properties"] = operation["parameters"]
    body = {"subject": {"type": "agent", "id": "agent:research/bot"}, "action": action, "resource": about}
    if "audience" in operation:
        body["context"] = {"audience": operation["audience"]}
    return body


def operations():
    return [
        {
            "name": n,
            "operation": o,
            "details": details(o),
            "fingerprint": "sha256:" + sha256(compact(details(o))),
            "evaluation": evaluation(o),
        }
        for n, o in OPERATIONS
    ]


def idempotency_keys():
    cases = []
    first = OPERATIONS[0][1]
    for run_id, call_id, tool, operation in [
        ("run-1", "call-1", "pay", first),
        ("run-1", "call-2", "pay", first),
        ("run-2", "call-1", "pay", first),
        (None, "call-1", "pay", first),
        ("run-1", "call-1", "pay_now", first),
        ("run-1", "call-1", "pay", {**first, "parameters": {"currency": "EUR", "amount": 501}}),
        ("run-1", "call-1", "search", OPERATIONS[1][1]),
    ]:
        text = compact([run_id, call_id, tool, details(operation)])
        cases.append({"run_id": run_id, "call_id": call_id, "tool": tool, "operation": operation, "key": sha256(text)})
    return cases


# --- resources and what a token allows ----------------------------------------------------------------------------------------

MATCHES = [
    ("document:reports/*", "document:reports/q3"),
    ("document:reports/q3", "document:reports/q3"),
    ("document:**", "document:a/b/c"),
    ("document:**", "document:a"),
    ("document:a/**", "document:a/b/c"),
    ("invoice:INV-*", "invoice:INV-7"),
    ("invoice:INV-*", "invoice:INV-"),
    ("x:*a*b*", "x:ccacbbcb"),
    ("x:*/b", "x:a/b"),
    ("arn:aws:*", "arn:aws:s3"),
]
DIFFERS = [
    ("document:reports/*", "document:reports/q3/secret"),
    ("document:reports/*", "document:reports2/q3"),
    ("document:reports/*", "document:reports"),
    ("document:a/**", "document:a"),
    ("document:a", "document:ab"),
    ("document:a", "document:A"),
    ("document:a", "documents:a"),
    ("invoice:INV-*", "invoice:XINV-7"),
    ("x:*a*b", "x:ccacbbc"),
    ("x:a/b", "x:a"),
    ("x:a/*", "x:a/"),
    ("document:**", "document:a/../b"),
    ("document:**", "document:a//b"),
    ("document:**", "document:*"),
    ("document:**", "document:a b"),
    ("document:**", "document:"),
    ("document:**", "document"),
    ("document:**/a", "document:b/a"),
    ("document:a**", "document:ab"),
    ("document:(?s).*", "document:ab"),
    ("*", "document:ab"),
    ("x:" + "*a" * 100, "x:" + "a" * 99),
]

OPERATION = {
    "type": "countersign_operation",
    "capability": "payments.authorize",
    "resource": "invoice:INV-7",
    "parameters": {"amount": 500, "currency": "EUR"},
    "digest": "sha256:00",
    "jit_request": "95386bc2-72f8-458a-b721-1469278869e8",
}
LIMIT = {
    "type": "countersign_capability",
    "capability": "document.read",
    "resources": ["document:reports/*", "document:manuals/**"],
}


def requirement(name, scope, held, capability, resource, parameters, allowed):
    return {
        "name": name,
        "scope": scope,
        "details": held,
        "require": {"capability": capability, "resource": resource, "parameters": parameters},
        "allowed": allowed,
    }


def requirements():
    pay, eur = "payments.authorize", {"amount": 500, "currency": "EUR"}
    return [
        requirement("a capability in scope", "web.search", [], "web.search", None, None, True),
        requirement("on any resource", "web.search", [], "web.search", "site:example", {"q": "x"}, True),
        requirement("on what is no resource", "web.search", [], "web.search", "site:a/../b", None, False),
        requirement("one that is not", "web.search", [], "document.read", None, None, False),
        requirement("part of a name is not the name", "web.search.all", [], "web.search", None, None, False),
        requirement("nothing in scope", "", [], "", None, None, False),
        requirement(
            "on a resource that a pattern has",
            "document.read web.search",
            [LIMIT],
            "document.read",
            "document:manuals/a/b",
            None,
            True,
        ),
        requirement("on another", "document.read web.search", [LIMIT], "document.read", "document:private/a", None, False),
        requirement("on none, where resources are limited", "document.read web.search", [LIMIT], "document.read", None, None, False),
        requirement("the limit of one is not that of another", "document.read web.search", [LIMIT], "web.search", None, None, True),
        requirement(
            "two limits of one capability allow what both allow",
            "document.read",
            [LIMIT, {**LIMIT, "resources": ["document:reports/q3"]}],
            "document.read",
            "document:reports/q4",
            None,
            False,
        ),
        requirement(
            "a limit with no resource allows none",
            "document.read",
            [{**LIMIT, "resources": []}],
            "document.read",
            "document:reports/q3",
            None,
            False,
        ),
        requirement("exactly the operation", pay, [OPERATION], pay, "invoice:INV-7", eur, True),
        requirement(
            "the same, in another order and notation",
            pay,
            [OPERATION],
            pay,
            "invoice:INV-7",
            {"currency": "EUR", "amount": 500.0},
            True,
        ),
        requirement("another amount", pay, [OPERATION], pay, "invoice:INV-7", {**eur, "amount": 501}, False),
        requirement("a text is not a number", pay, [OPERATION], pay, "invoice:INV-7", {**eur, "amount": "500"}, False),
        requirement("a parameter more", pay, [OPERATION], pay, "invoice:INV-7", {**eur, "urgent": True}, False),
        requirement("a parameter less", pay, [OPERATION], pay, "invoice:INV-7", {"amount": 500}, False),
        requirement("another resource", pay, [OPERATION], pay, "invoice:INV-8", eur, False),
        requirement("no resource", pay, [OPERATION], pay, None, eur, False),
        requirement("another capability of the same token", pay + " web.search", [OPERATION], "web.search", None, None, False),
        requirement("no parameters are the same as empty ones", "job.run", [details({"capability": "job.run"})], "job.run", None, {}, True),
        requirement("two operations are none", pay, [OPERATION, OPERATION], pay, "invoice:INV-7", eur, False),
        requirement("details of an unknown type allow nothing", "web.search", [{"type": "other"}], "web.search", None, None, False),
    ]


# --- tokens -------------------------------------------------------------------------------------------------------------------


class Ed:
    alg = "EdDSA"

    def __init__(self, seed):
        self.key = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())
        x = b64(self.key.public_key().public_bytes_raw())
        self.kid = b64(hashlib.sha256(compact({"crv": "Ed25519", "kty": "OKP", "x": x}).encode()).digest())
        self.jwk = {"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA", "use": "sig", "kid": self.kid}

    def sign(self, data):
        return self.key.sign(data)


class Es:
    alg = "ES256"

    def __init__(self, seed):
        self.key = ec.derive_private_key(int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big") >> 2, ec.SECP256R1())
        numbers = self.key.public_key().public_numbers()
        x, y = (b64(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
        self.kid = b64(hashlib.sha256(compact({"crv": "P-256", "kty": "EC", "x": x, "y": y}).encode()).digest())
        self.jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256", "use": "sig", "kid": self.kid}

    def sign(self, data):
        r, s = utils.decode_dss_signature(self.key.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


ED, ES, STRANGER = Ed("countersign vectors ed"), Es("countersign vectors es"), Ed("countersign vectors stranger")

AGENT, OTHER = "agent:research/research-bot", "agent:tools/search-tool"
UID, OTHER_UID, USERS_UID = (
    "20a17a32-eec4-42ae-a0ef-bb6ed69e33ca",
    "29394a47-b697-4beb-ba00-e196eb446d79",
    "0b2d4c0e-6a0f-4f5b-9d0d-0a6f3b1d8f11",
)
CLOUD_UID = "7c1b1f0a-51a5-4a52-8d8e-8b2a0f2f6f10"

PLAIN = {
    "iss": ISSUER,
    "sub": AGENT,
    "client_id": AGENT,
    "aud": AUDIENCE,
    "scope": "document.read web.search",
    "authorization_details": [LIMIT],
    "iat": NOW - 60,
    "exp": NOW + 240,
    "jti": "ExwsCeqXzhn4bw9vc16ijQ",
    "txn": "vYcXAR7nmcvcnS2KxWdCSQ",
    "agent_uid": UID,
    "links": [{"sub": AGENT, "agent_uid": UID, "epoch": 0, "sa": "research-bot"}],
}


def actor(sub, inner=None):
    return {"iss": ISSUER, "sub": sub, "sub_profile": "ai_agent", **({"act": inner} if inner else {})}


DELEGATED = {
    **PLAIN,
    "sub": "user:alice@acme.example",
    "client_id": OTHER,
    "act": actor(OTHER, actor(AGENT)),
    "agent_uid": OTHER_UID,
    "jti": "Tn3XGc0Jgq3uKpq0oE3v0A",
    "ancestors": ["OUyWIjd6EdbanMD6ALWkfw"],
    "user": {"issuer": {"name": "acme", "uid": USERS_UID}, "epoch": 0},
    "links": [
        {"sub": AGENT, "agent_uid": UID, "epoch": 0, "issuer": {"name": "cloud", "uid": CLOUD_UID}, "subject": "x"},
        {"sub": OTHER, "agent_uid": OTHER_UID, "epoch": 3, "sa": "search-tool"},
    ],
}
CALLED = {
    **PLAIN,
    "client_id": OTHER,
    "act": actor(OTHER),
    "agent_uid": OTHER_UID,
    "links": [PLAIN["links"][0], DELEGATED["links"][1]],
}


def signed(claims, key=ED, header=None, payload=None, sign=True):
    header = header if header is not None else {"typ": "at+jwt", "alg": key.alg, "kid": key.kid}
    head = header if isinstance(header, str) else json.dumps(header)
    body = payload if payload is not None else json.dumps(claims)
    parts = [b64(head.encode()), b64(body.encode())]
    return [*parts, b64(key.sign(".".join(parts).encode())) if sign else ""]


def ok(name, token, subject, actor, chain, user, **more):
    return {
        "name": name,
        "token": token,
        "error": None,
        "verified": {
            "subject": subject,
            "actor": actor,
            "chain": chain,
            "user": user,
            "scopes": ["document.read", "web.search"],
            **more,
        },
    }


def bad(name, token, error, code, **more):
    return {"name": name, "token": token, "error": error, "code": code, **more}


def without(claims, *names):
    return {k: v for k, v in claims.items() if k not in names}


def tokens():
    good, rejected, malformed = signed(PLAIN), "TokenRejected", "token_malformed"
    header = {"typ": "at+jwt", "alg": "EdDSA", "kid": ED.kid}
    flipped = [*good[:2], ("A" if good[2][0] != "A" else "B") + good[2][1:]]
    cases = [
        ok("an agent for itself", good, AGENT, AGENT, [AGENT], None, jti=PLAIN["jti"], txn=PLAIN["txn"], expires_at=PLAIN["exp"]),
        ok("signed with ES256", signed(PLAIN, ES), AGENT, AGENT, [AGENT], None),
        ok("an agent that was called by another", signed(CALLED), AGENT, OTHER, [AGENT, OTHER], None),
        ok("two agents for a user", signed(DELEGATED), "user:alice@acme.example", OTHER, [AGENT, OTHER], "alice@acme.example"),
        ok("typ with its prefix", signed(PLAIN, header={**header, "typ": "application/at+jwt"}), AGENT, AGENT, [AGENT], None),
        ok("ended, but within the leeway", signed({**PLAIN, "exp": NOW - 4}), AGENT, AGENT, [AGENT], None),
        ok(
            "issued by a clock that is ahead, within the leeway",
            signed({**PLAIN, "iat": NOW + 4, "nbf": NOW + 4}),
            AGENT,
            AGENT,
            [AGENT],
            None,
        ),
        bad("ended", signed({**PLAIN, "exp": NOW - 6}), "TokenExpired", "token_expired"),
        bad("issued in the future", signed({**PLAIN, "iat": NOW + 6}), rejected, "not_yet_valid"),
        bad("not valid yet", signed({**PLAIN, "nbf": NOW + 6}), rejected, "not_yet_valid"),
        bad("of another issuer", signed({**PLAIN, "iss": ISSUER + "/"}), rejected, "wrong_issuer"),
        bad("for another audience", signed({**PLAIN, "aud": AUDIENCE + "/"}), rejected, "wrong_audience"),
        bad("for several audiences", signed({**PLAIN, "aud": [AUDIENCE, "https://other.example.com"]}), rejected, "wrong_audience"),
        bad("of a key that is not published", signed(PLAIN, STRANGER), rejected, "unknown_key"),
        bad("of a stranger under a name that is published", signed(PLAIN, STRANGER, header=header), rejected, "bad_signature"),
        bad("altered", [good[0], signed({**PLAIN, "scope": "document.write"})[1], good[2]], rejected, "bad_signature"),
        bad("with another signature", flipped, rejected, "bad_signature"),
        bad("an ID token", signed(PLAIN, header={**header, "typ": "JWT"}), rejected, "wrong_type"),
        bad("of no type", signed(PLAIN, header=without(header, "typ")), rejected, "wrong_type"),
        bad("a state of the revocation feed", signed(PLAIN, header={**header, "typ": "revocations+jwt"}), rejected, "wrong_type"),
        bad(
            "unsigned",
            signed(PLAIN, header={"typ": "at+jwt", "alg": "none", "kid": ED.kid}, sign=False),
            rejected,
            "algorithm_refused",
        ),
        bad("HS256 with the public key as secret", signed(PLAIN, header={**header, "alg": "HS256"}), rejected, "algorithm_refused"),
        bad("the algorithm of another key", signed(PLAIN, header={**header, "alg": "ES256"}), rejected, "algorithm_refused"),
        bad("with a key of its own", signed(PLAIN, STRANGER, header={**header, "jwk": STRANGER.jwk}), rejected, malformed),
        bad("with the address of a key", signed(PLAIN, header={**header, "jku": "https://evil.example/jwks"}), rejected, malformed),
        bad("with something critical", signed(PLAIN, header={**header, "crit": ["b64"], "b64": False}), rejected, malformed),
        bad("without the name of a key", signed(PLAIN, header=without(header, "kid")), rejected, "unknown_key"),
        bad("a member twice", signed(None, payload=json.dumps(PLAIN)[:-1] + ', "scope": "everything"}'), rejected, malformed),
        bad(
            "a member of the header twice",
            signed(PLAIN, header=json.dumps(header)[:-1] + ', "alg": "EdDSA"}'),
            rejected,
            malformed,
        ),
        bad("two parts", good[:2], rejected, malformed),
        bad("five parts", [*good, "", ""], rejected, malformed),
        bad("padding", [good[0], good[1], good[2] + "=="], rejected, malformed),
        bad("a payload that is no object", signed(None, payload="[1]"), rejected, malformed),
        bad("without an end", signed(without(PLAIN, "exp")), rejected, "claims_malformed"),
        bad("an end that is a text", signed({**PLAIN, "exp": str(PLAIN["exp"])}), rejected, "claims_malformed"),
        bad("without a subject", signed(without(PLAIN, "sub")), rejected, "claims_malformed"),
        bad("without the agents on which it depends", signed(without(PLAIN, "links")), rejected, "claims_malformed"),
        bad("a user without what the user depends on", signed(without(DELEGATED, "user")), rejected, "claims_malformed"),
        bad("an agent that acts and is not the client", signed({**CALLED, "client_id": AGENT}), rejected, "claims_malformed"),
        bad("bound to a key, without a proof", signed({**PLAIN, "cnf": {"jkt": "x"}}), rejected, "proof_required"),
    ]
    return {"issuer": ISSUER, "audience": AUDIENCE, "leeway": 5, "now": NOW, "jwks": {"keys": [ED.jwk, ES.jwk]}, "cases": cases}


# --- revocation ---------------------------------------------------------------------------------------------------------------


def user_hash(name):
    return b64(hashlib.sha256(f"{USERS_UID}:{name}".encode()).digest())


STATE = {
    "iss": ISSUER,
    "iat": NOW - 1,
    "exp": NOW + 9,
    "as_of": NOW - 2,
    "id": "one",
    "agents": {UID: 0, OTHER_UID: 3},
    "revoked": {},
    "issuers": {USERS_UID: {"epoch": 0}, CLOUD_UID: {"epoch": 0}},
}


def state(**change):
    return {**STATE, **change}


def dead(name, state, claims, reason, now=NOW):
    return {"name": name, "state": state, "claims": claims, "now": now, "reason": reason}


def revocation():
    alice = user_hash("alice@acme.example")
    users = lambda entry: {USERS_UID: entry, CLOUD_UID: {"epoch": 0}}
    return [
        dead("everybody stands", STATE, DELEGATED, None),
        dead("no state", None, PLAIN, "unknown"),
        dead("the last second of a state", STATE, PLAIN, None, NOW + 8),
        dead("a state that has ended", STATE, PLAIN, "unknown", NOW + 9),
        dead("an agent that is gone", state(agents={OTHER_UID: 3}), PLAIN, "agent_ended"),
        dead("an agent whose epoch has grown", state(agents={UID: 1, OTHER_UID: 3}), PLAIN, "agent_ended"),
        dead("the first of a chain", state(agents={UID: 1, OTHER_UID: 3}), DELEGATED, "agent_ended"),
        dead("an epoch that is lower", state(agents={UID: 0, OTHER_UID: 2}), DELEGATED, "agent_ended"),
        dead("the token", state(revoked={UID: [PLAIN["jti"]]}), PLAIN, "token_revoked"),
        dead("the chain", state(revoked={UID: [PLAIN["txn"]]}), PLAIN, "token_revoked"),
        dead("one from which it descends", state(revoked={UID: [DELEGATED["ancestors"][0]]}), DELEGATED, "token_revoked"),
        dead("the token, recorded at the second agent", state(revoked={OTHER_UID: [DELEGATED["jti"]]}), DELEGATED, "token_revoked"),
        dead("another token", state(revoked={UID: ["q0bVb2Rk3uYc6xw8yqk3Jg"]}), PLAIN, None),
        dead("the token, recorded at an agent that is not in it", state(revoked={OTHER_UID: [PLAIN["jti"]]}), PLAIN, None),
        dead("the issuer that vouched for an agent", state(issuers={USERS_UID: {"epoch": 0}}), DELEGATED, "issuer_ended"),
        dead("the issuer that vouched for the user", state(issuers={CLOUD_UID: {"epoch": 0}}), DELEGATED, "user_revoked"),
        dead("all users", state(issuers=users({"epoch": 1})), DELEGATED, "user_revoked"),
        dead("this user", state(issuers=users({"epoch": 0, "users": {alice: 1}})), DELEGATED, "user_revoked"),
        dead("another user", state(issuers=users({"epoch": 0, "users": {user_hash("bob@acme.example"): 1}})), DELEGATED, None),
        dead("the user's own count is what counts", state(issuers=users({"epoch": 1, "users": {alice: 0}})), DELEGATED, None),
    ]


def feed():
    times = {"iss": ISSUER, "iat": NOW, "exp": NOW + 10, "as_of": NOW}
    after = {k: v for k, v in times.items() if k != "iss"}
    change = {**times, "id": "two", "prev": "one"}
    return [
        {
            "name": "a snapshot is taken",
            "state": None,
            "event": "snapshot",
            "payload": {**STATE},
            "after": {k: STATE[k] for k in STATE if k != "iss"},
        },
        {
            "name": "a heartbeat renews the times",
            "state": STATE,
            "event": "heartbeat",
            "payload": {**times, "id": "one"},
            "after": {**without(STATE, "iss"), **after},
        },
        {
            "name": "a heartbeat of another state",
            "state": STATE,
            "event": "heartbeat",
            "payload": {**times, "id": "two"},
            "after": None,
        },
        {
            "name": "a heartbeat without a state",
            "state": None,
            "event": "heartbeat",
            "payload": {**times, "id": "one"},
            "after": None,
        },
        {
            "name": "a change puts in, replaces and removes",
            "state": state(revoked={UID: ["a"]}),
            "event": "change",
            "payload": {
                **change,
                "agents": {UID: None, "new": 1},
                "revoked": {UID: None, OTHER_UID: ["b"]},
                "issuers": {USERS_UID: {"epoch": 2}},
            },
            "after": {
                **after,
                "id": "two",
                "agents": {OTHER_UID: 3, "new": 1},
                "revoked": {OTHER_UID: ["b"]},
                "issuers": {USERS_UID: {"epoch": 2}, CLOUD_UID: {"epoch": 0}},
            },
        },
        {
            "name": "a change of nothing in a member leaves it",
            "state": STATE,
            "event": "change",
            "payload": {**change, "agents": {}},
            "after": {**after, "id": "two", "agents": STATE["agents"], "revoked": {}, "issuers": STATE["issuers"]},
        },
        {
            "name": "a change after one that was missed",
            "state": STATE,
            "event": "change",
            "payload": {**change, "prev": "zero", "agents": {}},
            "after": None,
        },
        {"name": "a change without a state", "state": None, "event": "change", "payload": change, "after": None},
    ]


# --- challenges and errors ----------------------------------------------------------------------------------------------------


def challenges():
    metadata = "https://docs.example.com/.well-known/oauth-protected-resource/api"
    base = f'Bearer resource_metadata="{metadata}"'
    scope = ', error="insufficient_scope", scope="document.read"'
    return {
        "out": [
            {"name": "no token", "kind": "missing", "resource_metadata": metadata, "status": 401, "www_authenticate": base},
            {
                "name": "a token that is refused",
                "kind": "invalid",
                "resource_metadata": metadata,
                "status": 401,
                "www_authenticate": base + ', error="invalid_token"',
            },
            {
                "name": "a scope that is missing",
                "kind": "scope",
                "scope": "document.read",
                "resource_metadata": metadata,
                "status": 403,
                "www_authenticate": base + scope,
            },
            {
                "name": "it cannot be told",
                "kind": "unknown",
                "resource_metadata": metadata,
                "status": 503,
                "www_authenticate": None,
            },
        ],
        "in": [
            {"header": base, "scheme": "bearer", "parameters": {"resource_metadata": metadata}},
            {
                "header": base + scope,
                "scheme": "bearer",
                "parameters": {"resource_metadata": metadata, "error": "insufficient_scope", "scope": "document.read"},
            },
            {
                "header": 'BEARER error = "a \\"quoted\\" word" ,scope=x',
                "scheme": "bearer",
                "parameters": {"error": 'a "quoted" word', "scope": "x"},
            },
            {"header": 'DPoP algs="ES256 EdDSA"', "scheme": "dpop", "parameters": {"algs": "ES256 EdDSA"}},
            {"header": 'Bearer error="one", error="two"', "scheme": None, "parameters": None},
            {"header": 'Bearer error="open', "scheme": None, "parameters": None},
            {"header": "", "scheme": None, "parameters": None},
        ],
    }


def answer(name, call, status, error, cls, code, headers=None, body=None, **more):
    body = body if body is not None else {"error": error, "error_description": "why"}
    return {
        "name": name,
        "call": call,
        "status": status,
        "headers": headers or {},
        "body": body,
        "class": cls,
        "code": code,
        **more,
    }


def errors():
    passing = "temporarily_unavailable"
    return [
        answer("a credential that is not accepted", "token", 401, "invalid_client", "Unauthenticated", "invalid_client"),
        answer("a capability that is not granted", "token", 400, "invalid_scope", "InvalidScope", "invalid_scope"),
        answer("an audience that is not allowed", "token", 400, "invalid_target", "InvalidTarget", "invalid_target"),
        answer("a malformed request", "token", 400, "invalid_request", "InvalidRequest", "invalid_request"),
        answer(
            "details that are refused",
            "token",
            400,
            "invalid_authorization_details",
            "InvalidRequest",
            "invalid_authorization_details",
        ),
        answer("an error nobody knows", "token", 400, "novel_error", "Refused", "novel_error"),
        answer("a refusal without a code", "token", 418, None, "Refused", "http_418", body={}),
        answer("a refusal that is no JSON", "token", 400, None, "Refused", "http_400", body="<html>"),
        answer("too many requests", "token", 429, passing, "RateLimited", passing, {"Retry-After": "7"}, retry_after=7),
        answer("too many requests, nobody says for how long", "token", 429, passing, "RateLimited", passing, retry_after=None),
        answer("unavailable", "token", 503, passing, "Unavailable", passing, {"Retry-After": "1"}, retry_after=1),
        answer("a broken gateway", "token", 502, None, "Unavailable", "http_502", body="<html>"),
        answer(
            "a redirect, which is not followed",
            "token",
            302,
            None,
            "Unavailable",
            "unexpected_redirect",
            {"Location": "https://evil.example"},
            body="",
        ),
        answer("a user that is not known", "file", 400, "unknown_user_id", "InvalidRequest", "unknown_user_id"),
        answer("a capability that cannot be approved", "file", 400, "invalid_scope", "InvalidScope", "invalid_scope"),
        answer("a hint that has expired", "file", 400, "expired_login_hint_token", "InvalidRequest", "expired_login_hint_token"),
        answer("too many open requests", "file", 429, passing, "RateLimited", passing, {"Retry-After": "1"}, retry_after=1),
        answer("nobody has decided", "poll", 400, "authorization_pending", "ApprovalPending", "authorization_pending"),
        answer("asked too soon", "poll", 400, "slow_down", "ApprovalPending", "slow_down"),
        answer("denied", "poll", 400, "access_denied", "ApprovalDenied", "access_denied"),
        answer("expired", "poll", 400, "expired_token", "ApprovalExpired", "expired_token"),
        answer("used", "poll", 400, "invalid_grant", "ApprovalUsed", "invalid_grant"),
        answer("a poll without a credential", "poll", 401, "invalid_client", "Unauthenticated", "invalid_client"),
        answer("a poll that cannot be answered", "poll", 503, passing, "Unavailable", passing, retry_after=None),
        answer("completed before", "complete", 409, "already_completed", "AlreadyCompleted", "already_completed"),
        answer("completed, but dead", "complete", 409, "operation_ended", "AlreadyCompleted", "operation_ended"),
        answer("a token that is not alive", "complete", 400, "invalid_token", "TokenRejected", "invalid_token"),
        answer("whoever may not", "complete", 403, "access_denied", "AccessDenied", "access_denied"),
        answer("the registry does not accept the token", "registry", 401, "invalid_token", "Unauthenticated", "invalid_token"),
        answer("the registry forbids it", "registry", 403, "access_denied", "AccessDenied", "access_denied"),
        answer("there is no such agent", "registry", 404, "not_found", "NotFound", "not_found"),
        answer("there is one of that name", "registry", 409, "conflict", "Conflict", "conflict"),
        answer("it was changed meanwhile", "registry", 412, "conflict", "Conflict", "conflict"),
        answer("a version is missing", "registry", 428, "invalid_request", "InvalidRequest", "invalid_request"),
        answer("a field that cannot be", "registry", 422, "invalid_object", "InvalidRequest", "invalid_object"),
    ]


def main():
    vectors = {
        "comment": COMMENT,
        "canonical": canonical(),
        "operations": operations(),
        "idempotency_keys": idempotency_keys(),
        "resources": [{"pattern": p, "resource": r, "matches": m} for pairs, m in ((MATCHES, True), (DIFFERS, False)) for p, r in pairs],
        "requirements": requirements(),
        "tokens": tokens(),
        "revocation": revocation(),
        "feed": feed(),
        "challenges": challenges(),
        "errors": errors(),
    }
    json.dump(vectors, sys.stdout, indent=1, ensure_ascii=True)
    print()


main()
