"""Decode and validate a plan in the applier, which does not trust the agent.

An attacker may control the agent through a document or the network. So the decoder checks every word, number,
name and length against closed lists and bounds before any becomes a command. A plan can only name objects of
``table inet sgagent``, and only the agent's bits of the marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from sgagent.core.binding import check_interface_name
from sgagent.dataplane.plan_encoder import SELECTOR_NAMES
from sgagent.nft.grammar import BITS, SYMBOLS
from sgagent.nft.plan import (
    AddChain,
    AddCounter,
    AddElements,
    AddRule,
    AddTable,
    AddVerdictMap,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteForeign,
    DeleteVerdictMap,
    DestroyTable,
    FlushChain,
    FlushVerdictMap,
    Operation,
    Plan,
)
from sgagent.nft.ruleset import (
    Accept,
    Chain,
    Count,
    Counter,
    Drop,
    Element,
    Goto,
    Hook,
    Interval,
    Jump,
    KeyType,
    Limit,
    Log,
    LookUp,
    Match,
    Operator,
    Rule,
    Selector,
    SetMark,
    Statement,
    Symbol,
    Value,
    Verdict,
    VerdictMap,
)

_ALL_BITS = 0xFFFFFFFF
_LONGEST_NAME = 255
_LONGEST_COMMENT = 128
_LONGEST_PREFIX = 127
_MOST_LOGGED = 1000
"""Packets of a rule each second."""

_LONGEST_INTERFACE = 15
"""All in bytes, as the kernel counts."""

_HOOKS = ("prerouting", "postrouting")
_HIGHEST_PRIORITY = 1 << 31
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9/\\_.-]*")
_SELECTORS: Mapping[str, Selector] = {name: selector for selector, name in SELECTOR_NAMES.items()}
_FOREIGN_KINDS = frozenset(
    {
        "counter",
        "ct expectation",
        "ct helper",
        "ct timeout",
        "flowtable",
        "limit",
        "map",
        "quota",
        "secmark",
        "set",
        "synproxy",
        "tunnel",
    }
)
"""What may stand in our table and is none of ours; never ``table``, nor anything outside one."""

_Enum = TypeVar("_Enum", KeyType, Operator)


class MalformedPlanError(Exception):
    """Say that a message is not what an agent in its right mind sends."""


def read_plan(text: bytes, mask: int, log_group: int | None = None) -> Plan:
    """Return the plan that is written in lines.

    Args:
        text: as :func:`sgagent.dataplane.plan_encoder.write_plan` makes it.
        mask: the bits of the session mark that a rule may change.
        log_group: the one to which a rule may log; None: to none.

    Raises:
        MalformedError: it is no plan, or one that asks for more than the agent may.
    """
    if not text.endswith(b"\n"):
        raise MalformedPlanError("a plan is made of whole lines")
    reader = _Reader(mask, log_group)
    try:
        lines = text[:-1].decode("ascii").split("\n")
        return Plan(tuple(map(reader.operation, map(_DECODER.decode, lines))))
    except (ValueError, RecursionError) as error:
        raise MalformedPlanError("the plan can't be read") from error


_DECODER = json.JSONDecoder()


class _Reader:
    """Turn arrays into operations."""

    def __init__(self, mask: int, log_group: int | None) -> None:
        self._mask = mask
        self._log_group = log_group

    def operation(self, content: Any) -> Operation:  # noqa: ANN401, PLR0911 - JSON; one short case a kind
        """Return one operation."""
        match content:
            case ["add table"]:
                return AddTable()
            case ["destroy table"]:
                return DestroyTable()
            case ["add chain", name, hook, comment]:
                return AddChain(Chain(name=_name(name), hook=_hook(hook), comment=_comment(comment)))
            case ["flush chain", name]:
                return FlushChain(_standing(name))
            case ["delete chain", name]:
                return DeleteChain(_standing(name))
            case ["add rule", chain, [*statements]]:
                return AddRule(_name(chain), _logging_within_limits(map(self._statement, statements)))
            case ["add map", name, types, bool(is_interval)]:
                return AddVerdictMap(
                    VerdictMap(name=_name(name), key_types=_types(types), is_interval=is_interval)
                )
            case ["flush map", name]:
                return FlushVerdictMap(_standing(name))
            case ["delete map", name]:
                return DeleteVerdictMap(_standing(name))
            case ["add elements", name, types, [_, *_] as elements]:
                key_types = _types(types)
                return AddElements(_name(name), key_types, tuple(_elements(elements, key_types)))
            case ["delete elements", name, types, [_, *_] as elements]:
                key_types = _types(types)
                return DeleteElements(_standing(name), key_types, tuple(_leaving(elements, key_types)))
            case ["add counter", name, comment]:
                return AddCounter(Counter(name=_name(name), comment=_comment(comment)))
            case ["delete counter", name]:
                return DeleteCounter(_standing(name))
            case ["delete foreign", str(kind), name] if kind in _FOREIGN_KINDS:
                return DeleteForeign(kind, _standing(name))
            case _:
                raise MalformedPlanError("no such operation")

    def _statement(self, content: Any) -> Statement:  # noqa: ANN401 - JSON, whose shape is tested here
        match content:
            case ["match", name, operator, mask, [_, *_] as values]:
                return _match(_selector(name), _enum(Operator, operator), mask, values)
            case ["look up", names, verdict_map]:
                return LookUp(_selectors(names)[0], _name(verdict_map))
            case ["count", counter]:
                return Count(_name(counter))
            case ["limit", per_second, burst]:
                return Limit(_positive(per_second), _positive(burst))
            case ["log", prefix, int(group)] if type(group) is int and group == self._log_group:
                return Log(_prefix(prefix), group)
            case ["set mark", keep, put]:
                return self._set_mark(_number(keep, _ALL_BITS), _number(put, _ALL_BITS))
            case _:
                return _verdict(content)

    def _set_mark(self, keep: int, put: int) -> SetMark:
        if (~keep & _ALL_BITS | put) & ~self._mask:
            raise MalformedPlanError("bits of the mark that are not the agent's")
        return SetMark(keep=keep, put=put)


def _logging_within_limits(statements: Iterable[Statement]) -> Rule:
    """Return a rule in which no packet is logged but behind a limit: a log is a sample of what passes."""
    rule = Rule(tuple(statements))
    for before, statement in zip((None, *rule.statements), rule.statements, strict=False):
        is_limited = isinstance(before, Limit) and max(before.per_second, before.burst) <= _MOST_LOGGED
        if isinstance(statement, Log) and not is_limited:
            raise MalformedPlanError("a log without a limit")
    return rule


def _match(selector: Selector, operator: Operator, mask: Any, values: list[Any]) -> Match:  # noqa: ANN401 - JSON
    bits = None if mask is None else _number(mask, _ALL_BITS)
    if bits is not None and selector.key_type is not KeyType.MARK:
        raise MalformedPlanError("only marks are compared by bits")
    return Match(selector, tuple(_value(value, selector.key_type) for value in values), operator, bits)


def _elements(content: list[Any], types: tuple[KeyType, ...]) -> Iterator[Element]:
    verdicts: dict[str, Verdict] = {}
    """Very many elements share few verdicts."""
    for pair in content:
        match pair:
            case [key, [("goto" | "jump") as word, str(chain)] as verdict]:
                shared = verdicts.get(word + chain)
                if shared is None:
                    shared = verdicts[word + chain] = _verdict(verdict)
                yield Element(_key(key, types), shared)
            case [key, verdict]:
                yield Element(_key(key, types), _verdict(verdict))
            case _:
                raise MalformedPlanError("no element")


def _leaving(content: list[Any], types: tuple[KeyType, ...]) -> Iterator[Element]:
    """Yield elements that are deleted: another process may have led them to a chain of any name."""
    for pair in content:
        match pair:
            case [key, ["goto", chain]]:
                yield Element(_key(key, types), Goto(_standing(chain)))
            case [key, ["jump", chain]]:
                yield Element(_key(key, types), Jump(_standing(chain)))
            case [key, verdict]:
                yield Element(_key(key, types), _verdict(verdict))
            case _:
                raise MalformedPlanError("no element")


def _key(content: Any, types: tuple[KeyType, ...]) -> tuple[Value, ...]:  # noqa: ANN401 - JSON
    if not isinstance(content, list) or len(content) != len(types):
        raise MalformedPlanError("a key of another number of fields")
    return tuple(map(_value, content, types))


def _value(content: Any, key_type: KeyType) -> Value:  # noqa: ANN401 - JSON, whose shape is tested here
    if isinstance(content, str):
        return _symbol(content, key_type)
    last = _LAST.get(key_type)
    if last is None:
        raise MalformedPlanError("a number where there is none")
    if isinstance(content, list):
        if len(content) != 2:
            raise MalformedPlanError("no range")
        interval = Interval(_number(content[0], last), _number(content[1], last))
        if interval.first > interval.last:
            raise MalformedPlanError("a range that is turned round")
        return interval
    return Interval.single(_number(content, last))


_LAST = {key_type: (1 << bits) - 1 for key_type, bits in BITS.items()}
"""The greatest value of each type whose values are numbers."""


def _symbol(word: str, key_type: KeyType) -> Symbol:
    if key_type is KeyType.IFNAME:
        if len(word.encode()) > _LONGEST_INTERFACE:
            raise MalformedPlanError("too long for the name of a link")
        check_interface_name(word)
    elif word not in SYMBOLS.get(key_type, ()):
        raise MalformedPlanError("no such word")
    return Symbol(word)


def _verdict(content: Any) -> Verdict:  # noqa: ANN401 - JSON, whose shape is tested here
    match content:
        case ["accept"]:
            return Accept()
        case ["drop"]:
            return Drop()
        case ["goto", chain]:
            return Goto(_name(chain))
        case ["jump", chain]:
            return Jump(_name(chain))
        case _:
            raise MalformedPlanError("no such statement")


def _hook(content: Any) -> Hook | None:  # noqa: ANN401 - JSON, whose shape is tested here
    match content:
        case None:
            return None
        case [str(name), int(priority)] if name in _HOOKS and abs(priority) < _HIGHEST_PRIORITY:
            return Hook(name=name, hook_priority=int(priority))
        case _:
            raise MalformedPlanError("no such hook")


def _types(content: Any) -> tuple[KeyType, ...]:  # noqa: ANN401 - JSON
    if not isinstance(content, list) or not content:
        raise MalformedPlanError("no types")
    return tuple(_enum(KeyType, word) for word in content)


def _selectors(content: Any) -> tuple[tuple[Selector, ...], tuple[KeyType, ...]]:  # noqa: ANN401 - JSON
    if not isinstance(content, list) or not content:
        raise MalformedPlanError("nothing selected")
    selectors = tuple(map(_selector, content))
    return selectors, tuple(selector.key_type for selector in selectors)


def _selector(content: Any) -> Selector:  # noqa: ANN401 - JSON
    if not isinstance(content, str) or content not in _SELECTORS:
        raise MalformedPlanError("no such selector")
    return _SELECTORS[content]


def _enum(kind: type[_Enum], content: Any) -> _Enum:  # noqa: ANN401 - JSON
    if not isinstance(content, str):
        raise MalformedPlanError("no word")
    return kind(content)


def _number(content: Any, last: int) -> int:  # noqa: ANN401 - JSON, in which true is no number
    if type(content) is not int or not 0 <= content <= last:
        raise MalformedPlanError("no number, or one out of bounds")
    return content


def _positive(content: Any) -> int:  # noqa: ANN401 - JSON
    number = _number(content, _ALL_BITS)
    if not number:
        raise MalformedPlanError("nothing, where there must be something")
    return number


def _name(content: Any) -> str:  # noqa: ANN401 - JSON
    """Return the name of an object of ours: one that nft takes for a name."""
    name = _standing(content)
    if not _IDENTIFIER.fullmatch(name):
        raise MalformedPlanError("not a name of ours")
    return name


def _prefix(content: Any) -> str:  # noqa: ANN401 - JSON
    """Return what is written before a logged packet: a name of ours, or what stands for one that is long."""
    prefix = _name(content)
    if len(prefix) > _LONGEST_PREFIX:
        raise MalformedPlanError("too long for the prefix of a log")
    return prefix


def _standing(content: Any) -> str:  # noqa: ANN401 - JSON
    """Return the name of what is to go, which another process may have named."""
    if not isinstance(content, str) or not content or "\0" in content:
        raise MalformedPlanError("no name")
    if len(content.encode()) > _LONGEST_NAME:
        raise MalformedPlanError("too long for a name")
    return content


def _comment(content: Any) -> str:  # noqa: ANN401 - JSON
    if not isinstance(content, str) or not (content.isprintable() and '"' not in content):
        raise MalformedPlanError("no comment")
    if len(content.encode()) > _LONGEST_COMMENT:
        raise MalformedPlanError("too long for a comment")
    return content
