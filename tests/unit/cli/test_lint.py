"""``sgagent lint``: what is printed, and the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.agent.control.hits import HitsAnswer, InterfaceHits
from sgagent.cli.lint import usages
from sgagent.cli.main import main
from sgagent.core.counter_keys import HitStep
from sgagent.core.model import Direction, Mode, Policy
from tests.corpus import EXAMPLES
from tests.unit.cli.test_hits import RULE

TRAP = EXAMPLES / "6t-the-trap" / "groups.d"
WEB = EXAMPLES / "1-web" / "groups.d"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that looks at definitions with a configuration of the test's, where no agent runs."""

    def run_lint(*arguments: object, configuration: str = "") -> tuple[int, str, str]:
        path = tmp_path / "sgagent.toml"
        path.write_text(f'{configuration}\n[state]\nruntime_directory = "{tmp_path}/run"\n')
        code = main(["lint", "--config", str(path), *map(str, arguments)])
        output, errors = capsys.readouterr()
        return code, output, errors

    return run_lint


def test_the_counts_come_first(run: Run) -> None:
    """Then each finding: what it is about, why, what to do, and where it is written."""
    code, output, errors = run("--definitions", TRAP)
    assert (code, errors) == (0, "")
    assert output.splitlines() == [
        "1 error",
        "",
        "error: sgr-out-nothing of sg-egress [deny_before_accepts]",
        (
            "  it drops everything at the same priority, where drop wins, so that no packet reaches the"
            " accepts sgr-out-http, sgr-out-https"
        ),
        "  → give it a number greater than 1, so that it follows the accepts",
        f"  {TRAP}/egress.yaml:8",
    ]


def test_the_exit_code_says_on_request_whether_anything_is_found(run: Run) -> None:
    """It is 1 if so, and 0 otherwise, or unasked."""
    assert run("--definitions", TRAP, "--exit-code")[0] == 1
    assert run("--definitions", WEB, "--exit-code")[:2] == (0, "nothing found\n")


def test_json(run: Run) -> None:
    """One object with everything."""
    found = json.loads(run("--definitions", TRAP, "--json")[1])
    assert (found["errors"], found["warnings"], found["notices"], found["disabled"]) == (1, 0, 0, [])
    (finding,) = found["findings"]
    assert finding["code"] == "deny_before_accepts"
    assert finding["rule_ids"] == ["sgr-out-nothing", "sgr-out-http", "sgr-out-https"]
    assert (finding["line"], finding["path"]) == (8, "security_groups[0].rules[0]")


@pytest.mark.parametrize(
    ("arguments", "configuration"),
    (
        (("--disable", "deny_before_accepts,never_reached"), ""),
        (("--disable", "deny_before_accepts", "--disable", "never_reached"), ""),
        ((), '[lint]\ndisable = ["deny_before_accepts", "never_reached"]'),
    ),
)
def test_checks_are_left_out(run: Run, arguments: tuple[str, ...], configuration: str) -> None:
    """By the command line or by the configuration."""
    _, output, _ = run("--definitions", TRAP, *arguments, "--json", configuration=configuration)
    found = json.loads(output)
    assert (found["findings"], found["disabled"]) == ([], ["deny_before_accepts", "never_reached"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    ((("--disable", "nonsense"), "no check has this code"), (("--unused", "soon"), "12h, 30d, 8w")),
)
def test_wrong_use(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """It is told what would be right."""
    code, _, errors = run("--definitions", WEB, *arguments)
    assert code == 2
    assert message in errors


def test_what_is_unused_takes_an_agent(run: Run) -> None:
    """Where it is asked for by an option it is an error that none runs; by the configuration, a warning."""
    assert run("--definitions", WEB, "--unused", "30d")[0] == 4
    code, _, errors = run("--definitions", WEB, configuration='[lint]\nunused = "30d"')
    assert code == 0
    assert "unused rules can't be determined" in errors


def test_most_rules(run: Run) -> None:
    """The configuration says how many rules a group may have."""
    _, output, _ = run("--definitions", WEB, configuration="[lint]\nmost_rules = 1")
    assert "[too_many_rules]" in output


def test_a_host_without_the_link_is_not_looked_at(run: Run) -> None:
    """Who listens says nothing of definitions for other hosts."""
    bad = EXAMPLES / "lint" / "nothing_listens" / "bad.yaml"
    _, output, _ = run("--definitions", bad, "--interface", "nolink0=sg-web")
    assert output == "nothing found\n"


def test_definitions_that_would_be_refused(run: Run, tmp_path: Path) -> None:
    """They are for check; an unknown object in a drop is found fault with here, too."""
    path = tmp_path / "groups.yaml"
    path.write_text("version: 1\nsecurity_groups: 7\n")
    assert run("--definitions", path)[:2] == (2, "")
    path.write_text(
        "version: 1\nsecurity_groups:\n  - security_group_id: sg-1\n    type: basic\n    rules:\n"
        "      - {rule_id: no, direction: ingress, policy: drop, protocol: all, authorization_object: sg-x}\n"
    )
    code, output, _ = run("--definitions", path)
    assert code == 0
    assert "error: no of sg-1 [unknown_object]" in output


def test_an_interface_has_the_name_that_its_author_gave(run: Run, tmp_path: Path) -> None:
    """What can't be judged is told of by the document's own words, as ``check`` does."""
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "version: 1\n"
        "security_groups: [{security_group_id: sg-1}, {security_group_id: sg-2, type: advanced}]\n"
        "network_interfaces: [{network_interface_id: eni-b, security_group_ids: [sg-1, sg-2]}]\n",
        encoding="utf-8",
    )
    code, _, errors = run("--definitions", path)
    assert code == 2
    assert "interface eni-b has basic and advanced groups" in errors


def test_severities_are_coloured_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors and warnings; the text is the same."""
    plain = run(TRAP)[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert run(TRAP)[1] == plain.replace("\nerror:", "\n\x1b[31merror\x1b[0m:")


def test_only_hits_of_the_rule_are_its_use() -> None:
    """What exceeded its limit is counted beside it; the page counts alike."""
    over = replace(RULE, step=HitStep.OVER_LIMIT, verdict=Policy.DROP, last_hit_at=95_000.0)
    part = InterfaceHits(interface="eth0", direction=Direction.INGRESS, mode=Mode.ENFORCE, hits=(RULE, over))
    rules, _ = usages(HitsAnswer(snapshot_version="v1", interfaces=(part,)))
    assert [(one.policy, usage.last_hit_at) for one, usage in rules.items()] == [
        (Policy.ACCEPT, RULE.last_hit_at)
    ]
