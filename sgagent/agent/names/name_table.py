"""The table of names: the DNS's answers, which of them still count, and whom to ask when (§12.3).

It knows no clock: each method takes the time, in seconds that never go back. A file has the time of its
writing by both clocks, so that only the time between two agents is measured by the wall clock.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address
from itertools import chain
from operator import attrgetter
from typing import Any

from sgagent.core.addresses import NO_ADDRESSES, AddressSet
from sgagent.core.binding import HostFacts
from sgagent.core.errors import Origin, Problem
from sgagent.core.model import CidrBlock, Family, NameReference
from sgagent.json_model import from_json, to_json

SHORTEST_TTL_SECONDS = 5.0
LONGEST_TTL_SECONDS = 3600.0
"""Bounds of how long an answer holds, whatever its TTL."""

LEAVING_SECONDS = 600.0
"""How long an address counts after the last answer that had it ceased to hold."""

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 60.0
"""Between look-ups that fail: the first delay, which doubles, and the longest."""

_REMEMBERED_FOR_ONE = 4
"""Addresses of an answer that are remembered for each that may count: not all are usable."""

_MOST_IN_WARNING = 5
"""Addresses that a warning names."""


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """A name server's answer for a name, of one family."""

    addresses: frozenset[CidrBlock]
    ttl_seconds: float
    is_authenticated: bool = False
    """Whether the name server says that it checked signatures of DNSSEC (the AD bit)."""


@dataclass(frozen=True, slots=True)
class NameLookUp:
    """The result of a look-up of a name's addresses."""

    name: str
    answers: Mapping[Family, DnsAnswer]
    fault: str | None = None
    """Why there is no answer of a family."""


