"""The expressions of a rule, the instructions that the kernel runs, as values.

Registers are counted in words of 4 bytes, from 0.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from sgagent.nft import ruleset as nft


class Base(enum.IntEnum):
    """Where the offset of a read from a packet begins."""

    LINK = 0
    NETWORK = 1
    TRANSPORT = 2


@dataclass(frozen=True, slots=True)
class PacketBytes:
    """Bytes of a packet, whatever they are."""

    base: Base
    offset: int
    length: int

    def __str__(self) -> str:
        """Return it as nft writes a raw payload."""
        name = {Base.LINK: "ll", Base.NETWORK: "nh", Base.TRANSPORT: "th"}[self.base]
        return f"@{name},{8 * self.offset},{8 * self.length}"


@dataclass(frozen=True, slots=True)
class Key:
    """Something else that the kernel knows of a packet or its session."""

    kind: str
    """``ct``, ``meta``, or ``exthdr``: whether IPv6 has the extension header."""

    key: int
    """The kernel's number for it."""

    direction: int | None = None
    """0 for a session's original tuple, 1 for its reply tuple."""

    def __str__(self) -> str:
        """Return it as nft writes it."""
        name = _KEY_NAMES[self.kind].get(self.key, str(self.key))
        if self.direction is not None:
            name = f"{('original', 'reply')[self.direction & 1]} {name}"
        return f"{self.kind} {name}"


_CT_NAMES = """
    state direction status mark secmark expiration helper l3proto saddr daddr protocol proto-src proto-dst
    label packets bytes avgpkt zone event
"""
_META_NAMES = """
    length protocol priority mark iif oif iifname oifname iiftype oiftype skuid skgid nftrace rtclassid
    secmark nfproto l4proto ibrname obrname pkttype cpu iifgroup oifgroup cgroup random ipsec iifkind oifkind
    ibrpvid ibrvproto time day hour sdif sdifname broute ibrhwaddr
"""
_KEY_NAMES: Mapping[str, Mapping[int, str]] = {
    "ct": dict(enumerate(_CT_NAMES.split())),
    "meta": dict(enumerate(_META_NAMES.split())),
    "exthdr": {44: "frag"},
}

ValueSource = PacketBytes | Key


@dataclass(frozen=True, slots=True)
class Load:
    """Read something into a register; without it the rule ends."""

    register: int
    source: ValueSource


@dataclass(frozen=True, slots=True)
class Constant:
    """Put bytes into a register."""

    register: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Bitwise:
    """Replace the bits outside of a mask, and flip some."""

    source: int
    register: int
    length: int
    mask: bytes
    flip: bytes


class Combination(enum.IntEnum):
    """How two values are combined."""

    SHIFT_LEFT = 1
    SHIFT_RIGHT = 2
    AND = 3
    OR = 4
    XOR = 5


@dataclass(frozen=True, slots=True)
class Combine:
    """Combine a register with another, or with a constant."""

    source: int
    register: int
    operation: Combination
    other: int | None = None
    constant: bytes = b""

    def __str__(self) -> str:
        """Return the kernel's name for it."""
        return "bitwise"


@dataclass(frozen=True, slots=True)
class ByteOrder:
    """Change between the byte orders of the host and of the network."""

    source: int
    register: int
    length: int
    size: int
    """Of each number."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Put something into a register that is not followed, like a hash."""

    name: str
    register: int
    source: int | None = None
    looks_up: tuple[int, int] | None = None
    """Of ``fib``: what it finds, and the flags of what it looks up, as the kernel numbers them."""

    def __str__(self) -> str:
        """Return the kernel's name for it."""
        return self.name


class Order(enum.IntEnum):
    """How bytes are compared, in the order of the network."""

    EQUAL = 0
    NOT_EQUAL = 1
    LESS = 2
    AT_MOST = 3
    GREATER = 4
    AT_LEAST = 5


@dataclass(frozen=True, slots=True)
class Compare:
    """Go on only if a register compares so."""

    register: int
    order: Order
    value: bytes


@dataclass(frozen=True, slots=True)
class CompareRange:
    """Go on only if a register is within two ends, or is not."""

    register: int
    is_negated: bool
    first: bytes
    last: bytes


@dataclass(frozen=True, slots=True)
class SetLookUp:
    """Look registers up in a set, or in a map."""

    register: int
    name: str
    is_negated: bool
    is_map: bool
    """Whether it is a map of verdicts."""

    target: int | None = None
    """The register into which a map of other values puts what it finds."""


@dataclass(frozen=True, slots=True)
class SetUpdate:
    """Add registers to a set, or take them out of it; go on only if that succeeds."""

    register: int
    name: str = ""
    limit: tuple[int, int, int] | None = None
    """Rate, its seconds, and burst of the element, where it goes on only beyond; None for all else."""

    def __str__(self) -> str:
        """Return the kernel's name for it."""
        return "dynset"


@dataclass(frozen=True, slots=True)
class Store:
    """Change a field of the packet or its session to a register's value."""

    target: ValueSource
    register: int

    def __str__(self) -> str:
        """Return it as nft writes it; a change of a packet's bytes by the kernel's name."""
        return f"set {self.target}" if isinstance(self.target, Key) else "payload"


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop the packet, and tell its sender if that can be done."""


@dataclass(frozen=True, slots=True)
class Offload:
    """Add the session to a flow table."""

    flow_table: str

    def __str__(self) -> str:
        """Return the kernel's name for it."""
        return "flow_offload"


@dataclass(frozen=True, slots=True)
class Xtables:
    """A match or a target of iptables."""

    is_target: bool
    name: str
    revision: int
    argument: bytes
    """As the kernel's module declares it."""

    def __str__(self) -> str:
        """Return the kernel's name for it."""
        return "target" if self.is_target else "match"


@dataclass(frozen=True, slots=True)
class NamedStatement:
    """Something that does not decide about packets, and that our own rules never have."""

    name: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that is not understood, or that has no other value here."""

    name: str

    def __str__(self) -> str:
        """Return the kernel's name for it."""
        return self.name


Done = nft.Verdict | nft.Count | nft.Limit | nft.Log | Reject | NamedStatement
"""Expressions that read no register."""

NotFollowed = Combine | Compute | SetUpdate | Offload | Xtables | Unknown
"""Expressions that no statement of sgagent's is made of."""

Expression = (
    Load | Constant | Bitwise | ByteOrder | Compare | CompareRange | SetLookUp | Store | Done | NotFollowed
)
