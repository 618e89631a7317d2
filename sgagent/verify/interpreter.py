"""The meaning of a table for one packet: the kernel's treatment, statement by statement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import assert_never

from sgagent.core.conditions import GroupPath
from sgagent.core.model import PORTED_NUMBERS, Direction, Family, Policy, Protocol
from sgagent.nft import ruleset as nft
from sgagent.verify.counter_names import meter_notes
from sgagent.verify.packets import (
    NO_PROTOCOL,
    WITH_INPUT_LINK,
    CtState,
    Ends,
    PacketAtHook,
    Phase,
    SessionAtHook,
    opened_direction,
    reads_other_link,
)
from sgagent.verify.verified_table import (
    Unread,
    UnsupportedStatementError,
    VerifiedChain,
    VerifiedStatement,
    VerifiedTable,
)


@dataclass(slots=True, kw_only=True)
class Trace:
    """A table's treatment of a packet."""

    verdict: Policy = Policy.ACCEPT
    counters: tuple[str, ...] = ()
    """The named counters that the packet adds to, in order."""

    mark: int | None = None
    """Of the session afterwards; None where there is none."""

    path: tuple[str, ...] = ()
    """The chains that it enters and the maps in which it is found, in order."""


def run(
    table: VerifiedTable,
    packet: PacketAtHook,
    limits: list[bool] | None = None,
    unknown: frozenset[nft.Selector] = frozenset(),
) -> Trace:
    """Return a table's treatment of a packet at its hook.

    Args:
        table: what does it.
        packet: as the table meets it.
        limits: for each limit that the packet meets whether it lets it pass. It is filled up with those that
            the packet meets besides, and that let it pass.
        unknown: fields that the packet has, of which nobody said what is in them.

    Raises:
        UnsupportedStatementError: the packet meets a statement that is not understood, or reads such a field.
    """
    mark = packet.session.mark if packet.session else None
    walk = _Walk(table, packet, mark, [] if limits is None else limits, unknown)
    verdict = walk.through_hook()
    return Trace(verdict=verdict, counters=tuple(walk.counters), mark=walk.mark, path=tuple(walk.path))


MOST_TRACES = 1_000
"""Of one packet; a table of ours meters a packet once."""


def traces(
    table: VerifiedTable, packet: PacketAtHook, unknown: frozenset[nft.Selector] = frozenset()
) -> Iterator[Trace]:
    """Yield a table's possible treatments of a packet, as each limit lets it pass or not; first if all do.

    Raises:
        UnsupportedStatementError: as :func:`run` says, or the packet meets too many limits.
    """
    waiting: list[list[bool]] = [[]]
    for _ in range(MOST_TRACES):
        limits = waiting.pop()
        decided = len(limits)
        yield run(table, packet, limits, unknown)
        waiting += ([*limits[:place], False] for place in range(decided, len(limits)))
        if not waiting:
            return
    raise UnsupportedStatementError("it depends on limits")


OVER_LIMIT = "over limit"
"""In a path: the packets before have used the limit of the chain up."""


class _BreakError(Exception):
    """The packet lacks the field that the rule reads: the kernel goes on with the next rule."""


_Final = nft.Accept | nft.Drop


