"""The action for GitHub and the hooks for pre-commit do what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgagent.cli.main import main

ROOT = Path(__file__).parents[2]
WEB = ROOT / "examples" / "1-web"
TRAP = ROOT / "examples" / "6t-the-trap"
ACTION: Mapping[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))


def run_step(name: str, inputs: Mapping[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the script of a step with inputs, as a runner does."""
    (step,) = (step for step in ACTION["runs"]["steps"] if step["name"] == name)
    given = {key: spec["default"] for key, spec in ACTION["inputs"].items()} | dict(inputs)
    environment = {
        key: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: given[found[1]], value)
        for key, value in step["env"].items()
    }
    programs = directory / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "sgagent").write_text(f'#!/bin/sh\nexec {sys.executable} -m sgagent "$@"\n')
    (programs / "sgagent").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return subprocess.run(  # noqa: S603 - the script of the repository
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],  # noqa: S607 - bash as a runner finds it
        cwd=directory,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_declared_inputs_are_used() -> None:
    """And never inside a script, where a name could become a command."""
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        used = re.findall(r"inputs\.(\w+)", json.dumps(step))
        assert set(used) <= set(ACTION["inputs"])


@pytest.mark.parametrize(
    ("step", "inputs", "code"),
    (
        ("Check", {"definitions": str(WEB / "groups.d")}, 0),
        ("Check", {"definitions": "nowhere"}, 2),
        ("Check", {"definitions": "--help"}, 2),
        ("Lint", {"definitions": str(TRAP / "groups.d")}, 0),
        ("Lint", {"definitions": str(TRAP / "groups.d"), "strict": "true"}, 1),
        ("Lint", {"definitions": str(WEB / "groups.d"), "strict": "true"}, 0),
        ("Test", {"definitions": str(WEB / "groups.d"), "packets": str(WEB)}, 0),
        ("Test", {"definitions": str(TRAP / "groups.d"), "packets": str(WEB)}, 2),
    ),
)
def test_a_step_of_the_action(step: str, inputs: Mapping[str, str], code: int, tmp_path: Path) -> None:
    """It fails where the command fails."""
    done = run_step(step, inputs, tmp_path)
    assert done.returncode == code, done.stdout + done.stderr


def test_the_action_writes_a_log(tmp_path: Path) -> None:
    """For the upload that follows."""
    assert (
        run_step("Lint", {"definitions": str(TRAP / "groups.d"), "sarif": "lint.sarif"}, tmp_path).returncode
        == 0
    )
    log = json.loads((tmp_path / "lint.sarif").read_text())
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == ["deny_before_accepts"]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: str(hook["id"]))
def test_a_hook_is_a_command(hook: Mapping[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """With the path of definitions as its argument."""
    program, *arguments = shlex.split(hook["entry"])
    assert program == "sgagent"
    assert main([*arguments, str(WEB / "groups.d")]) == 0
    capsys.readouterr()
