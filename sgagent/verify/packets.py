"""Packets at hooks of the kernel with their sessions, and sets of packets and of marks.

A set of packets is a box, a product of ranges. A set of marks consists of cubes of bits.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from sgagent.core.addresses import Ranges, common, holds, ranges_of, without
from sgagent.core.evaluate import Packet, Tracking
from sgagent.core.model import PORTED_NUMBERS, TCP, Direction, Family
from sgagent.core.openers import OPENING_FLAGS
from sgagent.nft.ruleset import ALL_BITS, CONFIRMED, EXPECTED, SetMark


class CtState(enum.Enum):
    """Conntrack's state of a packet; the values are nftables' words."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    """An ICMP error about a session, or the first packet of one that another session announced."""

    INVALID = "invalid"
    UNTRACKED = "untracked"


class CtDirection(enum.Enum):
    """Which way a packet goes, as seen from the host that opened its session."""

    ORIGINAL = "original"
    REPLY = "reply"


class Headers(enum.Enum):
    """The relation of a packet's header to its session."""

    OWN = "own"
    """The header is one of the session, on one side of NAT; or there is no session."""

    AUTHENTICATED = "authenticated"
    """Likewise, but an authentication header hides the protocol and ports from nftables."""

    ERROR = "error"
    """It is of an ICMP error about the session."""

    HIDDEN_ERROR = "hidden error"
    """Likewise, behind an authentication header; of a session that opens, no other one announced that."""

    ANNOUNCED = "hidden error about an announced session"
    """Likewise, in the direction of the packet that opened it, from which nftables can't distinguish it."""

    BROKEN = "broken"
    """Extension headers of IPv6 are cut off: there is no protocol, and no session."""


class Ports(enum.Enum):
    """Whether a packet has ports that rules compare."""

    PORTED = "ported"
    """The session's protocol is one of those whose ports rules compare."""

    SHORT = "short"
    """Likewise, but the packet is too short to hold ports, or a later fragment."""

    OTHER = "other"
    """Any other protocol; nothing is said about what stands in the place of ports."""


@dataclass(frozen=True, slots=True)
class Ends:
    """One of the two tuples that conntrack keeps of a session."""

    source: int
    destination: int
    source_port: int = 0
    """For protocols without ports whatever conntrack keeps in its place, like the id of a ping."""

    destination_port: int = 0

    @property
    def swapped(self) -> Ends:
        """Return the tuple of the other direction, if no address is translated."""
        return Ends(self.destination, self.source, self.destination_port, self.source_port)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAtHook:
    """Conntrack's entry of a packet's session."""

    direction: CtDirection
    """Of the packet."""

    protocol: int
    original: Ends
    """Before any NAT, as the packet that opened the session came in."""

    reply: Ends
    """After all NAT, as its answer is expected."""

    mark: int = 0
    is_expected: bool = False
    """Whether another session announced it."""

    is_confirmed: bool = False
    """Whether an earlier packet opened it."""

    @property
    def status(self) -> int:
        """Return the bits of its status that rules may compare."""
        return EXPECTED * self.is_expected | CONFIRMED * self.is_confirmed

    def opens_here(self, elsewhere: int) -> bool:
        """Return whether the packet opens the entry, or may open here what was opened over another link.

        Args:
            elsewhere: the bit of the mark that says so (§6.4).
        """
        is_new = not self.is_confirmed or bool(self.mark & elsewhere)
        return is_new and self.direction is CtDirection.ORIGINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketAtHook:
    """A packet as a base chain meets it."""

    hook: str
    """``prerouting``, ``input``, ``forward``, ``output`` or ``postrouting``."""

    interface: str
    """The link that it comes in by, or goes out by at ``output`` and ``postrouting``."""

    family: Family
    source: int
    """Of the header, as all that follows up to the hop limit."""

    destination: int
    protocol: int
    """As ``meta l4proto`` reads it: for IPv6 behind extension headers, authentication headers apart."""

    source_port: int | None = None
    """The first two bytes behind the IP header, whatever the protocol; None if the packet is too short."""

    destination_port: int | None = None
    """The next two."""

    icmp_type: int | None = None
    hop_limit: int = 64
    state: CtState = CtState.NEW
    session: SessionAtHook | None = None
    """None for invalid and untracked packets."""

    other_interface: str = ""
    """The link on the other side of a packet that is forwarded, where the hook knows it; else empty."""

    ether_destination: int | None = None
    """Of the frame that it came in with; None if it came in with none."""

    tcp_flags: int | None = None
    """Of a header of TCP."""

    user: int | None = None
    """Who made the socket of this host that it leaves from; None where the hook knows none."""

    unit: int | None = None
    """The number of the control group in which that was."""

    is_fragment: bool = False
    """Whether it is one of IPv6 that conntrack did not put together with the others."""

    hides_error: bool = False
    """Whether it is of an ICMPv6 error about its session, behind an authentication header."""

    @property
    def ends(self) -> Ends:
        """Return the ends in its header, with 0 for ports that it lacks."""
        ports = self.source_port or 0, self.destination_port or 0
        return Ends(self.source, self.destination, *ports)

    @property
    def is_error(self) -> bool:
        """Return whether it is of an ICMP error about its session, which may be one of ICMP itself."""
        return self.hides_error or (
            self.session is not None
            and self.protocol in (1, 58)
            and (self.state is CtState.RELATED or self.protocol != self.session.protocol)
        )

    @property
    def reopens(self) -> bool:
        """Return whether it may open a session of TCP in the entry of an older one (§13.1)."""
        is_syn = self.protocol == TCP.wire_number and self.tcp_flags in OPENING_FLAGS
        is_original = self.session is not None and self.session.direction is CtDirection.ORIGINAL
        return is_syn and is_original and self.state is CtState.ESTABLISHED

    @property
    def is_expected(self) -> bool:
        """Return whether another session announced its session, which has the mark of that one.

        nftables can't distinguish a hidden error about such a session from the packet that opens it (§6.5).
        """
        if not self.hides_error or self.session is None:
            return self.state is CtState.RELATED and not self.is_error
        return self.session.is_expected and self.session.direction is CtDirection.ORIGINAL


