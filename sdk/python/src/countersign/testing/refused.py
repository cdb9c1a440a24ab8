"""A refusal of a FakeAuthority."""

from __future__ import annotations

from typing import Final

from .server import Answer

CIBA: Final = "urn:openid:params:grant-type:ciba"


class Refused(Exception):
    """A refusal."""

    def __init__(self, status: int, error: str, description: str, **headers: str) -> None:
        super().__init__(error)
        body = {"error": error, "error_description": description}
        self.answer = Answer(status, body, headers)
