"""Parsers of single values of documents into model values (§1, §4, §5.1); ``scalars`` defines the types."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from operator import attrgetter

from sgagent.core.errors import nearest
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    LAST_PORT,
    PROTOCOL_NAMES,
    AuthorizationObject,
    AuthorizationObjects,
    CidrBlock,
    Cloud,
    Direction,
    Family,
    GroupReference,
    GroupType,
    NameReference,
    Policy,
    PortSet,
    PrefixListReference,
    Protocol,
    Protocols,
)
from sgagent.core.rule_values import ANY, EVERYTHING
from sgagent.documents import scalars
from sgagent.documents.field import Field
from sgagent.documents.misspellings import console_word, object_slip, ports_slip
from sgagent.documents.problems import Budget
from sgagent.documents.tree import Listing, Node, Scalar

FORMAT_VERSION = 1
"""Of the native format."""

DIRECTIONS = {"ingress": Direction.INGRESS, "egress": Direction.EGRESS}
POLICIES = {"accept": Policy.ACCEPT, "drop": Policy.DROP, "allow": Policy.ACCEPT, "deny": Policy.DROP}
GROUP_TYPES = {
    "basic": GroupType.BASIC,
    "advanced": GroupType.ADVANCED,
    "normal": GroupType.BASIC,
    "enterprise": GroupType.ADVANCED,
}
DEFAULT_GROUP_TYPE = GroupType.BASIC
"""What a native document without a type means."""

UNKNOWN_GROUP_TYPE = GroupType.ADVANCED
"""What a group is read as whose type the cloud or a tool did not deliver: it admits least."""

CLOUDS = {cloud.value: cloud for cloud in Cloud}
FAMILIES = {"ipv4": Family.IPV4, "ipv6": Family.IPV6}
PROTOCOLS = {name: protocol for protocol, name in PROTOCOL_NAMES.items()}

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
"""Ids become names in the kernel and label values, so they are plain."""

ACCOUNT_PATTERN = r"(?![0-9]+[.eE][0-9eE+-]*$)[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"
"""Accounts are digits, but some answers name the account by its login, which looks like a mail address.

