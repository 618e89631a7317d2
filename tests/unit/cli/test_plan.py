"""``sgagent plan``: the verdict first, then what changes; and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgagent.agent.manual_override import ModeFile, ModeOverrides
from sgagent.agent.state.directory import KeptDocuments, StateDirectory
from sgagent.core.model import Mode
from sgagent.documents import DocumentFile
from tests.unit.cli.runner import Run, runner

GROUP = """\
version: 1
security_groups:
  - security_group_id: sg-web
    type: basic
    inner_access_policy: drop
    rules:
      - {{rule_id: sgr-web, direction: ingress, policy: accept, protocol: tcp, port_range: [{ports}],
         authorization_object: 0.0.0.0/0}}
network_interfaces:
  - {{network_interface_id: eni-1, addresses: [10.0.0.11], security_group_ids: [sg-web]}}
  - {{network_interface_id: eni-2, addresses: [10.0.0.12], security_group_ids: [sg-web]}}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that plans with a configuration of the test's, where no agent runs."""
    configuration = tmp_path / "sgagent.toml"
    configuration.write_text(
        f'[source]\npath = "{tmp_path}/new.yaml"\n'
        f'[state]\ndirectory = "{tmp_path}/state"\nruntime_directory = "{tmp_path}/run"\n'
    )
    (tmp_path / "old.yaml").write_text(GROUP.format(ports="80, 443"))
    (tmp_path / "new.yaml").write_text(GROUP.format(ports="80, 8080"))
    return runner(capsys, "plan", "--config", configuration)


def test_the_verdict_comes_first(run: Run, tmp_path: Path) -> None:
    """One line says how much opens and closes; the parts follow."""
    code, output, errors = run("--against", tmp_path / "old.yaml", "--interface", "eth0=sg-web")
    lines = output.splitlines()
    assert (code, errors) == (0, "")
    assert lines[0] == "opens 1, closes 1"
    assert lines[3:][:6] == [
        "opens",
        "  eth0 ingress: tcp 8080 from 0.0.0.0/0: accepted by sgr-web of sg-web (was dropped by default)",
        "",
        "closes",
        "  eth0 ingress: tcp 443 from 0.0.0.0/0: dropped by default (was accepted by sgr-web of sg-web)",
        "",
    ]
    assert lines[9:11] == ["rules", "  sgr-web of sg-web changes: ports 80, 443 → 80, 8080"]
    assert len(lines) == 11


def test_operations_are_shown_on_request(run: Run, tmp_path: Path) -> None:
    """They come last, and are those that the JSON object always has."""
    bound = ("--against", tmp_path / "old.yaml", "--interface", "eth0=sg-web")
    wanted = operations(run, *bound)
    _, without, _ = run(*bound)
    _, output, _ = run(*bound, "--operations")
    assert output.startswith(without)
    title, *shown = output.removeprefix(without).strip().splitlines()
    assert title == f"kernel, {len(wanted)} operations"
    assert shown[:3] == [f"  {operation}" for operation in wanted[:3]]


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    (
        ("[10.0.0.0/8, 192.0.2.7, sg-web]", "[10.0.0.0/8, sg-web, '::/0']", "objects +::/0, -192.0.2.7"),
        ("[10.0.0.0/8, 192.0.2.7]", "any", "object 10.0.0.0/8, 192.0.2.7 → any"),
        (
            str([f"192.0.2.{number}" for number in range(100)]),
            str([f"192.0.2.{number}" for number in range(1, 120)]),
            "objects +192.0.2.100, +192.0.2.101, +192.0.2.102, +192.0.2.103 and 16 more, -192.0.2.0",
        ),
    ),
)
def test_object_lists_are_compared_by_parts(run: Run, tmp_path: Path, old: str, new: str, shown: str) -> None:
    """Of two long lists only what came and what left is shown."""
    for name, objects in (("old", old), ("new", new)):
        text = GROUP.format(ports=80).replace(
            "authorization_object: 0.0.0.0/0", f"authorization_object: {objects}"
        )
        (tmp_path / f"{name}.yaml").write_text(text)
    _, output, _ = run("--against", tmp_path / "old.yaml", "--everywhere")
    assert output.splitlines()[-1] == f"  sgr-web of sg-web changes: {shown}"


