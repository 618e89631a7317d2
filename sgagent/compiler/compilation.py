"""Compile a resolved policy into one nftables table, in which every packet costs a fixed number of lookups.

The table accepts a packet of a known session by one comparison of its mark. It looks up any other packet by
the class of its far end, then by protocol and port. The lookup ends in a counter chain, which counts the
packet for the entry that decided. ``docs/ruleset.md`` explains a compiled table line by line.

The stages, a module each, in the order in which a packet meets what they make: base chains; then either a
linear chain, where the decision list has few entries, or class chains and port chains; and here counter
chains, in which every evaluation ends: each has a counter and the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sgagent.compiler.base_chains import base_chains, check_sources, reached_judges
from sgagent.compiler.class_chains import look_up_chains
from sgagent.compiler.decision_list import list_entries
from sgagent.compiler.linear import MOST_LINES, is_short, list_chains
from sgagent.compiler.selectors import Place
from sgagent.core.memo import Memo, Seam
from sgagent.core.model import Direction, Family, Mode, Policy
from sgagent.core.policy import SILENT, FlowLogging, ResolvedInterface, ResolvedPolicy, ResolvedRule
from sgagent.nft import names, ruleset as nft
from sgagent.nft.marks import EnforcementState, MarkLayout, encode_state
from sgagent.nft.names import CounterKey, ExemptionKind, KernelCounterKey

Named = TypeVar("Named", nft.Chain, nft.VerdictMap, nft.Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A table and what its counters count."""

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
    memo = memo or Memo()
    table = _Table()
    table.add([nft.Chain(name=names.STATE_CHAIN, comment=encode_state(state, layout))])
    table.add(*base_chains(policy, layout, state))
    for interface in reached_judges(policy):
        for direction in Direction:
            for family in Family:
                place: Place = (direction, interface.name, family)
                entries = list_entries(interface, direction, family, memo)
                if is_short(entries, most_lines) and not _is_dynamic(interface, direction):
                    table.add(*list_chains(entries, place))
                else:
                    table.add(*look_up_chains(entries, place, renamed, memo))
                if interface.own_addresses is not None:
                    table.add(*check_sources(interface.own_addresses.ranges(family), place))
            table.add_counter_chains(counter_chains(interface, direction, flow_logging, memo))
    return table.compiled()


def _is_dynamic(interface: ResolvedInterface, direction: Direction) -> bool:
    """Return whether the DNS says what rules match: then its answers are to change elements, not rules."""
    return any(rule.peer.is_dynamic for rule in interface.toward(direction).rules)


@dataclass(slots=True)
class _Table:
    """Collect the objects of a table; no two of a kind have one name."""

    chains: dict[str, nft.Chain] = field(default_factory=dict)
    verdict_maps: dict[str, nft.VerdictMap] = field(default_factory=dict)
    counters: dict[str, nft.Counter] = field(default_factory=dict)
    keys: dict[str, CounterKey] = field(default_factory=dict)

    def add(self, chains: Iterable[nft.Chain], verdict_maps: Iterable[nft.VerdictMap] = ()) -> None:
        """Add chains and maps."""
        _add(self.chains, chains)
        _add(self.verdict_maps, verdict_maps)

    def add_counter_chains(self, counter_chains: Sequence[CounterChain]) -> None:
        """Add counter chains with their counters."""
        self.add(one.chain for one in counter_chains)
        _add(self.counters, (one.counter for one in counter_chains))
        self.keys |= {one.counter.name: one.key for one in counter_chains}

    def compiled(self) -> Compiled:
        """Return all objects in canonical order."""
        ruleset = nft.Ruleset(
            chains=_sorted(self.chains),
            verdict_maps=_sorted(self.verdict_maps),
            counters=_sorted(self.counters),
        )
        return Compiled(ruleset=ruleset, counters=self.keys)


def _add(known: dict[str, Named], more: Iterable[Named]) -> None:
    by_name = {one.name: one for one in more}
    if not known.keys().isdisjoint(by_name):
        raise AssertionError("two objects of one name")
    known.update(by_name)


def _sorted(by_name: Mapping[str, Named]) -> tuple[Named, ...]:
    return tuple(by_name[name] for name in sorted(by_name))


@dataclass(frozen=True, slots=True)
class CounterChain:
    """A chain, the counter of its name, and what that counts."""

    chain: nft.Chain
    counter: nft.Counter
    key: CounterKey


