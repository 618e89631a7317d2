"""Guardrails: statements that no policy may break, kept apart from the policy (§13.4).

A statement speaks of packets that open sessions at bound interfaces. ``never`` and ``only`` demand that these
are dropped, ``always`` that they are accepted. The fail-safe list and §7 are beyond them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sgagent.core.addresses import AddressRanges, AddressSet, joined, without
from sgagent.core.clauses import DecidedBy
from sgagent.core.conditions import groups_text
from sgagent.core.errors import NOWHERE, Origin, Problem
from sgagent.core.evaluate import Packet
from sgagent.core.members import members_by_group
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import (
    ALL_PORTS,
    AuthorizationObject,
    AuthorizationObjects,
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    Mode,
    NameReference,
    Policy,
    PortListReference,
    PortSet,
    PrefixList,
    PrefixListReference,
    Protocol,
    Protocols,
    Snapshot,
    address_text,
)
from sgagent.core.policy import ResolvedInterface, ResolvedRule
from sgagent.core.resolved_rules import KnownNames
from sgagent.core.rule_values import EVERYTHING, objects_text, protocols_text


class GuardrailKind(enum.Enum):
    """The demand of a statement."""

    NEVER = "never"
    """None of these packets is accepted."""

    ALWAYS = "always"
    """Each of them is accepted."""

    ONLY = "only"
    """Of these protocols and ports, none from or to others is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """One statement, as it is written."""

    guardrail_id: str
    """Unique among all statements of a host."""

    reason: str
    kind: GuardrailKind
    direction: Direction
    far_ends: AuthorizationObjects
    near_ends: AuthorizationObjects | None
    """A group stands for the interfaces that are attached to it; None is every bound interface."""

    protocols: Protocols
    ports: PortSet | PortListReference
    """Destination ports."""

    exceptions: AuthorizationObjects = ()
    """Far ends of which it does not speak."""

    origin: Origin = field(default=NOWHERE, compare=False)

    @property
    def demanded(self) -> Policy:
        """Return the verdict that the statement demands."""
        return Policy.ACCEPT if self.kind is GuardrailKind.ALWAYS else Policy.DROP

    def __str__(self) -> str:
        """Return the statement on one line: ``never ingress from any to sg-db, tcp 5432/5432``."""
        far, near = objects_text(self.far_ends), self.near_ends and objects_text(self.near_ends)
        is_ingress = self.direction is Direction.INGRESS
        source, destination = (far, near) if is_ingress else (near, far)
        ends = (f"from {source}" if source else "", f"to {destination}" if destination else "")
        words = " ".join(filter(None, (self.kind.value, self.direction.value, *ends)))
        is_all = isinstance(self.ports, PortSet) and self.ports.is_all
        traffic = f"{words}, {protocols_text(self.protocols)}{'' if is_all else f' {self.ports}'}"
        return f"{traffic}, except {objects_text(self.exceptions)}" if self.exceptions else traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedGuardrail:
    """The packets that a statement speaks of, on this host."""

    guardrail: Guardrail
    far_ends: AddressSet
    """Without the exceptions; of ``only``, all that it does not name."""

    near_ends: AddressSet | None
    """On interfaces that are attached to none of the groups; None is any."""

    near_groups: frozenset[str]
    """On interfaces that are attached to one of these, every near end is meant."""

    ports: PortSet

    def near_ends_at(self, judge: ResolvedInterface, family: Family) -> AddressRanges:
        """Return the near ends that it speaks of on an interface; nothing where it does not speak of that."""
        if self.near_ends is None or not self.near_groups.isdisjoint(judge.security_group_ids):
            return ((0, family.last_address),)
        return joined(self.near_ends.ranges(family))

    def protocols_of(self, family: Family) -> Protocols:
        """Return the protocols that packets of the family can have."""
        return tuple(one for one in self.guardrail.protocols if one.only_family in (None, family))


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A packet that is not decided as a statement demands."""

    guardrail: Guardrail
    interface: str
    mode: Mode
    """Of the interface; in observe mode a violation is only reported."""

    packet: Packet
    """It opens a session."""

    decided_by: DecidedBy
    rule: ResolvedRule | None
    """The rule that decides, if one does."""

    @property
    def is_refusal(self) -> bool:
        """Return whether the policy is refused for it; in observe mode it is only reported."""
        return self.mode is Mode.ENFORCE

    @property
    def verdict(self) -> Policy:
        """Return the verdict on the packet."""
        return Policy.DROP if self.guardrail.demanded is Policy.ACCEPT else Policy.ACCEPT

    @property
    def decider(self) -> str:
        """Return the decider, in words."""
        if self.rule is not None:
            return f"rule {self.rule.rule_id} of {self.rule.security_group_id}"
        return {DecidedBy.INNER: "inner access", DecidedBy.DEFAULT: "the default"}[self.decided_by]

    def __str__(self) -> str:
        """Return statement, decider and packet in words."""
        verb = "accepts" if self.verdict is Policy.ACCEPT else "drops"
        return (
            f"guardrail {self.guardrail.guardrail_id} ({self.guardrail}) is broken on {self.interface}:"
            f" {self.decider} {verb} {packet_text(self.packet)}"
        )

    def problem(self, definitions: Snapshot) -> Problem:
        """Return the violation as a problem of the rule that decides, else of the statement.

        It refuses the definitions unless the interface is only observed.
        """
        rail, rule = self.guardrail, self.rule
        group = definitions.group_by_id.get(rule.security_group_id) if rule else None
        written = (
            one.origin for one in (group.rules if group else ()) if rule and one.rule_id == rule.rule_id
        )
        remedy = f"change the policy; {rail.origin} says why: {rail.reason}"
        origin = next(written, rail.origin)
        found = Problem.error(origin, BROKEN, rail.guardrail_id, str(self), remedy)
        return found if self.is_refusal else found.as_warning()


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPacket:
    """A packet that opens a session, in words."""

    family: str
    protocol: str
    source: str
    destination: str
    source_port: int | None
    destination_port: int | None
    user: int | None = None
    """Whose socket of this host sends it; None without one (§13.3)."""

    unit: str | None = None
    """In words, of which unit that socket is; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedViolation:
    """A violation in words."""

    id: str
    """Of the statement."""

    reason: str
    statement: str
    interface: str
    direction: str
    mode: str
    verdict: str
    decided_by: str
    rule_id: str | None
    security_group_id: str | None
    packet: NamedPacket

    @property
    def text(self) -> str:
        """Return the violation in words, for a person."""
        by = f"rule {self.rule_id} of {self.security_group_id}" if self.rule_id else f"the {self.decided_by}"
        ends = (
            address if port is None else f"{address} port {port}"
            for address, port in (
                (self.packet.source, self.packet.source_port),
                (self.packet.destination, self.packet.destination_port),
            )
        )
        what = f"{self.packet.protocol} from {' to '.join(ends)}: {self.verdict} by {by}"
        return f"{self.id} on {self.interface}: {what} ({self.statement}: {self.reason})"


