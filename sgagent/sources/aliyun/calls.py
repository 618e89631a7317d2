"""Say what is asked of the ECS API, and what may come of it.

The failures::

    SourceUnavailableError
    └── ApiError                     the API gave no answer that can be used
        ├── ThrottledError           it was asked too often; ask again later
        ├── NotThereError            what was asked for does not exist
        └── NotAllowedError          the credentials are none, or lack a right
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sgagent.core.errors import SourceUnavailableError, printable

Json = object
"""What JSON can hold."""

Answer = Mapping[str, Json]
"""The body of an answer."""


class Action(enum.Enum):
    """The calls that are made; all of them only read."""

    GROUPS = "DescribeSecurityGroups"
    RULES = "DescribeSecurityGroupAttribute"
    INTERFACES = "DescribeNetworkInterfaces"
    PREFIX_LIST = "DescribePrefixListAttributes"
    PORT_LIST = "DescribePortRangeListEntries"


@dataclass(frozen=True, slots=True)
class Call:
    """One question."""

    action: Action
    parameters: Mapping[str, Json] = field(default_factory=dict)
    """Without the region, which every call has."""

    def also(self, **parameters: Json) -> Call:
        """Return the call with more parameters."""
        return Call(self.action, {**self.parameters, **parameters})

    def __str__(self) -> str:
        """Return the action, and what it is about."""
        about = ", ".join(str(value) for name, value in self.parameters.items() if name.endswith(_ABOUT))
        return f"{self.action.value} {about}".rstrip()


_ABOUT = ("Id", "Ids")


class Api(Protocol):
    """Whoever answers calls: the API, or a test."""

    def ask(self, call: Call) -> Answer:
        """Return the body of the answer.

        Raises:
            ApiError: there is none that can be used.
        """
        ...

    def break_off(self) -> None:
        """End a question that is being asked, from another thread."""
        ...


class ApiError(SourceUnavailableError):
    """Say that the API gave no answer that can be used."""

    def __init__(self, message: str) -> None:
        """Keep the message, made fit to be printed."""
        super().__init__(printable(message))


class ThrottledError(ApiError):
    """Say that the API was asked too often, and how long to wait."""

    def __init__(self, message: str, *, wait_seconds: float = 0.0) -> None:
        """Keep the message, and what the API asked for."""
        super().__init__(message)
        self.wait_seconds = wait_seconds


class NotThereError(ApiError):
    """Say that what was asked for does not exist, or not any more."""


class NotAllowedError(ApiError):
    """Say that the credentials are none, have expired, or lack a right."""
