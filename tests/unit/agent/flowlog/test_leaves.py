"""What the flow log says of a leaf, and when that has to be worked out anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.agent.flowlog.enrichment import have_same_leaves
from sgagent.core.conditions import Conditions, Local, LocalUser
from sgagent.core.model import TCP, Mode
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, closed_interface
from tests.words import ACCEPT, DROP, OUT, group, policy_of, rule


def policy(
    *, priority: int = 5, far_end: str = "203.0.113.0/24", local: Local | None = None
) -> ResolvedPolicy:
    """Return a policy of two rules."""
    web = rule("web", ACCEPT, TCP, "80", "0.0.0.0/0")
    no_ssh = rule("no-ssh", DROP, TCP, "22", far_end, priority=priority, direction=OUT)
    return policy_of(group("sg-1", web, replace(no_ssh, conditions=Conditions(local=local))))


def test_whom_a_rule_speaks_of_makes_no_difference() -> None:
    """A leaf names the rule, not the far end."""
    assert have_same_leaves(policy(), policy(far_end="198.51.100.0/24"))


@pytest.mark.parametrize(
    "change",
    (
        lambda _: policy(priority=7),
        lambda _: policy(local=LocalUser(name="1001", number=1001)),
        lambda _: policy_of(group("sg-1", rule("web", ACCEPT, TCP, "80", "0.0.0.0/0"))),
        lambda one: replace(one, interfaces=(replace(one.interfaces[0], mode=Mode.OBSERVE),)),
        lambda one: replace(one, interfaces=(replace(one.interfaces[0], network_interface_id="eni-2"),)),
        lambda one: replace(one, interfaces=(replace(one.interfaces[0], security_group_ids=("sg-2",)),)),
        lambda one: replace(one, interfaces=()),
        lambda one: replace(one, unbound=closed_interface("*", Exemptions(), Mode.ENFORCE)),
    ),
    ids=("priority", "user", "rules", "mode", "network interface", "groups", "interfaces", "others"),
)
def test_what_a_leaf_tells_makes_a_difference(change: object) -> None:
    """The priority of its rule, and all that it says of the interface."""
    assert callable(change)
    assert not have_same_leaves(policy(), change(policy()))
