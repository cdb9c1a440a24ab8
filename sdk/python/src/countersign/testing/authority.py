"""What a FakeAuthority knows and decides."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ..canonical import same
from ..resources import matches
from ..tokens import unverified
from .answers import answer_to
from .server import Answer, Asked, Server
from .signing import SigningKey, access_claims, agent_uid


@dataclass
class Rule:
    """What an agent may do with a capability."""

    kind: str
    resource: str | None = None
    code: str = "capability_not_granted"
    message: str = "it is not granted"


@dataclass
class Request:
    """A request for approval."""

    id: str
    agent: str
    details: Mapping[str, Any]
    key: str | None
    audience: str
    expires_at: float
    phase: str = "pending"
    justification: str | None = None
    called_with: Mapping[str, Any] = field(default_factory=dict)
    token: str | None = field(default=None, repr=False)
    issued_at: float = 0.0
    polled_at: float = float("-inf")


class FakeAuthority:
    """An authority on a loopback port, from `start` (or `with`) to `stop`. Whatever is not allowed is denied."""

    def __init__(
        self,
        *,
        agent: str = "agent:test/bot",
        audience: str = "https://api.example.com",
        lifetime: int = 300,
        interval: float = 0.05,
    ) -> None:
        #: Who shows any credential that does not say itself who it is.
        self.agent = agent
        #: For whom a token is if nobody says.
        self.audience = audience
        #: How long tokens live, in seconds.
        self.lifetime = lifetime
        #: How often one may look whether somebody has decided, in seconds.
        self.interval = interval
        self.keys = [SigningKey()]
        self.approvals: dict[str, Request] = {}
        self.changed = threading.Condition(threading.RLock())
        self.rules: list[tuple[str, Rule]] = []
        self.suspended: set[str] = set()
        self.epochs: dict[str, int] = {}
        self.revoked: dict[str, list[str]] = {}
        self.assertions: set[str] = set()
        self.version = 0
        self.agents: tuple[str, ...] = ()
        self._server = Server(self._answer)

    # --- a server ---------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeAuthority:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Begins to answer."""
        self._server.up()

    def stop(self) -> None:
        """Ends, with all its connections."""
        self.down()

    @property
    def url(self) -> str:
        """The issuer."""
        return self._server.url

    @property
    def stopping(self) -> bool:
        """Whether it ends, so that whoever is held is let go."""
        return self._server.stopping.is_set()

    @property
    def sidecar_url(self) -> str:
        """The address of a sidecar of the agent: it is the same server, for requests with the sidecar's header."""
        return self._server.url

    def credential(self, agent: str | None = None) -> str:
        """The token of the ServiceAccount of an agent, for a Client: `credential=authority.credential`.

        By it a client knows its own name, as in a cluster, also while nothing is allowed without approval.
        """
        account = (agent or self.agent).removeprefix("agent:").replace("/", ":")
        now = int(time.time())
        return self.sign("JWT", {"sub": f"system:serviceaccount:{account}", "aud": [self.url], "iat": now, "exp": now + 3600})

    @property
    def requests(self) -> list[Asked]:
        """What was asked, in its order."""
        return list(self._server.asked)

    def count(self, path: str) -> int:
        """How often a path was asked."""
        return sum(1 for asked in self.requests if asked.path == path)

    # --- faults -----------------------------------------------------------------------------------------------------------------

    def down(self) -> None:
        """Nobody gets a connection any more, and those that are there break."""
        self._server.down()
        with self.changed:
            self.changed.notify_all()

    def up(self) -> None:
        """It is there again, under the same address."""
        self._server.up()

    def slow(self, seconds: float) -> None:
        """From now on each answer takes so long."""
        self._server.delay = seconds

    def fail(self, status: int, times: int = 1, *, path: str | None = None, retry_after: int | None = None) -> None:
        """The next answers have this status, and nothing is done."""
        self._server.fail(status, times, path, retry_after)

    def lose(self, path: str, times: int = 1) -> None:
        """The next requests to this path are carried out, and the connection breaks before the answer."""
        self._server.lose(path, times)

    # --- rules ------------------------------------------------------------------------------------------------------------------

    def allow(self, capability: str, *, resource: str | None = None) -> None:
        """The agent holds it, on the resources of a pattern or on all."""
        self._rule(capability, Rule("allow", resource))

    def deny(self, capability: str, *, code: str = "capability_not_granted", message: str = "it is not granted") -> None:
        """It does not, and this is said of it."""
        self._rule(capability, Rule("deny", code=code, message=message))

    def require_approval(self, capability: str, *, resource: str | None = None) -> None:
        """It needs a person for each use."""
        self._rule(capability, Rule("approve", resource))

    def suspend(self, agent: str | None = None) -> None:
        """The agent gets nothing any more, and what it has is dead."""
        with self.changed:
            self.suspended.add(agent or self.agent)
            self._news()

    def resume(self, agent: str | None = None) -> None:
        """It is served again; what it had stays dead."""
        with self.changed:
            agent = agent or self.agent
            self.suspended.discard(agent)
            self.epochs[agent] = self.epochs.get(agent, 0) + 1
            self._news()

    def revoke(self, token: str) -> None:
        """One token is dead."""
        claims = unverified(token)
        with self.changed:
            self.revoked.setdefault(str(claims["agent_uid"]), []).append(str(claims["jti"]))
            self._news()

    def rotate_keys(self) -> None:
        """Another key signs, and the one before is not published any more."""
        with self.changed:
            self.keys[:] = [SigningKey()]

    # --- persons ----------------------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> list[Request]:
        """Who waits for a person."""
        return [request for request in list(self.approvals.values()) if request.phase == "pending"]

    def approve(self, request_id: str) -> None:
        """A person says yes."""
        self._decide(request_id, "approved")

    def deny_request(self, request_id: str) -> None:
        """A person says no."""
        self._decide(request_id, "denied")

    def expire(self, request_id: str) -> None:
        """Nobody has said anything in time."""
        self._decide(request_id, "expired")

    def wait_for_request(self, timeout: float = 5.0) -> Request:
        """The first request that waits, once there is one."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.pending, timeout):
                raise TimeoutError("nobody has asked for approval")
            return self.pending[0]

    # --- tokens -----------------------------------------------------------------------------------------------------------------

    def token_for(
        self,
        scope: str = "",
        *,
        audience: str | None = None,
        agent: str | None = None,
        chain: Sequence[str] | None = None,
        user: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        lifetime: int | None = None,
        **claims: Any,
    ) -> str:
        """A token as the authority would issue it, for the tests of resource servers. `claims` take the place of what would be there."""
        said = access_claims(
            self.url,
            chain or [agent or self.agent],
            audience=audience or self.audience,
            scope=scope,
            epochs=self.epochs,
            user=user,
            details=details,
            lifetime=self.lifetime if lifetime is None else lifetime,
        )
        return self.sign("at+jwt", {**said, **claims})

    def sign(self, kind: str, claims: Mapping[str, Any]) -> str:
        """A statement, signed with the newest key."""
        return self.keys[-1].sign(kind, claims)

    # --- decisions --------------------------------------------------------------------------------------------------------------

    def rule(self, capability: str, resource: str | None) -> Rule:
        """What counts: of the rules that fit the last."""
        named = [rule for name, rule in self.rules if name == capability]
        for rule in reversed(named):
            if rule.resource is None or (resource is not None and matches(rule.resource, resource)):
                return rule
        if named:
            return Rule("deny", code="resource_not_granted", message=f"{capability} is not granted on {resource}")
        return Rule("deny", message=f"{capability} is not granted")

    def waiting(self, agent: str, details: Mapping[str, Any]) -> Request | None:
        """An approval of exactly that which has not become a token."""
        members = ("capability", "resource", "parameters")
        wanted = {name: details.get(name) for name in members}
        for request in list(self.approvals.values()):
            held = {name: request.details.get(name) for name in members}
            if request.phase == "approved" and request.agent == agent and same(held, wanted):
                return request
        return None

    def state(self) -> dict[str, Any]:
        """What is alive, as the revocation feed says it."""
        with self.changed:
            known = {self.agent, *self.epochs, *self.agents}
            now = int(time.time())
            return {
                "iss": self.url,
                "iat": now,
                "exp": now + 10,
                "as_of": now,
                "id": str(self.version),
                "agents": {agent_uid(a): self.epochs.get(a, 0) for a in known if a not in self.suspended},
                "revoked": {uid: list(names) for uid, names in self.revoked.items()},
                "issuers": {agent_uid("users"): {"epoch": 0}},
            }

    def register(self, *agents: str) -> None:
        """Further agents there are, so that their tokens live."""
        with self.changed:
            self.agents = (*self.agents, *agents)
            self._news()

    def new_id(self) -> str:
        """A name for a request."""
        return secrets.token_hex(16)

    def _rule(self, capability: str, rule: Rule) -> None:
        with self.changed:
            self.rules.append((capability, rule))

    def _decide(self, request_id: str, phase: str) -> None:
        with self.changed:
            self.approvals[request_id].phase = phase
            self.changed.notify_all()

    def _news(self) -> None:
        self.version += 1
        self.changed.notify_all()

    def _answer(self, asked: Asked) -> Answer:
        return answer_to(self, asked)
