"""Draw random tables: small, canonical, and such that the kernel takes them.

Names come from a small pool, so that two tables share some, disagree about others and lack the rest. Chains
have levels, and a chain refers only to chains behind it: the kernel refuses loops. What a rule reads is of
one family, and at most once from a packet's header: nft refuses contradictions, and does not list what
another match implies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from hypothesis import strategies as st

from sgagent.core.model import PORTED
from sgagent.nft import ruleset as nft
from sgagent.nft.names import STATE_CHAIN

# Hypothesis spends more time on making a strategy than on drawing from it: what can be is made once.

_Thing = TypeVar("_Thing")
ALL_BITS = 0xFFFFFFFF
CHAINS = (
    "ingress/eth0",
    "class/eth0/1",
    "class/eth0/2",
    "rule/eth0/a",
    "rule/eth0/b",
    "default/eth0",
    STATE_CHAIN,
)
"""By level. To the last, which keeps the state, nothing leads."""

COUNTERS = ("rule/eth0/a", "rule/eth0/b", "default/eth0")
COMMENTS = ("", "generation 1", "sgr-1 'quoted' ; } \\ ä")
PREFIXES = ("default/eth0/ingress", "x/0123456789abcdef", "r" * 127)
LOG_GROUP = 9469
INTERFACES = ("eth0", "lo", "br-0f.12", "wlan 0", "ä", "6")

ORIGINAL, REPLY = nft.TupleDirection.ORIGINAL, nft.TupleDirection.REPLY
NEUTRAL_FIELDS: tuple[nft.Selector, ...] = (nft.CT_STATE, nft.CT_DIRECTION, nft.CT_MARK)
"""They say nothing about what the packet is, and go with everything."""

SESSION_FIELDS: Mapping[str, tuple[nft.Selector, ...]] = {
    family: (
        *NEUTRAL_FIELDS,
        nft.CT_PROTOCOL,
        nft.ct_tuple(ORIGINAL, f"{family} saddr"),
        nft.ct_tuple(REPLY, f"{family} daddr"),
        nft.ct_tuple(ORIGINAL, "proto-dst"),
        nft.ct_tuple(REPLY, "proto-src"),
    )
    for family in ("ip", "ip6")
}
HEADER_FIELDS: tuple[nft.Selector, ...] = (
    nft.META_IIFNAME,
    nft.META_NFPROTO,
    nft.META_L4PROTO,
    nft.ETHER_DADDR,
    nft.IP_SADDR,
    nft.IP_DADDR,
    nft.IP6_SADDR,
    nft.IP6_DADDR,
    nft.IP6_HOPLIMIT,
    *(port(protocol) for protocol in PORTED for port in (nft.destination_port, nft.source_port)),
    nft.ICMPV6_TYPE,
)
NEUTRAL_KEYS: tuple[tuple[nft.Selector, ...], ...] = ((nft.CT_MARK,), (nft.CT_STATE,))
SESSION_KEYS: Mapping[str, tuple[tuple[nft.Selector, ...], ...]] = {
    family: (
        *NEUTRAL_KEYS,
        (nft.CT_PROTOCOL,),
        (nft.ct_tuple(ORIGINAL, f"{family} saddr"),),
        (nft.ct_tuple(REPLY, f"{family} daddr"),),
        (nft.CT_PROTOCOL, nft.ct_tuple(ORIGINAL, "proto-dst")),
        (nft.ct_tuple(ORIGINAL, f"{family} saddr"), nft.CT_PROTOCOL, nft.ct_tuple(ORIGINAL, "proto-dst")),
        (nft.ct_tuple(REPLY, f"{family} daddr"), nft.ct_tuple(REPLY, "proto-src")),
        (nft.ct_tuple(ORIGINAL, "proto-dst"),),
    )
    for family in ("ip", "ip6")
}
HEADER_KEYS: tuple[tuple[nft.Selector, ...], ...] = (
    (nft.IP_SADDR,),
    (nft.IP6_DADDR,),
    (nft.META_L4PROTO, nft.TH_DPORT),
    (nft.META_IIFNAME,),
    (nft.META_L4PROTO,),
    (nft.IP6_SADDR, nft.META_L4PROTO, nft.TH_DPORT),
)
KEYS = (*SESSION_KEYS["ip"], *SESSION_KEYS["ip6"], *HEADER_KEYS)

_SHAPES_OF_INTERVALS = st.sampled_from(("single", "prefix", "range", "everything"))
_OPERATORS = st.sampled_from(nft.Operator)
_MASKS = st.sampled_from((None, 0xFFFF0000, 0x1F, 0x10000))
_SHAPES_OF_RULES = st.sampled_from(("ip", "ip6", "header", "header look-up"))
_BOOLEANS = st.booleans()
_COMMENTS = st.sampled_from(COMMENTS)
_ONE_IN_FOUR = st.integers(0, 3)
_PREFIXES = st.sampled_from(PREFIXES)
_KEYS = st.sampled_from(KEYS)
_HEADER_FIELDS = st.sampled_from(HEADER_FIELDS)


@cache
def numbers(key_type: nft.KeyType) -> st.SearchStrategy[int]:
    """Return a strategy for numbers of a type, often small and often at the edges."""
    last = (1 << nft.BITS[key_type]) - 1
    return st.one_of(
        st.integers(0, min(last, 30)), st.sampled_from((0, 1, last - 1, last)), st.integers(0, last)
    )


@cache
@st.composite
def intervals(draw: st.DrawFn, key_type: nft.KeyType) -> nft.Interval:
    """Draw an interval: one number, a prefix, everything, or any range."""
    bits = nft.BITS[key_type]
    first = draw(numbers(key_type))
    shape = draw(_SHAPES_OF_INTERVALS)
    if shape == "prefix":
        size = 1 << draw(st.integers(0, bits))
        first -= first % size
        return nft.Interval(first, first + size - 1)
    if shape == "range":
        return nft.Interval(first, max(first, draw(numbers(key_type))))
    return nft.Interval(0, (1 << bits) - 1) if shape == "everything" else nft.Interval.single(first)


@cache
def values(key_type: nft.KeyType, *, ranges: bool) -> st.SearchStrategy[nft.Value]:
    """Return a strategy for values of a type."""
    if key_type is nft.KeyType.IFNAME:
        return st.sampled_from([nft.Symbol(name) for name in INTERFACES])
    if key_type in nft.SYMBOLS:
        return st.sampled_from([nft.Symbol(word) for word in nft.SYMBOLS[key_type]])
    return intervals(key_type) if ranges else numbers(key_type).map(nft.Interval.single)


def overlap(one: nft.Value, other: nft.Value, *, gap: int = 0) -> bool:
    """Tell whether two values share something, or lie closer than the gap."""
    if isinstance(one, nft.Interval) and isinstance(other, nft.Interval):
        return one.first <= other.last + gap and other.first <= one.last + gap
    return one == other


Key = tuple[nft.Value, ...]


@cache
def _candidates(
    types: tuple[nft.KeyType, ...], *, ranges: bool, most: int, least: int
) -> st.SearchStrategy[list[Key]]:
    key = st.tuples(*(values(key_type, ranges=ranges) for key_type in types))
    return st.lists(key, min_size=least, max_size=most)


@st.composite
def keys(
    draw: st.DrawFn, types: tuple[nft.KeyType, ...], *, ranges: bool, most: int, least: int = 0
) -> list[Key]:
    """Draw disjoint keys, sorted."""
    kept: list[Key] = []
    for candidate in draw(_candidates(types, ranges=ranges, most=most, least=least)):
        if not any(all(map(overlap, candidate, other)) for other in kept):
            kept.append(candidate)
    return sorted(kept, key=nft.sort_key)


@cache
@st.composite
def matches(draw: st.DrawFn, selector: nft.Selector) -> nft.Match:
    """Draw a comparison of one field."""
    key_type = selector.key_type
    operator = draw(_OPERATORS)
    if key_type is nft.KeyType.MARK:
        mask = draw(_MASKS)
        number = draw(numbers(key_type)) & (ALL_BITS if mask is None else mask)
        return nft.Match(selector, (nft.Interval.single(number),), operator, mask)
    chosen = _apart(draw(_values_of_match(key_type)))
    return nft.Match(selector, chosen, operator)


@cache
def _values_of_match(key_type: nft.KeyType) -> st.SearchStrategy[list[nft.Value]]:
    return st.lists(values(key_type, ranges=True), min_size=1, max_size=4)


def _apart(candidates: Iterable[nft.Value]) -> tuple[nft.Value, ...]:
    """Return the values that neither touch nor overlap one before them, sorted."""
    kept: list[nft.Value] = []
    for candidate in candidates:
        if not any(overlap(candidate, other, gap=1) for other in kept):
            kept.append(candidate)
    return tuple(sorted(kept, key=lambda value: nft.sort_key((value,))))


@cache
@st.composite
def set_marks(draw: st.DrawFn) -> nft.SetMark:
    """Draw a change of the mark."""
    bits = draw(st.sampled_from((0, 1, 0xFFFF0000, 0x3F0000, ALL_BITS)))
    return nft.SetMark.replacing(
        bits, draw(numbers(nft.KeyType.MARK)) & draw(st.sampled_from((0, ALL_BITS, bits)))
    )


@cache
def limits() -> st.SearchStrategy[nft.Limit]:
    """Return a strategy for limits."""
    return st.builds(nft.Limit, st.integers(1, 1000), st.integers(1, 1000))


@dataclass(frozen=True)
class Surroundings:
    """What a rule may refer to."""

    chains: tuple[str, ...]
    verdict_maps: tuple[nft.VerdictMap, ...]
    counters: tuple[str, ...]


@cache
def verdicts(chains: tuple[str, ...]) -> st.SearchStrategy[nft.Verdict]:
    """Return a strategy for verdicts that lead to one of the chains, or end."""
    plain: list[nft.Verdict] = [nft.Accept(), nft.Drop()]
    targets = [name for name in chains if name != STATE_CHAIN]
    return st.sampled_from([*plain, *map(nft.Goto, targets), *map(nft.Jump, targets)])


@cache
def _fields(fields: tuple[nft.Selector, ...]) -> st.SearchStrategy[list[nft.Selector]]:
    return st.lists(st.sampled_from(fields), unique=True, max_size=3)


@st.composite
def rules(draw: st.DrawFn, around: Surroundings) -> nft.Rule:
    """Draw a rule."""
    shape = draw(_SHAPES_OF_RULES)
    fields = SESSION_FIELDS.get(shape, NEUTRAL_FIELDS)
    chosen = draw(_fields(fields))
    statements: list[nft.Statement] = [draw(matches(field)) for field in chosen]
    if shape == "header":
        statements += draw(header_statements())
    if draw(_ONE_IN_FOUR) == 0:
        statements += [draw(limits()), nft.Log(draw(_PREFIXES), LOG_GROUP)]
    if bool(around.counters) and draw(_BOOLEANS):
        statements.append(nft.Count(draw(st.sampled_from(around.counters))))
    if draw(_ONE_IN_FOUR) == 0:
        statements.append(draw(set_marks()))
    keys_of_header = HEADER_KEYS if shape == "header look-up" else NEUTRAL_KEYS
    statements += draw(endings(around, SESSION_KEYS.get(shape, keys_of_header)))
    return nft.Rule(tuple(statements))


@cache
@st.composite
def header_statements(draw: st.DrawFn) -> list[nft.Statement]:
    """Draw one match on headers, or the two that speak of ICMPv6 together."""
    if draw(_BOOLEANS):
        return [draw(matches(draw(_HEADER_FIELDS)))]
    return [draw(matches(nft.ICMPV6_TYPE)), draw(matches(nft.IP6_HOPLIMIT))]


@st.composite
def endings(
    draw: st.DrawFn, around: Surroundings, selectable: tuple[tuple[nft.Selector, ...], ...]
) -> list[nft.Statement]:
    """Draw how a rule ends: by a verdict, or by looking one up."""
    fitting = [
        (selectors, verdict_map)
        for verdict_map in around.verdict_maps
        for selectors in selectable
        if tuple(selector.key_type for selector in selectors) == verdict_map.key_types
    ]
    is_looked_up = draw(_BOOLEANS)
    if fitting and is_looked_up:
        selectors, verdict_map = draw(st.sampled_from(fitting))
        return [nft.LookUp(selectors, verdict_map.name)]
    return [draw(verdicts(around.chains))]


@st.composite
def verdict_maps(draw: st.DrawFn, name: str, chains: tuple[str, ...]) -> nft.VerdictMap:
    """Draw a named map that leads to the chains."""
    types = tuple(selector.key_type for selector in draw(_KEYS))
    is_interval = draw(_BOOLEANS) and not set(types) & {nft.KeyType.IFNAME, nft.KeyType.CT_STATE}
    chosen = draw(keys(types, ranges=is_interval, most=6))
    elements = tuple(nft.Element(key, draw(verdicts(chains))) for key in chosen)
    return nft.VerdictMap(name=name, key_types=types, is_interval=is_interval, elements=elements)


@st.composite
def rulesets(draw: st.DrawFn) -> nft.Ruleset:
    """Draw a table."""
    chosen: tuple[str, ...] = tuple(name for name in CHAINS if draw(_BOOLEANS))
    counters = tuple(name for name in COUNTERS if draw(_BOOLEANS))
    maps_at = {
        level: draw(verdict_maps(f"map/{level}", tuple(n for n in chosen if CHAINS.index(n) >= level)))
        for level in (1, 2, 4)
        if draw(_BOOLEANS)
    }

    def around(level: int) -> Surroundings:
        return Surroundings(
            chains=tuple(name for name in chosen if CHAINS.index(name) > level),
            verdict_maps=tuple(verdict_map for at, verdict_map in maps_at.items() if at > level),
            counters=counters,
        )

    chains = [draw(regular_chains(name, around(CHAINS.index(name)))) for name in chosen]
    chains += [draw(base_chains(n, around(-1))) for n in ("postrouting", "prerouting") if draw(_BOOLEANS)]
    return nft.Ruleset(
        chains=_by_name(chains, lambda chain: chain.name),
        verdict_maps=_by_name(maps_at.values(), lambda verdict_map: verdict_map.name),
        counters=tuple(nft.Counter(name=name, comment=draw(_COMMENTS)) for name in sorted(counters)),
    )


def _by_name(things: Iterable[_Thing], name: Callable[[_Thing], str]) -> tuple[_Thing, ...]:
    return tuple(sorted(things, key=name))


@st.composite
def regular_chains(draw: st.DrawFn, name: str, around: Surroundings) -> nft.Chain:
    """Draw a chain that others lead to."""
    chosen = draw(st.lists(rules(around), max_size=3))
    return nft.Chain(name=name, rules=tuple(chosen), comment=draw(_COMMENTS))


@st.composite
def base_chains(draw: st.DrawFn, name: str, around: Surroundings) -> nft.Chain:
    """Draw a chain that the kernel calls, now and then at another place than usual."""
    hook = nft.Hook(name=name, hook_priority=draw(st.sampled_from((-150, -150, -150, 300))))
    return nft.Chain(name=name, rules=tuple(draw(st.lists(rules(around), max_size=4))), hook=hook)
