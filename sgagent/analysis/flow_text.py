"""Header-space boxes as text, with the names of objects where they are exact."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain

from sgagent.analysis.header_space import ALL_PROTOCOL_NUMBERS, ALL_UNITS, EVERYBODY, Box, Label
from sgagent.core.addresses import (
    NO_ADDRESSES,
    AddressRanges,
    AddressSet,
    Ranges,
    common,
    holds,
    joined,
    without,
)
from sgagent.core.clauses import Clause, DecidedBy
from sgagent.core.conditions import NO_UNIT, NO_USER, groups_text
from sgagent.core.members import members_by_group
from sgagent.core.memo import Memo
from sgagent.core.model import ALL_PORTS, Direction, Family, Policy, PortSet, Protocol, Snapshot
from sgagent.core.policy import (
    Peer,
    ResolvedPolicy,
)

FELLOW_MEMBERS = "fellow members"

_FEW = 4
"""CIDRs that are shown before another way of saying the same is looked for."""

_EVERYONE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}


@dataclass(frozen=True, slots=True)
class ObjectNames:
    """The names of all sets of addresses that rules name, by family."""

    by_addresses: Mapping[Family, Mapping[Ranges, str]] = field(
        default_factory=lambda: {family: {} for family in Family}
    )

    meanings: Mapping[tuple[Family, str], frozenset[Ranges]] = field(default_factory=dict)
    """All that a name stands for in the last policy: which members a rule reaches depends on its group."""

    fellows: Mapping[tuple[Family, str], Ranges] = field(default_factory=dict)
    """The fellow members of each link in the last policy."""

    former_fellows: Mapping[tuple[Family, str], Ranges] = field(default_factory=dict)
    """The fellow members of each link in the first policy."""

    @classmethod
    def of(
        cls, *policies: ResolvedPolicy, definitions: Snapshot | None = None, memo: Memo | None = None
    ) -> ObjectNames:
        """Return the names of policies' objects; of several for the same addresses, groups first.

        A name means what it means in the last policy.

        Args:
            policies: in the order in which one follows the other.
            definitions: what the last policy was made of; they say what a name means there that no rule of
                it has. Without them, such a name means what it meant before.
            memo: of what was resolved, to spare work; the result is the same without.
        """
        canonical: _Canonical = cache(joined)
        if definitions is None:
            meanings = _meanings(_peers(policies[-1:]), canonical)
        else:
            meanings = _defined(policies, definitions, memo or Memo(), canonical)
        fellows, former_fellows = _fellows(policies[-1:]), _fellows(policies[:1])
        names = cls(meanings=meanings, fellows=fellows, former_fellows=former_fellows)
        by_addresses: dict[Family, dict[Ranges, str]] = {family: {} for family in Family}
        for peer in sorted(_peers(policies), key=_preference):
            for family in Family:
                ranges = canonical(peer.addresses.ranges(family))
                if ranges and not names.is_former(peer.name, ranges, family):
                    by_addresses[family].setdefault(ranges, peer.name)
        return replace(names, by_addresses=by_addresses)

    def is_former(self, name: str, ranges: Ranges, family: Family) -> bool:
        """Return whether an object stood for these addresses, and stands for others now."""
        return ranges not in self.meanings.get((family, name), {ranges})

    def exact(
        self, ranges: Ranges, family: Family, preferred: Iterable[Peer] = (), links: Sequence[str] = ()
    ) -> str | None:
        """Return the name of the object that stands for just these addresses; None if there is none."""
        if ranges == ((0, family.last_address),):
            return _EVERYONE[family]
        for called, whole, peer in self._called(preferred, family):
            if whole == ranges and called == peer.name:
                return called
        name = self.by_addresses[family].get(ranges)
        if (name is None or "sg-" not in name) and _are_fellows(self.fellows, ranges, family, links):
            return FELLOW_MEMBERS
        return name

    def _called(self, peers: Iterable[Peer], family: Family) -> Iterator[tuple[str, Ranges, Peer]]:
        """Yield how objects are called that may have been others in the last policy, and their addresses."""
        for peer in peers:
            ranges = joined(peer.addresses.ranges(family))
            former = "the former " if self.is_former(peer.name, ranges, family) else ""
            yield f"{former}{peer.name}", ranges, peer

    def text(
        self, ranges: Ranges, family: Family, preferred: Sequence[Peer] = (), links: Sequence[str] = ()
    ) -> str:
        """Return addresses in the fewest words: an object, a few CIDRs, or an object without some others.

        Args:
            ranges: the addresses.
            family: of them.
            preferred: objects that the reader has in mind, as a rule that decides there names them.
            links: on which packets from or to the addresses are judged.
        """
        name = self.exact(ranges, family, preferred, links)
        if name is not None:
            return name
        objects = list(self._called(preferred, family))
        for called, whole, _ in objects:
            if whole == ranges:
                return called
        if _are_fellows(self.former_fellows, ranges, family, links):
            return f"the former {FELLOW_MEMBERS}"
        blocks = cidrs(ranges, family)
        if len(blocks) <= _FEW:
            around = [name for name, whole, peer in objects if _is_name(peer) and not without(ranges, whole)]
            return ", ".join(blocks) + (f" (in {around[0]})" if around else "")
        return (
            self._all_but(ranges, family, preferred)
            or self._together(ranges, family)
            or f"{', '.join(blocks[:_FEW])} and {len(blocks) - _FEW} more blocks"
        )

    def _all_but(self, ranges: Ranges, family: Family, preferred: Sequence[Peer]) -> str | None:
        """Return an object and its missing addresses, if they are few."""
        wholes = [(called, whole) for called, whole, _ in self._called(preferred, family)]
        for name, whole in (*wholes, (_EVERYONE[family], ((0, family.last_address),))):
            if not without(ranges, whole):
                missing = without(whole, ranges)
                blocks = cidrs(missing, family)
                rest = self.exact(missing, family, preferred)
                rest = rest or (", ".join(blocks) if len(blocks) <= _FEW else self._together(missing, family))
                if rest is not None:
                    return f"{name} but {rest}"
        return None

    def _together(self, ranges: Ranges, family: Family) -> str | None:
        """Return several objects that are these addresses together."""
        left, names = ranges, []
        for addresses, name in self.by_addresses[family].items():
            if common(addresses, left) and not without(addresses, ranges):
                names.append(name)
                left = without(left, addresses)
            if not left or len(names) > _FEW:
                break
        return ", ".join(names) if not left and len(names) <= _FEW else None


def cidrs(ranges: Ranges, family: Family) -> list[str]:
    """Return the shortest list of CIDRs that are these addresses, single ones without a length."""
    kind = ipaddress.IPv4Address if family is Family.IPV4 else ipaddress.IPv6Address
    blocks = (ipaddress.summarize_address_range(kind(first), kind(last)) for first, last in ranges)
    return [str(block).removesuffix(f"/{family.bits}") for block in chain.from_iterable(blocks)]


def protocol_text(protocols: Ranges) -> str:
    """Return protocols as documents name them: ``tcp``, ``tcp, udp``, ``all``, ``all but tcp``."""
    if protocols == ALL_PROTOCOL_NUMBERS:
        return "all"
    missing = without(ALL_PROTOCOL_NUMBERS, protocols)
    return f"all but {_numbers(missing)}" if len(missing) < len(protocols) else _numbers(protocols)


def _numbers(protocols: Ranges) -> str:
    texts = (str(Protocol(one)) if one == last else f"protocols {one}-{last}" for one, last in protocols)
    return ", ".join(texts)


def port_text(ports: Ranges) -> str:
    """Return ports like ``80, 8000-8100``."""
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ports)


def traffic_text(box: Box[Label], direction: Direction, peers: str) -> str:
    """Return the packets of a box in words, like ``tcp 80 from 0.0.0.0/0``."""
    words = [protocol_text(box.protocols)]
    if box.ports != ALL_PORTS.ranges:
        words.append(port_text(box.ports))
    words.append("from" if direction is Direction.INGRESS else "to")
    words.append(peers)
    if box.source_ports != ALL_PORTS.ranges:
        words.append(f"with source port {port_text(box.source_ports)}")
    if box.locals != ((0, box.family.last_address),):
        blocks = cidrs(box.locals, box.family)
        shown = ", ".join(blocks[:_FEW]) + (f" and {len(blocks) - _FEW} more" if len(blocks) > _FEW else "")
        words.append(f"{'at' if direction is Direction.INGRESS else 'out of'} {shown}")
    if box.users != EVERYBODY:
        words.append(users_text(box.users))
    if box.units != ALL_UNITS:
        words.append(units_text(box.units))
    return " ".join(words)


def users_text(users: Ranges) -> str:
    """Return who made the sockets, like ``of user 1000``, ``of all but user 1000``."""
    others = without(EVERYBODY, users)
    is_most = holds(users, NO_USER)
    text = f"user {port_text(others if is_most else users)}"
    return f"of all but {text}" if is_most else f"of {text}"


def units_text(units: Ranges) -> str:
    """Return in which units the sockets were made, like ``of unit nginx.service``."""
    if not holds(units, NO_UNIT):
        return f"of {groups_text(units)}"
    return f"of all but {groups_text(without(ALL_UNITS, units))}"


def peers_text(box: Box[Label], names: ObjectNames, preferred: Sequence[Peer], links: Sequence[str]) -> str:
    """Return the far ends of a box in words, with the family where the words don't show it."""
    peers = names.text(box.peers, box.family, preferred, links)
    shows_family = "." in peers or ":" in peers
    return peers if shows_family else f"{peers} ({box.family.value.replace('ip', 'IP')})"


