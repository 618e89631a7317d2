"""Work out how many flows the kernel counted and did not tell of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sgagent.core.kernel.counters import CounterKey
from sgagent.ports import CounterValue

Totals = Mapping[CounterKey, CounterValue]


@dataclass(slots=True)
class _Account:
    """What is known of one leaf."""

    begun_at: int
    """Its total when it was first looked at."""

    total: int
    """As of the reading before the newest: what was counted later may be on its way."""

    left_out: int = 0


class LeftOut:
    """Compare what was told with what was counted. Belongs to one thread.

    What it says is never more than was left out, and all of it as soon as nothing new is counted: the kernel
    gathers packets for a moment before it tells of them.
    """

    def __init__(self) -> None:
        """Start with nothing known."""
        self._accounts: dict[CounterKey, _Account] = {}
        self._is_begun = False

    def begin(self, totals: Totals) -> None:
        """Take note of where counters begin that are new since the last reckoning, if there was one.

        Args:
            totals: as of that reckoning, and of what began to be counted since.
        """
        if self._is_begun:
            for key, value in totals.items():
                self._accounts.setdefault(key, _Account(value.packets, value.packets))

    def reckon(self, totals: Totals, told: Counter[CounterKey]) -> Iterator[tuple[CounterKey, int]]:
        """Yield what was newly found to be left out, by what counted it.

        Args:
            totals: the newest, of what is to be told of.
            told: how many were told of until now.
        """
        self._is_begun = True
        self._accounts = {key: account for key, account in self._accounts.items() if key in totals}
        for key, value in totals.items():
            account = self._accounts.get(key)
            if account is None:
                self._accounts[key] = _Account(value.packets, value.packets)
                continue
            missing = account.total - account.begun_at - told[key] - account.left_out
            account.total = value.packets
            if missing > 0:
                account.left_out += missing
                yield key, missing
