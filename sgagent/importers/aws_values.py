"""Parsers of single values in AWS syntax."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.model import (
    ALL_PROTOCOLS,
    LAST_PORT,
    TCP,
    UDP,
    CidrBlock,
    GroupReference,
    Protocol,
)
from sgagent.documents.field import Field, Fields
from sgagent.documents.scalars import parse_text
from sgagent.documents.tree import Node
from sgagent.documents.values import (
    HostBits,
    parse_account,
    parse_block,
    parse_id,
    parse_protocol,
)

_PROTOCOLS = {"-1": ALL_PROTOCOLS, "ah": Protocol(51), "esp": Protocol(50)}
"""Protocol names of AWS and Terraform that differ from those of documents."""


def entries(fields: Fields, name: str) -> Iterator[Field]:
    """Yield the items of a list; a missing list and null are empty."""
    found = fields.filled(name)
    if found is not None:
        yield from found.items()


def read_text(fields: Fields, *names: str) -> str:
    """Return the first text that is set; empty if none is."""
    for name in names:
        found = fields.filled(name)
        if found is not None:
            return found.text_or_digits() or ""
    return ""


def read_id(fields: Fields, *names: str) -> str | None:
    """Return the first of these ids that is in use."""
    found = next((field for name in names if (field := fields.filled(name))), None)
    return found.read(parse_id) if found else None


def require_id(fields: Fields, *names: str) -> str | None:
    """Return the first id that is set; None, with an error added, if none is."""
    if not any(fields.filled(name) for name in names):
        fields.refuse_missing(names[0])
    return read_id(fields, *names)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The two numbers of a rule, checked against its protocol."""

    first: int | None = None
    """The first port; for ICMP the type, None for every type; None for protocols without either."""

    last: int | None = None
    """The last port; for ICMP the code, None for every code."""


def read_bounds(fields: Fields, protocol: Protocol, first: str, last: str) -> Bounds | None:
    """Return ports, or the type and code of ICMP; None, with errors added, if AWS would refuse them.

    Args:
        fields: of the rule.
        protocol: of the rule. Where it has neither ports nor types AWS ignores both fields.
        first: the field with the first port or the type.
        last: the field with the last port or the code.
    """
    if protocol.has_types:
        kind, code = (_bounded(fields, name, -1, 255, _TYPES) for name in (first, last))
        return (
            None if kind is None or code is None else Bounds(*(n if n >= 0 else None for n in (kind, code)))
        )
    if protocol not in (TCP, UDP):
        written = [field for name in (first, last) if (field := fields.filled(name))]
        return Bounds() if None not in [field.integer() for field in written] else None
    low, high = (_bounded(fields, name, 0, LAST_PORT, _PORTS) for name in (first, last))
    if low is None or high is None:
        return None
    if low > high:
        field = fields.get(first) or fields.field
        field.error("reversed_ports", f"{first} is greater than {last} ({high})", f"{first} up to {last}")
        return None
    return Bounds(low, high)


_PORTS = f"a whole number from 0 to {LAST_PORT}; every port is 0 and {LAST_PORT}"
_TYPES = "a whole number from 0 to 255; -1 is every one"


def _bounded(fields: Fields, name: str, least: int, most: int, form: str) -> int | None:
    """Return a required number within bounds; None, with an error added, for any other value."""
    field = fields.filled(name)
    if field is None:
        fields.refuse_missing(name, form)
        return None
    number = field.integer()
    if number is not None and not least <= number <= most:
        field.error("port_out_of_range", "out of range", form)
        return None
    return number


def read_protocol(field: Field) -> Protocol | None:
    """Return a protocol."""
    text = field.text_or_digits()
    if text is None:
        return None
    return _PROTOCOLS.get(text.lower()) or field.read(parse_protocol)


def read_block(field: Field) -> CidrBlock | None:
    """Return the CIDR of a rule; bits behind the prefix are cleared, as AWS clears them."""
    return field.attempt(parse_block)


def read_member(field: Field) -> CidrBlock | None:
    """Return an address of an interface, or a prefix that is delegated to it."""
    return field.attempt(parse_block, HostBits.REFUSED_IN_MEMBERS)


def read_group_reference(field: Field) -> GroupReference | None:
    """Return a group, written ``sg-…`` or ``account/sg-…``."""
    return field.read(_parse_group_reference)


def _parse_group_reference(node: Node) -> GroupReference:
    account, slash, group = parse_text(node).rpartition("/")
    return GroupReference(parse_id(group), parse_account(account) if slash else None)
