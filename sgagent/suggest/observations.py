"""Observations: conversations by network interface, and which of them are doubtful."""

from __future__ import annotations

import enum
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import NamedTuple

from sgagent.core.model import CidrBlock, Direction, Family, NetworkInterface, Snapshot
from sgagent.core.rule_values import free_id
from sgagent.suggest.conversations import Conversation, Tally

FarEnd = tuple[Family, int]


class Service(NamedTuple):
    """The protocol and port of sessions, and their direction."""

    direction: Direction
    protocol: int
    port: int | None


class Doubt(enum.Enum):
    """Why a conversation is asked about, and not admitted."""

    ONCE = "once"
    FEW = "few"
    SCAN = "scan"
    REFUSED = "refused"
    """The policy in force dropped it, or the cloud did."""


@dataclass(slots=True, kw_only=True)
class Observation:
    """The sessions that were seen at one interface with one far end."""

    interface: str
    service: Service
    far: FarEnd
    near: int
    """One of the addresses that took part."""

    tally: Tally = field(default_factory=Tally)
    doubt: Doubt | None = None


class AddressBook:
    """Who has an address, by the network interfaces of definitions."""

    def __init__(self, interfaces: Iterable[NetworkInterface]) -> None:
        """Take the interfaces; an address that several have is nobody's."""
        self._owners: dict[tuple[Family, int, int], set[str]] = defaultdict(set)
        for interface in interfaces:
            for block in interface.addresses:
                key = block.family, block.prefix_length, block.first
                self._owners[key].add(interface.network_interface_id)
        self._lengths = {
            family: sorted({length for one, length, _ in self._owners if one is family}, reverse=True)
            for family in Family
        }

    def owner(self, family: Family, address: int) -> str | None:
        """Return the id of the interface that has an address."""
        for length in self._lengths[family]:
            shift = family.bits - length
            owners = self._owners.get((family, length, address >> shift << shift))
            if owners:
                return next(iter(owners)) if len(owners) == 1 else None
        return None


def observe(
    conversations: Mapping[Conversation, Tally], snapshot: Snapshot
) -> tuple[list[Observation], Snapshot]:
    """Return the observations by network interface, and the definitions with interfaces that they lack.

    A near end that is nobody's by its address, as a group address of multicast, belongs to the interface that
    has most of what was recorded at the same place.
    """
    book = AddressBook(snapshot.network_interfaces)
    known = snapshot.interface_by_id
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    nears: dict[str, set[FarEnd]] = defaultdict(set)
    for one in conversations:
        owner = one.site if one.site in known else book.owner(one.family, one.near)
        if owner is not None:
            seen[one.site][owner] += 1
        elif _may_be_own(one.family, one.near):
            nears[one.site].add((one.family, one.near))
    main = {site: counts.most_common(1)[0][0] for site, counts in seen.items()}
    places = _places({one.site for one in conversations} - main.keys(), nears)
    made = _made(places, known)
    main |= {site: made[place].network_interface_id for place, (sites, _) in places.items() for site in sites}
    found: dict[tuple[str, Service, FarEnd], Observation] = {}
    for one, tally in conversations.items():
        owner = one.site if one.site in known else book.owner(one.family, one.near) or main[one.site]
        key = owner, Service(one.direction, one.protocol, one.port), (one.family, one.far)
        if key not in found:
            found[key] = Observation(interface=owner, service=key[1], far=key[2], near=one.near)
        found[key].tally.add(tally)
    interfaces = sorted(
        (*snapshot.network_interfaces, *made.values()), key=lambda one: one.network_interface_id
    )
    return list(found.values()), replace(snapshot, network_interfaces=tuple(interfaces))


def _may_be_own(family: Family, address: int) -> bool:
    """Return whether an address can be a host's own: not of a group, of a link, or for everybody."""
    if family is Family.IPV6:
        return address > 1 and address >> 120 != 0xFF and address >> 118 != 0xFE80 >> 6
    return 0 < address >> 24 < 224 and address & 0xFF != 0xFF and address >> 16 != 0xA9FE


_Places = Mapping[str, tuple[Sequence[str], Sequence[FarEnd]]]
"""By the first of the sites that share addresses: all of them, and the addresses."""


