"""Small tables by hand, each a step from another."""

from __future__ import annotations

from dataclasses import replace

from sgagent.nft import ruleset as r
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
    KeyType,
    LookUp,
    Match,
    Rule,
    Ruleset,
    SetMark,
    Symbol,
    VerdictMap,
)

PREROUTING = Hook(name="prerouting", hook_priority=-150)


def member(address: int, chain: str) -> Element:
    """Return an element that sends an IPv4 address to a chain."""
    return Element((Interval.single(address),), Goto(chain))


def leaf(name: str, *statements: r.Statement) -> Chain:
    """Return a chain that counts under its own name and then does what is said."""
    return Chain(name=name, rules=(Rule((Count(name), *statements)),))


MEMBERS = VerdictMap(
    name="peers/eth0",
    key_types=(KeyType.IPV4_ADDR,),
    elements=(member(0xC0000201, "rule/eth0/ssh"), member(0xC0000202, "rule/eth0/web")),
)
NETWORKS = VerdictMap(
    name="networks/eth0",
    key_types=(KeyType.IPV4_ADDR,),
    is_interval=True,
    elements=(
        Element((Interval(0x0A000000, 0x0AFFFFFF),), Goto("rule/eth0/web")),
        Element((Interval(0xC6336400, 0xC6336407),), Goto("rule/eth0/ssh")),
    ),
)
PORTS = VerdictMap(
    name="ports/eth0",
    key_types=(KeyType.INET_PROTO, KeyType.INET_SERVICE),
    is_interval=True,
    elements=(
        Element((Interval.single(6), Interval.single(443)), Goto("rule/eth0/web")),
        Element((Interval.single(17), Interval(1024, 65535)), Goto("rule/eth0/ssh")),
    ),
)
ENTRY = Chain(
    name="ingress/eth0",
    rules=(
        Rule((Match(r.CT_STATE, (Symbol("invalid"),)), Drop())),
        Rule((LookUp((r.IP_SADDR,), "peers/eth0"),)),
        Rule((LookUp((r.IP_SADDR,), "networks/eth0"),)),
        Rule((LookUp((r.META_L4PROTO, r.TH_DPORT), "ports/eth0"),)),
        Rule((Drop(),)),
    ),
)
BASE = Chain(
    name="prerouting",
    hook=PREROUTING,
    rules=(Rule((Match(r.META_IIFNAME, (Symbol("eth0"),)), Goto("ingress/eth0"))),),
)
STATE = Chain(name="generation", comment="generation 1")
SSH = leaf("rule/eth0/ssh", Accept())
WEB = leaf("rule/eth0/web", SetMark.replacing(0xFFFF0000, 0x10000), Accept())


def table(*chains: Chain, maps: tuple[VerdictMap, ...], counters: tuple[str, ...]) -> Ruleset:
    """Return a table in canonical order."""
    return Ruleset(
        chains=tuple(sorted(chains, key=lambda chain: chain.name)),
        verdict_maps=tuple(sorted(maps, key=lambda verdict_map: verdict_map.name)),
        counters=tuple(Counter(name=name) for name in sorted(counters)),
    )


_COUNTERS = ("rule/eth0/ssh", "rule/eth0/web")
_MAPS = (MEMBERS, NETWORKS, PORTS)

WHOLE = table(BASE, ENTRY, STATE, SSH, WEB, maps=_MAPS, counters=_COUNTERS)
"""Something of everything."""

NEXT_GENERATION = table(
    BASE, ENTRY, replace(STATE, comment="generation 2"), SSH, WEB, maps=_MAPS, counters=_COUNTERS
)
"""Another comment of a chain."""

