"""Encode a plan as libnftables' JSON commands; :mod:`sgagent.nft.json_listing` decodes them.

Names and texts become JSON strings, so that no input can become a part of nft's grammar. Numbers stay
numbers, so that libnftables looks nothing up. Where all names are our own, :mod:`sgagent.nft.text` is faster.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, assert_never

from sgagent.core.binding import check_interface_name
from sgagent.nft import plan as ops, ruleset as nft
from sgagent.nft.plan import Operation, Plan
from sgagent.nft.ruleset import ALL_BITS, BITS, FAMILY, TABLE, prefix_length

Json = Any
"""A value as the json module reads and writes it."""


def encode_plan(
    plan: Plan, table_flags: Sequence[str] = (), verb: ops.DeclarationVerb = ops.DeclarationVerb.ADD
) -> Json:
    """Return the plan as one libnftables command list, in the plan's order.

    Args:
        plan: what to do.
        table_flags: what the table is declared with: ``owner``, ``persist``.
        verb: what declares chains, maps and counters.
    """
    return {"nftables": [encode_operation(operation, table_flags, verb) for operation in plan.operations]}


def encode_operation(
    operation: Operation,
    table_flags: Sequence[str] = (),
    verb: ops.DeclarationVerb = ops.DeclarationVerb.ADD,
) -> Json:
    """Return one operation as a libnftables command."""
    match operation:
        case ops.AddTable():
            flags = {"flags": list(table_flags)} if table_flags else {}
            return {"add": {"table": {"family": FAMILY, "name": TABLE, **flags}}}
        case ops.DestroyTable():
            return {"destroy": {"table": {"family": FAMILY, "name": TABLE}}}
        case ops.AddChain(chain):
            return {verb.value: {"chain": _chain(chain)}}
        case ops.AddRule(chain_name, rule):
            expressions = [_statement(statement) for statement in rule.statements]
            return {
                "add": {"rule": {"family": FAMILY, "table": TABLE, "chain": chain_name, "expr": expressions}}
            }
        case ops.AddVerdictMap(verdict_map):
            return {verb.value: {"map": _verdict_map(verdict_map)}}
        case ops.AddElements(name, key_types, elements):
            return {"add": {"element": _elements(name, elements, key_types)}}
        case ops.DeleteElements(name, key_types, elements):
            return {"delete": {"element": _elements(name, elements, key_types)}}
        case ops.AddCounter(counter):
            comment = {"comment": counter.comment} if counter.comment else {}
            return {verb.value: {"counter": {**_named(counter.name), **comment}}}
        case ops.Flush(kind, name):
            return {"flush": {kind: _named(name)}}
        case ops.Delete(kind, name):
            return {"delete": {kind: _named(name)}}
        case _:
            assert_never(operation)


def _named(name: str) -> Json:
    return {"family": FAMILY, "table": TABLE, "name": name}


def _chain(chain: nft.Chain) -> Json:
    encoded = _named(chain.name)
    if chain.hook:
        hook = {
            "type": "filter",
            "hook": chain.hook.name,
            "prio": chain.hook.hook_priority,
            "policy": "accept",
        }
        encoded.update(hook)
    if chain.comment:
        encoded["comment"] = chain.comment
    return encoded


def _verdict_map(verdict_map: nft.VerdictMap) -> Json:
    types = [key_type.value for key_type in verdict_map.key_types]
    encoded = _named(verdict_map.name)
    encoded["type"] = types if len(types) > 1 else types[0]
    encoded["map"] = "verdict"
    if verdict_map.is_interval:
        encoded["flags"] = ["interval"]
    return encoded


def _elements(name: str, elements: tuple[nft.Element, ...], key_types: Sequence[nft.KeyType]) -> Json:
    return {**_named(name), "elem": [_element(element, key_types) for element in elements]}


def _element(element: nft.Element, key_types: Sequence[nft.KeyType]) -> Json:
    return [_key(element.key, key_types), _verdict(element.verdict)]


def _statement(statement: nft.Statement) -> Json:
    match statement:
        case nft.Match():
            return {"match": _match(statement)}
        case nft.LookUp(selectors, verdict_map):
            return {"vmap": {"key": _selectors(selectors), "data": f"@{verdict_map}"}}
        case nft.Count(counter):
            return {"counter": counter}
        case nft.Limit(per_second, burst):
            return {"limit": {"rate": per_second, "burst": burst, "per": "second"}}
        case nft.Log(prefix, group):
            return {"log": {"prefix": prefix, "group": group}}
        case nft.SetMark():
            return {"mangle": {"key": _MARK, "value": _mark_value(statement)}}
        case _:
            return _verdict(statement)


def _match(match: nft.Match) -> Json:
    key_type = match.selector.key_type
    values = [_value(value, key_type) for value in match.values]
    left = _selector(match.selector)
    if match.mask is not None:
        left = {"&": [left, match.mask]}
    if key_type is nft.KeyType.CT_STATE and len(values) > 1 and match.operator is nft.Operator.EQUAL:
        return {"op": "in", "left": left, "right": values}
    return {
        "op": match.operator.value,
        "left": left,
        "right": values[0] if len(values) == 1 else {"set": values},
    }


_MARK: Json = {"ct": {"key": "mark"}}


def _mark_value(statement: nft.SetMark) -> Json:
    """Return ``(mark & keep) | put`` in the shortest form, which is the one that the kernel lists."""
    if statement.keep == statement.put:
        return statement.put
    kept = _MARK if statement.keep == ALL_BITS else {"&": [_MARK, statement.keep]}
    return {"|": [kept, statement.put]} if statement.put else kept


def _verdict(verdict: nft.Verdict) -> Json:
    match verdict:
        case nft.Accept():
            return {"accept": None}
        case nft.Drop():
            return {"drop": None}
        case nft.Goto(chain):
            return {"goto": {"target": chain}}
        case nft.Jump(chain):
            return {"jump": {"target": chain}}
        case _:
            assert_never(verdict)


def _selectors(selectors: tuple[nft.Selector, ...]) -> Json:
    fields = [_selector(selector) for selector in selectors]
    return {"concat": fields} if len(fields) > 1 else fields[0]


def _selector(selector: nft.Selector) -> Json:
    if selector.kind == "payload":
        protocol, field = selector.key.split()
        return {"payload": {"protocol": protocol, "field": field}}
    if selector.tuple_direction:
        return {"ct": {"key": selector.key, "dir": selector.tuple_direction.value}}
    return {selector.kind: {"key": selector.key}}


def _key(key: tuple[nft.Value, ...], key_types: Sequence[nft.KeyType]) -> Json:
    fields = [_value(value, key_type) for value, key_type in zip(key, key_types, strict=True)]
    return {"concat": fields} if len(fields) > 1 else fields[0]


def _value(value: nft.Comparable, key_type: nft.KeyType) -> Json:
    if isinstance(value, nft.NamePrefix):
        check_interface_name(value.prefix)
        return value.word
    if isinstance(value, nft.Symbol):
        if key_type is nft.KeyType.IFNAME:
            check_interface_name(value.word)
        return value.word
    first = _number(value.first, key_type)
    if value.first == value.last:
        return first
    length = prefix_length(value.first, value.last, BITS[key_type]) if key_type in _ADDRESSES else None
    if length is not None:
        return {"prefix": {"addr": first, "len": length}}
    return {"range": [first, _number(value.last, key_type)]}


_ADDRESSES = frozenset({nft.KeyType.IPV4_ADDR, nft.KeyType.IPV6_ADDR})


def _number(number: int, key_type: nft.KeyType) -> int | str:
    if key_type is nft.KeyType.IPV4_ADDR:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    if key_type is nft.KeyType.IPV6_ADDR:
        return str(ipaddress.IPv6Address(number))
    return number
