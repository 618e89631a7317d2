"""Read a table as libnftables lists it in JSON.

More is understood than sgagent itself writes, so that tables that somebody changed, and those of others, can
be compared too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sgagent.core.model import Family
from sgagent.nft import json_listing, ruleset as nft
from sgagent.nft.json_listing import UnreadableError
from sgagent.nft.transactions import Json
from sgagent.verify.verified_table import (
    BaseHook,
    Return,
    Unread,
    VerifiedChain,
    VerifiedStatement,
    VerifiedTable,
    understood,
)

FAULTS = (
    UnreadableError,
    AttributeError,
    IndexError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a part of a listing that is not understood may raise; all of it, if libnftables did not write it."""


ICMP_TYPE = nft.Selector("payload", "icmp type", nft.KeyType.ICMPV6_TYPE)
"""What others ask IPv4 packets for, and sgagent's own tables never."""

_TYPES: dict[str, dict[str, int]] = {
    "icmp": {
        "echo-reply": 0,
        "destination-unreachable": 3,
        "source-quench": 4,
        "redirect": 5,
        "echo-request": 8,
        "router-advertisement": 9,
        "router-solicitation": 10,
        "time-exceeded": 11,
        "parameter-problem": 12,
        "timestamp-request": 13,
        "timestamp-reply": 14,
        "info-request": 15,
        "info-reply": 16,
        "address-mask-request": 17,
        "address-mask-reply": 18,
    },
    "icmpv6": {
        "destination-unreachable": 1,
        "packet-too-big": 2,
        "time-exceeded": 3,
        "parameter-problem": 4,
        "echo-request": 128,
        "echo-reply": 129,
        "mld-listener-query": 130,
        "mld-listener-report": 131,
        "mld-listener-done": 132,
        "mld-listener-reduction": 132,
        "nd-router-solicit": 133,
        "nd-router-advert": 134,
        "nd-neighbor-solicit": 135,
        "nd-neighbor-advert": 136,
        "nd-redirect": 137,
        "router-renumbering": 138,
        "ind-neighbor-solicit": 141,
        "ind-neighbor-advert": 142,
        "mld2-listener-report": 143,
    },
}
"""The numbers of the names in a listing that was not asked for numbers (``nft describe icmp type``)."""


def _numbers_of_types(value: Json, numbers: dict[str, int]) -> Json:
    """Return values with each name of a type replaced by its number."""
    if isinstance(value, str):
        return numbers[value]
    if isinstance(value, list):
        return [_numbers_of_types(one, numbers) for one in value]
    if isinstance(value, dict):
        return {key: _numbers_of_types(one, numbers) for key, one in value.items()}
    return value


_FAMILIES = {"inet": None, "ip": Family.IPV4, "ip6": Family.IPV6}
"""The families of tables that are read, and whose packets they see, if not all."""


def read_listing(listing: Json) -> VerifiedTable:
    """Return our table of a listing; what is not understood is named in it."""
    entries = [
        (kind, content)
        for entry in listing.get("nftables", ())
        for kind, content in entry.items()
        if (content.get("family"), content.get("name" if kind == "table" else "table"))
        == (nft.FAMILY, nft.TABLE)
    ]
    return _Table(nft.FAMILY).read(entries)


def read_filters(listing: Json) -> VerifiedTable:
    """Return all tables of a listing as one; names of chains and maps begin with their table's."""
    entries: dict[tuple[str, str], list[tuple[str, Json]]] = {}
    for entry in listing.get("nftables", ()):
        for kind, content in entry.items():
            if kind != "metainfo":
                name = content["name" if kind == "table" else "table"]
                entries.setdefault((content["family"], name), []).append((kind, content))
    chains: dict[str, VerifiedChain] = {}
    maps: dict[str, nft.VerdictMap] = {}
    unread: list[str] = []
    translating: list[str] = []
    for (family, name), some in entries.items():
        if family not in _FAMILIES:
            unread.append(f"table {family} {name}")
            continue
        read = _Table(family, f"{family} {name} ").read(some)
        if not read.is_dormant:
            chains |= read.chains
            maps |= read.verdict_maps
            unread += read.unread
            translating += read.translating
    return VerifiedTable(
        chains=chains, verdict_maps=maps, unread=tuple(unread), translating=tuple(translating)
    )


