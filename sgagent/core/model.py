"""The model of security groups in the cloud's own words (semantics §1).

All values are frozen. The parsers create them and check them; no dictionary passes beyond the parsers. The
constructors here check only what would make no sense at all.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from sgagent.core.conditions import NO_CONDITIONS, Conditions
from sgagent.core.errors import NOWHERE, Origin


class Family(enum.Enum):
    """An address family; a rule speaks of one only, through its object (§2.4)."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def bits(self) -> int:
        """Return the length of an address in bits: 32 or 128."""
        return 32 if self is Family.IPV4 else 128

    @property
    def last_address(self) -> int:
        """Return the greatest address of the family as a number."""
        return (1 << self.bits) - 1


class Direction(enum.Enum):
    """Which way a session is opened, as seen from the interface (§2.2)."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Policy(enum.Enum):
    """The verdict on traffic that a rule matches."""

    ACCEPT = "accept"
    DROP = "drop"


class GroupType(enum.Enum):
    """The two kinds of security group; they differ in their defaults (§3.4, §3.6)."""

    BASIC = "basic"
    ADVANCED = "advanced"

    def default(self, direction: Direction) -> Policy:
        """Return the verdict on packets that nothing before the defaults decides about (§3.6)."""
        is_open = self is GroupType.BASIC and direction is Direction.EGRESS
        return Policy.ACCEPT if is_open else Policy.DROP


DEFAULT_INNER_ACCESS = Policy.ACCEPT
"""What a document without an inner access policy means."""


class Mode(enum.Enum):
    """Whether verdicts are carried out or only counted (§9.1)."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class SourceCheck(enum.Enum):
    """Whether the source of an interface's packets has to be on its side of it (§12.6)."""

    OFF = "off"
    ON = "on"


@dataclass(frozen=True, slots=True, order=True)
class Protocol:
    """An IP protocol by its IANA number, or every protocol of a family (§4.1)."""

    number: int | None
    """0 to 255; None is ``all``."""

    @property
    def wire_number(self) -> int:
        """Return the number that packets carry.

        Raises:
            ValueError: it is ``all``.
        """
        if self.number is None:
            raise ValueError("no packet is of every protocol")
        return self.number

    @property
    def has_ports(self) -> bool:
        """Return whether rules of this protocol may name ports (§4.2)."""
        return self in PORTED

    @property
    def only_family(self) -> Family | None:
        """Return the family that the protocol is confined to, if it is: ICMP's and ICMPv6's (§4.1)."""
        row = _ROWS.get(self)
        return row.only_family if row else None

    @property
    def has_types(self) -> bool:
        """Return whether the protocol's messages have a type: ICMP's and ICMPv6's."""
        return self.only_family is not None

    def __str__(self) -> str:
        """Return the name that documents use, or the number."""
        return PROTOCOL_NAMES.get(self, str(self.number))


Protocols = tuple[Protocol, ...]
"""The protocols of a rule, sorted, each once: at least one, and alone where it is ``all`` (§12.2)."""


class PortUse(enum.Enum):
    """Whether a protocol has ports."""

    NONE = "none"
    HEADER = "header"
    """The header begins with two ports. Rules name neither them nor the protocol, but by its number."""

    RULES = "rules"
    """The header begins with two ports, and rules name them."""


@dataclass(frozen=True, slots=True)
class ProtocolRow:
    """A protocol in the table of those that are known by more than their number."""

    protocol: Protocol
    name: str
    """As nftables writes it."""

    ports: PortUse = PortUse.NONE
    only_family: Family | None = None
    """The family of a protocol whose messages have types; None for all others."""


TCP = Protocol(6)
UDP = Protocol(17)
ICMP = Protocol(1)
ICMPV6 = Protocol(58)
GRE = Protocol(47)
ALL_PROTOCOLS = Protocol(None)
DCCP = Protocol(33)
SCTP = Protocol(132)
UDP_LITE = Protocol(136)

PROTOCOL_TABLE = (
    ProtocolRow(TCP, "tcp", PortUse.RULES),
    ProtocolRow(UDP, "udp", PortUse.RULES),
    ProtocolRow(ICMP, "icmp", only_family=Family.IPV4),
    ProtocolRow(ICMPV6, "icmpv6", only_family=Family.IPV6),
    ProtocolRow(GRE, "gre"),
    ProtocolRow(ALL_PROTOCOLS, "all"),
    ProtocolRow(DCCP, "dccp", PortUse.HEADER),
    ProtocolRow(SCTP, "sctp", PortUse.HEADER),
    ProtocolRow(UDP_LITE, "udplite", PortUse.HEADER),
)
"""All that the package knows of protocols: parsers, schema, compiler, analysis and packets derive from it."""

_ROWS = {row.protocol: row for row in PROTOCOL_TABLE}

PROTOCOL_NAMES: Mapping[Protocol, str] = {
    row.protocol: row.name for row in PROTOCOL_TABLE if row.ports is not PortUse.HEADER
}
"""The names that documents and commands take."""

PORTED = tuple(row.protocol for row in PROTOCOL_TABLE if row.ports is PortUse.RULES)
"""The protocols whose ports rules may name."""

