"""Composition of native documents from keys: one object in each, a group with its members.

Each document is memoized by the key of its object and the members of its group.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.core.memo import Memo, Seam
from sgagent.documents import DocumentFile
from sgagent.documents.writer import as_json
from sgagent.sources.etcd.keys import (
    GROUPS,
    INTERFACES,
    MEMBERS,
    PORT_LISTS,
    PREFIX_LISTS,
    Folder,
    FolderName,
    KeyLayout,
    read_json,
)
from sgagent.sources.etcd.messages import KeyValue

MOST_ANNOUNCED = 64
"""Addresses that a host may announce for one interface."""

_PARTS = 3
"""Parts of a member's key: the kind, its group, and its name."""

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one group, and warnings about invalid ones."""

    addresses: tuple[str, ...]
    """In the order of keys."""

    problems: tuple[Problem, ...]


class MemberReader:
    """Reader of members, which parses each value of a key once."""

    def __init__(self, layout: KeyLayout) -> None:
        """Start with an empty cache."""
        self._layout = layout
        self._memo = Memo()

    def read(self, folders: Mapping[FolderName, Folder]) -> Mapping[str, Members]:
        """Return the members of each group; the identical object for an unchanged group."""
        self._memo.turn()
        named = {name[1]: folder for name, folder in folders.items() if name[0] == MEMBERS}
        return {group: self._members(group, folder) for group, folder in named.items()}

    def _members(self, group: str, folder: Folder) -> Members:
        memo = self._memo.part(Seam.PARSE_CACHE, group)

        def read() -> Members:
            found = memo.each("addresses", self._addresses, folder)
            pairs = zip(folder, found, strict=True)
            return Members(
                addresses=tuple(chain.from_iterable(filter(None, found))),
                problems=tuple(_not_a_member(item) for item, addresses in pairs if addresses is None),
            )

        return memo.get("members", (folder,), read)

    def _addresses(self, item: KeyValue) -> tuple[str, ...] | None:
        is_named = len(self._layout.parts(item.key)) == _PARTS
        return read_member(item.value, is_announced=item.lease != 0) if is_named else None


def read_member(value: bytes, *, is_announced: bool) -> tuple[str, ...] | None:
    """Return the addresses of a member; None for an invalid value.

    Args:
        value: the value of its key.
        is_announced: whether the key has a lease, so that a host wrote it; a host may announce only a few
            single addresses, and no network.
    """
    try:
        fields = json.loads(value)
        texts = fields["addresses"]
        if fields.keys() != {"addresses"} or not isinstance(texts, list):
            return None
        networks = [ipaddress.ip_network(text) for text in texts if isinstance(text, str)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    is_bounded = not is_announced or (
        len(texts) <= MOST_ANNOUNCED and all(network.num_addresses == 1 for network in networks)
    )
    if len(networks) != len(texts) or not is_bounded or any(map(_is_strange, networks)):
        return None
    return tuple(map(_text, networks))


def _text(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(network.network_address if network.num_addresses == 1 else network)


def _is_strange(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Return whether documents would refuse the address: one with a zone, or an IPv4-mapped one."""
    return isinstance(network, ipaddress.IPv6Network) and (
        network.network_address.scope_id is not None or network.subnet_of(_MAPPED)
    )


def _not_a_member(item: KeyValue) -> Problem:
    return Problem(
        severity=Severity.WARNING,
        code="not_a_member",
        origin=Origin(file=f"etcd:{item.key}"),
        message="not the value of a group member; the member is left out",
        value=item.value.decode(errors="replace"),
        remedy='like {"addresses":["10.0.0.11"]}; single addresses where a host announces itself',
    )


@dataclass(frozen=True, slots=True)
class Composed:
    """The native documents of all keys."""

    documents: tuple[DocumentFile, ...]
    """In the order of keys."""

    problems: tuple[Problem, ...] = ()
    """Warnings."""


class Composer:
    """Composer of documents, with a cache between calls."""

    def __init__(self, layout: KeyLayout) -> None:
        """Start with an empty cache."""
        self._layout = layout
        self._members = MemberReader(layout)
        self._memo = Memo()

    def compose(self, folders: Mapping[FolderName, Folder], is_whole: Callable[[str], bool]) -> Composed:
        """Return the keys as documents; the identical objects for unchanged keys.

        Args:
            folders: the keys.
            is_whole: returns whether a group's document includes its rules.

        Raises:
            DocumentError: the id in a value differs from the name of its key.
        """
        members = self._members.read(folders)
        written: list[_Written] = []
        for kind in sorted(_LIST_OF):
            folder = folders.get((kind,), ())
            ids = [self._layout.relative(item.key).removeprefix(f"{kind}/") for item in folder]
            own = [members.get(name) if kind == GROUPS else None for name in ids]
            whole = [kind != GROUPS or is_whole(name) for name in ids]
            written += self._memo.each(kind, partial(_write, kind, self._layout), folder, own, whole)
        mismatches = [one.mismatch for one in written if one.mismatch is not None]
        if mismatches:
            raise DocumentError(mismatches)
        head = DocumentFile(f"etcd:{self._layout.root}", b'{"version":1}')
        problems = chain.from_iterable(members[group].problems for group in sorted(members))
        return Composed((head, *(one.document for one in written)), tuple(problems))


@dataclass(frozen=True, slots=True)
class _Written:
    """The document of a key, and the error that its name does not match."""

    document: DocumentFile
    mismatch: Problem | None = None


_LIST_OF = {
    GROUPS: ("security_groups", "security_group_id"),
    INTERFACES: ("network_interfaces", "network_interface_id"),
    PREFIX_LISTS: ("prefix_lists", "prefix_list_id"),
    PORT_LISTS: ("port_lists", "port_list_id"),
}
"""The list and the id field of each kind of object in a document."""


def _write(
    kind: str,
    layout: KeyLayout,
    item: KeyValue,
    members: Members | None,
    is_whole: bool,  # noqa: FBT001 - positional, as in the memo's key
) -> _Written:
    """Return the document of a key."""
    name = layout.relative(item.key).removeprefix(f"{kind}/")
    list_name, id_name = _LIST_OF[kind]
    read = read_json(item.value)
    if read is None:  # the parser will report the errors
        return _Written(DocumentFile(f"etcd:{item.key}.json", item.value))
    mismatch = None if read.get(id_name) == name else _mismatch(item, read.get(id_name))
    if kind == GROUPS:
        read = _with_members(read, members, is_whole=is_whole)
    content = as_json({"version": 1, list_name: [read]})
    return _Written(DocumentFile(f"etcd:{item.key}", content), mismatch)


def _with_members(read: dict[str, object], members: Members | None, *, is_whole: bool) -> dict[str, object]:
    """Return a group with its members as ``member_addresses``; without its rules unless ``is_whole``.

    A member in ``member_addresses`` is not an interface. So an announced member can't bind a link.
    """
    own = read.get("member_addresses", [])
    kept = read if is_whole else {name: value for name, value in read.items() if name != "rules"}
    others = members.addresses if members is not None else ()
    return {**kept, "member_addresses": [*own, *others]} if isinstance(own, list) else kept


def _mismatch(item: KeyValue, found: object) -> Problem:
    """Return the error that the id in a value differs from the name of its key."""
    return Problem(
        severity=Severity.ERROR,
        code="key_mismatch",
        origin=Origin(file=f"etcd:{item.key}"),
        message="the id of the object differs from the name of its key",
        value=str(found),
        remedy="publish with 'sgagent publish', or name the key as the object",
    )
