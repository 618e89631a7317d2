"""``sgagent test``: what is printed, what build servers get, the exit code, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.unit.cli.runner import Run, runner

GROUP = """\
version: 1
security_groups:
  - security_group_id: sg-web
    type: basic
    rules:
      - {rule_id: sgr-web, direction: ingress, policy: accept, priority: 10, protocol: tcp, port_range: 443,
         authorization_object: 0.0.0.0/0}
      - {rule_id: sgr-abuse, direction: ingress, policy: drop, priority: 5, protocol: all,
         authorization_object: 192.0.2.0/24}
"""
HEAD = "bind: {eth0: [sg-web]}\npackets:\n"
GOOD = """\
  - {name: a customer, direction: ingress, source: 198.51.100.1, destination: 10.0.0.11, protocol: tcp,
     port: 443, expect: accept, decided_by: rule, rule_id: sgr-web}
  - {name: the answer, replies_to: a customer, expect: accept, decided_by: session}
"""
BAD = """\
  - {name: an abuser, direction: ingress, source: 192.0.2.1, destination: 10.0.0.11, protocol: tcp, port: 443,
     expect: accept, rule_id: sgr-web, security_group_id: sg-web}
  - {name: its answer, replies_to: an abuser, expect: accept}
  - {name: a ping, direction: ingress, source: 198.51.100.1, destination: 10.0.0.11, protocol: icmp,
     expect: accept, decided_by: rule}
"""
ABUSER = "ingress tcp from 192.0.2.1 port 40000 to 10.0.0.11 port 443 on eth0"
LATER = "sgr-web matches too, but comes later"
ABUSE = "drop by sgr-abuse of sg-web (priority 5, object 192.0.2.0/24)"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that tests where a group is, and a file of packets that it passes."""
    monkeypatch.chdir(tmp_path)
    Path("groups.d").mkdir()
    Path("groups.d/web.yaml").write_text(GROUP)
    Path("packets.yaml").write_text(HEAD + GOOD)
    Path("sgagent.toml").write_text(f'[source]\npath = "{tmp_path}/groups.d"\n')
    return runner(capsys, "test", "--config", "sgagent.toml")


def test_a_policy_that_does_what_it_should_passes(run: Run) -> None:
    """One line for a file, without a word about what passed."""
    assert run("packets.yaml") == (0, "packets.yaml: 2 passed\n", "")


def test_a_failure_says_what_was_expected_what_came_and_by_what(run: Run) -> None:
    """The rule that decided, the one that should have where it stands behind, the packet and its line."""
    Path("packets.yaml").write_text(HEAD + GOOD + BAD)
    code, output, _ = run("packets.yaml")
    assert code == 1
    assert output.splitlines() == [
        "packets.yaml: 3 failed, 2 passed",
        f"  FAILED an abuser: expected accept by sgr-web of sg-web, got {ABUSE}; {LATER}",
        f"    {ABUSER} (packets.yaml:6)",
        f"  FAILED its answer: expected accept, got {ABUSE}",
        f"    the answer to {ABUSER} (packets.yaml:8)",
        "  FAILED a ping: expected accept by a rule, got drop by default",
        "    ingress icmp type 8 from 198.51.100.1 to 10.0.0.11 on eth0 (packets.yaml:9)",
    ]


def test_verbose_names_what_passed_and_what_decided(run: Run) -> None:
    """With the sum at the end."""
    assert run("packets.yaml", "--verbose")[1].splitlines() == [
        "packets.yaml: 2 passed",
        "  passed a customer: accept by sgr-web of sg-web (priority 10, object 0.0.0.0/0)",
        "  passed the answer: accept by session",
        "",
        "2 passed",
    ]


def test_without_a_path_the_packets_beside_the_definitions_are_meant(run: Run, tmp_path: Path) -> None:
    """Those of the configured source, or of --definitions."""
    assert run()[:2] == (0, f"{tmp_path}/packets.yaml: 2 passed\n")
    assert run("--definitions", "groups.d")[:2] == (0, f"{tmp_path}/packets.yaml: 2 passed\n")


def test_a_directory_is_searched(run: Run) -> None:
    """Every file of packets in it is tested, each by the definitions that it names; the sum is at the end."""
    for name in ("b", "a"):
        Path(name).mkdir()
        Path(name, "packets.yaml").write_text("definitions: ../groups.d\n" + HEAD + GOOD)
    code, output, _ = run(".")
    assert (code, output.splitlines()) == (
        0,
        ["a/packets.yaml: 2 passed", "b/packets.yaml: 2 passed", "packets.yaml: 2 passed", "", "6 passed"],
    )


