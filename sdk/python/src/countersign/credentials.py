"""How an agent proves who it is.

Each credential gives an assertion, a signed text that is sent with a request (RFC 7523), except for the sidecar, which has its own and
keeps it. `describe()` says what a credential is without a secret in it.
"""

from __future__ import annotations

import os
import secrets
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ._flow import Clock, Flow, call
from .config import endpoint, is_loopback
from .errors import ConfigurationError, CredentialInvalid
from .secret import Secret

__all__ = ["Credential", "PrivateKey", "Sidecar", "Supplied", "TokenFile", "signed_text"]

_LENGTH_MAX: Final = 64 * 1024
#: How long an assertion lives, in seconds: as long as the service takes it.
_ASSERTION_LIFE: Final = 60


class Credential(ABC):
    """Proves who the agent is. `client_id` is the agent's name if the credential knows it: `agent:<namespace>/<name>`."""

    client_id: str | None = None

    @abstractmethod
    def describe(self) -> str:
        """What it is, in words for people and without secrets."""

    @abstractmethod
    def assertion(self, issuer: str, clock: Clock) -> Flow[Secret]:
        """The text that proves it to the issuer, for one request."""

    def __repr__(self) -> str:
        return f"<{self.describe()}>"


class Sidecar(Credential):
    """The sidecar beside the agent, which has the credential. Only an address of this machine is accepted."""

    def __init__(self, url: str, *, client_id: str | None = None) -> None:
        self.url = endpoint(url, "the address of the sidecar").rstrip("/")
        self.client_id = client_id
        if not is_loopback(urlsplit(self.url).hostname or ""):
            raise ConfigurationError("the sidecar is not on this machine", advice="COUNTERSIGN_SIDECAR_URL is http://127.0.0.1:<port>.")

    def describe(self) -> str:
        return f"sidecar at {self.url}"

    def assertion(self, issuer: str, clock: Clock) -> Flow[Secret]:
        raise ConfigurationError("the sidecar keeps its credential to itself")
        yield


class TokenFile(Credential):
    """A file with a token that somebody renews, such as the kubelet. It is read for each use."""

    def __init__(self, path: str | os.PathLike[str], *, client_id: str | None = None) -> None:
        self.path = os.fspath(path)
        self.client_id = client_id

    def describe(self) -> str:
        return f"token file {self.path}"

    def assertion(self, issuer: str, clock: Clock) -> Flow[Secret]:
        return (yield from call(self._read))

    def _read(self) -> Secret:
        try:
            with open(self.path, encoding="ascii") as file:
                return signed_text(file.read(_LENGTH_MAX + 1), self.describe())
        except (OSError, ValueError) as error:
            failure = type(error).__name__
        raise CredentialInvalid(f"the {self.describe()} cannot be read ({failure})")


class Supplied(Credential):
    """A function that returns the token, called for each use."""

    def __init__(self, function: Callable[[], str], *, client_id: str | None = None) -> None:
        self._function = function
        self.client_id = client_id

    def describe(self) -> str:
        return f"function {getattr(self._function, '__qualname__', 'without a name')}"

    def assertion(self, issuer: str, clock: Clock) -> Flow[Secret]:
        return (yield from call(self._ask))

    def _ask(self) -> Secret:
        try:
            text = self._function()
        except Exception as error:  # whatever it is, its words are not ours to repeat
            failure = type(error).__name__
        else:
            return signed_text(text, self.describe())
        raise CredentialInvalid(f"the {self.describe()} failed ({failure})")


class PrivateKey(Credential):
    """An Ed25519 key of the agent's own, as PEM or the path of a file with it. Each request and each attempt has a new assertion."""

    def __init__(self, path_or_pem: str | os.PathLike[str], client_id: str, kid: str | None = None) -> None:
        self.client_id = client_id
        self._kid = kid
        given = Secret(os.fspath(path_or_pem))
        del path_or_pem
        # What has lines is no path, and must not be named as one: some tools write words before a key.
        is_pem = "-----BEGIN" in given.reveal() or "\n" in given.reveal()
        self._where = "private key" if is_pem else f"private key {given.reveal()}"
        self._key = _load(given if is_pem else _private_file(Path(given.reveal()), self._where), self._where)

    def describe(self) -> str:
        return f"{self._where} of {self.client_id}"

    def assertion(self, issuer: str, clock: Clock) -> Flow[Secret]:
        if False:  # a flow that asks nobody
            yield
        now = int(clock.now())
        claims: dict[str, Any] = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": issuer,
            "iat": now,
            "exp": now + _ASSERTION_LIFE,
            "jti": secrets.token_urlsafe(16),
        }
        headers = {} if self._kid is None else {"kid": self._kid}
        return Secret(jwt.encode(claims, self._key, algorithm="EdDSA", headers=headers))


def signed_text(text: object, where: str) -> Secret:
    """A token as it may stand in a file. Anything but printable characters would end up in a header."""
    if not isinstance(text, str) or len(text) > _LENGTH_MAX:
        raise CredentialInvalid(f"the {where} has no token")
    secret = Secret(text.strip())
    del text
    if not secret.reveal() or not all("!" <= c <= "~" for c in secret.reveal()):
        raise CredentialInvalid(f"the {where} has no token", advice="It must be one token, and nothing else.")
    return secret


def _load(pem: Secret, where: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem.reveal().encode(), password=None)
    except Exception as error:  # the library has many, and some quote what they read
        failure = type(error).__name__
    else:
        if isinstance(key, Ed25519PrivateKey):
            return key
        failure = "it is of another kind"
    raise CredentialInvalid(f"the {where} is no Ed25519 key in PEM ({failure})", advice="`countersign keygen` makes one.")


def _private_file(path: Path, where: str) -> Secret:
    try:
        with path.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if not mode & 0o077:
                return Secret(file.read(_LENGTH_MAX))
    except (OSError, ValueError) as error:
        raise CredentialInvalid(f"the {where} cannot be read ({type(error).__name__})") from None
    raise CredentialInvalid(f"the {where} may be read by others than its owner", advice=f"chmod 600 {path}")
