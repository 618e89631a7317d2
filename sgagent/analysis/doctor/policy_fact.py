"""The part of a policy that matters to the doctor; the agent keeps it from step to step."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.core.binding import HostFacts
from sgagent.core.policy import InvalidPackets, ResolvedPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundLink:
    """A link that the policy judges; it need not exist."""

    name: str
    evaluates_invalid: bool = False
    """Whether packets that conntrack calls invalid are judged by their header there (§6.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFact:
    """The part of the policy that matters here."""

    bound: tuple[BoundLink, ...] = ()
    mark_mask: int = 0xFFFF0000
    depends_on_time: bool = False
    """Whether a rule ends."""

    is_open_to_unbound: bool = True
    """False where links that are bound to nothing are closed (§9.3)."""


def policy_fact(policy: ResolvedPolicy, facts: HostFacts, mark_mask: int) -> PolicyFact:
    """Return the part of a policy that matters to the doctor.

    Args:
        policy: that of the host.
        facts: its links, of which patterns may mean some.
        mark_mask: our bits of the session mark.
    """
    judges = {judge.name: judge for judge in policy.interfaces}
    of_patterns = {judge.name for judge in policy.bound} - judges.keys()
    for link in facts.links:
        judge = policy.judge(link.name)
        if judge is not None and (judge.name in of_patterns or judge.pattern is not None):
            judges.setdefault(link.name, judge)
    return PolicyFact(
        bound=tuple(
            BoundLink(name=name, evaluates_invalid=judges[name].invalid is InvalidPackets.EVALUATE)
            for name in sorted(judges)
        ),
        mark_mask=mark_mask,
        depends_on_time=bool(policy.expiring or policy.recurring),
        is_open_to_unbound=policy.unbound is None,
    )
