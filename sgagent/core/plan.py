"""Work out what one transaction must change for the kernel to hold what is desired, and nothing else.

A plan is inspectable data: a tuple of operations in an order in which the kernel takes them. An empty plan says
that desired and observed agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.ruleset import Chain, Counter, Element, Rule, VerdictMap


@dataclass(frozen=True, slots=True)
class AddTable:
    """Make the table; does nothing if it stands."""


@dataclass(frozen=True, slots=True)
class DestroyTable:
    """Remove the table and all in it; does nothing if there is none."""


@dataclass(frozen=True, slots=True)
class AddChain:
    """Declare a chain, without its rules."""

    chain: Chain


@dataclass(frozen=True, slots=True)
class FlushChain:
    """Remove all rules of a chain."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteChain:
    """Remove a chain that nothing refers to any more."""

    name: str


@dataclass(frozen=True, slots=True)
class AddRule:
    """Append a rule to a chain."""

    chain: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class AddVerdictMap:
    """Declare a verdict map, without its elements."""

    verdict_map: VerdictMap


@dataclass(frozen=True, slots=True)
class FlushVerdictMap:
    """Remove all elements of a verdict map."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteVerdictMap:
    """Remove a verdict map that nothing refers to any more."""

    name: str


@dataclass(frozen=True, slots=True)
class AddElements:
    """Put elements into a verdict map."""

    verdict_map: str
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class DeleteElements:
    """Take elements out of a verdict map."""

    verdict_map: str
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class AddCounter:
    """Declare a counter, at zero; does nothing if it stands."""

    counter: Counter


@dataclass(frozen=True, slots=True)
class DeleteCounter:
    """Remove a counter that nothing refers to any more."""

    name: str


Operation = (
    AddTable
    | DestroyTable
    | AddChain
    | FlushChain
    | DeleteChain
    | AddRule
    | AddVerdictMap
    | FlushVerdictMap
    | DeleteVerdictMap
    | AddElements
    | DeleteElements
    | AddCounter
    | DeleteCounter
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations to be carried out in order, in one transaction."""

    operations: tuple[Operation, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.operations)
