"""A table as the kernel dumps it: netlink messages to chains, programs and sets, and those to our table.

Objects that sgagent never makes, or that the decoder can't read, are named and left to the plan to remove.
Nothing that another process puts into the table can make the decoder fail.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from sgagent.nft import ruleset as nft
from sgagent.nft.attributes import COMMENT, UnreadableError, by_kind, each, messages, number, text, user_data
from sgagent.nft.expressions import (
    OBJECTS as OBJECT_KINDS,
    Expression,
    SetLookUp,
    read_expression,
    split_expressions,
)
from sgagent.nft.fields import FAMILY_KEY, KEY_TYPES
from sgagent.nft.program import statements_of
from sgagent.nft.registers import ProgramStatement
from sgagent.nft.ruleset import SELECTORS, Ruleset
from sgagent.nft.sets import CONCATENATED, INTERVAL, MAP, OBJECTS, ElementReader, KernelSet, elements_of
from sgagent.nft.transactions import RESET_WATCH

FAULTS = (UnreadableError, IndexError, KeyError, OverflowError, TypeError, ValueError, struct.error)
"""What a part of a dump that is not understood may raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRule:
    """A rule, in the kernel's instructions."""

    content: bytes = b""
    """Of all expressions."""

    has_comment: bool = False
    oddity: str | None = None
    """What of the rule itself is not understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelHook:
    """Where the kernel calls a base chain."""

    kind: str
    """``filter``, ``nat`` or ``route``."""

    name: str
    """Empty for a hook that sgagent does not know."""

    priority: int
    drops: bool
    """Whether the policy is not accept."""

    has_devices: bool
    """Whether it is called for the packets of some links only."""

    @property
    def is_for_filters(self) -> bool:
        """Return whether all packets of the hook pass the chain, which only decides about them."""
        return self.kind == "filter" and self.name != "" and not self.has_devices


@dataclass(slots=True, kw_only=True)
class KernelChain:
    """A chain."""

    name: str
    hook: KernelHook | None = None
    comment: str = ""
    is_of_rule: bool = False
    """Whether it belongs to the rule that leads there."""

    oddity: str | None = None
    """What of it is not understood."""

    rules: list[KernelRule] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class KernelTable:
    """All that a table consists of."""

    family: str
    name: str
    is_dormant: bool = False
    oddity: str | None = None
    """What of the table itself is not understood."""

    chains: list[KernelChain] = field(default_factory=list)
    sets: dict[str, KernelSet] = field(default_factory=dict)
    counters: list[nft.Counter] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)
    """Kind and name of other objects."""


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
    """Collect what messages tell."""

    def __init__(self) -> None:
        """Start without tables."""
        self.tables: dict[tuple[str, str], KernelTable] = {}
        self._chains: dict[tuple[str, str, str], KernelChain] = {}
        self._elements = ElementReader()

    def table(self, family: str, name: str) -> KernelTable:
        """Return the table that a message is about."""
        return self.tables.setdefault((family, name), KernelTable(family=family, name=name))

    def take_table(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in what is said of the table itself."""
        flags = number(given.get(2, b""))
        table.is_dormant = bool(flags & _DORMANT)
        if flags & ~(_DORMANT | _OWNER | _PERSIST) or not given.keys() <= {1, 2, 3, 4, 5, 6, 7}:
            table.oddity = "a flag of the table"

    def take_chain(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in a chain."""
        chain = KernelChain(name=text(given[3]))
        flags = number(given.get(10, b""))
        chain.is_of_rule = bool(flags & _OF_RULE)
        try:
            chain.comment = text(user_data(given.get(12, b"")).get(COMMENT, b""))
            chain.hook = _hook(given) if 4 in given else None
        except FAULTS as error:
            chain.oddity = str(error)
        if flags & ~(_BASE | _OF_RULE) or not given.keys() <= {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12}:
            chain.oddity = "a flag of the chain"
        table.chains.append(chain)
        self._chains[table.family, table.name, chain.name] = chain

    def take_rule(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in a rule; the chains come before."""
        oddity = None if given.keys() <= {1, 2, 3, 4, 6, 7, 8} else "an attribute of a rule"
        chain = self._chains[table.family, table.name, text(given[2])]
        rule = KernelRule(content=given.get(4, b""), has_comment=7 in given, oddity=oddity)
        chain.rules.append(rule)

    def take_set(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in a set or a map, without its elements."""
        one = _kernel_set(given)
        table.sets[one.name] = one

    def take_elements(self, table: KernelTable, given: Mapping[int, bytes]) -> None:
        """Take in elements; their sets come before."""
        self._elements.read(table.sets[text(given[2])], given.get(3, b""))

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
        table.others.append(("flowtable", text(given[2])))


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
_ACCEPT = 1


def _hook(given: Mapping[int, bytes]) -> KernelHook:
    """Return where a base chain is called."""
    where = by_kind(given[4])
    place = number(where[1])
    return KernelHook(
        kind=text(given[7]),
        name=_HOOKS_OF_IP[place] if place < len(_HOOKS_OF_IP) else "",
        priority=int.from_bytes(where[2], "big", signed=True),
        drops=number(given.get(5, b"\0\0\0\1")) != _ACCEPT,
        has_devices=where.keys() != {1, 2},
    )


_VERDICTS = 0xFFFFFF00
"""The type of what a map leads to."""

_SET_COMMENT, _MERGES = 7, 2
_SIZE, _FIELDS = 1, 2
_TYPE_BITS = 6


def _kernel_set(given: Mapping[int, bytes]) -> KernelSet:
    oddity: str | None = None
    lengths: tuple[int, ...] = ()
    has_particulars = number(given.get(8, b"")) != 0
    try:
        description = by_kind(given.get(9, b""))
        lengths = tuple(_field_lengths(description.get(_FIELDS, b"")))
        beside = user_data(given.get(13, b""))
        is_merging = any(beside.get(_MERGES, b""))
        has_particulars |= _SIZE in description or _SET_COMMENT in beside or is_merging
    except FAULTS as error:
        oddity = str(error)
    if not given.keys() <= {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 16, 19, 20}:
        oddity = "an attribute of a set"
    flags = number(given.get(3, b""))
    return KernelSet(
        name=text(given[2]),
        flags=flags,
        key_length=number(given[5]),
        key_types=_key_types(number(given.get(4, b""))),
        field_lengths=lengths,
        is_verdict_map=bool(flags & MAP) and number(given.get(6, b"")) == _VERDICTS,
        has_particulars=has_particulars,
        oddity=oddity,
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
        """Return what a rule does.

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
            found = known.get(content)
            if found is None:
                found = known[content] = read_expression(content)
            yield found


_KNOWN = {"ip": ((FAMILY_KEY, 2),), "ip6": ((FAMILY_KEY, 10),)}
"""What is known of all packets of a table, by its family."""


def decode_ruleset(dump: bytes) -> tuple[Ruleset, tuple[str, ...]]:
    """Return our table of a dump, and the foreign things in it by kind and name, sorted.

    Foreign are, as the first word says: ``rule`` (one that can't be read, by its chain), ``chain``, ``map``,
    ``set``, ``flowtable`` and every kind of stateful object; ``policy`` of a base chain that isn't accept,
    and ``table`` where the table itself is asleep. What can't be read is left out of the ruleset.
    """
    try:
        tables = read_tables(dump)
    except FAULTS:
        return Ruleset(), (f"table {nft.TABLE}",)
    ours = (table for table in tables if (table.family, table.name) == (nft.FAMILY, nft.TABLE))
    return _Decoded(next(ours, KernelTable(family=nft.FAMILY, name=nft.TABLE))).result()


class _Decoded:
    """Tell what is ours in a table from what is foreign."""

    def __init__(self, table: KernelTable) -> None:
        self._table = table
        self._programs = ProgramReader(table)
        self._foreign = {f"{kind} {name}" for kind, name in table.others}
        self._inner = {chain.name for chain in table.chains if chain.is_of_rule}
        if table.is_dormant or table.oddity is not None:
            self._foreign.add(f"table {table.name}")

    def result(self) -> tuple[Ruleset, tuple[str, ...]]:
        by_name = attrgetter("name")
        ruleset = Ruleset(
            chains=tuple(sorted(self._chains(), key=by_name)),
            verdict_maps=tuple(sorted(self._maps(), key=by_name)),
            counters=tuple(sorted((c for c in self._table.counters if c.name != RESET_WATCH), key=by_name)),
        )
        return ruleset, tuple(sorted(self._foreign))

    def _chains(self) -> Iterator[nft.Chain]:
        names = set[str]()
        for chain in self._table.chains:
            hook = chain.hook
            is_odd = chain.oddity is not None or (hook is not None and not hook.is_for_filters)
            if is_odd or chain.name in names:  # two of a name, where a transaction renames the first
                self._foreign.add(f"chain {chain.name}")
            elif not chain.is_of_rule:
                names.add(chain.name)
                if hook is not None and hook.drops:
                    self._foreign.add(f"policy {chain.name}")
                rules = tuple(self._rules(chain))
                place = None if hook is None else nft.Hook(hook.name, hook.priority)
                yield nft.Chain(name=chain.name, rules=rules, hook=place, comment=chain.comment)

    def _rules(self, chain: KernelChain) -> Iterator[nft.Rule]:
        for rule in chain.rules:
            try:
                if rule.has_comment or not self._is_ours(statements := self._programs.statements(rule)):
                    raise UnreadableError(chain.name)
                if _LOOKS_UP in rule.content and self._reads_named_set(rule):
                    raise UnreadableError(chain.name)
                yield nft.Rule(statements)  # type: ignore[arg-type]  # all of them are ours
            except FAULTS:
                self._foreign.add(f"rule {chain.name}")

    def _is_ours(self, statements: tuple[ProgramStatement, ...]) -> bool:
        """Return whether all statements are of kinds that sgagent makes, and lead to nothing of a rule's."""
        for one in statements:
            match one:
                case nft.Match(selector):
                    is_ours = selector in _OURS
                case nft.LookUp(selectors, name):
                    is_ours = _OURS.issuperset(selectors) and not self._table.sets[name].is_anonymous
                case nft.Goto(chain) | nft.Jump(chain):
                    is_ours = chain not in self._inner
                case _:
                    is_ours = isinstance(one, _OTHERS_OF_OURS)
            if not is_ours:
                return False
        return True

    def _reads_named_set(self, rule: KernelRule) -> bool:
        """Return whether a rule looks up in a set that may change without it."""
        names = (
            one.name
            for one in self._programs.expressions(rule)
            if isinstance(one, SetLookUp) and not one.is_map
        )
        return not all(self._table.sets[name].is_anonymous for name in names)

    def _maps(self) -> Iterator[nft.VerdictMap]:
        for one in self._table.sets.values():
            if one.is_anonymous:
                continue
            kind = "map" if one.flags & (MAP | OBJECTS) else "set"
            try:
                yield _verdict_map(one)
            except FAULTS:
                self._foreign.add(f"{kind} {one.name}")


_OURS = frozenset(SELECTORS)
_LOOKS_UP = b"lookup\0"
_OTHERS_OF_OURS = (nft.Count, nft.Limit, nft.Log, nft.SetMark, nft.Accept, nft.Drop, nft.Return)


def _verdict_map(one: KernelSet) -> nft.VerdictMap:
    """Return a named verdict map, if it is of a kind that sgagent makes.

    Raises:
        UnreadableError: it is not.
    """
    is_ours = one.is_verdict_map and not one.flags & ~(INTERVAL | MAP | CONCATENATED)
    if not is_ours or one.has_particulars or one.oddity is not None or one.key_types is None:
        raise UnreadableError(one.name)
    elements = tuple(elements_of(one, one.key_types))
    return nft.VerdictMap(
        name=one.name, key_types=one.key_types, is_interval=one.is_interval, elements=elements
    )