NO_PROTOCOL = 256
"""The protocol of an IPv6 packet whose extension headers are cut off: neither conntrack nor nftables finds
one. Only rules for all protocols match."""

WITH_INPUT_LINK = frozenset({"prerouting", "input", "forward"})
"""The hooks at which :attr:`PacketAtHook.interface` is the link that the packet came in by."""


def reads_other_link(key: str, hook: str) -> bool:
    """Return whether an expression, of ``iifname`` and ``oifname``, reads the link on the other side."""
    return key == ("oifname" if hook in WITH_INPUT_LINK else "iifname")


def opened_direction(hook: str, direction: CtDirection | None) -> Direction:
    """Return which way the session of a packet was opened through its link (§6.4).

    Args:
        hook: where the packet is.
        direction: of the packet within its session; without one it opens what there is.
    """
    is_reply = direction is CtDirection.REPLY
    return Direction.INGRESS if (hook in WITH_INPUT_LINK) is not is_reply else Direction.EGRESS


class Phase(enum.Enum):
    """The kernel's progress with a packet when it calls a base chain."""

    UNTRACKED = "before conntrack"
    WIRE = "as it is on the wire, with its session"
    TRANSLATED = "as it is on the inner side of NAT"


def phase_of(hook: str, priority: int) -> Phase:
    """Return the phase of a base chain by the kernel's priorities: conntrack -200, DNAT -100, SNAT 100."""
    if hook == "prerouting":
        return Phase.UNTRACKED if priority <= -200 else Phase.WIRE if priority < -100 else Phase.TRANSLATED
    if hook == "postrouting":
        return Phase.WIRE if priority > 100 else Phase.TRANSLATED
    return Phase.UNTRACKED if hook == "output" and priority <= -200 else Phase.TRANSLATED


def opener_of(packet: PacketAtHook, *, is_elsewhere: bool = False) -> Packet:
    """Return the packet that the policy decides about: itself, or the one that opened its session.

    That of a session opened inwards was as the original tuple says. That of one opened outwards was on the
    wire as the reply tuple says, with the ends exchanged. A reply of an entry that was not opened so here
    opens a session itself, unless it is of an error (§6.4).
    """
    if is_elsewhere:
        alone = opener_of(replace(packet, session=None))
        tracking = Tracking.INVALID if packet.is_error else Tracking.NEW
        return replace(alone, icmp_type=None, hop_limit=None, tracking=tracking)
    session = packet.session
    direction = opened_direction(packet.hook, None if session is None else session.direction)
    ends: PacketAtHook | Ends = packet
    if session is not None:
        ends = session.original if direction is Direction.INGRESS else session.reply.swapped
    protocol = packet.protocol if session is None else session.protocol
    is_ported = protocol in PORTED_NUMBERS
    untied = Tracking.UNTRACKED if packet.state is CtState.UNTRACKED else Tracking.INVALID
    return Packet(
        interface=packet.interface,
        direction=direction,
        family=packet.family,
        source=ends.source,
        destination=ends.destination,
        protocol=protocol,
        source_port=ends.source_port if is_ported else None,
        destination_port=ends.destination_port if is_ported else None,
        icmp_type=packet.icmp_type if session is None else None,
        hop_limit=packet.hop_limit if session is None else None,
        tracking=Tracking.NEW if session is not None else untied,
        user=packet.user,
        unit=packet.unit,
        is_fragment=packet.is_fragment,
        is_of_unknown_user=direction is Direction.EGRESS and packet.hook in WITH_INPUT_LINK,
    )


Dimension = str
"""What a packet can differ in: ``protocol``, ``near end``, ``hop limit``."""

