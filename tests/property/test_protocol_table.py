"""One table says what is known of protocols: a row gives a protocol its ports, everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgagent.agent.flowlog.enrichment import read_head
from sgagent.compiler.selectors import readings
from sgagent.core.explanation import describe_packet, protocol_number
from sgagent.core.model import (
    PORTED,
    PORTED_NUMBERS,
    PROTOCOL_NAMES,
    Direction,
    Family,
    PortListReference,
    PortSet,
    Protocol,
)
from sgagent.core.rule_values import ported_text
from sgagent.documents.native import json_schema
from sgagent.documents.writer import write_rule
from sgagent.nft import ruleset
from sgagent.nft.fields import FIELDS
from sgagent.nft.ruleset import Interval
from sgagent.policy_test.packet_bytes import encode_packet, encode_reply
from sgagent.policy_test.scenario import parse_packets
from tests.patched_tree import ROOT, copy_patched, run_tests
from tests.unit.documents.reading import refused, rule_document, snapshot, the_rule

PATCH = {
    "sgagent/core/model.py": (
        ('ProtocolRow(SCTP, "sctp", PortUse.HEADER)', 'ProtocolRow(SCTP, "sctp", PortUse.RULES)'),
    )
}
"""What gives SCTP its ports."""

MOST_FILES = 3
EXAMPLES = "25"
"""Of each property: the table has one row more, and the same properties are held to what was there before."""

HELD_TO = (
    "tests/property/test_protocol_table.py",
    "tests/property/test_ports.py",
    "tests/property/test_header_space.py::test_boxes_say_what_the_specification_says",
    "tests/property/test_compiled.py::test_packets_of_new_sessions",
)
"""Specification, compiled table, header space and explanation against each other; and all readers."""

ported = pytest.mark.parametrize("protocol", PORTED, ids=str)


def test_a_row_gives_a_protocol_its_ports(tmp_path: Path) -> None:
    """A patch of few files is enough for SCTP, and all who read rules agree on its ports."""
    assert len(PATCH) <= MOST_FILES
    copy_patched(tmp_path, PATCH)
    not_here = (f"--deselect={HELD_TO[0]}::{test.__name__}" for test in _ONLY_HERE)
    printed = run_tests(tmp_path, *not_here, *HELD_TO, SGAGENT_EXAMPLES=EXAMPLES)
    assert "test_documents_name_it_and_its_ports[sctp] PASSED" in printed


@ported
def test_documents_name_it_and_its_ports(protocol: Protocol) -> None:
    """By name or number, with ports or a port list; it needs one of the two."""
    for word in (str(protocol), str(protocol).upper(), protocol.wire_number):
        rule = the_rule(snapshot(rule_document(protocol=word, port_range="2905", source_port_range="1/1023")))
        assert (rule.protocols, rule.ports) == ((protocol,), PortSet.of((2905, 2905)))
        assert rule.source_ports == PortSet.of((1, 1023))
        assert the_rule(snapshot(rule_document(**write_rule(rule)))) == rule
    listed = the_rule(snapshot(rule_document(protocol=str(protocol), port_range=None, port_list_id="prl-1")))
    assert listed.ports == PortListReference("prl-1")
    (missing,) = refused(rule_document(protocol=str(protocol), port_range=None))
    assert missing.code == "missing_ports"


def test_no_rule_compares_ports_of_another() -> None:
    """Neither may a document name them, nor does the compiler take them for those of UDP."""
    _, header = readings(Direction.INGRESS, Family.IPV4)
    for number in sorted({*range(256)} - {*PORTED_NUMBERS}):
        (problem,) = refused(rule_document(protocol=number, port_range="80", authorization_object="sg-1"))
        assert problem.code == "ports_do_not_fit"
        with pytest.raises(ValueError, match="no rule compares ports"):
            header.match_port(number, Interval(80, 80))
        with pytest.raises(ValueError, match="no rule compares ports"):
            header.read_source_port(number)


@ported
def test_nftables_is_asked_for_its_header(protocol: Protocol) -> None:
    """The decoder knows the selectors that the compiler uses."""
    rows = {row.selector for row in FIELDS}
    for selector in (ruleset.source_port(protocol), ruleset.destination_port(protocol)):
        assert selector in rows
        assert selector in ruleset.SELECTORS
        assert selector.key.split()[0] == str(protocol)


PACKETS = """
    {"bind": {"eth0": ["sg-1"]}, "packets": [{"name": "one", "direction": "ingress", "source": "%s",
     "destination": "%s", "protocol": "%s", "port": 2905, "source_port": 1024, "expect": "accept"}]}
"""


@ported
@pytest.mark.parametrize("ends", (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")))
def test_packets_carry_its_ports(protocol: Protocol, ends: tuple[str, str]) -> None:
    """A packet test says them, the sender writes them, and the flow log reads them again."""
    (expected,) = parse_packets((PACKETS % (*ends, protocol)).encode(), "packets.yaml").packets
    packet = expected.packet
    assert (packet.protocol, packet.source_port, packet.destination_port) == (protocol.number, 1024, 2905)
    assert read_ends(next(encode_packet(packet).datagrams(1))) == (protocol.number, 1024, 2905)
    reply = encode_reply(packet)
    assert reply is not None
    assert read_ends(next(reply.datagrams(1))) == (protocol.number, 2905, 1024)
    assert f"{protocol} from {ends[0]} port 1024 to {ends[1]} port 2905" in describe_packet(packet)
    assert protocol_number(str(protocol)) == protocol.number


def read_ends(datagram: bytes) -> tuple[int | None, int | None, int | None]:
    """Return protocol and ports as the flow log reads them."""
    head = read_head(datagram)
    assert head is not None
    return head.protocol, head.source_port, head.destination_port


def test_schema_and_messages_name_the_protocols_of_the_table() -> None:
    """Editors suggest the names, and a wrong one is answered with all of them."""
    names = tuple(PROTOCOL_NAMES.values())
    schema = json.dumps(json_schema())
    assert f'"enum": {json.dumps(names)}' in schema
    assert f"{ported_text('and')} need them" in schema
    (problem,) = refused(rule_document(protocol="tpc"))
    assert problem.remedy == f"{', '.join(names)}, or a number from 0 to 255"


def test_the_reference_names_the_protocols_of_the_table() -> None:
    """Whoever adds a row reads here which page to change."""
    names = ", ".join(f"`{name}`" for name in PROTOCOL_NAMES.values())
    assert f"{names}, a number 0 to 255" in (ROOT / "docs" / "documents.md").read_text(encoding="utf-8")


_ONLY_HERE = (test_a_row_gives_a_protocol_its_ports, test_the_reference_names_the_protocols_of_the_table)
"""What is no test of the patched package: the patch itself, and the documentation that it does not change."""
