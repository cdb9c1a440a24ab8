"""The two ways to the authority: directly with a credential, or through the sidecar. They make requests, and that is all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

from ._flow import Clock, Flow, Request, form
from .credentials import Credential, Sidecar
from .errors import ConfigurationError, InvalidRequest
from .secret import Secret

FORM: Final = "application/x-www-form-urlencoded"
CLIENT_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
CIBA: Final = "urn:openid:params:grant-type:ciba"
TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:"

Form = list[tuple[str, str | Secret | None]]


class Route(Protocol):
    """Makes each request. Whatever is None is not said."""

    #: Whether tokens are kept at the other end, so that none are kept here.
    keeps_tokens: bool

    def token(self, audience: str | None, scope: str | None, details: Mapping[str, Any] | None, *, fresh: bool) -> Flow[Request]:
        """For a token of the agent itself."""

    def exchange(
        self, subject: Secret, kind: str, audience: str | None, scope: str | None, details: Mapping[str, Any] | None
    ) -> Flow[Request]:
        """For a token on behalf of whoever called the agent, or of a user."""

    def file(self, parameters: Form, key: str, me: str | None) -> Flow[Request]:
        """Asks a person."""

    def poll(self, request_id: str, hold: int) -> Flow[Request]:
        """Looks what the person said, and waits for it for `hold` seconds."""

    def complete(self, token: Secret) -> Flow[Request]:
        """Reports that an operation is done."""

    def revoke(self, token: Secret) -> Flow[Request]:
        """Gives a token up, or withdraws a request."""

    def question(self, path: str, body: Mapping[str, Any]) -> Flow[Request]:
        """Asks whether something may be done."""


class Direct:
    """To the issuer, with an assertion."""

    keeps_tokens = False

    def __init__(self, issuer: str, credential: Credential, clock: Clock) -> None:
        self._issuer, self._credential, self._clock = issuer, credential, clock

    def token(self, audience: str | None, scope: str | None, details: Mapping[str, Any] | None, *, fresh: bool) -> Flow[Request]:
        parameters: Form = [("grant_type", "client_credentials"), ("audience", audience), ("scope", scope)]
        return (yield from self._post("/oauth2/token", [*parameters, ("authorization_details", _listed(details))]))

    def exchange(
        self, subject: Secret, kind: str, audience: str | None, scope: str | None, details: Mapping[str, Any] | None
    ) -> Flow[Request]:
        parameters: Form = [
            ("grant_type", TOKEN_EXCHANGE),
            ("subject_token_type", TOKEN_TYPE + kind),
            ("subject_token", subject),
            ("audience", audience),
            ("scope", scope),
            ("authorization_details", _listed(details)),
        ]
        return (yield from self._post("/oauth2/token", parameters))

    def file(self, parameters: Form, key: str, me: str | None) -> Flow[Request]:
        asked: Form = [*parameters, ("login_hint", me)]
        return (yield from self._post("/oauth2/bc-authorize", asked, {"Idempotency-Key": key}))

    def poll(self, request_id: str, hold: int) -> Flow[Request]:
        asked: Form = [("grant_type", CIBA), ("auth_req_id", request_id)]
        return (yield from self._post("/oauth2/token", asked, {"Prefer": f"wait={hold}"}))

    def complete(self, token: Secret) -> Flow[Request]:
        return (yield from self._post("/jit/complete", [("token", token)]))

    def revoke(self, token: Secret) -> Flow[Request]:
        return (yield from self._post("/oauth2/revoke", [("token", token)]))

    def question(self, path: str, body: Mapping[str, Any]) -> Flow[Request]:
        content = json_of(body)
        assertion = yield from self._credential.assertion(self._issuer, self._clock)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {assertion.reveal()}"}
        return Request("POST", self._at(path), headers, content)

    def _post(self, path: str, parameters: Form, headers: Mapping[str, str] | None = None) -> Flow[Request]:
        assertion = yield from self._credential.assertion(self._issuer, self._clock)
        proved: Form = [("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", assertion), *parameters]
        return Request("POST", self._at(path), {"Content-Type": FORM, **(headers or {})}, form(proved))

    def _at(self, path: str) -> str:
        return self._issuer.rstrip("/") + path


class Beside:
    """Through the sidecar, which adds the credential."""

    keeps_tokens = True

    def __init__(self, sidecar: Sidecar) -> None:
        self._url = sidecar.url

    def token(self, audience: str | None, scope: str | None, details: Mapping[str, Any] | None, *, fresh: bool) -> Flow[Request]:
        _no_details(details)
        asked = urlencode([(name, value) for name, value in (("audience", audience), ("scope", scope)) if value is not None])
        headers = {"Cache-Control": "no-cache"} if fresh else {}
        return self._request("GET", "/token" + (f"?{asked}" if asked else ""), headers)
        yield

    def exchange(
        self, subject: Secret, kind: str, audience: str | None, scope: str | None, details: Mapping[str, Any] | None
    ) -> Flow[Request]:
        _no_details(details)
        parameters: Form = [
            ("subject_token", subject),
            ("subject_token_type", TOKEN_TYPE + kind),
            ("audience", audience),
            ("scope", scope),
        ]
        return self._post("/token", parameters)
        yield

    def file(self, parameters: Form, key: str, me: str | None) -> Flow[Request]:
        return self._post("/jit", parameters, {"Idempotency-Key": key})
        yield

    def poll(self, request_id: str, hold: int) -> Flow[Request]:
        return self._request("GET", f"/jit/{quote(request_id, safe='')}?wait={hold}", {})
        yield

    def complete(self, token: Secret) -> Flow[Request]:
        return self._post("/jit/complete", [("token", token)])
        yield

    def revoke(self, token: Secret) -> Flow[Request]:
        return self._post("/revoke", [("token", token)])
        yield

    def question(self, path: str, body: Mapping[str, Any]) -> Flow[Request]:
        return self._request("POST", path, {"Content-Type": "application/json"}, json_of(body))
        yield

    def _post(self, path: str, parameters: Form, headers: Mapping[str, str] | None = None) -> Request:
        return self._request("POST", path, {"Content-Type": FORM, **(headers or {})}, form(parameters))

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: Secret | None = None) -> Request:
        # Without this header the sidecar answers nobody: a page in a browser cannot send it.
        return Request(method, self._url + path, {"Countersign-Sidecar": "true", **headers}, body, local=True)


def json_of(body: Mapping[str, Any]) -> Secret:
    """The body, which may hold a token: it is revealed here and nowhere before.

    Raises InvalidRequest for what is no JSON. Make it before a credential is asked for, which would stand beside it in a traceback.
    """
    try:
        return Secret(json.dumps(body, default=_revealed, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        failure = type(error).__name__
    raise InvalidRequest(f"what is asked has no JSON ({failure})", code="not_json")


def _revealed(value: object) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _listed(details: Mapping[str, Any] | None) -> str | None:
    return None if details is None else json.dumps([details])


def _no_details(details: Mapping[str, Any] | None) -> None:
    if details is not None:
        raise ConfigurationError(
            "the sidecar gives no tokens for one operation that needs no approval",
            code="operation_unsupported",
            advice="Ask it for a token with the capability as scope.",
        )