def named(violation: Violation) -> NamedViolation:
    """Return a violation in words."""
    rail, rule, packet = violation.guardrail, violation.rule, violation.packet
    return NamedViolation(
        id=rail.guardrail_id,
        reason=rail.reason,
        statement=str(rail),
        interface=violation.interface,
        direction=rail.direction.value,
        mode=violation.mode.value,
        verdict=violation.verdict.value,
        decided_by=violation.decided_by.value,
        rule_id=rule.rule_id if rule else None,
        security_group_id=rule.security_group_id if rule else None,
        packet=NamedPacket(
            family=packet.family.value,
            protocol=str(Protocol(packet.protocol)),
            source=address_text(packet.family, packet.source),
            destination=address_text(packet.family, packet.destination),
            source_port=packet.source_port,
            destination_port=packet.destination_port,
            user=packet.user,
            unit=None if packet.unit is None else groups_text([(packet.unit, packet.unit)]),
        ),
    )


BROKEN = "guardrail_broken"
"""The code of problems of policies that break a guardrail."""


def packet_text(packet: Packet) -> str:
    """Return a packet in words: ``tcp from 203.0.113.1 port 49152 to 192.0.2.1 port 22``."""
    source, destination = (
        address_text(packet.family, address) + ("" if port is None else f" port {port}")
        for address, port in (
            (packet.source, packet.source_port),
            (packet.destination, packet.destination_port),
        )
    )
    whose = "" if packet.user is None else f" of user {packet.user}"
    whose += "" if packet.unit is None else f" of {groups_text([(packet.unit, packet.unit)])}"
    return f"{Protocol(packet.protocol)} from {source} to {destination}{whose}"


Guardrails = tuple[Guardrail, ...]

UNKNOWN_OBJECT = "unknown_object_in_guardrail"


def dns_names_of(guardrails: Iterable[Guardrail]) -> frozenset[str]:
    """Return the names that statements name, for the DNS to be asked (§12.3)."""
    objects = (
        one for rail in guardrails for one in (*rail.far_ends, *(rail.near_ends or ()), *rail.exceptions)
    )
    return frozenset(one.name for one in objects if isinstance(one, NameReference))


def resolve_guardrails(
    guardrails: Guardrails, snapshot: Snapshot, names: KnownNames | None = None, memo: Memo | None = None
) -> tuple[tuple[ResolvedGuardrail, ...], tuple[Problem, ...]]:
    """Resolve statements, and return them with their problems.

    An unknown object stands for everybody in ``never``, for nobody in ``only`` and ``except``; in ``always``
    it is an error, and such a statement is left out. As near end it stands for every bound interface.

    Args:
        guardrails: the statements.
        snapshot: the definitions.
        names: what the DNS says; None where nobody asked it.
        memo: of what was resolved before, to spare work; the result is the same without.
    """
    if not guardrails:
        return (), ()
    memo = memo or Memo()
    resolver = _Resolver(snapshot, members_by_group(snapshot, memo), names or {})
    found = [resolver.resolve(one, memo) for one in guardrails]
    return tuple(filter(None, found)), tuple(resolver.problems)