class NameState(enum.Enum):
    """The state of a name in the table."""

    RESOLVED = "resolved"
    """It has addresses."""

    EMPTY = "empty"
    """The DNS answered that it has none."""

    STALE = "stale"
    """Name servers fail; the last answer counts."""

    EXPIRED = "expired"
    """Name servers failed for so long that it has no address any more."""

    UNRESOLVED = "unresolved"
    """No name server ever answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameStatus:
    """A name of a rule in force, for people."""

    name: str
    state: NameState
    addresses: tuple[str, ...] = ()
    is_authenticated: bool = False
    fault: str | None = None
    """Why the last look-up failed, or failed in part."""


@dataclass(frozen=True, slots=True)
class _LastAnswer:
    """The last answer of one family."""

    addresses: frozenset[CidrBlock]
    at: float
    until: float
    """When it ceases to hold."""

    is_authenticated: bool


@dataclass(frozen=True, slots=True)
class _Row:
    """All that is known of a name."""

    answers: Mapping[Family, _LastAnswer] = field(default_factory=dict)
    leaving: Mapping[CidrBlock, float] = field(default_factory=dict)
    """Addresses that the last answer did not have, and until when they count."""

    due_at: float = float("-inf")
    """When to ask next."""

    failures: int = 0
    """Look-ups that failed, one after the other."""

    fault: str | None = None

    @property
    def answered_at(self) -> float:
        """Return when a name server answered last."""
        return max((last.at for last in self.answers.values()), default=float("-inf"))

    def after(self, found: NameLookUp, now: float) -> _Row:
        """Return the row after a look-up."""
        answers = dict(self.answers)
        leaving = {block: until for block, until in self.leaving.items() if until > now}
        delays = []
        for family, answer in found.answers.items():
            before = answers.get(family)
            if before is not None:
                gone = before.addresses - answer.addresses
                leaving |= dict.fromkeys(gone, before.until + LEAVING_SECONDS)
            for block in answer.addresses:
                leaving.pop(block, None)
            ttl = min(max(answer.ttl_seconds, SHORTEST_TTL_SECONDS), LONGEST_TTL_SECONDS)
            answers[family] = _LastAnswer(answer.addresses, now, now + ttl, answer.is_authenticated)
            delays.append(ttl)
        failures = self.failures + 1 if found.fault else 0
        if found.fault:
            delays.append(min(FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 9), LONGEST_RETRY_SECONDS))
        return _Row(answers, leaving, now + min(delays), failures, found.fault)

    def blocks(self, now: float, keep_seconds: float) -> list[CidrBlock]:
        """Return the addresses that count, those that were answered last at the front."""
        current = [last.addresses for last in self.answers.values() if now - last.at < keep_seconds]
        found = frozenset(chain.from_iterable(current))
        left = {block: until - LEAVING_SECONDS for block, until in self.leaving.items() if until > now}
        return sorted(found | left.keys(), key=lambda one: (one not in found, -left.get(one, 0.0), one))

    def next_end(self, now: float, keep_seconds: float) -> float:
        """Return when an address ceases to count, if nothing is answered until then."""
        ends = (*self.leaving.values(), *(last.at + keep_seconds for last in self.answers.values()))
        return min((end for end in ends if end > now), default=float("inf"))

    def state(self, now: float, keep_seconds: float, *, has_addresses: bool) -> NameState:
        """Return the state of the name."""
        if not self.answers:
            return NameState.UNRESOLVED
        if all(now - last.at >= keep_seconds for last in self.answers.values()):
            return NameState.EXPIRED
        if self.failures and any(now >= last.until for last in self.answers.values()):
            return NameState.STALE
        return NameState.RESOLVED if has_addresses else NameState.EMPTY


@dataclass(frozen=True, slots=True)
class _View:
    """The addresses and warnings of a row on this host."""

    row: _Row
    until: float
    """When it does no more."""

    addresses: AddressSet
    texts: tuple[str, ...]
    warnings: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedNames:
    """The addresses of names on this host."""

    addresses: Mapping[str, AddressSet] = field(default_factory=dict)
    """Of each name that a name server ever answered for."""

    warnings: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    """What of the answers for each name does not count."""

    def warnings_of(self, names: Iterable[str]) -> tuple[Problem, ...]:
        """Return the warnings of some names."""
        return tuple(problem for name in sorted(names) for problem in self.warnings.get(name, ()))


class NameTable:
    """Names with their answers; belongs to one thread."""

    def __init__(self, *, keep_seconds: float, most_addresses: int, most_unused: int) -> None:
        """Start empty.

        Args:
            keep_seconds: how long the last answer counts while name servers fail.
            most_addresses: that a name may have.
            most_unused: names that are remembered beyond those that are wanted.
        """
        self._keep_seconds = keep_seconds
        self._most_addresses = most_addresses
        self._most_unused = most_unused
        self._rows: dict[str, _Row] = {}
        self._asked: set[str] = set()
        """Names that are being looked up."""

        self._own: frozenset[CidrBlock] = frozenset()
        """The host's addresses."""

        self._views: dict[str, _View] = {}
        self.wanted: frozenset[str] = frozenset()
        """The names that rules in force name."""

    def want(self, names: frozenset[str], now: float) -> None:
        """Keep answers for these names; answers for others are kept for a while, should a rule come back."""
        self.wanted = names
        others = [name for name in self._rows if name not in names]
        others.sort(key=lambda name: self._rows[name].answered_at)
        for place, name in enumerate(others):
            is_over = now - self._rows[name].answered_at >= self._keep_seconds
            if is_over or place < len(others) - self._most_unused:
                del self._rows[name]

    def due(self, now: float) -> Iterator[str]:
        """Yield the wanted names to ask for now."""
        waiting = sorted(self.wanted - self._asked)
        return (name for name in waiting if self._row(name).due_at <= now)

    def begin(self, name: str) -> None:
        """Record that a name is asked for: it is not due again before the look-up's result is taken."""
        self._asked.add(name)

    def take(self, found: NameLookUp, now: float) -> None:
        """Record the result of a look-up, of very long answers and rotations a part."""
        self._asked.discard(found.name)
        most = _REMEMBERED_FOR_ONE * self._most_addresses
        answers = {
            family: replace(answer, addresses=frozenset(sorted(answer.addresses)[:most]))
            for family, answer in found.answers.items()
        }
        row = self._row(found.name).after(replace(found, answers=answers), now)
        newest = sorted(row.leaving, key=lambda block: (-row.leaving[block], block))[: self._most_addresses]
        self._rows[found.name] = replace(row, leaving={block: row.leaving[block] for block in newest})

    def _row(self, name: str) -> _Row:
        return self._rows.get(name) or _Row()

    def resolved(self, now: float, facts: HostFacts) -> ResolvedNames:
        """Return the addresses of the known names on a host with these links; for no address of these."""
        own = frozenset(block for link in facts.links for block in link.addresses)
        if own != self._own:
            self._own, self._views = own, {}
        views = {name: self._view(name, now) for name, row in self._rows.items() if row.answers}
        addresses = {name: view.addresses for name, view in views.items()}
        warnings = {name: view.warnings for name, view in views.items()}
        return ResolvedNames(addresses=addresses, warnings=warnings)

    def _view(self, name: str, now: float) -> _View:
        row, view = self._row(name), self._views.get(name)
        if view is None or view.row is not row or now >= view.until:
            view = self._views[name] = self._make_view(name, row, now)
        return view

    def _make_view(self, name: str, row: _Row, now: float) -> _View:
        """Return the addresses of a row, with warnings of those that are left out."""
        blocks = row.blocks(now, self._keep_seconds)
        ignored = [block for block in blocks if block in self._own or _is_inside(block)]
        usable = [block for block in blocks if block not in ignored]
        warnings = []
        if ignored:
            more = f" and {len(ignored) - _MOST_IN_WARNING} more" if len(ignored) > _MOST_IN_WARNING else ""
            few = ", ".join(map(str, ignored[:_MOST_IN_WARNING])) + more
            message = f"addresses of the host's inside in an answer are ignored: {few}"
            remedy = "ask who controls the name; a rule for these needs them as addresses"
            warnings.append(_warning("name_of_inside", name, message, remedy))
        if len(usable) > self._most_addresses:
            message = f"{len(usable)} addresses; the {self._most_addresses} that were answered last count"
            remedy = "raise limits.addresses_per_name, or write the networks as CIDRs"
            warnings.append(_warning("many_addresses_of_name", name, message, remedy))
        if row.state(now, self._keep_seconds, has_addresses=bool(usable)) is NameState.EXPIRED:
            hours = self._keep_seconds / 3600
            message = f"no name server answered for {hours:g} hours, so the name matches nothing: {row.fault}"
            warnings.append(_warning("name_expired", name, message, "check this host's name servers"))
        counting = usable[: self._most_addresses]
        until, addresses = row.next_end(now, self._keep_seconds), AddressSet.of(counting) or NO_ADDRESSES
        return _View(row, until, addresses, _texts(counting), tuple(warnings))

    def report(self, now: float) -> tuple[NameStatus, ...]:
        """Return how the wanted names are, in their order."""
        return tuple(self._status(name, self._row(name), now) for name in sorted(self.wanted))

    def _status(self, name: str, row: _Row, now: float) -> NameStatus:
        texts = self._view(name, now).texts if row.answers else ()
        state = row.state(now, self._keep_seconds, has_addresses=bool(texts))
        answers = row.answers.values()
        is_authenticated = bool(answers) and all(last.is_authenticated for last in answers)
        return NameStatus(
            name=name, state=state, addresses=texts, is_authenticated=is_authenticated, fault=row.fault
        )

    def next_change(self, now: float) -> float:
        """Return when an address ceases to count, if nothing is answered until then."""
        ends = (row.next_end(now, self._keep_seconds) for row in self._rows.values())
        return min(ends, default=float("inf"))

    def as_json(self, now: float, wall: float) -> Any:  # noqa: ANN401 - values of JSON
        """Return the table as a file keeps it.

        Args:
            now: the time.
            wall: the same by the wall clock, in seconds since the epoch.
        """
        names = list[_KeptName]()
        for name, row in sorted(self._rows.items()):
            answers = tuple(
                _KeptAnswer(family, _texts(last.addresses), last.at, last.until, last.is_authenticated)
                for family, last in row.answers.items()
            )
            leaving = {str(block): until for block, until in row.leaving.items()}
            names += [_KeptName(name, answers, leaving)] if answers else []
        return to_json(_Kept(wall, now, tuple(names)))

    def take_json(self, value: object, now: float, wall: float) -> None:
        """Add the answers that an earlier agent kept; expired ones count no more.

        A wall clock that went back makes nothing younger than it was.

        Raises:
            ValueError: it is no table.
        """
        kept = from_json(_Kept, value)
        shift = now - kept.now - max(0.0, wall - kept.saved_at)
        for one in kept.names:
            answers = {
                answer.family: _LastAnswer(
                    frozenset(map(_single_block, answer.addresses)),
                    min(answer.at, kept.now) + shift,
                    min(answer.until, kept.now + LONGEST_TTL_SECONDS) + shift,
                    answer.is_authenticated,
                )
                for answer in one.answers
            }
            last = kept.now + LONGEST_TTL_SECONDS + LEAVING_SECONDS
            leaving = {_single_block(text): min(until, last) + shift for text, until in one.leaving.items()}
            self._rows[one.name] = _Row(answers, leaving)


