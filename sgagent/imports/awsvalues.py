"""Read single values as AWS writes them, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.core.model import ALL_PROTOCOLS, CidrBlock, GroupReference, Protocol
from sgagent.documents.addresses import HostBits, group_reference, parse_block
from sgagent.documents.field import Field, Fields
from sgagent.documents.scalars import checked_account, parse_id, parse_protocol

_PROTOCOLS = {"-1": ALL_PROTOCOLS, "ah": Protocol(51), "esp": Protocol(50)}
"""What AWS and Terraform call otherwise than documents do."""


def entries(fields: Fields, name: str) -> Iterator[Field]:
    """Go through a list; one that is missing or null is empty."""
    found = fields.filled(name)
    if found is not None:
        yield from found.items()


def read_text(fields: Fields, *names: str) -> str:
    """Return the first of these texts that is in use; empty if none is."""
    for name in names:
        found = fields.filled(name)
        if found is not None:
            return found.text_or_digits() or ""
    return ""


def read_id(fields: Fields, *names: str) -> str | None:
    """Return the first of these ids that is in use."""
    found = next((field for name in names if (field := fields.filled(name))), None)
    return parse_id(found) if found else None


def require_id(fields: Fields, *names: str) -> str | None:
    """Return the first of these ids that is in use; an error is noted if none is."""
    if not any(fields.filled(name) for name in names):
        fields.refuse_missing(names[0])
    return read_id(fields, *names)


def read_number(fields: Fields, name: str) -> int | None:
    """Return a whole number, None where unused."""
    found = fields.filled(name)
    return found.integer() if found else None


def read_protocol(field: Field) -> Protocol | None:
    """Return a protocol."""
    text = field.text_or_digits()
    if text is None:
        return None
    return _PROTOCOLS.get(text.lower()) or parse_protocol(field)


def read_block(field: Field) -> CidrBlock | None:
    """Return the CIDR of a rule; bits behind the prefix are cleared, as AWS clears them."""
    return parse_block(field, HostBits.CLEARED)


def read_member(field: Field) -> CidrBlock | None:
    """Return an address of an interface, or a prefix that is delegated to it."""
    return parse_block(field, HostBits.REFUSED_IN_MEMBERS)


def read_group_reference(field: Field) -> GroupReference | None:
    """Return a group, written ``sg-…`` or ``account/sg-…``."""
    text = field.text()
    if text is None:
        return None
    account, slash, group = text.rpartition("/")
    checked = checked_account(field, account) if slash else None
    return group_reference(field, group, checked) if checked or not slash else None
