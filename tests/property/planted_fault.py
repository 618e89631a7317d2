"""A property that fails, since its policy forgets source ports; only test_failures.py runs it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given

from sgagent.core.evaluate import evaluate
from sgagent.core.model import ALL_PORTS
from sgagent.core.policy import ResolvedDirection, ResolvedPolicy
from tests.draws import Draws
from tests.generators import Case, described, random_packets
from tests.strategies import cases, draws


@given(cases(interfaces=("eth0",), most_rules=20), draws())
def test_source_ports_decide_nothing(case: Case, draws: Draws) -> None:
    """Fail where a source port decides."""
    forgetful = without_source_ports(case.policy)
    for judged in random_packets(draws, case.policy, 40):
        found = evaluate(forgetful, judged).verdict
        assert found is evaluate(case.policy, judged).verdict, described(judged)


def without_source_ports(policy: ResolvedPolicy) -> ResolvedPolicy:
    """Return the policy as if no rule had source ports."""

    def without(toward: ResolvedDirection) -> ResolvedDirection:
        return replace(toward, rules=tuple(replace(rule, source_ports=ALL_PORTS) for rule in toward.rules))

    interfaces = [
        replace(one, ingress=without(one.ingress), egress=without(one.egress)) for one in policy.interfaces
    ]
    return replace(policy, interfaces=tuple(interfaces))
