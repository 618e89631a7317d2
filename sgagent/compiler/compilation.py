"""Compile a resolved policy into one nftables table, in which every packet costs a fixed number of lookups.

The table accepts a packet of a known session by one comparison of its mark. It looks up any other packet by
the class of its far end, then by protocol and port. The lookup ends in a counter chain, which counts the
packet for the entry that decided. ``docs/ruleset.md`` explains a compiled table line by line.

The stages, a module each, in the order in which a packet meets what they make: base chains; then either a
linear chain, where the decision list has few entries, or class chains and port chains; and here counter
chains, in which every evaluation ends: each has a counter and the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TypeVar

from sgagent.compiler.base_chains import OPENS_NO_TCP, base_chains, check_sources, reached_judges
from sgagent.compiler.class_chains import look_up_chains
from sgagent.compiler.decision_list import is_in_place, list_entries
from sgagent.compiler.linear import MOST_LINES, is_short, list_chains
from sgagent.compiler.selectors import Place, has_units
from sgagent.core.conditions import MOST_SOURCES, ControlGroup, GroupPath, SourceLimit
from sgagent.core.counter_keys import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    InnerCounter,
    InvalidCounter,
    KernelCounterKey,
    SpoofedCounter,
    counter_of_rule,
    is_of_drops,
    over_limit_of,
)
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import TCP, Direction, Family, Mode, Policy
from sgagent.core.policy import (
    SILENT,
    FlowLogging,
    ResolvedInterface,
    ResolvedPolicy,
    ResolvedRule,
)
from sgagent.nft import names, ruleset as nft
from sgagent.nft.diff import target
from sgagent.nft.marks import EnforcementState, MarkLayout, elsewhere_marks, encode_state

Named = TypeVar("Named", nft.Chain, nft.VerdictMap, nft.Counter, nft.MeterSet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A table and the keys of its counters."""

    ruleset: nft.Ruleset
    counters: Mapping[str, CounterKey]
    """By the counter's name in the table."""


def compile_(
    policy: ResolvedPolicy,
    layout: MarkLayout,
    state: EnforcementState,
    flow_logging: FlowLogging = SILENT,
    memo: Memo | None = None,
    *,
    renamed: frozenset[str] = frozenset(),
    most_lines: int = MOST_LINES,
) -> Compiled:
    """Return the table that enforces the policy.

    Args:
        policy: what to enforce.
        layout: our bits of the conntrack mark.
        state: the policy generation under which accepted sessions are remembered, and who has which slot.
        flow_logging: which verdicts the kernel logs.
        memo: of the last step; the result is the same without.
        renamed: maps of addresses, by their first names, that have their other name.
        most_lines: up to how many lines of a direction and family are a list; where it is 0, none is.
    """
    memo, judges = memo or Memo(), reached_judges(policy)
    state_chain = nft.Chain(name=names.STATE_CHAIN, comment=encode_state(state, layout))
    parts: list[tuple[Iterable[nft.Chain], Iterable[nft.VerdictMap]]] = [base_chains(policy, layout, state)]
    leaves: list[CounterChain] = []
    for interface in judges:
        for direction in Direction:
            # Where the DNS says what rules match, its answers are to change elements, not rules.
            is_dynamic = any(rule.peer.is_dynamic for rule in interface.toward(direction).rules)
            for family in Family:
                for name, seen, known_before in _readers(interface, direction, memo):
                    place: Place = (direction, name, family)
                    entries = list_entries(seen, direction, family, known_before, flow_logging)
                    if is_short(entries, most_lines) and not is_dynamic:
                        parts.append(list_chains(entries, place))
                    else:
                        parts.append(look_up_chains(entries, place, renamed, known_before))
                    if interface.own_addresses is not None:
                        parts.append(check_sources(interface.own_addresses.ranges(family), place))
            opened = _opened_here(interface.name, direction, layout, state)
            leaves += counter_chains(interface, direction, flow_logging, memo, opened)
    judging = (one for made, _ in parts for one in made)
    verdict_maps = _by_name([one for _, maps in parts for one in maps])
    ruleset = nft.Ruleset(
        chains=_by_name([state_chain, *judging, *_reached(leaves, verdict_maps)]),
        verdict_maps=verdict_maps,
        counters=_by_name([leaf.counter for leaf in leaves]),
        meter_sets=_by_name([one for leaf in leaves for one in leaf.meter_sets]),
    )
    return Compiled(ruleset=ruleset, counters={leaf.counter.name: leaf.key for leaf in leaves})