def _places(sites: Iterable[str], nears: Mapping[str, set[FarEnd]]) -> _Places:
    """Return the sites by address, which one network interface has, however a cloud or a host names it.

    Those with an id come before those with a host and a link.
    """
    places: dict[str, tuple[list[str], list[FarEnd]]] = {}
    owners: dict[FarEnd, str] = {}
    for site in sorted(sites, key=lambda one: ("/" in one, one)):
        ends = sorted(nears.get(site, ()), key=lambda one: (one[0].bits, one[1]))
        first = next((owners[end] for end in ends if end in owners), site)
        among, addresses = places.setdefault(first, ([], []))
        among.append(site)
        addresses += [end for end in ends if end not in owners]
        owners |= {end: first for end in ends if end not in owners}
    return places


def _made(places: _Places, known: Mapping[str, NetworkInterface]) -> dict[str, NetworkInterface]:
    """Return an interface for each place whose interface the definitions lack."""
    made: dict[str, NetworkInterface] = {}
    taken = set(known)
    for place, (_, addresses) in places.items():
        plain = re.sub(r"[^A-Za-z0-9]+", "-", place).strip("-")[-60:].strip("-") or "host"
        name = plain if plain.startswith("eni-") else f"eni-{plain}"
        name = free_id(name, taken)
        taken.add(name)
        blocks = tuple(
            CidrBlock.around(family, address, family.bits)
            for family, address in sorted(addresses, key=lambda one: (one[0].bits, one[1]))
        )
        made[place] = NetworkInterface(network_interface_id=name, addresses=blocks)
    return made


SCANNED_PORTS = 10
"""Ports of one host that one far end asks for, from which on it may be a scan."""

SCANNED_HOSTS = 10
"""Hosts at which a nameless far end asks for the same port, likewise."""

SCAN_SESSIONS = 5
"""Of each port or host, at most; more is use."""


class Circle(NamedTuple):
    """Something that definitions know a far end by: a group, a list, an announced network."""

    name: str
    member: str
    """Which of its members the far end is."""

    enough: int
    """So many members that ask for the same are no chance, however seldom each does."""


def screen(
    observations: Iterable[Observation],
    least_sessions: int,
    circles: Callable[[FarEnd], Iterable[Circle]],
) -> None:
    """Say of each observation whether it is doubtful.

    Args:
        observations: all that were seen.
        least_sessions: fewer are not enough, unless one stood when the host was looked at.
        circles: what definitions know a far end by.
    """
    observations = list(observations)
    ports: dict[tuple[str, Direction, FarEnd], list[int]] = defaultdict(list)
    hosts: Counter[tuple[Service, FarEnd]] = Counter()
    for one in observations:
        if one.service.port is not None:
            ports[one.interface, one.service.direction, one.far].append(one.tally.sessions)
            if one.tally.sessions <= SCAN_SESSIONS and one.service.direction is Direction.INGRESS:
                hosts[one.service, one.far] += 1
    scanning = {
        key for key, found in ports.items() if len(found) >= SCANNED_PORTS and median(found) <= SCAN_SESSIONS
    }
    often = (key for key, count in hosts.items() if count >= SCANNED_HOSTS)
    sweeping = {key for key in often if not any(circles(key[1]))}
    for one in observations:
        is_scan = (one.interface, one.service.direction, one.far) in scanning
        one.doubt = _doubt(one, least_sessions, is_scan=is_scan or (one.service, one.far) in sweeping)
    _vouch(observations, circles)


def _vouch(observations: Iterable[Observation], circles: Callable[[FarEnd], Iterable[Circle]]) -> None:
    """Clear rare observations, where enough members of one circle asked for the same."""
    found = [
        (one, [(one.interface, one.service, circle.name, circle) for circle in circles(one.far)])
        for one in observations
        if one.doubt is not Doubt.SCAN
    ]
    members: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for _, keys in found:
        for *key, circle in keys:
            members[tuple(key)].add(circle.member)
    for one, keys in found:
        if any(len(members[tuple(key)]) >= circle.enough for *key, circle in keys):
            one.doubt = None


def _doubt(one: Observation, least_sessions: int, *, is_scan: bool) -> Doubt | None:
    sessions = one.tally.sessions
    if is_scan and sessions <= SCAN_SESSIONS and one.service.port is not None:
        return Doubt.SCAN
    if one.tally.is_standing or sessions >= least_sessions:
        return None
    return Doubt.ONCE if sessions < 2 else Doubt.FEW
