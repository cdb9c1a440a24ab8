"""Texts that must not be seen."""

from __future__ import annotations

import hashlib
from typing import NoReturn

__all__ = ["Secret"]


class Secret:
    """A token, a key or an assertion. Only `reveal` gives it away; it is not printed, compared, or stored by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def digest(self) -> str:
        """The SHA-256 of it, in hex: tells two apart, and says nothing."""
        return hashlib.sha256(self._value.encode()).hexdigest()

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: say reveal() where that is meant")