def test_a_rule_that_changes_its_direction_is_named(run: Run, tmp_path: Path) -> None:
    """The list of rules holds it, beside the flows that it opens or closes."""
    turned = GROUP.format(ports="80, 8080").replace("ingress", "egress")
    (tmp_path / "old.yaml").write_text(turned)
    _, output, _ = run("--against", tmp_path / "old.yaml", "--everywhere")
    assert output.splitlines()[-1] == "  sgr-web of sg-web changes: direction egress → ingress"


def test_everywhere_tells_what_is_alike_once(run: Run, tmp_path: Path) -> None:
    """Network interfaces are compared wherever they are, and named together."""
    _, output, _ = run("--against", tmp_path / "old.yaml", "--everywhere", "--json")
    found = json.loads(output)
    assert [flow["interfaces"] for flow in found["flows"]] == [["eni-1", "eni-2"]] * 2


def test_everywhere_goes_with_no_binding(run: Run) -> None:
    """One of the two options would have to be passed over, so both together are wrong use."""
    code, output, errors = run("--everywhere", "--interface", "eth0=sg-web")
    assert (code, output) == (2, "")
    assert "exclude each other" in errors


def test_json_says_what_decides_on_each_side(run: Run, tmp_path: Path) -> None:
    """Every flow has its object, addresses, protocol, ports, and both verdicts."""
    _, output, _ = run("--against", tmp_path / "old.yaml", "--interface", "eth0=sg-web", "--json")
    found = json.loads(output)
    assert (found["opens"], found["closes"], found["changes"]) == (1, 1, True)
    assert found["flows"][0] == {
        "effect": "opens",
        "interfaces": ["eth0"],
        "direction": "ingress",
        "family": "ipv4",
        "object": "0.0.0.0/0",
        "addresses": ["0.0.0.0/0"],
        "protocol": "tcp",
        "ports": "8080/8080",
        "source_ports": None,
        "local_addresses": None,
        "before": {"verdict": "drop", "decided_by": "default", "rule_id": None, "security_group_id": None},
        "after": {
            "verdict": "accept",
            "decided_by": "rule",
            "rule_id": "sgr-web",
            "security_group_id": "sg-web",
        },
    }
    assert found["operations"]


def test_a_proof_is_part_of_the_json(run: Run, tmp_path: Path) -> None:
    """With the fields of ``verify --json``; people read it on standard error, and nobody who did not ask."""
    bound = ("--against", tmp_path / "old.yaml", "--interface", "eth0=sg-web")
    code, output, errors = run(*bound, "--verify", "--json")
    verified = json.loads(output)["verified"]
    assert (code, errors) == (0, "")
    assert (verified["outcome"], verified["unsupported"], verified["counterexample"]) == ("proved", [], None)
    assert verified["cells"] > 0
    assert verified["seconds"] >= 0
    assert "verified" not in json.loads(run(*bound, "--json")[1])
    _, output, errors = run(*bound, "--verify")
    assert output.startswith("opens 1, closes 1")
    assert errors.startswith("proved: the compiled table does what the policy says")


def test_the_exit_code_says_on_request_whether_anything_changes(run: Run, tmp_path: Path) -> None:
    """It is 1 if so, and 0 otherwise, or unasked."""
    bound = ("--interface", "eth0=sg-web", "--exit-code")
    assert run("--against", tmp_path / "old.yaml", *bound)[0] == 1
    code, output, _ = run("--against", tmp_path / "new.yaml", *bound)
    assert (code, output.splitlines()[0]) == (0, "opens 0, closes 0: nothing changes")


