"""Walk a packet through a compiled table as the kernel would, and say where it went.

Knows only what the compiled values say, nothing of groups. A session is given with both of its tuples, so
that a packet of either direction, or none of conntrack's, can be walked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from sgagent.core.conditions import GroupPath
from sgagent.core.model import PORTED, Family, Protocol
from sgagent.nft import ruleset as nft


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuple:
    """One of the two tuples of a session."""

    source: int
    destination: int
    source_port: int = 0
    destination_port: int = 0


@dataclass(slots=True, kw_only=True)
class Session:
    """What conntrack keeps of a session."""

    protocol: int
    original: Tuple
    reply: Tuple
    mark: int = 0
    is_confirmed: bool = False
    """Whether an earlier packet opened it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WirePacket:
    """A packet at a hook."""

    hook: str
    """``prerouting`` or ``postrouting``."""

    interface: str
    family: Family
    source: int
    destination: int
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None
    tcp_flags: int | None = None
    """None for what its state makes likely."""

    hop_limit: int = 64
    state: str = "new"
    """``new``, ``established``, ``related``, ``invalid`` or ``untracked``."""

    is_fragment: bool = False
    """Whether it is one of IPv6 that conntrack did not put together with the others."""

    packet_direction: str = "original"
    other_interface: str = ""
    """What the kernel knows as the link of the other way where it knows both: the name is empty for none."""


@dataclass(slots=True)
class Walk:
    """What became of a packet."""

    accepted: bool
    chains: list[str] = field(default_factory=list)
    """Every chain that it entered."""

    counted: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    """The prefixes under which it was logged."""

    steps: int = 0
    """Rules that were looked at."""


def trace(
    ruleset: nft.Ruleset,
    packet: WirePacket,
    session: Session | None,
    *,
    is_limited: bool = False,
    is_over: bool = False,
) -> Walk:
    """Return what becomes of a packet; sets the session's mark as the kernel would.

    Args:
        ruleset: the table.
        packet: as it is on the wire.
        session: what conntrack keeps of its session, if anything.
        is_limited: whether every limit is used up.
        is_over: whether the source has used up its bucket of every meter.
    """
    walk = Walk(accepted=True)
    walker = _Walker(ruleset, packet, session, walk, is_limited, is_over)
    for chain in ruleset.chains:
        if chain.hook and chain.hook.name == packet.hook and walk.accepted:
            verdict = walker.enter(chain.name)
            walk.accepted = not isinstance(verdict, nft.Drop)
    return walk


def trace_chain(
    ruleset: nft.Ruleset,
    name: str,
    packet: WirePacket,
    session: Session | None,
    *,
    is_limited: bool = False,
    is_over: bool = False,
) -> tuple[Walk, nft.Verdict | None]:
    """Return how a packet walks through one base chain, and its verdict; sets the session's mark.

    The verdict is None where the chain's policy decides.
    """
    walk = Walk(accepted=True)
    verdict = _Walker(ruleset, packet, session, walk, is_limited, is_over).enter(name)
    walk.accepted = not isinstance(verdict, nft.Drop)
    return walk, verdict


class NotThereError(Exception):
    """The packet has no such field; the kernel goes on with the next rule."""


