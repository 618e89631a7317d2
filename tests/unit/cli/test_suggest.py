"""``sgagent suggest``: what it reads, prints, asks and refuses."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.cli.flow_files import hosts_of
from sgagent.cli.main import main
from tests.flow_records import Sessions, as_log, incoming, outgoing
from tests.unit.cli.runner import Run, runner

HOST, CLIENT, STRANGER = "10.0.0.11", "198.51.100.7", "203.0.113.9"
DEFINITIONS = """\
version: 1
security_groups:
  - security_group_id: sg-web
    rules:
      - {rule_id: r-used, direction: ingress, policy: accept, protocol: tcp, port_range: 443,
         authorization_object: 198.51.100.0/24}
      - {rule_id: r-unused, direction: ingress, policy: accept, protocol: tcp, port_range: 8080,
         authorization_object: any}
network_interfaces:
  - {network_interface_id: eni-web, addresses: [10.0.0.11], security_group_ids: [sg-web]}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs the command on an empty state."""
    configuration = tmp_path / "sgagent.toml"
    (tmp_path / "groups.d").mkdir()
    (tmp_path / "groups.d" / "web.yaml").write_text(DEFINITIONS)
    configuration.write_text(
        f'[source]\npath = "{tmp_path}/groups.d"\n[state]\ndirectory = "{tmp_path}/state"\n'
        f'runtime_directory = "{tmp_path}/run"\n[flow_log]\noutput = "{tmp_path}/own.log"\n'
    )
    return runner(capsys, "suggest", "--config", configuration)


def write(path: Path, *sessions: Sessions) -> Path:
    """Write a flow log, and return where."""
    path.write_bytes(as_log(sessions))
    return path


def is_valid(path: Path) -> bool:
    """Return whether ``check`` finds nothing wrong with a document, whatever the host's configuration is."""
    empty = path.with_name("empty.toml")
    empty.touch()
    return main(["check", str(path), "--config", str(empty)]) == 0


def test_documents_go_to_standard_output_and_questions_to_standard_error(run: Run, tmp_path: Path) -> None:
    """The documents stand for themselves: what is asked about is not in them."""
    log = write(tmp_path / "web.log", incoming(HOST, CLIENT, 443), incoming(HOST, STRANGER, 25, times=1))
    code, output, errors = run("--flows", log)
    assert code == 0
    assert output.startswith("version: 1\n")
    assert "authorization_object: 198.51.100.7" in output
    assert STRANGER not in output
    assert "tcp 25 from 203.0.113.9 at eni-web: 1 session" in errors
    (tmp_path / "suggested.yaml").write_text(output)
    assert is_valid(tmp_path / "suggested.yaml")


def test_definitions_may_be_named(run: Run, tmp_path: Path) -> None:
    """Addresses have the names of the definitions on the command line, not of the configured ones."""
    log = write(tmp_path / "web.log", incoming(HOST, CLIENT, 443))
    (tmp_path / "other.yaml").write_text(DEFINITIONS.replace("sg-web", "sg-other"))
    code, output, _ = run("--flows", log, "--definitions", tmp_path / "other.yaml")
    assert code == 0
    assert "security_group_id: sg-other" in output


def test_the_difference_knows_what_no_group_can_block(run: Run, tmp_path: Path) -> None:
    """As in ``plan``: a suggestion does not close the way to the platform (§7.3)."""
    log = write(tmp_path / "web.log", outgoing(HOST, CLIENT, 443))
    assert "all to 0.0.0.0/0 but 100.100.100.200" in run("--flows", log, "--explain")[1]


def test_a_refused_scan_is_one_question(run: Run, tmp_path: Path) -> None:
    """Whatever number of ports it tried; other refusals are asked about port by port."""
    scan = [replace(incoming(HOST, STRANGER, port, times=1), mode="enforce") for port in range(1, 40)]
    missed = [replace(incoming(HOST, CLIENT, port), mode="enforce") for port in (22, 25)]
    code, _, errors = run("--flows", write(tmp_path / "web.log", *scan, *missed))
    assert code == 0
    assert errors.count("it was refused") == 3
    assert "tcp 1 2 3 4 5 … from 203.0.113.9 at eni-web: 39 sessions" in errors