def counter_chains(
    interface: ResolvedInterface, direction: Direction, flow_logging: FlowLogging, memo: Memo
) -> tuple[CounterChain, ...]:
    """Return the counter chains of one direction.

    Args:
        interface: what is enforced on it.
        direction: in which sessions are opened.
        flow_logging: which verdicts the kernel logs.
        memo: of the rules' counter chains.
    """
    place = (interface.name, direction, interface.mode, flow_logging)
    memo = memo.part(Seam.COUNTER_CHAINS, *place)
    tree = _Tree(interface, direction, flow_logging)
    of_rules = memo.each("rules", tree.of_rule, interface.toward(direction).rules)
    return (*of_rules, *memo.same("others", tuple(tree.of_others())))


@dataclass(frozen=True, slots=True)
class _Tree:
    """What the counter chains of one direction have in common."""

    interface: ResolvedInterface
    direction: Direction
    flow_logging: FlowLogging

    def of_rule(self, rule: ResolvedRule) -> CounterChain:
        """Return the leaf of a rule."""
        key = names.RuleCounter(
            interface=self.interface.name,
            security_group_id=rule.security_group_id,
            rule_id=rule.rule_id,
            direction=self.direction,
            policy=rule.policy,
        )
        return self._leaf(key, self._verdict(rule.policy))

    def of_others(self) -> Iterator[CounterChain]:
        """Yield the leaves of all that is no rule."""
        name, direction = self.interface.name, self.direction
        toward = self.interface.toward(direction)
        for kind, exemptions in (
            (ExemptionKind.PLATFORM, toward.platform),
            (ExemptionKind.FAILSAFE, toward.failsafe),
        ):
            if exemptions:
                exempt = names.ExemptionCounter(interface=name, direction=direction, kind=kind)
                yield self._leaf(exempt, self._verdict(Policy.ACCEPT))
        if direction is Direction.INGRESS:
            yield self._leaf(names.InnerCounter(interface=name), self._verdict(Policy.ACCEPT))
        by_default = names.DefaultCounter(interface=name, direction=direction, verdict=toward.default)
        yield self._leaf(by_default, self._verdict(toward.default))
        invalid = names.InvalidCounter(interface=name, direction=direction)
        verdict = nft.Accept() if self._observes else nft.Drop()
        yield self._leaf(invalid, verdict)
        if self.interface.own_addresses is not None:
            spoofed = names.SpoofedCounter(interface=name, direction=direction)
            yield self._leaf(spoofed, self._verdict(Policy.DROP))

    def _leaf(self, key: KernelCounterKey, verdict: nft.Verdict) -> CounterChain:
        """Return a leaf that tells, counts and then does what the verdict says."""
        name = names.counter_name(key)
        verdict_logged = Policy.DROP if names.is_of_drops(key) else Policy.ACCEPT
        logging = _logging_rules(self.flow_logging, name, verdict_logged)
        chain = nft.Chain(name=name, rules=(*logging, nft.Rule((nft.Count(name), verdict))))
        return CounterChain(chain, nft.Counter(name=name), key)

    @property
    def _observes(self) -> bool:
        return self.interface.mode is Mode.OBSERVE

    def _verdict(self, policy: Policy) -> nft.Verdict:
        """Return the verdict for a policy: in observe mode drops become accepts (§9.1)."""
        if policy is Policy.DROP and not self._observes:
            return nft.Drop()
        return nft.Goto(names.accept_chain(self.direction, self.interface.name))


def _logging_rules(flow_logging: FlowLogging, leaf: str, verdict: Policy) -> tuple[nft.Rule, ...]:
    """Return the rules with which a leaf begins: one that logs, or none.

    They stand before what counts and decides, and decide nothing themselves: where the limit is reached, the
    kernel goes on with the next rule.
    """
    if verdict not in flow_logging.verdicts:
        return ()
    limit = nft.Limit(per_second=flow_logging.rate_per_second, burst=flow_logging.rate_per_second)
    return (nft.Rule((limit, nft.Log(prefix=names.log_prefix(leaf), group=flow_logging.group))),)


def without_logging(ruleset: nft.Ruleset) -> nft.Ruleset:
    """Return the table without the rules that log: how it judges."""
    return nft.Ruleset(
        chains=tuple(
            replace(chain, rules=tuple(rule for rule in chain.rules if not _is_logging(rule)))
            for chain in ruleset.chains
        ),
        verdict_maps=ruleset.verdict_maps,
        counters=ruleset.counters,
    )


def _is_logging(rule: nft.Rule) -> bool:
    """Return whether a rule logs and does nothing else."""
    return bool(rule.statements) and all(isinstance(one, (nft.Limit, nft.Log)) for one in rule.statements)
