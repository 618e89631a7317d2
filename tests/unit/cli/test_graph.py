"""``sgagent graph``: what is printed, in which language, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sgagent.cli.main import main
from tests.corpus import EXAMPLES

TIERS = EXAMPLES / "three-tier" / "groups.d"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that draws with an empty configuration."""
    (tmp_path / "sgagent.toml").write_text("")

    def run_graph(*arguments: object, definitions: Path = TIERS) -> tuple[int, str, str]:
        given = ["graph", "--config", tmp_path / "sgagent.toml", "--definitions", definitions, *arguments]
        try:
            code = main(list(map(str, given)))
        except SystemExit as ended:  # argparse's own way out
            code = int(ended.code or 0)
        output, errors = capsys.readouterr()
        return code, output, errors

    return run_graph


@pytest.mark.parametrize(
    ("language", "beginning"), (("svg", "<svg xmlns="), ("dot", "digraph"), ("mermaid", "flowchart LR"))
)
def test_each_language(run: Run, language: str, beginning: str) -> None:
    """SVG unless another is asked for; nothing is said beside it."""
    code, output, errors = run("--output", language)
    assert (code, errors) == (0, "")
    assert output.startswith(beginning)
    assert language != "svg" or output == run()[1]


def test_json_says_what_each_edge_carries(run: Run) -> None:
    """Nodes with their kinds, edges with their traffic and the rules that accept it."""
    found = json.loads(run("--json", "--highlight", "sg-web->sg-app")[1])
    kinds = {node["id"]: node["kind"] for node in found["nodes"]}
    assert (kinds["sg-web"], kinds["anywhere"], kinds["pl-office"]) == ("group", "anywhere", "prefix_list")
    (edge,) = [edge for edge in found["edges"] if edge["source"] == "sg-web"]
    assert edge == {
        "source": "sg-web",
        "target": "sg-app",
        "allowed": {
            "text": "tcp 8080-8089, 9443",
            "tcp": "8080-8089, 9443",
            "udp": None,
            "other_protocols": None,
        },
        "rule_ids": ["sgr-app-web", "sgr-web-to-app"],
        "families": ["ipv4", "ipv6"],
        "is_partial": False,
        "opened": None,
        "closed": None,
        "is_highlighted": True,
    }


def test_changes_are_marked(run: Run, tmp_path: Path) -> None:
    """Against other documents, each edge knows what opens and what closes."""
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    for path in TIERS.iterdir():
        (candidate / path.name).write_text(path.read_text().replace("[80, 443]", "[443, 8443]"))
    found = json.loads(run("--json", "--changes-from", TIERS, definitions=candidate)[1])
    changed = {edge["target"]: edge for edge in found["edges"] if edge["opened"]["text"] != "nothing"}
    assert changed["sg-web"]["opened"]["text"] == "tcp 8443"
    assert changed["sg-web"]["closed"]["text"] == "tcp 80"
    assert list(changed) == ["sg-web"]


def test_a_way_that_is_none_is_told(run: Run) -> None:
    """The graph is drawn all the same."""
    code, output, errors = run("--highlight", "sg-database->sg-web:80")
    assert (code, output) == (0, run()[1])
    assert errors == "warning: there is no path from sg-database to port 80 of sg-web\n"


@pytest.mark.parametrize(
    ("way", "told"),
    (
        ("sg-web", "expected SOURCE->DESTINATION[:PORT], found sg-web"),
        ("sg-web->sg-app:99999", "expected SOURCE->DESTINATION[:PORT]"),
        ("sg-wep->sg-app", "--highlight sg-wep: neither in the graph nor an address (there is sg-web"),
    ),
)
def test_a_way_that_makes_no_sense_is_refused(run: Run, way: str, told: str) -> None:
    """Exit code 2, and what would be right."""
    code, output, errors = run("--highlight", way)
    assert (code, output) == (2, "")
    assert told in errors


def test_an_address_of_ipv6_is_no_port(run: Run) -> None:
    """What stands behind its last colon belongs to it; in brackets it may have a port."""
    assert run("--highlight", "anywhere->2001:db8:1::11")[::2] == (0, "")
    assert run("--highlight", "anywhere->[2001:db8:1::11]:443")[::2] == (0, "")
    assert "there is no path" in run("--highlight", "anywhere->[2001:db8:1::11]:22")[2]


def test_an_object_that_is_not_there_is_nobody(run: Run, tmp_path: Path) -> None:
    """It is told, and there is no edge."""
    path = tmp_path / "groups.yaml"
    path.write_text(
        "version: 1\nsecurity_groups:\n  - {security_group_id: sg-a, type: basic, rules: [{policy: accept,"
        " direction: ingress, protocol: tcp, port_range: 80, authorization_object: sg-gone}]}\n"
    )
    code, output, errors = run("--output", "mermaid", definitions=path)
    assert code == 0
    assert "-->" not in output
    assert errors.startswith("warning: ")
