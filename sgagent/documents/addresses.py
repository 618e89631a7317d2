"""Read addresses, CIDRs and the objects that rules authorize (§5.1)."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import assert_never

from sgagent.core.model import AuthorizationObject, CidrBlock, Family, GroupReference, PrefixListReference
from sgagent.documents.budget import Budget
from sgagent.documents.field import Field
from sgagent.documents.scalars import checked_account, checked_id

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
