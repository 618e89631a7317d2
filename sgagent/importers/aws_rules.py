"""Fields of AWS permissions, and the translation of permissions into native rules.

An AWS permission can only allow. So leaving one out, or translating it into a narrower rule, never admits
more traffic.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from sgagent.core import model
from sgagent.core.errors import Origin, printable
from sgagent.documents.field import Field
from sgagent.documents.models import FieldType
from sgagent.documents.scalars import parse_digits, parse_integer, parse_text
from sgagent.documents.tree import Node, is_set
from sgagent.documents.values import parse_account, parse_id, parse_protocol


class ImportEffect(enum.Enum):
    """The effect of the import on an object; no effect admits more traffic than before."""

    LEFT_OUT = "left out"
    """The native format has no equivalent; the traffic that the object allowed is dropped."""

    NARROWED = "narrowed"
    """The imported object allows less than the original."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One difference from the imported definitions."""

    effect: ImportEffect
    origin: Origin
    """The place of the imported object."""

    subject: str
    """The group, interface or list that it belongs to."""

    message: str
    """The difference and its reason, as a clause without a full stop."""

    def __str__(self) -> str:
        """Return the note on one line, safe to print on a terminal."""
        return printable(f"{self.effect.value}: {self.origin}: {self.subject}: {self.message}")


class Notes(list[Note]):
    """The notes of one import, in the order of their creation."""

    def add(self, effect: ImportEffect, origin: Origin, subject: str, message: str) -> None:
        """Add a note."""
        self.append(Note(effect=effect, origin=origin, subject=subject, message=message))


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsPermission:
    """One protocol and one peer that an AWS rule allows."""

    origin: Origin
    security_group_id: str
    """Of the group that holds it."""

    direction: model.Direction
    protocol: model.Protocol
    first: int | None
    """The first port; for ICMP the type, None for every type; None for protocols without either."""

    last: int | None
    """The last port; for ICMP the code, None for every code."""

    peer: model.AuthorizationObject
    peer_vpc_id: str | None = None
    """The VPC of a peer group, if the rule has it."""

    rule_id: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The other imported objects that the translation of a rule depends on."""

    vpc_of_group: Mapping[str, str | None] = field(default_factory=dict)
    account_of_group: Mapping[str, str | None] = field(default_factory=dict)
    family_of_list: Mapping[str, model.Family] = field(default_factory=dict)


def allow(allowance: AwsPermission, around: Surroundings, notes: Notes) -> model.SecurityGroupRule | None:
    """Return the equivalent rule, or a narrower one with a note; None, with a note, if there is neither."""
    fault = (
        _fault_of_types(allowance) or _fault_of_family(allowance, around) or _fault_of_vpc(allowance, around)
    )
    ports = model.ALL_PORTS if fault else _ports(allowance)
    if fault is None and ports is None:
        fault = "only port 0, which native rules can't express"
    if fault is not None or ports is None:
        notes.add(ImportEffect.LEFT_OUT, allowance.origin, allowance.security_group_id, fault or "")
        return None
    _note_what_is_less(allowance, around, notes)
    return model.SecurityGroupRule(
        rule_id=allowance.rule_id,
        direction=allowance.direction,
        policy=model.Policy.ACCEPT,
        priority=1,
        protocols=(allowance.protocol,),
        ports=ports,
        authorization_objects=(_peer(allowance, around),),
        description=allowance.description,
        origin=allowance.origin,
    )


def _fault_of_types(allowance: AwsPermission) -> str | None:
    """Return why a rule of one ICMP type is not taken: without the type it would allow every one."""
    kind, code = allowance.first, allowance.last
    if not allowance.protocol.has_types or (kind is None and code is None):
        return None
    kind, code = (-1 if number is None else number for number in (kind, code))
    return (
        f"{allowance.protocol} of type {kind} and code {code};"
        f" native rules know no types, and all of {allowance.protocol} would be more"
    )


def _fault_of_family(allowance: AwsPermission, around: Surroundings) -> str | None:
    """Return why a rule is not taken whose protocol is the other family's: it matches nothing (§4.1)."""
    only = allowance.protocol.only_family
    family = None
    match allowance.peer:
        case model.CidrBlock():
            family = allowance.peer.family
        case model.PrefixListReference(prefix_list_id):
            family = around.family_of_list.get(prefix_list_id)
        case model.GroupReference():
            pass
    if only is None or family is None or family is only:
        return None
    return f"{allowance.protocol} with {family.value} addresses, which native rules refuse"


def _fault_of_vpc(allowance: AwsPermission, around: Surroundings) -> str | None:
    """Return why a rule is not taken whose object is a group of a peered VPC (§5.2)."""
    if not isinstance(allowance.peer, model.GroupReference):
        return None
    theirs = allowance.peer_vpc_id or around.vpc_of_group.get(allowance.peer.security_group_id)
    ours = around.vpc_of_group.get(allowance.security_group_id)
    if theirs is None or ours is None or theirs == ours:
        return None
    return (
        f"{allowance.peer} belongs to {theirs}; native rules reach groups of their own VPC only (use a CIDR)"
    )


