"""Search for a packet for which a planted fault changes something: the arbiter that proves nothing.

Concrete packets walk through both tables, and verdict, counters and mark are compared. Most packets are aimed
at where the tables differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sgagent.nft import ruleset as nft
from sgagent.nft.ruleset import Chain, Rule, Ruleset
from tests.aimed_packets import Edges, Search, Target
from tests.draws import Draws
from tests.encounters import Encounter, outcome
from tests.planted_faults import PlantedFault


def differ(table: Ruleset, fault: PlantedFault, encounter: Encounter) -> bool:
    """Return whether a fault changes what becomes of a packet, be limits used up or not."""
    return any(
        outcome(table, encounter, is_limited=limited)
        != outcome(fault.table, encounter, foreign=fault.foreign, is_limited=limited)
        for limited in ((False, True) if _has_limits(fault.table) else (False,))
    )


def _has_limits(table: Ruleset) -> bool:
    return any(
        isinstance(statement, nft.Limit | nft.Meter)
        for chain in table.chains
        for rule in chain.rules
        for statement in rule.statements
    )


def targets(table: Ruleset, other: Ruleset) -> list[Target]:
    """Return what a table has that the other has not, or has elsewhere."""
    found: list[Target] = []
    for chain in table.chains:
        counterpart = other.chain_by_name.get(chain.name)
        if counterpart is None or counterpart.hook != chain.hook:
            found.append(Target(chain=chain.name))
        elif counterpart.rules != chain.rules:
            found += _rules_that_differ(chain, counterpart.rules)
    for verdict_map in table.verdict_maps:
        there = other.verdict_map_by_name.get(verdict_map.name)
        if there is not None and there != verdict_map:
            known = set(there.elements)
            found += [
                Target(verdict_map=verdict_map.name, element=element)
                for element in verdict_map.elements
                if element not in known
            ]
    return found


def _rules_that_differ(chain: Chain, others: Sequence[Rule]) -> Iterator[Target]:
    """Yield the rules between those that both have at the beginning and at the end."""
    rules = chain.rules
    first = next((i for i, pair in enumerate(zip(rules, others, strict=False)) if pair[0] != pair[1]), None)
    first = min(len(rules), len(others)) if first is None else first
    behind = 0
    most = min(len(rules), len(others)) - first
    while behind < most and rules[-1 - behind] == others[-1 - behind]:
        behind += 1
    numbers = range(first, max(len(rules) - behind, first + 1))
    yield from (Target(chain=chain.name, rule=number) for number in numbers)


def find_difference(table: Ruleset, fault: PlantedFault, draws: Draws, most: int = 400) -> Encounter | None:
    """Return a packet for which a fault changes something; None if none was found in so many tries."""
    one, other = table, fault.table
    edges = Edges(one, other)
    aims = [(Search(one, edges), targets(one, other)), (Search(other, edges), targets(other, one))]
    for number in range(most):
        search, found = aims[number % 2]
        encounter = search.aimed(draws, draws.choice(found)) if found else search.anything(draws)
        if number % 4 == 3:
            encounter = search.anything(draws)
        if differ(table, fault, encounter):
            return encounter
    return None
