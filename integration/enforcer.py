"""Enforce policies on a host of the bench one after the other, as the agent does: observe, decide, apply."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from integration.kernel_verdicts import LAYOUT
from integration.lab import Lab
from sgagent.compiler.enforce import Enforced, enforce
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.counter_keys import CounterKey
from sgagent.core.model import Mode, Policy
from sgagent.core.policy import SILENT, FlowLogging, ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.dataplane.dataplane import LibnftablesDataplane
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.nft.marks import MarkLayout, Sessions
from sgagent.nft.transactions import Plan
from sgagent.settings import Settings

_LOGGING = FlowLogging(verdicts=frozenset({Policy.DROP}))


@dataclass(slots=True)
class Enforcer:
    """The agent's hands on one host; to be used by the thread that made it."""

    lab: Lab
    dataplane: LibnftablesDataplane
    layout: MarkLayout = LAYOUT
    sessions: Sessions = Sessions.REJUDGE
    keys: Mapping[str, CounterKey] = field(default_factory=dict)
    """What the counters of the policy in force count, by their names."""

    is_logged: bool = False
    """Whether the kernel reports drops."""

    _enforced: Enforced | None = None

    def enforce(self, policy: ResolvedPolicy) -> float:
        """Bring the kernel to the policy; return when it was there, by ``time.perf_counter``."""
        with self.lab.host.entered():
            for _ in range(2):
                observed = self.dataplane.observe()
                step = enforce(
                    policy,
                    observed.ruleset,
                    observed.foreign,
                    self.layout,
                    enforced=self._enforced,
                    sessions=self.sessions,
                    flow_logging=_LOGGING if self.is_logged else SILENT,
                )
                if step.clearance:
                    self.dataplane.clear_marks(step.clearance.mask, step.clearance.tests)
                self.dataplane.apply(step.plan)
                self.dataplane.remove(step.plan)
                self._enforced = step.enforcing(policy)
                self.keys = step.compiled.counters
                if not step.is_interim:
                    break
        return time.perf_counter()

    def remaining(self, policy: ResolvedPolicy) -> Plan:
        """Return the changes that a second apply of the policy would still make."""
        with self.lab.host.entered():
            observed = self.dataplane.observe()
        step = enforce(policy, observed.ruleset, observed.foreign, self.layout, enforced=self._enforced)
        return step.plan

    def hits(self) -> dict[str, int]:
        """Return the packets of each named counter."""
        with self.lab.host.entered():
            return {name: value.packets for name, value in self.dataplane.read_counters().items()}


@contextlib.contextmanager
def enforcer(lab: Lab) -> Iterator[Enforcer]:
    """Take hold of the host's table, and give it up at the end."""
    with lab.host.entered():
        dataplane = LibnftablesDataplane(owned=True)
    try:
        yield Enforcer(lab, dataplane)
    finally:
        dataplane.close()


def policy_of(definitions: str, mode: Mode = Mode.ENFORCE, **groups: str) -> ResolvedPolicy:
    """Resolve definitions on some interfaces.

    Args:
        definitions: a native document, without its version.
        mode: whether to enforce or to observe.
        groups: for each interface its groups, separated by blanks.
    """
    text = f"version: 1\n{definitions}"
    snapshot, _ = parse_documents([DocumentFile("policy.yaml", text.encode())], Limits())
    bindings = [
        HandBinding(interface=name, security_group_ids=tuple(sorted(ids.split())), mode=mode)
        for name, ids in groups.items()
    ]
    bound = bind(snapshot, bindings, HostFacts(), automatically=False)
    resolution = resolve(snapshot, bound, Exemptions(platform=Settings().platform))
    if resolution.errors:
        raise AssertionError(f"a policy of a test has errors: {resolution.errors}")
    return resolution.policy


def one_group(*rules: str, kind: str = "basic") -> str:
    """Return the document of the group ``sg-1``.

    Args:
        rules: each like ``ingress accept 1 tcp 80 from 10.0.0.0/8``; egress rules say ``to``.
        kind: basic or advanced.
    """
    lines = ["security_groups:", "  - security_group_id: sg-1", f"    type: {kind}", "    rules:"]
    for number, rule in enumerate(rules):
        direction, policy, priority, protocol, ports, _, peer = rule.split()
        lines.append(
            f"      - {{rule_id: sgr-{number}, direction: {direction}, policy: {policy},"
            f" priority: {priority}, protocol: {protocol}, port_range: {ports},"
            f" authorization_object: '{peer}'}}"
        )
    return "\n".join(lines if rules else lines[:-1])
