"""Count packets of each mark directly before and directly behind the agent's hooks, in a table of their own.

A packet carries its mark in the identification of IPv4, or in the flow label of IPv6. Behind the hooks a
packet is dropped, so that the next one alike opens a session again, unless its mark is one of those that are
let through: these open real sessions.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import nftables

from integration.lab import Lab, LabError, wait_for
from sgagent.core.model import Direction, Family

TABLE = "teststorm"
FIRST_MARK = 0x4000
"""Of packets that are watched; what others send is seldom numbered so."""

_BEFORE, _BEHIND = "came", "passed"
_HOOKS = {Direction.INGRESS: ("prerouting", -151, -149), Direction.EGRESS: ("postrouting", 299, 301)}
"""By the direction of a packet, the hook and the priorities before and behind the agent's."""

_LINKS = {Direction.INGRESS: "iifname", Direction.EGRESS: "oifname"}
_KEYS = {Family.IPV4: "ip id", Family.IPV6: "ip6 flowlabel"}
_PROTOCOLS = {Family.IPV4: "ipv4", Family.IPV6: "ipv6"}


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """The mark that distinguishes packets of one kind from all others."""

    number: int
    direction: Direction = field(compare=False)
    """Of the packet: through which hook it goes."""

    family: Family = field(compare=False)
    is_let_through: bool = field(compare=False)
    """Whether a packet that gets past the agent goes on."""


@dataclass(frozen=True, slots=True)
class Count:
    """Packets of one mark."""

    came: int = 0
    """That reached the agent's hook."""

    passed: int = 0
    """That got past it."""

    def __sub__(self, other: Count) -> Count:
        """Return the packets since another count."""
        return Count(self.came - other.came, self.passed - other.passed)

    @property
    def dropped(self) -> int:
        """Return the packets that did not get past the hook."""
        return self.came - self.passed


class Watch:
    """The table that counts; only this object can change it."""

    def __init__(self, lab: Lab) -> None:
        """Open the library to the kernel, on the host of the bench."""
        self._lab = lab
        with lab.host.entered():
            self._nft = nftables.Nftables()
        self._nft.set_json_output(True)
        self._marks: tuple[Mark, ...] = ()

    def begin(self, marks: Collection[Mark]) -> None:
        """Count packets of these marks, from zero."""
        self._marks = tuple(sorted(marks))
        self._command(f"add table inet {TABLE}\ndelete table inet {TABLE}")
        self._command("\n".join(_table(self._marks)))

    def end(self) -> None:
        """Remove the table."""
        self._command(f"add table inet {TABLE}\ndelete table inet {TABLE}")

    def counts(self) -> dict[Mark, Count]:
        """Return the counts of each mark."""
        listing = self._command(f"list counters table inet {TABLE}")
        found = {item["counter"]["name"]: item["counter"]["packets"] for item in listing if "counter" in item}
        return {
            mark: Count(found[f"{_BEFORE}_{mark.number}"], found[f"{_BEHIND}_{mark.number}"])
            for mark in self._marks
        }

    def settled(self) -> dict[Mark, Count]:
        """Return the counts as soon as no packet is on its way any more; nobody may be sending."""
        looks = [self.counts()]

        def is_still() -> bool:
            looks.append(self.counts())
            return len(looks) >= _QUIET_LOOKS and all(look == looks[-1] for look in looks[-_QUIET_LOOKS:])

        wait_for(is_still, "all packets to be counted")
        return looks[-1]

    def _command(self, text: str) -> list[dict[str, Any]]:
        """Carry out a command of nft and return its listing."""
        status, output, error = self._nft.cmd(text)
        if status:
            raise LabError(f"the watch was refused: {error}")
        if not output:
            return []
        listed: list[dict[str, Any]] = json.loads(output)["nftables"]
        return listed


_QUIET_LOOKS = 3


@contextlib.contextmanager
def watching(lab: Lab) -> Iterator[Watch]:
    """Return a watch on the host of the bench, and remove its table at the end."""
    made = Watch(lab)
    try:
        yield made
    finally:
        made.end()


def _table(marks: tuple[Mark, ...]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield f"table inet {TABLE} {{"
    for mark in marks:
        yield f"counter {_BEFORE}_{mark.number} {{ }}"
        yield f"counter {_BEHIND}_{mark.number} {{ }}"
    for direction, (hook, before, behind) in _HOOKS.items():
        for place, priority in ((_BEFORE, before), (_BEHIND, behind)):
            rules: list[str] = []
            for family, key in _KEYS.items():
                numbers = [m for m in marks if m.direction is direction and m.family is family]
                yield from _counting(place, direction, family, numbers, rules)
                dropped = [str(mark.number) for mark in numbers if not mark.is_let_through]
                if place == _BEHIND and dropped:
                    name = f"dropped_{direction.value}_{_PROTOCOLS[family]}"
                    yield f"set {name} {{ typeof {key}; elements = {{ {', '.join(dropped)} }} }}"
                    rules.append(f"meta nfproto {_PROTOCOLS[family]} {key} @{name} drop")
            yield f"chain {place}_{direction.value} {{"
            yield f"type filter hook {hook} priority {priority}; policy accept;"
            yield f'{_LINKS[direction]} "lo" return'
            yield from rules
            yield "}"
    yield "}"


def _counting(
    place: str, direction: Direction, family: Family, marks: list[Mark], rules: list[str]
) -> Iterator[str]:
    """Yield the map from marks of a family to their counters, and add the rule that looks them up."""
    if not marks:
        return
    name, key = f"{place}_{direction.value}_{_PROTOCOLS[family]}", _KEYS[family]
    elements = ", ".join(f'{mark.number} : "{place}_{mark.number}"' for mark in marks)
    yield f"map {name} {{ typeof {key} : counter; elements = {{ {elements} }} }}"
    rules.append(f"meta nfproto {_PROTOCOLS[family]} counter name {key} map @{name}")