@pytest.mark.parametrize("size", (16_384, 16_385, 60_000))
def test_a_long_line_is_one_line(run: Run, tmp_path: Path, size: int) -> None:
    """It is named once, and the lines behind it have their numbers."""
    log = tmp_path / "web.log"
    good = as_log([incoming(HOST, CLIENT, 443)])
    log.write_bytes(good + b"x" * (size - 1) + b"\n" + b"{\n" + good)
    code, _, errors = run("--flows", log)
    assert code == 2
    assert f"{log}:4: line" in errors
    assert ("at most 16384 bytes" in errors) is (size > 16_384)
    assert f"{log}:5: line" in errors
    assert errors.count("error:") == 2


def test_an_address_is_of_one_interface(run: Run, tmp_path: Path) -> None:
    """A log that began before the link had a network interface speaks of the same one."""
    later = replace(incoming("10.0.0.12", CLIENT, 22), interface_id="eni-later")
    log = write(tmp_path / "web.log", incoming("10.0.0.12", CLIENT, 443), later)
    code, output, _ = run("--flows", log)
    assert code == 0
    assert output.count("10.0.0.12") == 1
    assert "security_group_ids: [sg-later]" in output
    (tmp_path / "suggested.yaml").write_text(output)
    assert is_valid(tmp_path / "suggested.yaml")


@pytest.mark.parametrize("protocol", ("132", "33", "136"))
def test_ports_that_no_rule_names_are_left_out(run: Run, tmp_path: Path, protocol: str) -> None:
    """The log has those of SCTP, DCCP and UDP-Lite, too."""
    log = write(tmp_path / "web.log", incoming(HOST, CLIENT, 1000, protocol))
    code, output, _ = run("--flows", log)
    assert code == 0
    assert f"protocol: '{protocol}'" in output
    assert "1000" not in output


def test_json_has_the_document_the_evidence_and_the_questions(run: Run, tmp_path: Path) -> None:
    """As scripts read it."""
    log = write(tmp_path / "web.log", incoming(HOST, CLIENT, 443), incoming(HOST, STRANGER, 25, times=1))
    found = json.loads(run("--flows", log, "--json")[1])
    rule = next(one for one in found["rules"] if one["sessions"])
    assert rule == {
        "rule_id": "sgr-web-in-tcp-443",
        "security_group_id": "sg-web",
        "sessions": 3,
        "peers": 1,
        "first_seen": "2026-01-31T10:00:01Z",
        "last_seen": "2026-01-31T10:00:03Z",
        "widened": [
            {
                "widening": "source-ports",
                "protocol": "tcp",
                "port": 443,
                "from": "source ports 32769 to 32771",
                "to": "any",
            }
        ],
    }
    (question,) = found["questions"]
    assert (question["reason"], question["ports"], question["peers"]) == ("once", [25], [STRANGER])
    ids = {one["rule_id"] for group in found["document"]["security_groups"] for one in group["rules"]}
    assert ids == {one["rule_id"] for one in found["rules"]}


def test_explain_says_what_is_wider_what_changes_and_what_is_unused(run: Run, tmp_path: Path) -> None:
    """As comments, so that the output stays a document."""
    log = write(tmp_path / "web.log", incoming(HOST, CLIENT, 443))
    _, output, _ = run("--flows", log, "--explain")
    assert "#   sgr-web-in-tcp-443 of sg-web: source-ports: tcp 443: source ports" in output
    assert "# closes\n" in output
    assert "# rules in force that nothing seen needs: 1 of 2 that accept\n#   r-unused of sg-web" in output
    found = json.loads(run("--flows", log, "--explain", "--json")[1])
    assert found["unused"] == {
        "accepting": 2,
        "rules": [
            {"security_group_id": "sg-web", "rule_id": "r-unused", "counted_since": None, "last_hit_at": None}
        ],
    }
    assert found["plan"]["closes"] > 0
    (tmp_path / "suggested.yaml").write_text(output)
    assert is_valid(tmp_path / "suggested.yaml")


def test_without_a_log_the_hosts_own_is_read(run: Run, tmp_path: Path) -> None:
    """With the rotated files; two tries of a host are one host's."""
    write(tmp_path / "own.log.1", incoming(HOST, CLIENT, 443))
    write(tmp_path / "own.log", incoming(HOST, CLIENT, 443))
    found = json.loads(run("--json")[1])
    assert [one["sessions"] for one in found["rules"] if one["sessions"]] == [6]


