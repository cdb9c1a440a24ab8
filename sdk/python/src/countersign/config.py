"""What the environment says."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from .errors import ConfigurationError

__all__ = ["DEFAULT_TOKEN_FILE", "Settings", "endpoint", "is_loopback"]

#: Where a pod has its credential by convention.
DEFAULT_TOKEN_FILE: Final = "/var/run/secrets/countersign/token"


@dataclass(frozen=True)
class Settings:
    """Where the authority is and what is asked of it. Whatever is None was not said."""

    url: str | None = None
    ca_file: str | None = None
    audience: str | None = None
    client_id: str | None = None

    @classmethod
    def read(
        cls,
        url: str | None = None,
        ca_file: str | None = None,
        audience: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """What was given, else what the environment says."""
        env = os.environ if environment is None else environment
        found = url or env.get("COUNTERSIGN_URL") or None
        return cls(
            url=None if found is None else endpoint(found, "COUNTERSIGN_URL"),
            ca_file=ca_file or env.get("COUNTERSIGN_CA") or None,
            audience=audience or env.get("COUNTERSIGN_AUDIENCE") or None,
            client_id=env.get("COUNTERSIGN_CLIENT_ID") or None,
        )

    def issuer(self) -> str:
        """The issuer's URL, which must have been said."""
        if self.url is None:
            raise ConfigurationError("nobody said where the authority is", advice="Set COUNTERSIGN_URL to the issuer's URL.")
        return self.url


def endpoint(url: str, name: str) -> str:
    """An address that may be asked: https, or http on this machine. It is kept as it is, because an issuer is compared byte by byte."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or not host or parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(f"{name} is no URL of a server", advice="Write https://host, and nothing secret in it.")
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return url
    raise ConfigurationError(f"{name} is neither https nor on this machine", advice="Plain http is for loopback addresses alone.")


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine: 127.0.0.0/8, ::1, or the name localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
