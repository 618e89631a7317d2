"""Tables as the kernel dumps them: netlink messages to chains, programs and sets."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sgagent.nft import ruleset as nft
from sgagent.nft.attributes import (
    COMMENT,
    HEADER,
    UnreadableError,
    by_kind,
    each,
    messages,
    number,
    text,
    user_data,
)
from sgagent.nft.buckets import strange_bucket
from sgagent.nft.expression_reader import OBJECTS as OBJECT_KINDS, read_expression, split_expressions
from sgagent.nft.expressions import Expression, NamedStatement
from sgagent.nft.fields import FAMILY_KEY, KEY_TYPES
from sgagent.nft.program import statements_of
from sgagent.nft.registers import ProgramStatement
from sgagent.nft.sets import (
    INTERVAL,
    LINK_TYPES,
    MAP,
    METER,
    VERDICT_TYPE,
    ElementReader,
    KernelSet,
)

FAULTS = (UnreadableError, IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error)
"""What a part of a dump that is not understood may raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRule:
    """A rule, in the kernel's instructions."""

    handle: int = 0
    content: bytes = b""
    """Of all expressions."""

    has_comment: bool = False
    oddity: str | None = None
    """The part of the rule itself that is not understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelHook:
    """Where the kernel calls a base chain."""

    kind: str
    """``filter``, ``nat`` or ``route``."""

    name: str
    """``prerouting`` …, ``ingress`` or ``egress`` of links; empty for a hook that sgagent does not know."""

    priority: int
    drops: bool
    """Whether the policy is not accept."""

    has_devices: bool
    """Whether it is called for the packets of some links only."""

    devices: tuple[str, ...] = ()
    """Of hooks of single links; a name that ends in ``*`` is a prefix."""

    @property
    def is_for_filters(self) -> bool:
        """Return whether all packets of the hook pass the chain, which only decides about them."""
        return self.kind == "filter" and self.name in _HOOKS_OF_IP and not self.has_devices


@dataclass(slots=True, kw_only=True, eq=False)
class KernelChain:
    """A chain."""

    name: str
    hook: KernelHook | None = None
    comment: str = ""
    is_of_rule: bool = False
    """Whether it belongs to the rule that leads there."""

    oddity: str | None = None
    """The part of it that is not understood."""

    rules: list[KernelRule] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFlowTable:
    """A flow table."""

    name: str
    devices: tuple[str, ...]
    """A name that ends in ``*`` is a prefix."""


@dataclass(slots=True, kw_only=True, eq=False)
class KernelTable:
    """All that a table consists of."""

    family: str
    """``ip``, ``ip6``, ``inet``, ``netdev``, ``bridge``, ``arp``."""

    name: str
    is_dormant: bool = False
    is_owned: bool = False
    is_persistent: bool = False
    oddity: str | None = None
    """The part of the table itself that is not understood."""

    chains: list[KernelChain] = field(default_factory=list)
    sets: dict[str, KernelSet] = field(default_factory=dict)
    counters: list[nft.Counter] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)
    """Kind and name of other objects."""

    flow_tables: list[KernelFlowTable] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        """Return whether it is the table of sgagent."""
        return (self.family, self.name) == (nft.FAMILY, nft.TABLE)

    def __str__(self) -> str:
        """Return family and name, as nft writes them."""
        return f"{self.family} {self.name}"


_FAMILIES: Mapping[int, str] = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_SUBSYSTEM = 10


def read_tables(dump: bytes) -> list[KernelTable]:
    """Return the tables of a dump, in the order in which the kernel lists them.

    Raises:
        UnreadableError: it is no dump of tables.
    """
    read = _DumpReader()
    for kind, start, stop in messages(dump):
        if kind >> 8 == _SUBSYSTEM and kind & 0xFF in _MESSAGES:
            family = _FAMILIES.get(dump[start], str(dump[start]))
            name, take = _MESSAGES[kind & 0xFF]
            given = by_kind(dump, start + 4, stop)
            take(read, read.table(family, text(given[name])), given)
    return list(read.tables.values())


class _DumpReader:
    """Collect the objects of messages."""

    def __init__(self) -> None:
        """Start without tables."""
        self.tables: dict[tuple[str, str], KernelTable] = {}
        self._chains: dict[tuple[str, str, str], KernelChain] = {}
        self._elements = ElementReader()

    def table(self, family: str, name: str) -> KernelTable:
        """Return the table that a message is about."""
        return self.tables.setdefault((family, name), KernelTable(family=family, name=name))

    def take_table(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Add the attributes of the table itself."""
        flags = number(given.get(2, b""))
        table.is_dormant = bool(flags & _DORMANT)
        table.is_owned, table.is_persistent = bool(flags & _OWNER), bool(flags & _PERSIST)
        if flags & ~(_DORMANT | _OWNER | _PERSIST) or not given.keys() <= {1, 2, 3, 4, 5, 6, 7}:
            table.oddity = "a flag of the table"

    def take_chain(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in a chain."""
        chain = KernelChain(name=text(given[3]))
        flags = number(given.get(10, b""))
        chain.is_of_rule = bool(flags & _OF_RULE)
        try:
            chain.comment = text(user_data(given.get(12, b"")).get(COMMENT, b""))
            chain.hook = _hook(table.family, given) if 4 in given else None
        except FAULTS as error:
            chain.oddity = str(error)
        if flags & ~(_BASE | _OF_RULE) or not given.keys() <= {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12}:
            chain.oddity = "a flag of the chain"
        self._add_chain(table, chain)

    def _add_chain(self, table: KernelTable, chain: KernelChain) -> KernelChain:
        table.chains.append(chain)
        self._chains[table.family, table.name, chain.name] = chain
        return chain

    def take_rule(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in a rule; the chains come before, but for one that was added in between."""
        oddity = None if given.keys() <= {1, 2, 3, 4, 6, 7, 8} else "an attribute of a rule"
        name = text(given[2])
        chain = self._chains.get((table.family, table.name, name)) or self._add_chain(
            table, KernelChain(name=name, oddity="a chain that is not listed")
        )
        handle, content = number(given.get(3, b"")), given.get(4, b"")
        chain.rules.append(KernelRule(handle=handle, content=content, has_comment=7 in given, oddity=oddity))

    def take_set(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in a set or a map, without its elements."""
        one = _kernel_set(given)
        table.sets[one.name] = one

    def take_elements(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in elements; their sets come before."""
        one, listed = table.sets[text(given[2])], given.get(3, b"")
        if one.flags != METER:
            self._elements.read(one, listed)
        elif one.strange_bucket is None:
            try:
                one.strange_bucket = strange_bucket(one.name, listed)
            except FAULTS as error:
                one.oddity = str(error)

    def take_object(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in a stateful object."""
        name, kind = text(given[2]), OBJECT_KINDS.get(number(given[3]), "object")
        if kind != "counter":
            table.others.append((kind, name))
            return
        try:
            comment = text(user_data(given.get(8, b"")).get(COMMENT, b""))
        except UnreadableError:
            table.others.append(("counter", name))
        else:
            table.counters.append(nft.Counter(name=name, comment=comment))

    def take_flowtable(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in a flow table."""
        name = text(given[2])
        table.others.append(("flowtable", name))
        table.flow_tables.append(
            KernelFlowTable(name=name, devices=_devices(by_kind(given.get(3, b"")), several=3))
        )


_DORMANT, _OWNER, _PERSIST = 0x1, 0x2, 0x4
_BASE, _OF_RULE = 0x1, 0x4

_Take = Callable[[_DumpReader, KernelTable, Mapping[int, bytes]], None]
_MESSAGES: Mapping[int, tuple[int, _Take]] = {
    0: (1, _DumpReader.take_table),
    3: (1, _DumpReader.take_chain),
    6: (1, _DumpReader.take_rule),
    9: (1, _DumpReader.take_set),
    12: (1, _DumpReader.take_elements),
    18: (1, _DumpReader.take_object),
    22: (1, _DumpReader.take_flowtable),
}
"""By the kind of a message, which attribute names the table, and what takes it in."""

_HOOKS_OF_IP = ("prerouting", "input", "forward", "output", "postrouting")
_HOOKS_OF_LINKS = ("ingress", "egress")
_HOOKS_OF_ARP = ("input", "output", "forward")
_HOOKS = {"netdev": _HOOKS_OF_LINKS, "arp": _HOOKS_OF_ARP}
_ACCEPT = 1


def _hook(family: str, given: Mapping[int, bytes]) -> KernelHook:
    """Return where a base chain is called."""
    where = by_kind(given[4])
    place = number(where[1])
    names = _HOOKS.get(family, (*_HOOKS_OF_IP, "ingress"))
    return KernelHook(
        kind=text(given[7]),
        name=names[place] if place < len(names) else "",
        priority=int.from_bytes(where[2], "big", signed=True),
        drops=number(given.get(5, b"\0\0\0\1")) != _ACCEPT,
        has_devices=where.keys() != {1, 2},
        devices=_devices(where, several=4, one=3),
    )


def _devices(hook: Mapping[int, bytes], *, several: int, one: int | None = None) -> tuple[str, ...]:
    """Return the names of the links of a hook, by the attributes that hold them."""
    found = [] if one is None or one not in hook else [text(hook[one])]
    listed = hook.get(several, b"")
    for kind, start, stop in each(listed):
        found.append(text(listed[start:stop]) + "*" * (kind == _DEVICE_PREFIX))
    return tuple(dict.fromkeys(found))


_DEVICE_PREFIX = 2


_SET_COMMENT, _MERGES = 7, 2
_SIZE, _FIELDS = 1, 2
_TIMEOUT = 11
_TYPE_BITS = 6


def _kernel_set(given: Mapping[int, bytes]) -> KernelSet:
    oddity, size = None, None
    lengths: tuple[int, ...] = ()
    has_particulars = number(given.get(8, b"")) != 0
    try:
        description = by_kind(given.get(9, b""))
        lengths = tuple(_field_lengths(description.get(_FIELDS, b"")))
        beside = user_data(given.get(13, b""))
        is_merging = any(beside.get(_MERGES, b""))
        size = number(description[_SIZE]) if _SIZE in description else None
        has_particulars |= _SET_COMMENT in beside or is_merging
    except FAULTS as error:
        oddity = str(error)
    flags = number(given.get(3, b""))
    if not given.keys() <= {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 16, 19, 20} | (
        {_TIMEOUT} if flags == METER else set()
    ):
        oddity = "an attribute of a set"
    return KernelSet(
        name=text(given[2]),
        flags=flags,
        key_length=number(given[5]),
        key_types=_key_types(number(given.get(4, b""))),
        is_of_links=number(given.get(4, b"")) in LINK_TYPES and not flags & INTERVAL,
        field_lengths=lengths,
        is_verdict_map=bool(flags & MAP) and number(given.get(6, b"")) == VERDICT_TYPE,
        has_particulars=has_particulars or (size is not None and flags != METER),
        oddity=oddity,
        size=size,
        timeout=number(given[_TIMEOUT]) if _TIMEOUT in given else None,
    )


def _field_lengths(listed: bytes) -> Iterator[int]:
    for _, start, stop in each(listed):
        yield number(by_kind(listed, start, stop)[1])


def _key_types(code: int) -> tuple[nft.KeyType, ...] | None:
    """Return the types of the fields of a key; nft puts their numbers into one."""
    found: list[nft.KeyType] = []
    while code:
        key_type = KEY_TYPES.get(code & (1 << _TYPE_BITS) - 1)
        if key_type is None:
            return None
        found.append(key_type)
        code >>= _TYPE_BITS
    return tuple(reversed(found)) or None


class ProgramReader:
    """Read the programs of a table's rules; equal instructions and equal rules are read once."""

    def __init__(self, table: KernelTable) -> None:
        """Read rules of one table."""
        self._sets = table.sets
        self._given = _KNOWN.get(table.family, ())
        self._expressions: dict[bytes, Expression] = {}
        self._rules: dict[bytes, tuple[ProgramStatement, ...]] = {}

    def statements(self, rule: KernelRule) -> tuple[ProgramStatement, ...]:
        """Return the statements of a rule.

        Raises:
            UnreadableError: something is not understood; names it.
        """
        if rule.oddity is not None:
            raise UnreadableError(rule.oddity)
        found = self._rules.get(rule.content)
        if found is None:
            found = statements_of(self.expressions(rule), self._sets, self._given)
            self._rules[rule.content] = found
        return found

    def expressions(self, rule: KernelRule) -> Iterator[Expression]:
        """Yield the instructions of a rule.

        Raises:
            UnreadableError: they are cut off.
        """
        known = self._expressions
        for content in split_expressions(rule.content):
            if content.startswith(_COUNTER):  # it differs from rule to rule
                yield NamedStatement("counter")
                continue
            found = known.get(content)
            if found is None:
                found = known[content] = read_expression(content)
            yield found


_COUNTER = HEADER.pack(12, 1) + b"counter\0"
_KNOWN = {"ip": ((FAMILY_KEY, 2),), "ip6": ((FAMILY_KEY, 10),)}
"""What is known of all packets of a table, by its family."""
