"""Have iptables and ipset enforce a policy: a set for each group, and a rule for each rule, in order.

``iptables-nft-restore`` replaces the whole table at once, ``ipset restore`` fills the sets before it. The
port is asked before the set, which is the cheaper order.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.peers.contender import (
    EVERYONE,
    Contender,
    Newcomer,
    Took,
    is_group,
    members_of,
    ports_of,
    rules_of,
)
from bench.policies import INTERFACE, BenchPolicy
from sgagent.core.policy import ResolvedRule

_FIRST_RULE = "3"
"""Behind what knows sessions and what is not ours to judge."""


class Iptables(Contender):
    """iptables in its nftables variant, with ipset."""

    def start(self, policy: BenchPolicy) -> Took:
        """Fill the sets, then load the rules."""
        return self.reload(policy)

    def add_member(self, newcomer: Newcomer) -> Took:
        """Add an entry to the set."""
        return Took.of(self.place.run("ipset", "add", newcomer.group.group_id, str(newcomer.address)))

    def add_rule(self, rule: ResolvedRule) -> Took:
        """Insert a rule before the others."""
        words = ("-I", "INPUT", _FIRST_RULE, *iptables_rule(rule).split())
        return Took.of(self.place.run("iptables-nft", *words))

    def reload(self, policy: BenchPolicy) -> Took:
        """Load all sets and all rules; entries that are there already are let be."""
        sets = self.place.run("ipset", "-exist", "restore", stdin=ipset_text(policy))
        return Took.of(sets, self.place.run("iptables-nft-restore", stdin=iptables_text(policy)))


def ipset_text(policy: BenchPolicy) -> str:
    """Return the groups, for ``ipset restore``."""
    return "\n".join((*_sets(policy), ""))


def _sets(policy: BenchPolicy) -> Iterator[str]:
    for group in policy.groups:
        yield f"create {group.group_id} hash:ip family inet"
        for address in members_of(group):
            yield f"add {group.group_id} {address}"


def iptables_text(policy: BenchPolicy) -> str:
    """Return the rules, for ``iptables-nft-restore``."""
    lines = (
        "*filter",
        ":INPUT DROP [0:0]",
        ":FORWARD ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        f"-A INPUT ! -i {INTERFACE} -j ACCEPT",
        "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        *(f"-A INPUT {iptables_rule(rule)}" for rule in rules_of(policy.resolved)),
        "COMMIT\n",
    )
    return "\n".join(lines)


def iptables_rule(rule: ResolvedRule) -> str:
    """Return a rule in iptables' words, without the chain."""
    port = f"-p {rule.protocols[0]} -m {rule.protocols[0]} --dport {ports_of(rule, ':')}"
    return f"{port} {_source(rule)}-j {rule.policy.value.upper()}"


def _source(rule: ResolvedRule) -> str:
    if rule.peer.name == EVERYONE:
        return ""
    return f"-m set --match-set {rule.peer.name} src " if is_group(rule.peer) else f"-s {rule.peer.name} "
