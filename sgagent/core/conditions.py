"""The conditions of a native document's rule on anything except packets (§13)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sgagent.core.hours import Hours

RATE_UNITS: Mapping[str, int] = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
"""What a rate may be per, in seconds."""

MOST_AT_ONCE = 10_000
"""Of a rate, and of a burst."""

LONGEST_REFILL = 99_999_999
"""Seconds, over three years: nft reads no longer timeout of a set."""

MOST_SOURCES = 65_536
"""That are remembered for a rule, link and family; the kernel lets others pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLimit:
    """How many new sessions each source address may open (§13.1): a token bucket for each."""

    rate: int
    """From 1, in :attr:`seconds`."""

    seconds: int
    """One of :data:`RATE_UNITS`."""

    burst: int
    """Of a full bucket, from 1."""

    @property
    def refill(self) -> int:
        """Return the seconds in which an empty bucket is full again, rounded up."""
        return -(-self.burst * self.seconds // self.rate)

    @property
    def rate_text(self) -> str:
        """Return the rate as documents write it: ``10/minute``."""
        return f"{self.rate}/{next(word for word, unit in RATE_UNITS.items() if unit == self.seconds)}"

    def __str__(self) -> str:
        """Return the limit for people: ``10/minute, burst 20``."""
        return f"{self.rate_text}, burst {self.burst}"


LAST_USER = (1 << 32) - 2
"""The greatest id that a user can have."""

NO_USER = LAST_USER + 1
"""Nobody's id: where users are numbers, that of packets without a socket of this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalUser:
    """Whose sockets of this host a rule is for (§13.3)."""

    name: str
    """As documents write it; an id as its digits."""

    number: int | None = None
    """None for a name that is not resolved."""

    def __str__(self) -> str:
        """Return the user for people: ``user deploy``, with the id where it is known."""
        is_said = self.number is None or self.name == str(self.number)
        return f"user {self.name}" if is_said else f"user {self.name} ({self.number})"


def stand_in(name: str) -> int:
    """Return an id for a user where no host is asked: that of a name stays, in the upper half of all."""
    return (1 << 31) + zlib.crc32(name.encode()) % ((1 << 31) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """All such demands of a rule."""

    active: Hours | None = None
    """When the rule exists (§13.2); None is always."""

    limit: SourceLimit | None = None
    """Of accept rules (§13.1); None is none."""

    user: LocalUser | None = None
    """Of egress rules: who made the socket (§13.3); None is any, and packets without a socket."""

    def hold_at(self, time: datetime | None) -> bool:
        """Return whether a rule exists by its hours; without a time it does."""
        return self.active is None or time is None or self.active.include(time)

    @property
    def texts(self) -> Mapping[str, str]:
        """Return the demands that are made, in words, by the names of their fields."""
        found = {"active": self.active, "limit_per_source": self.limit, "local": self.user}
        return {name: str(value) for name, value in found.items() if value is not None}


NO_CONDITIONS = Conditions()
