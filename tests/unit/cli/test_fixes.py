"""``sgagent lint --fix``: which edits are made, and how documents look after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.corpus import EXAMPLES
from tests.unit.cli.runner import Run

CASE_3 = """\
version: 1
security_groups:
  - security_group_id: sg-db
    type: basic
    rules:
      # for everything else
      - rule_id: open
        direction: ingress
        policy: accept
        priority: 1   # first
        protocol: tcp
        port_range: 1/65535
        authorization_object: 0.0.0.0/0
      - {rule_id: mysql, direction: ingress, policy: accept, priority: 1, protocol: tcp, port_range: 3306,
         authorization_object: 172.16.1.2}
      - {rule_id: nomysql, direction: ingress, policy: drop, priority: 100, protocol: tcp, port_range: 3306,
         authorization_object: 0.0.0.0/0}
      - {rule_id: extra, direction: ingress, policy: accept, priority: 100, protocol: tcp, port_range: 8080,
         authorization_object: 172.16.1.2}   # needless
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """Return the guide's case 3 with a broad accept that decides first."""
    path = tmp_path / "case3.yaml"
    path.write_text(CASE_3)
    return path


def verdict(run: Run, path: Path, source: str, port: int) -> str:
    """Return what becomes of a packet to the database."""
    _, output, _ = run(
        *("explain", "--definitions", path, "--interface", "eth0=sg-db", "ingress", "--json"),
        *("--source", source, "--destination", "10.0.0.1", "--protocol", "tcp", "--port", port),
    )
    return str(json.loads(output)["verdict"])


def fixes(run: Run, path: Path) -> dict[str, dict[str, object]]:
    """Return the fixes by code."""
    findings = json.loads(run("lint", path, "--json")[1])["findings"]
    return {one["code"]: one["fix"] for one in findings if "fix" in one}


def test_a_finding_has_the_edits_and_what_they_change(run: Run, document: Path) -> None:
    """In case 3 the broad accept moves behind the closing drop, and that stays behind MySQL's client."""
    found = fixes(run, document)
    assert found["void_drop"]["edits"] == [
        {"rule_id": "nomysql", "security_group_id": "sg-db", "set": {"priority": 99}},
        {"rule_id": "open", "security_group_id": "sg-db", "set": {"priority": 100}},
    ]
    assert found["void_drop"]["effect"] == "plan"
    assert found["never_reached"] == {
        "edits": [{"rule_id": "extra", "security_group_id": "sg-db", "remove": True}],
        "effect": "none",
        "flows": [],
    }


def test_what_changes_no_verdict_is_fixed(run: Run, document: Path) -> None:
    """The rest stays as it is, comments included."""
    code, output, _ = run("lint", "--fix", document)
    assert code == 0
    assert output.startswith(f"remove extra\n1 edit in {document}: no verdict changes\n")
    assert document.read_text() == CASE_3[: CASE_3.index("      - {rule_id: extra")]
    assert "nothing to fix" in run("lint", "--fix", document)[1]


def test_what_changes_verdicts_is_fixed_by_its_code(run: Run, document: Path) -> None:
    """The plan comes first; the database's own client gets in, and nobody else does."""
    _, output, _ = run("lint", document, "--fix=void_drop")
    assert output.startswith(
        "closes ingress: tcp 3306 from 0.0.0.0/0 but 172.16.1.2: dropped by nomysql of sg-db"
        " (was accepted by open of sg-db)\n"
    )
    assert "priority: 100   # first" in document.read_text()
    assert [verdict(run, document, *packet) for packet in PACKETS] == ["accept", "drop", "accept"]
    assert "void_drop" not in fixes(run, document)
    assert "contradicting_tie" not in run("lint", document)[1]


PACKETS = (("172.16.1.2", 3306), ("198.51.100.1", 3306), ("198.51.100.1", 8080))


def test_a_database_is_left_out_of_a_broad_range(run: Run, document: Path) -> None:
    """Its own client gets in by its own rule."""
    run("lint", document, "--fix=database_without_closing_drop")
    assert 'port_range: ["1/3305", "3307/65535"]' in document.read_text()
    assert [verdict(run, document, *packet) for packet in PACKETS] == ["accept", "drop", "accept"]


@pytest.mark.parametrize("protocol", ("tcp", "all"))
def test_a_database_is_not_left_out_of_every_port(run: Run, document: Path, protocol: str) -> None:
    """Port 0, or protocols without ports, would be lost: no document names them beside ranges."""
    text = CASE_3.replace(
        "protocol: tcp\n        port_range: 1/65535", f"protocol: {protocol}\n        port_range: -1/-1"
    )
    document.write_text(text)
    findings = json.loads(run("lint", document, "--json")[1])["findings"]
    (found,) = [one for one in findings if one["code"] == "database_without_closing_drop"]
    assert "fix" not in found
    assert found["remedy"] == "narrow it to the ports or addresses that are meant"


def test_the_closing_drop_of_the_guide_is_no_tie(run: Run) -> None:
    """At the priority of the broad accept it closes ports of it, and the own rules are not needless."""
    found = fixes(run, EXAMPLES / "3-databases" / "groups.d")
    assert set(found) == {"database_without_closing_drop"}


