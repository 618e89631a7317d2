"""What the agent sends arrives as it was meant; whatever else arrives is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sgagent.dataplane.applier_protocol import MalformedMessageError, decode, encode
from sgagent.dataplane.request_validation import check_plan
from sgagent.nft.diff import make_plan
from sgagent.nft.ruleset import Ruleset
from sgagent.nft.text import write_additions
from sgagent.nft.transactions import Plan, encode_plan
from tests.rulesets import ALL_BITS, LOG_GROUP, rulesets

FOREIGN = ("chain evil one", "ct helper ftp", "map ä", "policy prerouting", "rule ingress/eth0", "set evil")


@given(first=rulesets(), second=rulesets(), foreign=st.sets(st.sampled_from(FOREIGN)))
def test_a_plan_arrives_as_it_was_sent(first: Ruleset, second: Ruleset, foreign: set[str]) -> None:
    """Any plan from any table to any other, whatever somebody else put into it."""
    for plan in (make_plan(first, None), make_plan(second, first, sorted(foreign))):
        if plan:
            content = encode(bool(plan.fill), *plan.operations)
            received = check_plan(decode(content), ALL_BITS, LOG_GROUP)
            assert received.operations == plan.operations


@given(text=st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused(text: bytes) -> None:
    """Nothing that is not written as values is one."""
    with pytest.raises(MalformedMessageError):
        decode(b"\xff" + text)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(("accept", "goto", "ct mark", "ipv4_addr", "\ud800")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(("Goto", "Drop", "Match", "Hook", "Symbol", "KeyType", "Chain", "Evil")),
            inner,
            max_size=2,
        )
    ),
    max_leaves=8,
)


@given(desired=rulesets(), replaced=_JSON, seed=st.integers(min_value=0))
def test_a_spoilt_plan_is_refused_or_another_plan(
    desired: Ruleset,
    replaced: Any,  # noqa: ANN401 - JSON
    seed: int,
) -> None:
    """Whatever stands in one place, the applier does not fail, and what it accepts becomes commands."""
    plan = make_plan(desired, None)
    operations = json.loads(encode(*plan.operations))
    _spoil(operations[seed % len(operations)], replaced, seed // len(operations))
    text = json.dumps([True, *operations])
    try:
        found = check_plan(decode(text.encode()), ALL_BITS, LOG_GROUP)
    except MalformedMessageError:
        return
    assert isinstance(found, Plan)
    json.dumps(encode_plan(found))
    assert write_additions(found.operations) is not None
    assert check_plan(decode(encode(True, *found.operations)), ALL_BITS, LOG_GROUP) == found  # noqa: FBT003 - as sent


def _spoil(content: Any, replaced: Any, seed: int) -> None:  # noqa: ANN401 - JSON
    """Put something in the place of one thing, somewhere inside."""
    places = list(content) if isinstance(content, dict) else range(len(content))
    place = places[seed % len(places)]
    inner = content[place]
    if isinstance(inner, (list, dict)) and inner and seed // len(places) % 3:
        _spoil(inner, replaced, seed // len(places) // 3)
    else:
        content[place] = replaced
