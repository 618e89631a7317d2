"""Parsers of single values of documents into model values (§1, §4, §5.1)."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import assert_never

from sgagent.core.model import (
    ALL_PORTS,
    LAST_PORT,
    PROTOCOL_NAMES,
    AuthorizationObject,
    CidrBlock,
    Cloud,
    Direction,
    Family,
    GroupReference,
    GroupType,
    Policy,
    PortSet,
    PrefixListReference,
    Protocol,
)
from sgagent.documents.field import Field
from sgagent.documents.findings import Budget
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
PROTOCOLS = {name: protocol for protocol, name in PROTOCOL_NAMES.items()}

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
"""Ids become names in the kernel and label values, so they are plain."""

ACCOUNT_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"
"""Accounts are digits, but some answers name the account by its login, which looks like a mail address."""

MAC_PATTERN = r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}"
PORT_PATTERN = r"(-?[0-9]{1,9})(?:[/-](-?[0-9]{1,9}))?"
PORT_FORMS = "443, 443/443, 8000-8100 or -1/-1, from 1 to 65535"

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
    field.error("bad_protocol", "not a protocol", f"{', '.join(PROTOCOLS)}, or a number from 0 to 255")
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


def parse_ports(field: Field) -> PortSet | None:
    """Return the ports that a value or a list of values names; ``-1/-1`` is every port (§4.2)."""
    if not isinstance(field.node, Listing):
        return parse_port_range(field)
    found = [parse_port_range(item) for item in field.items()]
    if not found:
        field.error("bad_port_range", "no ports at all", PORT_FORMS)
        return None
    ranges = [ports for ports in found if ports is not None]
    return PortSet.union(ranges) if len(ranges) == len(found) else None


def parse_port_range(field: Field) -> PortSet | None:
    """Return the ports of a single value: one range, or every port."""
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


def _checked_range(field: Field, first: int, last: int, *, is_pair: bool) -> PortSet | None:
    """Return a range whose ends are in order and in bounds."""
    if first == last == -1 and is_pair:
        return ALL_PORTS
    if not (1 <= first <= LAST_PORT and 1 <= last <= LAST_PORT):
        field.error("port_out_of_range", "a port out of range", PORT_FORMS)
        return None
    if first > last:
        field.error("reversed_ports", "the first port is greater than the last", f"{last}/{first}")
        return None
    return PortSet.of((first, last))


BLOCK_FORMS = "an address or a CIDR"
OBJECT_FORMS = "an address, a CIDR, sg-…, account/sg-… or pl-…"

_ENDS = attrgetter("first", "last")
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}(?:/(3[0-2]|[12]?[0-9]))?")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(?:/(?:0|[1-9][0-9]{0,2}))?")
_FOREIGN_GROUP = re.compile(r"([^/]+)/(sg-.*)", re.DOTALL)
_MAPPED = CidrBlock.parse("::ffff:0:0/96")


class HostBits(enum.Enum):
    """What becomes of a CIDR in which bits behind the prefix are set."""

    CLEARED = "cleared"
    """With a warning: the network is meant (§5.1)."""

    REFUSED = "refused"
    """Where nobody reads warnings, as in the configuration."""

    REFUSED_IN_MEMBERS = "refused in members"
    """In an interface's or member's address, clearing them would make members of a whole network (§5.3)."""


def parse_block(field: Field, host_bits: HostBits, forms: str = BLOCK_FORMS) -> CidrBlock | None:
    """Return an address or CIDR; None, with an error noted that names the right forms, if it is neither."""
    field.count_address()
    text = field.text()
    if text is None:
        return None
    known = field.reading.budget.blocks.get(text)
    return known or _parse_text(field, text, host_bits, forms)


def parse_members(field: Field) -> Iterator[CidrBlock]:
    """Go through a list of addresses that make members, in which host bits are errors (§5.3)."""
    nodes, budget = field.nodes(), field.reading.budget
    has_room = budget.has_room_for(0, len(nodes))
    for index, node in enumerate(nodes):
        block = _plain_address(node, budget) if has_room and isinstance(node, str) else None
        block = block or parse_block(field.child(index, node), HostBits.REFUSED_IN_MEMBERS)
        if block is not None:
            yield block


def parse_network(field: Field) -> CidrBlock | None:
    """Return an address or CIDR of the configuration."""
    return parse_block(field, HostBits.REFUSED)


def parse_object(field: Field) -> AuthorizationObject | None:
    """Return the other end that a rule authorizes."""
    text = field.text()
    if text is None:
        return None
    if text.startswith("sg-"):
        return group_reference(field, text)
    if text.startswith("pl-"):
        prefix_list_id = checked_id(field, text)
        return PrefixListReference(prefix_list_id) if prefix_list_id else None
    foreign = _FOREIGN_GROUP.fullmatch(text)
    if foreign is not None:
        account = checked_account(field, foreign.group(1))
        return group_reference(field, foreign.group(2), account) if account else None
    return parse_block(field, HostBits.CLEARED, OBJECT_FORMS)


def group_reference(field: Field, text: str, account: str | None = None) -> GroupReference | None:
    """Return a reference to a group, of an account where one is given."""
    security_group_id = checked_id(field, text)
    return GroupReference(security_group_id, account) if security_group_id else None


def in_order(blocks: Iterable[CidrBlock]) -> tuple[CidrBlock, ...]:
    """Return each block once, sorted, IPv4 first."""
    found = tuple(blocks)
    of_family = ({_ENDS(block): block for block in found if block.family is family} for family in Family)
    return tuple(some[ends] for some in of_family for ends in sorted(some))


def _plain_address(text: str, budget: Budget) -> CidrBlock | None:
    """Return an IPv4 address, which is counted; None for what takes a closer look."""
    block = budget.blocks.get(text)
    if block is None:
        try:
            one, two, three, four = text.split(".")
            address = _OCTETS[one] << 24 | _OCTETS[two] << 16 | _OCTETS[three] << 8 | _OCTETS[four]
        except (KeyError, ValueError):
            return None
        block = budget.blocks[text] = CidrBlock(Family.IPV4, address, address, 32)
    budget.addresses += 1
    return block


_OCTETS = {str(number): number for number in range(256)}


def _parse_text(field: Field, text: str, host_bits: HostBits, forms: str) -> CidrBlock | None:
    """Return a block that was not met before, and remember it if nothing is wrong with it."""
    if "%" in text:
        field.error("zone_id", "an address with a zone", "the address alone, without %…")
        return None
    try:
        address, block = _address_and_block(text)
    except ValueError:
        field.error("bad_address", "not an address", forms)
        return None
    if block.family is Family.IPV6 and _MAPPED.first <= block.first and block.last <= _MAPPED.last:
        field.error("mapped_address", "an IPv4 address in IPv6 clothes", "the IPv4 address itself")
        return None
    if address == block.first:
        field.reading.budget.blocks[text] = block
        return block
    return _without_host_bits(field, block, host_bits)


def _address_and_block(text: str) -> tuple[int, CidrBlock]:
    """Return an address as a number, and the block that it is written in; netmasks are not taken."""
    ipv4 = _IPV4.fullmatch(text)
    if ipv4 is not None:  # by far the most common
        one, two, three, four, length = ipv4.groups()
        address = int(one) << 24 | int(two) << 16 | int(three) << 8 | int(four)
        return address, CidrBlock.around(Family.IPV4, address, 32 if length is None else int(length))
    if ":" not in text or _IPV6.fullmatch(text) is None:
        raise ValueError(text)
    interface = ipaddress.IPv6Interface(text)
    return int(interface.ip), CidrBlock.of(interface.network)


def _without_host_bits(field: Field, block: CidrBlock, host_bits: HostBits) -> CidrBlock | None:
    """Return the network of a CIDR that had host bits set, or refuse it."""
    match host_bits:
        case HostBits.CLEARED:
            field.warn("host_bits", "host bits are set; they are cleared", f"{block}")
            return block
        case HostBits.REFUSED:
            field.error("host_bits", "host bits are set", f"{block}")
        case HostBits.REFUSED_IN_MEMBERS:
            field.error(
                "host_bits",
                "host bits are set in a member's address",
                f"the address alone, or {block} if the whole network is delegated to it",
            )
        case _:
            assert_never(host_bits)
    return None
