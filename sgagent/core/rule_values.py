"""Values of a rule as text: several in canonical order (§12.1, §12.2), its end (§12.4), numbers, ids."""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import datetime

from sgagent.core.model import (
    PORTED,
    AuthorizationObject,
    AuthorizationObjects,
    CidrBlock,
    Family,
    GroupReference,
    NameReference,
    PrefixListReference,
    Protocols,
    SecurityGroupRule,
)

FAMILY_NAMES = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
"""As messages write them."""


def protocols_text(protocols: Protocols) -> str:
    """Return protocols in words: ``tcp``, or ``tcp, udp``."""
    return ", ".join(map(str, protocols))


def ported_text(conjunction: str) -> str:
    """Return the protocols whose ports rules may name, in words: ``TCP and UDP``."""
    *others, last = (str(protocol).upper() for protocol in PORTED)
    return f"{', '.join(others)} {conjunction} {last}"


ANY = "any"
"""What documents write for :data:`EVERYTHING` (§12.1)."""

EVERYTHING: AuthorizationObjects = tuple(
    CidrBlock(family, 0, family.last_address, prefix_length=0) for family in Family
)
"""All addresses of both families."""


def canonical_objects(objects: Iterable[AuthorizationObject]) -> AuthorizationObjects:
    """Return each object once: IPv4 blocks, IPv6 blocks, groups, prefix lists, names."""
    return tuple(sorted(set(objects), key=_object_order))


def _object_order(one: AuthorizationObject) -> tuple[int, int, int, str]:
    match one:
        case CidrBlock(family=family, first=first, prefix_length=length):
            return family.bits, first, length, ""
        case GroupReference() | PrefixListReference() | NameReference():
            return 256 + _REFERENCES.index(type(one)), 0, 0, str(one)


_REFERENCES: tuple[type[AuthorizationObject], ...] = (GroupReference, PrefixListReference, NameReference)


def objects_text(objects: AuthorizationObjects) -> str:
    """Return objects in words: ``10.0.0.0/8``, ``10.0.0.0/8, sg-app``, or ``any``."""
    return ANY if objects == EVERYTHING else ", ".join(map(str, objects))


_FEW_OBJECTS = 4


def few_objects(text: str) -> str:
    """Return a text of objects for tables and sentences: the first ones, and how many more there are."""
    names = text.split(", ")
    rest = len(names) - _FEW_OBJECTS
    return text if rest <= 1 else f"{', '.join(names[:_FEW_OBJECTS])} and {rest} more"


def has_ended(rule: SecurityGroupRule, at: datetime | None) -> bool:
    """Return whether a rule has ended at a time (§12.4); without a time none has."""
    return rule.expires is not None and at is not None and rule.expires <= at


def is_timed(rule: SecurityGroupRule) -> bool:
    """Return whether time ends a rule (§12.4), or switches it on and off (§13.2)."""
    return rule.expires is not None or rule.conditions.are_timed


def end_text(rule: SecurityGroupRule) -> str | None:
    """Return a rule's end in RFC 3339, in UTC; None for one that never ends (§12.4)."""
    return None if rule.expires is None else instant_text(rule.expires)


def instant_text(instant: datetime) -> str:
    """Return an instant in RFC 3339, in UTC."""
    return instant.isoformat().replace("+00:00", "Z")


def decimal(text: str, last: int) -> int | None:
    """Return the number from 0 to the last that ASCII digits write; None for anything else, however long."""
    is_short = text.isascii() and text.isdigit() and len(text) <= len(str(last))
    return int(text) if is_short and int(text) <= last else None


def free_id(wanted: str, taken: Container[str]) -> str:
    """Return an id that nothing has: the wanted one, else with the first number that makes it free."""
    found, number = wanted, 2
    while found in taken:
        found, number = f"{wanted}-{number}", number + 1
    return found
