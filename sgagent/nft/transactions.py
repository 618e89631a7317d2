"""Plans: operations in up to three transactions, and their encoding as libnftables' JSON commands.

In JSON, names and texts become strings, so that no input can become a part of nft's grammar. Numbers stay
numbers, so that libnftables looks nothing up. Where all names are our own, :mod:`sgagent.nft.text` is faster.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from sgagent.core.model import address_text
from sgagent.nft import ruleset as nft
from sgagent.nft.ruleset import ADDRESS_TYPES, ALL_BITS, BITS, FAMILY, TABLE, prefix_length


@dataclass(frozen=True, slots=True)
class AddTable:
    """Make the table; does nothing if it stands."""


@dataclass(frozen=True, slots=True)
class DestroyTable:
    """Remove the table and all in it; does nothing if there is none."""


@dataclass(frozen=True, slots=True)
class DeleteTable:
    """Remove the table and all in it; refused if there is none."""


@dataclass(frozen=True, slots=True)
class AddChain:
    """Declare a chain, without its rules."""

    chain: nft.Chain


@dataclass(frozen=True, slots=True)
class Flush:
    """Remove all rules of a chain, or all elements of a map."""

    kind: str
    """``chain`` or ``map``."""

    name: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object that nothing refers to any more."""

    kind: str
    """nft's word, one of :data:`DELETABLE`."""

    name: str


DELETABLE = frozenset(
    (
        *("chain", "counter", "ct helper", "flowtable", "limit", "map", "quota"),
        *("secmark", "set", "synproxy", "tunnel"),
    )
)
"""Kinds of objects that can be deleted alone. Asked in JSON to delete a ``ct expectation``, libnftables 1.1.3
deletes the table; asked to delete a ``ct timeout``, nothing."""


@dataclass(frozen=True, slots=True)
class AddRule:
    """Append a rule to a chain."""

    chain: str
    rule: nft.Rule


@dataclass(frozen=True, slots=True)
class AddVerdictMap:
    """Declare a verdict map, without its elements."""

    verdict_map: nft.VerdictMap


@dataclass(frozen=True, slots=True)
class AddMeterSet:
    """Declare the buckets of a meter."""

    meter_set: nft.MeterSet


@dataclass(frozen=True, slots=True)
class AddElements:
    """Put elements into a verdict map."""

    verdict_map: str
    key_types: tuple[nft.KeyType, ...]
    elements: tuple[nft.Element, ...]


@dataclass(frozen=True, slots=True)
class DeleteElements:
    """Take elements out of a verdict map."""

    verdict_map: str
    key_types: tuple[nft.KeyType, ...]
    elements: tuple[nft.Element, ...]


@dataclass(frozen=True, slots=True)
class AddCounter:
    """Declare a counter, at zero; does nothing if it stands."""

    counter: nft.Counter


@dataclass(frozen=True, slots=True)
class AddResetWatch:
    """Declare the counter that shows resets, at one; does nothing if it stands.

    Nobody counts with it, so it is zero once another process has reset the counters of the table.
    """


RESET_WATCH = "reset-watch"
"""The name of that counter. It is no part of the ruleset that is compared."""


Declaration = AddChain | AddVerdictMap | AddMeterSet | AddCounter
TableOperation = AddTable | DestroyTable | DeleteTable
Operation = (
    TableOperation | Declaration | AddResetWatch | AddRule | AddElements | DeleteElements | Flush | Delete
)