def _readers(
    interface: ResolvedInterface, direction: Direction, memo: Memo
) -> Iterator[tuple[str, ResolvedInterface, Memo]]:
    """Yield the name in whose chains a direction is judged, what is judged by, and a memo of it.

    The kernel refuses rules for control groups where packets come in, so answers of sessions outwards have
    chains of their own.
    """
    yield interface.name, interface, memo
    if direction is Direction.EGRESS and has_units(interface):
        seen = replace(interface.egress, rules=tuple(_as_answers_meet(interface.egress.rules)))
        yield names.answers_of(interface.name), replace(interface, egress=seen), Memo()


def _as_answers_meet(rules: Iterable[ResolvedRule]) -> Iterator[ResolvedRule]:
    """Yield rules as answers of sessions outwards meet them, which show no user and no unit (§6.3)."""
    for rule in rules:
        if rule.conditions.local is None or rule.policy is Policy.ACCEPT:
            yield replace(rule, conditions=replace(rule.conditions, local=None))


def _by_name(objects: list[Named]) -> tuple[Named, ...]:
    """Return the objects of one kind in canonical order; no two have one name."""
    by_name = {one.name: one for one in objects}
    if len(by_name) < len(objects):
        raise AssertionError("two objects of one name")
    return tuple(by_name[name] for name in sorted(by_name))


def _reached(leaves: Iterable[CounterChain], verdict_maps: Iterable[nft.VerdictMap]) -> Iterator[nft.Chain]:
    """Yield the chains of leaves, but of those in place only where a map leads there."""
    of_ports = (one for one in verdict_maps if not one.name.startswith(names.OF_CLASSES))
    targets = {target(element.verdict) for one in of_ports for element in one.elements}
    for leaf in leaves:
        if not leaf.is_in_place or leaf.counter.name in targets:
            yield from leaf.chains


@dataclass(frozen=True, slots=True)
class CounterChain:
    """A chain that counts, or several, the counter of its name, and that counter's key."""

    chains: tuple[nft.Chain, ...]
    counter: nft.Counter
    key: CounterKey
    is_in_place: bool = False
    """Whether only maps lead there, as rules count and accept themselves."""

    meter_sets: tuple[nft.MeterSet, ...] = ()


def counter_chains(
    interface: ResolvedInterface,
    direction: Direction,
    flow_logging: FlowLogging,
    memo: Memo,
    opened: tuple[nft.Match, ...],
) -> tuple[CounterChain, ...]:
    """Return the counter chains of one direction.

    Args:
        interface: what is enforced on it.
        direction: in which sessions are opened.
        flow_logging: which verdicts the kernel logs.
        memo: of the rules' counter chains.
        opened: what sessions meet that an earlier packet opened here.
    """
    name, mode = interface.name, interface.mode
    memo = memo.part(Seam.COUNTER_CHAINS, name, direction, mode, flow_logging, opened)
    leaf = partial(_leaf, accept=names.accept_chain(direction, name), mode=mode, flow_logging=flow_logging)

    def of_rule(rule: ResolvedRule) -> tuple[CounterChain, ...]:
        made = leaf(counter_of_rule(name, direction, rule))
        made = replace(made, is_in_place=is_in_place(rule, flow_logging))
        over: tuple[CounterChain, ...] = ()
        if rule.conditions.limit is not None:
            made = _behind_limit(made, rule, rule.conditions.limit, name, opened)
            over = (leaf(over_limit_of(name, direction, rule)),)
        if rule.conditions.group is not None:
            made = replace(made, chains=(*made.chains, _unit_chain(rule, rule.conditions.group, name)))
        return made, *over

    of_rules = memo.each("rules", of_rule, interface.toward(direction).rules)
    return (*chain.from_iterable(of_rules), *map(leaf, _other_keys(interface, direction)))


def _unit_chain(rule: ResolvedRule, group: ControlGroup, interface: str) -> nft.Chain:
    """Return the chain that leads packets of a unit's sockets to a rule's leaf, and others back (§13.3)."""
    asked = nft.Match(nft.SOCKET_GROUP, (GroupPath(group.path),))
    onward = nft.Goto(names.rule_chain(interface, rule.rule_id))
    name = names.unit_chain(interface, rule.rule_id, group)
    return nft.Chain(name=name, rules=(nft.Rule((asked, onward)),))


def _other_keys(interface: ResolvedInterface, direction: Direction) -> Iterator[KernelCounterKey]:
    """Yield the keys of counters beside those of rules."""
    name, toward = interface.name, interface.toward(direction)
    for kind, exemptions in (
        (ExemptionKind.PLATFORM, toward.platform),
        (ExemptionKind.FAILSAFE, toward.failsafe),
    ):
        if exemptions:
            yield ExemptionCounter(interface=name, direction=direction, kind=kind)
    if direction is Direction.INGRESS:
        yield InnerCounter(interface=name)
    yield DefaultCounter(interface=name, direction=direction, verdict=toward.default)
    yield InvalidCounter(interface=name, direction=direction)
    if interface.own_addresses is not None:
        yield SpoofedCounter(interface=name, direction=direction)