def _ports(allowance: AwsPermission) -> model.PortSet | None:
    """Return the ports, without port 0; None if nothing is left."""
    if allowance.first is None or allowance.last is None:
        return model.ALL_PORTS
    first = max(allowance.first, 1)
    return model.PortSet.of((first, allowance.last)) if first <= allowance.last else None


def _note_what_is_less(allowance: AwsPermission, around: Surroundings, notes: Notes) -> None:
    """Add a note if the native rule is narrower."""
    subject = allowance.security_group_id
    if allowance.protocol.has_ports and allowance.first == 0:
        message = "without port 0, which native rules can't express"
        notes.add(ImportEffect.NARROWED, allowance.origin, subject, message)
    missing = what_is_missing(allowance.peer, subject, around)
    if missing is not None:
        message = f"{missing}; the rule matches nothing until it is defined"
        notes.add(ImportEffect.NARROWED, allowance.origin, subject, message)


def what_is_missing(
    peer: model.AuthorizationObject, security_group_id: str, around: Surroundings
) -> str | None:
    """Return why the other end of a group's rule is unknown (§5.2, §5.3); None if it is known."""
    match peer:
        case model.GroupReference(group_id) if group_id not in around.vpc_of_group:
            return f"{peer} is not in what was read"
        case model.GroupReference(group_id):
            found = around.account_of_group.get(group_id)
            meant = peer.account_id or around.account_of_group.get(security_group_id)
            if found is not None and found != meant:
                return f"{peer} is not in what was read, where {group_id} is account {found}'s"
        case model.PrefixListReference(list_id) if list_id not in around.family_of_list:
            return f"{list_id} is not in what was read"
        case model.CidrBlock() | model.PrefixListReference():
            pass
    return None


def _peer(allowance: AwsPermission, around: Surroundings) -> model.AuthorizationObject:
    """Return the other end; a group of the rule's own account is named without it."""
    peer = allowance.peer
    own = around.account_of_group.get(allowance.security_group_id)
    if isinstance(peer, model.GroupReference) and peer.account_id == own:
        return model.GroupReference(peer.security_group_id)
    return peer


_PROTOCOLS = {"-1": model.ALL_PROTOCOLS, "ah": model.Protocol(51), "esp": model.Protocol(50)}
"""Protocol names of AWS and Terraform that differ from those of documents."""


def _parse_protocol(node: Node) -> model.Protocol:
    return _PROTOCOLS.get(parse_digits(node).lower()) or parse_protocol(node)


AwsProtocol = Annotated[model.Protocol, FieldType(_parse_protocol)]
Number = Annotated[int | None, FieldType(parse_integer)]


def parse_group(field: Field) -> model.GroupReference:
    """Return a group, written ``sg-…`` or ``account/sg-…``."""
    account, slash, group = parse_text(field.node).rpartition("/")
    return model.GroupReference(parse_id(group), parse_account(account) if slash else None)


def parse_prefix_list(field: Field) -> model.PrefixListReference:
    """Return a prefix list by its id."""
    return model.PrefixListReference(parse_id(field.node))


def permission(
    place: Field,
    security_group_id: str,
    direction: model.Direction | None,
    protocol: model.Protocol | None,
    **numbers: int | None,
) -> partial[AwsPermission] | None:
    """Return a maker of a permission of its peer; None, with errors added, if AWS would refuse the numbers.

    Args:
        place: of the rule.
        security_group_id: of the group that holds it.
        direction: of the rule.
        protocol: of the rule. Where it has neither ports nor types AWS ignores both numbers.
        numbers: the first port or the type, and the last port or the code, by the names of their fields.
    """
    if protocol is None or direction is None:
        return None
    make = partial(AwsPermission, security_group_id=security_group_id, direction=direction, protocol=protocol)
    if not (protocol.has_types or protocol.has_ports):
        return partial(make, first=None, last=None)
    known, form = (range(-1, 256), _TYPES) if protocol.has_types else (range(model.LAST_PORT + 1), _PORTS)
    low, high = (_bounded(place, name, number, known, form) for name, number in numbers.items())
    if low is None or high is None:
        return None
    if protocol.has_types:
        return partial(make, first=low if low >= 0 else None, last=high if high >= 0 else None)
    if low > high:
        first, last = numbers
        message = f"{first} is greater than {last} ({high})"
        place.at(first).error("reversed_ports", message, f"{first} up to {last}")
        return None
    return partial(make, first=low, last=high)


_PORTS = f"a whole number from 0 to {model.LAST_PORT}; every port is 0 and {model.LAST_PORT}"
_TYPES = "a whole number from 0 to 255; -1 is every one"


def _bounded(place: Field, name: str, number: int | None, known: range, form: str) -> int | None:
    """Return a required number within bounds; None, with an error added, for any other."""
    if not is_set(place.entries.get(name, "")):
        place.refuse_missing(name, form)
    elif number is not None and number not in known:
        place.at(name).error("port_out_of_range", "out of range", form)
    else:
        return number
    return None
