"""Readers of flow logs: the agent's lines and the clouds' records, whole, wrong and hostile."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from sgagent.core.errors import UsageError
from sgagent.core.model import Direction, Family
from sgagent.suggest import conversations
from sgagent.suggest.cloud_records import NO_RECORDS, SKIPPED, CloudRecordReader
from sgagent.suggest.conversations import (
    CROWDED,
    CUT_OFF,
    FORGOTTEN,
    NO_OPENING,
    NOT_LOGGED,
    Conversation,
    Tally,
    Traffic,
)
from sgagent.suggest.flow_lines import FlowLineReader
from tests.flow_records import as_log, incoming, outgoing

HOST = "10.0.0.11"
CLIENT = "198.51.100.7"
FLAGGED = (
    b"version interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action"
    b" tcp-flags\n"
)


def read(text: bytes) -> Traffic:
    """Return what a host's flow log says."""
    traffic = Traffic()
    FlowLineReader(traffic, "web.log", "web").read(text.splitlines(keepends=True))
    return traffic


def read_records(text: bytes, owners: Mapping[str, set[tuple[Family, int]]] | None = None) -> Traffic:
    """Return what a cloud's flow log says."""
    traffic = Traffic()
    reader = CloudRecordReader(traffic, "vpc.log", owners or {})
    reader.read(text.splitlines(keepends=True))
    reader.settle()
    return traffic


def only(traffic: Traffic) -> tuple[Conversation, Tally]:
    """Return the one conversation that was read."""
    assert traffic.problems == []
    ((conversation, tally),) = traffic.passed.items()
    return conversation, tally


def line(**changes: object) -> bytes:
    """Return a line of a flow log with other fields."""
    fields = json.loads(as_log([incoming(HOST, CLIENT, 443, times=1)]))
    return json.dumps(fields | changes).encode() + b"\n"


def test_lines_of_a_conversation_are_counted_together() -> None:
    """Sessions, packets, bytes, the window, and the clients' ports are kept."""
    found, tally = only(read(as_log([incoming(HOST, CLIENT, 443, times=5)])))
    assert (found.direction, found.port, found.site) == (Direction.INGRESS, 443, "web/eth0")
    assert (tally.sessions, tally.packets, tally.bytes) == (5, 5, 300)
    assert tally.last - tally.first == 4
    assert tally.client_ports == (32_769, 32_773)


def test_the_fast_way_counts_as_the_slow_one() -> None:
    """Lines with their keys in another order are parsed one by one, to the same result."""
    log = as_log(
        [incoming(HOST, CLIENT, 443, times=9), outgoing(HOST, "2001:db8::5", None, "icmpv6", times=4)]
    )
    shuffled = b"".join(
        json.dumps(dict(sorted(json.loads(one).items()))).encode() + b"\n" for one in log.splitlines()
    )
    assert read(log).passed == read(shuffled).passed


def test_tries_of_one_session_are_one() -> None:
    """A packet that is sent again has the port of its session."""
    _, tally = only(read(3 * line()))
    assert (tally.sessions, tally.packets) == (1, 3)


def test_what_was_refused_is_not_what_flowed() -> None:
    """A drop that was carried out is kept apart; one in observe mode flowed."""
    assert [tally.sessions for tally in read(line(mode="enforce")).refused.values()] == [1]
    assert read(line(mode="enforce")).passed == {}
    assert len(read(line(mode="observe")).passed) == 1


def test_what_opens_no_session_is_counted() -> None:
    """Invalid packets, and lines about packets that were not logged."""
    left_out = json.dumps({"time": "2026-01-31T10:00:00.000000Z", "left_out": 17}).encode() + b"\n"
    assert read(line(decided_by="invalid") + left_out).left_out == {NO_OPENING: 1, NOT_LOGGED: 17}


