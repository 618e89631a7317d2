"""What the applier does not let through, however it is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sgagent.dataplane.plan_decoder import MalformedPlanError, read_plan
from sgagent.nft.plan import AddRule, DeleteForeign, Plan
from sgagent.nft.ruleset import Rule, SetMark

MASK = 0xFFFF0000
LOG_GROUP = 9469
V4, MARK = ["ipv4_addr"], ["mark"]

HARMLESS: tuple[list[Any], ...] = (
    ["add table"],
    ["destroy table"],
    ["add chain", "prerouting", ["prerouting", -150], ""],
    ["add chain", "generation", None, "generation 1 'quoted' ä"],
    ["delete chain", "evil one, of 'somebody else'"],
    ["add rule", "a", [["match", "ct mark", "==", 31, [1]], ["set mark", 0xFFFF, 0], ["drop"]]],
    ["add rule", "a", [["match", "meta iifname", "==", None, ["eth0"]], ["goto", "ingress/eth0"]]],
    ["add rule", "a", [["limit", 10, 10], ["log", "default/eth0/ingress", LOG_GROUP]]],
    ["add elements", "m", V4, [[[[1, 2]], ["goto", "a"]]]],
    ["delete elements", "m", V4, [[[1], ["goto", "evil one"]]]],
    ["delete foreign", "ct helper", "evil"],
)
"""What an agent may want."""

REFUSED: tuple[Any, ...] = (
    ["add table", "inet", "other"],
    ["flush ruleset"],
    ["delete foreign", "table", "other"],
    ["delete foreign", "chain", "a"],
    ["delete foreign", ["set"], "a"],
    ["delete foreign", "set", ""],
    ["delete foreign", "set", "a\0b"],
    ["delete foreign", "set", "a" * 256],
    ["delete foreign", "set", "ä" * 128],
    ["delete foreign", "set", "\ud800"],
    ["add chain", "with blank", None, ""],
    ["add chain", "9", None, ""],
    ["add chain", "a;b", None, ""],
    ["add chain", "a\n", None, ""],
    ["add chain", "a", ["input", 0], ""],
    ["add chain", "a", ["prerouting", 1 << 31], ""],
    ["add chain", "a", ["prerouting", 0.5], ""],
    ["add chain", "a", None, 'say "it"'],
    ["add chain", "a", None, "two\nlines"],
    ["add chain", "a", None, "a" * 129],
    ["add chain", "a", None, None],
    ["add rule", "a", [["queue", 0]]],
    ["add rule", "a", [["match", "meta skuid", "==", None, [0]]]],
    ["add rule", "a", [["match", "ct mark", ">", None, [0]]]],
    ["add rule", "a", [["match", "ct mark", "==", None, []]]],
    ["add rule", "a", [["match", "ct mark", "==", None, [True]]]],
    ["add rule", "a", [["match", "ct mark", "==", None, [-1]]]],
    ["add rule", "a", [["match", "ct mark", "==", None, [1 << 32]]]],
    ["add rule", "a", [["match", "ct mark", "==", None, [1.0]]]],
    ["add rule", "a", [["match", "ct mark", "==", None, [[2, 1]]]]],
    ["add rule", "a", [["match", "ct mark", "==", None, [[1, 2, 3]]]]],
    ["add rule", "a", [["match", "ip saddr", "==", 255, [1]]]],
    ["add rule", "a", [["match", "ct state", "==", None, ["evil"]]]],
    ["add rule", "a", [["match", "ct state", "==", None, [1]]]],
    ["add rule", "a", [["match", "ip saddr", "==", None, ["localhost"]]]],
    ["add rule", "a", [["match", "meta iifname", "==", None, ["eth*"]]]],
    ["add rule", "a", [["match", "meta iifname", "==", None, ["@set"]]]],
    ["add rule", "a", [["match", "meta iifname", "==", None, ["a" * 16]]]],
    ["add rule", "a", [["match together", ["ct mark"], [[1, 2]]]]],
    ["add rule", "a", [["match together", [], [[]]]]],
    ["add rule", "a", [["look up", ["ct mark"], "@evil"]]],
    ["add rule", "a", [["look up inline", ["ct mark"], [[[1]]]]]],
    ["add rule", "a", [["look up inline", ["ct mark"], [[[1], ["queue"]]]]]],
    ["add rule", "a", [["count", None]]],
    ["add rule", "a", [["limit", 0, 10]]],
    ["add rule", "a", [["limit", 10, 0]]],
    ["add rule", "a", [["limit", 10, 1 << 32]]],
    ["add rule", "a", [["limit", 10, 10], ["log", "a", LOG_GROUP + 1]]],
    ["add rule", "a", [["limit", 10, 10], ["log", "a", True]]],
    ["add rule", "a", [["limit", 10, 10], ["log", "", LOG_GROUP]]],
    ["add rule", "a", [["limit", 10, 10], ["log", "an evil one", LOG_GROUP]]],
    ["add rule", "a", [["limit", 10, 10], ["log", "a" * 128, LOG_GROUP]]],
    ["add rule", "a", [["log", "a", LOG_GROUP]]],
    ["add rule", "a", [["limit", 1001, 10], ["log", "a", LOG_GROUP]]],
    ["add rule", "a", [["limit", 10, 1001], ["log", "a", LOG_GROUP]]],
    ["add rule", "a", [["limit", 10, 10], ["log", "a", LOG_GROUP], ["log", "b", LOG_GROUP]]],
    ["add rule", "a", [["set mark", 0xFFFF, 1]]],
    ["add rule", "a", [["set mark", 0, 0]]],
    ["add rule", "a", [["set mark", 0xFFFFFFFE, 0]]],
    ["add rule", "a", [["goto", "evil one"]]],
    ["add rule", "a", [["goto", 1]]],
    ["add rule", "a", [[]]],
    ["add rule", "a", {}],
    ["add map", "m", [], False],
    ["add map", "m", ["verdict"], False],
    ["add map", "m", V4, 0],
    ["add elements", "m", V4, []],
    ["add elements", "m", V4, [[[1 << 32], ["drop"]]]],
    ["add elements", "m", V4, [[[1], ["goto", "evil one"]]]],
    ["add elements", "m", ["ifname"], [[[1], ["drop"]]]],
    ["delete elements", "m", V4, [[[1], ["goto", "a\0"]]]],
    ["delete elements", "m", V4, [[1, ["drop"]]]],
    ["delete elements", "m", V4, ["evil"]],
    [],
    {},
    None,
    "add table",
)
"""What none may have."""


def lines(*operations: object) -> bytes:
    """Return operations as they are written."""
    return b"".join(json.dumps(operation).encode() + b"\n" for operation in operations)


@pytest.mark.parametrize("operation", HARMLESS, ids=json.dumps)
def test_what_an_agent_may_want_is_taken(operation: list[Any]) -> None:
    """Names that stand already may be whatever somebody called them."""
    assert len(read_plan(lines(operation), MASK, LOG_GROUP).operations) == 1


@pytest.mark.parametrize("operation", REFUSED, ids=json.dumps)
def test_what_none_may_want_is_refused(operation: object) -> None:
    """Other tables, other bits, other kinds, other words: nothing of the plan is read."""
    with pytest.raises(MalformedPlanError):
        read_plan(lines(["add table"], operation), MASK, LOG_GROUP)


def test_nothing_is_logged_before_it_was_said_where() -> None:
    """An agent that has not named its group of the log has none."""
    with pytest.raises(MalformedPlanError):
        read_plan(lines(["add rule", "a", [["limit", 10, 10], ["log", "a", LOG_GROUP]]]), MASK)


@pytest.mark.parametrize(
    "text",
    (
        b"",
        b'["add table"]',
        b'["add table"]\n\n',
        b"[" * 100_000 + b"\n",
        b"9" * 10_000 + b"\n",
        b'["add chain", "a", null, NaN]\n',
        b'\xff["add table"]\n',
    ),
    ids=("nothing", "half a line", "an empty line", "deep", "a long number", "no number", "no text"),
)
def test_what_is_no_text_of_a_plan_is_refused(text: bytes) -> None:
    """However deep, long or broken."""
    with pytest.raises(MalformedPlanError):
        read_plan(text, MASK)


def test_bits_within_the_mask_may_be_set() -> None:
    """Only what is changed counts; the other bits stay as they are."""
    keep, put = 0x0001FFFF, 0x00010000
    plan = read_plan(lines(["add rule", "a", [["set mark", keep, put]]]), MASK)
    assert plan == Plan((AddRule("a", Rule((SetMark(keep=keep, put=put),))),))


def test_foreign_things_of_the_table_may_be_deleted() -> None:
    """By their kind, which is never a table."""
    assert read_plan(lines(["delete foreign", "set", "x y"]), MASK) == Plan((DeleteForeign("set", "x y"),))