PacketSpace = Mapping[Dimension, Ranges]
"""The packets that have one of each, whatever their far end and mark."""

Constraints = tuple[tuple[Dimension, Ranges], ...]
"""What packets have to have; equivalent to a box whose other dimensions are everything."""


def meet(one: Ranges, other: Ranges) -> Ranges:
    """Return the numbers that are in both."""
    if one is other:
        return one
    if len(one) == len(other) == 1:
        (first, last), (start, end) = one[0], other[0]
        first, last = max(first, start), min(last, end)
        return ((first, last),) if first <= last else ()
    return common(one, other)


def split(box: PacketSpace, constraints: Constraints) -> tuple[PacketSpace | None, list[PacketSpace]]:
    """Return the part of a box that meets all constraints, if any does, and the rest in disjoint boxes."""
    inside, outside = box, list[PacketSpace]()
    for dimension, wanted in constraints:
        have = inside[dimension]
        both = meet(have, wanted)
        if not both:
            return None, [box]
        if both != have:
            outside.append({**inside, dimension: without(have, both)})
            inside = {**inside, dimension: both}
    return inside, outside


def is_disjoint(box: PacketSpace, constraints: Constraints) -> bool:
    """Return whether no packet of a box meets all constraints; a dimension that it lacks never does."""
    return any(dimension not in box or not meet(box[dimension], wanted) for dimension, wanted in constraints)


@lru_cache(maxsize=64)
def under_mask(bits: int, mask: int, wanted: Ranges) -> Ranges:
    """Return the numbers of so many bits, 16 at most, of which those of a mask are a number wanted."""
    return ranges_of(number for number in range(1 << bits) if holds(wanted, number & mask))


UNCHANGED = SetMark(keep=ALL_BITS, put=0)

Cube = tuple[int, int]
"""Bits that are known, and their values: all marks that have these values in these bits."""

Marks = tuple[Cube, ...]
"""A set of marks: disjoint cubes."""

EVERY_MARK: Marks = ((0, 0),)


@lru_cache(maxsize=4096)
def split_marks(marks: Marks, cube: Cube) -> tuple[Marks, Marks]:
    """Return the marks in the cube, and the others: for each of its bits those that differ there first."""
    bits, value = cube
    inside = ((known | bits, have | value) for known, have in marks if not (have ^ value) & known & bits)
    return tuple(inside), tuple(part for one in marks for part in _other_cubes(one, cube))


def _other_cubes(one: Cube, cube: Cube) -> Iterator[Cube]:
    (known, have), (bits, value) = one, cube
    if (have ^ value) & known & bits:
        yield one
        return
    left = bits & ~known
    while left:
        bit = left & -left
        left ^= bit
        yield known | bit, have | (bit & ~value)
        known, have = known | bit, have | (bit & value)


def marks_text(marks: Iterable[Cube]) -> str:
    """Return marks in words, like ``0x1``, or ``0x10/0xf0`` for bits in a mask; nothing for all marks."""
    others = _all_marks_but(marks)
    some = _all_marks_but(others)
    shown, head = (others, "all but ") if len(others) < len(some) else (some, "")
    words = (f"{have:#x}" if bits == ALL_BITS else f"{have:#x}/{bits:#x}" for bits, have in shown)
    return head + ", ".join(words) if others else ""


def _all_marks_but(cubes: Iterable[Cube]) -> Marks:
    left = EVERY_MARK
    for cube in cubes:
        _, left = split_marks(left, cube)
    return left


def cubes_of(bits: int, first: int, last: int) -> tuple[Cube, ...]:
    """Return the marks of which certain bits, as a number, are from ``first`` to ``last``."""
    found: list[Cube] = []
    while first <= last:
        size = min(first & -first or ALL_BITS + 1, 1 << (last - first + 1).bit_length() - 1)
        fixed = ALL_BITS & ~(size - 1)
        if not first & fixed & ~bits:
            found.append((fixed & bits, first & bits))
        first += size
    return tuple(found)


def before_change(change: SetMark, cube: Cube) -> Cube | None:
    """Return the marks that are in the cube after a change; None if there are none."""
    bits, value = cube
    constant = bits & (change.put | ~change.keep)
    if (value ^ change.put) & constant:
        return None
    return bits & ~constant, value & ~constant


def after_both(first: SetMark, second: SetMark) -> SetMark:
    """Return the change that two make one after the other."""
    put = first.put & second.keep | second.put
    return SetMark(keep=first.keep & second.keep | put, put=put)


@lru_cache(maxsize=4096)
def difference(marks: Marks, one: SetMark, other: SetMark) -> int | None:
    """Return a mark of some that two changes make into different ones; None if there is none."""
    for known, have in marks:
        unlike = (one.keep | one.put) ^ (other.keep | other.put)
        mark = have | (unlike & ~known)
        if one.of(mark) != other.of(mark):
            return mark
        if one.of(have) != other.of(have):
            return have
    return None
