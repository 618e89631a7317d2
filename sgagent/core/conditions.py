"""The conditions of a native document's rule on anything except packets (§13)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

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

    @property
    def is_known(self) -> bool:
        """Return whether the host has the user."""
        return self.number is not None

    def __str__(self) -> str:
        """Return the user for people: ``user deploy``, with the id where it is known."""
        is_said = self.number is None or self.name == str(self.number)
        return f"user {self.name}" if is_said else f"user {self.name} ({self.number})"


NO_GROUP_MATCH = "this kernel has no rules for control groups (nft_compat, xt_cgroup)"
"""Why a host can have no rules for units."""

_LEVELS = 16
"""Of paths whose groups have numbers of their own; deeper groups share those of the one above."""

_LEVEL_BITS = 64
LAST_UNIT = (1 << _LEVELS * _LEVEL_BITS) - 1
NO_UNIT = LAST_UNIT + 1
"""Where control groups are numbers, that of packets without a socket of this host."""


@dataclass(frozen=True, slots=True, order=True)
class GroupPath:
    """A control group (version 2) and all below it, by its path."""

    path: str
    """From the top of the tree, like ``/system.slice/nginx.service``; up to 511 bytes."""

    @property
    def word(self) -> str:
        """Return it as iptables writes it."""
        return self.path

    @property
    def numbers(self) -> tuple[int, int]:
        """Return the first number, its own, and the last of those below it: as a network has addresses."""
        first, last = _numbers(self.path)
        _PATHS[first] = self.path
        return first, last


class ControlGroup(NamedTuple):
    """A control group of this host."""

    path: str
    identity: int
    """The kernel's; a group that is made anew has another one."""

    @property
    def numbers(self) -> tuple[int, int]:
        """Return the first and the last number of the group and those below it; rules ask for few groups."""
        return GroupPath(self.path).numbers

    @property
    def number(self) -> int:
        """Return the group's own number; sockets are in any number of groups, one after the other."""
        return _numbers(self.path)[0]


@lru_cache(maxsize=4096)
def _numbers(path: str) -> tuple[int, int]:
    parts = path.strip("/").split("/")[:_LEVELS]
    first = 0
    for part in parts:
        digest = hashlib.blake2b(part.encode("utf-8", "surrogateescape"), digest_size=_LEVEL_BITS // 8)
        first = first << _LEVEL_BITS | int.from_bytes(digest.digest())
    free = (_LEVELS - len(parts)) * _LEVEL_BITS
    return first << free, (first + 1 << free) - 1


_PATHS: dict[int, str] = {}
"""Of the groups of rules and questions, to name them."""


def groups_text(units: Iterable[tuple[int, int]]) -> str:
    """Return control groups in words, by the paths of those that have had their numbers asked for."""
    named = [_PATHS[first].rpartition("/")[2] for first, _ in units if first in _PATHS]
    return f"unit {', '.join(named)}" if named else "other units"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalUnit:
    """The systemd unit whose sockets a rule is for, with all that is below it (§13.3)."""

    name: str
    group: ControlGroup | None = None
    """None while the unit does not run, or the host does not have it."""

    absence: str | None = None
    """Why the host can have no such group; None where it has one, or may get one."""

    @property
    def is_known(self) -> bool:
        """Return whether some socket may be of the unit."""
        return self.group is not None

    def __str__(self) -> str:
        """Return the unit for people."""
        return f"unit {self.name}"


Local = LocalUser | LocalUnit
"""Who on this host a rule is for."""


def stand_in(name: str) -> int:
    """Return an id for a user where no host is asked: that of a name stays, in the upper half of all."""
    return (1 << 31) + zlib.crc32(name.encode()) % ((1 << 31) - 1)


def stand_in_unit(unit: LocalUnit) -> LocalUnit:
    """Return a unit with a group where no host is asked: each name is a unit, beside all others."""
    return replace(unit, group=ControlGroup(f"/{unit.name}", 0))


@dataclass(frozen=True, slots=True)
class LocalFinder:
    """The look-up of users and units; by default no host is asked."""

    find_user: Callable[[str], int | None] = stand_in
    """Returns the id of a user; None if there is none of that name."""

    find_unit: Callable[[LocalUnit], LocalUnit] = stand_in_unit
    """Returns the unit with its control group, or with the reason why there can be none."""

    list_groups: Callable[[], Mapping[int, ControlGroup]] = dict
    """Returns the control groups of the host, by the kernel's identity of each."""

    def __call__(self, local: Local) -> Local:
        """Return who is meant on the host."""
        if isinstance(local, LocalUnit):
            return self.find_unit(local)
        return local if local.is_known else replace(local, number=self.find_user(local.name))


NO_HOST = LocalFinder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """All such demands of a rule.

    No digest and no derived id knows a demand that is not made, so a further one leaves all as they are.
    """

    active: Hours | None = None
    """When the rule exists (§13.2); None is always."""

    limit: SourceLimit | None = None
    """Of accept rules (§13.1); None is none."""

    local: Local | None = None
    """Of egress rules: who made the socket (§13.3); None is any, and packets without a socket."""

    @property
    def user(self) -> int | None:
        """Return the id of the user that is meant, if one is and the host has it."""
        return self.local.number if isinstance(self.local, LocalUser) else None

    @property
    def group(self) -> ControlGroup | None:
        """Return the control group of the unit that is meant, if one is and runs."""
        return self.local.group if isinstance(self.local, LocalUnit) else None

    @property
    def are_timed(self) -> bool:
        """Return whether time says that a rule exists, or not."""
        return self.active is not None

    def hold_at(self, time: datetime | None) -> bool:
        """Return whether a rule exists by its hours; without a time it does."""
        return self.active is None or time is None or self.active.include(time)

    @property
    def texts(self) -> Mapping[str, str]:
        """Return the demands that are made, in words, by the names of their fields in documents."""
        return _in_words(active=self.active) | self.texts_of_packets

    @property
    def texts_of_packets(self) -> dict[str, str]:
        """Return likewise the demands that a rule makes while it exists."""
        return _in_words(limit_per_source=self.limit, local=self.local)


def _in_words(**demands: object) -> dict[str, str]:
    return {name: str(value) for name, value in demands.items() if value is not None}


NO_CONDITIONS = Conditions()
