"""Have ``nft`` load the policy as a list of rules, as :mod:`bench.linear` writes it, the port first."""

from __future__ import annotations

from bench.linear import TABLE, Order, line_of, render_linear
from bench.peers.contender import Contender, Hook, Newcomer, Took
from bench.policies import INTERFACE, BenchPolicy
from sgagent.core.policy import ResolvedRule


class NftList(Contender):
    """A list of rules in nftables, by hand or by any tool that writes one."""

    hook = Hook.EDGE
    has_packages = False

    def start(self, policy: BenchPolicy) -> Took:
        """Load the list."""
        return self.reload(policy)

    def add_member(self, newcomer: Newcomer) -> Took:
        """Add an element to the set of the group."""
        return self._nft(f"add element inet {TABLE} {newcomer.group.group_id} {{ {newcomer.address} }}")

    def add_rule(self, rule: ResolvedRule) -> Took:
        """Insert a rule before all others, with the conditions that the chain tests before them."""
        new = f'iifname "{INTERFACE}" ct state new {line_of(rule, Order.PORT_FIRST)}'
        return self._nft(f"insert rule inet {TABLE} ingress {new}")

    def reload(self, policy: BenchPolicy) -> Took:
        """Replace the table by another."""
        return self._nft(render_linear(policy.resolved, Order.PORT_FIRST))

    def _nft(self, text: str) -> Took:
        return Took.of(self.place.run("nft", "-f", "-", stdin=text))
