"""The names in a plan are exact: what a name stands for in the candidate is what the flow holds."""

from __future__ import annotations

import re

from hypothesis import given

from sgagent.analysis.compare import compare
from sgagent.analysis.flow_text import FELLOW_MEMBERS, ObjectNames
from sgagent.cli.plan import PlanReport, as_json, lines
from sgagent.core.addresses import joined
from sgagent.core.members import members_by_group
from sgagent.core.model import CidrBlock, Family, Snapshot
from tests.draws import Draws
from tests.strategies import draws, noted_case


def addresses_of(name: str, family: Family, definitions: Snapshot) -> object:
    """Return the addresses that a name stands for in definitions."""
    members, prefix_list = members_by_group(definitions), definitions.prefix_list_by_id.get(name)
    if prefix_list is not None:
        return joined((entry.first, entry.last) for entry in prefix_list.entries if entry.family is family)
    if "sg-" in name:
        return joined(members[name.rpartition("/")[2]].ranges(family))
    block = CidrBlock.parse(name)
    assert block.family is family
    return ((block.first, block.last),)


@given(draws())
def test_names_are_exact(draws: Draws) -> None:
    """An object in JSON is just the addresses of its flow, and a text that is one name says the same."""
    old, new = (noted_case(draws, interfaces=("eth0", "eth1"), most_rules=4) for _ in range(2))
    comparison = compare(old.policy, new.policy)
    names = ObjectNames.of(old.policy, new.policy, definitions=new.snapshot)
    report = PlanReport(
        origin="", comparison=comparison, names=names, sessions=(), operations=None, changes=True
    )
    flows = as_json(report)["flows"]
    assert isinstance(flows, list)
    for flow, shown in zip(comparison.flows, flows, strict=True):
        box, found = flow.box, shown["object"]
        if found == FELLOW_MEMBERS:
            for link in flow.interfaces:
                judge = new.policy.judge(link)
                assert judge
                assert joined(judge.ingress.inner.ranges(box.family)) == box.peers
        elif found is not None:
            assert addresses_of(found, box.family, new.snapshot) == box.peers
    for line in lines(report, None):
        named = re.fullmatch(
            r".* (?:from|to) ((?:\d+/)?(?:sg|pl)-[\w-]+) ?(\(IPv[46]\))?: (?:accept|dropp)ed by.*", line
        )
        if named:
            family = Family.IPV4 if named[2] == "(IPv4)" else Family.IPV6
            wanted = addresses_of(named[1], family, new.snapshot)
            assert wanted in [flow.box.peers for flow in comparison.flows if flow.box.family is family], line