@dataclass(slots=True)
class _Walker:
    ruleset: nft.Ruleset
    packet: WirePacket
    session: Session | None
    walk: Walk
    is_limited: bool
    is_over: bool

    def enter(self, name: str) -> nft.Verdict | None:
        """Walk a chain and those it leads to.

        One that ends goes back to where it was jumped from, or at last to its base chain's policy, accept.
        """
        self.walk.chains.append(name)
        for rule in self.ruleset.chain_by_name[name].rules:
            self.walk.steps += 1
            verdict = self._rule(rule.statements)
            match verdict:
                case None:
                    continue
                case nft.Goto(chain):
                    return self.enter(chain)
                case nft.Jump(chain):
                    if (final := self.enter(chain)) is not None:
                        return final
                case nft.Accept() | nft.Drop():
                    return verdict
                case nft.Return():
                    return None
        return None

    def _rule(self, statements: tuple[object, ...]) -> nft.Verdict | None:
        try:
            for statement in statements:
                match statement:
                    case nft.Match():
                        if not self._matches(statement):
                            return None
                    case nft.LookUp(selectors, name):
                        found = self._look_up(name, self._read_all(selectors))
                        if found is None:
                            return None
                        return found
                    case nft.Count() | nft.Log():
                        self._note(statement)
                    case nft.Limit():
                        if self.is_limited:
                            return None
                    case nft.Meter():
                        self._read_all((statement.selector,))
                        if not self.is_over:
                            return None
                    case nft.SetMark(keep, put):
                        self._set_mark(keep, put)
                    case nft.Accept() | nft.Drop() | nft.Goto() | nft.Jump() | nft.Return():
                        return statement
                    case _:
                        raise AssertionError(f"not a statement: {statement}")
        except NotThereError:
            return None
        return None

    def _note(self, statement: nft.Count | nft.Log) -> None:
        if isinstance(statement, nft.Log):
            self.walk.logged.append(statement.prefix)
            return
        assert statement.counter in self.ruleset.counter_by_name
        self.walk.counted.append(statement.counter)

    def _set_mark(self, keep: int, put: int) -> None:
        """Set the mark; without a session, reading it ends the rule, and setting a constant does nothing."""
        if self.session is not None:
            self.session.mark = (self.session.mark & keep) | put
        elif keep != put:
            raise NotThereError

    def _matches(self, match: nft.Match) -> bool:
        value = self._read(match.selector)
        if match.mask is not None:
            assert isinstance(value, int)
            value &= match.mask
        found = any(_fits((wanted,), (value,)) for wanted in match.values)
        return found is (match.operator is nft.Operator.EQUAL)

    def _look_up(self, name: str, key: tuple[int | str, ...]) -> nft.Verdict | None:
        verdict_map = self.ruleset.verdict_map_by_name[name]
        if verdict_map.is_interval:
            return _find(verdict_map.elements, key)
        return _exact(verdict_map).get(key)

    def _read_all(self, selectors: tuple[nft.Selector, ...]) -> tuple[int | str, ...]:
        return tuple(self._read(selector) for selector in selectors)

    def _read(self, selector: nft.Selector) -> int | str:
        match selector.kind:
            case "ct":
                return self._read_ct(selector)
            case "meta":
                return self._read_meta(selector.key)
            case "payload":
                return self._read_payload(selector.key)
            case "exthdr":
                if self.packet.family is Family.IPV4:
                    raise NotThereError
                return "exists" if self.packet.is_fragment else "missing"
            case _:
                raise AssertionError(f"not a selector: {selector}")

    def _read_ct(self, selector: nft.Selector) -> int | str:
        if selector.key == "state":
            return self.packet.state
        if self.session is None:
            raise NotThereError
        match selector.key:
            case "direction":
                return self.packet.packet_direction
            case "mark":
                return self.session.mark
            case "protocol":
                return self.session.protocol
            case "status":
                is_expected = self.packet.state == "related" and self.packet.protocol not in (1, 58)
                return nft.EXPECTED * is_expected | nft.CONFIRMED * self.session.is_confirmed
            case key:
                original = selector.tuple_direction is nft.TupleDirection.ORIGINAL
                return self._read_tuple(self.session.original if original else self.session.reply, key)

    def _read_tuple(self, ends: Tuple, key: str) -> int:
        match key.split():
            case [family, end]:
                if (family == "ip") != (self.packet.family is Family.IPV4):
                    raise NotThereError
                return ends.source if end == "saddr" else ends.destination
            case ["proto-src"]:
                return ends.source_port
            case ["proto-dst"]:
                return ends.destination_port
            case _:
                raise AssertionError(f"not a key of a tuple: {key}")

    def _read_meta(self, key: str) -> int | str:
        match key:
            case "iifname" | "oifname":
                there = key == ("iifname" if self.packet.hook in ("prerouting", "input") else "oifname")
                return self.packet.interface if there else self.packet.other_interface
            case "nfproto":
                return self.packet.family.value
            case "l4proto":
                return self.packet.protocol
            case _:
                raise AssertionError(f"not a meta key: {key}")

    def _read_payload(self, key: str) -> int:
        protocol, field_name = key.split()
        packet = self.packet
        value: int | None
        match protocol:
            case "ip" | "ip6":
                there = (protocol == "ip") == (packet.family is Family.IPV4)
                ends = {"saddr": packet.source, "daddr": packet.destination, "hoplimit": packet.hop_limit}
                value = ends[field_name] if there else None
            case "tcp" if field_name == "flags":
                likely = 0x02 if packet.state == "new" else 0x10
                value = likely if packet.tcp_flags is None else packet.tcp_flags
                value = value if packet.protocol == 6 and packet.source_port is not None else None
            case name if name == "th" or name in map(str, PORTED):
                there = name in ("th", str(Protocol(packet.protocol)))
                port = packet.source_port if field_name == "sport" else packet.destination_port
                value = port if there else None
            case "icmpv6":
                value = packet.icmp_type if packet.protocol == 58 and packet.family is Family.IPV6 else None
            case _:
                raise AssertionError(f"not a payload: {key}")
        if value is None:
            raise NotThereError
        return value


def _fits(wanted: tuple[nft.Comparable, ...], key: tuple[int | str, ...]) -> bool:
    return all(_holds(value, field) for value, field in zip(wanted, key, strict=True))


def _holds(value: nft.Comparable, read: int | str) -> bool:
    match value:
        case nft.Interval(first, last):
            return isinstance(read, int) and first <= read <= last
        case nft.Symbol(word):
            return word == read
        case nft.NamePrefix(prefix):
            return isinstance(read, str) and read.startswith(prefix)
        case GroupPath():
            return False  # no packet that is traced is of a socket
        case _:
            assert_never(value)


def _find(elements: Sequence[nft.Element], key: tuple[int | str, ...]) -> nft.Verdict | None:
    found = [element.verdict for element in elements if _fits(element.key, key)]
    assert len(found) <= 1, "keys of a map overlap"
    return found[0] if found else None


def _exact(verdict_map: nft.VerdictMap) -> _Table:
    """Return a map without intervals as a dictionary; a key twice is a fault."""
    made_of, table = _TABLES.get(id(verdict_map), (None, {}))
    if made_of is verdict_map:
        return table
    table = {}
    for element in verdict_map.elements:
        assert all(not isinstance(value, nft.Interval) or value.is_single for value in element.key)
        key = tuple(value.first if isinstance(value, nft.Interval) else value.word for value in element.key)
        assert key not in table, "a key twice in a map"
        table[key] = element.verdict
    if len(_TABLES) >= _MOST_TABLES:
        _TABLES.clear()
    _TABLES[id(verdict_map)] = verdict_map, table
    return table


_Table = dict[tuple[int | str, ...], nft.Verdict]

_TABLES: dict[int, tuple[nft.VerdictMap, _Table]] = {}
"""Dictionaries of maps that packets met lately: most packets meet the same ones."""

_MOST_TABLES = 200