def test_what_several_files_are_about_is_warned_of_once(run: Run) -> None:
    """By the lines of the documents, however each file names them."""
    late = "authorization_object: sg-nowhere}\n      - {rule_id: a, direction: ingress, policy: accept,"
    late += " priority: 110, protocol: tcp, port_range: 80, authorization_object: sg-nowhere}\n"
    text = GROUP.replace("authorization_object: 192.0.2.0/24}\n", late).replace("drop", "accept")
    Path("groups.d/web.yaml").write_text(text)
    for name in ("b", "a"):
        Path(name).mkdir()
        Path(name, "packets.yaml").write_text("definitions: ../groups.d\n" + HEAD + GOOD)
    code, _, errors = run("a", "b")
    lines = [line.split(": ")[1].rpartition(":")[2] for line in errors.splitlines()]
    assert code == 0
    assert lines == ["8", "10", "10"]


def test_other_definitions_can_be_named(run: Run) -> None:
    """A candidate is tested by the packets that what is in force passes."""
    Path("candidate.yaml").write_text(GROUP.replace("port_range: 443", "port_range: 80"))
    code, output, _ = run("packets.yaml", "--definitions", "candidate.yaml")
    assert code == 1
    assert "got drop by default" in output


def test_json(run: Run) -> None:
    """One object: the sums, and each expectation with what came of it."""
    Path("packets.yaml").write_text(HEAD + GOOD + BAD)
    found = json.loads(run("packets.yaml", "--json")[1])
    assert {name: found[name] for name in ("passed", "failed", "left_out")} == {
        "passed": 2,
        "failed": 3,
        "left_out": 0,
    }
    (file,) = found["files"]
    abuser = next(test for test in file["tests"] if test["name"] == "an abuser")
    assert (file["file"], file["definitions"]) == ("packets.yaml", "groups.d")
    assert (abuser["line"], abuser["result"]) == (6, "failed")
    assert abuser["got"] == {
        "verdict": "drop",
        "decided_by": "rule",
        "rule_id": "sgr-abuse",
        "security_group_id": "sg-web",
        "priority": 5,
        "shadowed": ["sgr-web"],
    }


def test_junit(run: Run) -> None:
    """A suite for each file, a case for each packet, and a failure with what came instead."""
    Path("packets.yaml").write_text(HEAD + GOOD + BAD.replace("a ping", '"<ping> \\x1b[31m"'))
    assert run("packets.yaml", "--junit", "results.xml")[0] == 1
    root = ET.fromstring(Path("results.xml").read_text())  # noqa: S314 - we have written it
    (suite,) = root
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"]) == ("5", "3", "0")
    names = {case.attrib["name"]: case.find("failure") for case in suite}
    assert names["a customer"] is None
    failure = names["<ping> \\x1b[31m"]
    assert failure is not None
    assert failure.attrib["message"] == "expected accept by a rule, got drop by default"


@pytest.mark.parametrize(
    ("packets", "told"),
    (
        pytest.param(
            HEAD + GOOD.replace("direction", "interface: eth9, direction"),
            "packets.yaml:3: packets[0].interface: is not bound: 'eth9' (one of eth0)",
            id="an interface that nobody has",
        ),
        pytest.param(
            HEAD.replace("[sg-web]", "eni-9") + GOOD,
            "packets.yaml:1: bind.eth0: the network interface is not in the definitions: 'eni-9'",
            id="a network interface that the definitions lack",
        ),
        pytest.param(
            HEAD.replace("sg-web", "sg-9") + GOOD,
            "packets.yaml:1: bind.eth0",
            id="a group that the definitions lack",
        ),
        pytest.param(
            HEAD.replace("eth0", "a name/of 17 chars") + GOOD,
            "packets.yaml:1: bind.a name/of 17 chars: not an interface name",
            id="a name that no link has",
        ),
        pytest.param(
            "definitions: elsewhere\n" + HEAD + GOOD,
            "packets.yaml: definitions: elsewhere",
            id="definitions that are not there",
        ),
    ),
)
def test_what_makes_no_sense_is_refused(run: Run, packets: str, told: str) -> None:
    """Exit code 2, and an error with the file and the field; nothing is printed as a result."""
    Path("packets.yaml").write_text(packets)
    code, output, errors = run("packets.yaml")
    assert (code, output) == (2, "")
    assert told in errors


def test_a_path_that_is_not_there_is_wrong_use(run: Run) -> None:
    """As is a directory without packets, and a default that is not there."""
    assert run("nowhere.yaml")[::2] == (
        2,
        "sgagent: nowhere.yaml: the packets can't be read: No such file or directory\n",
    )
    Path("empty").mkdir()
    assert run("empty")[0] == 2
    Path("packets.yaml").unlink()
    assert "name a file of packets" in run()[2]
