"""The links of this host, and which of them documents and configuration mean (§2.3, §9.3, §9.4)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sgagent.core.addresses import AddressSet
from sgagent.core.conditions import NO_HOST, LocalFinder
from sgagent.core.errors import NOWHERE, Origin, Problem
from sgagent.core.link_patterns import LinkPattern, is_pattern
from sgagent.core.model import (
    CidrBlock,
    Family,
    Mode,
    NetworkInterface,
    Snapshot,
    SourceCheck,
)
from sgagent.core.policy import LOOPBACK, InvalidPackets


class IpvlanMode(enum.Enum):
    """How an ipvlan passes packets on; the values are the words of ``ip link``."""

    L2 = "l2"
    L3 = "l3"
    L3S = "l3s"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Link:
    """A network link of this host."""

    name: str
    """As :func:`link_name` returns it."""

    index: int
    other_names: tuple[str, ...] = ()
    """Its alternative names (``altname``), sorted: the hooks never see one."""

    mac_address: str | None = None
    """Lower case with colons; None for links without one."""

    addresses: tuple[CidrBlock, ...] = ()
    """The addresses that it carries, as single addresses, sorted."""

    is_loopback: bool = False
    has_hardware: bool = False
    """Whether a device stands under it: no bridge, tunnel, veth, dummy or other software link (§9.2)."""

    master: str | None = None
    """The bridge, bond or VRF that it is a port of."""

    master_kind: str | None = None
    """``bridge``, ``bond``, ``team``, ``vrf`` …; None without a master."""

    kind: str | None = None
    """``bridge``, ``vlan``, ``veth`` …; None for hardware and loopback."""

    lower: str | None = None
    """The link that it stands on, as a VLAN or macvlan does; None where that is in another namespace."""

    ipvlan_mode: IpvlanMode | None = None
    """None unless it is an ipvlan."""

    is_vlan_aware: bool = False
    """Whether it is a bridge that filters VLANs."""

    calls_ip_hooks: bool = False
    """Whether it is a bridge for which br_netfilter is on by a setting of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeHooks:
    """The settings of br_netfilter, for all bridges: whether frames on bridges pass the hooks of IP."""

    families: tuple[Family, ...] = ()
    tagged: bool = False
    """Whether frames with a VLAN tag do, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostListener:
    """A port of this host at which a program waits."""

    family: Family
    address: int
    """0 is every address of the family."""

    protocol: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The links of this host at one moment, sorted by name."""

    links: tuple[Link, ...] = ()
    bridge_hooks: BridgeHooks = BridgeHooks()
    find_local: LocalFinder = field(default=NO_HOST, compare=False, repr=False)
    """Looks up the host's users and units."""


NO_FACTS = HostFacts()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBinding:
    """A binding by the configuration or the command line: it precedes those of the documents."""

    interface: str
    """The name of a link, or a pattern of names (§12.5)."""

    exclude: tuple[str, ...] = ()
    """Sorted names and patterns of links that the pattern does not mean."""

    network_interface_id: str | None = None
    security_group_ids: tuple[str, ...] = ()
    """Sorted; ignored where an interface id is given."""

    mode: Mode | None = None
    """None is the default of the configuration."""

    source_check: SourceCheck | None = None
    """Likewise."""

    invalid: InvalidPackets = InvalidPackets.DROP

    origin: Origin = NOWHERE
    """Where it was written, for messages; on the command line ``--interface eth0=sg-web``."""

    @property
    def pattern(self) -> LinkPattern | None:
        """Return which links it means, if it does not name one."""
        return LinkPattern(text=self.interface, exclude=self.exclude) if is_pattern(self.interface) else None


def binding_by_hand(link: Link, by_hand: Iterable[HandBinding]) -> HandBinding | None:
    """Return the binding of a link by its name, or by a pattern that means it."""
    found = {hand.interface: hand for hand in by_hand}
    if link.name in found or link.is_loopback:
        return found.get(link.name)
    meant = (hand for hand in found.values() if hand.pattern and hand.pattern.matches(link.name))
    return next(meant, None)


def link_name(octets: bytes) -> str:
    r"""Return the name of a link as printable text; two links never get the same text.

    Linux takes any bytes for a name, except NUL, white space, ``/`` and ``:``. Bytes that are not UTF-8,
    characters that are not printable, and the backslash become ``\xNN``, one for each byte.
    """
    text = octets.decode("utf-8", "surrogateescape")
    return "".join(sign if sign.isprintable() and sign != "\\" else _escaped(sign) for sign in text)