@dataclass(slots=True)
class _Table:
    """Collect the objects of one table."""

    family: str
    prefix: str = ""
    """Of the names of chains and maps."""

    chains: dict[str, VerifiedChain] = field(default_factory=dict)
    rules: dict[str, list[tuple[VerifiedStatement, ...]]] = field(default_factory=dict)
    maps: dict[str, nft.VerdictMap] = field(default_factory=dict)
    sets: dict[str, Json] = field(default_factory=dict)
    others: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Base chains of other kinds: the type of each, and whether its policy is not to accept."""

    def read(self, entries: Iterable[tuple[str, Json]]) -> VerifiedTable:
        """Return the table; sets and maps may be listed behind the rules that read them."""
        is_dormant = False
        rules: list[Json] = []
        for kind, content in entries:
            match kind:
                case "table":
                    is_dormant = "dormant" in _flags(content)
                case "chain":
                    self._take_chain(content)
                case "rule":
                    rules.append(content)
                case "map":
                    self._take_map(content)
                case "set":
                    self.sets[content["name"]] = content
        for content in rules:
            self._take_rule(content)
        chains = {name: replace(chain, rules=self._rules(chain)) for name, chain in self.chains.items()}
        unread = {
            f"chain {self.prefix}{name}": kind
            for name, (kind, drops) in self.others.items()
            if drops or self.rules.get(name)
        }
        return VerifiedTable(
            chains=chains,
            verdict_maps=self.maps,
            is_dormant=is_dormant,
            unread=tuple(unread),
            translating=tuple(name for name, kind in unread.items() if kind == "nat"),
        )

    def _take_chain(self, content: Json) -> None:
        name = content["name"]
        hook = None
        if "hook" in content:
            drops = content.get("policy", "accept") != "accept"
            if content.get("type") == "filter" and "dev" not in content and isinstance(content["prio"], int):
                hook = BaseHook(name=_text(content["hook"]), priority=content["prio"], drops=drops)
            else:
                self.others[name] = content.get("type", ""), drops
        full = f"{self.prefix}{name}"
        self.chains[full] = VerifiedChain(name=full, hook=hook, comment=content.get("comment", ""))

    def _rules(self, chain: VerifiedChain) -> tuple[tuple[VerifiedStatement, ...], ...]:
        """Return the rules of a chain; a base chain of one family lets the other's packets pass."""
        rules = tuple(self.rules.get(chain.name.removeprefix(self.prefix), ()))
        family = _FAMILIES[self.family]
        if chain.hook is None or family is None:
            return rules
        others = nft.Match(nft.META_NFPROTO, (nft.Symbol(family.value),), nft.Operator.NOT_EQUAL)
        return ((others, nft.Accept()), *rules)

    def _take_map(self, content: Json) -> None:
        """Take a verdict map; one that is not understood matters only where a rule reads it."""
        try:
            known = {key: value for key, value in content.items() if key != "comment"}
            known["elem"] = [(_without_comment(key), verdict) for key, verdict in content.get("elem", ())]
            name = f"{self.prefix}{content['name']}"
            self.maps[name] = self._qualified(
                replace(json_listing.decode_verdict_map(content["name"], known), name=name)
            )
        except FAULTS:
            pass

    def _qualified(self, verdict_map: nft.VerdictMap) -> nft.VerdictMap:
        if not self.prefix:
            return verdict_map
        elements = (replace(one, verdict=self._target(one.verdict)) for one in verdict_map.elements)
        return replace(verdict_map, elements=tuple(elements))

    def _target(self, verdict: nft.Verdict) -> nft.Verdict:
        match verdict:
            case nft.Goto(chain) | nft.Jump(chain) if self.prefix:
                return replace(verdict, chain=f"{self.prefix}{chain}")
            case _:
                return verdict

    def _take_rule(self, content: Json) -> None:
        chain = content["chain"]
        rules = self.rules.setdefault(chain, [])
        name = f"{self.prefix}{chain}"
        statements: list[VerifiedStatement] = []
        for expression in content.get("expr", ()):
            try:
                statements += self._statements(expression, f"{name} rule {len(rules) + 1}")
            except FAULTS:
                statements.append(Unread(f"{_described(expression)} in chain {name}"))
        rules.append(understood(name, tuple(statements)))

    def _statements(self, expression: Json, place: str) -> Iterator[VerifiedStatement]:
        """Yield what an expression comes to; what has no part in the verdict is left out."""
        match expression:
            case {"return": None}:
                yield Return()
            case {"reject": _}:
                yield nft.Drop()
            case (
                {"counter": {"packets": _, "bytes": _} | None} | {"log": _} | {"last": _} | {"continue": None}
            ):
                return
            case {"limit": _}:
                yield nft.Limit(1, 1)  # whatever its rate: it may let a packet pass, or not
            case {"vmap": {"key": key, "data": {"set": elements}}}:
                yield self._inline(json_listing.decode_selectors(key), elements, place)
            case {"match": {"op": "<" | "<=" | ">" | ">=" as operator, "left": left, "right": int(right)}}:
                yield _ordered(operator, _comparison("==", left, right))
            case {"match": {"op": operator, "left": left, "right": str(right)}} if right.startswith("@"):
                yield _comparison(operator, left, {"set": _lasting_values(self.sets[right[1:]])})
            case {"match": {"op": operator, "left": left, "right": right}}:
                yield from _comparisons(operator, left, right)
            case _:
                yield self._own(json_listing.decode_statement(expression))

    def _own(self, statement: nft.Statement) -> nft.Statement:
        match statement:
            case nft.LookUp(selectors, name):
                return nft.LookUp(selectors, f"{self.prefix}{name}")
            case nft.Goto() | nft.Jump():
                return self._target(statement)
            case _:
                return statement

    def _inline(self, selectors: tuple[nft.Selector, ...], elements: Json, place: str) -> nft.LookUp:
        """Return the look-up in a map that stands in a rule, and keep the map."""
        types = tuple(selector.key_type for selector in selectors)
        decoded = (
            (json_listing.decode_key(key, types), json_listing.decode_verdict(verdict))
            for key, verdict in elements
        )
        made = tuple(nft.Element(key, self._target(verdict)) for key, verdict in decoded)
        self.maps[place] = nft.VerdictMap(name=place, key_types=types, is_interval=True, elements=made)
        return nft.LookUp(selectors, place)


