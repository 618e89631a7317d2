"""Make prefix lists and port lists of their entries, however they were written (§1.4)."""

from __future__ import annotations

from collections.abc import Iterable

from sgagent.core.model import LAST_PORT, CidrBlock, Family, PortList, PortRange, PrefixList
from sgagent.documents.addresses import HostBits, in_order, parse_block
from sgagent.documents.field import Field
from sgagent.documents.scalars import EVERY_PORT, parse_port_range


def make_prefix_list(
    place: Field, prefix_list_id: str | None, family: Family | None, entries: Iterable[Field | None]
) -> PrefixList | None:
    """Return a prefix list; None, with every error noted, if something about it is wrong."""
    blocks = {block for entry in entries if entry and (block := _prefix(entry, family))}
    if prefix_list_id is None or family is None:
        return None
    return PrefixList(
        prefix_list_id=prefix_list_id, family=family, entries=in_order(blocks), origin=place.origin
    )


def make_port_list(
    place: Field, port_list_id: str | None, entries: Iterable[Field | None]
) -> PortList | None:
    """Return a port list; None, with every error noted, if something about it is wrong."""
    ranges = {ports for entry in entries if entry and (ports := _ports(entry))}
    if port_list_id is None:
        return None
    return PortList(port_list_id=port_list_id, entries=tuple(sorted(ranges)), origin=place.origin)


def _prefix(entry: Field, family: Family | None) -> CidrBlock | None:
    """Return an entry of a prefix list, which must be of the list's family (§8.1)."""
    block = parse_block(entry, HostBits.CLEARED)
    if block is None or family is None or block.family is family:
        return block
    entry.error(
        "mixed_families",
        f"an {block.family.value} entry in an {family.value} list",
        f"an {family.value} CIDR",
    )
    return None


def _ports(entry: Field) -> PortRange | None:
    """Return an entry of a port list; ``-1/-1`` is every port, as in a rule (§4.2)."""
    entry.count_address()
    ports = parse_port_range(entry)
    if ports == EVERY_PORT:
        entry.warn("every_port", "-1/-1 is read as every port", "1/65535")
        return PortRange(0, LAST_PORT)
    return ports[0] if ports else None
