"""Describe a host's policies before and after a change in a few words, and the packets on which both agree.

A rule is written once and stands for four: both directions, both families. So is a packet. The words for
addresses have a meaning in each family, which :data:`NETWORKS` lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from itertools import product

from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    CidrBlock,
    Direction,
    Family,
    Mode,
    Policy,
    PortSet,
    Protocol,
)
from sgagent.core.policy import Exemption, ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from tests.generators import NOW

NETWORKS: Mapping[str, tuple[str, str]] = {
    "any": ("0.0.0.0/0", "::/0"),
    "bad1": ("198.51.100.0/26", "2001:db8:a1::/48"),
    "bad1-half": ("198.51.100.0/27", "2001:db8:a1::/49"),
    "bad2": ("198.51.100.128/26", "2001:db8:a3::/48"),
    "bad3": ("203.0.113.0/26", "2001:db8:a5::/48"),
    "bad4": ("203.0.113.192/27", "2001:db8:a7::/48"),
    "good": ("203.0.113.128/26", "2001:db8:b1::/48"),
    "near": ("10.0.0.0/24", "2001:db8:d::/64"),
}
"""Words for networks: over IPv4 and over IPv6. Beside them ``h7`` is a single far address, ``far-7`` a far
network, and ``near-7`` one of sixteen near networks; the host's addresses are in ``near-1``."""

HOST = {Family.IPV4: "10.0.0.17", Family.IPV6: "2001:db8:d::11"}
"""The host's own addresses."""

GUEST = {Family.IPV4: "10.0.0.18", Family.IPV6: "2001:db8:d::12"}
"""Whose packets the host forwards."""

_FAR_IN_A_NETWORK = 7
_PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17}
_PING = {Family.IPV4: ("icmp", 1, 8), Family.IPV6: ("icmpv6", 58, 128)}
_DIRECTIONS = {"in": Direction.INGRESS, "out": Direction.EGRESS}
_BESIDE_LINK, _BESIDE_GROUP = "eth4", "sg-beside"


def network(word: str, family: Family) -> str:
    """Return the address or network of a word in a family."""
    place = 0 if family is Family.IPV4 else 1
    if word in NETWORKS:
        return NETWORKS[word][place]
    kind, _, number = word.partition("-")
    if kind == "near":
        return (f"10.0.0.{16 * int(number)}/28", f"2001:db8:d::{int(number):x}0/124")[place]
    if kind == "far":
        return (f"172.20.{number}.0/28", f"2001:db8:e:{int(number):x}::/64")[place]
    return (f"192.0.2.{word[1:]}/32", f"2001:db8:c::{int(word[1:]):x}/128")[place]


