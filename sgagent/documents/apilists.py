"""Read the answers of DescribePrefixListAttributes and DescribePortRangeListEntries."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sgagent.documents.apifields import optional_id, refuse_part, required_id, wrapped
from sgagent.documents.collected import Collected
from sgagent.documents.field import Field, Fields
from sgagent.documents.lists import make_port_list, make_prefix_list
from sgagent.documents.scalars import FAMILIES

_ID_IN_NAME = re.compile(r"prl-[A-Za-z0-9]+")


def read_prefix_list(answer: Fields, collected: Collected) -> None:
    """Take the prefix list of an answer."""
    refuse_part(answer)
    family = answer.filled("AddressFamily")
    if family is None:
        answer.refuse_missing("AddressFamily", "IPv4 or IPv6")
    prefix_list_id = required_id(answer, "PrefixListId")
    entries = list(_values(wrapped(answer, "Entries", "Entry"), "Cidr"))
    made = make_prefix_list(answer.field, prefix_list_id, family and family.word(FAMILIES), entries)
    collected.add_prefix_list(made)


def read_port_list(answer: Fields, collected: Collected) -> None:
    """Take the port list of an answer.

    The API's answer does not repeat the id that was asked for: it is taken from a ``PortRangeListId``
    beside the entries, or from the name of a file that holds nothing else.
    """
    refuse_part(answer)
    port_list_id = optional_id(answer, "PortRangeListId") or _id_in_file_name(answer.field)
    if port_list_id is None:
        answer.refuse_missing("PortRangeListId", "add the id, or name the file after it, like prl-1.json")
    entries = answer.filled("Entries")
    values = list(_values(entries.items(), "PortRange")) if entries else []
    collected.add_port_list(make_port_list(answer.field, port_list_id, values))


def _values(items: Iterator[Field], name: str) -> Iterator[Field | None]:
    """Go through the named field of each entry."""
    for item in items:
        fields = item.fields()
        yield fields.require(name) if fields else None


def _id_in_file_name(answer: Field) -> str | None:
    """Return the id that the file is named after, if this answer is all there is in it."""
    if answer.path:
        return None
    match = _ID_IN_NAME.search(answer.reading.file.rpartition("/")[2])
    return match.group(0) if match else None
