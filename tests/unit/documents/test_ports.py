"""Sets of ports in documents: written as they are read, and part of a snapshot's version."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sgagent.core.model import TCP, PortList, PortSet, SecurityGroupRule
from sgagent.documents.writer import write_document, write_rule
from tests.unit.documents.reading import codes, parse, refused, rule_document, snapshot, the_rule
from tests.words import ACCEPT, rule

DOCUMENT = """
    version: 1
    security_groups:
      - security_group_id: sg-web
        rules:
          - direction: ingress
            policy: accept
            protocol: tcp
            port_range: [443, 80/80, 81, 8000-8100]
            source_port_range: 1024/65535
            authorization_object: 192.0.2.0/24
          - direction: ingress
            policy: accept
            protocol: udp
            port_list_id: prl-a
            authorization_object: 192.0.2.0/24
          - direction: egress
            policy: drop
            protocol: all
            authorization_object: 192.0.2.0/24
    port_lists:
      - port_list_id: prl-a
        entries: [53, 5353/5354]
"""


def test_versions_and_derived_ids_stay_from_release_to_release() -> None:
    """Hosts of several releases compare versions, and counters are kept by rule id (§4.7)."""
    found = snapshot(DOCUMENT)
    assert found.version == "sha256:6b8c796ff49b"
    assert [one.rule_id for one in found.security_groups[0].rules] == [
        "auto-a0eb605798d12fbe",
        "auto-c05f56e4b444c39d",
        "auto-c332b7e7ac5f0399",
    ]


@pytest.mark.parametrize(
    "entries",
    (PortSet(), PortSet.of((53, 53)), PortSet.of((0, 65535)), PortSet.of((0, 65535), (1, 65535), (80, 80))),
)
def test_a_port_list_is_written_as_it_is_read(entries: PortSet) -> None:
    """So it is with ``-1/-1`` in it, which stands for port 0 too."""
    definitions = replace(
        snapshot("version: 1\n"), port_lists=(PortList(port_list_id="prl-1", entries=entries),)
    )
    found, _ = parse(json.dumps(write_document(definitions)))
    assert found.port_lists == definitions.port_lists


WEB = rule("r1", ACCEPT, TCP, "80", "192.0.2.1")


@pytest.mark.parametrize("empty", (replace(WEB, ports=PortSet()), replace(WEB, source_ports=PortSet())))
def test_no_reader_takes_the_empty_set_of_ports(empty: SecurityGroupRule) -> None:
    """A rule that matches nothing is not written as one that matches every port."""
    assert codes(refused(rule_document(**write_rule(empty)))) == ["bad_port_range"]


@pytest.mark.parametrize("written", ("80", "[80, 443]", "-1/-1"))
def test_ports_of_a_rule_are_written_as_they_are_read(written: str) -> None:
    """As one text, or a list of several."""
    text = json.loads(written) if written.startswith("[") else written
    found, _ = parse(rule_document(port_range=text, source_port_range=text))
    again, _ = parse(rule_document(**write_rule(the_rule(found))))
    assert the_rule(again) == the_rule(found)
