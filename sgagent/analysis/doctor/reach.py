"""Which rules of other tables packets of bound links can reach, and under which conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sgagent.analysis.doctor.facts import HostEvidence
from sgagent.analysis.doctor.registers import (
    NO_CONDITIONS,
    Conditions,
    Effect,
    Narrowing,
    effect_of,
    link_value,
)
from sgagent.analysis.doctor.ruleset import ForeignChain, ForeignRule, TableKey

_FAMILIES = frozenset({"ip", "ip6", "inet", "netdev"})
_MOST_VISITS = 50_000
"""Chains under different conditions, at one base chain."""

_BY_MAP = Conditions(narrowings=frozenset({Narrowing.OTHER}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedRule:
    """A rule that packets of bound links reach, by one way."""

    rule: ForeignRule
    effect: Effect
    conditions: Conditions
    """Of the rule, and of the jumps that lead to it."""

    base: ForeignChain
    links: tuple[str, ...]
    """The bound links whose packets meet it."""

    @property
    def link(self) -> str | None:
        """Return the link, where it is one."""
        return self.links[0] if len(self.links) == 1 else None

    @property
    def place(self) -> str:
        """Return how to find the rule."""
        return f"rule handle {self.rule.handle}"


@dataclass(slots=True)
class ReachedRules:
    """The rules of other tables, walked once."""

    evidence: HostEvidence
    _effects: dict[int, Effect] = field(default_factory=dict)
    _by_chain: dict[tuple[TableKey, str], list[ForeignRule]] = field(default_factory=dict)
    _sets: dict[TableKey, dict[str, frozenset[str | int]]] = field(default_factory=dict)
    _plain: dict[TableKey, list[str]] = field(default_factory=dict)
    """Chains that are not at a hook."""

    def __post_init__(self) -> None:
        """Sort rules and sets by their chains and tables."""
        for rule in self.evidence.ruleset.rules:
            self._by_chain.setdefault((rule.table, rule.chain), []).append(rule)
        for one in self.evidence.ruleset.link_sets:
            of_table = self._sets.setdefault(one.table, {})
            of_table[one.name] = of_table.get(one.name, frozenset()) | set(map(link_value, one.elements))
        for chain in self.evidence.ruleset.chains:
            if chain.hook is None:
                self._plain.setdefault(chain.table, []).append(chain.name)

    def at(self, chain: ForeignChain) -> tuple[str, ...]:
        """Return the bound links whose packets pass a base chain."""
        if chain.table.family not in _FAMILIES or chain.hook is None:
            return ()
        return tuple(name for name in sorted(self.evidence.bound_names) if _is_device(chain, name))

    def base_chains(self) -> Iterator[ForeignChain]:
        """Yield the base chains that packets of bound links pass."""
        return (chain for chain in self.evidence.ruleset.chains if self.at(chain))

    def rules(self) -> Iterator[ReachedRule]:
        """Yield the rules that they reach, in every way."""
        for base in self.base_chains():
            yield from self.of_base(base)

    def of_base(self, base: ForeignChain) -> Iterator[ReachedRule]:
        """Yield the rules that are reached from a base chain."""
        here = self.at(base)
        waiting, seen = [(base.name, NO_CONDITIONS)], {(base.name, NO_CONDITIONS)}
        while waiting and len(seen) < _MOST_VISITS:
            chain, conditions = waiting.pop()
            for rule in self._by_chain.get((base.table, chain), ()):
                effect = self._effect(rule)
                both = conditions.and_(effect.conditions)
                links = self._touched(base, both, here)
                if not links:
                    continue
                yield ReachedRule(rule=rule, effect=effect, conditions=both, base=base, links=links)
                for target in self._targets(base, effect):
                    way = (target, both.and_(_BY_MAP) if effect.leads_on else both)
                    if way not in seen:
                        seen.add(way)
                        waiting.append(way)

    def _targets(self, base: ForeignChain, effect: Effect) -> Iterator[str]:
        """Yield the chains to which a rule may lead; a map of verdicts may lead to all of its table."""
        if effect.jumps_to is not None:
            yield effect.jumps_to
        if effect.leads_on:
            yield from self._plain.get(base.table, ())

    def _effect(self, rule: ForeignRule) -> Effect:
        found = self._effects.get(id(rule))
        if found is None:
            found = self._effects[id(rule)] = effect_of(rule.expressions, self._sets.get(rule.table, {}))
        return found

    def _touched(self, base: ForeignChain, conditions: Conditions, here: tuple[str, ...]) -> tuple[str, ...]:
        """Return the bound links whose packets, or sessions, meet the conditions at a hook.

        Where the host forwards, what is done to packets of one link concerns sessions of another.
        """
        if not conditions.links and base.hook != "forward":
            return here
        inputs = self._admitted(here, conditions, is_input=True)
        outputs = self._admitted(here, conditions, is_input=False)
        match base.hook:
            case "prerouting":
                return inputs or self._behind(here, conditions)
            case "forward":
                return tuple(sorted({*inputs, *outputs})) if self.evidence.settings.forwarding else ()
            case "output":
                return outputs
            case "postrouting":
                return outputs or (inputs if self.evidence.settings.forwarding else ())
            case _:  # input, and hooks of links
                return inputs

    def _behind(self, here: tuple[str, ...], conditions: Conditions) -> tuple[str, ...]:
        """Return the bound links to which packets of others that meet the conditions may be forwarded."""
        if not self.evidence.settings.forwarding:
            return ()
        others = (link.name for link in self.evidence.host.links if not link.is_loopback)
        return here if self._admitted(tuple(others), conditions, is_input=True) else ()

    def _admitted(self, names: tuple[str, ...], conditions: Conditions, *, is_input: bool) -> tuple[str, ...]:
        tests = [test for test in conditions.links if test.is_input is is_input]
        return tuple(
            name for name in names if all(test.admits(name, self.evidence.index_of(name)) for test in tests)
        )


def _is_device(chain: ForeignChain, name: str) -> bool:
    """Return whether a base chain has packets of a link."""
    if chain.table.family != "netdev" and not chain.devices:
        return True
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in chain.devices)
