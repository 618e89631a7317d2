"""Counter chains, in which every evaluation ends: each has a counter and the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sgagent.core.memo import Memo, Seam
from sgagent.core.model import Direction, Mode, Policy
from sgagent.core.policy import FlowLogging, ResolvedInterface, ResolvedRule
from sgagent.nft import names
from sgagent.nft.counter_keys import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    InnerCounter,
    InvalidCounter,
    KernelCounterKey,
    RuleCounter,
    SpoofedCounter,
    counter_name,
    is_of_drops,
)
from sgagent.nft.ruleset import Accept, Chain, Count, Counter, Drop, Goto, Limit, Log, Rule, Ruleset, Verdict


def without_logging(ruleset: Ruleset) -> Ruleset:
    """Return the table without the rules that log: how it judges."""
    return Ruleset(
        chains=tuple(
            replace(chain, rules=tuple(rule for rule in chain.rules if not _is_logging(rule)))
            for chain in ruleset.chains
        ),
        verdict_maps=ruleset.verdict_maps,
        counters=ruleset.counters,
    )


def _logging_rules(flow_logging: FlowLogging, leaf: str, verdict: Policy) -> tuple[Rule, ...]:
    """Return the rules with which a leaf begins: one that logs, or none.

    They stand before what counts and decides, and decide nothing themselves: where the limit is reached, the
    kernel goes on with the next rule.
    """
    if verdict not in flow_logging.verdicts:
        return ()
    limit = Limit(per_second=flow_logging.rate_per_second, burst=flow_logging.rate_per_second)
    return (Rule((limit, Log(prefix=names.log_prefix(leaf), group=flow_logging.group))),)


def _is_logging(rule: Rule) -> bool:
    """Return whether a rule logs and does nothing else."""
    return bool(rule.statements) and all(isinstance(one, (Limit, Log)) for one in rule.statements)


@dataclass(frozen=True, slots=True)
class CounterChain:
    """A chain, the counter of its name, and what that counts."""

    chain: Chain
    counter: Counter
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
        key = RuleCounter(
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
                exempt = ExemptionCounter(interface=name, direction=direction, kind=kind)
                yield self._leaf(exempt, self._verdict(Policy.ACCEPT))
        if direction is Direction.INGRESS:
            yield self._leaf(InnerCounter(interface=name), self._verdict(Policy.ACCEPT))
        by_default = DefaultCounter(interface=name, direction=direction, verdict=toward.default)
        yield self._leaf(by_default, self._verdict(toward.default))
        invalid = InvalidCounter(interface=name, direction=direction)
        verdict = Accept() if self._observes else Drop()
        yield self._leaf(invalid, verdict)
        if self.interface.own_addresses is not None:
            spoofed = SpoofedCounter(interface=name, direction=direction)
            yield self._leaf(spoofed, self._verdict(Policy.DROP))

    def _leaf(self, key: KernelCounterKey, verdict: Verdict) -> CounterChain:
        """Return a leaf that tells, counts and then does what the verdict says."""
        name = counter_name(key)
        verdict_logged = Policy.DROP if is_of_drops(key) else Policy.ACCEPT
        logging = _logging_rules(self.flow_logging, name, verdict_logged)
        chain = Chain(name=name, rules=(*logging, Rule((Count(name), verdict))))
        return CounterChain(chain, Counter(name=name), key)

    @property
    def _observes(self) -> bool:
        return self.interface.mode is Mode.OBSERVE

    def _verdict(self, policy: Policy) -> Verdict:
        """Return the verdict for a policy: in observe mode drops become accepts (§9.1)."""
        if policy is Policy.DROP and not self._observes:
            return Drop()
        return Goto(names.accept_chain(self.direction, self.interface.name))