def _leaf(key: KernelCounterKey, *, accept: str, mode: Mode, flow_logging: FlowLogging) -> CounterChain:
    """Return the chain that counts, and then carries the verdict out; in observe mode none drops (§9.1).

    The rule that logs stands before it and decides nothing itself: where the limit is reached, the kernel
    goes on with the next rule.
    """
    name, policy = names.counter_name(key), Policy.DROP if is_of_drops(key) else Policy.ACCEPT
    verdict: nft.Verdict = nft.Goto(accept)
    if policy is Policy.DROP and mode is Mode.ENFORCE:
        verdict = nft.Drop()
    elif isinstance(key, InvalidCounter):
        verdict = nft.Accept()  # there is no session to remember
    rules = [nft.Rule((nft.Count(name), verdict))]
    if policy in flow_logging.verdicts:
        limit = nft.Limit(per_second=flow_logging.rate_per_second, burst=flow_logging.rate_per_second)
        log = nft.Log(prefix=names.log_prefix(name), group=flow_logging.group)
        rules.insert(0, nft.Rule((limit, log)))
    return CounterChain((nft.Chain(name=name, rules=tuple(rules)),), nft.Counter(name=name), key)


def _opened_here(
    interface: str, direction: Direction, layout: MarkLayout, state: EnforcementState
) -> tuple[nft.Match, ...]:
    """Return the matches on sessions that an earlier packet opened, over no other link as far as is known."""
    test = elsewhere_marks(interface, direction, layout, state)
    if test is None:
        return (_IS_CONFIRMED,)
    return _IS_CONFIRMED, nft.Match(nft.CT_MARK, (nft.Interval.single(0),), mask=test.bits)


_IS_CONFIRMED = nft.Match(nft.CT_STATUS, (nft.Interval.single(nft.CONFIRMED),), mask=nft.CONFIRMED)
_REOPENING_NOTHING = (
    nft.Match(nft.CT_STATE, (nft.Symbol("established"),), nft.Operator.NOT_EQUAL),
    nft.Match(nft.META_L4PROTO, (nft.Interval.single(TCP.wire_number),), nft.Operator.NOT_EQUAL),
    OPENS_NO_TCP,
)
"""The matches on packets of an entry that open no session of TCP in the place of one that was reset."""

_IS_REPLY = nft.Match(nft.CT_DIRECTION, (nft.Symbol("reply"),))
_SOURCES = {Family.IPV4: nft.IP_SADDR, Family.IPV6: nft.IP6_SADDR}


def _behind_limit(
    leaf: CounterChain,
    rule: ResolvedRule,
    limit: SourceLimit,
    interface: str,
    opened: tuple[nft.Match, ...],
) -> CounterChain:
    """Return the counter chain of a rule behind its limit (§13.1), which only new sessions use up.

    Where all buckets are taken, the meter lets other sources pass: nobody's flood may shut out others.
    """
    within, over = (
        nft.Goto(named(interface, rule.rule_id)) for named in (names.within_chain, names.over_limit_chain)
    )
    sets = {
        family: nft.MeterSet(
            name=names.meter_set(interface, rule.rule_id, family, limit),
            key_type=nft.ADDRESS_TYPES[family],
            size=MOST_SOURCES,
            timeout=limit.refill,
        )
        for family in Family
        if rule.can_match(family)
    }
    meters = (
        nft.Meter(one.name, _SOURCES[family], limit.rate, limit.seconds, limit.burst)
        for family, one in sets.items()
    )
    going_on = ((*opened, match) for match in _REOPENING_NOTHING)
    rules = (
        *(nft.Rule((*matches, within)) for matches in ((_IS_REPLY,), *going_on)),
        *(nft.Rule((meter, over)) for meter in meters),
        nft.Rule((within,)),
    )
    (counting,) = leaf.chains
    entry = nft.Chain(name=counting.name, rules=rules)
    return replace(
        leaf, chains=(entry, replace(counting, name=within.chain)), meter_sets=tuple(sets.values())
    )


def without_logging(ruleset: nft.Ruleset) -> nft.Ruleset:
    """Return the table without the rules that log: how it judges."""
    chains = (
        replace(chain, rules=tuple(rule for rule in chain.rules if not _is_logging(rule)))
        for chain in ruleset.chains
    )
    return replace(ruleset, chains=tuple(chains))


def _is_logging(rule: nft.Rule) -> bool:
    """Return whether a rule logs and does nothing else."""
    return bool(rule.statements) and all(isinstance(one, (nft.Limit, nft.Log)) for one in rule.statements)