A number with a fraction or an exponent, which YAML reads as a text here, is none.
"""

MAC_PATTERN = r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}"
_DECIMAL = "0|-?[1-9][0-9]{0,8}"
PORT_PATTERN = rf"({_DECIMAL})(?:[/-]({_DECIMAL}))?"
_MINUTE = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
INSTANT_PATTERN = (
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[Tt ]({_MINUTE}):([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-]{_MINUTE})"
)
"""Of RFC 3339."""

PORT_FORMS = "443, 443/443, 8000-8100 or -1/-1, from 1 to 65535"

FIRST_UNUSUAL_PRIORITY = 101
LAST_PRIORITY = 2**31 - 1

_ID = re.compile(ID_PATTERN)
_ACCOUNT = re.compile(ACCOUNT_PATTERN)
_MAC = re.compile(MAC_PATTERN)
_PORTS = re.compile(PORT_PATTERN)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,2}")
_INSTANT = re.compile(INSTANT_PATTERN)


_ID_FORM = "at most 128 letters, digits and . _ : -, a letter or digit first"
_MAC_FORM = "six pairs of hexadecimal digits, like 00:16:3e:00:00:01"
_PROTOCOL_FORM = f"{', '.join(PROTOCOLS)}, or a number from 0 to 255"
_INSTANT_FORM = "2026-12-31T18:00:00+01:00, or 2026-12-31T17:00:00Z"
_PRIORITY_FORM = "a whole number from 1, the most urgent, to 100"


def parse_id(node: Node) -> str:
    """Return the id of an object."""
    remedy = "put it in quotes" if isinstance(node, Scalar) else _ID_FORM
    text = node if isinstance(node, str) else scalars.parse_text(node, "an id", remedy)
    if _ID.fullmatch(text):
        return text
    raise scalars.invalid("bad_id", "not an id", _ID_FORM)


def parse_group_id(node: Node) -> str:
    """Return the id of a security group, which no rule that names it may read as another object."""
    text = parse_id(node)
    readings = {
        "a prefix list": text.startswith("pl-"),
        "every address": text.lower() == ANY,
        "a host name": text.lower().startswith(_NAME_PREFIX),
        "an address": _is_address(text),
    }
    for reading, is_read_so in readings.items():
        if is_read_so:
            message = f"a rule would read this id as {reading}"
            raise scalars.invalid("bad_id", message, "another id, like sg-web")
    return text


def parse_account(node: Node) -> str:
    """Return an account id; a whole number is read as its digits."""
    text = scalars.parse_digits(node, "an account id", "the digits of the account")
    if _ACCOUNT.fullmatch(text):
        return text
    raise scalars.invalid("bad_id", "not an account id", "the digits of the account")


def parse_mac(node: Node) -> str:
    """Return a MAC address in lower case with colons."""
    text = scalars.parse_text(node, "a MAC address", _MAC_FORM)
    if _MAC.fullmatch(text):
        return text.lower().replace("-", ":")
    raise scalars.invalid("bad_mac_address", "not a MAC address", _MAC_FORM)


def parse_protocol(node: Node) -> Protocol:
    """Return a protocol by its name in any letter case, or by its IANA number (§4.1)."""
    text = node if isinstance(node, str) else scalars.parse_digits(node, "a protocol", _PROTOCOL_FORM)
    by_name = PROTOCOLS.get(text) or PROTOCOLS.get(text.lower())
    if by_name is not None:
        return by_name
    if _NUMBER.fullmatch(text) and int(text) <= 255:
        return Protocol(int(text))
    fault = scalars.slipped("bad_protocol", console_word(text), "not a protocol", _PROTOCOL_FORM)
    raise scalars.InvalidValueError(fault)


def parse_single_protocol(node: Node) -> Protocols:
    """Return a protocol where a list of them is no value."""
    return (parse_protocol(node),)


def parse_protocols(node: Node) -> Protocols:
    """Return the protocols that a value or a list of values names, sorted (§12.2)."""
    if not isinstance(node, Listing):
        return parse_single_protocol(node)
    if not node.items:
        raise scalars.invalid("bad_protocol", "the list of protocols is empty", _PROTOCOL_FORM)
    found = scalars.parse_each(enumerate(node.items), parse_protocol)
    faults: list[scalars.Fault] = []
    for place, protocol in enumerate(found):
        if protocol in found[:place]:
            message = f"{protocol} is given twice"
            faults.append(scalars.Fault("duplicate_protocol", message, "remove one of the two", (place,)))
    if ALL_PROTOCOLS in found and len(set(found)) > 1:
        message = f"{ALL_PROTOCOLS} stands for the others, too"
        remedy, place = f"{ALL_PROTOCOLS} alone, or the others alone", found.index(ALL_PROTOCOLS)
        faults.append(scalars.Fault("protocol_beside_all", message, remedy, (place,)))
    if faults:
        raise scalars.InvalidValueError(*faults)
    return tuple(sorted(found))


def parse_priority(node: Node) -> int:
    """Return a priority that can be ordered (§4.6)."""
    return _ordered(scalars.parse_integer(node, "a priority"))


def parse_priority_or_text(node: Node) -> int:
    """Return a priority, which API answers write as a number or as a text."""
    text = scalars.parse_digits(node, "a priority", _PRIORITY_FORM)
    if not re.fullmatch(_DECIMAL, text):
        raise scalars.invalid("bad_priority", "not a priority", _PRIORITY_FORM)
    return _ordered(int(text))


def _ordered(priority: int) -> int:
    if 1 <= priority <= LAST_PRIORITY:
        return priority
    raise scalars.invalid("bad_priority", "not a priority", _PRIORITY_FORM)


def parse_instant(node: Node) -> datetime:
    """Return an instant of RFC 3339, which has an offset, in UTC; a leap second is the second before."""
    text = scalars.parse_text(node, "an instant", _INSTANT_FORM)
    match = _INSTANT.fullmatch(text)
    if match is None:
        message = "an instant without an offset" if _INSTANT.fullmatch(f"{text}Z") else "not an instant"
        raise scalars.invalid("bad_instant", message, _INSTANT_FORM)
    date, minute, second, fraction, offset = match.groups()
    second = "59" if second == "60" else second
    microseconds = f"{(fraction or '.')[1:7]:0<6}"
    offset = "+00:00" if offset in "Zz" else offset
    try:
        return datetime.fromisoformat(f"{date}T{minute}:{second}.{microseconds}{offset}").astimezone(UTC)
    except OverflowError:
        raise scalars.invalid("bad_instant", "outside the years 1 to 9999 in UTC", _INSTANT_FORM) from None
    except ValueError:
        raise scalars.invalid("bad_instant", "a day that no calendar has", _INSTANT_FORM) from None


def parse_ports(node: Node) -> PortSet:
    """Return the ports that a value or a list of values names; ``-1/-1`` is every port (§4.2)."""
    if not isinstance(node, Listing):
        return parse_port_range(node)
    if not node.items:
        raise scalars.invalid("bad_port_range", "the list of ports is empty", PORT_FORMS)
    return PortSet.union(scalars.parse_each(enumerate(node.items), parse_port_range))


def parse_port_range(node: Node) -> PortSet:
    """Return the ports of a single value: one range, or every port."""
    text = scalars.parse_digits(node, "a port range", PORT_FORMS)
    match = _PORTS.fullmatch(text)
    if match is None:
        fault = scalars.slipped("bad_port_range", ports_slip(text), "not a port range", PORT_FORMS)
        raise scalars.InvalidValueError(fault)
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if first == last == -1 and match[2]:
        return ALL_PORTS
    if not (1 <= first <= LAST_PORT and 1 <= last <= LAST_PORT):
        raise scalars.invalid(
            "port_out_of_range", "the port is out of range", f"{PORT_FORMS}; ICMP has -1/-1"
        )
    if first > last:
        raise scalars.invalid("reversed_ports", "the first port is greater than the last", f"{last}/{first}")
    return PortSet.of((first, last))


BLOCK_FORMS = "an address or a CIDR"
OBJECT_FORMS = "an address, a CIDR, any, sg-…, account/sg-…, pl-…, dns:… or a group's id in these documents"
_NAME_FORM = "a whole name like dns:mirror.example.org"
_NAME_PREFIX = "dns:"
_HOST_NAME = re.compile(r"(?:[^\s./:]+\.)+[A-Za-z][A-Za-z0-9-]*\.?")
_NAME = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_LONGEST_NAME = 253
_DISPUTED = re.compile("[\u00df\u1e9e\u03c2\u200c\u200d]")
"""Sharp s, final sigma, joiners: IDNA 2003 and 2008 make different punycode of them."""

_ADDRESS_LIKE = re.compile(r"[0-9.]+(?:[^0-9A-Za-z.].*)?|[0-9A-Fa-f]*:.*", re.DOTALL)

_ENDS = attrgetter("first", "last")
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}(?:/(3[0-2]|[12]?[0-9]))?")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(?:/(?:0|[1-9][0-9]{0,2}))?")
_FOREIGN_GROUP = re.compile(r"([^/]+)/(sg-.*)", re.DOTALL)
_MAPPED = CidrBlock.parse("::ffff:0:0/96")


def parse_block(field: Field) -> CidrBlock:
    """Return an address or CIDR, which is counted; host bits are cleared with a warning (§5.1)."""
    block, has_host_bits = _counted_block(field)
    if has_host_bits:
        field.warn("host_bits", "host bits are set; they are cleared", f"{block}")
    return block


def parse_member(field: Field) -> CidrBlock:
    """Return an address or CIDR that makes members; cleared host bits would make more of them (§5.3)."""
    block, has_host_bits = _counted_block(field)
    if has_host_bits:
        remedy = f"the address alone, or {block} if the whole network is delegated to it"
        raise scalars.invalid("host_bits", "host bits are set in a member's address", remedy)
    return block


def parse_network(node: Node) -> CidrBlock:
    """Return an address or CIDR of the configuration, where host bits are errors."""
    block, has_host_bits = _parse_address(scalars.parse_text(node, "an address", BLOCK_FORMS))
    if has_host_bits:
        raise scalars.invalid("host_bits", "host bits are set", f"{block}")
    return block


def _counted_block(field: Field) -> tuple[CidrBlock, bool]:
    """Return an address or CIDR, and whether it has host bits."""
    field.count_address()
    blocks = field.reading.budget.blocks
    known = blocks.get(field.node) if isinstance(field.node, str) else None
    if known is not None:
        return known, False
    text = scalars.parse_text(field.node, "an address", BLOCK_FORMS)
    block, has_host_bits = _parse_address(text)
    if not has_host_bits:
        blocks[text] = block
    return block, has_host_bits


def parse_members(field: Field) -> Iterator[CidrBlock]:
    """Go through a list of addresses that make members, in which host bits are errors (§5.3)."""
    nodes, budget = field.nodes(), field.reading.budget
    has_room = budget.has_room_for(0, len(nodes))
    for index, node in enumerate(nodes):
        block = _plain_address(node, budget) if has_room and isinstance(node, str) else None
        block = block or field.child(index, node).attempt(parse_member)
        if block is not None:
            yield block


Path = tuple[str | int, ...]
"""Names and indices from one value to another."""

PlacedObject = tuple[Path, AuthorizationObject]
"""With its place in the list, where it is in one."""


def parse_objects(field: Field) -> tuple[PlacedObject, ...]:
    """Return the other end that a rule authorizes: one object or a list of them (§12.1).

    Raises:
        InvalidValueError: one has none of the forms of an object, or there is none.
    """
    if not isinstance(field.node, Listing):
        return tuple(((), one) for one in _parse_object(field))
    if not field.node.items:
        raise scalars.invalid("missing_object", "the list of objects is empty", OBJECT_FORMS)
    found = scalars.parse_each(enumerate(field.items()), _parse_object)
    return tuple(((place,), one) for place, several in enumerate(found) for one in several)


def _parse_object(field: Field) -> AuthorizationObjects:
    """Return the objects of one text: two if it is ``any``."""
    text = scalars.parse_text(field.node, "an authorization object", OBJECT_FORMS)
    if text.lower() == ANY:
        field.count_address()
        return EVERYTHING
    return (_parse_single_object(field, text),)


def _parse_single_object(field: Field, text: str) -> AuthorizationObject:
    if "sg-" in text and (slip := object_slip(text)):
        raise scalars.InvalidValueError(scalars.slipped("bad_address", slip, "not an object", OBJECT_FORMS))
    if text.startswith("sg-"):
        return GroupReference(parse_id(text))
    if text.startswith("pl-"):
        return PrefixListReference(parse_id(text))
    if text.lower().startswith(_NAME_PREFIX):
        field.count_address()
        return _parse_name(field, text)
    foreign = _FOREIGN_GROUP.fullmatch(text)
    if foreign is None:
        return _block_or_plain_id(field, text)
    account = parse_account(foreign[1])
    return GroupReference(parse_id(foreign[2]), account)


def _parse_name(field: Field, text: str) -> NameReference:
    """Return a name that the DNS resolves (§12.3); a warning names the Unicode text of one with punycode."""
    written = text[len(_NAME_PREFIX) :]
    name = canonical_name(written)
    disputed = _DISPUTED.search(written)
    if disputed:
        fault = f"standards make different punycode of U+{ord(disputed[0]):04X}, so of different names"
        raise scalars.invalid("bad_name", fault, "the punycode that is meant, like dns:xn--….example")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise scalars.InvalidValueError(_malformed_name(written, name))
    try:
        unicode = ".".join(map(_in_unicode, name.split(".")))
    except UnicodeError:
        raise scalars.invalid("bad_name", "xn-- begins a label that is no punycode", _NAME_FORM) from None
    if not written.isascii():
        field.warn("unicode_name", f"{written} is written as its punycode", f"{NameReference(name)}")
    elif unicode != name:
        field.warn(
            "unicode_name", f"the name is {unicode}, in Unicode", "make sure that it is the one you mean"
        )
    return NameReference(name)


def _malformed_name(written: str, name: str) -> scalars.Fault:
    fault, remedy = "not a host name", _NAME_FORM
    if _is_address(written):
        fault, remedy = "an address, which needs no name server", written
    elif "*" in name:
        fault = "a wildcard; the DNS has no list of the names that it stands for"
    elif ":" in name or "/" in name:
        fault, remedy = "a host name with a port or path", "the name alone, like dns:mirror.example.org"
    elif "." not in name.strip("."):
        fault = "not fully qualified: each host would look it up in a domain of its own"
    return scalars.Fault("bad_name", fault, remedy)


def _in_unicode(label: str) -> str:
    return label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") else label


def canonical_name(text: str) -> str:
    """Return a name in lower case without the final dot, and in punycode unless a label has none."""
    with suppress(UnicodeError):
        is_plain = text.isascii() or len(text) > _LONGEST_NAME  # no name, and slow to encode
        text = text if is_plain else text.encode("idna").decode("ascii")
    return text.lower().removesuffix(".")


def _block_or_plain_id(field: Field, text: str) -> CidrBlock | GroupReference:
    """Return an address or CIDR, else a group by its id; ``assemble`` refuses an id that no group has."""
    try:
        return parse_block(field)
    except scalars.InvalidValueError as error:
        if error.faults[0].code != "bad_address":
            raise
    if _ID.fullmatch(text):
        return GroupReference(text)
    raise scalars.InvalidValueError(no_object(text))


def is_meant_as_address(text: str) -> bool:
    """Return whether a text that could be a group's id looks like an address or a host name."""
    return bool(_ADDRESS_LIKE.fullmatch(text) or _HOST_NAME.fullmatch(text))


