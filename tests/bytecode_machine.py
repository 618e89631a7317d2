"""The kernel's machine for nftables' programs, on concrete bytes: what a dump does with one packet.

It shares nothing with the decoder: no symbols, no fields, only registers and bytes. So what the decoder makes
of a program can be compared with what the program does.
"""

from __future__ import annotations

import operator
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from sgagent.core.model import Family
from sgagent.verify.packets import NO_PROTOCOL, WITH_INPUT_LINK, CtDirection, CtState, Ends, PacketAtHook

Attributes = dict[int, bytes]
_STATES = {
    CtState.INVALID: 1,
    CtState.ESTABLISHED: 2,
    CtState.RELATED: 4,
    CtState.NEW: 8,
    CtState.UNTRACKED: 64,
}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
ACCEPT, DROP, CONTINUE, BREAK, JUMP, GOTO, RETURN = 1, 0, -1, -2, -3, -4, -5


class NotModelledError(Exception):
    """Say that the machine does not know an instruction, or what it reads."""


class _BreakError(Exception):
    """The rule ends here."""


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and value of attributes."""
    place = 0
    while place < len(data):
        length, kind = struct.unpack_from("=HH", data, place)
        yield kind & 0x3FFF, data[place + 4 : place + length]
        place += length + 3 & ~3


def of(data: bytes) -> Attributes:
    """Return attributes by kind."""
    return dict(attributes(data))


def big(value: bytes) -> int:
    """Return a number in the order of the network."""
    return int.from_bytes(value, "big")


def signed(value: bytes) -> int:
    """Return one with a sign."""
    return int.from_bytes(value, "big", signed=True)


Verdict = tuple[int, str]
Element = tuple[bytes, bytes, int, Verdict | None]
Instruction = tuple[str, Attributes]


@dataclass(slots=True)
class Set:
    """A set as the kernel keeps it."""

    flags: int
    fields: tuple[int, ...]
    elements: list[Element] = field(default_factory=list)

    def find(self, key: bytes) -> tuple[bool, Verdict | None]:
        """Return whether a key is there, and what it leads to."""
        if self.fields:
            for first, last, _, verdict in self.elements:
                if self._is_between(key, first, last or first):
                    return True, verdict
            return False, None
        if self.flags & 4:
            below = [one for one in self.elements if one[0] <= key]
            nearest = max(below, key=lambda one: (one[0], not one[2] & 1), default=None)
            return (False, None) if nearest is None or nearest[2] & 1 else (True, nearest[3])
        return next(((True, one[3]) for one in self.elements if one[0] == key), (False, None))

    def _is_between(self, key: bytes, first: bytes, last: bytes) -> bool:
        place = 0
        for length in self.fields:
            cut = slice(place, place + length)
            if not first[cut] <= key[cut] <= last[cut]:
                return False
            place += length + 3 & ~3
        return True


@dataclass(slots=True)
class Outcome:
    """What became of a packet."""

    is_accepted: bool = True
    counters: list[str] = field(default_factory=list)
    mark: int | None = None


class Machine:
    """A table in the kernel."""

    def __init__(self, dump: bytes) -> None:
        """Load the messages of a dump."""
        self.bases: list[tuple[str, int, bool, str]] = []
        """Hook, priority, whether the policy is to drop, and name."""

        self.rules: dict[str, list[list[Instruction]]] = {}
        self.sets: dict[str, Set] = {}
        self.is_dormant = False
        place = 0
        while place < len(dump):
            length, kind = struct.unpack_from("=IH", dump, place)
            if kind >> 8 == 10:
                self._load(kind & 0xFF, of(dump[place + 20 : place + length]))
            place += length + 3 & ~3

    def _load(self, kind: int, given: Attributes) -> None:
        if kind == 0:
            self.is_dormant = bool(big(given.get(2, b"")) & 1)
        elif kind == 3:
            name = given[3].rstrip(b"\0").decode()
            self.rules.setdefault(name, [])
            if 4 in given:
                where = of(given[4])
                self.bases.append((_HOOKS[big(where[1])], signed(where[2]), big(given[5]) == 0, name))
        elif kind == 6:
            found = [of(one) for _, one in attributes(given[4])]
            rule = [(one[1].rstrip(b"\0").decode(), of(one.get(2, b""))) for one in found]
            self.rules[given[2].rstrip(b"\0").decode()].append(rule)
        elif kind == 9:
            described = of(of(given.get(9, b"")).get(2, b""))
            listed = [value for _, value in attributes(of(given.get(9, b"")).get(2, b""))]
            fields = tuple(big(of(one)[1]) for one in listed) if described else ()
            self.sets[given[2].decode().rstrip("\0")] = Set(big(given[3]), fields)
        elif kind == 12:
            into = self.sets[given[2].decode().rstrip("\0")]
            into.elements += (_element(of(one)) for _, one in attributes(given.get(3, b"")))

    def run(self, packet: PacketAtHook) -> Outcome:
        """Return what becomes of a packet at its hook."""
        outcome = Outcome(mark=packet.session.mark if packet.session else None)
        chains = sorted(
            (priority, -number, drops, name)
            for number, (hook, priority, drops, name) in enumerate(self.bases)
            if hook == packet.hook and not self.is_dormant
        )
        for _, _, drops, name in chains:
            code = self._chain(name, packet, outcome)
            if code == DROP or (code == CONTINUE and drops):
                outcome.is_accepted = False
                return outcome
        return outcome

    def _chain(self, name: str, packet: PacketAtHook, outcome: Outcome) -> int:
        for rule in self.rules[name]:
            code, target = _Rule(self, packet, outcome).run(rule)
            if code in (ACCEPT, DROP):
                return code
            if code == RETURN:
                return CONTINUE
            if code in (JUMP, GOTO):
                found = self._chain(target, packet, outcome)
                if found != CONTINUE or code == GOTO:
                    return found
        return CONTINUE


def _element(given: Attributes) -> Element:
    verdict = None
    if 2 in given:
        said = of(of(given[2])[2])
        verdict = signed(said[1]), said.get(2, b"").rstrip(b"\0").decode()
    last = of(given[10])[1] if 10 in given else b""
    return of(given[1])[1], last, big(given.get(3, b"")), verdict


class _Rule:
    """Run one rule: 64 bytes of registers, and a verdict."""

    def __init__(self, machine: Machine, packet: PacketAtHook, outcome: Outcome) -> None:
        self._machine = machine
        self._packet = packet
        self._outcome = outcome
        self._registers = bytearray(64)

    def run(self, rule: list[Instruction]) -> Verdict:
        """Return the verdict; to continue where there is none."""
        try:
            for name, given in rule:
                verdict = self._step(name, given)
                if verdict is not None:
                    return verdict
        except _BreakError:
            pass
        return CONTINUE, ""

    def _step(self, name: str, given: Attributes) -> Verdict | None:  # noqa: C901, PLR0912 - one case per instruction
        match name:
            case "meta" | "ct" if 1 in given:
                read = self._meta if name == "meta" else self._ct
                self._put(big(given[1]), read(big(given[2]), big(given[3]) if 3 in given else None))
            case "ct" if big(given[2]) == 3:
                if self._outcome.mark is not None:
                    (self._outcome.mark,) = struct.unpack("=I", self._get(big(given[4]), 4))
            case "payload" if 1 in given:
                content, offset = self._header(big(given[2])), big(given[3])
                length = big(given[4])
                if offset + length > len(content):
                    raise _BreakError
                self._put(big(given[1]), content[offset : offset + length])
            case "exthdr" if (big(given[2]), big(given[5])) == (44, 1):
                if self._packet.family is Family.IPV4:
                    raise _BreakError
                self._put(big(given[1]), bytes((self._packet.is_fragment,)))
            case "cmp":
                self._compare(given)
            case "range":
                first, last = of(given[3])[1], of(given[4])[1]
                value = self._get(big(given[1]), len(first))
                if (first <= value <= last) is bool(big(given[2])):
                    raise _BreakError
            case "bitwise":
                self._mask(given)
            case "byteorder":
                self._swap(given)
            case "lookup":
                return self._look_up(given)
            case "immediate":
                return self._immediate(given)
            case "objref" if big(given.get(1, b"")) == 1:
                self._outcome.counters.append(given[2].rstrip(b"\0").decode())
            case "counter" | "log" | "last" | "limit":  # whatever is within a limit
                pass
            case "reject":
                return DROP, ""
            case _:
                raise NotModelledError(name)
        return None

    def _place(self, register: int) -> int:
        return 16 * (register - 1) if register <= 4 else 4 * (register - 8)

    def _put(self, register: int, value: bytes) -> None:
        place = self._place(register)
        padded = value + bytes(-len(value) % 4)
        self._registers[place : place + len(padded)] = padded

    def _get(self, register: int, length: int) -> bytes:
        place = self._place(register)
        return bytes(self._registers[place : place + length])

    def _compare(self, given: Attributes) -> None:
        wanted = of(given[3])[1]
        value = self._get(big(given[1]), len(wanted))
        compared = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)
        if not compared[big(given[2])](value, wanted):
            raise _BreakError

    def _mask(self, given: Attributes) -> None:
        if big(given.get(6, b"")):
            raise NotModelledError("shift")
        length = big(given[3])
        mask, flip = of(given[4])[1], of(given[5])[1]
        value = self._get(big(given[1]), length)
        cut = bytes(one & by ^ turned for one, by, turned in zip(value, mask, flip, strict=True))
        self._put(big(given[2]), cut)

    def _swap(self, given: Attributes) -> None:
        length, size = big(given[4]), big(given[5])
        value = self._get(big(given[1]), length)
        if sys.byteorder == "little":
            value = b"".join(value[at : at + size][::-1] for at in range(0, length, size))
        self._put(big(given[2]), value)

    def _look_up(self, given: Attributes) -> Verdict | None:
        where = self._machine.sets[given[1].decode().rstrip("\0")]
        if where.flags & ~0xAF:
            raise NotModelledError("set")
        length = max((len(one[0]) for one in where.elements), default=0)
        is_there, verdict = where.find(self._get(big(given[2]), length))
        if is_there is bool(big(given.get(5, b""))):
            raise _BreakError
        if 3 in given:
            if verdict is None:
                raise NotModelledError("map")
            return None if verdict[0] == CONTINUE else verdict
        return None

    def _immediate(self, given: Attributes) -> Verdict | None:
        data = of(given[2])
        if big(given[1]):
            self._put(big(given[1]), data[1])
            return None
        said = of(data[2])
        code = signed(said[1])
        return None if code == CONTINUE else (code, said.get(2, b"").rstrip(b"\0").decode())

    def _meta(self, key: int, _: int | None) -> bytes:
        packet, is_ipv4 = self._packet, self._packet.family is Family.IPV4
        is_input = packet.hook in WITH_INPUT_LINK
        links = packet.interface, packet.other_interface
        incoming, outgoing = links if is_input else links[::-1]
        match key:
            case 1:
                return b"\x08\0" if is_ipv4 else b"\x86\xdd"
            case 4 | 5:
                return struct.pack("=I", {"": 0, "lo": 1}.get((incoming, outgoing)[key - 4], 7))
            case 6 | 7:
                return (incoming, outgoing)[key - 6].encode().ljust(16, b"\0")
            case 8:
                return struct.pack("=H", 772 if incoming == "lo" else 1)
            case 15:
                return b"\x02" if is_ipv4 else b"\x0a"
            case 16:
                if packet.protocol == NO_PROTOCOL:
                    raise _BreakError
                return bytes((packet.protocol,))
            case _:
                raise NotModelledError(f"meta {key}")

    def _ct(self, key: int, direction: int | None) -> bytes:
        packet, session = self._packet, self._packet.session
        if key == 0:
            return struct.pack("=I", _STATES[packet.state])
        if session is None:
            raise _BreakError
        is_ipv4 = packet.family is Family.IPV4
        ends: Ends = session.reply if direction else session.original
        match key:
            case 1:
                return bytes((session.direction is CtDirection.REPLY,))
            case 2:
                return struct.pack("=I", session.status)
            case 3:
                return struct.pack("=I", self._outcome.mark)
            case 7:
                return b"\x02" if is_ipv4 else b"\x0a"
            case 10:
                return bytes((session.protocol,))
            case 11 | 12:
                return struct.pack(">H", (ends.source_port, ends.destination_port)[key - 11])
            case 19 | 20 | 21 | 22 if (key < 21) is is_ipv4:
                address = ends.source if key in (19, 21) else ends.destination
                return address.to_bytes(4 if is_ipv4 else 16, "big")
            case 19 | 20 | 21 | 22:
                raise _BreakError
            case _:
                raise NotModelledError(f"ct {key}")

    def _header(self, base: int) -> bytes:
        packet = self._packet
        protocol = 59 if packet.protocol == NO_PROTOCOL else packet.protocol
        match base:
            case 0:
                kind = b"\x08\0" if packet.family is Family.IPV4 else b"\x86\xdd"
                return bytes.fromhex("00005e005301 00005e005302") + kind
            case 1 if packet.family is Family.IPV4:
                ends = packet.source.to_bytes(4, "big") + packet.destination.to_bytes(4, "big")
                return bytes((0x45, 0, 0, 40, 1, 2, 0x40, 0, packet.hop_limit, protocol, 3, 4)) + ends
            case 1:
                ends = packet.source.to_bytes(16, "big") + packet.destination.to_bytes(16, "big")
                return bytes((0x60, 0, 0, 0, 0, 20, protocol, packet.hop_limit)) + ends
            case 2 if packet.protocol != NO_PROTOCOL:
                return _transport(packet)
            case 2:
                raise _BreakError
            case _:
                raise NotModelledError(f"base {base}")


def _transport(packet: PacketAtHook) -> bytes:
    if packet.source_port is None:
        return b"" if packet.icmp_type is None else bytes((packet.icmp_type,))
    first = struct.pack(">H", packet.source_port)
    if packet.destination_port is None:
        return first
    return first + struct.pack(">H", packet.destination_port) + bytes(range(1, 17))
