"""Maps that are named after their elements."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sgagent.nft.ruleset import Element, Goto, Interval, Jump, KeyType, Value, VerdictMap, sort_key

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