def test_anchors_are_not_edited(run: Run, tmp_path: Path) -> None:
    """An edit of a rule that stands twice would change both."""
    path = tmp_path / "anchors.yaml"
    fields = "direction: egress, policy: drop, protocol: tcp"
    rule = f"{{{fields}, port_range: 22, authorization_object: 10.0.0.0/8}}"
    wide = f"{{{fields}, port_range: 20-30, authorization_object: 0.0.0.0/0}}"
    text = (
        "version: 1\nsecurity_groups:\n"
        f"- {{security_group_id: sg-a, type: basic, rules: [&x {rule}, {wide}]}}\n"
        "- {security_group_id: sg-b, type: basic, rules: [*x]}\n"
    )
    path.write_text(text)
    code, _, errors = run("lint", path, "--fix")
    assert (code, path.read_text()) == (2, text)
    assert "by hand" in errors


def test_a_saved_answer_of_the_cloud_is_not_edited(run: Run, tmp_path: Path) -> None:
    """The rule has to be edited there."""
    path = tmp_path / "answer.json"
    rule = {
        "Policy": "Accept",
        "Direction": "ingress",
        "IpProtocol": "TCP",
        "PortRange": "80/80",
        "Priority": 1,
    }
    rules = [rule | {"SourceCidrIp": source} for source in ("10.0.0.0/8", "10.1.0.0/16")]
    answer = {"SecurityGroupId": "sg-a", "Permissions": {"Permission": rules}}
    kind = {"SecurityGroups": {"SecurityGroup": [{"SecurityGroupId": "sg-a", "SecurityGroupType": "normal"}]}}
    path.write_text(json.dumps([answer, kind]))
    code, _, errors = run("lint", path, "--fix")
    assert code == 2
    assert "an answer of the cloud" in errors


def test_an_unknown_code(run: Run, document: Path) -> None:
    """The codes are told."""
    code, _, errors = run("lint", document, "--fix=void")
    assert code == 2
    assert "no check has this code" in errors


LIMITED = """\
version: 1
security_groups:
  - security_group_id: sg-a
    type: basic
    rules:
      - {rule_id: no, direction: ingress, policy: drop, priority: NO, protocol: tcp,
         port_range: 443, authorization_object: 10.0.0.0/8}
      - {rule_id: slow, direction: ingress, policy: accept, priority: 2, protocol: tcp,
         port_range: 443, authorization_object: 0.0.0.0/0, limit_per_source: {rate: 10/minute}}
      - {rule_id: office, direction: ingress, policy: accept, priority: OFFICE, protocol: tcp,
         port_range: 443, authorization_object: 192.0.2.0/24}
"""


def limited(run: Run, path: Path, no: str, office: str) -> dict[str, dict[str, Any]]:
    """Return the findings that have a fix, by code, of a drop and an accept around one with a limit."""
    path.write_text(LIMITED.replace("NO", no).replace("OFFICE", office))
    findings = json.loads(run("lint", path, "--json")[1])["findings"]
    return {one["code"]: one for one in findings if "fix" in one}


def test_what_is_behind_a_limit_is_never_reached(run: Run, document: Path) -> None:
    """What exceeds it is dropped (§13.1): to go without effect, or before it, is what the rule can do."""
    finding = limited(run, document, no="1", office="3")["never_reached"]
    assert finding["message"] == (
        "no packet reaches it: slow of sg-a decides before, and what exceeds the limit is dropped"
    )
    assert finding["remedy"] == "remove it: no verdict changes, or put it before slow"
    assert (finding["rule_id"], finding["fix"]["effect"]) == ("office", "none")


def test_a_limit_that_is_never_reached_has_no_effect(run: Run, document: Path) -> None:
    """The rule before it accepts without one, and stays, as the limit would have an effect without it."""
    text = LIMITED.replace("0.0.0.0/0", "192.0.2.0/25").replace("NO", "1").replace("OFFICE", "1")
    document.write_text(text)
    findings = json.loads(run("lint", document, "--json")[1])["findings"]
    (finding,) = (one for one in findings if one["code"] == "never_reached")
    assert finding["rule_id"] == "slow"
    assert finding["message"].endswith("decides before, and its limit has no effect")
    assert finding["remedy"].endswith("or put it before office to limit sources")


def test_an_exception_of_a_limit_stays(run: Run, document: Path) -> None:
    """All would be accepted without it, but not without end."""
    assert limited(run, document, no="1", office="1") == {}


@pytest.mark.parametrize(("code", "no"), (("contradicting_tie", "2"), ("void_drop", "50")))
def test_a_fix_lifts_no_limit(run: Run, document: Path, code: str, no: str) -> None:
    """Behind an accept of the same packets a rule would limit them no more."""
    edits = limited(run, document, no, office="60" if no == "50" else "3")[code]["fix"]["edits"]
    priorities = {edit["rule_id"]: edit["set"]["priority"] for edit in edits}
    assert priorities.get("slow", 2) < 3


def test_what_members_need_without_their_inner_policy_stays(run: Run, document: Path) -> None:
    """The advice to set it to drop would cut members off if their own rule had gone before."""
    document.write_text(
        """\
version: 1
security_groups:
  - security_group_id: sg-a
    type: basic
    inner_access_policy: accept
    rules:
      - {direction: ingress, policy: accept, protocol: tcp, port_range: 5432, authorization_object: sg-a}
network_interfaces:
  - {network_interface_id: eni-1, addresses: [10.0.0.1], security_group_ids: [sg-a]}
  - {network_interface_id: eni-2, addresses: [10.0.0.2], security_group_ids: [sg-a]}
"""
    )
    assert [one["code"] for one in json.loads(run("lint", document, "--json")[1])["findings"]] == [
        "needless_inner_accept"
    ]
    assert "nothing to fix" in run("lint", "--fix", document)[1]
