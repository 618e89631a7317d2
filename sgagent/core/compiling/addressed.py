"""Lead each address and network to the chain of its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sgagent.core.compiling.classes import Classified, Networks, Peers
from sgagent.core.kernel.elements import Elements
from sgagent.core.kernel.ruleset import Element, Goto, Interval

Gotos = Mapping[Peers, Goto]
"""Where each class leads."""


def lead(classes: tuple[Peers, ...], targets: tuple[str, ...], before: Gotos | None) -> Gotos:
    """Return where classes lead: the very same as before, if all still lead there.

    Args:
        classes: all of them.
        targets: the chain of each.
        before: what this function returned for others.
    """
    if before is not None and tuple(before) == classes:
        standing = tuple(goto.chain for goto in before.values())
        if standing == targets:
            return before
    return {members: Goto(target) for members, target in zip(classes, targets, strict=True)}


def network_elements(networks: Networks, gotos: Gotos) -> tuple[Element, ...]:
    """Return the elements of all networks."""
    return tuple(Element((Interval(first, last),), gotos[members]) for first, last, members in networks)


@dataclass(frozen=True, slots=True)
class Addressed:
    """Elements for all single addresses, and what they were made of."""

    elements: Elements
    """Sorted by address."""

    gotos: Gotos
    mark: object
    """Of the classes."""


def address_elements(classified: Classified, gotos: Gotos, before: Addressed | None) -> Addressed:
    """Return the elements of all single addresses.

    Args:
        classified: the addresses and their classes.
        gotos: where each class leads.
        before: what this function returned for the classes before; only addresses that changed are looked at.
    """
    changed, addresses = classified.changed, classified.classes.addresses
    if before is None or changed is None or before.mark is not classified.before or _differ(before, gotos):
        every = [_element(address, gotos[addresses[address]]) for address in sorted(addresses)]
        return Addressed(Elements.of(every), gotos, classified.mark)
    elements = before.elements
    for address in changed:
        members = addresses.get(address)
        elements = elements.but(address, None if members is None else _element(address, gotos[members]))
    return Addressed(elements, gotos, classified.mark)


def _differ(before: Addressed, gotos: Gotos) -> bool:
    """Tell whether a class leads elsewhere than before."""
    return before.gotos is not gotos and any(
        before.gotos.get(members, goto) != goto for members, goto in gotos.items()
    )


def _element(address: int, goto: Goto) -> Element:
    return Element((Interval(address, address),), goto)
