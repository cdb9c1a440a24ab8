"""What a client does, as flows: tokens and questions. Approvals are in `_waiting`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from . import _calls as calls
from ._cache import Cache, Key
from ._chain import Chain
from ._flow import Clock, Flow, Reply, Request, Spawn, join
from ._refusals import Asked
from ._routes import Beside, Direct, Route
from .approvals import ApprovalRequest, Paces
from .config import Settings
from .credentials import Credential, Sidecar
from .errors import ConfigurationError, CountersignError, InvalidScope, InvalidTarget, Unavailable
from .operation import Answer, Decision, Operation
from .secret import Secret
from .tokens import AccessToken, end_of, unverified

_log = logging.getLogger("countersign")

#: Most questions in one request.
TOGETHER_MAX: Final = 100
_SERVICE_ACCOUNT: Final = "system:serviceaccount:"


class Core:
    """The state of a client, and its flows."""

    def __init__(self, settings: Settings, chain: Chain, *, timeout: float, max_retries: int, clock: Clock) -> None:
        self.settings, self.chain, self.clock = settings, chain, clock
        self.timeout, self.max_retries = timeout, max_retries
        self.cache, self.paces = Cache(clock), Paces(clock)
        self._route: Route | None = None
        #: The agent's own name, from a token that was issued to it.
        self._name: str | None = None

    # --- asking -----------------------------------------------------------------------------------------------------------------

    def route(self) -> Flow[Route]:
        """The way to the authority."""
        if self._route is None:
            credential = yield from self.chain.choose()
            if isinstance(credential, Sidecar):
                self._route = Beside(credential)
            else:
                self._route = Direct(self.settings.issuer(), credential, self.clock)
        return self._route

    def ask(
        self,
        make: Callable[[Route], Flow[Request]],
        asked: Asked,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        repeatable: bool = True,
    ) -> Flow[Reply]:
        """Asks the authority, within the limits of this client."""
        route = yield from self.route()
        return (
            yield from calls.ask(
                lambda: make(route),
                asked,
                clock=self.clock,
                timeout=self.timeout if timeout is None else timeout,
                retries=self.max_retries if retries is None else retries,
                repeatable=repeatable,
            )
        )

    def me(self) -> Flow[str]:
        """The agent's own name: as it was said, else as a token of it says, else that of its ServiceAccount."""
        credential = yield from self.chain.choose()
        known = credential.client_id or self.settings.client_id or self._name
        if known is not None:
            return known
        try:
            yield from self.token()
        except (InvalidScope, InvalidTarget):
            # It holds nothing without approval, or several audiences: the service knows it, and issues nothing unasked.
            name = yield from self._service_account(credential)
        else:
            name = self._name
        if name is None:
            raise ConfigurationError("nobody knows which agent this is", advice="Set COUNTERSIGN_CLIENT_ID to agent:<namespace>/<name>.")
        return name

    def _service_account(self, credential: Credential) -> Flow[str | None]:
        if isinstance(credential, Sidecar):
            return None
        assertion = yield from credential.assertion(self.settings.issuer(), self.clock)
        subject = unverified(assertion.reveal()).get("sub")
        if not isinstance(subject, str) or not subject.startswith(_SERVICE_ACCOUNT):
            return None
        return "agent:" + subject.removeprefix(_SERVICE_ACCOUNT).replace(":", "/", 1)

    # --- tokens -----------------------------------------------------------------------------------------------------------------

    def token(
        self,
        audience: str | None = None,
        scope: str | Iterable[str] | None = None,
        operation: Operation | None = None,
        *,
        fresh: bool = False,
    ) -> Flow[AccessToken]:
        """A token of the agent itself."""
        route, audience, wanted = (yield from self.route()), audience or self.settings.audience, scope_of(scope)
        if operation is not None:
            audience = operation.audience or audience
            make = _token(audience, wanted, operation.details(), fresh=False)
            return (yield from self._obtain(make))
        key = (audience, wanted, None)
        make = _token(audience, wanted, None, fresh=fresh)
        if route.keeps_tokens:
            return (yield from join(("token", key, fresh), lambda: self._obtain(make)))
        return (yield from self._kept(key, make, None, fresh=fresh))

    def exchange(
        self,
        subject_token: str | Secret | AccessToken,
        subject_token_type: str = "access_token",
        audience: str | None = None,
        scope: str | Iterable[str] | None = None,
        operation: Operation | None = None,
    ) -> Flow[AccessToken]:
        """A token on behalf of whoever the subject token is from."""
        if subject_token_type not in ("access_token", "id_token"):
            raise ConfigurationError("subject_token_type is access_token or id_token")
        subject = secret_of(subject_token)
        route, audience, wanted = (yield from self.route()), audience or self.settings.audience, scope_of(scope)
        details = None if operation is None else operation.details()

        def make(route: Route) -> Flow[Request]:
            return route.exchange(subject, subject_token_type, audience, wanted, details)

        if operation is not None:
            return (yield from self._obtain(make))
        key = (audience, wanted, subject.digest())
        if route.keeps_tokens:
            return (yield from join(("token", key, False), lambda: self._obtain(make)))
        return (yield from self._kept(key, make, end_of(subject), fresh=False))

    def _kept(self, key: Key, make: Callable[[Route], Flow[Request]], until: float | None, *, fresh: bool) -> Flow[AccessToken]:
        """A token that is kept, else a new one; and another in the background when it is time."""

        def obtain() -> Flow[AccessToken]:
            token = yield from self._obtain(make)
            self.cache.keep(key, token, until)
            return token

        def renew() -> Flow[None]:
            try:
                yield from obtain()
            except (Unavailable, ConfigurationError) as error:
                _log.warning("a token could not be renewed, and is used on while it lives: %s", error)
                self.cache.postpone(key)
            except CountersignError as error:
                # Whoever asks next asks the service, and is told.
                _log.warning("a token was not renewed, and is not used any more: %s", error)
                self.cache.drop(key)

        found = None if fresh else self.cache.find(key)
        if found is None:
            return (yield from join(("token", key, fresh), obtain))
        token, is_time = found
        if is_time:
            yield Spawn(("renew", key), renew)
        return token

    def _obtain(self, make: Callable[[Route], Flow[Request]]) -> Flow[AccessToken]:
        reply = yield from self.ask(make, "token")
        if reply.status == 401:
            # The credential itself is refused: nothing that was obtained with it is handed out any more.
            self.cache.clear()
        return self.take(reply)

    def take(self, reply: Reply, asked: Asked = "token") -> AccessToken:
        """The token in an answer, which also says who we are."""
        token = AccessToken.of(calls.expect(reply, asked), reply.sent_at)
        name = token.claims().get("client_id")
        if isinstance(name, str) and name.startswith("agent:"):
            self._name = name
        return token

    def token_for(self, operation: Operation, subject_token: Secret | None = None) -> Flow[AccessToken]:
        """A token for an operation that needs no approval.

        The sidecar gives none for one operation alone; there it is one for the capability.
        """
        route = yield from self.route()
        scope, only = (operation.capability, None) if route.keeps_tokens else (None, operation)
        if subject_token is not None:
            exchanged = self.exchange(subject_token, audience=operation.audience, scope=scope, operation=only)
            return (yield from exchanged)
        return (yield from self.token(operation.audience, scope, only))

    def revoke(self, what: AccessToken | ApprovalRequest | Secret | str) -> Flow[None]:
        """Gives up a token, with all that descends from it, or withdraws a request."""
        secret = Secret(what.id) if isinstance(what, ApprovalRequest) else secret_of(what)
        reply = yield from self.ask(lambda route: route.revoke(secret), "revoke")
        if reply.status != 200:
            calls.expect(reply, "revoke")
        # It may be one of those that are kept.
        self.cache.clear()

    # --- questions --------------------------------------------------------------------------------------------------------------

    def evaluate(self, operation: Operation, on_behalf_of: str | None = None, context: Mapping[str, Any] | None = None) -> Flow[Decision]:
        """May the agent do this?"""
        beside = yield from self._beside(operation, on_behalf_of, context)
        body = {**beside, **operation.question()}
        return Decision.of((yield from self._question("/access/v1/evaluation", body)))

    def evaluate_many(self, operations: Sequence[Operation]) -> Flow[list[Decision]]:
        """May it do each of these? The answers are in the order of the questions."""
        decisions: list[Decision] = []
        for start in range(0, len(operations), TOGETHER_MAX):
            some, items = operations[start : start + TOGETHER_MAX], []
            beside: dict[str, Any] = {}
            for operation in some:
                beside = yield from self._beside(operation, None, None)
                items.append({**beside, **operation.question()})
            said = yield from self._question("/access/v1/evaluations", {"evaluations": items})
            answers = said.get("evaluations")
            if not isinstance(answers, list) or len(answers) != len(some):
                raise Unavailable("the answer does not fit the questions", code="unreadable_answer")
            decisions.extend(Decision.of(answer if isinstance(answer, dict) else {}) for answer in answers)
        return decisions

    def capabilities(self, resource: str | None = None) -> Flow[list[str]]:
        """The capabilities that the agent may use on a resource now; without one, those that need none."""
        about = Operation("x", resource).question()["resource"]
        beside = yield from self._subject(None)
        said = yield from self._question("/access/v1/search/action", {**beside, "resource": about})
        results = said.get("results")
        if not isinstance(results, list):
            raise Unavailable("the answer has no results", code="unreadable_answer")
        return [str(result["name"]) for result in results if isinstance(result, dict) and "name" in result]

    def plain(self, question: str) -> Flow[Answer]:
        """May it, in plain words?"""
        return Answer.of((yield from self._question("/ask", {"question": question})))

    def _beside(self, operation: Operation, on_behalf_of: str | None, context: Mapping[str, Any] | None) -> Flow[dict[str, Any]]:
        said: dict[str, Any] = dict(context or {})
        audience = operation.audience or self.settings.audience
        if audience is not None and "access_token" not in said:
            said.setdefault("audience", audience)
        subject = yield from self._subject(on_behalf_of)
        return {**subject, **({"context": said} if said else {})}

    def _subject(self, on_behalf_of: str | None) -> Flow[dict[str, Any]]:
        route = yield from self.route()
        # The sidecar says itself who asks.
        if route.keeps_tokens and on_behalf_of is None:
            return {}
        subject: dict[str, Any] = {"type": "agent", "id": (yield from self.me())}
        if on_behalf_of is not None:
            subject["properties"] = {"on_behalf_of": on_behalf_of}
        return {"subject": subject}

    def _question(self, path: str, body: Mapping[str, Any]) -> Flow[Mapping[str, Any]]:
        reply = yield from self.ask(lambda route: route.question(path, body), "question")
        return calls.expect(reply, "question")


def _token(audience: str | None, scope: str | None, details: Mapping[str, Any] | None, *, fresh: bool) -> Callable[[Route], Flow[Request]]:
    return lambda route: route.token(audience, scope, details, fresh=fresh)


def scope_of(scope: str | Iterable[str] | None) -> str | None:
    """A set of capabilities as one text: the same for the same set."""
    if scope is None:
        return None
    names = sorted(set(scope.split() if isinstance(scope, str) else scope))
    if not names:
        raise ConfigurationError("scope is empty", advice="Leave it out for all that the agent holds without approval.")
    return " ".join(names)


def secret_of(token: str | Secret | AccessToken) -> Secret:
    """A token, so wrapped that it is not printed."""
    if isinstance(token, AccessToken):
        return token.secret
    return token if isinstance(token, Secret) else Secret(token)


def secret_if_any(token: str | Secret | AccessToken | None) -> Secret | None:
    """The same where there may be none."""
    return None if token is None else secret_of(token)