PORTED_NUMBERS = tuple(protocol.wire_number for protocol in PORTED)


LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class PortSet:
    """Ports that a rule matches: all, or those in ranges. A set without ranges matches nothing."""

    ranges: tuple[tuple[int, int], ...] = ()
    """First and last port of each, sorted. As written they may overlap; resolved, a gap is before each."""

    is_all: bool = False
    """Whether packets of every port match, and those that have none."""

    @classmethod
    def of(cls, *ranges: tuple[int, int]) -> PortSet:
        """Return the ports of ranges, in any order; 0 occurs only in ranges that the agent computes.

        Raises:
            ValueError: a range holds no port.
        """
        for first, last in ranges:
            if not 0 <= first <= last <= LAST_PORT:
                raise ValueError(f"not a port range: {first}/{last}")
        return cls(tuple(sorted(set(ranges))))

    @classmethod
    def union(cls, sets: Iterable[PortSet]) -> PortSet:
        """Return the ports that are in any of the sets."""
        some = tuple(sets)
        ranges = tuple(sorted({ends for one in some for ends in one.ranges}))
        return ALL_PORTS if any(one.is_all for one in some) else cls(ranges)

    def matches(self, port: int | None) -> bool:
        """Return whether a packet with this port matches; None is a packet without ports."""
        return self.is_all or (port is not None and any(first <= port <= last for first, last in self.ranges))

    def __bool__(self) -> bool:
        """Return whether any packet can match."""
        return bool(self.ranges)

    def __str__(self) -> str:
        """Return the ports in the cloud's notation: ``80/80,443/443``, or ``-1/-1`` for all."""
        return "-1/-1" if self.is_all else ",".join(self.texts) or "none"

    @property
    def texts(self) -> tuple[str, ...]:
        """Return each range in the cloud's notation."""
        return tuple(f"{first}/{last}" for first, last in self.ranges)


NO_PORTS = PortSet()
ALL_PORTS = PortSet(((0, LAST_PORT),), is_all=True)
"""What ``-1/-1`` stands for: every port, and packets of protocols without ports (§4.2)."""


