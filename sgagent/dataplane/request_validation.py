"""Validate the agent's messages; the applier does not trust it.

An attacker may control the agent through a document or the network. So the applier checks every type, word,
number, name and length against closed lists and bounds before any becomes a command. A plan can only name
objects of ``table inet sgagent``, and only the agent's bits of the marks.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from sgagent.core.binding import check_interface_name
from sgagent.core.conditions import GroupPath
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family
from sgagent.core.tracked_sessions import ConntrackEntry, FlowTuple
from sgagent.dataplane.applier_protocol import MalformedMessageError
from sgagent.dataplane.conntrack_entries import PIECE
from sgagent.dataplane.generation import RulesetNumber
from sgagent.nft import ruleset as nft, transactions as ops
from sgagent.nft.marks import MarkTest
from sgagent.nft.ruleset import BITS, SYMBOLS
from sgagent.nft.transactions import Plan

_LONGEST_NAME = 255
_LONGEST_COMMENT = 128
_LONGEST_PREFIX = 127
_LONGEST_INTERFACE = 15
_LONGEST_PATH = 511
"""All in bytes, as the kernel counts."""

_MOST_LOGGED = 1000
"""Packets of a rule each second."""

_MOST_BUCKETS = 1 << 16
"""Of a meter."""

_MOST_MARK_TESTS = 32
MOST_PACKETS = 200
"""Whose sessions are looked up at once."""

_SOCKET_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_HOOKS = ("prerouting", "postrouting")
_HIGHEST_PRIORITY = (1 << 31) - 1
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9/\\_.-]*")  # each letter is a byte
_IDENTITY = re.compile(r"[0-9a-f]{96}")
"""What the kernel knows a socket by."""

_LAST = {key_type: (1 << bits) - 1 for key_type, bits in BITS.items()}
"""The greatest value of each type whose values are numbers."""


def check_plan(content: tuple[Any, ...], mask: int, log_group: int | None = None) -> Plan:
    """Return the plan of a content.

    Args:
        content: whether the plan is a fill, and its operations.
        mask: the bits of the session mark that a rule may change.
        log_group: the one to which a rule may log; None: to none.

    Raises:
        MalformedMessageError: it is no plan, or one that asks for more than the agent may.
    """
    is_fill, *operations = content or (None,)
    _require(isinstance(is_fill, bool) and operations, "no plan")
    validator = _Validator(mask, log_group)
    try:
        for operation in operations:
            validator.check_operation(operation)
    except (RecursionError, TypeError, ValueError) as error:
        raise MalformedMessageError("no such plan") from error
    return Plan(fill=tuple(operations)) if is_fill else Plan(tuple(operations))


class _Validator:
    """Check operations of any type."""

    def __init__(self, mask: int, log_group: int | None) -> None:
        self._mask = mask
        self._log_group = log_group

    def check_operation(self, operation: object) -> None:
        match operation:
            case ops.AddTable() | ops.DestroyTable() | ops.AddResetWatch():
                pass
            case ops.AddChain(nft.Chain(name=name, hook=hook, comment=comment)):
                _check_name(name)
                _check_hook(hook)
                _check_comment(comment)
            case ops.AddRule(chain, nft.Rule(statements) as rule):
                _check_name(chain)
                _require(
                    not ops.asks_for_group(rule) or _asks_for_group_alone(rule), "more than a control group"
                )
                self._check_statements(statements)
            case ops.AddVerdictMap(nft.VerdictMap(name=name, key_types=types, is_interval=bool())):
                _check_name(name)
                _check_types(types)
            case ops.AddMeterSet(nft.MeterSet(name=name, key_type=nft.KeyType(), size=size, timeout=timeout)):
                _check_name(name)
                _check_number(size, _MOST_BUCKETS, first=1)
                _check_number(timeout, nft.ALL_BITS, first=1)
            case ops.AddElements(name, types, elements):
                _check_name(name)
                _check_elements(elements, types, _check_name)
            case ops.DeleteElements(name, types, elements):
                _check_any_name(name)
                _check_elements(elements, types, _check_any_name)
            case ops.AddCounter(nft.Counter(name=name, comment=comment)):
                _check_name(name)
                _check_comment(comment)
            case ops.Flush("chain" | "map" | "set", name):
                _check_any_name(name)
            case ops.Delete(str(kind), name) if kind in ops.DELETABLE:
                _check_any_name(name)
            case _:
                raise MalformedMessageError("no such operation")

    def _check_statements(self, statements: tuple[object, ...]) -> None:
        """Check the statements of a rule; no packet is logged except behind a limit, as a sample."""
        for before, statement in pairwise((None, *statements)):
            self._check_statement(statement)
            if isinstance(statement, nft.Log):
                limits = (before.per_second, before.burst) if isinstance(before, nft.Limit) else ()
                _require(limits and max(limits) <= _MOST_LOGGED, "a log without a limit")

    def _check_statement(self, statement: object) -> None:
        match statement:
            case nft.Match(selector, values, nft.Operator(), mask):
                _check_match(selector, values, mask)
            case nft.LookUp((_, *_), name) | nft.Count(name):
                _check_name(name)
            case nft.Limit(per_second, burst):
                _check_number(per_second, nft.ALL_BITS, first=1)
                _check_number(burst, nft.ALL_BITS, first=1)
            case nft.Meter(name, _, rate, seconds, burst):
                _check_name(name)
                _require(seconds in nft.RATE_WORDS, "no unit of time")
                _check_number(rate, nft.ALL_BITS, first=1)
                _check_number(burst, nft.ALL_BITS, first=1)
            case nft.Log(prefix, group):
                _check_name(prefix, _LONGEST_PREFIX)
                is_ours = type(group) is int and group == self._log_group
                _require(is_ours, "a group of the log that is not ours")
            case nft.SetMark(keep, put):
                _check_number(keep, nft.ALL_BITS)
                _check_number(put, nft.ALL_BITS)
                _check_bits(~keep & nft.ALL_BITS | put, self._mask)
            case _:
                _check_verdict(statement, _check_name)


def _check_match(selector: nft.Selector, values: tuple[object, ...], mask: object) -> None:
    key_type = selector.key_type
    if mask is not None:
        is_of_status = selector == nft.CT_STATUS and mask in (nft.EXPECTED, nft.CONFIRMED)
        is_known = key_type is nft.KeyType.MARK or is_of_status
        _require(is_known, "only marks, and two bits of the status, are compared by bits")
        _check_number(mask, nft.ALL_BITS)
    if selector == nft.META_OIFNAME and values == (nft.NO_LINK,):
        return
    if selector == nft.SOCKET_GROUP:
        _check_group(values)
        return
    plain = list[object]()
    for value in _filled(values):  # in the prefix of names is nothing but what may be in a name
        is_prefix = key_type is nft.KeyType.IFNAME and isinstance(value, nft.NamePrefix)
        plain.append(nft.Symbol(value.prefix) if is_prefix else value)
    _check_values(plain, key_type)


def _asks_for_group_alone(rule: nft.Rule) -> bool:
    """Return whether a rule is one of those that are sent without libnftables."""
    match rule.statements:
        case (nft.Match(operator=nft.Operator.EQUAL, mask=None), nft.Goto()):
            return True
        case _:
            return False


def _check_group(values: tuple[object, ...]) -> None:
    """Check the path of a control group, which no file is opened by."""
    match values:
        case (GroupPath(str(path)),):
            is_path = path.startswith("/") and "\0" not in path and len(os.fsencode(path)) <= _LONGEST_PATH
            _require(is_path, "no path of a control group")
        case _:
            raise MalformedMessageError("no path of a control group")


def _check_elements(
    elements: tuple[nft.Element, ...], types: tuple[object, ...], check_target: Callable[[object], None]
) -> None:
    """Check elements of a map; those that are deleted may lead to a chain of any name."""
    for verdict in {element.verdict for element in _filled(elements)}:
        _check_verdict(verdict, check_target)
    columns = zip(*[element.key for element in elements], strict=True)
    for values, key_type in zip(columns, _check_types(types), strict=True):
        _check_values(values, key_type)


def _check_values(values: Iterable[object], key_type: nft.KeyType) -> None:
    last = _LAST.get(key_type, -1)
    for value in values:
        if isinstance(value, nft.Interval):
            _check_number(value.first, last)
            _check_number(value.last, last, first=value.first)
        else:
            _check_word(value, key_type)


def _check_word(value: object, key_type: nft.KeyType) -> None:
    match value:
        case nft.Symbol(str(word)) if key_type is nft.KeyType.IFNAME:
            _require(len(word.encode()) <= _LONGEST_INTERFACE, "too long for the name of a link")
            check_interface_name(word)
        case nft.Symbol(str(word)) if word in SYMBOLS.get(key_type, ()):
            pass
        case _:
            raise MalformedMessageError("no such value")


def _check_verdict(verdict: object, check_target: Callable[[object], None]) -> None:
    match verdict:
        case nft.Accept() | nft.Drop() | nft.Return():
            pass
        case nft.Goto(chain) | nft.Jump(chain):
            check_target(chain)
        case _:
            raise MalformedMessageError("no such statement")


def _check_hook(hook: object) -> None:
    match hook:
        case None:
            pass
        case nft.Hook(name=str(name), hook_priority=priority) if name in _HOOKS:
            _check_number(priority, _HIGHEST_PRIORITY, first=-_HIGHEST_PRIORITY)
        case _:
            raise MalformedMessageError("no such hook")


def _check_types(types: tuple[Any, ...]) -> tuple[nft.KeyType, ...]:
    _require(all(isinstance(key_type, nft.KeyType) for key_type in _filled(types)), "no types")
    return types


def _check_name(name: object, longest: int = _LONGEST_NAME) -> None:
    """Check the name of an object of ours: one that nft takes for a name."""
    is_ours = isinstance(name, str) and len(name) <= longest and _IDENTIFIER.fullmatch(name)
    _require(is_ours, "not a name of ours")


def _check_any_name(name: object) -> None:
    """Check the name of a deleted object: another process may have named it, even with an empty text."""
    if not isinstance(name, str) or "\0" in name:
        raise MalformedMessageError("no name")
    _require(len(name.encode()) <= _LONGEST_NAME, "too long for a name")


def _check_comment(comment: object) -> None:
    if not isinstance(comment, str) or not comment.isprintable() or '"' in comment:
        raise MalformedMessageError("no comment")
    _require(len(comment.encode()) <= _LONGEST_COMMENT, "too long for a comment")


def _check_bits(changed: int, mask: int) -> None:
    _require(not changed & ~mask, "bits of the mark that are not the agent's")


def _check_number(number: object, last: int, *, first: int = 0) -> None:
    """Check a number; true is none."""
    if type(number) is not int or not first <= number <= last:
        raise MalformedMessageError("no number, or one out of bounds")


def _filled(values: tuple[Any, ...]) -> tuple[Any, ...]:
    _require(values, "nothing, where there must be something")
    return values


def _require(is_so: object, complaint: str) -> None:
    if not is_so:
        raise MalformedMessageError(complaint)


def check_number(content: tuple[Any, ...], last: int = nft.ALL_BITS) -> int:
    """Return the only number of a content.

    Raises:
        MalformedMessageError: there is none, or another thing too.
    """
    _require(len(content) == 1, "of another length")
    _check_number(content[0], last)
    return int(content[0])


def check_ruleset_number(content: tuple[Any, ...]) -> RulesetNumber:
    """Return the only number of a ruleset of a content.

    Raises:
        MalformedMessageError: there is none, or another thing too.
    """
    _require(len(content) == 1 and type(content[0]) is RulesetNumber, "no number of a ruleset")
    number: RulesetNumber = content[0]
    _check_number(number.namespace, _LAST_COOKIE)
    _check_number(number.generation, nft.ALL_BITS)
    return number


_LAST_COOKIE = (1 << 64) - 1


def check_marks(content: tuple[Any, ...], mask: int) -> tuple[int, tuple[MarkTest, ...]]:
    """Return which bits to clear in which marks.

    Raises:
        MalformedMessageError: the bits are not the agent's; there are more tests than bits.
    """
    _require(content, "of another length")
    bits = check_number(content[:1])
    _check_bits(bits, mask)
    return bits, _checked_tests(content[1:])


def _checked_tests(tests: tuple[Any, ...]) -> tuple[MarkTest, ...]:
    _require(len(tests) <= _MOST_MARK_TESTS, "of another length")
    for test in tests:
        _require(isinstance(test, list) and len(test) == 2, "no test of a mark")
        for number in test:
            _check_number(number, nft.ALL_BITS)
    return tuple(MarkTest(*test) for test in tests)


def check_packets(content: tuple[Any, ...]) -> list[Packet]:
    """Return packets with the ends that the agent names.

    Raises:
        MalformedMessageError: one is none; there are none, or too many.
    """
    _require(1 <= len(content) <= MOST_PACKETS, "of another length")
    return [_checked_packet(one) for one in content]


def _checked_packet(content: Any) -> Packet:  # noqa: ANN401 - what the agent sent
    match content:
        case [Direction() as direction, Family() as family, *numbers] if len(numbers) == len(_PACKET_NUMBERS):
            lasts = (0xFF, family.last_address, family.last_address, 0xFFFF, 0xFFFF)
            for number, last in zip(numbers, lasts, strict=True):
                _check_number(number, last)
            named = dict(zip(_PACKET_NUMBERS, numbers, strict=True))
            return Packet(interface="", direction=direction, family=family, **named)
        case _:
            raise MalformedMessageError("no packet")


_PACKET_NUMBERS = ("protocol", "source", "destination", "source_port", "destination_port")


def check_listing(content: tuple[Any, ...]) -> tuple[bool, tuple[MarkTest, ...]]:
    """Return whether the request wants entries of all protocols, and which marks it leaves out.

    Raises:
        MalformedMessageError: the content says something else.
    """
    match content:
        case (bool(all_protocols), *tests):
            return all_protocols, _checked_tests(tuple(tests))
        case _:
            raise MalformedMessageError("no listing")


def check_entries(content: tuple[Any, ...]) -> tuple[ConntrackEntry, ...]:
    """Return entries of conntrack, as they were listed.

    Raises:
        MalformedMessageError: one is none; there are none, or too many.
    """
    _require(1 <= len(content) <= PIECE, "of another length")
    for entry in content:
        _check_entry(entry)
    return content


def _check_entry(entry: object) -> None:
    match entry:
        case ConntrackEntry(Family() as family, protocol, FlowTuple() as original, FlowTuple() as reply):
            _check_number(protocol, 0xFF)
            for ends in (original, reply):
                _check_number(ends.source, family.last_address)
                _check_number(ends.destination, family.last_address)
                for port in (ends.source_port, ends.destination_port):
                    _check_number(0 if port is None else port, 0xFFFF)
            for number in (entry.mark, entry.identity):
                _check_number(number, nft.ALL_BITS)
            for zone in (entry.original_zone, entry.reply_zone):
                _check_number(zone, 0xFFFF)
        case _:
            raise MalformedMessageError("no entry")


def check_restored(content: tuple[Any, ...]) -> tuple[int, bytes, int, int]:
    """Return the family and the identity of a socket, and the zones of both directions of its session.

    Raises:
        MalformedMessageError: something is missing, or out of bounds.
    """
    _require(len(content) == 4, "of another length")
    for zone in content[2:]:
        _check_number(zone, 0xFFFF)
    return *check_socket(content[:2]), content[2], content[3]


def check_socket(content: tuple[Any, ...]) -> tuple[int, bytes]:
    """Return the family and the identity of a socket.

    Raises:
        MalformedMessageError: there is none.
    """
    match content:
        case (int(family), str(identity)) if family in _SOCKET_FAMILIES and _IDENTITY.fullmatch(identity):
            return int(family), bytes.fromhex(identity)
        case _:
            raise MalformedMessageError("no socket")
