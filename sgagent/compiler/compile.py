"""Compile a resolved policy into one nftables table, in which every packet costs a fixed number of lookups.

The table accepts a packet of a known session by one comparison of its mark. It looks up any other packet by
the class of its far end, then by protocol and port. The lookup ends in a counter chain, which counts the
packet for the entry that decided. ``docs/ruleset.md`` explains a compiled table line by line.

The stages, a module each: decision list, address classes, port tables, class chains, counter chains, ruleset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sgagent.compiler.address_classes import address_classes, address_maps
from sgagent.compiler.base_chains import base_chains, reached_judges
from sgagent.compiler.class_chains import (
    FamilyChains,
    check_sources,
    class_chains,
    list_chains,
    lookup_chains,
)
from sgagent.compiler.counter_chains import CounterChain, counter_chains
from sgagent.compiler.decision_list import Entry, Grouped, Place, list_entries
from sgagent.compiler.linear import MOST_LINES, is_short
from sgagent.core.memo import Memo
from sgagent.core.model import Direction, Family
from sgagent.core.policy import SILENT, FlowLogging, ResolvedInterface, ResolvedPolicy
from sgagent.nft import names
from sgagent.nft.counter_keys import CounterKey
from sgagent.nft.marks import EnforcementState, MarkLayout, encode_state
from sgagent.nft.ruleset import Chain, Counter, Ruleset, VerdictMap

Named = TypeVar("Named")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A table and what its counters count."""

    ruleset: Ruleset
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
    table.add_chains([Chain(name=names.STATE_CHAIN, comment=encode_state(state, layout))])
    chains, verdict_maps = base_chains(policy, layout, state)
    table.add_chains(chains)
    table.add_verdict_maps(verdict_maps)
    for interface in reached_judges(policy):
        for direction in Direction:
            for family in Family:
                place: Place = (direction, interface.name, family)
                entries = list_entries(interface, direction, family, memo)
                found = (
                    list_chains(entries, place)
                    if is_short(entries, most_lines) and not _is_dynamic(interface, direction)
                    else _tables(entries, place, renamed, memo)
                )
                table.add_chains(found.chains.values())
                table.add_verdict_maps(found.verdict_maps.values())
                if interface.own_addresses is not None:
                    checked = check_sources(interface.own_addresses.ranges(family), place)
                    table.add_chains(checked.chains.values())
                    table.add_verdict_maps(checked.verdict_maps.values())
            table.add_counter_chains(counter_chains(interface, direction, flow_logging, memo))
    return table.compiled()


def _is_dynamic(interface: ResolvedInterface, direction: Direction) -> bool:
    """Return whether the DNS says what rules match: then its answers are to change elements, not rules."""
    return any(rule.peer.is_dynamic for rule in interface.toward(direction).rules)


def _tables(entries: tuple[Entry, ...], place: Place, renamed: frozenset[str], memo: Memo) -> FamilyChains:
    """Return the chains and maps that look up the far end, then protocol and port."""
    by_peer = Grouped.of(entries)
    classes = address_classes(by_peer.addresses, place, memo)
    chains = class_chains(by_peer, classes, place, memo)
    first = names.peers_chain(*place)
    peers_map = names.second_map(first) if first in renamed else first
    return lookup_chains(chains, address_maps(classes, chains.gotos, place, peers_map, memo), place)


@dataclass(slots=True)
class _Table:
    """Collect the objects of a table; no two of a kind have one name."""

    chains: dict[str, Chain] = field(default_factory=dict)
    verdict_maps: dict[str, VerdictMap] = field(default_factory=dict)
    counters: dict[str, Counter] = field(default_factory=dict)
    keys: dict[str, CounterKey] = field(default_factory=dict)

    def add_chains(self, chains: Iterable[Chain]) -> None:
        """Add chains."""
        _add(self.chains, {chain.name: chain for chain in chains})

    def add_verdict_maps(self, verdict_maps: Iterable[VerdictMap]) -> None:
        """Add maps."""
        _add(self.verdict_maps, {verdict_map.name: verdict_map for verdict_map in verdict_maps})

    def add_counter_chains(self, counter_chains: Sequence[CounterChain]) -> None:
        """Add counter chains with their counters."""
        self.add_chains(one.chain for one in counter_chains)
        _add(self.counters, {one.counter.name: one.counter for one in counter_chains})
        self.keys |= {one.counter.name: one.key for one in counter_chains}

    def compiled(self) -> Compiled:
        """Return all objects in canonical order."""
        ruleset = Ruleset(
            chains=_sorted(self.chains),
            verdict_maps=_sorted(self.verdict_maps),
            counters=_sorted(self.counters),
        )
        return Compiled(ruleset=ruleset, counters=self.keys)


def _add(known: dict[str, Named], more: Mapping[str, Named]) -> None:
    total = len(known) + len(more)
    known.update(more)
    if len(known) < total:
        raise AssertionError("two objects of one name")


def _sorted(by_name: Mapping[str, Named]) -> tuple[Named, ...]:
    return tuple(map(by_name.__getitem__, sorted(by_name)))
