"""The tokens of clouds: what a workload on AWS, Google Cloud or Azure has anyway.

The platform is asked for a token whose audience is the issuer, which is kept until shortly before it ends.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from ._flow import Clock, Flow, NoAnswer, Reply, Request, call, send
from .credentials import Credential, signed_text
from .errors import ConfigurationError, CredentialInvalid, Unavailable
from .secret import Secret
from .tokens import end_of

__all__ = ["AWS", "GCP", "Azure", "Cloud", "by_environment", "by_name", "probe"]

#: How long a platform is waited for, in seconds.
_TIMEOUT: Final = 5.0
#: How long each platform is waited for to find out whether it is there, in seconds: all of them together within one.
_PROBE: Final = 0.3
#: A token is not used in the last minute of its life.
_BEFORE_END: Final = 60.0

_IMDS: Final = "http://169.254.169.254"


class Cloud(Credential):
    """A token of the platform."""

    #: Its name in COUNTERSIGN_CLOUD.
    name: str = ""

    def __init__(self, *, audience: str | None = None, client_id: str | None = None) -> None:
        self._audience = audience
        self.client_id = client_id
        self._kept: tuple[str, Secret, float] | None = None

    def describe(self) -> str:
        return f"token of {self.name}"

    def assertion(self, issuer: str, clock: Clock) -> Flow[Secret]:
        audience = self._audience or self.usual_audience(issuer)
        kept = self._kept
        if kept is not None and kept[0] == audience and clock.now() < kept[2]:
            return kept[1]
        text = yield from self.obtain(audience)
        token = signed_text(text.reveal(), self.describe())
        end = end_of(token)
        if end is not None:
            self._kept = (audience, token, end - _BEFORE_END)
        return token

    def usual_audience(self, issuer: str) -> str:
        """What the platform is asked for."""
        return issuer

    @abstractmethod
    def obtain(self, audience: str) -> Flow[Secret]:
        """Asks the platform."""

    def _ask(self, request: Request) -> Flow[Reply]:
        failure: Unavailable | CredentialInvalid
        try:
            reply = yield from send(request, _TIMEOUT)
        except NoAnswer as lost:
            failure = Unavailable(f"the {self.describe()} cannot be had: {lost.words}")
        else:
            if reply.status == 200:
                return reply
            failure = _failed(self.describe(), reply.status)
        raise failure


class AWS(Cloud):
    """The role of the workload, by `sts:GetWebIdentityToken`. Needs boto3 (`countersign-sdk[aws]`) and a region."""

    name = "aws"

    def obtain(self, audience: str) -> Flow[Secret]:
        return (yield from call(lambda: self._sts(audience)))

    def _sts(self, audience: str) -> Secret:
        try:
            import boto3
        except ImportError:
            raise ConfigurationError("boto3 is not installed", advice="pip install 'countersign-sdk[aws]'") from None
        try:
            # A regional endpoint: the global one does not know the call.
            client = boto3.client("sts")
            answer = client.get_web_identity_token(Audience=[audience], SigningAlgorithm="ES384", DurationSeconds=300)
            return Secret(str(answer["WebIdentityToken"]))
        except Exception as error:  # the library has many, and some quote what they sent
            failure = type(error).__name__
        raise CredentialInvalid(
            f"the token of aws cannot be had ({failure})",
            advice="The role needs sts:GetWebIdentityToken, and AWS_REGION must be set.",
        )


class GCP(Cloud):
    """The service account of the workload, by the metadata server."""

    name = "gcp"

    def obtain(self, audience: str) -> Flow[Secret]:
        host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
        asked = urlencode({"audience": audience, "format": "full"})
        url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/identity?{asked}"
        reply = yield from self._ask(Request("GET", url, {"Metadata-Flavor": "Google"}, local=True))
        return Secret(reply.body.decode("ascii", "replace"))


class Azure(Cloud):
    """The managed identity of the workload. Entra gives tokens for what is registered there: by default `api://<host of the issuer>`."""

    name = "azure"

    def usual_audience(self, issuer: str) -> str:
        return f"api://{urlsplit(issuer).hostname}"

    def obtain(self, audience: str) -> Flow[Secret]:
        asked = {"resource": audience}
        if os.environ.get("AZURE_CLIENT_ID"):
            asked["client_id"] = os.environ["AZURE_CLIENT_ID"]
        endpoint, header = os.environ.get("IDENTITY_ENDPOINT"), os.environ.get("IDENTITY_HEADER")
        if endpoint and header:
            url = f"{endpoint}?{urlencode({'api-version': '2019-08-01', **asked})}"
            headers = {"X-IDENTITY-HEADER": header}
            del header
        else:
            url = f"{_IMDS}/metadata/identity/oauth2/token?{urlencode({'api-version': '2018-02-01', **asked})}"
            headers = {"Metadata": "true"}
        request = Request("GET", url, headers, local=True)
        del headers
        reply = yield from self._ask(request)
        try:
            return Secret(str(json.loads(reply.body)["access_token"]))
        except (ValueError, KeyError, TypeError):
            failure = CredentialInvalid("the answer of azure has no token")
        raise failure


_CLOUDS: Final[dict[str, type[Cloud]]] = {"aws": AWS, "gcp": GCP, "azure": Azure}
_SIGNS: Final[tuple[tuple[str, type[Cloud]], ...]] = (
    ("IDENTITY_ENDPOINT", Azure),
    ("AWS_LAMBDA_FUNCTION_NAME", AWS),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AWS),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AWS),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AWS),
    ("K_SERVICE", GCP),
    ("GCE_METADATA_HOST", GCP),
)


def by_name(name: str, client_id: str | None) -> Cloud:
    """The platform that COUNTERSIGN_CLOUD names."""
    kind = _CLOUDS.get(name.lower())
    if kind is None:
        raise ConfigurationError(
            f"COUNTERSIGN_CLOUD names no platform that is known: {name[:32]!r}", advice="It is aws, gcp, azure or none."
        )
    return kind(client_id=client_id)


def by_environment(environment: Mapping[str, str], client_id: str | None) -> Cloud | None:
    """The platform that has left its marks in the environment."""
    kind = next((kind for sign, kind in _SIGNS if environment.get(sign)), None)
    return None if kind is None else kind(client_id=client_id)


def probe(client_id: str | None) -> Flow[Cloud | None]:
    """The platform whose metadata server answers. Nothing secret is sent to find out, and it takes less than a second."""
    google = yield from _peek(Request("GET", "http://169.254.169.254/", {"Metadata-Flavor": "Google"}, local=True))
    if google is not None and google.headers.get("metadata-flavor") == "Google":
        return GCP(client_id=client_id)
    url = f"{_IMDS}/metadata/instance?api-version=2021-02-01"
    azure = yield from _peek(Request("GET", url, {"Metadata": "true"}, local=True))
    if azure is not None and azure.status == 200 and not os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return Azure(client_id=client_id)
    headers = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    aws = yield from _peek(Request("PUT", f"{_IMDS}/latest/api/token", headers, local=True))
    if aws is not None and aws.status == 200:
        return AWS(client_id=client_id)
    return None


def _peek(request: Request) -> Flow[Reply | None]:
    try:
        return (yield from send(request, _PROBE))
    except NoAnswer:
        return None


def _failed(what: str, status: int) -> Unavailable | CredentialInvalid:
    message: dict[str, Any] = {"status": status}
    if status == 429 or status >= 500:
        return Unavailable(f"the {what} cannot be had: its platform answered {status}", **message)
    return CredentialInvalid(f"the {what} cannot be had: its platform answered {status}", **message)