@dataclass(frozen=True, slots=True)
class _KeptAnswer:
    family: Family
    addresses: tuple[str, ...]
    at: float
    until: float
    is_authenticated: bool


@dataclass(frozen=True, slots=True)
class _KeptName:
    name: str
    answers: tuple[_KeptAnswer, ...]
    leaving: dict[str, float]
    """Until when addresses count that the last answer did not have."""


@dataclass(frozen=True, slots=True)
class _Kept:
    saved_at: float
    """Seconds since the epoch."""

    now: float
    """The same moment by the clock of the other times."""

    names: tuple[_KeptName, ...]


def _texts(blocks: Iterable[CidrBlock]) -> tuple[str, ...]:
    return tuple(map(str, sorted(blocks, key=attrgetter("family.bits", "first"))))


def _single_block(text: str) -> CidrBlock:
    """Return an address as a block.

    Raises:
        ValueError: it is none.
    """
    address = ip_address(text)
    family = Family.IPV4 if address.version == 4 else Family.IPV6
    return CidrBlock.around(family, int(address), family.bits)


def _is_inside(block: CidrBlock) -> bool:
    """Return whether an address never leaves the link or the host: no name stands for it."""
    address = block.network.network_address
    if isinstance(address, IPv4Address):
        is_of_no_host = block.first >> 24 == 0 or block.first == block.family.last_address
    else:
        is_of_no_host = address.is_unspecified or address.ipv4_mapped is not None
    return is_of_no_host or address.is_loopback or address.is_link_local or address.is_multicast


def _warning(code: str, name: str, message: str, remedy: str) -> Problem:
    return Problem.warning(Origin(file=str(NameReference(name))), code, None, message, remedy)
