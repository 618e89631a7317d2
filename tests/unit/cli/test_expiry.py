"""What commands say of rules that expire, and at which time they answer (§12.4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sgagent.agent.clock import LatestTime
from sgagent.agent.state.directory import KeptDocuments, StateDirectory
from sgagent.cli.main import main
from sgagent.documents import DocumentFile
from tests.fakes.clock import FakeClock

ENDED, LATER = "2020-01-01T00:00:00Z", "2999-12-31T23:00:00Z"
GROUP = """\
version: 1
security_groups:
  - security_group_id: sg-web
    type: basic
    inner_access_policy: drop
    rules:
      - {{rule_id: sgr-web, direction: ingress, policy: accept, protocol: tcp, port_range: 443,
         authorization_object: any, expires: '{expires}'}}
"""
PACKET = (
    *("ingress", "--source", "192.0.2.1", "--destination", "10.0.0.11"),
    *("--protocol", "tcp", "--port", "443"),
)
BOUND = ("--interface", "eth0=sg-web")

Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs a command with ``--json``, where no agent runs, and reads the output."""
    configuration = tmp_path / "sgagent.toml"
    configuration.write_text(
        f'[source]\npath = "{tmp_path}/groups.yaml"\n'
        f'[state]\ndirectory = "{tmp_path}/state"\nruntime_directory = "{tmp_path}/run"\n'
        "[[interface]]\nname = 'eth0'\nsecurity_group_ids = ['sg-web']\n"
    )
    (tmp_path / "groups.yaml").write_text(GROUP.format(expires=LATER))

    def run_command(name: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
        assert main([name, "--config", str(configuration), "--json", *map(str, arguments)]) == 0
        return json.loads(capsys.readouterr().out)

    return run_command


def verdict(run: Run, *arguments: object) -> str:
    """Return what becomes of the packet."""
    answer: Mapping[str, str] = run("explain", *PACKET, *arguments)
    return answer["verdict"]


def test_explain_answers_by_now_or_at_another_time(run: Run, tmp_path: Path) -> None:
    """Earlier or later."""
    assert verdict(run, *BOUND) == "accept"
    assert verdict(run, *BOUND, "--at", LATER) == "drop"
    assert verdict(run, *BOUND, "--at", "2999-12-31T23:59:59+01:00") == "accept"
    (tmp_path / "groups.yaml").write_text(GROUP.format(expires=ENDED))
    assert verdict(run, *BOUND) == "drop"
    assert verdict(run, *BOUND, "--at", "2019-12-31T00:00:00Z") == "accept"


def test_explain_at_another_time_is_about_what_is_enforced(run: Run, tmp_path: Path) -> None:
    """As without the option: not about what the source has now."""
    enforced = DocumentFile(name="groups.yaml", content=GROUP.format(expires=LATER).encode())
    StateDirectory(tmp_path / "state").keep(KeptDocuments(version="v1", documents=(enforced,)))
    (tmp_path / "groups.yaml").write_text(GROUP.format(expires=ENDED))
    assert verdict(run, "--at", "2026-01-01T00:00:00Z") == "accept"


def test_the_latest_time_of_this_host_counts(run: Run, tmp_path: Path) -> None:
    """Whatever the clock says now."""
    LatestTime(tmp_path / "state", FakeClock(40_000_000_000.0)).now()
    assert verdict(run, *BOUND) == "drop"


def test_plan_shows_what_ends_and_when(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another end is a change of the rule, and no verdict's; an end to come is no change."""
    old = tmp_path / "old.yaml"
    old.write_text(GROUP.format(expires="2998-12-31T23:00:00Z"))
    found = run("plan", *BOUND, "--against", old)
    assert (found["opens"], found["closes"]) == (0, 0)
    assert found["expiring"] == [
        {"rule_id": "sgr-web", "security_group_id": "sg-web", "policy": "accept", "expires_at": LATER}
    ]
    assert found["rules"][0]["differences"] == [f"expires 2998-12-31T23:00:00Z → {LATER}"]
    assert not run("plan", *BOUND, "--against", tmp_path / "groups.yaml")["changes"]
    assert main(["plan", "--config", str(tmp_path / "sgagent.toml"), *BOUND, "--against", str(old)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "rules that end",
        f"  sgr-web of sg-web, accept: {LATER}",
    ]


def test_plan_at_a_time_leaves_out_what_has_ended_by_then(run: Run, tmp_path: Path) -> None:
    """On both sides."""
    empty = tmp_path / "empty.yaml"
    empty.write_text(
        "version: 1\nsecurity_groups: [{security_group_id: sg-web, inner_access_policy: drop}]\n"
    )
    assert run("plan", *BOUND, "--against", empty)["opens"] == 2
    assert run("plan", *BOUND, "--against", empty, "--at", LATER)["opens"] == 0


def test_what_is_no_instant_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    """Said in a line."""
    assert main(["plan", "--at", "2026-12-31T18:00:00"]) == 2
    assert "an instant without an offset (2026-12-31T18:00:00+01:00" in capsys.readouterr().err