def test_a_pipe_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` is standard input."""
    content = io.BytesIO(as_log([incoming(HOST, CLIENT, 443)]))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(content))
    assert "sgr-web-in-tcp-443" in run("--flows", "-")[1]


def test_what_leaves_stays_as_it_is_where_nobody_looks_at_it(run: Run, tmp_path: Path) -> None:
    """No rule closes egress, and none is for what left."""
    log = write(tmp_path / "web.log", incoming(HOST, CLIENT, 443), outgoing(HOST, CLIENT, 5432))
    assert "egress" not in run("--flows", log, "--ingress-only")[1]
    assert "sgr-web-out-closed" in run("--flows", log)[1]


def test_a_wrong_line_refuses_unless_it_is_to_be_skipped(run: Run, tmp_path: Path) -> None:
    """With its place, what is expected, and what to do; skipped, it is counted."""
    log = write(tmp_path / "web.log", incoming(HOST, CLIENT, 443))
    log.write_bytes(log.read_bytes() + b'{"time": 7}\n')
    code, output, errors = run("--flows", log)
    assert (code, output) == (2, "")
    assert f"error: {log}:4: decided_by: the field is missing (expected one of" in errors
    assert "--skip-malformed leaves such records out" in errors
    code, output, errors = run("--flows", log, "--skip-malformed")
    assert code == 0
    assert f"warning: {log}:4: decided_by" in errors
    assert "note: left out: 1 records that can't be understood" in errors


def test_a_log_that_is_not_there_is_wrong_use(run: Run, tmp_path: Path) -> None:
    """Exit code 2, and which it is."""
    code, _, errors = run("--flows", tmp_path / "none.log")
    assert (code, "none.log: the flow log can't be read: No such file" in errors) == (2, True)


def test_a_packed_log_is_read(run: Run, tmp_path: Path) -> None:
    """A rotated log is packed by gzip, as clouds deliver theirs; one that is cut off is refused."""
    log = write(tmp_path / "web.log", incoming(HOST, CLIENT, 443))
    plain = run("--flows", log)
    packed = tmp_path / "web.log.1.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    assert run("--flows", packed) == plain
    packed.write_bytes(packed.read_bytes()[:-9])
    code, _, errors = run("--flows", packed)
    assert (code, "web.log.1.gz: the flow log can't be read: Compressed file ended" in errors) == (2, True)


def test_an_empty_log_suggests_nothing(run: Run, tmp_path: Path) -> None:
    """The definitions stay, and a note says why."""
    (tmp_path / "empty.log").touch()
    code, output, errors = run("--flows", tmp_path / "empty.log")
    assert code == 0
    assert "r-unused" in output
    assert "no session was seen, so nothing is suggested" in errors


def test_several_processes_read_logs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same result as by one."""
    logs = [write(tmp_path / f"host-{n}.log", incoming(f"10.0.0.{n}", CLIENT, 443)) for n in (21, 22, 23)]
    alone = run("--flows", *logs)
    monkeypatch.setattr("sgagent.cli.flow_files.WORTH_A_PROCESS", 1)
    assert run("--flows", *logs) == alone


@pytest.mark.parametrize(
    ("names", "hosts"),
    (
        (("a/web.log", "a/web.log.1", "b/app.log"), ["web", "web", "app"]),
        (("web-1.log.2.gz", "web-2.log.gz"), ["web-1", "web-2"]),
        (("web-1/flows.log", "web-2/flows.log"), ["web-1-flows", "web-2-flows"]),
    ),
)
def test_the_host_of_a_log_is_its_name(names: tuple[str, ...], hosts: list[str]) -> None:
    """With its folder where that tells apart."""
    assert hosts_of(names) == hosts


def test_the_output_goes_to_a_file(run: Run, tmp_path: Path) -> None:
    """Or into a directory, as ``suggested.yaml``."""
    log = write(tmp_path / "web.log", incoming(HOST, CLIENT, 443))
    _, output, _ = run("--flows", log, "--output", tmp_path)
    assert output == f"wrote 2 rules: {tmp_path}/suggested.yaml\n"
    assert (
        (tmp_path / "suggested.yaml").read_text().startswith("# Written by `sgagent suggest`.\nversion: 1\n")
    )