def no_object(text: str, groups: Iterable[str] = ()) -> scalars.Fault:
    """Return the fault of an object that has none of the forms, and the id of none of the groups."""
    if slip := object_slip(text):
        return scalars.slipped("bad_address", slip, "not an address", OBJECT_FORMS)
    if _HOST_NAME.fullmatch(text):
        is_name = _NAME.fullmatch(text.removesuffix(".")) or not text.isascii()
        message = "a host name without dns: before it"
        return scalars.Fault("bad_address", message, f"{_NAME_PREFIX}{text}" if is_name else _NAME_FORM)
    if _ADDRESS_LIKE.fullmatch(text):
        return scalars.Fault("bad_address", "not an address", OBJECT_FORMS)
    message = "not an address, and no security group of the documents has this id"
    near = nearest(text, groups)
    return scalars.Fault("bad_address", message, f"did you mean {near[0]}?" if near else OBJECT_FORMS)


def in_order(blocks: Iterable[CidrBlock]) -> tuple[CidrBlock, ...]:
    """Return each block once, sorted, IPv4 first."""
    found = tuple(blocks)
    of_family = ({_ENDS(block): block for block in found if block.family is family} for family in Family)
    return tuple(some[ends] for some in of_family for ends in sorted(some))


def _plain_address(text: str, budget: Budget) -> CidrBlock | None:
    """Return an IPv4 address, which is counted; None for any other text."""
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


def _parse_address(text: str) -> tuple[CidrBlock, bool]:
    """Return the block that a text names, and whether it has host bits."""
    if "%" in text:
        raise scalars.invalid("zone_id", "an address can't have a zone", "remove % and what follows")
    try:
        address, block = _address_and_block(text)
    except ValueError:
        fault = scalars.slipped("bad_address", object_slip(text), "not an address", BLOCK_FORMS)
        raise scalars.InvalidValueError(fault) from None
    if block.family is Family.IPV6 and _MAPPED.first <= block.first and block.last <= _MAPPED.last:
        raise scalars.invalid("mapped_address", "an IPv4-mapped IPv6 address", "write the IPv4 address")
    return block, address != block.first


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


def _is_address(text: str) -> bool:
    try:
        _address_and_block(text)
    except ValueError:
        return False
    return True
