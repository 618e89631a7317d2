"""Have foomuuri enforce a policy: an iplist for each group, and a line for each rule, in order.

A member comes by ``foomuuri iplist add``, a rule by ``foomuuri start``, which takes the lists as they were
kept. The usual ``foomuuri reload`` looks at each list anew after that. What foomuuri would log or compare
beyond the policy is turned off.
"""

from __future__ import annotations

from bench.peers.contender import EVERYONE, Contender, Newcomer, Took, members_of, ports_of, rules_of
from bench.peers.place import Place
from bench.policies import INTERFACE, BenchPolicy
from sgagent.core.policy import ResolvedRule

_FILE = "/etc/foomuuri/bench.conf"
_HEAD = f"""foomuuri {{
  counter yes
  rpfilter no
  log_input no
  log_output no
  log_forward no
}}
zone {{
  localhost
  public {INTERFACE}
}}
localhost-public {{
  accept
}}
"""


class Foomuuri(Contender):
    """foomuuri, by its command; nothing of it stays."""

    def __init__(self, place: Place) -> None:
        """Take the place."""
        super().__init__(place)
        self._added: list[ResolvedRule] = []
        self._policy: BenchPolicy | None = None

    def start(self, policy: BenchPolicy) -> Took:
        """Start as at a boot: the lists were kept by an earlier run, the kernel has nothing."""
        self._policy = policy
        self.reload(policy)
        self.place.run("foomuuri", "stop")
        return Took.of(self.place.run("foomuuri", "start"))

    def add_member(self, newcomer: Newcomer) -> Took:
        """Add an address to the list."""
        words = ("iplist", "add", newcomer.group.group_id, str(newcomer.address))
        return Took.of(self.place.run("foomuuri", *words))

    def add_rule(self, rule: ResolvedRule) -> Took:
        """Write one rule more, and start anew."""
        self._added.append(rule)
        if self._policy is None:
            raise RuntimeError("foomuuri was not started")
        self._write(self._policy)
        return Took.of(self.place.run("foomuuri", "start"))

    def reload(self, policy: BenchPolicy) -> Took:
        """Write the file and have it read again."""
        self._write(policy)
        return Took.of(self.place.run("foomuuri", "reload"))

    def _write(self, policy: BenchPolicy) -> None:
        self.place.write({_FILE: foomuuri_file(policy, self._added)})


def foomuuri_file(policy: BenchPolicy, added: list[ResolvedRule]) -> str:
    """Return the configuration.

    Args:
        policy: what it is to enforce.
        added: rules that come before those of the policy.
    """
    lists = (f"  @{group.group_id} {' '.join(members_of(group))}" for group in policy.groups)
    rules = (f"  {_rule(rule)}" for rule in (*added, *rules_of(policy.resolved)))
    inwards = ("public-localhost {", *rules, "  drop", "}")
    return _HEAD + "\n".join(("iplist {", *lists, "}", *inwards, ""))


def _rule(rule: ResolvedRule) -> str:
    port = f"{rule.protocols[0]} {ports_of(rule, '-')}"
    name = rule.peer.name
    if name == EVERYONE:
        return f"{port} ipv4 {rule.policy.value}"
    source = name if "/" in name else f"@{name}"
    return f"{port} saddr {source} {rule.policy.value}"
