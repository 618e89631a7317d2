"""The comparison of filters of others with a policy: verdicts alone, on links that are bound.

A packet that comes in passes the base chains at prerouting and input, or at prerouting and forward if there
are such; one that goes out passes those at output or forward, and at postrouting. Together they have to do
what the policy says. They are taken to read packets as these are on the wire: NAT is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sgagent.core.policy import ResolvedPolicy
from sgagent.nft.ruleset import META_IIFNAME, META_OIFNAME, Selector
from sgagent.verify.compiled_table import CompiledTable
from sgagent.verify.expectation import NOTHING_REMEMBERED
from sgagent.verify.fate_comparison import VERDICTS
from sgagent.verify.proof import Outcome, Proof, prove
from sgagent.verify.table import BaseHook, VerifiedChain, VerifiedTable

_LOCAL = (("prerouting", ("prerouting", "input")), ("postrouting", ("output", "postrouting")))
_FORWARDED = (("prerouting", ("prerouting", "forward")), ("postrouting", ("forward", "postrouting")))
_ON_WIRE = {"prerouting": -199, "postrouting": 101}
"""A priority from which on base chains read packets as they are on the wire."""


def compare_filters(table: VerifiedTable, policy: ResolvedPolicy) -> Proof:
    """Compare all filters of a host with a policy.

    Args:
        table: as :func:`sgagent.verify.listing.read_filters` reads it.
        policy: what they are to enforce.
    """
    ways = [_LOCAL, *([_FORWARDED] if table.base_chains.get("forward") else [])]
    found = Proof(outcome=Outcome.PROVED, cells=0)
    for way in ways:
        for hook, passed in way:
            edge = _edge(table, hook, passed)
            proof = prove(edge, policy, memory=NOTHING_REMEMBERED, scope=replace(VERDICTS, hooks=(hook,)))
            found = replace(proof, cells=found.cells + proof.cells, remembered=None)
            if found.outcome is not Outcome.PROVED:
                return found
    return found


def _edge(table: VerifiedTable, hook: str, passed: Sequence[str]) -> VerifiedTable:
    """Return the table with all base chains that packets pass, one after the other, at one hook."""
    names = [chain.name for one in passed for chain in table.base_chains.get(one, ())]
    chains = {
        name: replace(chain, hook=_at(hook, names.index(name), chain) if name in names else None)
        for name, chain in table.chains.items()
    }
    edge = replace(table, chains=chains)
    unknown = META_OIFNAME if hook == "prerouting" else META_IIFNAME
    if "forward" in passed and _reads(edge, names, unknown):
        return replace(edge, unread=(*edge.unread, f"meta {unknown.key} of what is forwarded"))
    return edge


def _at(hook: str, place: int, chain: VerifiedChain) -> BaseHook:
    drops = chain.hook is not None and chain.hook.drops
    return BaseHook(name=hook, priority=_ON_WIRE[hook] + place, drops=drops)


def _reads(table: VerifiedTable, names: Sequence[str], selector: Selector) -> bool:
    """Return whether some chains, or what they lead to, read something."""
    compiled = CompiledTable(table)
    return any(selector in compiled.reads(name) for name in names)