ONE_MEMBER_LESS = table(
    BASE,
    ENTRY,
    STATE,
    SSH,
    WEB,
    maps=(replace(MEMBERS, elements=MEMBERS.elements[1:]), NETWORKS, PORTS),
    counters=_COUNTERS,
)
OTHER_NETWORKS = VerdictMap(
    name="networks/eth0/other",
    key_types=(KeyType.IPV4_ADDR,),
    is_interval=True,
    elements=(Element((Interval(0x0A000000, 0x0A00FFFF),), Goto("rule/eth0/ssh")), NETWORKS.elements[1]),
)
OTHER_PORTS = VerdictMap(
    name="ports/eth0/other",
    key_types=PORTS.key_types,
    is_interval=True,
    elements=(Element(PORTS.elements[0].key, Drop()), PORTS.elements[1]),
)
ANOTHER_VERDICT = table(
    BASE,
    replace(
        ENTRY,
        rules=(
            *ENTRY.rules[:2],
            Rule((LookUp((r.IP_SADDR,), OTHER_NETWORKS.name),)),
            Rule((LookUp((r.META_L4PROTO, r.TH_DPORT), OTHER_PORTS.name),)),
            ENTRY.rules[4],
        ),
    ),
    STATE,
    SSH,
    WEB,
    maps=(
        replace(MEMBERS, elements=(member(0xC0000201, "rule/eth0/web"), MEMBERS.elements[1])),
        OTHER_NETWORKS,
        OTHER_PORTS,
    ),
    counters=_COUNTERS,
)
"""The same members elsewhere, a network that shrank, a port that is dropped. Other ranges are another map."""

WITHOUT_SSH = table(
    BASE,
    replace(ENTRY, rules=(*ENTRY.rules[:2], ENTRY.rules[4])),
    STATE,
    WEB,
    maps=(replace(MEMBERS, elements=MEMBERS.elements[1:]),),
    counters=_COUNTERS[1:],
)
"""A chain less, with all that led to it."""

IPV6_MEMBERS = table(
    BASE,
    replace(ENTRY, rules=(Rule((LookUp((r.IP6_SADDR,), "peers/eth0"),)), *ENTRY.rules[2:])),
    STATE,
    SSH,
    WEB,
    maps=(
        VerdictMap(
            name="peers/eth0",
            key_types=(KeyType.IPV6_ADDR,),
            elements=(member(0x20010DB8 << 96 | 1, "rule/eth0/ssh"),),
        ),
        NETWORKS,
        PORTS,
    ),
    counters=_COUNTERS,
)
"""A map of the same name with another key."""

OTHER_HOOK = table(
    replace(BASE, hook=Hook(name="prerouting", hook_priority=-149)),
    ENTRY,
    STATE,
    SSH,
    WEB,
    maps=_MAPS,
    counters=_COUNTERS,
)
LIMIT = r.MeterSet(name="limit/eth0/ssh", key_type=KeyType.IPV4_ADDR, size=64, timeout=120)
LIMITED = replace(
    table(
        BASE,
        ENTRY,
        STATE,
        replace(SSH, rules=(Rule((r.Meter(LIMIT.name, r.IP_SADDR, 10, 60, 20), Drop())), *SSH.rules)),
        WEB,
        maps=_MAPS,
        counters=_COUNTERS,
    ),
    meter_sets=(LIMIT,),
)
"""Sources have a rate each."""

LIMITED_OTHERWISE = replace(
    LIMITED,
    meter_sets=(replace(LIMIT, name="limit/eth0/ssh/other", key_type=KeyType.IPV6_ADDR, timeout=3600),),
    chains=tuple(
        replace(
            SSH, rules=(Rule((r.Meter("limit/eth0/ssh/other", r.IP6_SADDR, 1, 3600, 1), Drop())), *SSH.rules)
        )
        if chain.name == SSH.name
        else chain
        for chain in LIMITED.chains
    ),
)
EMPTY = Ruleset()

ALL = (
    WHOLE,
    NEXT_GENERATION,
    ONE_MEMBER_LESS,
    ANOTHER_VERDICT,
    WITHOUT_SSH,
    IPV6_MEMBERS,
    OTHER_HOOK,
    LIMITED,
    LIMITED_OTHERWISE,
    EMPTY,
)
