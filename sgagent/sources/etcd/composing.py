"""Put together what keys hold, as native documents: an object in each, a group with its members.

What a document is made of decides whether it is made again: the object's key, and the group's members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

from sgagent.core.errors import DocumentError, Origin, Problem, Severity
from sgagent.core.memory import Memory
from sgagent.documents import DocumentFile
from sgagent.documents.writing import as_json
from sgagent.sources.etcd.folders import Folder, FolderName
from sgagent.sources.etcd.layout import GROUPS, INTERFACES, PORT_LISTS, PREFIX_LISTS, Layout
from sgagent.sources.etcd.members import MemberReader, Members
from sgagent.sources.etcd.messages import KeyValue
from sgagent.sources.etcd.references import read_json


@dataclass(frozen=True, slots=True)
class Composed:
    """What was read, as native documents."""

    documents: tuple[DocumentFile, ...]
    """In the order of keys."""

    problems: tuple[Problem, ...] = ()
    """Warnings."""


class Composer:
    """Put documents together, one time after the other."""

    def __init__(self, layout: Layout) -> None:
        """Start without having read anything."""
        self._layout = layout
        self._members = MemberReader(layout)
        self._memory = Memory()

    def compose(self, folders: Mapping[FolderName, Folder], is_whole: Callable[[str], bool]) -> Composed:
        """Return what was read as documents; the very same as before of what did not change.

        Args:
            folders: what was read.
            is_whole: tells of a group whether its rules count.

        Raises:
            DocumentError: a key holds another object than its name says.
        """
        self._memory.turn()
        members = self._members.read(folders)
        written = [
            self._written(kind, item, members, is_whole)
            for kind in sorted(_LIST_OF)
            for item in folders.get((kind,), ())
        ]
        mismatches = [one.mismatch for one in written if one.mismatch is not None]
        if mismatches:
            raise DocumentError(mismatches)
        head = DocumentFile(f"etcd:{self._layout.root}", b'{"version":1}')
        problems = chain.from_iterable(members[group].problems for group in sorted(members))
        return Composed((head, *(one.document for one in written)), tuple(problems))

    def _written(
        self,
        kind: str,
        item: KeyValue,
        members: Mapping[str, Members],
        is_whole: Callable[[str], bool],
    ) -> _Written:
        name = self._layout.relative(item.key).removeprefix(f"{kind}/")
        own = members.get(name) if kind == GROUPS else None
        given = (item, own, kind != GROUPS or is_whole(name))
        return self._memory.recall(given, partial(_write, kind, name, *given))


@dataclass(frozen=True, slots=True)
class _Written:
    """A key's document, and what is wrong with its name."""

    document: DocumentFile
    mismatch: Problem | None = None


_LIST_OF = {
    GROUPS: ("security_groups", "security_group_id"),
    INTERFACES: ("network_interfaces", "network_interface_id"),
    PREFIX_LISTS: ("prefix_lists", "prefix_list_id"),
    PORT_LISTS: ("port_lists", "port_list_id"),
}
"""Where in a document objects of a kind stand, and the field with their id."""


def _write(kind: str, name: str, item: KeyValue, members: Members | None, is_whole: bool) -> _Written:  # noqa: FBT001 - what it depends on, as it is remembered
    """Return the document of a key."""
    list_name, id_name = _LIST_OF[kind]
    read = read_json(item.value)
    if read is None:  # whose errors are told when it is parsed
        return _Written(DocumentFile(f"etcd:{item.key}.json", item.value))
    mismatch = None if read.get(id_name) == name else _mismatch(item, read.get(id_name))
    if kind == GROUPS:
        read = _with_members(read, members, is_whole=is_whole)
    content = as_json({"version": 1, list_name: [read]})
    return _Written(DocumentFile(f"etcd:{item.key}", content), mismatch)


def _with_members(read: dict[str, object], members: Members | None, *, is_whole: bool) -> dict[str, object]:
    """Return a group with its members as its own addresses, and without rules that do not count.

    As addresses they can be bound to no link, whoever announced them.
    """
    own = read.get("member_addresses", [])
    kept = read if is_whole else {name: value for name, value in read.items() if name != "rules"}
    others = members.addresses if members is not None else ()
    return {**kept, "member_addresses": [*own, *others]} if isinstance(own, list) else kept


def _mismatch(item: KeyValue, found: object) -> Problem:
    """Return the error of a key that holds another object than its name says."""
    return Problem(
        severity=Severity.ERROR,
        code="key_mismatch",
        origin=Origin(file=f"etcd:{item.key}"),
        message="the key holds another object than its name says",
        value=str(found),
        remedy="publish with 'sgagent publish', or name the key as the object",
    )