def _escaped(character: str) -> str:
    return "".join(f"\\x{octet:02x}" for octet in character.encode("utf-8", "surrogateescape"))


def check_interface_name(word: str) -> None:
    """Refuse a name that nft would read as something else: a pattern, a set, or a text with an end in it.

    Raises:
        ValueError: the name is one of those.
    """
    if not word or word[0] == "@" or word[-1] == "*" or any(sign in word for sign in '"\\\n\0'):
        raise ValueError(f"not an interface name that nftables can match: {word!r}")


MASTERS_OF_OWN_PORTS = frozenset({"vrf"})
"""Kinds of master whose ports are links of their own: what comes in by one shows as the port (§9.5)."""

PORT_OF_MASTER, UNMATCHED_NAME = "port_of_master", "unmatched_name"
VRF_BOUND, OTHER_NAME, ALTERNATIVE_NAME = "vrf_bound", "other_name", "alternative_name"
PROBLEMS_OF_HOST = frozenset({PORT_OF_MASTER, UNMATCHED_NAME, VRF_BOUND, OTHER_NAME, ALTERNATIVE_NAME})
"""The codes of problems of a link. They are about the host and not about the definitions: the commands refuse
such a binding, and the agent reports it and enforces all the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A link and the security groups to enforce on it."""

    interface: str
    network_interface: NetworkInterface | None
    """None where the configuration names the groups itself."""

    security_group_ids: tuple[str, ...]
    mode: Mode | None = None
    """None is the default."""

    origin: Origin
    """Where the binding is written, for messages."""

    source_check: SourceCheck | None = None
    """None is the default."""

    invalid: InvalidPackets = InvalidPackets.DROP
    link_addresses: tuple[CidrBlock, ...] = ()
    """What the link carries."""

    @classmethod
    def of(cls, interface: NetworkInterface, name: str, link: Link | None = None) -> Binding:
        """Return the binding of a network interface to a link of a name, which need not exist."""
        return cls(
            interface=name,
            network_interface=interface,
            security_group_ids=interface.security_group_ids,
            origin=interface.origin,
            link_addresses=link.addresses if link else (),
        )

    @property
    def own_addresses(self) -> AddressSet:
        """Return the addresses of the link and of the network interface (§12.6)."""
        known = self.network_interface.addresses if self.network_interface else ()
        return AddressSet.of((*self.link_addresses, *known))

    @property
    def attached_at(self) -> Origin:
        """Return where the groups are attached: in the documents, or where the binding was made by hand."""
        interface = self.network_interface
        if interface is None or self.origin is not interface.origin or interface.attachment_origin is NOWHERE:
            return self.origin
        return interface.attachment_origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """All bindings of a host, sorted by link, and the problems of others."""

    bindings: tuple[Binding, ...] = ()
    problems: tuple[Problem, ...] = ()
    patterns: Mapping[LinkPattern, Binding] = field(default_factory=dict)
    """The binding of the links that each pattern means; the pattern stands for its link (§12.5)."""

    facts: HostFacts = field(default=NO_FACTS, compare=False)
    is_followed: bool = False
    """Whether an agent identifies links that come, so that they can be closed until then (§9.5)."""

    plain: frozenset[str] = frozenset()
    """Names of links that are not there, and were seen to be no masters."""

    @property
    def all(self) -> tuple[Binding, ...]:
        """Return the bindings of links and of patterns."""
        return (*self.bindings, *self.patterns.values())


def bind(
    snapshot: Snapshot, by_hand: Iterable[HandBinding], facts: HostFacts, *, automatically: bool
) -> Bindings:
    """Return which links are bound to what.

    What is bound by hand is taken as it is, whether the link exists or not; an exact name comes before a
    pattern. Of the rest, a network interface
    that names a MAC is bound to the link with that MAC, and one without to the link that carries one of its
    addresses. A port of a bridge or bond is bound as well, with the error that names its master: its rules
    judge nothing while it is a port, and its first packet after that.

    Args:
        snapshot: the definitions.
        by_hand: bindings of the configuration or the command line; they win.
        facts: the links of the host.
        automatically: whether to look for links by MAC and address too.
    """
    search = _Search(snapshot, facts)
    for hand_binding in by_hand:
        search.bind_by_hand(hand_binding)
    search.check_links_of_patterns()
    if automatically:
        search.bind_by_mac()
        search.bind_by_address()
    return Bindings(
        bindings=tuple(search.bindings[name] for name in sorted(search.bindings)),
        problems=tuple(search.problems),
        patterns={pattern: search.patterns[pattern] for pattern in sorted(search.patterns)},
        facts=facts,
    )