_Referred = AddressSet | PrefixList
"""The referent of an object."""


class _Resolver:
    """Looks up the objects of statements."""

    def __init__(self, snapshot: Snapshot, members: Mapping[str, AddressSet], names: KnownNames) -> None:
        self._snapshot = snapshot
        self._members = members
        self._names = names
        self.problems: list[Problem] = []

    def resolve(self, guardrail: Guardrail, memo: Memo) -> ResolvedGuardrail | None:
        """Resolve a statement; None where it can't be checked, which is a problem."""
        before = len(self.problems)
        lists = (guardrail.far_ends, guardrail.near_ends or (), guardrail.exceptions)
        far, near, apart = (
            [self._referred(guardrail, one) for one in some if not isinstance(one, CidrBlock)]
            for some in lists
        )
        ports = self._ports(guardrail)
        if guardrail.kind is GuardrailKind.ALWAYS and (None in far or None in near or ports is None):
            return None
        self.problems[before:] = map(Problem.as_warning, self.problems[before:])
        part = memo.part(Seam.RESOLVED_RULES, "guardrail", guardrail.guardrail_id)
        given = (guardrail, *far, *near, *apart, ports)
        return part.get("resolved", given, lambda: _resolved(guardrail, far, near, apart, ports))

    def _referred(self, guardrail: Guardrail, one: AuthorizationObject) -> _Referred | None:
        """Return the referent of an object: a group, list or name; None, with a problem, if it is unknown."""
        found: _Referred | None = None
        match one:
            case GroupReference(security_group_id=name, account_id=account):
                group = self._snapshot.group_by_id.get(name)
                is_meant = group is not None and account in (None, group.account_id)
                found = self._members[name] if is_meant else None
            case PrefixListReference(prefix_list_id=name):
                found = self._snapshot.prefix_list_by_id.get(name)
            case NameReference(name=name):
                found = self._names.get(name)
            case CidrBlock():
                found = AddressSet.of((one,))
        if found is None:
            self._report(guardrail, str(one))
        return found

    def _ports(self, guardrail: Guardrail) -> PortSet | None:
        """Return the ports, which are the port list's own while that stays; None if it is unknown."""
        if isinstance(guardrail.ports, PortSet):
            return guardrail.ports
        port_list = self._snapshot.port_list_by_id.get(guardrail.ports.port_list_id)
        if port_list is None:
            self._report(guardrail, guardrail.ports.port_list_id)
            return None
        return port_list.entries

    def _report(self, guardrail: Guardrail, name: str) -> None:
        message = f"guardrail {guardrail.guardrail_id} names what is not in the definitions"
        remedy = "correct the id, or add the object to the definitions"
        self.problems.append(Problem.error(guardrail.origin, UNKNOWN_OBJECT, name, message, remedy))


def _resolved(
    guardrail: Guardrail,
    far: Sequence[_Referred | None],
    near: Sequence[_Referred | None],
    apart: Sequence[_Referred | None],
    ports: PortSet | None,
) -> ResolvedGuardrail:
    """Return a statement with the referents of its objects, where they are known."""
    is_never = guardrail.kind is GuardrailKind.NEVER
    named = EVERYONE if is_never and None in far else _addresses(guardrail.far_ends, far)
    left_out = _addresses(guardrail.exceptions, apart)
    is_only = guardrail.kind is GuardrailKind.ONLY
    near_ends = guardrail.near_ends or ()
    groups = (one.security_group_id for one in near_ends if isinstance(one, GroupReference))
    # A group as near end stands for interfaces, so its members' addresses do not count.
    placed = (one for one in near_ends if not isinstance(one, CidrBlock))
    others = [found for one, found in zip(placed, near, strict=True) if not isinstance(one, GroupReference)]
    is_anywhere = guardrail.near_ends is None or None in near
    return ResolvedGuardrail(
        guardrail=guardrail,
        far_ends=_without(EVERYONE, named.union(left_out)) if is_only else _without(named, left_out),
        near_ends=None if is_anywhere else _addresses(near_ends, others),
        near_groups=frozenset(groups),
        ports=ALL_PORTS if ports is None else ports,
    )


EVERYONE = AddressSet.of(block for block in EVERYTHING if isinstance(block, CidrBlock))
"""Every address of both families."""


def _addresses(objects: AuthorizationObjects, referred: Iterable[_Referred | None]) -> AddressSet:
    """Return the addresses of CIDRs, and of the other objects' referents."""
    blocks = [one for one in objects if isinstance(one, CidrBlock)]
    sets = []
    for found in referred:
        if isinstance(found, PrefixList):
            blocks += found.entries
        elif found is not None:
            sets.append(found)
    return AddressSet.of(blocks).union(*sets)


def _without(whole: AddressSet, part: AddressSet) -> AddressSet:
    ipv4, ipv6 = (without(joined(whole.ranges(family)), joined(part.ranges(family))) for family in Family)
    return AddressSet(ipv4, ipv6)
