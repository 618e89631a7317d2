"""Consistency checks between the fields of a rule, for native and API documents (§4, §8.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sgagent.core.model import (
    ALL_PORTS,
    AuthorizationObject,
    CidrBlock,
    Direction,
    Family,
    Policy,
    PortList,
    PortListReference,
    PortSet,
    PrefixList,
    Protocol,
    SecurityGroupRule,
    ported_text,
)
from sgagent.documents.field import Field
from sgagent.documents.values import PORT_FORMS, HostBits, in_order, parse_block, parse_port_range

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """A field of a rule with its place."""

    field: Field
    value: T | None
    """None if the field has an error, which the findings already hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleForm:
    """The fields of a rule, each parsed alone; None for a missing field."""

    place: Field
    rule_id: str
    """Empty if the document has none."""

    direction: Direction | None
    policy: Policy | None
    priority: int | None
    protocol: Protocol | None
    ports: Part[PortSet] | None
    port_list: Part[str] | None
    source_ports: Part[PortSet] | None
    peer: Part[AuthorizationObject] | None
    local: Part[CidrBlock] | None
    description: str


def make_rule(form: RuleForm) -> SecurityGroupRule | None:
    """Return the rule; None, with every error added, if fields are wrong or contradict each other.

    A rule without an id keeps an empty one; :func:`~sgagent.documents.assembly.assemble` derives it (§4.7).
    """
    ports = _destination_ports(form)
    source_ports = _source_ports(form)
    _check_families(form)
    peer = form.peer.value if form.peer else None
    if (
        form.direction is None
        or form.policy is None
        or form.priority is None
        or form.protocol is None
        or ports is None
        or peer is None
    ):
        return None
    return SecurityGroupRule(
        rule_id=form.rule_id,
        direction=form.direction,
        policy=form.policy,
        priority=form.priority,
        protocol=form.protocol,
        ports=ports,
        authorization_object=peer,
        source_ports=source_ports,
        local_address=form.local.value if form.local else None,
        description=form.description,
        origin=form.place.origin,
    )


def _destination_ports(form: RuleForm) -> PortSet | PortListReference | None:
    """Return the destination ports, checked against the protocol (§4.2, §4.3)."""
    if form.protocol is None:
        return None
    if not form.protocol.has_ports:
        _refuse_ports(form, form.protocol)
        return ALL_PORTS
    if form.ports is not None:
        return _port_range(form, form.ports)
    if form.port_list is None:
        form.place.error("missing_ports", f"a {form.protocol} rule without ports", PORT_FORMS)
        return None
    return PortListReference(form.port_list.value) if form.port_list.value else None


def _port_range(form: RuleForm, ports: Part[PortSet]) -> PortSet | None:
    """Return the port range of a protocol with ports; a port range overrides a port list (§4.3)."""
    if form.port_list is not None:
        form.port_list.field.warn("port_list_ignored", "a port list beside a port range", "one of the two")
    if ports.value == ALL_PORTS:
        ports.field.warn("every_port", f"-1/-1 is read as every {form.protocol} port", "1/65535")
    return ports.value


def _refuse_ports(form: RuleForm, protocol: Protocol) -> None:
    """Add errors for ports on a protocol without ports (§4.2, §4.3)."""
    if form.ports is not None and form.ports.value not in (None, ALL_PORTS):
        form.ports.field.error(
            "ports_do_not_fit", f"{protocol} has no ports", "-1/-1, or leave the field out"
        )
    if form.port_list is not None:
        remedy = f"{ported_text('or').lower()}, or no list"
        form.port_list.field.error("ports_do_not_fit", f"a port list on {protocol}", remedy)


def _source_ports(form: RuleForm) -> PortSet:
    """Return the source ports (§4.4)."""
    if form.source_ports is None or form.source_ports.value in (None, ALL_PORTS):
        return ALL_PORTS
    if form.protocol is not None and not form.protocol.has_ports:
        form.source_ports.field.error(
            "ports_do_not_fit", f"{form.protocol} has no ports", "-1/-1, or leave the field out"
        )
    return form.source_ports.value


def _check_families(form: RuleForm) -> None:
    """Note an error where a rule speaks of both families (§2.4, §4.1, §4.5)."""
    wanted = form.protocol.only_family if form.protocol else None
    blocks = [
        (part.field, part.value)
        for part in (form.peer, form.local)
        if part and isinstance(part.value, CidrBlock)
    ]
    for field, block in blocks:
        if wanted is not None and block.family is not wanted:
            field.error(
                "family_of_protocol", f"{form.protocol} with {block.family.value}", f"an {wanted.value} CIDR"
            )
    if wanted is None and len({block.family for _, block in blocks}) > 1:
        blocks[-1][0].error(
            "mixed_families",
            "the two ends of a rule are of different families",
            f"an {blocks[0][1].family.value} CIDR",
        )


def make_prefix_list(
    place: Field, prefix_list_id: str | None, family: Family | None, entries: Iterable[Field | None]
) -> PrefixList | None:
    """Return a prefix list; None, with every error noted, if something about it is wrong."""
    blocks = {block for entry in entries if entry and (block := _prefix(entry, family))}
    if prefix_list_id is None or family is None:
        return None
    return PrefixList(
        prefix_list_id=prefix_list_id, family=family, entries=in_order(blocks), origin=place.origin
    )


def make_port_list(
    place: Field, port_list_id: str | None, entries: Iterable[Field | None]
) -> PortList | None:
    """Return a port list; None, with every error noted, if something about it is wrong."""
    ranges = (ends for entry in entries if entry and (ports := _ports(entry)) for ends in ports.ranges)
    ports = PortSet.of(*ranges)
    if port_list_id is None:
        return None
    return PortList(port_list_id=port_list_id, entries=ports, origin=place.origin)


def _prefix(entry: Field, family: Family | None) -> CidrBlock | None:
    """Return an entry of a prefix list, which must be of the list's family (§8.1)."""
    block = parse_block(entry, HostBits.CLEARED)
    if block is None or family is None or block.family is family:
        return block
    entry.error(
        "mixed_families",
        f"an {block.family.value} entry in an {family.value} list",
        f"an {family.value} CIDR",
    )
    return None


def _ports(entry: Field) -> PortSet | None:
    """Return an entry of a port list; ``-1/-1`` is every port, as in a rule (§4.2)."""
    entry.count_address()
    ports = parse_port_range(entry)
    if ports == ALL_PORTS:
        entry.warn("every_port", "-1/-1 is read as every port", "1/65535")
    return ports
