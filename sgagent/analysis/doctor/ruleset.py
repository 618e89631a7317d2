"""The tables of others as the kernel has them: chains, rules as programs, sets and flow tables.

The program is read and not a listing of it: libnftables leaves conditions out of a listing, does not show the
arguments of iptables' extensions, and may crash on what it does not know.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class TableKey:
    """A table."""

    family: str
    """``ip``, ``ip6``, ``inet``, ``netdev``, ``bridge``, ``arp``."""

    name: str

    def __str__(self) -> str:
        """Return family and name, as nft writes them."""
        return f"{self.family} {self.name}"


class Operand(enum.Enum):
    """What a rule can load into a register, or store from one, as far as it matters here."""

    SESSION_MARK = enum.auto()
    PACKET_MARK = enum.auto()
    ZONE = enum.auto()
    STATE = enum.auto()
    INPUT_NAME = enum.auto()
    OUTPUT_NAME = enum.auto()
    INPUT_INDEX = enum.auto()
    OUTPUT_INDEX = enum.auto()
    PROTOCOL = enum.auto()
    """Of either layer."""

    PORT = enum.auto()
    SOURCE = enum.auto()
    DESTINATION = enum.auto()
    OTHER = enum.auto()


@dataclass(frozen=True, slots=True)
class Load:
    """Load something of the packet or its session."""

    operand: Operand
    register: int
    """The first of the 32-bit registers, counted from 0."""


@dataclass(frozen=True, slots=True)
class Bitwise:
    """Combine a register with constants: ``value & mask ^ toggled``."""

    source: int
    register: int
    mask: bytes
    toggled: bytes


class Operation(enum.Enum):
    """How two values are combined."""

    AND = enum.auto()
    OR = enum.auto()
    XOR = enum.auto()
    SHIFT = enum.auto()


@dataclass(frozen=True, slots=True)
class Combine:
    """Combine a register with another, or with a constant; a shift has neither."""

    source: int
    register: int
    operation: Operation
    other: int | None = None
    constant: bytes = b""


@dataclass(frozen=True, slots=True)
class Put:
    """Put a constant into a register."""

    register: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Compute:
    """Put something into a register that is not followed."""

    register: int
    source: int | None = None


@dataclass(frozen=True, slots=True)
class Compare:
    """End the rule unless a register compares so."""

    register: int
    is_equal: bool
    """Whether it has to be equal."""

    value: bytes
    is_exact: bool = True
    """False for an order or a range."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look registers up in a set."""

    register: int
    set_name: str
    is_inverted: bool = False
    target: int | None = None
    """Where a map puts what it finds; None for sets, and for maps of verdicts."""

    leads_on: bool = False
    """Whether it is a map of verdicts."""


@dataclass(frozen=True, slots=True)
class Store:
    """Store a register."""

    operand: Operand
    register: int


class End(enum.Enum):
    """What a verdict does."""

    ACCEPT = enum.auto()
    DROP = enum.auto()
    JUMP = enum.auto()
    OTHER = enum.auto()
    """Return, continue, queue."""


@dataclass(frozen=True, slots=True)
class GiveVerdict:
    """End the rule."""

    end: End
    chain: str | None = None
    """Where it jumps or goes."""


@dataclass(frozen=True, slots=True)
class Extension:
    """A match or target of iptables."""

    is_target: bool
    name: str
    revision: int
    argument: bytes
    """As the kernel's module declares it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Anything else, by its name, like ``notrack`` or ``reject``."""

    name: str
    argument: str = ""
    """The flow table of ``flow_offload``."""


Expression = (
    Load | Bitwise | Combine | Put | Compute | Compare | LookUp | Store | GiveVerdict | Extension | Statement
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRule:
    """A rule of another table."""

    table: TableKey
    chain: str
    handle: int
    expressions: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignChain:
    """A chain of another table."""

    table: TableKey
    name: str
    hook: str | None = None
    """``prerouting`` …; None unless it is a base chain."""

    priority: int = 0
    drops: bool = False
    """Whether its policy is drop."""

    devices: tuple[str, ...] = ()
    """Of hooks of single links; a name that ends in ``*`` is a prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignSet:
    """A set of names or indexes of links."""

    table: TableKey
    name: str
    elements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTable:
    """A flow table."""

    table: TableKey
    name: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTable:
    """How our table stands in the kernel."""

    is_owned: bool
    is_persistent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRuleset:
    """All that the kernel has of other tables, dormant ones apart, in the order in which it has it."""

    chains: tuple[ForeignChain, ...] = ()
    rules: tuple[ForeignRule, ...] = ()
    link_sets: tuple[ForeignSet, ...] = ()
    flow_tables: tuple[FlowTable, ...] = ()
    own: OwnTable | None = None
    """None where there is no table of ours."""


NO_TABLES = ForeignRuleset()