@dataclass(frozen=True, slots=True, order=True)
class CidrBlock:
    """A network, or a single address as its longest prefix (§5.1); its ends are compared very often."""

    family: Family = field(compare=False)
    """Not compared: two blocks with equal ends in different families differ in the prefix length."""

    first: int
    """The lowest address as a number."""

    last: int
    """The greatest."""

    prefix_length: int

    @classmethod
    def parse(cls, text: str) -> CidrBlock:
        """Return the block that an address or CIDR without host bits names.

        Raises:
            ValueError: the text is neither, or has host bits set.
        """
        return cls.of(ipaddress.ip_network(text))

    @classmethod
    def of(cls, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> CidrBlock:
        """Return a network of the standard library as a block."""
        family = Family.IPV4 if network.version == 4 else Family.IPV6
        return cls.around(family, int(network.network_address), network.prefixlen)

    @classmethod
    def around(cls, family: Family, address: int, prefix_length: int) -> CidrBlock:
        """Return the block of a prefix that an address is in."""
        behind = (1 << family.bits - prefix_length) - 1
        if not behind:
            return cls(family, address, address, prefix_length)
        return cls(family, address & ~behind, address | behind, prefix_length)

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """Return the block as a network of the standard library."""
        if self.family is Family.IPV4:
            return ipaddress.IPv4Network((self.first, self.prefix_length))
        return ipaddress.IPv6Network((self.first, self.prefix_length))

    @property
    def is_everything(self) -> bool:
        """Return whether the block is the whole family, ``0.0.0.0/0`` or ``::/0``."""
        return self.prefix_length == 0

    def __str__(self) -> str:
        """Return the address alone for a single address, else the CIDR."""
        address = address_text(self.family, self.first)
        return address if self.first == self.last else f"{address}/{self.prefix_length}"


def address_text(family: Family, number: int) -> str:
    """Return an address as people write it."""
    if family is Family.IPV4:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return str(ipaddress.IPv6Address(number))


@dataclass(frozen=True, slots=True, order=True)
class GroupReference:
    """The members of a security group (§5.2)."""

    security_group_id: str
    account_id: str | None = None
    """The owner's account where the reference names it; None means the rule's own account."""

    def __str__(self) -> str:
        """Return ``sg-…`` or ``account/sg-…``."""
        return f"{self.account_id}/{self.security_group_id}" if self.account_id else self.security_group_id


@dataclass(frozen=True, slots=True, order=True)
class PrefixListReference:
    """The entries of a prefix list (§5.1)."""

    prefix_list_id: str

    def __str__(self) -> str:
        """Return ``pl-…``."""
        return self.prefix_list_id


@dataclass(frozen=True, slots=True, order=True)
class NameReference:
    """The addresses that a name has in the DNS (§12.3); in lower case, without the final dot."""

    name: str

    def __str__(self) -> str:
        """Return ``dns:…``."""
        return f"dns:{self.name}"


AuthorizationObject = CidrBlock | GroupReference | PrefixListReference | NameReference
"""The other end of a rule: the source for ingress, the destination for egress."""

AuthorizationObjects = tuple[AuthorizationObject, ...]
"""The objects of a rule, in canonical order: at least one; the rule matches if any of them does (§12.1)."""


@dataclass(frozen=True, slots=True, order=True)
class PortListReference:
    """The entries of a port list, in place of a port range (§4.3)."""

    port_list_id: str

    def __str__(self) -> str:
        """Return ``prl-…``."""
        return self.port_list_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityGroupRule:
    """One line of a security group (§1.2)."""

    rule_id: str
    """Unique in the snapshot; derived from the content where the document gives none (§4.7)."""

    direction: Direction
    policy: Policy
    priority: int
    """From 1, the most urgent. Among equals, drop wins (§3.5)."""

    protocols: Protocols
    ports: PortSet | PortListReference
    """Destination ports in both directions."""

    authorization_objects: AuthorizationObjects
    source_ports: PortSet = ALL_PORTS
    local_address: CidrBlock | None = None
    """What the near end must lie in (§4.5); None is anywhere."""

    expires: datetime | None = None
    """From when on the rule does not exist (§12.4), in UTC; None is never."""

    conditions: Conditions = NO_CONDITIONS
    description: str = field(default="", compare=False)
    origin: Origin = field(default=NOWHERE, compare=False)


class Cloud(enum.Enum):
    """The cloud in whose terms a group is defined: its possible content, and that cloud's refusals (§8.2)."""

    ALIBABA = "alibaba"
    """Groups may drop: without one, more may be allowed."""

    AWS = "aws"
    """Groups only allow: without one, less is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityGroup:
    """A named set of rules, and at the same time a set of members (§1.1)."""

    security_group_id: str
    group_type: GroupType
    inner_access_policy: Policy = DEFAULT_INNER_ACCESS
    """As documents say; see :attr:`inner_access`."""

    account_id: str | None = None
    vpc_id: str | None = None
    name: str = field(default="", compare=False)
    tags: tuple[tuple[str, str], ...] = ()
    """Sorted by key."""

    member_addresses: tuple[CidrBlock, ...] = ()
    """Members that are on no interface of the snapshot."""

    rules: tuple[SecurityGroupRule, ...] = ()
    cloud: Cloud = field(default=Cloud.ALIBABA, compare=False)
    """Decides warnings only, never a verdict."""

    origin: Origin = field(default=NOWHERE, compare=False)

    @property
    def inner_access(self) -> Policy | None:
        """Return whether members reach each other whatever the rules say; None in advanced groups (§3.4)."""
        return self.inner_access_policy if self.group_type is GroupType.BASIC else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixList:
    """A named list of networks of one family (§1.4)."""

    prefix_list_id: str
    family: Family
    entries: tuple[CidrBlock, ...] = ()
    max_entries: int = field(default=0, compare=False)
    """So many the cloud counts for each rule that names it; 0 where that is not known. No verdict."""

    origin: Origin = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortList:
    """A named list of port ranges (§1.4)."""

    port_list_id: str
    entries: PortSet = NO_PORTS
    origin: Origin = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInterface:
    """An elastic network interface, the thing that groups take effect on (§1.3)."""

    network_interface_id: str
    mac_address: str | None = None
    """Six pairs of lower-case hexadecimal digits with colons."""

    addresses: tuple[CidrBlock, ...] = ()
    """Private addresses, primary first, and delegated prefixes."""

    security_group_ids: tuple[str, ...] = ()
    account_id: str | None = None
    vpc_id: str | None = None
    instance_id: str | None = None
    origin: Origin = field(default=NOWHERE, compare=False)
    attachment_origin: Origin = field(default=NOWHERE, compare=False)
    """Of the list of its groups."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One complete set of definitions, as a source delivered it (§1.5).

    Objects are sorted by their ids, and ids are unique, so that equal content makes equal snapshots.
    """

    version: str
    """Names this content: what the source calls it, or a digest of what it delivered."""

    security_groups: tuple[SecurityGroup, ...] = ()
    prefix_lists: tuple[PrefixList, ...] = ()
    port_lists: tuple[PortList, ...] = ()
    network_interfaces: tuple[NetworkInterface, ...] = ()

    @cached_property
    def group_by_id(self) -> Mapping[str, SecurityGroup]:
        """Return the security groups by their ids."""
        return {group.security_group_id: group for group in self.security_groups}

    @cached_property
    def prefix_list_by_id(self) -> Mapping[str, PrefixList]:
        """Return the prefix lists by their ids."""
        return {entry.prefix_list_id: entry for entry in self.prefix_lists}

    @cached_property
    def port_list_by_id(self) -> Mapping[str, PortList]:
        """Return the port lists by their ids."""
        return {entry.port_list_id: entry for entry in self.port_lists}

    @cached_property
    def interface_by_id(self) -> Mapping[str, NetworkInterface]:
        """Return the network interfaces by their ids."""
        return {entry.network_interface_id: entry for entry in self.network_interfaces}