@dataclass(slots=True)
class _Walk:
    table: VerifiedTable
    packet: PacketAtHook
    mark: int | None
    limits: list[bool]
    unknown: frozenset[nft.Selector]
    limits_met: int = 0
    counters: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    phase: Phase = Phase.WIRE

    def through_hook(self) -> Policy:
        """Go through the base chains of the hook until one drops the packet."""
        for chain in self.table.chains_at(self.packet.hook, self.packet.family):
            self.phase = chain.phase
            verdict = self._enter(chain)
            if isinstance(verdict, nft.Drop) or (verdict is None and chain.drops):
                return Policy.DROP
        return Policy.ACCEPT

    def _enter(self, chain: VerifiedChain) -> _Final | None:
        """Return the verdict of a chain; None where it ends without one."""
        self.path.append(chain.name)
        for statements in chain.rules:
            match self._ending(statements):
                case nft.Accept() | nft.Drop() as final:
                    return final
                case nft.Goto(target):
                    return self._enter(self.table.chains[target])
                case nft.Jump(target):
                    found = self._enter(self.table.chains[target])
                    if found is not None:
                        return found
                case nft.Return():
                    return None
        return None

    def _ending(self, statements: tuple[VerifiedStatement, ...]) -> VerifiedStatement | None:
        """Return the verdict of a rule; None where it does not apply or has none."""
        try:
            for statement in statements:
                match statement:
                    case nft.Match():
                        if not self._matches(statement):
                            return None
                    case nft.LookUp():
                        return self._look_up(statement)
                    case nft.Count(counter):
                        self.counters.append(counter)
                    case nft.SetMark():
                        self._set_mark(statement)
                    case nft.Log():
                        pass
                    case nft.Limit():
                        if not self._is_within():
                            return None
                    case nft.Meter():
                        self._read(statement.selector)
                        meter_set = self.table.meter_sets[statement.meter_set]
                        within, over = meter_notes(statement, meter_set)
                        if self._is_within():
                            self.counters.append(within)
                            return None
                        self.counters.append(over)
                    case Unread(description):
                        raise UnsupportedStatementError(description)
                    case nft.Accept() | nft.Drop() | nft.Goto() | nft.Jump() | nft.Return():
                        return statement
                    case _:
                        assert_never(statement)
        except _BreakError:
            return None
        return None

    def _is_within(self) -> bool:
        """Return whether the next limit lets the packet pass."""
        if self.limits_met == len(self.limits):
            self.limits.append(True)
        self.limits_met += 1
        is_within = self.limits[self.limits_met - 1]
        self.path.extend(() if is_within else (OVER_LIMIT,))
        return is_within

    def _matches(self, match: nft.Match) -> bool:
        value = self._read(match.selector)
        if match.mask is not None and isinstance(value, int):
            value &= match.mask
        found = any(_holds(wanted, value) for wanted in match.values)
        return found is (match.operator is nft.Operator.EQUAL)

    def _look_up(self, statement: nft.LookUp) -> VerifiedStatement | None:
        key = [self._read(selector) for selector in statement.selectors]
        for element in self.table.verdict_maps[statement.verdict_map].elements:
            if all(_holds(wanted, value) for wanted, value in zip(element.key, key, strict=True)):
                self.path.append(statement.verdict_map)
                return element.verdict
        return None

    @property
    def session(self) -> SessionAtHook | None:
        """Return the session, if the base chain is called behind conntrack."""
        return None if self.phase is Phase.UNTRACKED else self.packet.session

    def _set_mark(self, statement: nft.SetMark) -> None:
        """Set the mark. Reading it first breaks a rule without a session; to set a constant does not."""
        if self.mark is not None and self.session is not None:
            self.mark = statement.of(self.mark)
        elif statement.keep != statement.put:
            raise _BreakError

    def _read(self, selector: nft.Selector) -> int | str:
        of_host = self._read_meta
        read = {"ct": self._read_ct, "meta": of_host, "socket": of_host, "payload": self._read_payload}
        value = self._read_extension() if selector.kind == "exthdr" else read[selector.kind](selector)
        if value is None:
            raise _BreakError
        if selector in self.unknown:
            raise UnsupportedStatementError(f"it depends on {selector.kind} {selector.key}")
        return value

    def _read_ct(self, selector: nft.Selector) -> int | str | None:
        session = self.session
        if selector.key == "state":
            return (CtState.INVALID if self.phase is Phase.UNTRACKED else self.packet.state).value
        if session is None:
            return None
        match selector.key:
            case "direction":
                return session.direction.value
            case "mark":
                return self.mark
            case "protocol":
                return session.protocol
            case "status":
                return session.status
            case "l3proto":
                return self.packet.family.value
            case key:
                is_original = selector.tuple_direction is nft.TupleDirection.ORIGINAL
                return self._read_tuple(session.original if is_original else session.reply, key)

    def _read_tuple(self, ends: Ends, key: str) -> int | None:
        match key.split():
            case ["proto-src"]:
                return ends.source_port
            case ["proto-dst"]:
                return ends.destination_port
            case [family, end] if (family == "ip") is (self.packet.family is Family.IPV4):
                return ends.source if end == "saddr" else ends.destination
            case _:
                return None

    def _read_meta(self, selector: nft.Selector) -> int | str | None:
        match selector.key:
            case "nfproto":
                return self.packet.family.value
            case "l4proto":
                return None if self.packet.protocol == NO_PROTOCOL else self.packet.protocol
            case "iifname" | "oifname" as key:
                is_other = reads_other_link(key, self.packet.hook)
                return self.packet.other_interface if is_other else self.packet.interface
            case "skuid" | "cgroup" as key if self.packet.hook not in ("input", "forward"):
                return self.packet.user if key == "skuid" else self.packet.unit
            case key:
                raise UnsupportedStatementError(f"meta {key}")

    def _read_extension(self) -> str | None:
        """Return whether there is a fragment header, the one that is asked for."""
        if self.packet.family is Family.IPV4:
            return None
        return "exists" if self.packet.is_fragment else "missing"

    def _read_payload(self, selector: nft.Selector) -> int | None:
        packet, (header, name) = self.packet, selector.key.split()
        if header == "ether":
            return packet.ether_destination
        if header in {"ip", "ip6"}:
            if (header == "ip") is not (packet.family is Family.IPV4):
                return None
            ends = self._ends()
            return {"saddr": ends.source, "daddr": ends.destination, "hoplimit": packet.hop_limit}[name]
        if packet.protocol == NO_PROTOCOL:
            return None
        if header in _ICMP:
            return packet.icmp_type if (packet.family, packet.protocol) == _ICMP[header] else None
        if header not in {"th", str(Protocol(packet.protocol))}:
            return None
        if name == "flags":
            return packet.tcp_flags
        has_ports = packet.source_port is not None and packet.destination_port is not None
        read = self._ends() if has_ports and packet.protocol in PORTED_NUMBERS else packet
        return read.source_port if name == "sport" else read.destination_port

    def _ends(self) -> Ends:
        """Return the ends in the header; on the inner side of NAT one of them is the other tuple's."""
        packet, session = self.packet, self.session
        on_wire = packet.ends
        is_input = packet.hook in WITH_INPUT_LINK
        if session is None or self.phase is not Phase.TRANSLATED or (packet.is_error and not is_input):
            return on_wire
        inwards = opened_direction(packet.hook, session.direction) is Direction.INGRESS
        other = session.reply if inwards else session.original
        if packet.is_error:
            return replace(on_wire, destination=other.source)
        if is_input:
            return replace(on_wire, destination=other.source, destination_port=other.source_port)
        return replace(on_wire, source=other.source, source_port=other.source_port)


_ICMP = {"icmp": (Family.IPV4, 1), "icmpv6": (Family.IPV6, 58)}


def _holds(wanted: nft.Comparable, value: int | str) -> bool:
    match wanted:
        case nft.Interval(first, last):
            return isinstance(value, int) and first <= value <= last
        case nft.Symbol(word):
            return value == word
        case nft.NamePrefix(prefix):
            return isinstance(value, str) and value.startswith(prefix)
        case GroupPath():
            first, last = wanted.numbers
            return isinstance(value, int) and first <= value <= last
        case _:
            assert_never(wanted)
