"""Read the single values of documents into the words of the model (§1, §4, §5.1)."""

from __future__ import annotations

import re

from sgagent.core.model import (
    ALL_PROTOCOLS,
    GRE,
    ICMP,
    ICMPV6,
    LAST_PORT,
    TCP,
    UDP,
    Cloud,
    Direction,
    Family,
    GroupType,
    Policy,
    PortRange,
    Protocol,
)
from sgagent.documents.field import Field
from sgagent.documents.tree import Listing

DIRECTIONS = {"ingress": Direction.INGRESS, "egress": Direction.EGRESS}
POLICIES = {"accept": Policy.ACCEPT, "drop": Policy.DROP, "allow": Policy.ACCEPT, "deny": Policy.DROP}
GROUP_TYPES = {
    "basic": GroupType.BASIC,
    "advanced": GroupType.ADVANCED,
    "normal": GroupType.BASIC,
    "enterprise": GroupType.ADVANCED,
}
CLOUDS = {cloud.value: cloud for cloud in Cloud}
FAMILIES = {"ipv4": Family.IPV4, "ipv6": Family.IPV6}
PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPV6, "gre": GRE, "all": ALL_PROTOCOLS}

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
"""Ids become names in the kernel and label values, so they are plain."""

ACCOUNT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"
"""Accounts are digits, but some answers name the account by its login, which looks like a mail address."""

MAC_PATTERN = r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}"
PORT_PATTERN = r"(-?[0-9]{1,9})(?:[/-](-?[0-9]{1,9}))?"
PORT_FORMS = "443, 443/443, 8000-8100 or -1/-1, from 1 to 65535"

EVERY_PORT: tuple[PortRange, ...] = ()
"""What ``-1/-1`` is read as: every port, and no port at all."""

FIRST_UNUSUAL_PRIORITY = 101
_LAST_PRIORITY = 2**31 - 1

_ID = re.compile(ID_PATTERN)
_ACCOUNT = re.compile(ACCOUNT_PATTERN)
_MAC = re.compile(MAC_PATTERN)
_PORTS = re.compile(PORT_PATTERN)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,2}")


def parse_id(field: Field) -> str | None:
    """Return the id of an object."""
    text = field.text()
    return None if text is None else checked_id(field, text)


def checked_id(field: Field, text: str) -> str | None:
    """Return the text if it can be an id; else None, with an error noted."""
    if _ID.fullmatch(text):
        return text
    field.error("bad_id", "not an id", "at most 128 letters, digits and . _ : -, a letter or digit first")
    return None


def parse_account(field: Field) -> str | None:
    """Return an account id; a whole number is read as its digits."""
    text = field.text_or_digits()
    return None if text is None else checked_account(field, text)


def checked_account(field: Field, text: str) -> str | None:
    """Return the text if it can name an account; else None, with an error noted."""
    if _ACCOUNT.fullmatch(text):
        return text
    field.error("bad_id", "not an account id", "the digits of the account")
    return None


def parse_mac(field: Field) -> str | None:
    """Return a MAC address in lower case with colons."""
    text = field.text()
    if text is None:
        return None
    if _MAC.fullmatch(text):
        return text.lower().replace("-", ":")
    field.error(
        "bad_mac_address", "not a MAC address", "six pairs of hexadecimal digits, like 00:16:3e:00:00:01"
    )
    return None


def parse_protocol(field: Field) -> Protocol | None:
    """Return a protocol by its name in any letter case, or by its IANA number (§4.1)."""
    text = field.text_or_digits()
    if text is None:
        return None
    by_name = PROTOCOLS.get(text.lower())
    if by_name is not None:
        return by_name
    if _NUMBER.fullmatch(text) and int(text) <= 255:
        return Protocol(int(text))
    field.error(
        "bad_protocol", "not a protocol", "tcp, udp, icmp, icmpv6, gre, all, or a number from 0 to 255"
    )
    return None


def checked_priority(field: Field, priority: int | None) -> int | None:
    """Return a priority that can be ordered; above 100 with a warning (§4.6)."""
    if priority is None:
        return None
    if not 1 <= priority <= _LAST_PRIORITY:
        field.error("bad_priority", "not a priority", "a whole number from 1, the most urgent, to 100")
        return None
    if priority >= FIRST_UNUSUAL_PRIORITY:
        field.warn(
            "priority_above_100", "a priority that the cloud no longer takes", "a whole number from 1 to 100"
        )
    return priority


def parse_ports(field: Field) -> tuple[PortRange, ...] | None:
    """Return the ports that a value or a list of values names, sorted; ``-1/-1`` is every port (§4.2)."""
    if not isinstance(field.node, Listing):
        single = parse_port_range(field)
        return None if single is None else _sorted([single])
    found = [parse_port_range(item) for item in field.items()]
    if not found:
        field.error("bad_port_range", "no ports at all", PORT_FORMS)
        return None
    ranges = [ports for ports in found if ports is not None]
    return _sorted(ranges) if len(ranges) == len(found) else None


def parse_port_range(field: Field) -> tuple[PortRange, ...] | None:
    """Return the ports of a single value: one range, or :data:`EVERY_PORT`."""
    text = field.text_or_digits()
    if text is None:
        return None
    match = _PORTS.fullmatch(text)
    if match is None:
        field.error("bad_port_range", "not a port range", PORT_FORMS)
        return None
    first = int(match.group(1))
    last = first if match.group(2) is None else int(match.group(2))
    return _checked_range(field, first, last, is_pair=match.group(2) is not None)


def _checked_range(field: Field, first: int, last: int, *, is_pair: bool) -> tuple[PortRange, ...] | None:
    """Return a range whose ends are in order and in bounds."""
    if first == last == -1 and is_pair:
        return EVERY_PORT
    if not (1 <= first <= LAST_PORT and 1 <= last <= LAST_PORT):
        field.error("port_out_of_range", "a port out of range", PORT_FORMS)
        return None
    if first > last:
        field.error("reversed_ports", "the first port is greater than the last", f"{last}/{first}")
        return None
    return (PortRange(first, last),)


def _sorted(found: list[tuple[PortRange, ...]]) -> tuple[PortRange, ...]:
    """Return all ranges once, in order; every port if one of them is that."""
    if EVERY_PORT in found:
        return EVERY_PORT
    return tuple(sorted({ports for ranges in found for ports in ranges}))
