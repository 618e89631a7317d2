"""Say what somebody has put in force by hand, and until when."""

from __future__ import annotations

from dataclasses import dataclass, field

from sgagent.agent.choosing.modes import ModeOverrides
from sgagent.agent.keeping.kept import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Definitions that are in force instead of the source's."""

    version: str
    origin: Origin
    since: float | None
    """Seconds since the epoch."""

    held_back: str
    """The source's version that is not enforced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Definitions that are given up unless they are confirmed."""

    version: str
    deadline: float
    """By the monotonic clock."""

    goes_back_to: str | None
    """None is nothing, as before."""

    def seconds_left(self, monotonic: float) -> float:
        """Return how long there is to confirm."""
        return max(0.0, self.deadline - monotonic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All orders that stand."""

    held: Held | None = None
    pending: Pending | None = None
    overrides: ModeOverrides = field(default_factory=ModeOverrides)
