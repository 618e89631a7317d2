"""Rules that can be taken out of decision lists, one by one, all together, or any of them.

They are found in stages. Of a stage, any rules can go, whichever of them stay: every packet is decided alike
if only the accepts among them go, and if only the drops do, which are the worst cases. A later stage is found
among the rules that stay, so a rule of it goes only with those that it hides: the rules of earlier stages
that match a packet of its own, with the other policy. In the end no rule can go any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sgagent.analysis.lint.rule_reach import RuleKey, RuleReach
from sgagent.analysis.lint.rule_relations import may_meet
from sgagent.core.model import Policy
from sgagent.core.policy import ResolvedRule

Keys = frozenset[RuleKey]


@dataclass(frozen=True)
class Removals:
    """Rules without which all packets are decided alike."""

    stages: tuple[Keys, ...]
    rules: Mapping[RuleKey, ResolvedRule]
    """All that match any packet."""

    @cached_property
    def every(self) -> Keys:
        """Return the rules of all stages."""
        return frozenset().union(*self.stages)

    @cached_property
    def along(self) -> Mapping[RuleKey, tuple[RuleKey, ...]]:
        """Return each rule with all that go if it goes: itself first, the others sorted."""
        found: dict[RuleKey, Keys] = {}
        for number, stage in enumerate(self.stages):
            earlier = frozenset().union(*self.stages[:number])
            for key in stage:
                hidden = (other for other in earlier if self._hides(key, other))
                found[key] = frozenset({key}).union(*(found[other] for other in hidden))
        return {key: (key, *sorted(keys - {key})) for key, keys in found.items()}

    def _hides(self, key: RuleKey, other: RuleKey) -> bool:
        one, two = self.rules[key], self.rules[other]
        return one.policy is not two.policy and may_meet(one, two)


def find_removals(reaches: Sequence[RuleReach], staying: Container[RuleKey]) -> Removals:
    """Return the rules that can be taken out of decision lists that stand side by side.

    Args:
        reaches: the lists; a rule may stand in several, and goes from all.
        staying: rules that must not go, and may not be relied upon to.
    """
    rules = {key: reach.rule(key) for reach in reaches for key in reach.rules}
    return Removals(tuple(_stages(reaches, rules, staying)), rules)


def _stages(
    reaches: Sequence[RuleReach], rules: Mapping[RuleKey, ResolvedRule], staying: Container[RuleKey]
) -> Iterator[Keys]:
    while gone := _free_to_go(reaches, rules, staying):
        yield gone
        reaches = [reach.without(gone) for reach in reaches]


def _free_to_go(
    reaches: Sequence[RuleReach], rules: Mapping[RuleKey, ResolvedRule], staying: Container[RuleKey]
) -> Keys:
    """Return rules of which any can go, whichever of them stay; none only if no rule can go at all."""
    matching: Keys = frozenset().union(*(reach.rules for reach in reaches))
    needed: Keys = frozenset().union(*(reach.needed for reach in reaches))
    alone = frozenset(key for key in matching - needed if key not in staying)
    gone = alone
    while relied_on := _relied_on(reaches, gone, lambda key: rules[key].policy):
        gone -= relied_on
    return gone or alone & {min(alone, default=("", ""))}


def _relied_on(
    reaches: Sequence[RuleReach], gone: Collection[RuleKey], policy_of: Callable[[RuleKey], Policy]
) -> Keys:
    """Return the rules whose packets are decided otherwise if all of one policy go and the others stay."""
    by_policy = [frozenset(key for key in gone if policy_of(key) is policy) for policy in Policy]
    return frozenset().union(*(reach.relied_on(part) for reach in reaches for part in by_policy if part))
