"""Have the kernel tell of judgements: who was dropped, and on request who was accepted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sgagent.core.kernel import names
from sgagent.core.kernel.ruleset import Limit, Log, Rule, Ruleset
from sgagent.core.model import Policy

RATE_PER_SECOND = 10
LOG_GROUP = 9469


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLogging:
    """Of which judgements the kernel tells, and how often at most."""

    verdicts: frozenset[Policy] = frozenset()
    """In observe mode a drop is told of as one (\u00a79.1)."""

    rate_per_second: int = RATE_PER_SECOND
    """Packets of each leaf. In a moment after a rest it may be twice as many."""

    group: int = LOG_GROUP
    """Of nfnetlink's log."""

    def rules(self, leaf: str, verdict: Policy) -> tuple[Rule, ...]:
        """Return the rules with which a leaf begins: one that logs, or none.

        They stand before what counts and decides, and decide nothing themselves: where the limit is reached,
        the kernel goes on with the next rule.
        """
        if verdict not in self.verdicts:
            return ()
        limit = Limit(per_second=self.rate_per_second, burst=self.rate_per_second)
        return (Rule((limit, Log(prefix=names.log_prefix(leaf), group=self.group))),)


SILENT = FlowLogging()


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


def _is_logging(rule: Rule) -> bool:
    """Tell whether a rule logs and does nothing else."""
    return bool(rule.statements) and all(isinstance(one, (Limit, Log)) for one in rule.statements)
