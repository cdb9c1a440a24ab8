"""What a FakeAuthority answers to questions: may the agent do this?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .refused import CIBA, Refused
from .server import Answer, Asked

if TYPE_CHECKING:
    from .authority import FakeAuthority


def _judged(authority: FakeAuthority, agent: str, body: Mapping[str, Any]) -> dict[str, Any]:
    context: dict[str, Any] = {"evaluation_id": authority.new_id()}
    try:
        action, on = body["action"], body["resource"]
        resource = None if on is None else f"{on['type']}:{on['id']}"
    except (KeyError, TypeError):
        raise Refused(400, "invalid_request", "a question has a subject, an action and a resource") from None
    details = {"type": "countersign_operation", "capability": action["name"], "parameters": action.get("properties")}
    details["resource"] = resource
    if (waiting := authority.waiting(agent, details)) is not None:
        reason = {"code": "approved", "message": "a person has approved it"}
        approval = {"auth_req_id": waiting.id, "grant_type": CIBA}
        return {"decision": True, "context": {**context, "reason": reason, "approval": approval}}
    rule = authority.rule(action["name"], details["resource"])
    if rule.kind == "allow":
        return {"decision": True, "context": {**context, "reason": {"code": "allowed"}}}
    if rule.kind == "deny":
        return {"decision": False, "context": {**context, "reason": {"code": rule.code, "message": rule.message}}}
    request = {"endpoint": authority.url + "/oauth2/bc-authorize", "authorization_details": [details], "requestable": True}
    reason = {"code": "approval_required", "message": f"{action['name']} needs a person's approval for each use"}
    return {"decision": False, "context": {**context, "reason": reason, "access_request": request}}


def evaluation(authority: FakeAuthority, agent: str, asked: Asked) -> Answer:
    """One question."""
    return Answer(200, _judged(authority, agent, asked.body))


def evaluations(authority: FakeAuthority, agent: str, asked: Asked) -> Answer:
    """Several."""
    return Answer(200, {"evaluations": [_judged(authority, agent, item) for item in asked.body["evaluations"]]})


def search(authority: FakeAuthority, agent: str, asked: Asked) -> Answer:
    """What may be done on a resource."""
    names = sorted({name for name, _ in authority.rules})
    bodies = {name: {**asked.body, "action": {"name": name}} for name in names}
    found = [{"name": name} for name, body in bodies.items() if _judged(authority, agent, body)["decision"]]
    return Answer(200, {"results": found, "page": {"next_token": "", "count": len(found), "total": len(found)}})


def ask(authority: FakeAuthority, agent: str, asked: Asked) -> Answer:
    """It reads no language: a question that names a capability is about that."""
    question = str(asked.body.get("question", ""))
    named = [name for name, _ in authority.rules if name in question]
    parts = [
        {
            "capability": name,
            "resource": None,
            "subject": agent,
            "parameters": {},
            "words": name,
            "decision": authority.rule(name, None).kind == "allow",
            "reason": {"code": "allowed" if authority.rule(name, None).kind == "allow" else "capability_not_granted"},
            "requestable": authority.rule(name, None).kind == "approve",
        }
        for name in named
    ]
    decision = bool(parts) and all(part["decision"] for part in parts)
    unresolved = [] if parts else [{"text": question, "nearest": []}]
    reason = {"code": "allowed" if decision else "denied" if parts else "not_understood", "message": ""}
    body = {"decision": decision, "reason": reason, "interpretation": parts, "unresolved": unresolved}
    return Answer(200, {**body, "evaluation_id": authority.new_id()})