def without_destroy(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Yield the operations as Linux before 6.3 takes them, which has no command to destroy a table.

    Later kernels refuse this form where the table stands with the flag ``persist``, which these don't have.
    """
    for operation in operations:
        if isinstance(operation, DestroyTable):
            yield from (AddTable(), DeleteTable())
        else:
            yield operation


class DeclarationVerb(enum.Enum):
    """The command that declares a chain, a map or a counter."""

    ADD = "add"
    """Do nothing where it stands."""

    CREATE = "create"
    """Refuse where it stands: a fill adds nothing to what another process made."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in order, in up to three transactions. A death between two of them changes no verdict."""

    flip: tuple[Operation, ...] = ()
    """The transaction that changes verdicts."""

    fill: tuple[Operation, ...] = ()
    """The transaction before: it makes what no packet reaches yet."""

    removal: tuple[Operation, ...] = ()
    """The transaction after: it deletes what no packet reaches any more."""

    before: nft.Ruleset | None = field(default=None, compare=False, repr=False)
    """The table that the plan was made for; None is no table."""

    after: nft.Ruleset | None = field(default=None, compare=False, repr=False)
    """The table after the plan; None where that was not worked out."""

    def __bool__(self) -> bool:
        """Return True if there is anything to do."""
        return bool(self.flip or self.fill or self.removal)

    @property
    def is_anew(self) -> bool:
        """Return whether one transaction makes the table anew: its ranges become visible late in it."""
        return self.flip[:1] == (DestroyTable(),)

    @property
    def verb(self) -> DeclarationVerb:
        """Return the command that declares objects; a fill never meets one that the plan knew of."""
        return DeclarationVerb.CREATE if self.fill else DeclarationVerb.ADD

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Return the operations of all transactions, in order."""
        return (*self.fill, *self.flip, *self.removal)


Json = Any
"""A value as the json module reads and writes it."""


def encode_plan(
    plan: Plan, table_flags: Sequence[str] = (), verb: DeclarationVerb = DeclarationVerb.ADD
) -> Json:
    """Return the plan as one libnftables command list, in the plan's order, without what it can't write.

    Args:
        plan: what to do.
        table_flags: what the table is declared with: ``owner``, ``persist``.
        verb: what declares chains, maps and counters.
    """
    operations = (one for one in plan.operations if not is_beyond_libnftables(one))
    return {"nftables": [encode_operation(operation, table_flags, verb) for operation in operations]}


def asks_for_group(rule: nft.Rule) -> bool:
    """Return whether a rule asks for a control group, so that libnftables can't write it."""
    return any(isinstance(one, nft.Match) and one.selector == nft.SOCKET_GROUP for one in rule.statements)


def is_beyond_libnftables(operation: Operation) -> bool:
    """Return whether it adds such a rule: the data plane adds it by itself."""
    return isinstance(operation, AddRule) and asks_for_group(operation.rule)


def encode_operation(
    operation: Operation, table_flags: Sequence[str] = (), verb: DeclarationVerb = DeclarationVerb.ADD
) -> Json:
    """Return one operation as a libnftables command."""
    match operation:
        case AddTable():
            flags = {"flags": list(table_flags)} if table_flags else {}
            return {"add": {"table": {"family": FAMILY, "name": TABLE, **flags}}}
        case DestroyTable() | DeleteTable():
            verb_of_removal = "destroy" if isinstance(operation, DestroyTable) else "delete"
            return {verb_of_removal: {"table": {"family": FAMILY, "name": TABLE}}}
        case AddChain(chain):
            return {verb.value: {"chain": _chain(chain)}}
        case AddRule(chain_name, rule):
            expressions = [_statement(statement) for statement in rule.statements]
            return {
                "add": {"rule": {"family": FAMILY, "table": TABLE, "chain": chain_name, "expr": expressions}}
            }
        case AddVerdictMap() | AddMeterSet():
            return {verb.value: _set_or_map(operation)}
        case AddElements(name, key_types, elements):
            return {"add": {"element": _elements(name, elements, key_types)}}
        case DeleteElements(name, key_types, elements):
            return {"delete": {"element": _elements(name, elements, key_types)}}
        case AddCounter(counter):
            comment = {"comment": counter.comment} if counter.comment else {}
            return {verb.value: {"counter": {**_named(counter.name), **comment}}}
        case AddResetWatch():
            return {"add": {"counter": {**_named(RESET_WATCH), "packets": 1, "bytes": 1}}}
        case Flush(kind, name) | Delete(kind, name):
            return {"flush" if isinstance(operation, Flush) else "delete": {kind: _named(name)}}
        case _:
            assert_never(operation)


def _named(name: str) -> Json:
    return {"family": FAMILY, "table": TABLE, "name": name}


def _chain(chain: nft.Chain) -> Json:
    hook = {}
    if chain.hook:
        name, priority = chain.hook.name, chain.hook.hook_priority
        hook = {"type": "filter", "hook": name, "prio": priority, "policy": "accept"}
    comment = {"comment": chain.comment} if chain.comment else {}
    return {**_named(chain.name), **hook, **comment}


def _set_or_map(operation: AddVerdictMap | AddMeterSet) -> Json:
    if isinstance(operation, AddVerdictMap):
        return {"map": _verdict_map(operation.verdict_map)}
    return {"set": _meter_set(operation.meter_set)}


def _verdict_map(verdict_map: nft.VerdictMap) -> Json:
    types = [key_type.value for key_type in verdict_map.key_types]
    flags = {"flags": ["interval"]} if verdict_map.is_interval else {}
    type_ = types if len(types) > 1 else types[0]
    return {**_named(verdict_map.name), "type": type_, "map": "verdict", **flags}


def _meter_set(one: nft.MeterSet) -> Json:
    flags = ["dynamic", "timeout"]
    declared = {"type": one.key_type.value, "size": one.size, "timeout": one.timeout, "flags": flags}
    return {**_named(one.name), **declared}


def _elements(name: str, elements: tuple[nft.Element, ...], key_types: Sequence[nft.KeyType]) -> Json:
    pairs = [[_key(element.key, key_types), _verdict(element.verdict)] for element in elements]
    return {**_named(name), "elem": pairs}


def _statement(statement: nft.Statement) -> Json:
    match statement:
        case nft.Match():
            return {"match": _match(statement)}
        case nft.LookUp(selectors, verdict_map):
            key = _concatenated([_selector(selector) for selector in selectors])
            return {"vmap": {"key": key, "data": f"@{verdict_map}"}}
        case nft.Count(counter):
            return {"counter": counter}
        case nft.Limit(per_second, burst):
            return {"limit": {"rate": per_second, "burst": burst, "per": "second"}}
        case nft.Meter(name, selector, rate, seconds, burst):
            per = nft.RATE_WORDS[seconds]
            limit = {"limit": {"rate": rate, "burst": burst, "per": per, "inv": True}}
            bucket = {"op": "update", "elem": _selector(selector), "set": f"@{name}", "stmt": [limit]}
            return {"set": bucket}
        case nft.Log(prefix, group):
            return {"log": {"prefix": prefix, "group": group}}
        case nft.SetMark():
            return {"mangle": {"key": _MARK, "value": _mark_value(statement)}}
        case _:
            return _verdict(statement)


def _match(match: nft.Match) -> Json:
    key_type = match.selector.key_type
    if match.asks_for_a_link:
        number = {"meta": {"key": match.selector.key.removesuffix("name")}}
        return {"op": match.operator.value, "left": number, "right": 0}
    values = [_value(value, key_type) for value in match.values]
    left = _selector(match.selector)
    if match.mask is not None:
        left = {"&": [left, match.mask]}
    if key_type is nft.KeyType.CT_STATE and len(values) > 1 and match.operator is nft.Operator.EQUAL:
        return {"op": "in", "left": left, "right": values}
    right = values[0] if len(values) == 1 else {"set": values}
    return {"op": match.operator.value, "left": left, "right": right}


_MARK: Json = {"ct": {"key": "mark"}}


def _mark_value(statement: nft.SetMark) -> Json:
    """Return ``(mark & keep) | put`` in the shortest form, which is the one that the kernel lists."""
    if statement.keep == statement.put:
        return statement.put
    kept = _MARK if statement.keep == ALL_BITS else {"&": [_MARK, statement.keep]}
    return {"|": [kept, statement.put]} if statement.put else kept


def _verdict(verdict: nft.Verdict) -> Json:
    target = {"target": verdict.chain} if isinstance(verdict, (nft.Goto, nft.Jump)) else None
    return {nft.VERDICT_WORDS[type(verdict)]: target}


def _selector(selector: nft.Selector) -> Json:
    if selector.kind == "payload":
        protocol, field = selector.key.split()
        return {"payload": {"protocol": protocol, "field": field}}
    if selector.kind == "exthdr":
        return {"exthdr": {"name": selector.key}}
    if selector.tuple_direction:
        return {"ct": {"key": selector.key, "dir": selector.tuple_direction.value}}
    return {selector.kind: {"key": selector.key}}


def _key(key: tuple[nft.Value, ...], key_types: Sequence[nft.KeyType]) -> Json:
    return _concatenated([_value(value, key_type) for value, key_type in zip(key, key_types, strict=True)])


def _concatenated(fields: list[Json]) -> Json:
    return {"concat": fields} if len(fields) > 1 else fields[0]


def _value(value: nft.Comparable, key_type: nft.KeyType) -> Json:
    if not isinstance(value, nft.Interval):
        word = nft.checked_word(value, key_type)
        return word == "exists" if key_type is nft.KeyType.BOOLEAN else word
    first = _number(value.first, key_type)
    if value.first == value.last:
        return first
    length = prefix_length(value.first, value.last, BITS[key_type]) if key_type in _FAMILIES else None
    if length is not None:
        return {"prefix": {"addr": first, "len": length}}
    return {"range": [first, _number(value.last, key_type)]}


_FAMILIES = {key_type: family for family, key_type in ADDRESS_TYPES.items()}


def _number(number: int, key_type: nft.KeyType) -> int | str:
    if key_type is nft.KeyType.ETHER_ADDR:
        return nft.mac_text(number)
    family = _FAMILIES.get(key_type)
    return number if family is None else address_text(family, number)