def bind_everywhere(snapshot: Snapshot) -> Bindings:
    """Return bindings of all network interfaces, as if each were a link that is named by its id."""
    return Bindings(
        bindings=tuple(Binding.of(one, one.network_interface_id) for one in snapshot.network_interfaces)
    )


class _Search:
    """Collect bindings; the first one of a link and of a network interface stays."""

    def __init__(self, snapshot: Snapshot, facts: HostFacts) -> None:
        self.snapshot = snapshot
        self.links = {link.name: link for link in facts.links}
        self.bindings: dict[str, Binding] = {}
        self.patterns: dict[LinkPattern, Binding] = {}
        self.problems: list[Problem] = []

    def bind_by_hand(self, hand: HandBinding) -> None:
        """Bind as the configuration says."""
        origin = hand.origin if hand.origin != NOWHERE else Origin(file=f"interface {hand.interface}")
        pattern, link = hand.pattern, self.links.get(hand.interface)
        interface = self.snapshot.interface_by_id.get(hand.network_interface_id or "")
        overlapping = [other.text for other in self.patterns if pattern and pattern.overlaps(other)]
        if hand.interface in self.bindings or hand.interface in overlapping:
            message = "the interface is bound twice"
            self._refuse(origin, "interface_bound_twice", hand.interface, message, "bind it once")
        elif overlapping:
            message = f"the patterns {hand.interface} and {overlapping[0]} match the same links"
            remedy = "exclude one of them from the other in [[interface]]"
            self._refuse(origin, "several_patterns", hand.interface, message, remedy)
        elif hand.interface == LOOPBACK or (link is not None and link.is_loopback):
            message = "traffic within the host is not judged (§2.3)"
            self._refuse(origin, "loopback_bound", hand.interface, message, "bind a link to other hosts")
        elif hand.network_interface_id is not None and interface is None:
            message, remedy = "the network interface is not in the definitions", "name one that is, or add it"
            self._refuse(origin, "unknown_network_interface", hand.network_interface_id, message, remedy)
        else:
            binding = Binding(
                interface=hand.interface,
                network_interface=interface,
                security_group_ids=interface.security_group_ids
                if interface
                else tuple(sorted(set(hand.security_group_ids))),
                mode=hand.mode,
                origin=origin,
                source_check=hand.source_check,
                invalid=hand.invalid,
                link_addresses=link.addresses if link and not pattern else (),
            )
            if pattern:
                self.patterns[pattern] = binding
            else:
                self._keep(binding, link)

    def check_links_of_patterns(self) -> None:
        """Report the links that patterns mean and that can't be bound as they say."""
        for link in self.links.values():
            binding = self._of_pattern(link)
            if binding is None:
                continue
            if is_hidden(link):
                self._report_port(link, binding.origin)
            if not can_be_matched(link.name):
                message = f"nftables can't match the link {link.name} by its name, so it may stay closed"
                self._refuse(binding.origin, UNMATCHED_NAME, None, message, "rename the link")

    def _of_pattern(self, link: Link) -> Binding | None:
        """Return the binding of the pattern that means a link."""
        if link.is_loopback or link.name in self.bindings:
            return None
        return next((found for pattern, found in self.patterns.items() if pattern.matches(link.name)), None)

    def bind_by_mac(self) -> None:
        """Bind the network interfaces whose MAC a link has."""
        by_mac: dict[str, list[Link]] = {}
        for link in self._others():
            if link.mac_address:
                by_mac.setdefault(link.mac_address, []).append(link)
        for interface in self._unbound_interfaces():
            links = _meant(interface, by_mac.get(interface.mac_address or "", []))
            if len(links) > 1:
                self._refuse_several(interface, [link.name for link in links])
            elif links:
                self._bind_automatically(interface, links[0])

    def bind_by_address(self) -> None:
        """Bind the network interfaces that name no MAC to the link that carries one of their addresses.

        A link that is bound by hand or by MAC is settled: the same address may well occur in another VPC.
        """
        settled = frozenset(self.bindings)
        by_address: dict[str, list[Link]] = {}
        for link in self._others():
            for address in link.addresses if link.name not in settled else ():
                by_address.setdefault(str(address), []).append(link)
        for interface in self._unbound_interfaces():
            found = (link for address in interface.addresses for link in by_address.get(str(address), ()))
            carriers = {link.name: link for link in found}
            if not carriers:
                continue
            if interface.mac_address:
                others = (link for link in carriers.values() if link.mac_address != interface.mac_address)
                if name := min((link.name for link in others), default=""):
                    self._warn_of_other_mac(interface, name)
            elif len(carriers) > 1:
                self._refuse_several(interface, sorted(carriers))
            else:
                self._bind_automatically(interface, carriers[min(carriers)])

    def _others(self) -> Iterator[Link]:
        """Yield the links that no pattern means."""
        return (link for link in self.links.values() if not link.is_loopback and not self._of_pattern(link))

    def _unbound_interfaces(self) -> list[NetworkInterface]:
        by_hand = (*self.bindings.values(), *self.patterns.values())
        bound = {b.network_interface.network_interface_id for b in by_hand if b.network_interface}
        return [i for i in self.snapshot.network_interfaces if i.network_interface_id not in bound]

    def _bind_automatically(self, interface: NetworkInterface, link: Link) -> None:
        present = self.bindings.get(link.name)
        if not can_be_matched(link.name):
            message = f"nftables can't match the link {link.name} by its name"
            self._refuse(interface.origin, "bad_interface_name", None, message, "rename the link")
        elif present is None:
            self._keep(Binding.of(interface, link.name, link), link)
        elif present.network_interface is not None and present.origin is present.network_interface.origin:
            message = f"two network interfaces match the link {link.name}"
            remedy = "give each its own MAC address, or bind the link in [[interface]]"
            self._refuse(interface.origin, "ambiguous_link", interface.network_interface_id, message, remedy)

    def _keep(self, binding: Binding, link: Link | None) -> None:
        self.bindings[binding.interface] = binding
        if link is None:
            self._report_other_name(binding)
        elif is_hidden(link):
            self._report_port(link, binding.origin)

    def _refuse_several(self, interface: NetworkInterface, links: list[str]) -> None:
        message = f"the links {' and '.join(links)} all match"
        remedy = "bind one of them in [[interface]]"
        self._refuse(interface.origin, "ambiguous_link", interface.network_interface_id, message, remedy)

    def _report_port(self, link: Link, origin: Origin) -> None:
        master = f"the {link.master_kind or 'link'} {link.master}"
        message = f"the link {link.name} is a port of {master}, which its packets show as (§9.4)"
        remedy = f"bind {link.master}, or take {link.name} out of it"
        self._refuse(origin, "port_of_master", None, message, remedy)

    def _report_other_name(self, binding: Binding) -> None:
        """Report a binding to an alternative name: its rules would judge nothing, and the link be open."""
        name = binding.interface
        meant = next((link.name for link in self.links.values() if name in link.other_names), None)
        if meant is not None:
            message = f"{name} is an alternative name of the link {meant}, and rules match its own name only"
            self._refuse(binding.origin, ALTERNATIVE_NAME, None, message, f"bind {meant}")

    def _refuse(self, origin: Origin, code: str, value: str | None, message: str, remedy: str) -> None:
        self.problems.append(Problem.error(origin, code, value, message, remedy))

    def _warn_of_other_mac(self, interface: NetworkInterface, link: str) -> None:
        owner = interface.network_interface_id
        message = f"link {link} has an address of {owner}, but another MAC address, so it is not bound"
        remedy = "correct or remove the MAC address, or bind the link in [[interface]]"
        self.problems.append(
            Problem.warning(interface.origin, "other_mac", interface.mac_address, message, remedy)
        )


def can_be_matched(link: str) -> bool:
    """Return whether rules can speak of a link of this name; Linux lets one be called ``@a`` or ``a*``."""
    try:
        check_interface_name(link)
    except ValueError:
        return False
    return link.isprintable()


def is_hidden(link: Link) -> bool:
    """Return whether the link's packets show as its master's: nothing can be enforced on it (§9.4)."""
    return link.master is not None and link.master_kind not in MASTERS_OF_OWN_PORTS


def _meant(interface: NetworkInterface, links: list[Link]) -> list[Link]:
    """Return which of the links that share a MAC is meant: the one that carries the address (§9.4).

    Where none does, it is one that is no port of another, with hardware under it if there is such. Several
    are returned where nothing tells them apart.
    """
    addresses = {str(address) for address in interface.addresses}

    def rank(link: Link) -> tuple[bool, bool, bool]:
        carries = any(str(address) in addresses for address in link.addresses)
        return (not carries, is_hidden(link), not link.has_hardware)

    best = min(map(rank, links), default=None)
    return [link for link in links if rank(link) == best]
