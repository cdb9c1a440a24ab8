"""The credential chain: the first that is there is used. One that is there and broken is an error, never a reason to be somebody else."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from . import cloud
from ._flow import Flow
from .config import DEFAULT_TOKEN_FILE, Settings
from .credentials import Credential, PrivateKey, Sidecar, Supplied, TokenFile
from .errors import ConfigurationError, CredentialNotFound

_log = logging.getLogger("countersign")


class Chain:
    """Chooses once, at the first use."""

    def __init__(self, given: Credential | Callable[[], str] | None, settings: Settings, environment: Mapping[str, str] | None = None):
        self._given, self._settings = given, settings
        self._environment: Mapping[str, str] = os.environ if environment is None else environment
        self._chosen: Credential | None = None

    def describe(self) -> str:
        """Which credential it is."""
        return "not chosen yet" if self._chosen is None else self._chosen.describe()

    @property
    def chosen(self) -> Credential | None:
        """The credential, once there is one."""
        return self._chosen

    def choose(self) -> Flow[Credential]:
        """The credential."""
        if self._chosen is None:
            self._chosen = yield from self._choose()
            _log.debug("the credential is the %s", self._chosen.describe())
        return self._chosen

    def _choose(self) -> Flow[Credential]:
        client_id, lacked = self._settings.client_id, []
        if self._given is not None:
            return self._of(self._given)
        lacked.append("credential= was not given")
        if url := self._environment.get("COUNTERSIGN_SIDECAR_URL"):
            return Sidecar(url, client_id=client_id)
        lacked.append("COUNTERSIGN_SIDECAR_URL is not set")
        if path := self._environment.get("COUNTERSIGN_PRIVATE_KEY_FILE"):
            if client_id is None:
                raise ConfigurationError(
                    "COUNTERSIGN_PRIVATE_KEY_FILE is set and COUNTERSIGN_CLIENT_ID is not",
                    advice="It is agent:<namespace>/<name>.",
                )
            return PrivateKey(path, client_id, self._environment.get("COUNTERSIGN_KEY_ID") or None)
        lacked.append("COUNTERSIGN_PRIVATE_KEY_FILE is not set")
        if path := self._environment.get("COUNTERSIGN_TOKEN_FILE"):
            return TokenFile(path, client_id=client_id)
        if os.path.lexists(DEFAULT_TOKEN_FILE):
            return TokenFile(DEFAULT_TOKEN_FILE, client_id=client_id)
        lacked.append(f"COUNTERSIGN_TOKEN_FILE is not set, and there is no {DEFAULT_TOKEN_FILE}")
        return (yield from self._cloud(client_id, lacked))

    def _cloud(self, client_id: str | None, lacked: list[str]) -> Flow[Credential]:
        name = self._environment.get("COUNTERSIGN_CLOUD", "")
        if name.lower() == "none":
            lacked.append("COUNTERSIGN_CLOUD is none")
        elif name:
            return cloud.by_name(name, client_id)
        else:
            found = cloud.by_environment(self._environment, client_id) or (yield from cloud.probe(client_id))
            if found is not None:
                return found
            lacked.append("no cloud has left its marks in the environment, and no metadata server answers")
        raise CredentialNotFound(
            "there is no credential: " + "; ".join(lacked),
            advice="In a pod, mount a token for the issuer or add the label countersign.dev/inject; elsewhere, give the agent a key.",
        )

    def _of(self, given: Any) -> Credential:
        if isinstance(given, Credential):
            return given
        if callable(given):
            return Supplied(given, client_id=self._settings.client_id)
        raise ConfigurationError("credential= is neither a credential nor a function that returns a token")
