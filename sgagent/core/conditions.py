"""The conditions of a native document's rule on anything except packets (§13)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sgagent.core.hours import Hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """All such demands of a rule."""

    active: Hours | None = None
    """When the rule exists (§13.2); None is always."""

    def hold_at(self, time: datetime | None) -> bool:
        """Return whether a rule exists by its hours; without a time it does."""
        return self.active is None or time is None or self.active.include(time)

    @property
    def texts(self) -> Mapping[str, str]:
        """Return the demands that are made, in words, by the names of their fields."""
        found = {"active": self.active}
        return {name: str(value) for name, value in found.items() if value is not None}


NO_CONDITIONS = Conditions()
