"""Rules, prefix lists and port lists of native and API documents, if their fields agree (§4, §8.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from sgagent.core import model
from sgagent.core.conditions import NO_CONDITIONS, Conditions
from sgagent.core.rule_values import canonical_objects, ported_text, protocols_text
from sgagent.documents.field import Field
from sgagent.documents.values import FIRST_UNUSUAL_PRIORITY, PORT_FORMS, in_order

T = TypeVar("T")


class Part(NamedTuple, Generic[T]):
    """A field of a rule with its name."""

    name: str
    value: T | None
    """None if the field has an error, which the findings already hold."""

    place: int | None = None
    """In the list, where it is an item of one."""


@dataclass(slots=True, kw_only=True)
class RuleForm:
    """The fields of a rule, each parsed alone; None for a missing field.

    It is not frozen, because making one for each rule takes half the time then.
    """

    place: Field
    rule_id: str
    """Empty if the document has none."""

    direction: model.Direction | None
    policy: model.Policy | None
    priority: Part[int]
    """Of a field that is missing, what it is then."""

    protocols: model.Protocols | None
    ports: Part[model.PortSet] | None
    port_list: Part[str] | None
    source_ports: Part[model.PortSet] | None
    objects: tuple[Part[model.AuthorizationObject], ...] | None
    """None, or none at all, if the field is missing or has an error."""

    local: Part[model.CidrBlock] | None
    description: str
    expires: datetime | None = None
    conditions: Conditions = NO_CONDITIONS


def make_rule(form: RuleForm) -> model.SecurityGroupRule | None:
    """Return the rule; None, with every error added, if fields are wrong or contradict each other.

    A rule without an id keeps an empty one; :func:`~sgagent.documents.assembly.assemble` derives it (§4.7).
    """
    ports = _destination_ports(form)
    source_ports = _source_ports(form)
    _check_families(form)
    _refuse_names_in_drop(form)
    _refuse_limit_of_drop(form)
    _refuse_local_inwards(form)
    objects = [part.value for part in form.objects or () if part.value is not None]
    priority = form.priority.value
    if priority is not None and priority >= FIRST_UNUSUAL_PRIORITY:
        message = "the cloud accepts no priority above 100"
        form.place.at(form.priority.name).warn("priority_above_100", message, "a whole number from 1 to 100")
    if form.direction is None or form.policy is None or form.protocols is None:
        return None
    if priority is None or ports is None or not objects:
        return None
    return model.SecurityGroupRule(
        rule_id=form.rule_id,
        direction=form.direction,
        policy=form.policy,
        priority=priority,
        protocols=form.protocols,
        ports=ports,
        authorization_objects=canonical_objects(objects),
        source_ports=source_ports,
        local_address=form.local.value if form.local else None,
        expires=form.expires,
        conditions=form.conditions,
        description=form.description,
        origin=form.place.origin,
    )


def _destination_ports(form: RuleForm) -> model.PortSet | model.PortListReference | None:
    """Return the destination ports, checked against the protocols (§4.2, §4.3, §12.2)."""
    if form.protocols is None:
        return None
    ported = tuple(protocol for protocol in form.protocols if protocol.has_ports)
    if len(ported) < len(form.protocols):
        _refuse_ports(form, form.protocols)
    if not ported:
        return model.ALL_PORTS
    if form.ports is not None:
        return _port_range(form, form.ports, ported)
    if form.port_list is None:
        forms = PORT_FORMS if ported == form.protocols else str(model.ALL_PORTS)
        message = f"a {protocols_text(ported)} rule needs a port range or a port list"
        if ported != form.protocols:
            message = f"a rule with {protocols_text(ported)} needs a port range"
        form.place.error("missing_ports", message, forms)
        return None
    return model.PortListReference(form.port_list.value) if form.port_list.value else None


def _port_range(form: RuleForm, ports: Part[model.PortSet], ported: model.Protocols) -> model.PortSet | None:
    """Return the port range of protocols with ports; a port range overrides a port list (§4.3)."""
    if form.port_list is not None:
        message = "the port list is ignored, because there is a port range too"
        form.place.at(form.port_list.name).warn("port_list_ignored", message, "remove one of the two")
    if ports.value == model.ALL_PORTS:
        names = protocols_text(ported)
        remedy = "1/65535" if ported == form.protocols else f"1/65535 in a rule for {names} alone"
        form.place.at(ports.name).warn("every_port", f"-1/-1 is read as every {names} port", remedy)
    return ports.value


def _refuse_ports(form: RuleForm, protocols: model.Protocols) -> None:
    """Add errors for ports on a protocol without ports (§4.2, §4.3, §12.2)."""
    portless = tuple(protocol for protocol in protocols if not protocol.has_ports)
    if form.ports is not None and form.ports.value not in (None, model.ALL_PORTS):
        others = f"-1/-1, or a rule without {protocols_text(portless)}"
        remedy = "remove the field, or write -1/-1" if portless == protocols else others
        form.place.at(form.ports.name).error("ports_do_not_fit", _have_no_ports(portless), remedy)
    if form.port_list is not None:
        takes = "they take" if len(portless) > 1 else "it takes"
        message = f"{_have_no_ports(portless)}, so {takes} no port list"
        remedy = f"remove it, or use {ported_text('or').lower()}"
        form.place.at(form.port_list.name).error("ports_do_not_fit", message, remedy)


def _have_no_ports(portless: model.Protocols) -> str:
    return f"{protocols_text(portless)} {'have' if len(portless) > 1 else 'has'} no ports"


def _source_ports(form: RuleForm) -> model.PortSet:
    """Return the source ports (§4.4)."""
    if form.source_ports is None or form.source_ports.value in (None, model.ALL_PORTS):
        return model.ALL_PORTS
    portless = tuple(protocol for protocol in form.protocols or () if not protocol.has_ports)
    if portless:
        place, remedy = form.place.at(form.source_ports.name), "remove the field, or write -1/-1"
        place.error("ports_do_not_fit", _have_no_ports(portless), remedy)
    return form.source_ports.value


def _check_families(form: RuleForm) -> None:
    """Note an error where protocol, objects and local address are of no common family (§4.1, §4.5, §12.1).

    What prefix lists hold is not known here; ``resolve`` checks it.
    """
    objects = form.objects or ()
    ends = [parts for parts in (objects, (form.local,) if form.local else ()) if parts]
    wrong = [
        (protocol, parts[0])
        for protocol in form.protocols or ()
        for parts in ends
        if protocol.only_family and _are_other_blocks(parts, protocol.only_family)
    ]
    for protocol, part in wrong:
        wanted, found = ("ipv6", "ipv4") if protocol.only_family is model.Family.IPV6 else ("ipv4", "ipv6")
        remedy = f"an {wanted} address or CIDR"
        message = f"{protocol} is for {wanted} only, found an {found} address"
        if part is not form.local and (len(objects) > 1 or len(form.protocols or ()) > 1):
            remedy += f" among the objects, or no {protocol}"
            message = f"{protocol} is for {wanted} only, found no {wanted} object"
        form.place.at(part.name).error("family_of_protocol", message, remedy)
    local = form.local.value if form.local and not wrong else None
    for part in objects if local else ():
        if isinstance(part.value, model.CidrBlock) and local and part.value.family is not local.family:
            _refuse_mixed(form, part, part.value, local)


def _refuse_names_in_drop(form: RuleForm) -> None:
    """Add an error for each name in a drop rule: addresses that an answer lacks would be open (§12.3)."""
    for part in form.objects or () if form.policy is model.Policy.DROP else ():
        if isinstance(part.value, model.NameReference):
            path = (part.name,) if part.place is None else (part.name, part.place)
            message = "a drop rule can't name a host: what its name servers leave out would be open"
            form.place.at(*path).error("name_in_drop", message, "addresses or CIDRs, or an accept rule")


def _refuse_limit_of_drop(form: RuleForm) -> None:
    """Add an error for a limit of a drop rule, which lets no session through anyway (§13.1)."""
    if form.conditions.limit is not None and form.policy is model.Policy.DROP:
        message = "a drop rule has no limit: it lets no session through"
        form.place.at("limit_per_source").error("limit_of_drop", message, "remove it, or accept")


def _refuse_local_inwards(form: RuleForm) -> None:
    """Add an error for a local end of an ingress rule: where packets come in no socket is known (§13.3)."""
    if form.conditions.local is not None and form.direction is model.Direction.INGRESS:
        message = "an ingress rule has no local: which socket a packet is for is not known where it comes in"
        form.place.at("local").error("local_inwards", message, "remove it, or egress")


def _refuse_mixed(
    form: RuleForm, part: Part[model.AuthorizationObject], block: model.CidrBlock, local: model.CidrBlock
) -> None:
    """Add the error that an object is not of the local address's family.

    Of one object and one local address either may be meant; an object of a list is to agree.
    """
    message, name = "the two ends of the rule mix IPv4 and IPv6", form.local.name if form.local else ""
    if len(form.objects or ()) == 1:
        remedy = f"an {block.family.value} address or CIDR, as in {part.name}"
        form.place.at(name).error("mixed_families", message, remedy)
    else:
        remedy = f"an {local.family.value} address or CIDR, as in {name}"
        path = (part.name,) if part.place is None else (part.name, part.place)
        form.place.at(*path).error("mixed_families", message, remedy)


def _are_other_blocks(parts: Iterable[Part[Any]], family: model.Family) -> bool:
    """Return whether all of some values are CIDRs of the other family."""
    return all(isinstance(part.value, model.CidrBlock) and part.value.family is not family for part in parts)


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
        entries=in_order(blocks),
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
