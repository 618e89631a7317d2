"""Plans as text, one line an operation."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import assert_never

from sgagent.core.errors import printable
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
    make_plan,
)
from sgagent.nft.ruleset import FAMILY, TABLE, Ruleset
from sgagent.nft.text import element_text, key_text, rule_text

_MOST_DIFFERENCES = 5
_SHOWN = 3
"""Elements that are shown before the rest is counted."""


def describe(operation: Operation) -> str:
    """Return the operation as a line for people, safe to print."""
    return printable(f"{_verb(operation)} {subject(operation)}{_detail(operation)}")


def subject(operation: Operation) -> str:  # noqa: PLR0911 - one short case for each kind
    """Return what it is about, like ``chain rule/eth0/sgr-1`` or ``rule in chain ingress/eth0``."""
    match operation:
        case AddTable() | DestroyTable():
            return f"table {FAMILY} {TABLE}"
        case AddChain(chain):
            return f"chain {chain.name}"
        case FlushChain(name) | DeleteChain(name):
            return f"chain {name}"
        case AddRule(chain=name):
            return f"rule in chain {name}"
        case AddVerdictMap(verdict_map):
            return f"map {verdict_map.name}"
        case FlushVerdictMap(name) | DeleteVerdictMap(name):
            return f"map {name}"
        case AddElements(name, key_types, elements) | DeleteElements(name, key_types, elements):
            if len(elements) == 1:
                return f"element {key_text(elements[0].key, key_types)} of map {name}"
            return f"{len(elements)} elements of map {name}"
        case AddCounter(counter):
            return f"counter {counter.name}"
        case DeleteCounter(name):
            return f"counter {name}"
        case DeleteForeign(kind, name):
            return f"{kind} {name}"
        case _:
            assert_never(operation)


def differences(expected: Ruleset, observed: Ruleset | None, foreign: Iterable[str]) -> tuple[str, ...]:
    """Return what another process has changed: the first few objects that are not as expected, safe to print.

    Args:
        expected: what should stand.
        observed: what stands; None where there is no table.
        foreign: what else stands, as :func:`sgagent.nft.json_listing.decode_ruleset` names it.
    """
    if observed is None:
        return (f"table {FAMILY} {TABLE}",)
    operations = make_plan(expected, observed, foreign).operations
    subjects = (printable(subject(operation)).removeprefix("rule in ") for operation in operations)
    return tuple(islice(dict.fromkeys(subjects), _MOST_DIFFERENCES))


def _verb(operation: Operation) -> str:
    match operation:
        case FlushChain() | FlushVerdictMap():
            return "empty"
        case DeleteChain() | DeleteVerdictMap() | DeleteCounter() | DeleteElements() | DestroyTable():
            return "delete"
        case DeleteForeign():
            return "delete foreign"
        case _:
            return "add"


def _detail(operation: Operation) -> str:
    match operation:
        case AddRule(rule=rule):
            return f": {rule_text(rule)}"
        case AddChain(chain) if chain.comment:
            return f": {chain.comment}"
        case AddElements(_, key_types, elements) | DeleteElements(_, key_types, elements):
            shown = ", ".join(element_text(element, key_types) for element in elements[:_SHOWN])
            return f": {shown}" + (", …" if len(elements) > _SHOWN else "")
        case _:
            return ""
