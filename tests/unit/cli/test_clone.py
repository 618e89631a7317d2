"""``sgagent clone``, and ``plan --between``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.runner import Run

TEXT = """\
version: 1
security_groups:
  - security_group_id: sg-web
    name: web
    type: advanced
    vpc_id: vpc-1
    member_addresses: [10.0.0.7]
    rules:
      - {rule_id: r-https, direction: ingress, policy: accept, protocol: tcp, port_range: 443,
         authorization_object: any}
      - {rule_id: r-self, direction: ingress, policy: accept, protocol: tcp, port_range: 22,
         authorization_object: sg-web}
network_interfaces:
  - {network_interface_id: eni-1, addresses: [10.0.0.1], security_group_ids: [sg-web]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory of definitions with one group."""
    path = tmp_path / "groups.d"
    path.mkdir()
    (path / "web.yaml").write_text(TEXT)
    return path


def test_a_clone_has_new_ids_and_no_members(run: Run, folder: Path) -> None:
    """It is what the group is, and names itself where that does; the documents with it are valid."""
    assert run("clone", "sg-web", "sg-new", folder, "--output", folder)[0] == 0
    found = json.loads(run("clone", "sg-web", "sg-other", "--json", folder)[1])["document"]["security_groups"]
    assert [(one["type"], one["vpc_id"], "member_addresses" in one) for one in found] == [
        ("advanced", "vpc-1", False)
    ]
    assert [(one["rule_id"], one["authorization_object"]) for one in found[0]["rules"]] == [
        ("r-https-sg-other", "any"),
        ("r-self-sg-other", "sg-other"),
    ]
    assert run("check", folder)[0] == 0


def test_a_clone_changes_nothing_until_it_is_changed(run: Run, folder: Path) -> None:
    """Then the plan shows that, by the ids of the group."""
    run("clone", "sg-web", "sg-new", folder, "--output", folder)
    same = json.loads(run("plan", "--between", "sg-web", "sg-new", folder, "--json")[1])
    assert (same["changes"], same["flows"], same["rules"]) == (False, [], [])
    copy = folder / "sg-new.yaml"
    copy.write_text(copy.read_text().replace("443/443", "8443/8443"))
    code, output, _ = run("plan", folder, "--between", "sg-web", "sg-new", "--json", "--exit-code")
    plan = json.loads(output)
    assert code == 1
    assert [(one["rule_id"], one["differences"]) for one in plan["rules"]] == [
        ("r-https", ["ports 443 → 8443"])
    ]
    assert {one["effect"] for one in plan["flows"]} == {"opens", "closes"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        (("clone", "sg-wep", "sg-new"), "did you mean sg-web?"),
        (("clone", "sg-web", "sg-web"), "already"),
        (("clone", "sg-web", "pl-x"), "prefix list"),
        (("plan", "--between", "sg-web", "sg-none"), "no such group"),
        (("plan", "--between", "sg-web", "sg-web"), "named twice"),
        (("plan", "--between", "sg-web", "sg-web", "--everywhere"), "excludes"),
    ),
)
def test_wrong_use(run: Run, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    """It is told what is wrong."""
    code, _, errors = run(*arguments, folder)
    assert code == 2
    assert message in errors


def test_a_clone_overwrites_nothing(run: Run, folder: Path) -> None:
    """A second one to the same file is an error."""
    run("clone", "sg-web", "sg-new", folder, "--output", folder / "copy.txt")
    assert run("clone", "sg-web", "sg-new", folder, "--output", folder / "copy.txt")[0] == 2
