"""Maps that are named after their elements, and the diff of elements."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from sgagent.nft.ruleset import (
    Element,
    Goto,
    Interval,
    Jump,
    KeyType,
    Value,
    VerdictMap,
    sort_key,
)

_DIGEST = 12
"""Hexadecimal digits; a clash would need millions of maps of one prefix."""


def fixed_map(
    prefix: str, key_types: tuple[KeyType, ...], elements: Iterable[Element], *, is_interval: bool
) -> VerdictMap:
    """Return a map whose name is a prefix and a digest of its elements.

    Args:
        prefix: of the name, which says what is looked up and where.
        key_types: of the fields of the key.
        elements: in any order.
        is_interval: whether keys may be ranges.
    """
    ordered = tuple(sorted(elements, key=lambda element: sort_key(element.key)))
    return VerdictMap(
        name=f"{prefix}/{_digest(ordered)}", key_types=key_types, is_interval=is_interval, elements=ordered
    )


def _digest(elements: tuple[Element, ...]) -> str:
    lines = (f"{','.join(map(_key_text, element.key))} {_verdict_text(element)}" for element in elements)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]


def _key_text(value: Value) -> str:
    return f"{value.first}-{value.last}" if isinstance(value, Interval) else f"={value.word}"


def _verdict_text(element: Element) -> str:
    verdict = element.verdict
    kind = type(verdict).__name__
    return f"{kind} {verdict.chain}" if isinstance(verdict, (Goto, Jump)) else kind


def differing_elements(
    elements: Sequence[Element], others: Sequence[Element]
) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """Return the elements that are not among the others, and those of the others that are not among these.

    Both are sorted, so what they have in common at either end is left out first: of 100,000 elements of which
    one changed, comparing takes a moment where hashing them all would take a second.
    """
    if elements is others:
        return (), ()
    left, right = _between_common_ends(tuple(elements), tuple(others))
    among_left, among_right = set(left), set(right)
    gone = tuple(element for element in left if element not in among_right)
    return gone, tuple(element for element in right if element not in among_left)


def _between_common_ends(
    elements: tuple[Element, ...], others: tuple[Element, ...]
) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """Return what both have between the elements that they begin with, and those that they end with."""
    shorter = min(len(elements), len(others))
    head = _common(elements, others, shorter)
    tail = _common(elements[head:][::-1], others[head:][::-1], shorter - head)
    return elements[head : len(elements) - tail], others[head : len(others) - tail]


def _common(elements: tuple[Element, ...], others: tuple[Element, ...], most: int) -> int:
    """Return the length of the common prefix, limited to ``most``.

    This is a binary search over slices: most elements are identical objects, and tuples of identical objects
    compare fast.
    """
    start, stop = 0, most
    while start < stop:
        middle = (start + stop + 1) // 2
        if elements[start:middle] == others[start:middle]:
            start = middle
        else:
            stop = middle - 1
    return start
