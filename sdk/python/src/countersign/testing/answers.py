"""What a FakeAuthority answers: tokens, approvals, and what resource servers ask. Questions are in `questions`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..canonical import canonical
from ..tokens import unverified
from . import questions
from .refused import CIBA, Refused
from .server import Answer, Asked
from .signing import access_claims

if TYPE_CHECKING:
    from .authority import FakeAuthority, Request


def answer_to(authority: FakeAuthority, asked: Asked) -> Answer:
    """The answer to a request."""
    at = (asked.method, asked.path)
    handlers = {
        ("GET", "/.well-known/oauth-authorization-server"): _metadata,
        ("GET", "/oauth2/jwks"): _jwks,
        ("GET", "/revocations"): _revocations,
        ("POST", "/oauth2/token"): _token,
        ("POST", "/oauth2/bc-authorize"): _file,
        ("POST", "/oauth2/revoke"): _revoke,
        ("POST", "/oauth2/introspect"): _introspect,
        ("POST", "/jit/complete"): _complete,
    }
    asking = {
        "/access/v1/evaluation": questions.evaluation,
        "/access/v1/evaluations": questions.evaluations,
        "/access/v1/search/action": questions.search,
        "/ask": questions.ask,
    }
    beside = {("GET", "/token"): _token, ("POST", "/token"): _token, ("POST", "/jit"): _file, ("POST", "/revoke"): _revoke}
    handler = beside.get(at, handlers.get(at)) if asked.is_sidecar else handlers.get(at)
    if asked.is_sidecar and asked.method == "GET" and asked.path.startswith("/jit/"):
        handler = _poll_beside
    try:
        if handler is not None:
            return handler(authority, asked)
        if asked.path in asking:
            return asking[asked.path](authority, _who(authority, asked), asked)
        raise Refused(404, "not_found", "there is no such endpoint")
    except Refused as refused:
        return refused.answer


def _who(authority: FakeAuthority, asked: Asked, *, agents_only: bool = True) -> str:
    """Which agent asks. Any credential is the agent of the authority; one that says who it is counts once, as the real one has it."""
    if asked.is_sidecar:
        return _standing(authority, authority.agent)
    scheme, _, sent = asked.headers.get("authorization", "").partition(" ")
    assertion = asked.body.get("client_assertion") or (sent if scheme == "Bearer" else None)
    if not assertion:
        raise Refused(401, "invalid_client", "the caller must authenticate")
    claims = unverified(assertion)
    name = claims.get("sub")
    if isinstance(name, str) and name.startswith("system:serviceaccount:"):
        return _standing(authority, "agent:" + name.removeprefix("system:serviceaccount:").replace(":", "/", 1))
    if not isinstance(name, str) or not name.startswith("agent:"):
        return _standing(authority, authority.agent) if agents_only else authority.agent
    if claims.get("aud") != authority.url or claims.get("jti") in authority.assertions:
        raise Refused(401, "invalid_client", "the credential was not accepted")
    authority.assertions.add(claims["jti"])
    return _standing(authority, name)


def _standing(authority: FakeAuthority, agent: str) -> str:
    if agent in authority.suspended:
        raise Refused(401, "invalid_client", "the credential was not accepted")
    return agent


# --- what is public -----------------------------------------------------------------------------------------------------------------


def _metadata(authority: FakeAuthority, asked: Asked) -> Answer:
    url = authority.url
    return Answer(
        200,
        {
            "issuer": url,
            "token_endpoint": url + "/oauth2/token",
            "jwks_uri": url + "/oauth2/jwks",
            "introspection_endpoint": url + "/oauth2/introspect",
            "countersign_completion_endpoint": url + "/jit/complete",
            "countersign_revocations_endpoint": url + "/revocations",
        },
    )


def _jwks(authority: FakeAuthority, asked: Asked) -> Answer:
    return Answer(200, {"keys": [key.jwk for key in authority.keys]}, {"Cache-Control": "public, max-age=300"})


def _revocations(authority: FakeAuthority, asked: Asked) -> Answer:
    if asked.headers.get("accept") != "text/event-stream":
        return Answer(200, authority.sign("revocations+jwt", authority.state()))
    return Answer(200, events=_events(authority))


def _events(authority: FakeAuthority) -> Iterator[tuple[str, str]]:
    told = authority.version
    yield "snapshot", authority.sign("revocations+jwt", authority.state())
    while not authority.stopping:
        with authority.changed:
            if authority.version == told and not authority.stopping:
                authority.changed.wait(0.5)
            version, state = authority.version, authority.state()
        if version == told:
            times = {name: state[name] for name in ("iss", "iat", "exp", "as_of", "id")}
            yield "heartbeat", authority.sign("revocations-heartbeat+jwt", times)
        else:
            told = version
            yield "snapshot", authority.sign("revocations+jwt", state)


# --- tokens -------------------------------------------------------------------------------------------------------------------------


def _token(authority: FakeAuthority, asked: Asked) -> Answer:
    parameters = asked.query if asked.method == "GET" else asked.body
    agent = _who(authority, asked)
    if parameters.get("grant_type") == CIBA:
        return _poll(authority, agent, str(parameters.get("auth_req_id")), _wait(asked.headers.get("prefer", "")))
    details = _details(parameters)
    audience = (details or {}).get("audience") or parameters.get("audience") or authority.audience
    subject = parameters.get("subject_token")
    parent = unverified(subject) if subject else None
    if details is not None:
        _may(authority, details)
        shown = [{name: details[name] for name in ("type", "capability", "resource", "parameters") if name in details}]
        return _issued(authority, agent, details["capability"], audience, shown, parent)
    if (scope := parameters.get("scope")) is not None:
        for capability in scope.split():
            _may(authority, {"capability": capability, "resource": _first_resource(authority, capability)})
    else:
        # The last word on each capability counts.
        last = dict(authority.rules)
        scope = " ".join(sorted(name for name, rule in last.items() if rule.kind == "allow"))
    if not scope:
        raise Refused(400, "invalid_scope", "nothing is granted without approval")
    limits = [
        {
            "type": "countersign_capability",
            "capability": name,
            "resources": [rule.resource for n, rule in authority.rules if n == name],
        }
        for name in scope.split()
        if all(rule.resource is not None for n, rule in authority.rules if n == name)
    ]
    return _issued(authority, agent, scope, audience, limits, parent)


def _first_resource(authority: FakeAuthority, capability: str) -> str | None:
    patterns = [rule.resource for name, rule in authority.rules if name == capability and rule.resource is not None]
    return patterns[0].replace("**", "x").replace("*", "x") if patterns else None


def _may(authority: FakeAuthority, details: Mapping[str, Any]) -> None:
    rule = authority.rule(details["capability"], details.get("resource"))
    if rule.kind == "approve":
        raise Refused(400, "invalid_scope", f"{details['capability']} needs a person's approval")
    if rule.kind == "deny":
        raise Refused(400, "invalid_scope", rule.message)


def _issued(authority: FakeAuthority, agent: str, scope: str, audience: str, details: Any, parent: Mapping[str, Any] | None) -> Answer:
    token = _minted(authority, agent, scope, audience, details, parent)
    life = unverified(token)["exp"] - int(time.time())
    body = {"access_token": token, "token_type": "Bearer", "expires_in": max(1, life), "scope": scope}
    return Answer(200, body, {"Cache-Control": "no-store"})


def _minted(authority: FakeAuthority, agent: str, scope: str, audience: str, details: Any, parent: Mapping[str, Any] | None) -> str:
    user, chain, lifetime = None, [agent], authority.lifetime
    more: dict[str, Any] = {}
    if parent is not None:
        subject = str(parent.get("sub", ""))
        user = subject.removeprefix("user:") if not subject.startswith("agent:") else None
        chain = [link["sub"] for link in parent.get("links", [])] + [agent]
        lifetime = min(lifetime, int(parent.get("exp", time.time() + lifetime) - time.time()))
        more = {
            "txn": parent.get("txn"),
            "ancestors": [*parent.get("ancestors", []), *([parent["jti"]] if "jti" in parent else [])],
        }
    claims = access_claims(
        authority.url,
        chain,
        audience=audience,
        scope=scope,
        epochs=authority.epochs,
        user=user,
        details=details,
        lifetime=lifetime,
        **more,
    )
    return authority.sign("at+jwt", claims)


def _details(parameters: Mapping[str, str]) -> dict[str, Any] | None:
    text = parameters.get("authorization_details")
    if text is None:
        return None
    details = json.loads(text)
    if len(details) != 1 or details[0].get("type") != "countersign_operation":
        raise Refused(400, "invalid_authorization_details", "it must have exactly one operation")
    found: dict[str, Any] = details[0]
    return found


# --- approvals ----------------------------------------------------------------------------------------------------------------------


def _file(authority: FakeAuthority, asked: Asked) -> Answer:
    from .authority import Request

    agent, details, key = _who(authority, asked), _details(asked.body), asked.headers.get("idempotency-key")
    if details is None:
        raise Refused(400, "invalid_request", "authorization_details is missing")
    hint = asked.body.get("login_hint_token")
    if not asked.is_sidecar and hint is None and asked.body.get("login_hint") != agent:
        raise Refused(400, "unknown_user_id", "login_hint must be the client itself")
    rule = authority.rule(details["capability"], details.get("resource"))
    if rule.kind != "approve":
        raise Refused(400, "invalid_scope", rule.message if rule.kind == "deny" else "it needs no approval")
    life = float(asked.body.get("requested_expiry", 600))
    with authority.changed:
        known = next((r for r in authority.approvals.values() if key is not None and (r.key, r.agent) == (key, agent)), None)
        if known is not None and canonical(known.details) != canonical(details):
            raise Refused(400, "invalid_request", "this Idempotency-Key was used before, for another operation")
        if known is None:
            audience = details.get("audience") or asked.body.get("audience") or authority.audience
            known = Request(authority.new_id(), agent, details, key, audience, time.time() + life)
            known.justification, known.called_with = asked.body.get("binding_message"), unverified(hint) if hint else {}
            authority.approvals[known.id] = known
            authority.changed.notify_all()
    left = max(1, int(known.expires_at - time.time()))
    return Answer(200, {"auth_req_id": known.id, "expires_in": left, "interval": authority.interval})


def _wait(prefer: str) -> float:
    return min(float(prefer.removeprefix("wait=")), 25.0) if prefer.startswith("wait=") else 25.0


def _poll_beside(authority: FakeAuthority, asked: Asked) -> Answer:
    return _poll(authority, _who(authority, asked), asked.path.removeprefix("/jit/"), float(asked.query.get("wait", 0)))


def _poll(authority: FakeAuthority, agent: str, request_id: str, wait: float) -> Answer:
    request = authority.approvals.get(request_id)
    if request is None or request.agent != agent:
        raise Refused(400, "invalid_grant", "there is no such request of this agent")
    with authority.changed:
        begun = time.monotonic()
        if request.phase == "pending" and begun - request.polled_at < authority.interval:
            raise Refused(400, "slow_down", "polled too soon")
        request.polled_at = begun
        authority.changed.wait_for(lambda: request.phase != "pending" or time.time() >= request.expires_at or authority.stopping, wait)
        if request.phase == "pending" and time.time() >= request.expires_at:
            request.phase = "expired"
        _standing(authority, agent)
        return _redeemed(authority, request)


def _redeemed(authority: FakeAuthority, request: Request) -> Answer:
    if request.phase == "pending":
        raise Refused(400, "authorization_pending", "nobody has decided yet: poll again")
    if request.phase in ("denied", "withdrawn"):
        raise Refused(400, "access_denied", f"the request was {request.phase}")
    if request.phase == "expired":
        raise Refused(400, "expired_token", "the request has expired")
    if request.phase == "approved":
        members = ("type", "capability", "resource", "parameters")
        shown = {name: request.details[name] for name in members if name in request.details}
        shown["digest"] = "sha256:" + hashlib.sha256(canonical(shown)).hexdigest()
        shown["jit_request"] = request.id
        parent = request.called_with or None
        capability = request.details["capability"]
        request.token = _minted(authority, request.agent, capability, request.audience, [shown], parent)
        request.phase, request.issued_at = "issued", time.monotonic()
    elif time.monotonic() - request.issued_at > 10:
        raise Refused(400, "invalid_grant", "the one token of this request was issued")
    if request.token is None or request.phase != "issued":
        raise Refused(400, "invalid_grant", "the one token of this request was issued, or the request was ended")
    life = max(1, unverified(request.token)["exp"] - int(time.time()))
    return Answer(200, {"access_token": request.token, "token_type": "Bearer", "expires_in": life, "scope": request.details["capability"]})


def _complete(authority: FakeAuthority, asked: Asked) -> Answer:
    _who(authority, asked, agents_only=False)
    claims = unverified(asked.body.get("token", ""))
    details = (claims.get("authorization_details") or [{}])[0]
    with authority.changed:
        request = authority.approvals.get(details.get("jit_request", ""))
        if request is None:
            raise Refused(400, "invalid_token", "token is not an access token of ours, or it has expired")
        if request.phase == "completed":
            raise Refused(409, "already_completed", "the operation was reported as done before: do not do it again")
        if request.phase != "issued" or claims.get("client_id") in authority.suspended:
            raise Refused(409, "operation_ended", "the token is not alive any more")
        request.phase = "completed"
    return Answer(200, {"completed": True, "jti": claims.get("jti"), "completed_at": int(time.time())})


def _revoke(authority: FakeAuthority, asked: Asked) -> Answer:
    _who(authority, asked)
    what = asked.body.get("token", "")
    with authority.changed:
        request = authority.approvals.get(what)
        if request is not None and request.phase in ("pending", "approved"):
            request.phase = "withdrawn"
            authority.changed.notify_all()
        elif "jti" in unverified(what):
            authority.revoke(what)
    return Answer(200)


def _introspect(authority: FakeAuthority, asked: Asked) -> Answer:
    _who(authority, asked, agents_only=False)
    claims = unverified(asked.body.get("token", ""))
    state = authority.state()
    links = claims.get("links") or []
    dead = not links or claims["exp"] <= time.time() or any(state["agents"].get(x["agent_uid"]) != x["epoch"] for x in links)
    if dead or any(claims["jti"] in names for names in authority.revoked.values()):
        return Answer(200, {"active": False})
    return Answer(200, {"active": True, "token_type": "Bearer", "username": claims["sub"], **claims})