@pytest.mark.parametrize("scope", ((), ("--everywhere",)))
def test_where_no_link_is_bound_nothing_changes(run: Run, tmp_path: Path, scope: tuple[str, ...]) -> None:
    """A pipeline that compares documents without interfaces is not told of the table that they would have."""
    (tmp_path / "new.yaml").write_text("version: 1\nsecurity_groups: [{security_group_id: sg-web}]\n")
    code, output, _ = run("--against", tmp_path / "new.yaml", "--exit-code", *scope)
    assert (code, output.splitlines()[0]) == (0, "opens 0, closes 0: nothing changes")


def test_without_an_agent_what_was_enforced_last_is_compared_with(run: Run, tmp_path: Path) -> None:
    """It is taken from the state directory, and the second line says so."""
    content = (tmp_path / "old.yaml").read_bytes()
    StateDirectory(tmp_path / "state").keep(KeptDocuments("v7", (DocumentFile("old.yaml", content),)))
    _, output, _ = run("--interface", "eth0=sg-web")
    assert output.splitlines()[:2] == [
        "opens 1, closes 1",
        "  against the last enforced policy (snapshot v7); no agent is running",
    ]


def test_where_nothing_is_enforced_everything_was_open(run: Run) -> None:
    """A host without rules lets everything pass, so all that changes is what closes."""
    _, output, _ = run("--interface", "eth0=sg-web")
    lines = output.splitlines()
    assert lines[0].startswith("opens 0, closes ")
    assert "  eth0 is filtered from now on" in lines


def test_a_group_that_is_new_is_bound_on_one_side_only(run: Run, tmp_path: Path) -> None:
    """A link whose groups the older documents don't know was not judged by them."""
    new = GROUP.format(ports="80").replace("sg-web", "sg-new")
    (tmp_path / "other.yaml").write_text(new)
    arguments = ("--definitions", tmp_path / "other.yaml", "--against", tmp_path / "old.yaml")
    _, output, _ = run(*arguments, "--interface", "eth0=sg-new", "--json")
    assert json.loads(output)["links"]["bound"] == ["eth0"]


def operations(run: Run, *arguments: object) -> list[str]:
    """Return the kernel's operations of a plan that is expected to succeed."""
    code, output, errors = run(*arguments, "--json")
    assert (code, errors) == (0, "")
    found: list[str] = json.loads(output)["operations"]
    return found


@pytest.mark.parametrize("interface", (None, "eth0"))
def test_modes_that_were_switched_at_run_time_count(run: Run, tmp_path: Path, interface: str | None) -> None:
    """Both sides are in the mode that ``sgagent mode`` set, for every link or for one."""
    bound = ("--interface", "eth0=sg-web")
    enforced, everywhere = operations(run, *bound), operations(run, "--everywhere")
    configuration = tmp_path / "sgagent.toml"
    before = configuration.read_text()
    configuration.write_text(f'{before}[enforcement]\nmode = "observe"\n')
    observed = operations(run, *bound)
    configuration.write_text(before)
    ModeFile(tmp_path / "state").save(ModeOverrides().switched(interface, Mode.OBSERVE))
    assert operations(run, *bound) == observed != enforced
    assert operations(run, "--everywhere") == everywhere


def test_modes_that_are_not_known_are_said_not_to_be(run: Run, tmp_path: Path) -> None:
    """A damaged file of modes is named, and the modes of the configuration are used."""
    bound = ("--against", tmp_path / "old.yaml", "--interface", "eth0=sg-web")
    _, output, _ = run(*bound)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "modes.json").write_text("{")
    code, damaged, errors = run(*bound)
    assert (code, damaged) == (0, output)
    assert "warning: the overrides of 'sgagent mode' can't be read" in errors
    assert "modes.json" in errors


def test_documents_with_errors_are_not_planned(run: Run, tmp_path: Path) -> None:
    """They would be refused; the exit code is 2, and the errors are told."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("version: 1\nsecurity_groups: 7\n")
    code, output, errors = run("--definitions", broken, "--interface", "eth0=sg-web")
    assert (code, output) == (2, "")
    assert "security_groups" in errors
    assert run("--against", tmp_path / "missing.yaml")[0] == 2
