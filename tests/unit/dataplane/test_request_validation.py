"""What the applier refuses, whatever the agent sends."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sgagent.core.model import Direction, Family
from sgagent.core.tracked_sessions import ConntrackEntry, FlowTuple
from sgagent.dataplane.applier_protocol import MalformedMessageError, decode, encode
from sgagent.dataplane.conntrack_entries import PIECE
from sgagent.dataplane.request_validation import (
    MOST_PACKETS,
    check_entries,
    check_listing,
    check_marks,
    check_number,
    check_packets,
    check_plan,
    check_socket,
)
from sgagent.nft.marks import MarkLayout, MarkTest
from sgagent.nft.ruleset import Rule, SetMark
from sgagent.nft.transactions import AddRule, Delete, Plan

MASK = 0xFFFF0000
LOG_GROUP = 9469
NO_FILL = False


def obj(kind: str, *fields: object) -> dict[str, list[object]]:
    """Return an object as JSON."""
    return {kind: list(fields)}


CT_MARK, CT_STATE, IIFNAME, SADDR = "ct mark", "ct state", "iifname", "ip saddr"
EQUAL = "=="
V4, IFNAME = [obj("KeyType", "ipv4_addr")], [obj("KeyType", "ifname")]
ONE = (1, 1)
DROP, GOTO_A, LIMIT = obj("Drop"), obj("Goto", "a"), obj("Limit", 10, 10)
LOG = obj("Log", "a", LOG_GROUP)


def rule(*statements: object) -> dict[str, list[object]]:
    """Return the operation that adds a rule."""
    return obj("AddRule", "a", *statements)


def match(
    selector: object, *values: object, operator: object = EQUAL, mask: object = None
) -> dict[str, list[object]]:
    """Return the operation that adds a rule with one match."""
    return rule(obj("Match", selector, operator, mask, *ends(*values)))


def ends(*values: object) -> list[object]:
    """Return both ends of each value, of which a word has one."""
    return [end for value in values for end in (value if isinstance(value, tuple) else (value, None))]


def chain(name: object, hook: object = None, comment: object = "", *more: object) -> dict[str, list[object]]:
    """Return the operation that adds a chain."""
    return obj("AddChain", name, hook, comment, *more)


def verdict_map(is_interval: object, *key_types: object) -> dict[str, list[object]]:
    """Return the operation that adds a map."""
    return obj("AddVerdictMap", "m", is_interval, *key_types)


def add(key_types: object, *rows: object) -> dict[str, list[object]]:
    """Return the operation that adds elements."""
    return obj("AddElements", "m", key_types, *rows)


def delete(key_types: object, *rows: object) -> dict[str, list[object]]:
    """Return the operation that deletes elements."""
    return obj("DeleteElements", "m", key_types, *rows)


def row(*fields: object, verdict: object = DROP) -> list[object]:
    """Return elements with a verdict."""
    return [verdict, *ends(*fields)]


def match_of_group(path: object, operator: str = EQUAL) -> dict[str, list[object]]:
    """Return the statement that asks for a control group."""
    return obj("Match", "xt match cgroup", operator, None, obj("GroupPath", path), None)


HARMLESS: tuple[dict[str, Any], ...] = (
    obj("AddTable"),
    obj("DestroyTable"),
    chain("prerouting", obj("Hook", "prerouting", -150)),
    chain("generation", comment="generation 1 'quoted' ä"),
    obj("Delete", "chain", "evil one, of 'somebody else'"),
    rule(obj("Match", CT_MARK, EQUAL, 31, *ONE), obj("SetMark", 0xFFFF, 0), DROP),
    rule(obj("Match", IIFNAME, EQUAL, None, obj("Symbol", "eth0"), None), obj("Goto", "ingress/eth0")),
    rule(obj("Match", IIFNAME, EQUAL, None, obj("NamePrefix", "br-"), None), obj("Goto", "ingress/eth0")),
    rule(LIMIT, obj("Log", "default/eth0/ingress", LOG_GROUP)),
    rule(match_of_group("/system.slice/a@b.service"), GOTO_A),
    add(V4, row((1, 2), ONE, verdict=GOTO_A), row((4, 4))),
    delete(V4, row(ONE, verdict=obj("Goto", "evil one"))),
    obj("Delete", "ct helper", "evil"),
)
"""What an agent may want."""

REFUSED: tuple[Any, ...] = (
    obj("AddTable", "inet", "other"),
    obj("FlushRuleset"),
    obj("Delete", "table", "other"),
    obj("Delete", "ruleset", "a"),
    obj("Flush", "table", "sgagent"),
    obj("Flush", "counter", "a"),
    obj("Delete", ["set"], "a"),
    obj("Delete", "set", "a\0b"),
    obj("Delete", "set", "a" * 256),
    obj("Delete", "set", "ä" * 128),
    obj("Delete", "set", "\ud800"),
    obj("Delete", "set", obj("Goto", "a")),
    obj("Flush", "map", None),
    obj("Delete", "map", ["m"]),
    obj("Delete", "counter", 1),
    chain("with blank"),
    chain("9"),
    chain("a;b"),
    chain("a\n"),
    chain("a", obj("Hook", "input", 0)),
    chain("a", obj("Hook", "prerouting", 1 << 31)),
    chain("a", obj("Hook", "prerouting", 0.5)),
    chain("a", obj("Hook", "prerouting", True)),  # noqa: FBT003 - JSON
    chain("a", comment='say "it"'),
    chain("a", comment="two\nlines"),
    chain("a", comment="a" * 129),
    chain("a", comment=None),
    chain("a", None, "", DROP),
    obj("AddChain", "a"),
    obj("AddCounter", "a"),
    obj("AddCounter", obj("Hook", "a", 0)),
    obj("AddCounter", obj("Counter", "a b", "")),
    obj("AddCounter", obj("Counter", "a", '"')),
    obj("AddCounter", obj("Counter", "a", None)),
    rule(obj("Queue", 0)),
    match("meta skgid", ONE),
    match("mark", ONE),
    match("ct mark accept;", ONE),
    match(["ct mark"], ONE),
    match(obj("KeyType", "mark"), ONE),
    match(None, ONE),
    match(CT_MARK, ONE, operator=">"),
    match(CT_MARK, ONE, operator=["=="]),
    match(CT_MARK, ONE, operator=None),
    match(CT_MARK),
    match(CT_MARK, 1),
    match(CT_MARK, (True, True)),
    match(CT_MARK, (-1, -1)),
    match(CT_MARK, (0, 1 << 32)),
    match(CT_MARK, (1.0, 1.0)),
    match(CT_MARK, (2, 1)),
    match(CT_MARK, (1, 2, 3)),
    match(CT_MARK, ONE, mask=1 << 32),
    match(CT_MARK, ONE, mask=False),
    match(SADDR, ONE, mask=255),
    match("ct status", ONE, mask=2),
    match(CT_STATE, obj("Symbol", "evil")),
    match(CT_STATE, ONE),
    match(SADDR, obj("Symbol", "localhost")),
    match(IIFNAME, obj("Symbol", "eth*")),
    match(IIFNAME, obj("Symbol", "@set")),
    match(IIFNAME, obj("Symbol", "a" * 16)),
    match(IIFNAME, obj("Symbol", ["eth0"])),
    match(IIFNAME, obj("NamePrefix", "")),
    match(IIFNAME, obj("NamePrefix", "a" * 16)),
    match(IIFNAME, obj("NamePrefix", 'a"')),
    match(SADDR, obj("NamePrefix", "br-")),
    match(SADDR, obj("GroupPath", "/a")),
    *(rule(match_of_group(path), GOTO_A) for path in ("a", "", "/a\0b", "/" * 512, None, 1)),
    rule(match_of_group("/a", "!="), GOTO_A),
    rule(match_of_group("/a"), DROP),
    rule(match_of_group("/a"), match_of_group("/b"), GOTO_A),
    rule(obj("Match", CT_MARK, EQUAL, 31, *ONE), match_of_group("/a"), GOTO_A),
    rule(obj("LookUp", "m")),
    rule(obj("LookUp", "m", "mark")),
    rule(obj("LookUp", "m", [CT_MARK])),
    rule(obj("LookUp", "@evil", CT_MARK)),
    rule(obj("LookUp", None, CT_MARK)),
    rule(obj("Count", None)),
    rule(obj("Limit", 0, 10)),
    rule(obj("Limit", 10, 0)),
    rule(obj("Limit", 10, 1 << 32)),
    rule(LIMIT, obj("Log", "a", LOG_GROUP + 1)),
    rule(LIMIT, obj("Log", "a", float(LOG_GROUP))),
    rule(LIMIT, obj("Log", "", LOG_GROUP)),
    rule(LIMIT, obj("Log", "an evil one", LOG_GROUP)),
    rule(LIMIT, obj("Log", "a" * 128, LOG_GROUP)),
    rule(LOG),
    rule(obj("Limit", 1001, 10), LOG),
    rule(obj("Limit", 10, 1001), LOG),
    rule(LIMIT, LOG, LOG),
    rule(LIMIT, obj("Accept"), LOG),
    rule(obj("SetMark", 0xFFFF, 1)),
    rule(obj("SetMark", 0, 0)),
    rule(obj("SetMark", 0xFFFFFFFE, 0)),
    rule(obj("SetMark", -1, 0)),
    rule(obj("Goto", "evil one")),
    rule(obj("Goto", 1)),
    rule([]),
    rule(ONE),
    obj("AddRule", "a", {}),
    obj("AddRule", "a", [DROP]),
    obj("AddRule", "a b", DROP),
    obj("AddRule", "a", obj("Rule", DROP)),
    obj("AddRule"),
    verdict_map(False),  # noqa: FBT003 - JSON
    verdict_map(False, obj("KeyType", "verdict")),  # noqa: FBT003 - JSON
    verdict_map(False, "ipv4_addr"),  # noqa: FBT003 - JSON
    verdict_map(False, V4),  # noqa: FBT003 - JSON
    verdict_map(False, *V4, row(ONE)),  # noqa: FBT003 - JSON
    verdict_map(0, *V4),
    add(V4),
    add(V4, row()),
    add(V4, []),
    add(V4, row((0, 1 << 32))),
    add(V4, row(ONE, verdict=obj("Goto", "evil one"))),
    add(V4, row(ONE, verdict=obj("Count", "a"))),
    add(V4, row(ONE, verdict=[DROP])),
    add([*V4, *V4], row(ONE)),
    add([*V4, *V4], row(ONE, ONE, ONE)),
    add([], row(ONE)),
    add(4, row(ONE)),
    add(V4, [DROP, 1]),
    add(V4, row(1)),
    add(V4, row("1")),
    add(V4, row([1, 1])),
    add(V4, row((None, None))),
    add(V4, ONE),
    add(IFNAME, row(ONE)),
    add(IFNAME, row(obj("NamePrefix", "br-"))),
    delete(V4, row(ONE, verdict=obj("Goto", "a\0"))),
    delete(V4, DROP),
    delete(V4, "evils"),
    obj("Applied", 1, 2),
    obj("Goto", "a"),
    {"AddTable": [], "DestroyTable": []},
    {"AddTable": None},
    [],
    {},
    None,
    "AddTable",
)
"""What none may have."""


def sent(*values: object) -> bytes:
    """Return JSON as a content."""
    return json.dumps(values).encode()


@pytest.mark.parametrize("operation", HARMLESS, ids=json.dumps)
@pytest.mark.parametrize("is_fill", (True, False))
def test_what_an_agent_may_want_is_accepted(operation: dict[str, Any], is_fill: bool) -> None:  # noqa: FBT001 - as sent
    """Names of objects that are deleted may be whatever another process called them."""
    assert len(check_plan(decode(sent(is_fill, operation)), MASK, LOG_GROUP).operations) == 1


@pytest.mark.parametrize("operation", REFUSED, ids=json.dumps)
def test_what_none_may_want_is_refused(operation: object) -> None:
    """Other tables, other bits, other kinds, other words: the whole plan is refused."""
    with pytest.raises(MalformedMessageError):
        check_plan(decode(sent(NO_FILL, obj("AddTable"), operation)), MASK, LOG_GROUP)


def test_nothing_is_logged_before_the_group_is_named() -> None:
    """An agent that has not named its group of the log has none."""
    with pytest.raises(MalformedMessageError):
        check_plan(decode(sent(NO_FILL, rule(LIMIT, LOG))), MASK)


def test_a_plan_has_operations() -> None:
    """And says whether it is a fill."""
    for values in ((), (True,), (obj("AddTable"),), (0, obj("AddTable"))):
        with pytest.raises(MalformedMessageError):
            check_plan(decode(sent(*values)), MASK)


@pytest.mark.parametrize(
    "text",
    (
        b'[{"AddTable":[]}',
        b'[{"AddTable":[]}]\n[]',
        b'{"AddTable":[]}',
        b'"text"',
        b"[" * 100_000,
        b'[{"Rule":[' * 100_000,
        b"[" + b"9" * 10_000 + b"]",
        b'\xff[{"AddTable":[]}]',
        b'[{"__class__":["os"]}]',
        b'[{"Goto":["a"],"Goto":["b"]}]',
    ),
    ids=(
        *("half", "two", "one value", "a text", "deep", "deep objects", "a long number", "no text"),
        *("another class", "a class twice"),
    ),
)
def test_what_is_no_content_is_refused(text: bytes) -> None:
    """However deep, long or broken."""
    with pytest.raises(MalformedMessageError):
        decode(text)


def test_bits_within_the_mask_may_be_set() -> None:
    """Only what is changed counts; the other bits stay as they are."""
    keep, put = 0x0001FFFF, 0x00010000
    plan = check_plan(decode(sent(NO_FILL, rule(obj("SetMark", keep, put)))), MASK)
    assert plan == Plan((AddRule("a", Rule((SetMark(keep=keep, put=put),))),))


def test_one_bit_of_the_status_may_be_compared() -> None:
    """The one that our own table asks for: whether another session announced this one."""
    content = decode(sent(NO_FILL, match("ct status", (0, 0), mask=1)))
    (operation,) = check_plan(content, MASK).operations
    assert isinstance(operation, AddRule)


def test_foreign_things_of_the_table_may_be_deleted() -> None:
    """By their kind, which is never a table; whoever writes JSON may give an empty name."""
    for name in ("x y", ""):
        content = decode(sent(NO_FILL, obj("Delete", "set", name)))
        assert check_plan(content, MASK) == Plan((Delete("set", name),))


WHOLE = MarkLayout(0xFFFFFFFF)


@pytest.mark.parametrize(
    "tests", ((), (MarkTest(0xFFC00000, 0x00400000),), WHOLE.of_other_generations(WHOLE.last_generation))
)
def test_marks_arrive_as_they_were_sent(tests: tuple[MarkTest, ...]) -> None:
    """With no test, with one, and with as many as the widest mask has bits for generations."""
    assert check_marks(decode(encode(MASK, *tests)), MASK) == (MASK, tests)


@pytest.mark.parametrize(
    "values",
    (
        (),
        (1,),
        ("a",),
        (MASK, 1),
        (MASK, [1]),
        (MASK, [1, 1, 1]),
        (MASK, [1, True]),
        (MASK, [1, 1 << 32]),
        (MASK, *[[1, 1]] * 33),
    ),
)
def test_what_does_not_say_which_marks_is_refused(values: tuple[object, ...]) -> None:
    """A test that is broken is no request without it, which would be for all marks."""
    with pytest.raises(MalformedMessageError):
        check_marks(decode(sent(*values)), MASK)


@pytest.mark.parametrize("values", ((), (1, 1), (-1,), (1 << 16,), (True,), ("1",), ([1],)))
def test_what_is_not_one_number_is_refused(values: tuple[object, ...]) -> None:
    """A mask, or a group of the log."""
    with pytest.raises(MalformedMessageError):
        check_number(decode(sent(*values)), 0xFFFF)


INGRESS, IPV4 = obj("Direction", Direction.INGRESS.value), obj("Family", Family.IPV4.value)
PACKET = (INGRESS, IPV4, 6, 1, 2, 1024, 80)


def test_a_packet_arrives_as_it_was_sent() -> None:
    """With both ends."""
    (found,) = check_packets(decode(sent(PACKET)))
    assert (found.source, found.destination, found.source_port, found.destination_port) == (1, 2, 1024, 80)


@pytest.mark.parametrize(
    ("place", "value"),
    ((0, IPV4), (1, "ipv4"), (2, 256), (2, None), (3, 1 << 32), (4, -1), (5, 1 << 16), (6, None), (6, 80.0)),
)
def test_what_is_no_packet_is_refused(place: int, value: object) -> None:
    """Each field has its bounds."""
    packet = [*PACKET[:place], value, *PACKET[place + 1 :]]
    with pytest.raises(MalformedMessageError):
        check_packets(decode(sent(packet)))
    with pytest.raises(MalformedMessageError):
        check_packets(decode(sent(PACKET[:place])))


@pytest.mark.parametrize("count", (0, MOST_PACKETS + 1))
def test_so_many_packets_are_looked_up_at_once(count: int) -> None:
    """At least one, and no more than are found in a moment."""
    check_packets(decode(sent(*[PACKET] * MOST_PACKETS)))
    with pytest.raises(MalformedMessageError):
        check_packets(decode(sent(*[PACKET] * count)))


ENDS = FlowTuple(1, 500, 2, 500)
ENTRY = ConntrackEntry(Family.IPV4, 17, ENDS, ENDS.turned, 7, False, 9, 0, 3)  # noqa: FBT003 - a value's field


def test_entries_arrive_as_they_were_sent() -> None:
    """With their zones, and without ports where the protocol has none."""
    portless = replace(ENTRY, protocol=50, original=FlowTuple(1, None, 2, None))
    assert check_entries(decode(encode(ENTRY, portless))) == (ENTRY, portless)


@pytest.mark.parametrize(
    "change",
    (
        *({"family": "ipv4"}, {"protocol": 256}, {"protocol": True}, {"original": (1, 2, 3, 4)}),
        *({"reply": FlowTuple(1 << 32, 1, 1, 1)}, {"reply": FlowTuple(1, -1, 1, 1)}),
        *({"original": FlowTuple(1, 1, -2, 1)}, {"original": FlowTuple(1, 1, 1, 1 << 16)}),
        *({"mark": 1 << 32}, {"identity": None}, {"original_zone": 1 << 16}, {"reply_zone": -1}),
    ),
)
def test_what_is_no_entry_is_refused(change: dict[str, Any]) -> None:
    """Each field has its bounds."""
    with pytest.raises(MalformedMessageError):
        check_entries((replace(ENTRY, **change),))


@pytest.mark.parametrize("content", ((), (1,), (ENTRY,) * (PIECE + 1)))
def test_so_many_entries_are_ended_at_once(content: tuple[object, ...]) -> None:
    """As one piece of a listing has."""
    check_entries((ENTRY,) * PIECE)
    with pytest.raises(MalformedMessageError):
        check_entries(content)


@pytest.mark.parametrize("content", ((), (1,), (True, 1), (True, [1]), (False, [1, 1 << 32])))
def test_what_is_no_listing_is_refused(content: tuple[object, ...]) -> None:
    """Which protocols, and which marks not."""
    assert check_listing(decode(encode(True, MarkTest(3, 1)))) == (True, (MarkTest(3, 1),))  # noqa: FBT003 - as sent
    with pytest.raises(MalformedMessageError):
        check_listing(content)


def test_a_socket_arrives_as_it_was_sent() -> None:
    """By the number of its family, and by the bytes that the kernel knows it by."""
    assert check_socket(decode(encode(2, (b"\xab" * 48).hex()))) == (2, b"\xab" * 48)


@pytest.mark.parametrize(
    "values",
    (
        (),
        (2,),
        (1, "00" * 48),
        (True, "00" * 48),
        (2, "00" * 47),
        (2, "0 " * 48),
        (2, "0g" * 48),
        (2, 0),
        (2, "00" * 48, 1),
    ),
)
def test_what_is_no_socket_is_refused(values: tuple[object, ...]) -> None:
    """Of another family, of another length."""
    with pytest.raises(MalformedMessageError):
        check_socket(decode(sent(*values)))


def test_what_is_nested_too_deep_is_refused() -> None:
    """It ends neither the check nor the process."""
    mark = json.dumps(obj("Goto", "x"))
    before, after = mark.split('"x"')
    written = sent(NO_FILL, match("deep", ONE)).replace(
        b'"deep"', f'{before * 2000}"a"{after * 2000}'.encode()
    )
    with pytest.raises(MalformedMessageError):
        check_plan(decode(written), MASK, LOG_GROUP)
