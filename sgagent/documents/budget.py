"""Keep count of what the documents of one reading use up."""

from __future__ import annotations

from dataclasses import dataclass, field

from sgagent.core.model import CidrBlock
from sgagent.documents.limits import Limits


class OverBudgetError(Exception):
    """Say that the documents hold more rules or addresses than the limits allow; reading ends there."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """What all documents of one reading have used up, and what they share."""

    limits: Limits
    rules: int = 0
    addresses: int = 0
    blocks: dict[str, CidrBlock] = field(default_factory=dict)
    """Addresses and CIDRs that were read before, by their text: the same ones come again and again."""

    def has_room_for(self, rules: int, addresses: int) -> bool:
        """Tell whether so many more are within the limits."""
        return self.rules + rules <= self.limits.rules and self.addresses + addresses <= self.limits.addresses

    def use_up(self, rules: int, addresses: int) -> None:
        """Count so many more, for which there is room."""
        self.rules += rules
        self.addresses += addresses
