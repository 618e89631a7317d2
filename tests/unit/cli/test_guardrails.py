"""Guardrails on the command line: who is refused, and what people and scripts are told (§13.4)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgagent.cli.keygen import load_key
from sgagent.cli.main import main

DOCUMENTS = """
version: 1
security_groups:
  - security_group_id: sg-db
    inner_access_policy: drop
    rules:
      - {rule_id: r1, direction: ingress, policy: accept, protocol: tcp, port_range: 5432,
         authorization_object: 0.0.0.0/0}
"""
RAILS = "never: [{id: no-db, reason: customers' data, to: sg-db, ports: 5432}]"
PACKETS = """
definitions: d.yaml
bind: {eth0: [sg-db]}
packets: []
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with a policy that breaks the statement beside it."""
    (tmp_path / "d.yaml").write_text(DOCUMENTS, encoding="utf-8")
    (tmp_path / "g.yaml").write_text(RAILS, encoding="utf-8")
    (tmp_path / "packets.yaml").write_text(PACKETS, encoding="utf-8")
    (tmp_path / "sgagent.toml").write_text("", encoding="utf-8")
    return tmp_path


def run(files: Path, command: str, *arguments: str, rails: str = "g.yaml") -> int:
    """Run a command with the guardrails; return its exit code."""
    config = ["--config", str(files / "sgagent.toml")]
    return main([command, *config, *arguments, *(["--guardrails", str(files / rails)] if rails else [])])


def configure(files: Path, text: str = "") -> None:
    """Configure the guardrails."""
    table = f'[guardrails]\npath = "{files / "g.yaml"}"\n'
    (files / "sgagent.toml").write_text(table + text, encoding="utf-8")


HERE = ("--interface", "eth0=sg-db")


@pytest.mark.parametrize(
    ("command", "arguments"),
    (("check", ()), ("check", HERE), ("compile", ("--dry-run", *HERE)), ("plan", HERE)),
)
def test_a_policy_that_breaks_one_is_refused(
    files: Path, command: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Statement, rule and a packet are named; without the guardrails it is not refused."""
    assert run(files, command, *arguments, str(files / "d.yaml")) == 2
    told = "".join(capsys.readouterr())
    assert "guardrail no-db (never ingress from any to sg-db, tcp, udp 5432/5432)" in told
    assert "rule r1 of sg-db accepts tcp from 203.0.113.1 port 49152 to 192.0.2.1 port 5432" in told
    assert f"{files / 'd.yaml'}:7" in told
    assert run(files, command, *arguments, str(files / "d.yaml"), rails="") == 0


def test_packet_tests_refuse_it_too(files: Path) -> None:
    """On the links that the packets bind."""
    assert run(files, "test", str(files / "packets.yaml")) == 2
    assert run(files, "test", str(files / "packets.yaml"), rails="") == 0


def test_the_configured_ones_count_without_an_option(files: Path) -> None:
    """The option takes their place."""
    configure(files)
    assert run(files, "check", str(files / "d.yaml"), rails="") == 2
    (files / "none.yaml").write_text("guardrails: []", encoding="utf-8")
    assert run(files, "check", str(files / "d.yaml"), rails="none.yaml") == 0


def test_in_observe_mode_it_is_a_warning(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is dropped there anyway."""
    configure(files, '[enforcement]\nmode = "observe"\n')
    assert run(files, "check", str(files / "d.yaml"), rails="") == 0
    assert "warning" in capsys.readouterr().out


def test_scripts_get_what_breaks_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Statement, rule and packet, field by field."""
    run(files, "check", "--json", str(files / "d.yaml"))
    (found,) = json.loads(capsys.readouterr().out)["guardrails"]
    assert (found["id"], found["reason"], found["rule_id"]) == ("no-db", "customers' data", "r1")
    assert (found["packet"]["protocol"], found["packet"]["destination_port"]) == ("tcp", 5432)


def test_a_code_host_gets_the_place_of_the_rule(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As SARIF."""
    run(files, "check", "--sarif", str(files / "d.yaml"))
    (found,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert (found["ruleId"], found["level"]) == ("guardrail_broken", "error")
    assert found["locations"][0]["physicalLocation"]["region"] == {"startLine": 7}


def test_wrong_guardrails_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As wrong documents are; a path that is not there is wrong use."""
    (files / "g.yaml").write_text("never: [{id: no-db, reason: r, ports: 0}]", encoding="utf-8")
    assert run(files, "check", str(files / "d.yaml")) == 2
    assert "port_out_of_range" not in capsys.readouterr().out.replace("the port is out of range", "")
    assert run(files, "check", str(files / "d.yaml"), rails="missing.yaml") == 2


def test_a_group_that_is_attached_nowhere_is_checked(files: Path) -> None:
    """`always` demands nothing of it."""
    rails = "always: [{id: a, reason: r, from: any, protocol: tcp, ports: 22}]"
    (files / "g.yaml").write_text(rails, encoding="utf-8")
    assert run(files, "check", str(files / "d.yaml")) == 0
    assert run(files, "check", *HERE, str(files / "d.yaml")) == 2


def test_they_are_signed_as_documents_are(files: Path) -> None:
    """With the key that hosts pin for them; wrong ones are not signed."""
    key = str(files / "guard.key")
    assert main(["keygen", "--out", key]) == 0
    signing = ("sign", "--guardrails", "--key", key, "--config", str(files / "sgagent.toml"))
    assert main([*signing, str(files / "g.yaml")]) == 0
    assert (files / "g.yaml.sig").exists()
    configure(files, f'keys = ["{load_key(Path(key)).public}"]\n')
    assert run(files, "check", str(files / "d.yaml"), rails="") == 2
    (files / "g.yaml").write_text("guardrails: [{}]", encoding="utf-8")
    assert main([*signing, str(files / "g.yaml")]) == 2
