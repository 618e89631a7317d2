"""Name the sizes that everything is measured at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """How large a policy is."""

    rules: int
    members: int

    def __str__(self) -> str:
        """Return both numbers: ``1,000/10,000``."""
        return f"{self.rules:,}/{self.members:,}"


SIZES = (Size(10, 100), Size(100, 1_000), Size(1_000, 10_000), Size(10_000, 100_000))
QUICK_SIZES = SIZES[:3:2]
