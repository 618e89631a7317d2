"""A step after any edits of documents gives what a step from nothing gives, at every seam of memoization."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
from hypothesis import event, example, given, strategies as st

from bench.memoization import PartialMemo, Steps
from bench.policies import GROUP_ID
from sgagent.core.memo import Seam
from tests.strategies import examples

Documents = dict[str, Any]
PEERS = ("sg-a", "sg-b", "sg-c", "pl-d", "192.0.2.0/24", "192.0.2.7/32", "0.0.0.0/0", "2001:db8::/64")


def rule(number: int, peer: str, port: int) -> dict[str, Any]:
    """Return a rule of a document."""
    return {
        "rule_id": f"sgr-{number}",
        "direction": "egress" if number % 7 == 6 else "ingress",
        "policy": "drop" if number % 5 == 4 else "accept",
        "priority": 1 + number % 3,
        "protocol": "udp" if number % 4 == 3 else "tcp",
        "port_range": f"{port}/{port + number % 2}",
        "authorization_object": peer,
    }


def first() -> Documents:
    """Return a policy with so many rules that its table has classes, in two files."""
    rules = [rule(number, PEERS[number % len(PEERS)], 20 + number // 2) for number in range(30)]
    return {
        "rules": rules,
        "inner": "drop",
        "members": {name: [f"10.0.{ord(name[-1])}.{n}" for n in range(3)] for name in PEERS[:3]},
        "prefixes": ["198.51.100.0/25"],
        "lines": 0,
        "added": 0,
    }


def write(documents: Documents, steps: Steps) -> None:
    """Write the documents; lines before a list move all that is behind them."""
    ruled = {
        "security_group_id": GROUP_ID,
        "type": "basic",
        "inner_access_policy": documents["inner"],
        "member_addresses": ["10.0.9.1"],
        "rules": documents["rules"],
    }
    others = [
        {"security_group_id": name, "type": "basic", "member_addresses": members}
        for name, members in documents["members"].items()
    ]
    lists = [{"prefix_list_id": "pl-d", "address_family": "ipv4", "entries": documents["prefixes"]}]
    for name, content in (
        ("rules.json", {"security_groups": [ruled]}),
        ("others.json", {"security_groups": others, "prefix_lists": lists}),
    ):
        steps.write(name, "\n" * documents["lines"] + json.dumps({"version": 1, **content}, indent=1))


def move_rule(documents: Documents, number: int) -> None:
    """Move a rule to another port."""
    if documents["rules"]:
        place = number % len(documents["rules"])
        documents["rules"][place]["port_range"] = f"{20 + number}/{20 + number}"


def add_rule(documents: Documents, number: int) -> None:
    """Add a rule, in any place of the order."""
    added = rule(number, PEERS[number % len(PEERS)], 20 + number % 15)
    documents["added"] += 1
    documents["rules"].insert(number % 3, {**added, "rule_id": f"new-{documents['added']}"})


def remove_rule(documents: Documents, number: int) -> None:
    """Remove a rule."""
    if documents["rules"]:
        del documents["rules"][number % len(documents["rules"])]


def join(documents: Documents, number: int) -> None:
    """Have an address, or a network around others, join a group; it may be in another one already."""
    members = documents["members"][PEERS[number % 3]]
    address = "10.0.1.0/30" if number % 11 == 0 else f"10.0.{number % 2}.{number % 5 + 10}"
    if address not in members:
        members.append(address)


def leave(documents: Documents, number: int) -> None:
    """Have a member leave."""
    members = documents["members"][PEERS[number % 3]]
    if members:
        del members[number % len(members)]


def change_list(documents: Documents, number: int) -> None:
    """Change the entries of the prefix list."""
    documents["prefixes"] = [f"198.51.100.{number % 2 * 128}/25"]


def change_group(documents: Documents, number: int) -> None:
    """Change a field of the group that has the rules."""
    documents["inner"] = "accept" if number % 2 else "drop"


def shift_lines(documents: Documents, number: int) -> None:
    """Move everything in the files."""
    documents["lines"] = number % 3


def move_rule_and_member(documents: Documents, number: int) -> None:
    """Change rules and members at once, so that a map of addresses takes its other name."""
    move_rule(documents, number)
    join(documents, number)
    leave(documents, number + 1)


EDITS: tuple[Callable[[Documents, int], None], ...] = (
    move_rule,
    add_rule,
    remove_rule,
    join,
    leave,
    change_list,
    change_group,
    shift_lines,
    move_rule_and_member,
)
edits = st.lists(st.tuples(st.sampled_from(EDITS), st.integers(0, 39), st.booleans()), max_size=6)


def has_second_name(steps: Steps) -> bool:
    """Return whether a map of addresses has its other name."""
    assert steps.enforcement is not None
    names = (found.name for found in steps.enforcement.compiled.ruleset.verdict_maps)
    return any(name.startswith("peers/") and name.endswith("/2") for name in names)


@examples(50)
@given(edits, st.sampled_from((frozenset[Seam](), *(frozenset({seam}) for seam in Seam))))
@example([(move_rule_and_member, 1, False), (join, 3, False), (move_rule_and_member, 4, False)], frozenset())
def test_a_step_after_any_edits_is_a_step_from_nothing(
    drawn: list[tuple[Callable[[Documents, int], None], int, bool]], without: frozenset[Seam]
) -> None:
    """Policy, problems, table, plan and marks are the same, also with a seam removed and after an undo."""
    memoizing, afresh = Steps(partial(PartialMemo, without)), Steps()
    versions = [first()]
    write(versions[0], memoizing)
    write(versions[0], afresh)
    memoizing.step()
    afresh.step()
    for edit, number, undoes in drawn:
        documents = deepcopy(versions[number % len(versions)] if undoes else versions[-1])
        edit(documents, number)
        versions.append(documents)
        write(documents, memoizing)
        write(documents, afresh)
        afresh.forget()
        memoizing.step()
        afresh.step()
        assert memoizing.resolution == afresh.resolution
        assert memoizing.enforcement == afresh.enforcement
        event(f"a map has its other name: {has_second_name(memoizing)}")


@pytest.mark.parametrize("seam", Seam)
def test_each_seam_saves_work(seam: Seam) -> None:
    """What a seam keeps is the same object in the next step; without it, it is another."""
    for without, is_kept in ((frozenset[Seam](), True), (frozenset({seam}), False)):
        steps, documents = Steps(partial(PartialMemo, without)), first()
        write(documents, steps)
        steps.step()
        before = kept_by(seam, steps)
        move_rule(documents, 35)
        write(documents, steps)
        steps.step()
        assert (kept_by(seam, steps) is before) == is_kept


def kept_by(seam: Seam, steps: Steps) -> object:
    """Return an object of the last step that a change of another rule leaves as it is."""
    assert steps.snapshot is not None
    assert steps.resolution is not None
    assert steps.enforcement is not None
    ruleset = steps.enforcement.compiled.ruleset
    policy = steps.resolution.policy.interfaces[0]
    match seam:
        case Seam.PARSE_CACHE:
            return next(one for one in steps.snapshot.group_by_id[GROUP_ID].rules if one.rule_id == "sgr-0")
        case Seam.RESOLVED_RULES:
            return next(one for one in policy.ingress.rules if one.rule_id == "sgr-0")
        case Seam.DIRTY_CLASSES:
            return next(c for c in ruleset.chains if c.name.startswith("class/") and "sg-a" in c.name)
        case Seam.ADDRESS_MAP:
            return ruleset.verdict_map_by_name["peers/eth0/ingress/ipv4"].elements
        case Seam.COUNTER_CHAINS:
            return ruleset.counter_by_name["rule/eth0/sgr-0"]


def test_a_map_takes_its_other_name() -> None:
    """The edits reach both names of a map."""
    steps, documents = Steps(), first()
    found = []
    for number in (1, 1, 4, 7):
        move_rule_and_member(documents, number)
        write(documents, steps)
        steps.step()
        found.append(has_second_name(steps))
    assert set(found) == {True, False}
