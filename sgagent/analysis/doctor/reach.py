"""Which rules of other tables packets of bound links can reach, and under which conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sgagent.analysis.doctor.conditions import ANY_PACKET, OTHERWISE, PacketConditions
from sgagent.analysis.doctor.effects import RuleEffect, effect_of
from sgagent.analysis.doctor.facts import HostEvidence
from sgagent.nft.kernel_table import FAULTS, KernelChain, KernelHook, KernelRule, KernelTable, ProgramReader

_FAMILIES = frozenset({"ip", "ip6", "inet", "netdev", "arp", "bridge"})
_OUTWARD = frozenset({"bond", "team", "vlan"})
"""Kinds of link without hardware of their own that lead out of the host."""

_MOST_VISITS = 50_000
"""Chains under different conditions, at one base chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseChain:
    """A base chain of another table."""

    table: KernelTable
    name: str
    hook: KernelHook
    links: tuple[str, ...] = ()
    """The bound links whose packets pass it."""

    @property
    def is_of_frames(self) -> bool:
        """Return whether frames of bridges pass it, with the names of ports."""
        return self.table.family == "bridge"

    @property
    def is_before_groups(self) -> bool:
        """Return whether packets pass it before the groups; at the same priority they may pass it behind."""
        if self.is_of_frames:
            return self.hook.name in {"prerouting", "input"}
        match self.hook.name:
            case "prerouting":
                return self.hook.priority < _PREROUTING
            case "postrouting":
                return self.hook.priority < _POSTROUTING
            case _:
                return self.hook.name in {"ingress", "output"}

    @property
    def is_at_link(self) -> bool:
        """Return whether it stands at single links, before or behind the hooks of IP."""
        return self.hook.name in {"ingress", "egress"}

    def is_of(self, link: str) -> bool:
        """Return whether packets of a link pass it."""
        is_of_links = self.table.family == "netdev" or bool(self.hook.devices)
        return not is_of_links or is_among(link, self.hook.devices)