def box_as_json(
    box: Box[Label], names: ObjectNames, preferred: Sequence[Peer], links: Sequence[str]
) -> dict[str, object]:
    """Return the packets of a box as keys of JSON."""
    everywhere = ((0, box.family.last_address),)
    return {
        "family": box.family.value,
        "object": names.exact(box.peers, box.family, preferred, links),
        "addresses": cidrs(box.peers, box.family),
        "protocol": protocol_text(box.protocols),
        "ports": _ports_as_json(box.ports),
        "source_ports": _ports_as_json(box.source_ports),
        "local_addresses": None if box.locals == everywhere else cidrs(box.locals, box.family),
        **({} if box.users == EVERYBODY else {"local_users": users_text(box.users)}),
        **({} if box.units == ALL_UNITS else {"local_units": units_text(box.units)}),
    }


def _ports_as_json(ports: Ranges) -> str | None:
    """Return ports as a rule writes them; None is any."""
    return None if ports == ALL_PORTS.ranges else str(PortSet(ports))


def clause_as_json(clause: Clause) -> dict[str, object]:
    """Return the deciding clause as keys of JSON."""
    rule = clause.rule
    return {
        "verdict": clause.policy.value,
        "decided_by": clause.decided_by.value,
        "rule_id": rule.rule_id if rule else None,
        "security_group_id": rule.security_group_id if rule else None,
        **(rule.conditions.texts_of_packets if rule else {}),
    }