def far_address(word: str, family: Family) -> str:
    """Return an address that a word stands for."""
    parsed = ip_network(network(word, family))
    return str(parsed[0] if parsed.num_addresses == 1 else parsed[_FAR_IN_A_NETWORK])


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The policy of a host on one side of a change."""

    rules: tuple[str, ...] = ()
    """Of the group ``sg-1``: ``drop 1 tcp 82 bad1``, and behind it perhaps ``sport 1024/65535`` and ``local
    near``. Objects joined by ``+`` stand for a rule each. ``in`` or ``out`` at the beginning restricts the
    direction."""

    ids: str = ""
    """With what the ids of rules begin."""

    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rules of further groups."""

    kind: str = "advanced"
    """Advanced groups drop by default in both directions."""

    is_inner: bool = False
    """Whether members of ``sg-1`` may talk."""

    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Members of groups, by words."""

    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Prefix lists: words for networks."""

    bound: Mapping[str, str] = field(default_factory=lambda: {"eth0": "sg-1"})
    """For each link its groups, separated by blanks."""

    observed: frozenset[str] = frozenset()
    """Links that are only observed."""

    failsafe: tuple[str, ...] = ()
    """Each like ``in tcp 22 bad1``."""

    platform: tuple[str, ...] = ()
    """Likewise."""

    is_closed: bool = False
    """Whether links that are not bound are closed."""

    beside: int | None = None
    """How many rules another link has; None leaves that link alone."""

    def document(self) -> str:
        """Return the definitions as a native document."""
        groups = [self._group("sg-1", self.rules)]
        groups += [self._group(name, rules) for name, rules in self.others.items()]
        known = {"sg-1", *self.others}
        groups += [self._group(name, ()) for name in self.members if name not in known]
        if self.beside is not None:
            groups.append(_beside(self.beside))
        lists = [
            {
                "prefix_list_id": _list_id(name, family),
                "address_family": family.value,
                "entries": [network(word, family) for word in words],
            }
            for name, words in self.lists.items()
            for family in Family
        ]
        return json.dumps({"version": 1, "security_groups": groups, "prefix_lists": lists})

    def configuration(self) -> str:
        """Return the links in the daemon's configuration; exemptions are left out."""
        lines = ["[enforcement]", 'unbound_interfaces = "closed"'] if self.is_closed else []
        for name, groups in self._bindings().items():
            ids = ", ".join(f'"{group}"' for group in groups.split())
            lines += ["[[interface]]", f'name = "{name}"', f"security_group_ids = [{ids}]"]
            lines += ['mode = "observe"'] * (name in self.observed)
        return "\n".join(lines) + "\n"

    def policy(self) -> ResolvedPolicy:
        """Return the policy to enforce."""
        document = DocumentFile("policy.json", self.document().encode())
        snapshot, _ = parse_documents([document], Limits())
        bindings = [
            HandBinding(
                interface=name,
                security_group_ids=tuple(sorted(groups.split())),
                mode=Mode.OBSERVE if name in self.observed else Mode.ENFORCE,
            )
            for name, groups in self._bindings().items()
        ]
        exemptions = Exemptions(
            platform=tuple(_exemptions(self.platform)), failsafe=tuple(_exemptions(self.failsafe))
        )
        bound = bind(snapshot, bindings, HostFacts(), automatically=False)
        resolution = resolve(snapshot, bound, exemptions, unbound_closed=self.is_closed, at=NOW)
        if resolution.errors:
            raise AssertionError(f"a side of a pair has errors: {resolution.errors}")
        return resolution.policy

    def _bindings(self) -> Mapping[str, str]:
        if self.beside is None:
            return self.bound
        return {**self.bound, _BESIDE_LINK: _BESIDE_GROUP}

    def _group(self, name: str, rules: Sequence[str]) -> Mapping[str, object]:
        group: dict[str, object] = {
            "security_group_id": name,
            "type": self.kind,
            "inner_access_policy": "accept" if self.is_inner and name == "sg-1" else "drop",
            "rules": [
                rule
                for number, text in enumerate(rules)
                for rule in _rules(f"{self.ids}{name}-{number}", text)
            ],
        }
        if name in self.members:
            words = self.members[name]
            members = [network(word, family) for word in words for family in Family]
            group["member_addresses"] = members
        return group


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two sides that agree about some packets."""

    name: str
    about: str
    """What changes, in one line."""

    before: Side
    after: Side
    forbidden: tuple[str, ...] = ()
    """Packets that neither side lets pass: ``udp bad1 82``, and behind it perhaps ``from 5000`` (the source
    port) and ``via eth1``. ``in`` or ``out`` at the beginning restricts the direction."""

    allowed: tuple[str, ...] = ()
    """Packets that both sides let pass."""

    differing: tuple[str, ...] = ()
    """Packets that one side lets pass: sessions that end with a change."""

    is_logged: bool = False
    """Whether the kernel reports drops."""

    def beside(self, number: int, *, standing: bool = False) -> Pair:
        """Return the pair with so many rules on another link, which makes the kernel's commit take longer.

        Args:
            number: of rules.
            standing: whether they are there on both sides; else they come and go with each change.
        """
        kept = number if standing else 1
        way = "stand" if standing else "come and go"
        return replace(
            self,
            name=f"{self.name}_beside_{number}{'_standing' if standing else ''}",
            about=f"{self.about}; beside it {number:,} rules of another link {way}",
            before=replace(self.before, beside=kept),
            after=replace(self.after, beside=number),
        )


@dataclass(frozen=True, slots=True)
class Shot:
    """Packets that differ in nothing but their source port."""

    name: str
    packet: Packet
    is_forwarded: bool
    """Whether the host forwards the packet; else it is the end that sends or receives it."""

    may_vary: bool
    """Whether the source port is free."""


def shots(texts: Sequence[str]) -> Iterator[Shot]:
    """Yield the packets that texts stand for: both directions and families; outwards sent and forwarded."""
    for text in texts:
        words = text.split()
        directions = [_DIRECTIONS[words.pop(0)]] if words[0] in _DIRECTIONS else list(Direction)
        for direction in directions:
            for family in Family:
                yield from _shots(text, words, direction, family)


def passes(policy: ResolvedPolicy, packet: Packet) -> bool:
    """Return whether a packet gets past the edge, as the specification says."""
    judge = policy.judge(packet.interface)
    if judge is None or judge.mode is Mode.OBSERVE:
        return True
    return evaluate(policy, packet).verdict is Policy.ACCEPT


def _shots(text: str, words: list[str], direction: Direction, family: Family) -> Iterator[Shot]:
    protocol, far, *rest = words
    port = rest.pop(0) if protocol in _PROTOCOL_NUMBERS else None
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    link = options.get("via", "eth0")
    number = _PING[family][1] if protocol == "ping" else _PROTOCOL_NUMBERS.get(protocol) or int(protocol)
    nearby = {False: options.get("near", HOST[family])}
    if direction is Direction.EGRESS and link == "eth0" and "near" not in options:
        nearby[True] = GUEST[family]
    for is_forwarded, near in nearby.items():
        ends = [int(ip_address(far_address(far, family))), int(ip_address(near))]
        source, destination = ends if direction is Direction.INGRESS else reversed(ends)
        packet = Packet(
            interface=link,
            direction=direction,
            family=family,
            source=source,
            destination=destination,
            protocol=number,
            source_port=int(options.get("from", _SOURCE_PORT)) if port else None,
            destination_port=int(port) if port else None,
            icmp_type=_PING[family][2] if protocol == "ping" else None,
            hop_limit=64,
        )
        way = " forwarded" if is_forwarded else ""
        name = f"{text} ({direction.value} {family.value}{way})"
        yield Shot(name, packet, is_forwarded, may_vary=port is not None and "from" not in options)


_SOURCE_PORT = 20_000


def _rules(name: str, text: str) -> Iterator[Mapping[str, object]]:
    """Yield the rules that a text stands for."""
    words = text.split()
    directions = [_DIRECTIONS[words.pop(0)]] if words[0] in _DIRECTIONS else list(Direction)
    policy, priority, protocol, *rest = words
    ports = rest.pop(0) if protocol in _PROTOCOL_NUMBERS else "-1/-1"
    objects, *rest = rest
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    for direction, family, word in product(directions, Family, objects.split("+")):
        rule: dict[str, object] = {
            "rule_id": f"{name}-{direction.value}-{family.value}-{word}",
            "direction": direction.value,
            "policy": policy,
            "priority": int(priority),
            "protocol": _PING[family][0] if protocol == "ping" else protocol,
            "port_range": [part if "/" in part else int(part) for part in ports.split(",")],
            "authorization_object": _object(word, family),
        }
        if "sport" in options:
            rule["source_port_range"] = options["sport"]
        if "local" in options:
            rule["local_address"] = network(options["local"], family)
        if protocol not in _PROTOCOL_NUMBERS:
            del rule["port_range"]
        yield rule


def _object(word: str, family: Family) -> str:
    if word.startswith("pl-"):
        return _list_id(word, family)
    return word if word.startswith("sg-") else network(word, family)


def _list_id(word: str, family: Family) -> str:
    return f"{word}-{family.value}"


def _exemptions(texts: Sequence[str]) -> Iterator[Exemption]:
    for text in texts:
        direction, protocol, port, word = text.split()
        for family in Family:
            yield Exemption(
                direction=_DIRECTIONS[direction],
                peer=CidrBlock.parse(network(word, family)),
                protocol=ALL_PROTOCOLS if protocol == "all" else Protocol(_PROTOCOL_NUMBERS[protocol]),
                ports=ALL_PORTS if port == "any" else PortSet.of((int(port), int(port))),
            )


def _beside(number: int) -> Mapping[str, object]:
    """Return a group with so many rules that differ in far end and port."""
    return {
        "security_group_id": _BESIDE_GROUP,
        "type": "advanced",
        "rules": [
            {
                "rule_id": f"beside-{place}",
                "direction": "ingress",
                "policy": "accept",
                "priority": 1 + place % 100,
                "protocol": "tcp",
                "port_range": 1000 + place % 977,
                "authorization_object": f"172.{16 + (place >> 12)}.{place >> 4 & 255}.{16 * (place & 15)}/28",
            }
            for place in range(number)
        ],
    }
