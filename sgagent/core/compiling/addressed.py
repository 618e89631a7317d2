"""Lead each single address to the chain of its class."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from sgagent.core.compiling.classes import Classified, Peers
from sgagent.core.kernel.ruleset import Element, Goto, Interval


@dataclass(frozen=True, slots=True)
class Addressed:
    """Elements for all single addresses, and what they were made of."""

    elements: tuple[Element, ...]
    """Sorted by address."""

    gotos: Mapping[Peers, Goto]
    mark: object
    """Of the classes."""


def address_elements(
    classified: Classified, gotos: Mapping[Peers, Goto], before: Addressed | None
) -> Addressed:
    """Return the elements of all single addresses.

    Args:
        classified: the addresses and their classes.
        gotos: where each class leads.
        before: what this function returned for the classes before; only addresses that changed are looked at.
    """
    changed, addresses = classified.changed, classified.classes.addresses
    if before is None or changed is None or before.mark is not classified.before or _differ(before, gotos):
        elements = [_element(address, gotos[addresses[address]]) for address in sorted(addresses)]
    else:
        elements = list(before.elements)
        for address in changed:
            members = addresses.get(address)
            _put(elements, address, None if members is None else gotos[members])
        if not changed:
            return Addressed(before.elements, gotos, classified.mark)
    return Addressed(tuple(elements), gotos, classified.mark)


def _differ(before: Addressed, gotos: Mapping[Peers, Goto]) -> bool:
    """Tell whether a class leads elsewhere than before."""
    return any(before.gotos.get(members, goto) != goto for members, goto in gotos.items())


def _element(address: int, goto: Goto) -> Element:
    return Element((Interval(address, address),), goto)


def _put(elements: list[Element], address: int, goto: Goto | None) -> None:
    """Have an address lead somewhere, or nowhere."""
    place = bisect_left(elements, address, key=_number)
    stands = place < len(elements) and _number(elements[place]) == address
    elements[place : place + stands] = [] if goto is None else [_element(address, goto)]


def _number(element: Element) -> int:
    (value,) = element.key
    return value.first if isinstance(value, Interval) else -1