_STEPS = {
    DecidedBy.ALWAYS: "what no group can block",
    DecidedBy.FAILSAFE: "the fail-safe list",
    DecidedBy.INNER: "the inner access policy",
    DecidedBy.DEFAULT: "default",
    DecidedBy.UNBOUND: "nothing",
    DecidedBy.SPOOFED: "the source check",
}


def decider_text(clause: Clause) -> str:
    """Return the decider, like ``sgr-1 of sg-web`` or ``default``."""
    if clause.rule is not None:
        return f"{clause.rule.rule_id} of {clause.rule.security_group_id}"
    return _STEPS[clause.decided_by]


def decision_text(clause: Clause) -> str:
    """Return the verdict on packets and its decider, like ``dropped by default``."""
    if clause.decided_by is DecidedBy.UNBOUND:
        return "accepted, as nothing judges the link"
    limit = clause.rule.conditions.limit if clause.rule else None
    within = f", at most {limit} for each source" if limit else ""
    return f"{'accepted' if clause.policy is Policy.ACCEPT else 'dropped'} by {decider_text(clause)}{within}"


_Canonical = Callable[[AddressRanges], Ranges]
"""Joins neighbours; a set of addresses that comes again is joined once."""


def _meanings(peers: Iterable[Peer], canonical: _Canonical) -> dict[tuple[Family, str], frozenset[Ranges]]:
    """Return the addresses of each name, in each family."""
    meanings: dict[tuple[Family, str], frozenset[Ranges]] = {}
    for peer in peers:
        for family in Family:
            key, ranges = (family, peer.name), canonical(peer.addresses.ranges(family))
            meanings[key] = meanings.get(key, frozenset()) | {ranges}
    return meanings


def _defined(
    policies: Sequence[ResolvedPolicy], definitions: Snapshot, memo: Memo, canonical: _Canonical
) -> dict[tuple[Family, str], frozenset[Ranges]]:
    """Return the definitions' addresses of groups and lists that policies name."""
    members = members_by_group(definitions, memo)
    found: dict[tuple[Family, str], frozenset[Ranges]] = {}
    for name in {peer.name for peer in _peers(policies) if _is_name(peer)}:
        account, _, group_id = name.rpartition("/")
        group, prefix_list = definitions.group_by_id.get(group_id), definitions.prefix_list_by_id.get(name)
        addresses = AddressSet.of(prefix_list.entries) if prefix_list else NO_ADDRESSES
        if group is not None and (not account or group.account_id in (None, account)):
            addresses = members[group_id]
        for family in Family:
            found[family, name] = frozenset({canonical(addresses.ranges(family))})
    return found


def _peers(policies: Iterable[ResolvedPolicy]) -> Iterable[Peer]:
    """Return the single objects of all rules, each once."""
    judges = (judge for policy in policies for judge in policy.judges)
    rules = (rule for judge in judges for way in Direction for rule in judge.toward(way).rules)
    return {id(peer): peer for rule in rules for peer in rule.peer.objects}.values()


def _fellows(policies: Iterable[ResolvedPolicy]) -> dict[tuple[Family, str], Ranges]:
    """Return whom the inner access policies let in, by family and link."""
    return {
        (family, judge.name): joined(judge.ingress.inner.ranges(family))
        for policy in policies
        for judge in policy.bound
        for family in Family
    }


def _are_fellows(
    fellows: Mapping[tuple[Family, str], Ranges], ranges: Ranges, family: Family, links: Sequence[str]
) -> bool:
    """Return whether addresses are just the fellow members of each of the links."""
    return bool(links) and all(fellows.get((family, link)) == ranges for link in links)


def _preference(peer: Peer) -> tuple[bool, bool, str]:
    """Return a sort key that puts names that say most first: groups, then lists, then CIDRs."""
    return ("sg-" not in peer.name, not _is_name(peer), peer.name)


def _is_name(peer: Peer) -> bool:
    """Return whether an object is called by a name, not by its addresses."""
    return "sg-" in peer.name or peer.name.startswith("pl-")
