"""What commands make of names: what the agent knows of them counts (§12.3)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sgagent.agent.names.name_table import DnsAnswer, NameLookUp, NameTable
from sgagent.agent.names.resolver import FILE_NAME
from sgagent.cli.main import main
from sgagent.core.model import Family
from sgagent.json_model import seal
from tests.words import blocks

NAME = "mirror.example.org"
A, B = "192.0.2.80", "192.0.2.81"
POLICY = """\
version: 1
security_groups:
  - security_group_id: sg-builder
    type: advanced
    member_addresses: [10.0.0.11]
    rules:
      - {{rule_id: sgr-mirror, direction: egress, policy: accept, protocol: tcp, port_range: 443,
         authorization_object: {objects}}}
      - {{rule_id: sgr-office, direction: ingress, policy: accept, protocol: tcp, port_range: 22,
         authorization_object: dns:office.example.org}}
"""
BOUND = ("--interface", "eth0=sg-builder")


@dataclass(frozen=True)
class Place:
    """A configuration, documents and a state."""

    directory: Path
    read_output: Callable[[], Any]

    def know(self, **addresses: tuple[str, ...]) -> None:
        """Have the agent know the names, written with underscores."""
        table = NameTable(keep_seconds=86_400.0, most_addresses=64, most_unused=10)
        for written, texts in addresses.items():
            answer = DnsAnswer(frozenset(blocks(*texts)), 60.0)
            table.take(NameLookUp(written.replace("_", "."), {Family.IPV4: answer}), 0.0)
        (self.directory / "state").mkdir(exist_ok=True)
        (self.directory / "state" / FILE_NAME).write_bytes(seal(table.as_json(0.0, time.time()), 1))

    def define(self, objects: str = f"dns:{NAME}", name: str = "groups.yaml") -> Path:
        """Write the documents."""
        (self.directory / name).write_text(POLICY.format(objects=objects))
        return self.directory / name

    def run(self, *arguments: object, code: int = 0) -> tuple[str, str]:
        """Run a command that asks nobody, and return what it prints."""
        command, *others = map(str, arguments)
        no_dns = () if command == "test" else ("--no-dns",)
        assert main([command, "--config", str(self.directory / "sgagent.toml"), *no_dns, *others]) == code
        captured = self.read_output()
        return captured.out, captured.err


@pytest.fixture
def place(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Place:
    """Return a place without anything known."""
    (tmp_path / "sgagent.toml").write_text(
        f'[source]\npath = "{tmp_path}/groups.yaml"\n[dns]\nservers = ["192.0.2.53"]\n'
        f'[state]\ndirectory = "{tmp_path}/state"\nruntime_directory = "{tmp_path}/run"\n'
    )
    made = Place(tmp_path, capsys.readouterr)
    made.define()
    return made


def verdict(place: Place, address: str, protocol: str = "tcp", port: int = 443) -> tuple[str, str]:
    """Return what becomes of a packet to an address, and what decides."""
    ends = ("--source", "10.0.0.11", "--destination", address, "--protocol", protocol, "--port", port)
    answer = json.loads(place.run("explain", "egress", *ends, *BOUND, "--json")[0])
    return answer["verdict"], answer["decided_by"]


def test_explain_takes_what_the_agent_knows(place: Place) -> None:
    """And nothing where it knows nothing; name servers are fail-safe."""
    assert verdict(place, A) == ("drop", "default")
    place.know(mirror_example_org=(A,))
    assert verdict(place, A) == ("accept", "rule")
    assert verdict(place, B) == ("drop", "default")
    assert verdict(place, "192.0.2.53", "udp", 53) == ("accept", "failsafe")


def test_check_says_which_name_is_unresolved(place: Place) -> None:
    """With its line; strict, that is an error."""
    place.know(office_example_org=())
    found = json.loads(place.run("check", *BOUND, "--json")[0])
    (problem,) = found["problems"]
    assert (problem["code"], problem["value"], problem["line"]) == ("unresolved_name", f"dns:{NAME}", 8)
    place.run("check", *BOUND, "--strict", code=2)
    place.know(mirror_example_org=(A,), office_example_org=())
    assert json.loads(place.run("check", *BOUND, "--json")[0])["problems"] == []


def test_check_says_what_of_an_answer_does_not_count(place: Place) -> None:
    """As the agent's log does."""
    place.know(mirror_example_org=("127.0.0.1", A), office_example_org=())
    found = json.loads(place.run("check", *BOUND, "--json")[0])
    assert [problem["code"] for problem in found["problems"]] == ["name_of_inside"]


def test_a_compiled_table_has_the_addresses_and_is_proved(place: Place) -> None:
    """``verify`` resolves names by the same."""
    place.know(mirror_example_org=(A,), office_example_org=())
    text, _ = place.run("compile", "--dry-run", "--no-verify", *BOUND)
    assert A in text
    table = place.directory / "table.nft"
    table.write_text(text)
    place.run("verify", "--ruleset", table, *BOUND)
    place.know(mirror_example_org=(A, B), office_example_org=())
    place.run("verify", "--ruleset", table, *BOUND, code=1)


def test_plan_shows_what_a_name_opens(place: Place) -> None:
    """By the same answers on both sides."""
    place.know(mirror_example_org=(A,), office_example_org=())
    old = place.define("10.0.0.1", "old.yaml")
    found = json.loads(place.run("plan", "--against", old, *BOUND, "--json")[0])
    opened = [flow for flow in found["flows"] if flow["effect"] == "opens"]
    assert [flow["addresses"] for flow in opened] == [[A]]
    assert opened[0]["object"] == f"dns:{NAME}"
    assert json.loads(place.run("plan", "--against", place.define(), *BOUND, "--json")[0])["flows"] == []


def test_lint_warns_inwards_alone(place: Place) -> None:
    """Who controls the name controls the rule."""
    place.know(mirror_example_org=(A,), office_example_org=("192.0.2.7",))
    found = json.loads(place.run("lint", "--json")[0])
    named = [one["rule_ids"] for one in found["findings"] if one["code"] == "dns_ingress"]
    assert named == [["sgr-office"]]


def test_graph_draws_a_name(place: Place) -> None:
    """As a node of its own."""
    place.know(mirror_example_org=(A,), office_example_org=())
    found = json.loads(place.run("graph", "--json")[0])
    assert ("dns:mirror.example.org", "name") in {(node["name"], node["kind"]) for node in found["nodes"]}


def test_packet_tests_state_what_the_dns_says(place: Place) -> None:
    """A file that does not is told which name it lacks."""
    packets = place.directory / "packets.yaml"
    text = """
definitions: groups.yaml
dns: {{{names}}}
bind: {{eth0: [sg-builder]}}
packets:
  - {{name: the mirror, direction: egress, source: 10.0.0.11, destination: 192.0.2.80,
     protocol: tcp, port: 443, expect: accept, rule_id: sgr-mirror}}
"""
    packets.write_text(text.format(names="MIRROR.example.org.: [192.0.2.80], office.example.org: []"))
    place.run("test", packets)
    packets.write_text(text.format(names="office.example.org: []"))
    _, errors = place.run("test", packets, code=1)
    assert f"dns:{NAME}" in errors


def test_a_damaged_file_of_names_is_none(place: Place) -> None:
    """The command goes on without."""
    (place.directory / "state").mkdir()
    (place.directory / "state" / FILE_NAME).write_text("{")
    assert verdict(place, A) == ("drop", "default")
