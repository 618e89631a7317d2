"""Consistency checks between the fields of a rule, for native and API documents (§4, §8.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

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
from sgagent.documents.values import (
    FIRST_UNUSUAL_PRIORITY,
    PORT_FORMS,
    in_order,
)

T = TypeVar("T")


class Part(NamedTuple, Generic[T]):
    """A field of a rule with its name."""

    name: str
    value: T | None
    """None if the field has an error, which the findings already hold."""


@dataclass(slots=True, kw_only=True)
class RuleForm:
    """The fields of a rule, each parsed alone; None for a missing field.

    It is not frozen, because making one for each rule takes half the time then.
    """

    place: Field
    rule_id: str
    """Empty if the document has none."""

    direction: Direction | None
    policy: Policy | None
    priority: Part[int]
    """Of a field that is missing, what it is then."""

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
    peer, priority = form.peer.value if form.peer else None, form.priority.value
    if priority is not None and priority >= FIRST_UNUSUAL_PRIORITY:
        form.place.at(form.priority.name).warn(
            "priority_above_100", "the cloud accepts no priority above 100", "a whole number from 1 to 100"
        )
    if (
        form.direction is None
        or form.policy is None
        or priority is None
        or form.protocol is None
        or ports is None
        or peer is None
    ):
        return None
    return SecurityGroupRule(
        rule_id=form.rule_id,
        direction=form.direction,
        policy=form.policy,
        priority=priority,
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
        form.place.error(
            "missing_ports", f"a {form.protocol} rule needs a port range or a port list", PORT_FORMS
        )
        return None
    return PortListReference(form.port_list.value) if form.port_list.value else None


def _port_range(form: RuleForm, ports: Part[PortSet]) -> PortSet | None:
    """Return the port range of a protocol with ports; a port range overrides a port list (§4.3)."""
    if form.port_list is not None:
        form.place.at(form.port_list.name).warn(
            "port_list_ignored",
            "the port list is ignored, because there is a port range too",
            "remove one of the two",
        )
    if ports.value == ALL_PORTS:
        form.place.at(ports.name).warn(
            "every_port", f"-1/-1 is read as every {form.protocol} port", "1/65535"
        )
    return ports.value


def _refuse_ports(form: RuleForm, protocol: Protocol) -> None:
    """Add errors for ports on a protocol without ports (§4.2, §4.3)."""
    if form.ports is not None and form.ports.value not in (None, ALL_PORTS):
        form.place.at(form.ports.name).error(
            "ports_do_not_fit", f"{protocol} has no ports", "remove the field, or write -1/-1"
        )
    if form.port_list is not None:
        remedy = f"remove it, or use {ported_text('or').lower()}"
        message = f"{protocol} has no ports, so it takes no port list"
        form.place.at(form.port_list.name).error("ports_do_not_fit", message, remedy)


def _source_ports(form: RuleForm) -> PortSet:
    """Return the source ports (§4.4)."""
    if form.source_ports is None or form.source_ports.value in (None, ALL_PORTS):
        return ALL_PORTS
    if form.protocol is not None and not form.protocol.has_ports:
        form.place.at(form.source_ports.name).error(
            "ports_do_not_fit", f"{form.protocol} has no ports", "remove the field, or write -1/-1"
        )
    return form.source_ports.value


def _check_families(form: RuleForm) -> None:
    """Note an error where a rule speaks of both families (§2.4, §4.1, §4.5)."""
    wanted = form.protocol.only_family if form.protocol else None
    blocks = [
        (part.name, part.value)
        for part in (form.peer, form.local)
        if part and isinstance(part.value, CidrBlock)
    ]
    for name, block in blocks:
        if wanted is not None and block.family is not wanted:
            form.place.at(name).error(
                "family_of_protocol",
                f"{form.protocol} is for {wanted.value} only, found an {block.family.value} address",
                f"an {wanted.value} address or CIDR",
            )
    if wanted is None and len({block.family for _, block in blocks}) > 1:
        form.place.at(blocks[-1][0]).error(
            "mixed_families",
            "the two ends of the rule mix IPv4 and IPv6",
            f"an {blocks[0][1].family.value} address or CIDR, as in {blocks[0][0]}",
        )


def make_prefix_list(
    place: Field,
    prefix_list_id: str | None,
    family: Family | None,
    entries: Iterable[tuple[Field, CidrBlock | None]],
) -> PrefixList | None:
    """Return a prefix list; None if it has no id or no family.

    Each entry must be of the list's family (§8.1).
    """
    blocks = set()
    for entry, block in entries:
        if block and family and block.family is not family:
            message = f"an {block.family.value} entry in an {family.value} list"
            entry.error("mixed_families", message, f"an {family.value} address or CIDR")
        elif block:
            blocks.add(block)
    if prefix_list_id is None or family is None:
        return None
    return PrefixList(
        prefix_list_id=prefix_list_id, family=family, entries=in_order(blocks), origin=place.origin
    )


def make_port_list(
    place: Field, port_list_id: str | None, entries: Iterable[tuple[Field, PortSet | None]]
) -> PortList | None:
    """Return a port list; None if it has no id. In an entry ``-1/-1`` is every port, as in a rule (§4.2)."""
    ranges: list[tuple[int, int]] = []
    for entry, ports in entries:
        entry.count_address()
        if ports == ALL_PORTS:
            entry.warn("every_port", "-1/-1 is read as every port", "1/65535")
        ranges += ports.ranges if ports else ()
    if port_list_id is None:
        return None
    return PortList(port_list_id=port_list_id, entries=PortSet.of(*ranges), origin=place.origin)
