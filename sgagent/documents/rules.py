"""Rules, prefix lists and port lists of native and API documents, if their fields agree (§4, §8.1)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, NamedTuple

from sgagent.core import model
from sgagent.core.conditions import NO_CONDITIONS, Conditions
from sgagent.core.rule_values import canonical_objects, ported_text, protocols_text
from sgagent.documents import values
from sgagent.documents.field import Field
from sgagent.documents.field_types import Id, RulePorts
from sgagent.documents.models import DocumentModel, FieldType, declare, one_of, ref

_PORTED = ported_text("and")


class RuleFields(DocumentModel):
    """The fields that a rule has in native documents and, by names of its own, in answers."""

    rule_id: Id = ""
    """Unique among the rules of all documents; derived from the content if missing."""

    direction: Annotated[model.Direction | None, one_of(values.DIRECTIONS)]
    """Which way a session is opened, as seen from the interface."""

    policy: Annotated[model.Policy | None, one_of(values.POLICIES)]
    """What becomes of it; allow and deny mean the same as accept and drop."""

    priority: Annotated[int, FieldType(values.parse_priority, ref("priority"))] = 1
    """1 is the most urgent; among equals drop wins. Above 100 only in old data."""

    protocol: Annotated[model.Protocols | None, FieldType(values.parse_protocols, ref("protocols"))]
    """A name in any letter case, an IANA number, or a list of these."""

    port_range: RulePorts | None = declare(
        None, description=f"Destination ports in both directions; {_PORTED} need them or a port list."
    )
    port_list_id: Id | None = declare(
        None, description=f"A port list in place of a port range; {_PORTED} only."
    )
    source_port_range: RulePorts | None = declare(
        None, description=f"Source ports; {_PORTED} only. Missing: any."
    )


class RuleEnds(NamedTuple):
    """The two ends of a rule, without what the document leaves out or has wrong."""

    objects: tuple[values.PlacedObject, ...]
    local: tuple[tuple[values.Path, model.CidrBlock], ...] = ()
    """At most one."""


def make_rule(
    place: Field,
    rule: RuleFields,
    ends: RuleEnds,
    *,
    description: str,
    expires: datetime | None = None,
    conditions: Conditions = NO_CONDITIONS,
) -> model.SecurityGroupRule | None:
    """Return the rule; None, with every error added, if fields are wrong or contradict each other.

    A rule without an id keeps an empty one; :func:`~sgagent.documents.assembly.assemble` derives it (§4.7).
    """
    ports = _destination_ports(place, rule)
    source_ports = _source_ports(place, rule)
    _check_families(place, rule.protocol or (), ends)
    if rule.policy is model.Policy.DROP:
        _refuse_in_drop(place, ends, conditions)
    if rule.direction is model.Direction.INGRESS and conditions.local is not None:
        message = "an ingress rule has no local: which socket a packet is for is not known where it comes in"
        place.at("local").error("local_inwards", message, "remove it, or egress")
    if rule.priority >= values.FIRST_UNUSUAL_PRIORITY:
        message = "the cloud accepts no priority above 100"
        _at(place, rule, "priority").warn("priority_above_100", message, "a whole number from 1 to 100")
    if rule.direction is None or rule.policy is None or rule.protocol is None:
        return None
    if ports is None or not ends.objects:
        return None
    return model.SecurityGroupRule(
        rule_id=rule.rule_id,
        direction=rule.direction,
        policy=rule.policy,
        priority=rule.priority,
        protocols=rule.protocol,
        ports=ports,
        authorization_objects=canonical_objects(one for _, one in ends.objects),
        source_ports=source_ports,
        local_address=ends.local[0][1] if ends.local else None,
        expires=expires,
        conditions=conditions,
        description=description,
        origin=place.origin,
    )


def _at(place: Field, rule: RuleFields, name: str) -> Field:
    return place.at(rule.names()[name])


def _destination_ports(place: Field, rule: RuleFields) -> model.PortSet | model.PortListReference | None:
    """Return the destination ports, checked against the protocols (§4.2, §4.3, §12.2)."""
    if rule.protocol is None:
        return None
    ported = tuple(protocol for protocol in rule.protocol if protocol.has_ports)
    if len(ported) < len(rule.protocol):
        _refuse_ports(place, rule, rule.protocol)
    if not ported:
        return model.ALL_PORTS
    if "port_range" in rule.given:
        return _port_range(place, rule, ported)
    if "port_list_id" not in rule.given:
        forms = values.PORT_FORMS if ported == rule.protocol else str(model.ALL_PORTS)
        message = f"a {protocols_text(ported)} rule needs a port range or a port list"
        if ported != rule.protocol:
            message = f"a rule with {protocols_text(ported)} needs a port range"
        place.error("missing_ports", message, forms)
    return model.PortListReference(rule.port_list_id) if rule.port_list_id else None


def _port_range(place: Field, rule: RuleFields, ported: model.Protocols) -> model.PortSet | None:
    """Return the port range of protocols with ports; a port range overrides a port list (§4.3)."""
    if "port_list_id" in rule.given:
        message = "the port list is ignored, because there is a port range too"
        _at(place, rule, "port_list_id").warn("port_list_ignored", message, "remove one of the two")
    if rule.port_range == model.ALL_PORTS:
        names = protocols_text(ported)
        remedy = "1/65535" if ported == rule.protocol else f"1/65535 in a rule for {names} alone"
        message = f"-1/-1 is read as every {names} port"
        _at(place, rule, "port_range").warn("every_port", message, remedy)
    return rule.port_range


def _refuse_ports(place: Field, rule: RuleFields, protocols: model.Protocols) -> None:
    """Add errors for ports on a protocol without ports (§4.2, §4.3, §12.2)."""
    portless = tuple(protocol for protocol in protocols if not protocol.has_ports)
    if rule.port_range not in (None, model.ALL_PORTS):
        others = f"-1/-1, or a rule without {protocols_text(portless)}"
        remedy = "remove the field, or write -1/-1" if portless == protocols else others
        _at(place, rule, "port_range").error("ports_do_not_fit", _have_no_ports(portless), remedy)
    if "port_list_id" in rule.given:
        takes = "they take" if len(portless) > 1 else "it takes"
        message = f"{_have_no_ports(portless)}, so {takes} no port list"
        remedy = f"remove it, or use {ported_text('or').lower()}"
        _at(place, rule, "port_list_id").error("ports_do_not_fit", message, remedy)


def _have_no_ports(portless: model.Protocols) -> str:
    return f"{protocols_text(portless)} {'have' if len(portless) > 1 else 'has'} no ports"


def _source_ports(place: Field, rule: RuleFields) -> model.PortSet:
    """Return the source ports (§4.4)."""
    if rule.source_port_range in (None, model.ALL_PORTS):
        return model.ALL_PORTS
    portless = tuple(protocol for protocol in rule.protocol or () if not protocol.has_ports)
    if portless:
        remedy = "remove the field, or write -1/-1"
        _at(place, rule, "source_port_range").error("ports_do_not_fit", _have_no_ports(portless), remedy)
    return rule.source_port_range


def _check_families(place: Field, protocols: model.Protocols, ends: RuleEnds) -> None:
    """Note an error where protocol, objects and local address are of no common family (§4.1, §4.5, §12.1).

    What prefix lists hold is not known here; ``resolve`` checks it.
    """
    wrong = [
        (protocol, some)
        for protocol in protocols
        for some in ends
        if some and protocol.only_family and _are_other_blocks(some, protocol.only_family)
    ]
    for protocol, some in wrong:
        wanted, found = ("ipv6", "ipv4") if protocol.only_family is model.Family.IPV6 else ("ipv4", "ipv6")
        remedy = f"an {wanted} address or CIDR"
        message = f"{protocol} is for {wanted} only, found an {found} address"
        if some is ends.objects and (len(some) > 1 or len(protocols) > 1):
            remedy += f" among the objects, or no {protocol}"
            message = f"{protocol} is for {wanted} only, found no {wanted} object"
        name, *_ = some[0][0]
        place.at(name).error("family_of_protocol", message, remedy)
    if ends.local and not wrong:
        _refuse_mixed(place, ends)


def _are_other_blocks(some: Iterable[values.PlacedObject], family: model.Family) -> bool:
    """Return whether all of some values are CIDRs of the other family."""
    return all(isinstance(one, model.CidrBlock) and one.family is not family for _, one in some)


def _refuse_mixed(place: Field, ends: RuleEnds) -> None:
    """Add an error for each object that is not of the local address's family.

    Of one object and one local address either may be meant; an object of a list is to agree.
    """
    ((near, local),) = ends.local
    for path, block in ends.objects:
        if isinstance(block, model.CidrBlock) and block.family is not local.family:
            meant, at, other = (local, path, near) if len(ends.objects) > 1 else (block, near, path)
            remedy = f"an {meant.family.value} address or CIDR, as in {other[0]}"
            place.at(*at).error("mixed_families", "the two ends of the rule mix IPv4 and IPv6", remedy)


def _refuse_in_drop(place: Field, ends: RuleEnds, conditions: Conditions) -> None:
    """Add an error for each name: addresses that an answer lacks would be open (§12.3); and for a limit."""
    for path, one in ends.objects:
        if isinstance(one, model.NameReference):
            message = "a drop rule can't name a host: what its name servers leave out would be open"
            place.at(*path).error("name_in_drop", message, "addresses or CIDRs, or an accept rule")
    if conditions.limit is not None:
        message = "a drop rule has no limit: it lets no session through"
        place.at("limit_per_source").error("limit_of_drop", message, "remove it, or accept")


def make_prefix_list(
    place: Field,
    prefix_list_id: str | None,
    family: model.Family | None,
    entries: Iterable[tuple[Field, model.CidrBlock | None]],
    max_entries: int = 0,
) -> model.PrefixList | None:
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
    return model.PrefixList(
        prefix_list_id=prefix_list_id,
        family=family,
        entries=values.in_order(blocks),
        max_entries=max_entries,
        origin=place.origin,
    )


def make_port_list(
    place: Field, port_list_id: str | None, entries: Iterable[tuple[Field, model.PortSet | None]]
) -> model.PortList | None:
    """Return a port list; None if it has no id. In an entry ``-1/-1`` is every port, as in a rule (§4.2)."""
    ranges: list[tuple[int, int]] = []
    for entry, ports in entries:
        entry.count_address()
        if ports == model.ALL_PORTS:
            entry.warn("every_port", "-1/-1 is read as every port", "1/65535")
        ranges += ports.ranges if ports else ()
    if port_list_id is None:
        return None
    return model.PortList(port_list_id=port_list_id, entries=model.PortSet.of(*ranges), origin=place.origin)
