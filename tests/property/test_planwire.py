"""What the agent writes the applier reads as it was meant; whatever else is written is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sgagent.dataplane.plan_decoder import MalformedPlanError, read_plan
from sgagent.dataplane.plan_encoder import write_plan
from sgagent.nft.plan import Plan, make_plan
from sgagent.nft.ruleset import Ruleset
from tests.rulesets import ALL_BITS, LOG_GROUP, rulesets

FOREIGN = ("chain evil one", "ct helper ftp", "map ä", "policy prerouting", "rule ingress/eth0", "set evil")


@given(first=rulesets(), second=rulesets(), foreign=st.sets(st.sampled_from(FOREIGN)))
def test_a_plan_arrives_as_it_was_sent(first: Ruleset, second: Ruleset, foreign: set[str]) -> None:
    """Any plan from any table to any other, whatever somebody else put into it."""
    for plan in (make_plan(first, None), make_plan(second, first, sorted(foreign))):
        if plan:
            assert read_plan(write_plan(plan), ALL_BITS, LOG_GROUP).operations == plan.operations


@given(text=st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused(text: bytes) -> None:
    """Nothing that is not written as a plan is one."""
    with pytest.raises(MalformedPlanError):
        read_plan(b"\xff" + text, ALL_BITS)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(("accept", "goto", "match", "add rule", "ct mark", "ipv4_addr", "\ud800")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=8,
)


@given(desired=rulesets(), replaced=_JSON, seed=st.integers(min_value=0))
def test_a_spoilt_plan_is_refused_or_another_plan(
    desired: Ruleset,
    replaced: Any,  # noqa: ANN401 - JSON
    seed: int,
) -> None:
    """Whatever stands in one place, the reader does not fail, and what it reads can be written."""
    plan = make_plan(desired, None)
    lines = [json.loads(line) for line in write_plan(plan).splitlines()]
    _spoil(lines[seed % len(lines)], replaced, seed // len(lines))
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    try:
        found = read_plan(text, ALL_BITS, LOG_GROUP)
    except MalformedPlanError:
        return
    assert isinstance(found, Plan)
    assert read_plan(write_plan(found), ALL_BITS, LOG_GROUP) == found


def _spoil(content: list[Any], replaced: Any, seed: int) -> None:  # noqa: ANN401 - JSON
    """Put something in the place of one thing, somewhere inside."""
    place = seed % len(content)
    inner = content[place]
    if isinstance(inner, list) and inner and seed // len(content) % 3:
        _spoil(inner, replaced, seed // len(content) // 3)
    else:
        content[place] = replaced
