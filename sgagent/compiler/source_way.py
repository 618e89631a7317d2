"""Rules that keep the agent's source reachable in a table that an earlier agent left (§7.4).

What that table enforces is unknown, so the rest of it is not changed. A rule at the head of each base chain
accepts sessions that were opened outwards to the source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sgagent.compiler.selectors import readings
from sgagent.core.model import Direction
from sgagent.core.policy import Endpoint, in_order
from sgagent.nft.ruleset import (
    CT_DIRECTION,
    Accept,
    Chain,
    Interval,
    Match,
    Rule,
    Ruleset,
    Symbol,
)

_PACKETS = {"prerouting": "reply", "postrouting": "original"}
"""Which packets of a session that was opened outwards pass each base chain."""


def can_open(foreign: Iterable[str]) -> bool:
    """Return whether the base chains hold only our rules; a change of ours would remove others."""
    return not {f"rule {name}" for name in _PACKETS} & set(foreign)


def open_way(table: Ruleset, endpoints: Iterable[Endpoint]) -> Ruleset:
    """Return the table with the way open to these end points of a source, and to no others by such rules."""
    ordered = in_order(endpoints)
    return _with_heads(
        table, {name: tuple(_rule(one, packets) for one in ordered) for name, packets in _PACKETS.items()}
    )


def close_way(table: Ruleset) -> Ruleset:
    """Return the table without what :func:`open_way` put there: as it judges everybody else."""
    return open_way(table, ())


def _with_heads(table: Ruleset, heads: dict[str, tuple[Rule, ...]]) -> Ruleset:
    return replace(table, chains=tuple(_with_head(chain, heads) for chain in table.chains))


def _with_head(chain: Chain, heads: dict[str, tuple[Rule, ...]]) -> Chain:
    """Return a base chain with these rules at its head, and any other chain as it is."""
    if chain.hook is None or chain.name not in heads:
        return chain
    known = [place for place, rule in enumerate(chain.rules) if not _is_way(rule)]
    others = chain.rules[known[0] :] if known else ()
    rules = (*heads[chain.name], *others)
    return chain if rules == chain.rules else replace(chain, rules=rules)


def _rule(endpoint: Endpoint, packets: str) -> Rule:
    """Return the rule that lets one direction of sessions pass that were opened to an end point."""
    tracked, _ = readings(Direction.EGRESS, endpoint.address.family)
    number = endpoint.protocol.wire_number
    address = Interval(endpoint.address.first, endpoint.address.last)
    return Rule(
        (
            Match(CT_DIRECTION, (Symbol(packets),)),
            *tracked.match_port(number, Interval.single(endpoint.port)),
            Match(tracked.peer, (address,)),
            Accept(),
        )
    )


def _is_way(rule: Rule) -> bool:
    """Return whether a rule is one of those made here; the compiler makes none that begin like them."""
    match rule.statements:
        case (Match(selector=first), Match(), Match(), Match(), Accept()):
            return first == CT_DIRECTION
        case _:
            return False
