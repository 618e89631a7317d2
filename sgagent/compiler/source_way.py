"""The way to the agent's source, kept open in a table that an earlier agent left (§7.4).

What that table enforces is unknown, so nothing but the heads of its base chains is changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import dropwhile

from sgagent.compiler.selectors import readings
from sgagent.core.endpoints import Endpoint, in_order
from sgagent.core.model import Direction
from sgagent.nft import ruleset as nft

_PACKETS = {"prerouting": "reply", "postrouting": "original"}
"""Which packets of a session that was opened outwards pass each base chain."""


def chains_of_others(table: nft.Ruleset, foreign: Iterable[str], mask: int) -> tuple[str, ...]:
    """Return the base chains with rules that only others make: to write ours would remove or repeat them.

    Args:
        table: what stands.
        foreign: what else stands in it.
        mask: our bits of the conntrack mark.
    """
    unreadable = {name for name in _PACKETS if f"rule {name}" in foreign}
    readable = {
        chain.name
        for chain in table.chains
        if chain.hook is not None and chain.name in _PACKETS
        if any(_is_of_others(one, mask) for rule in chain.rules for one in rule.statements)
    }
    return tuple(sorted(unreadable | readable))


def _is_of_others(statement: nft.Statement, mask: int) -> bool:
    """Return whether a statement changes bits that are not ours, or logs: ours do that in other chains."""
    match statement:
        case nft.SetMark(keep, put):
            return bool((~keep & nft.ALL_BITS | put) & ~mask)
        case nft.Log():
            return True
        case _:
            return False


def open_way(table: nft.Ruleset, endpoints: Iterable[Endpoint]) -> nft.Ruleset:
    """Return the table with the way open to these end points of a source, and to no others by such rules."""
    ordered = in_order(endpoints)
    heads = {name: tuple(_rule(one, packets) for one in ordered) for name, packets in _PACKETS.items()}
    return replace(table, chains=tuple(_with_head(chain, heads) for chain in table.chains))


def close_way(table: nft.Ruleset) -> nft.Ruleset:
    """Return the table without the rules of :func:`open_way`: as it judges everybody else."""
    return open_way(table, ())


def _with_head(chain: nft.Chain, heads: dict[str, tuple[nft.Rule, ...]]) -> nft.Chain:
    """Return a base chain with these rules at its head, and any other chain as it is."""
    if chain.hook is None or chain.name not in heads:
        return chain
    rules = (*heads[chain.name], *dropwhile(_is_way, chain.rules))
    return chain if rules == chain.rules else replace(chain, rules=rules)


def _rule(endpoint: Endpoint, packets: str) -> nft.Rule:
    """Return the rule that lets one direction of sessions pass that were opened to an end point."""
    tracked, _ = readings(Direction.EGRESS, endpoint.address.family)
    number = endpoint.protocol.wire_number
    address = nft.Interval(endpoint.address.first, endpoint.address.last)
    return nft.Rule(
        (
            nft.Match(nft.CT_DIRECTION, (nft.Symbol(packets),)),
            *tracked.match_port(number, nft.Interval.single(endpoint.port)),
            nft.Match(tracked.peer, (address,)),
            nft.Accept(),
        )
    )


def _is_way(rule: nft.Rule) -> bool:
    """Return whether a rule is one of those made here; the compiler makes none that begin like them."""
    match rule.statements:
        case (nft.Match(selector=first), nft.Match(), nft.Match(), nft.Match(), nft.Accept()):
            return first == nft.CT_DIRECTION
        case _:
            return False
