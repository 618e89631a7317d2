"""The decoder of libnftables' listing of our table, exact and canonical.

Objects that sgagent never makes, or that the decoder can't read, are named and left to the plan to remove.
Nothing that another process puts into the table can make the decoder fail.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from sgagent.core.binding import check_interface_name
from sgagent.nft import ruleset as nft
from sgagent.nft.ruleset import BITS, PROTOCOL_NUMBERS, SELECTORS, SYMBOLS, Ruleset, sort_key
from sgagent.nft.transactions import Json


class UnreadableError(Exception):
    """Say that something in a listing is not what sgagent makes."""


def decode_ruleset(listing: Json) -> tuple[Ruleset, tuple[str, ...]]:
    """Return the table of a listing, and the foreign things in it by kind and name, sorted.

    Foreign are, as the first word says: ``rule`` (one that can't be read, by its chain), ``chain``, ``map``,
    ``set``, ``flowtable`` and every kind of stateful object; ``policy`` of a base chain that isn't accept,
    and ``table`` where the table itself is asleep. What can't be read is left out of the ruleset.
    """
    table = _Listing()
    for entry in listing.get("nftables", ()):
        for kind, content in entry.items():
            table.read(kind, content)
    return table.finished(), tuple(sorted(table.foreign))


@dataclass(slots=True)
class _Listing:
    """Collect the objects of a listing."""

    chains: dict[str, nft.Chain] = field(default_factory=dict)
    rules: dict[str, list[nft.Rule]] = field(default_factory=dict)
    verdict_maps: list[nft.VerdictMap] = field(default_factory=list)
    counters: list[nft.Counter] = field(default_factory=list)
    foreign: set[str] = field(default_factory=set)

    def read(self, kind: str, content: Json) -> None:
        """Take in one object."""
        name = content.get("chain" if kind == "rule" else "name", "")
        try:
            self._take(kind, _text(name), content)
        except (UnreadableError, AttributeError, IndexError, KeyError, TypeError, ValueError):
            self.foreign.add(f"{kind} {name}")

    def _take(self, kind: str, name: str, content: Json) -> None:
        match kind:
            case "metainfo":
                pass
            case "table":
                if "dormant" in _listed(content.get("flags", ())):
                    raise UnreadableError
            case "chain":
                self._take_chain(name, content)
            case "rule":
                self.rules.setdefault(name, []).append(_rule(content))
            case "map":
                self.verdict_maps.append(decode_verdict_map(name, content))
            case "counter":
                self.counters.append(nft.Counter(name=name, comment=_text(content.get("comment", ""))))
            case _:
                raise UnreadableError

    def _take_chain(self, name: str, content: Json) -> None:
        if name in self.chains:  # the kernel takes two, the second in the transaction that renames the first
            raise UnreadableError
        hook = None
        if "hook" in content:
            if content["type"] != "filter" or "dev" in content or not isinstance(content["prio"], int):
                raise UnreadableError
            hook = nft.Hook(name=_text(content["hook"]), hook_priority=content["prio"])
            if content.get("policy", "accept") != "accept":
                self.foreign.add(f"policy {name}")
        self.chains[name] = nft.Chain(name=name, hook=hook, comment=_text(content.get("comment", "")))

    def finished(self) -> Ruleset:
        """Return all that could be read, in canonical order."""
        chains = (replace(one, rules=tuple(self.rules.get(name, ()))) for name, one in self.chains.items())
        return Ruleset(
            chains=tuple(sorted(chains, key=attrgetter("name"))),
            verdict_maps=tuple(sorted(self.verdict_maps, key=attrgetter("name"))),
            counters=tuple(sorted(self.counters, key=attrgetter("name"))),
        )


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise UnreadableError
    return value


def _listed(value: Json) -> Iterable[Json]:
    """Return a list where libnftables writes a list or, for one thing, the thing itself."""
    return value if isinstance(value, (list, tuple)) else (value,)


def decode_verdict_map(name: str, content: Json) -> nft.VerdictMap:
    """Return a named verdict map, if it is of a kind that sgagent makes."""
    flags = set(_listed(content.get("flags", ())))
    expected = {"family", "name", "table", "type", "handle", "map", "flags", "elem"}
    if content["map"] != "verdict" or not flags <= {"interval"} or not content.keys() <= expected:
        raise UnreadableError
    types = _key_types(content["type"])
    pairs = content.get("elem", ())
    elements = [nft.Element(decode_key(key, types), decode_verdict(verdict)) for key, verdict in pairs]
    elements.sort(key=lambda element: sort_key(element.key))
    return nft.VerdictMap(
        name=name, key_types=types, is_interval="interval" in flags, elements=tuple(elements)
    )


def _key_types(content: Json) -> tuple[nft.KeyType, ...]:
    """Return the types of a map's key, declared by type or by an expression that has it."""
    if isinstance(content, dict):
        return tuple(selector.key_type for selector in decode_selectors(content["typeof"]))
    return tuple(nft.KeyType(name) for name in _listed(content))


def _rule(content: Json) -> nft.Rule:
    if "comment" in content:
        raise UnreadableError
    return nft.Rule(tuple(decode_statement(expression) for expression in content["expr"]))


def decode_statement(expression: Json) -> nft.Statement:
    """Return a statement of a rule, if it is one that sgagent makes."""
    match expression:
        case {"match": {"op": str(operator), "left": left, "right": right}}:
            return _match(operator, left, right)
        case {"vmap": {"key": key, "data": str(reference)}} if reference.startswith("@"):
            return nft.LookUp(decode_selectors(key), reference[1:])
        case {"counter": str(name)}:
            return nft.Count(name)
        case {"limit": {"rate": int(rate), "burst": int(burst), "per": "second", **others}} if not others:
            return nft.Limit(rate, burst)
        case {"log": {"prefix": str(prefix), "group": int(group), **others}} if not others:
            return nft.Log(prefix, group)
        case {"mangle": {"key": {"ct": {"key": "mark"}}, "value": value}}:
            return _set_mark(value)
        case _:
            return decode_verdict(expression)


def _match(word: str, left: Json, right: Json) -> nft.Match:
    mask = None
    match left:
        case {"&": [inner, int(bits)]}:
            left, mask = inner, bits
    selector = _selector(left)
    found = (_compared(value, selector.key_type) for value in _any_of(right, selector))
    values = sorted(found, key=lambda value: sort_key((value,)))
    if word == "in" and selector.key_type is nft.KeyType.CT_STATE:
        word = "=="  # ``in`` asks for bits of a bit mask, of which a conntrack state is always one
    return nft.Match(selector, tuple(values), nft.Operator(word), mask)


def _compared(content: Json, key_type: nft.KeyType) -> nft.Comparable:
    """Return a value that a rule compares; names that end with the sign of a prefix are listed escaped."""
    is_prefix = key_type is nft.KeyType.IFNAME and isinstance(content, str) and content.endswith("*")
    if not is_prefix or len(content) == 1 or content.endswith("\\*"):
        return _value(content, key_type)
    return nft.NamePrefix(content[:-1])


def _any_of(right: Json, selector: nft.Selector) -> Sequence[Json]:
    """Return the values of a set, of several bits of a bit mask, or the only one."""
    if isinstance(right, list) and selector.key_type is nft.KeyType.CT_STATE:
        return right
    return right["set"] if isinstance(right, dict) and "set" in right else (right,)


def _set_mark(value: Json) -> nft.SetMark:
    """Return the statement for every form that a change of the mark is listed in.

    One that reads the mark, and then sets all of it, is none of ours: without a session its rule ends there.
    """
    if isinstance(value, int):
        return nft.SetMark(keep=value, put=value)
    found = _changed_mark(value)
    if found.keep == found.put:
        raise UnreadableError
    return found


def _changed_mark(value: Json) -> nft.SetMark:
    match value:
        case {"|": [kept, int(put)]}:
            inner = _changed_mark(kept)
            return nft.SetMark(keep=inner.keep | put, put=inner.put | put)
        case {"&": [{"ct": {"key": "mark"}}, int(keep)]}:
            return nft.SetMark(keep=keep, put=0)
        case {"ct": {"key": "mark"}}:
            return nft.SetMark(keep=nft.ALL_BITS, put=0)
        case _:
            raise UnreadableError


def decode_verdict(content: Json) -> nft.Verdict:
    """Return a verdict, if it is one that sgagent makes."""
    match content:
        case {"goto": {"target": str(chain)}}:
            return nft.Goto(chain)
        case {"accept": None}:
            return nft.Accept()
        case {"drop": None}:
            return nft.Drop()
        case {"jump": {"target": str(chain)}}:
            return nft.Jump(chain)
        case _:
            raise UnreadableError


def decode_selectors(content: Json) -> tuple[nft.Selector, ...]:
    """Return the fields of a key."""
    return tuple(map(_selector, content.get("concat", (content,))))


def _selector(content: Json) -> nft.Selector:
    match content:
        case {"payload": {"protocol": protocol, "field": name}}:
            return _SELECTORS["payload", f"{protocol} {name}", None]
        case {"payload": {"base": "th", "offset": 16, "len": 16}}:
            return nft.TH_DPORT  # so listed behind a match on a session's protocol
        case {"ct": {"key": key, "dir": direction}}:
            return _SELECTORS["ct", key, nft.TupleDirection(direction)]
        case {"ct": {"key": key}}:
            return _SELECTORS["ct", key, None]
        case {"meta": {"key": key}}:
            return _SELECTORS["meta", key, None]
        case _:
            raise UnreadableError


_SELECTORS: Mapping[tuple[str, str, nft.TupleDirection | None], nft.Selector] = {
    (selector.kind, selector.key, selector.tuple_direction): selector for selector in SELECTORS
}


def decode_key(content: Json, types: tuple[nft.KeyType, ...]) -> tuple[nft.Value, ...]:
    """Return the key of an element, or a value of a set."""
    if len(types) == 1:
        return (_value(content, types[0]),)
    return tuple(_value(one, key_type) for one, key_type in zip(content["concat"], types, strict=True))


def _value(content: Json, key_type: nft.KeyType) -> nft.Value:
    if key_type is nft.KeyType.IFNAME:
        check_interface_name(_text(content))
        return nft.Symbol(content)
    if key_type in SYMBOLS:
        words = [word for word, number in SYMBOLS[key_type].items() if content in (word, number)]
        if not words:
            raise UnreadableError
        return nft.Symbol(words[0])
    if isinstance(content, dict):
        return _interval(content, key_type)
    return nft.Interval.single(_number(content, key_type))


def _interval(content: Json, key_type: nft.KeyType) -> nft.Interval:
    match content:
        case {"prefix": {"addr": address, "len": int(length)}}:
            first = _number(address, key_type)
            return nft.Interval(first, first | (1 << BITS[key_type] - length) - 1)
        case {"range": [first, last]}:
            return nft.Interval(_number(first, key_type), _number(last, key_type))
        case _:
            raise UnreadableError


def _number(content: Json, key_type: nft.KeyType) -> int:
    if key_type is nft.KeyType.IPV4_ADDR:
        first, second, third, fourth = content.split(".")
        return int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)
    if key_type is nft.KeyType.IPV6_ADDR:
        return int(ipaddress.IPv6Address(_text(content)))
    if isinstance(content, bool):  # which is an int to Python, and no number to anybody else
        raise UnreadableError
    if isinstance(content, int):
        return content
    if key_type is nft.KeyType.INET_PROTO:
        return PROTOCOL_NUMBERS[content]
    raise UnreadableError
