"""Small tables by hand, each a step from another."""

from __future__ import annotations

from dataclasses import replace

from sgagent.nft import ruleset as nft

PREROUTING = nft.Hook(name="prerouting", hook_priority=-150)


def member(address: int, chain: str) -> nft.Element:
    """Return an element that sends an IPv4 address to a chain."""
    return nft.Element((nft.Interval.single(address),), nft.Goto(chain))


def leaf(name: str, *statements: nft.Statement) -> nft.Chain:
    """Return a chain that counts under its own name and then does what is said."""
    return nft.Chain(name=name, rules=(nft.Rule((nft.Count(name), *statements)),))


MEMBERS = nft.VerdictMap(
    name="peers/eth0",
    key_types=(nft.KeyType.IPV4_ADDR,),
    elements=(member(0xC0000201, "rule/eth0/ssh"), member(0xC0000202, "rule/eth0/web")),
)
NETWORKS = nft.VerdictMap(
    name="networks/eth0",
    key_types=(nft.KeyType.IPV4_ADDR,),
    is_interval=True,
    elements=(
        nft.Element((nft.Interval(0x0A000000, 0x0AFFFFFF),), nft.Goto("rule/eth0/web")),
        nft.Element((nft.Interval(0xC6336400, 0xC6336407),), nft.Goto("rule/eth0/ssh")),
    ),
)
PORTS = nft.VerdictMap(
    name="ports/eth0",
    key_types=(nft.KeyType.INET_PROTO, nft.KeyType.INET_SERVICE),
    is_interval=True,
    elements=(
        nft.Element((nft.Interval.single(6), nft.Interval.single(443)), nft.Goto("rule/eth0/web")),
        nft.Element((nft.Interval.single(17), nft.Interval(1024, 65535)), nft.Goto("rule/eth0/ssh")),
    ),
)
ENTRY = nft.Chain(
    name="ingress/eth0",
    rules=(
        nft.Rule((nft.Match(nft.CT_STATE, (nft.Symbol("invalid"),)), nft.Drop())),
        nft.Rule((nft.LookUp((nft.IP_SADDR,), "peers/eth0"),)),
        nft.Rule((nft.LookUp((nft.IP_SADDR,), "networks/eth0"),)),
        nft.Rule((nft.LookUp((nft.META_L4PROTO, nft.TH_DPORT), "ports/eth0"),)),
        nft.Rule((nft.Drop(),)),
    ),
)
BASE = nft.Chain(
    name="prerouting",
    hook=PREROUTING,
    rules=(nft.Rule((nft.Match(nft.META_IIFNAME, (nft.Symbol("eth0"),)), nft.Goto("ingress/eth0"))),),
)
STATE = nft.Chain(name="generation", comment="generation 1")
SSH = leaf("rule/eth0/ssh", nft.Accept())
WEB = leaf("rule/eth0/web", nft.SetMark.replacing(0xFFFF0000, 0x10000), nft.Accept())


def table(*chains: nft.Chain, maps: tuple[nft.VerdictMap, ...], counters: tuple[str, ...]) -> nft.Ruleset:
    """Return a table in canonical order."""
    return nft.Ruleset(
        chains=tuple(sorted(chains, key=lambda chain: chain.name)),
        verdict_maps=tuple(sorted(maps, key=lambda verdict_map: verdict_map.name)),
        counters=tuple(nft.Counter(name=name) for name in sorted(counters)),
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
OTHER_NETWORKS = nft.VerdictMap(
    name="networks/eth0/other",
    key_types=(nft.KeyType.IPV4_ADDR,),
    is_interval=True,
    elements=(
        nft.Element((nft.Interval(0x0A000000, 0x0A00FFFF),), nft.Goto("rule/eth0/ssh")),
        NETWORKS.elements[1],
    ),
)
OTHER_PORTS = nft.VerdictMap(
    name="ports/eth0/other",
    key_types=PORTS.key_types,
    is_interval=True,
    elements=(nft.Element(PORTS.elements[0].key, nft.Drop()), PORTS.elements[1]),
)
ANOTHER_VERDICT = table(
    BASE,
    replace(
        ENTRY,
        rules=(
            *ENTRY.rules[:2],
            nft.Rule((nft.LookUp((nft.IP_SADDR,), OTHER_NETWORKS.name),)),
            nft.Rule((nft.LookUp((nft.META_L4PROTO, nft.TH_DPORT), OTHER_PORTS.name),)),
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
    replace(ENTRY, rules=(nft.Rule((nft.LookUp((nft.IP6_SADDR,), "peers/eth0"),)), *ENTRY.rules[2:])),
    STATE,
    SSH,
    WEB,
    maps=(
        nft.VerdictMap(
            name="peers/eth0",
            key_types=(nft.KeyType.IPV6_ADDR,),
            elements=(member(0x20010DB8 << 96 | 1, "rule/eth0/ssh"),),
        ),
        NETWORKS,
        PORTS,
    ),
    counters=_COUNTERS,
)
"""A map of the same name with another key."""

OTHER_HOOK = table(
    replace(BASE, hook=nft.Hook(name="prerouting", hook_priority=-149)),
    ENTRY,
    STATE,
    SSH,
    WEB,
    maps=_MAPS,
    counters=_COUNTERS,
)
LIMIT = nft.MeterSet(name="limit/eth0/ssh", key_type=nft.KeyType.IPV4_ADDR, size=64, timeout=120)
LIMITED = replace(
    table(
        BASE,
        ENTRY,
        STATE,
        replace(
            SSH, rules=(nft.Rule((nft.Meter(LIMIT.name, nft.IP_SADDR, 10, 60, 20), nft.Drop())), *SSH.rules)
        ),
        WEB,
        maps=_MAPS,
        counters=_COUNTERS,
    ),
    meter_sets=(LIMIT,),
)
"""Sources have a rate each."""

LIMITED_OTHERWISE = replace(
    LIMITED,
    meter_sets=(replace(LIMIT, name="limit/eth0/ssh/other", key_type=nft.KeyType.IPV6_ADDR, timeout=3600),),
    chains=tuple(
        replace(
            SSH,
            rules=(
                nft.Rule((nft.Meter("limit/eth0/ssh/other", nft.IP6_SADDR, 1, 3600, 1), nft.Drop())),
                *SSH.rules,
            ),
        )
        if chain.name == SSH.name
        else chain
        for chain in LIMITED.chains
    ),
)
EMPTY = nft.Ruleset()

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
