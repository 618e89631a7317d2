"""Plans: operations in up to three transactions."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from sgagent.nft.ruleset import (
    Chain,
    Counter,
    Element,
    KeyType,
    Rule,
    Ruleset,
    VerdictMap,
)


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
class Flush:
    """Remove all rules of a chain, or all elements of a map."""

    kind: str
    """``chain`` or ``map``."""

    name: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object that nothing refers to any more."""

    kind: str
    """nft's word: ``chain``, ``map``, ``counter``, or that of a foreign object, like ``ct helper``."""

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
class AddElements:
    """Put elements into a verdict map."""

    verdict_map: str
    key_types: tuple[KeyType, ...]
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class DeleteElements:
    """Take elements out of a verdict map."""

    verdict_map: str
    key_types: tuple[KeyType, ...]
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class AddCounter:
    """Declare a counter, at zero; does nothing if it stands."""

    counter: Counter


Operation = (
    AddTable
    | DestroyTable
    | AddChain
    | AddCounter
    | AddVerdictMap
    | AddRule
    | AddElements
    | DeleteElements
    | Flush
    | Delete
)


class DeclarationVerb(enum.Enum):
    """What declares a chain, a map or a counter."""

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

    before: Ruleset | None = field(default=None, compare=False, repr=False)
    """The table that the plan was made for; None is no table."""

    after: Ruleset | None = field(default=None, compare=False, repr=False)
    """The table after the plan; None where that was not worked out."""

    def __bool__(self) -> bool:
        """Return True if there is anything to do."""
        return bool(self.flip or self.fill or self.removal)

    @property
    def verb(self) -> DeclarationVerb:
        """Return what declares objects; a fill never meets one that the plan knew of."""
        return DeclarationVerb.CREATE if self.fill else DeclarationVerb.ADD

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Return the operations of all transactions, in order."""
        return (*self.fill, *self.flip, *self.removal)
