"""The encoder of plans for the applier: one JSON array a line for each operation, its kind first.

:mod:`sgagent.dataplane.plan_decoder` decodes and validates them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from sgagent.nft.grammar import SELECTORS
from sgagent.nft.plan import (
    AddChain,
    AddCounter,
    AddElements,
    AddRule,
    AddTable,
    AddVerdictMap,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteForeign,
    DeleteVerdictMap,
    DestroyTable,
    FlushChain,
    FlushVerdictMap,
    Operation,
    Plan,
)
from sgagent.nft.ruleset import (
    Accept,
    Chain,
    Count,
    Drop,
    Element,
    Goto,
    Jump,
    KeyType,
    Limit,
    Log,
    LookUp,
    Match,
    Rule,
    Selector,
    SetMark,
    Statement,
    Symbol,
    Value,
    Verdict,
)

Array = list[Any]
"""What becomes a JSON array: words, numbers, null, truth values and arrays of these."""

SELECTOR_NAMES: Mapping[Selector, str] = {
    selector: " ".join(
        word
        for word in (
            selector.kind,
            selector.tuple_direction.value if selector.tuple_direction else "",
            selector.key,
        )
        if word
    )
    for selector in SELECTORS
}
"""Like ``ct original ip saddr`` and ``payload tcp dport``."""


def write_plan(plan: Plan) -> bytes:
    """Return the plan as lines."""
    return b"".join(_lines(plan.operations))


def _lines(operations: Sequence[Operation]) -> Iterator[bytes]:
    write = json.JSONEncoder(separators=(",", ":")).encode
    for operation in operations:
        yield write(_operation(operation)).encode("ascii")
        yield b"\n"


def _operation(operation: Operation) -> Array:  # noqa: PLR0911 - one short case for each kind
    match operation:
        case AddTable():
            return ["add table"]
        case DestroyTable():
            return ["destroy table"]
        case AddChain(chain):
            return ["add chain", *_declaration(chain)]
        case FlushChain(name):
            return ["flush chain", name]
        case DeleteChain(name):
            return ["delete chain", name]
        case AddRule(chain_name, rule):
            return ["add rule", chain_name, _rule(rule)]
        case AddVerdictMap(verdict_map):
            return ["add map", verdict_map.name, _types(verdict_map.key_types), verdict_map.is_interval]
        case FlushVerdictMap(name):
            return ["flush map", name]
        case DeleteVerdictMap(name):
            return ["delete map", name]
        case AddElements(name, key_types, elements):
            return ["add elements", name, _types(key_types), _elements(elements)]
        case DeleteElements(name, key_types, elements):
            return ["delete elements", name, _types(key_types), _elements(elements)]
        case AddCounter(counter):
            return ["add counter", counter.name, counter.comment]
        case DeleteCounter(name):
            return ["delete counter", name]
        case DeleteForeign(kind, name):
            return ["delete foreign", kind, name]
        case _:
            assert_never(operation)


def _declaration(chain: Chain) -> Array:
    hook = [chain.hook.name, chain.hook.hook_priority] if chain.hook else None
    return [chain.name, hook, chain.comment]


def _types(key_types: Sequence[KeyType]) -> Array:
    return [key_type.value for key_type in key_types]


def _elements(elements: Sequence[Element]) -> Array:
    return [[_key(element.key), _verdict(element.verdict)] for element in elements]


def _key(key: tuple[Value, ...]) -> Array:
    return [_value(value) for value in key]


def _value(value: Value) -> Any:  # noqa: ANN401 - a word, a number, or two
    if isinstance(value, Symbol):
        return value.word
    return value.first if value.first == value.last else [value.first, value.last]


def _verdict(verdict: Verdict) -> Array:
    match verdict:
        case Accept():
            return ["accept"]
        case Drop():
            return ["drop"]
        case Goto(chain):
            return ["goto", chain]
        case Jump(chain):
            return ["jump", chain]
        case _:
            assert_never(verdict)


def _rule(rule: Rule) -> Array:
    return [_statement(statement) for statement in rule.statements]


def _statement(statement: Statement) -> Array:
    match statement:
        case Match(selector, values, operator, mask):
            return ["match", SELECTOR_NAMES[selector], operator.value, mask, _key(values)]
        case LookUp(selectors, verdict_map):
            return ["look up", _selectors(selectors), verdict_map]
        case Count(counter):
            return ["count", counter]
        case Limit(per_second, burst):
            return ["limit", per_second, burst]
        case Log(prefix, group):
            return ["log", prefix, group]
        case SetMark(keep, put):
            return ["set mark", keep, put]
        case _:
            return _verdict(statement)


def _selectors(selectors: Sequence[Selector]) -> Array:
    return [SELECTOR_NAMES[selector] for selector in selectors]