@pytest.mark.parametrize(
    ("field", "value"),
    (
        ("direction", "sideways"),
        ("verdict", "reject"),
        ("family", "ipx"),
        ("protocol", "tcpp"),
        ("protocol", 300),
        ("time", "yesterday"),
        ("time", 12),
        ("bytes", -1),
        ("bytes", 10**30),
        ("bytes", True),
        ("source", None),
        ("interface", ""),
        ("decided_by", None),
    ),
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    """With file, line, field, value, and what is expected."""
    traffic = read(line() + line(**{field: value}))
    assert traffic.wrong == 1
    problem = traffic.problems[0]
    assert (problem.origin.file, problem.origin.line, problem.origin.path) == ("web.log", 2, field)
    assert problem.value == (None if value is None else str(value))
    assert problem.remedy.startswith("expected ")


@pytest.mark.parametrize(
    "text",
    (
        b"{\n",
        b"[]\n",
        b'"text"\n',
        b"[" * 9_000 + b"\n",
        b"\xff\xfe\n",
        b"{" + b" " * 20_000 + b"}\n",
        b"9" * 5_000 + b"\n",
    ),
)
def test_a_line_that_is_no_object_is_named(text: bytes) -> None:
    """Whatever its bytes are."""
    traffic = read(line() + text + line())
    assert {problem.origin.line for problem in traffic.problems} == {2}
    assert len(traffic.passed) == 1


@pytest.mark.parametrize("value", ("198.51.100", 7, None, "2001:db8::1", "x" * 500))
def test_an_address_that_is_none_is_named(value: object) -> None:
    """Also one of the other family."""
    source = {"address": value, "port": 5, "network_interface_id": None}
    assert read(line(source=source)).problems[0].origin.path == "source.address"


@pytest.mark.parametrize("port", (-1, 65_536, "80", 1.5, True))
def test_a_port_that_is_none_is_named(port: object) -> None:
    """Of either end."""
    destination = {"address": HOST, "port": port, "network_interface_id": None}
    assert read(line(destination=destination)).problems[0].origin.path == "destination.port"


def test_a_last_line_that_is_being_written_is_counted() -> None:
    """One without an end that can't be understood is no error; one that can be is read."""
    assert read(line() + line()[:50]).left_out == {CUT_OFF: 1}
    assert read(line()[:-1]).left_out == {}
    assert len(read(line()[:-1]).passed) == 1


def test_a_known_line_with_a_wrong_end_is_parsed() -> None:
    """The fast way takes nothing that the slow one would refuse."""
    known = line()
    for wrong in (known.replace(b'"bytes": 60', b'"bytes": 6x'), known.replace(b": 32769,", b": 99999,")):
        assert wrong != known
        assert read(known + known + wrong).wrong == 1


def test_a_flood_of_senders_is_forgotten() -> None:
    """Conversations of one session make room for others, then most at crowded ports, and are counted."""
    traffic = Traffic(most=100)
    reader = FlowLineReader(traffic, "web.log", "web")
    use = [incoming(HOST, CLIENT, 443)]
    flood = [incoming(HOST, f"10.9.{one // 250}.{one % 250}", 443, times=1) for one in range(500)]
    reader.read(as_log([*use, *flood, *use]).splitlines(keepends=True))
    assert len(traffic.passed) <= 100
    assert traffic.left_out[FORGOTTEN] >= 400
    assert max(tally.sessions for tally in traffic.passed.values()) == 6
    crowd = [incoming(HOST, f"10.8.0.{one}", 443) for one in range(200)]
    reader.read(as_log(crowd).splitlines(keepends=True))
    assert len(traffic.passed) <= 100
    assert traffic.left_out[CROWDED] >= 100
    ports = [incoming(HOST, CLIENT, port) for port in range(1, 200)]
    with pytest.raises(UsageError, match="more than 100 pairs"):
        reader.read(as_log(ports).splitlines(keepends=True))


AWS = b"2 123456789012 eni-0a 198.51.100.7 10.0.0.11 40001 443 6 10 840 1769853600 1769853660 ACCEPT OK\n"


def test_both_records_of_a_session_are_one_conversation() -> None:
    """AWS writes one for each way; the smaller port is the server's."""
    answer = (
        b"2 123456789012 eni-0a 10.0.0.11 198.51.100.7 443 40001 6 8 9000 1769853600 1769853660 ACCEPT OK\n"
    )
    owners = {"eni-0a": {(Family.IPV4, 0x0A00000B)}}
    found, tally = only(read_records(AWS + answer, owners))
    assert (found.direction, found.port, found.far) == (Direction.INGRESS, 443, 0xC6336407)
    assert (tally.sessions, tally.packets, tally.bytes) == (1, 18, 9840)


def test_the_interfaces_own_address_is_the_one_in_most_records() -> None:
    """Where no definition and no direction says which it is."""
    other = AWS.replace(b"198.51.100.7", b"198.51.100.8")
    out = b"2 123456789012 eni-0a 10.0.0.11 192.0.2.53 50000 53 17 1 60 1769853600 1769853660 ACCEPT OK\n"
    found = {one.direction: one.far for one in read_records(AWS + other + out).passed}
    assert found[Direction.EGRESS] == 0xC0000235


def test_flags_say_who_opened_a_session() -> None:
    """Also where both ports are high, and the server's is the greater one."""
    syn = b"5 eni-0a 198.51.100.7 10.0.0.11 9000 50000 6 10 840 1769853600 1769853660 ACCEPT 2\n"
    both = b"5 eni-0a 10.0.0.11 198.51.100.7 50000 9000 6 10 840 1769853600 1769853660 ACCEPT 18\n"
    assert {one.port for one in read_records(FLAGGED + syn + both).passed} == {50_000}


_ENDS = ("srcaddr", "srcport", "dstaddr", "dstport")
_COUNTS, _COUNTED = ("packets", "bytes", "start", "end"), ("10", "840", "1769853600", "1769853660")


def test_alibabas_records_are_read_in_each_form() -> None:
    """Columns below a head, pairs, and JSON, with version 1 and a direction."""
    names = ("version", "vpc-id", "eni-id", *_ENDS, "protocol", "direction", *_COUNTS, "log-status", "action")
    values = ("1", "vpc-1", "eni-1", CLIENT, "40001", HOST, "443", "6", "in", *_COUNTED, "OK", "ACCEPT")
    pairs = dict(zip(names, values, strict=True))
    forms = (
        f"{','.join(names)}\n{','.join(values)}\n",
        f"{' '.join(names)}\n{' '.join(values)}\n",
        " ".join(f"{name}:{value}" for name, value in pairs.items()) + "\n",
        json.dumps(pairs) + "\n",
    )
    for form in forms:
        conversation, tally = only(read_records(form.encode()))
        assert (conversation.site, conversation.direction) == ("eni-1", Direction.INGRESS)
        assert conversation.near == 0x0A00000B
        assert tally.packets == 10


def test_records_without_traffic_are_counted() -> None:
    """NODATA and SKIPDATA, with dashes for fields."""
    rest = b"eni-0a - - - - - - - 1769853600 1769853660 - "
    text = b"2 123456789012 " + rest + b"NODATA\n2 123456789012 " + rest + b"SKIPDATA\n"
    assert read_records(text).left_out == {NO_RECORDS: 1, SKIPPED: 1}


def test_a_ping_is_one_conversation() -> None:
    """Request and answer are alike but for their ends; the first is who asked."""
    ask = b"2 1 eni-0a 198.51.100.7 10.0.0.11 0 0 1 3 252 1769853600 1769853660 ACCEPT OK\n"
    answer = b"2 1 eni-0a 10.0.0.11 198.51.100.7 0 0 1 3 252 1769853600 1769853660 ACCEPT OK\n"
    conversation, tally = only(read_records(ask + answer, {"eni-0a": {(Family.IPV4, 0x0A00000B)}}))
    assert (conversation.direction, conversation.port, tally.sessions) == (Direction.INGRESS, None, 1)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    (
        (b"2 1234", b"99 1234", "version"),
        (b"2 1234", b"1 1234", "version"),
        (b"ACCEPT", b"MAYBE", "action"),
        (b" OK", b" FINE", "log-status"),
        (b" 443 ", b" 70000 ", "dstport"),
        (b" 840 ", b" 99999999999999999999999 ", "bytes"),
        (b" 1769853600 ", b" noon ", "start"),
        (b" 1769853660 ", b" 253402300800 ", "end"),
        (b"198.51.100.7", b"198.51.100", "srcaddr"),
        (b"10.0.0.11", b"2001:db8::1", "dstaddr"),
        (b"198.51.100.7", b"::ffff:198.51.100.7", "srcaddr"),
        (b" 6 ", b" 256 ", "protocol"),
        (b" OK", b"", "line"),
        (b"eni-0a", b"-", "interface-id"),
    ),
)
def test_a_wrong_record_is_named(old: bytes, new: bytes, field: str) -> None:
    """With file, line and field; the others are read."""
    traffic = read_records(AWS + AWS.replace(old, new))
    assert [(one.origin.file, one.origin.line, one.origin.path) for one in traffic.problems] == [
        ("vpc.log", 2, field)
    ]
    assert len(traffic.passed) == 1


def test_a_wrong_record_leaves_nothing() -> None:
    """Its ends are no conversation, as they would be one without a first second."""
    assert read_records(AWS.replace(b" 1769853600 ", b" noon ")).passed == {}


@pytest.mark.parametrize("depth", (900, 4_000))
def test_deep_json_in_a_record_is_named(depth: int) -> None:
    """However deep the text of a value would be."""
    text = b'{"srcaddr": ' + b"[" * depth + b"]" * depth + b"}\n"
    assert [one.origin.line for one in read_records(AWS + text).problems] == [2]


def test_only_the_first_wrong_records_are_kept() -> None:
    """A wrong file of any length has some lines of errors, and the number of all."""
    traffic = read(100 * b"{\n")
    assert (traffic.wrong, len(traffic.problems)) == (100, conversations.MOST_PROBLEMS)
