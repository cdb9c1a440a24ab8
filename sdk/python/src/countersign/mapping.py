"""Which capability a tool needs, and on what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal

from .operation import Operation
from .resources import is_resource

__all__ = ["Tool"]


@dataclass(frozen=True)
class Tool:
    """What a tool needs.

    `resource` is a text, a format over the arguments (`"invoice:{number}"`), or a function of them. `parameters` are those that a person
    would see and that the token is limited to: all arguments, the named ones, or what a function makes of them.

    `sends_token` says who makes sure that an approved operation happens once. False: the guard reports it as done before the tool runs.
    True: the tool sends `current_permit().token()` to a resource server that does.
    """

    capability: str
    resource: str | Callable[[Mapping[str, Any]], str] | None = None
    parameters: Literal["all"] | Sequence[str] | Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = "all"
    audience: str | None = None
    sends_token: bool = False

    @classmethod
    def of(cls, value: str | Tool) -> Tool:
        """A capability alone, or all of it."""
        return value if isinstance(value, Tool) else cls(value)

    def operation(self, args: Mapping[str, Any]) -> Operation:
        """What a call with these arguments is. Raises whatever the functions raise."""
        return Operation(self.capability, self._resource(args), self._parameters(args), self.audience)

    @property
    def usual_resource(self) -> str | None:
        """The resource if it is the same for every call."""
        if isinstance(self.resource, str) and not any(name is not None for _, name, _, _ in Formatter().parse(self.resource)):
            return self.resource.format()
        return None

    def _resource(self, args: Mapping[str, Any]) -> str | None:
        if self.resource is None:
            return None
        named = _formatted(self.resource, args) if isinstance(self.resource, str) else self.resource(args)
        if not isinstance(named, str) or not is_resource(named):
            raise ValueError("the arguments name no resource")
        return named

    def _parameters(self, args: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if self.parameters is None:
            return None
        if callable(self.parameters):
            return self.parameters(args)
        if self.parameters == "all":
            return args or None
        if isinstance(self.parameters, str):
            raise ValueError("parameters is 'all', a list of names, or a function")
        return {name: args[name] for name in self.parameters if name in args} or None


def _formatted(template: str, args: Mapping[str, Any]) -> str:
    """A format over the arguments by their plain names: no attributes, no items, no conversions."""
    text = ""
    for literal, name, spec, conversion in Formatter().parse(template):
        text += literal
        if name is None:
            continue
        if spec or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}}} is not the name of an argument alone")
        value = args[name]
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"the argument {name} is no text and no whole number")
        part = str(value)
        # A name is one segment: what the caller writes must not make a path, or a pattern, of it.
        if not part or "/" in part or "*" in part or part in (".", ".."):
            raise ValueError(f"the argument {name} cannot stand in a resource")
        text += part
    return text