def _comparisons(operator: str, left: Json, right: Json) -> Iterator[nft.Match]:
    """Yield a comparison, and what our own tables never compare in other words."""
    match left:
        case {"payload": {"protocol": "ip", "field": "protocol"}}:
            yield nft.Match(nft.META_NFPROTO, (nft.Symbol("ipv4"),))
            yield _comparison(operator, {"meta": {"key": "l4proto"}}, right)
        case {"payload": {"protocol": "icmp" | "icmpv6" as header, "field": "type"}}:
            numbers = _numbers_of_types(right, _TYPES[header])
            found = _comparison(operator, {"payload": {"protocol": "icmpv6", "field": "type"}}, numbers)
            yield found if header == "icmpv6" else replace(found, selector=ICMP_TYPE)
        case {"meta": {"key": "iif" | "oif" as key}}:
            yield _comparison(operator, {"meta": {"key": f"{key}name"}}, right)
        case _:
            yield _comparison(operator, left, right)


def _comparison(operator: str, left: Json, right: Json) -> nft.Match:
    found = json_listing.decode_statement({"match": {"op": operator, "left": left, "right": right}})
    if not isinstance(found, nft.Match):
        raise UnreadableError
    return found


def _lasting_values(content: Json) -> list[Json]:
    """Return the values of a named set that only the ruleset changes."""
    if _flags(content) & {"dynamic", "timeout"}:
        raise UnreadableError
    return [_without_comment(value) for value in content.get("elem", ())]


def _flags(content: Json) -> set[str]:
    flags = content.get("flags", ())
    return {flags} if isinstance(flags, str) else set(flags)


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise UnreadableError
    return value


def _without_comment(element: Json) -> Json:
    """Return the key of an element that has nothing else but a comment, else the element as it is."""
    match element:
        case {"elem": {"val": value, "comment": _, **others}} if not others:
            return value
        case _:
            return element


def _ordered(operator: str, equal: nft.Match) -> nft.Match:
    """Return a comparison by order, made of the one for equality, which has one value."""
    if not isinstance(equal.values[0], nft.Interval):
        raise UnreadableError
    value, last = equal.values[0].first, (1 << nft.BITS[equal.selector.key_type]) - 1
    first, final = (0, value) if "<" in operator else (value, last)
    if "=" not in operator:  # the value itself is not meant
        first, final = (first, final - 1) if "<" in operator else (first + 1, final)
    if first > final:
        raise UnreadableError
    return replace(equal, values=(nft.Interval(first, final),))


def _described(expression: Json) -> str:
    """Return an expression in a few words."""
    match expression:
        case {"match": {"left": dict() as left}}:
            return _described(left)
        case {"vmap": {"key": dict() as key}}:
            return f"vmap of {_described(key)}"
        case {"payload": {"protocol": protocol, "field": name}}:
            return f"{protocol} {name}"
        case {"meta": {"key": key}}:
            return f"meta {key}"
        case {"ct": {"key": key}}:
            return f"ct {key}"
        case {"&": _}:
            return "mask"
        case dict():
            return str(next(iter(expression), ""))
        case _:
            return str(expression)
