"""Fallback ruleset: the host closed but for its exemptions, where the agent can't be started (§9.2).

A shell script of the boot unit loads it by whatever nft there is, from 0.9.8 on. So it has no maps, no marks,
no flags and no tuples of conntrack, which older ones read otherwise or not at all. It knows sessions by
conntrack alone. The next agent puts its own table in this one's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sgagent.compiler.base_chains import LINK, POSTROUTING, PREROUTING, always_allowed_icmpv6, reached_judges
from sgagent.compiler.decision_list import list_entries
from sgagent.compiler.linear import FarEndMaps, entry_rules
from sgagent.compiler.selectors import dhcp_rule, readings
from sgagent.core.addresses import NO_ADDRESSES
from sgagent.core.memo import Memo
from sgagent.core.model import ICMP, ICMPV6, Direction, Family, Mode
from sgagent.core.policy import LOOPBACK, ResolvedInterface, ResolvedPolicy
from sgagent.nft import ruleset as nft

_HOOKS = {Direction.INGRESS: PREROUTING, Direction.EGRESS: POSTROUTING}


def compile_fallback(policy: ResolvedPolicy) -> nft.Ruleset | None:
    """Return the table that closes each link that the policy enforces something on; None where that is none.

    Links in observe mode stay open. Platform and fail-safe list are alike for all links.
    """
    enforced = next((judge for judge in reached_judges(policy) if judge.mode is Mode.ENFORCE), None)
    if enforced is None:
        return None
    closed = _without_groups(enforced)
    chains = [chain for direction in Direction for chain in _of_direction(policy, closed, direction)]
    return nft.Ruleset(chains=tuple(sorted(chains, key=lambda chain: chain.name)))


def _without_groups(judge: ResolvedInterface) -> ResolvedInterface:
    for direction in Direction:
        side = replace(judge.toward(direction), inner=NO_ADDRESSES, rules=())
        judge = judge.with_side(direction, side)
    return judge


def _of_direction(
    policy: ResolvedPolicy, closed: ResolvedInterface, direction: Direction
) -> Iterator[nft.Chain]:
    hook, entry = _HOOKS[direction], _chain_name(direction)
    yield nft.Chain(name=hook.name, hook=hook, rules=tuple(_dispatch(policy, direction, nft.Goto(entry))))
    ipv4, ipv6 = (nft.Goto(_chain_name(direction, family)) for family in Family)
    yield nft.Chain(name=entry, rules=(*_SESSIONS, nft.Rule((_IS_IPV4, ipv4)), nft.Rule((ipv6,))))
    for family in Family:
        rules = _exempt(closed, direction, family)
        yield nft.Chain(name=_chain_name(direction, family), rules=(*rules, nft.Rule((nft.Drop(),))))


def _chain_name(direction: Direction, family: Family | None = None) -> str:
    return f"closed/{direction.value}" + (f"/{family.value}" if family else "")


def _dispatch(policy: ResolvedPolicy, direction: Direction, closed: nft.Goto) -> Iterator[nft.Rule]:
    """Yield the rules that lead each link's packets on, in the order in which the policy looks for its judge.

    Names come first. Other links are known by the longest prefix that their names begin with, or by nothing.
    """

    def onward(judge: ResolvedInterface | None) -> nft.Verdict:
        return closed if judge is not None and judge.mode is Mode.ENFORCE else nft.Accept()

    named = {*policy.identified, *policy.lower_devices, *(one.name for one in policy.interfaces)} - {LOOPBACK}
    known = [(nft.Symbol(name), policy.judge(name)) for name in (LOOPBACK, *sorted(named))]
    prefixes = [(nft.NamePrefix(prefix), policy.behind(prefix)) for prefix in policy.prefixes]
    pairs: tuple[tuple[nft.Symbol | nft.NamePrefix, ResolvedInterface | None], ...] = (*known, *prefixes)
    for name, judge in pairs:
        yield nft.Rule((nft.Match(LINK[direction], (name,)), onward(judge)))
    yield nft.Rule((onward(policy.stranger),))


def _is(word: str) -> nft.Match:
    return nft.Match(nft.CT_STATE, (nft.Symbol(word),))


_IS_IPV4 = nft.Match(nft.META_NFPROTO, (nft.Symbol("ipv4"),))
_SESSIONS = (
    nft.Rule((_is("invalid"), nft.Drop())),
    nft.Rule((_is("established"), nft.Accept())),
    *(
        nft.Rule((_is("related"), nft.Match(nft.META_L4PROTO, (nft.Interval.single(number),)), nft.Accept()))
        for number in (ICMP.wire_number, ICMPV6.wire_number)
    ),
)
"""Of sessions that were let open, and of ICMP errors about them (§6.5)."""


def _exempt(closed: ResolvedInterface, direction: Direction, family: Family) -> Iterator[nft.Rule]:
    """Yield the rules for traffic that no group can block, by the packet's header (§7)."""
    _, reading = readings(direction, family)
    if family is Family.IPV6:
        yield from always_allowed_icmpv6()
    yield from _accepting([dhcp_rule(reading, direction, closed.name, family)])
    far_ends = FarEndMaps("", (nft.ADDRESS_TYPES[family],))  # each is one network, which takes no map
    yield from _accepting(entry_rules(list_entries(closed, direction, family, Memo()), reading, far_ends))


def _accepting(rules: Iterable[nft.Rule]) -> Iterator[nft.Rule]:
    """Yield the rules with the verdict itself in place of a chain that counts and remembers."""
    for rule in rules:
        yield nft.Rule((*rule.statements[:-1], nft.Accept()))