_PREROUTING, _POSTROUTING = -150, 300
"""Priorities of our chains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedRule:
    """A rule that packets of bound links reach, by one way."""

    rule: KernelRule
    chain: str
    effect: RuleEffect
    conditions: PacketConditions
    """Of the rule, and of the jumps that lead to it."""

    base: BaseChain
    links: tuple[str, ...]
    """The bound links whose packets meet it."""

    @property
    def link(self) -> str | None:
        """Return the link, where it is one."""
        return self.links[0] if len(self.links) == 1 else None


@dataclass(slots=True)
class ReachedRules:
    """The rules of other tables, walked once."""

    evidence: HostEvidence
    _indexes: dict[str, int] = field(init=False)
    """Of links, by name."""

    def __post_init__(self) -> None:
        """Number the links once: many rules ask."""
        self._indexes = {link.name: link.index for link in self.evidence.host.links}

    def base_chains(self) -> Iterator[BaseChain]:
        """Yield the base chains that packets of bound links pass."""
        for table in self.evidence.other_tables:
            for chain in table.chains if table.family in _FAMILIES else ():
                if chain.hook is not None:
                    base = BaseChain(table=table, name=chain.name, hook=chain.hook)
                    if links := self._links_at(base):
                        yield replace(base, links=links)

    def rules(self) -> Iterator[ReachedRule]:
        """Yield the rules that they reach, in every way."""
        programs: dict[KernelTable, _Programs] = {}
        for base in self.base_chains():
            of_table = programs.setdefault(base.table, _Programs(base.table))
            yield from self._of_base(base, of_table)

    def _links_at(self, base: BaseChain) -> tuple[str, ...]:
        bound = tuple(name for name in sorted(self.evidence.bound_names) if base.is_of(name))
        if not base.is_of_frames:
            return bound
        is_forward = base.hook.name == "forward"  # what ports say to each other is not judged (§9.4)
        return () if is_forward else tuple(filter(self._uplinks, bound))

    def _uplinks(self, bridge: str) -> tuple[str, ...]:
        """Return the ports of a bridge that lead out of the host; all where none seems to, none without."""
        ports = [
            one for one in self.evidence.host.links if (one.master, one.master_kind) == (bridge, "bridge")
        ]
        outward = [one for one in ports if one.has_hardware or one.kind in _OUTWARD]
        return tuple(one.name for one in outward or ports)

    def _of_base(self, base: BaseChain, programs: _Programs) -> Iterator[ReachedRule]:
        """Yield the rules that are reached from a base chain."""
        waiting, seen = [(base.name, ANY_PACKET)], {(base.name, ANY_PACKET)}
        while waiting and len(seen) < _MOST_VISITS:
            chain, conditions = waiting.pop()
            for rule, effect in programs.effects(chain):
                both = conditions.and_(effect.conditions)
                links = self._touched(base, both)
                if not links:
                    continue
                yield ReachedRule(
                    rule=rule, chain=chain, effect=effect, conditions=both, base=base, links=links
                )
                for target in programs.targets(effect):
                    way = (target, both.and_(OTHERWISE) if effect.leads_on else both)
                    if way not in seen:
                        seen.add(way)
                        waiting.append(way)

    def _touched(self, base: BaseChain, conditions: PacketConditions) -> tuple[str, ...]:
        """Return the bound links whose packets, or sessions, meet the conditions at a hook.

        Where the host forwards, what is done to packets of one link concerns sessions of another.
        """
        here = base.links
        if not conditions.links and base.hook.name != "forward":
            return here
        if base.is_of_frames:
            is_input = base.is_before_groups
            return tuple(
                name for name in here if self._admitted(self._uplinks(name), conditions, is_input=is_input)
            )
        inputs = self._admitted(here, conditions, is_input=True)
        outputs = self._admitted(here, conditions, is_input=False)
        match base.hook.name:
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

    def _behind(self, here: tuple[str, ...], conditions: PacketConditions) -> tuple[str, ...]:
        """Return the bound links to which packets of others that meet the conditions may be forwarded."""
        if not self.evidence.settings.forwarding:
            return ()
        others = (link.name for link in self.evidence.host.links if not link.is_loopback)
        return here if self._admitted(tuple(others), conditions, is_input=True) else ()

    def _admitted(
        self, names: tuple[str, ...], conditions: PacketConditions, *, is_input: bool
    ) -> tuple[str, ...]:
        tests = [test for test in conditions.links if test.is_input is is_input]
        return tuple(
            name for name in names if all(test.admits(name, self._indexes.get(name, 0)) for test in tests)
        )


@dataclass(slots=True)
class _Programs:
    """The effects of a table's rules."""

    table: KernelTable
    _reader: ProgramReader = field(init=False)
    _chains: dict[str, KernelChain] = field(init=False)
    _effects: dict[int, RuleEffect] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the chains."""
        self._reader = ProgramReader(self.table)
        self._chains = {chain.name: chain for chain in self.table.chains}

    def effects(self, chain: str) -> Iterator[tuple[KernelRule, RuleEffect]]:
        """Yield the rules of a chain, each with its effect, and with that of each branch of it."""
        for rule in self._chains[chain].rules if chain in self._chains else ():
            for effect in self._effect(rule).spread():
                yield rule, effect

    def _effect(self, rule: KernelRule) -> RuleEffect:
        """Return the effect of a rule; nothing where its program is cut off."""
        found = self._effects.get(id(rule))
        if found is None:
            try:
                found = effect_of(self._reader.expressions(rule), self.table.sets)
            except FAULTS:
                found = RuleEffect()
            self._effects[id(rule)] = found
        return found

    def targets(self, effect: RuleEffect) -> Iterator[str]:
        """Yield the chains to which a rule may lead; a map of verdicts may lead to all of its table."""
        if effect.jumps_to is not None:
            yield effect.jumps_to
        if effect.leads_on:
            yield from (chain.name for chain in self.table.chains if chain.hook is None)


def tracking_rules(table: KernelTable) -> Iterator[tuple[str, KernelRule]]:
    """Yield the rules for whose sake conntrack follows the packets of a table's family, with their chains."""
    programs = _Programs(table)
    for chain in table.chains:
        yield from ((chain.name, rule) for rule, effect in programs.effects(chain.name) if effect.tracks)


def is_among(name: str, devices: Sequence[str]) -> bool:
    """Return whether a link is one of those that devices of a hook name, or begin like."""
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in devices)
