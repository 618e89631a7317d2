"""The pipeline of docs/twenty-hosts.md: proposals are checked, published, followed, and taken back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.fleetstory import POLICY, beginning
from integration.namespaces import Namespace, network_namespace
from integration.package import ROOT

CI = ROOT / "examples" / "twenty-hosts" / "ci"
KEY = "../policy.key"
ONLY_WEB, BOTH = "80 open, 443 shut, 8443 shut", "80 open, 443 open, 8443 shut"
TWO_PORTS = POLICY.replace("port_range: 80", "port_range: [80, 443]")
PACKETS = """\
definitions: ../groups.d
bind: {eth0: eni-1}
packets:
  - {name: web, direction: ingress, source: 198.51.100.7, destination: 10.9.0.11, protocol: tcp,
     port: 80, expect: accept}
  - {name: login, direction: ingress, source: 198.51.100.7, destination: 10.9.0.11, protocol: tcp,
     port: 22, expect: drop}
"""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A repository of documents, and a runner."""

    folder: Path
    runner: Namespace

    def propose(self, policy: str) -> None:
        """Commit a policy."""
        (self.folder / "groups.d").mkdir(exist_ok=True)
        (self.folder / "groups.d/web.yaml").write_text(policy)
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "a change")

    def git(self, *arguments: str) -> str:
        """Run git in the repository."""
        return self._run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments)[1]

    def ci(self, *arguments: str) -> tuple[int, str]:
        """Run the pipeline's script, and return its exit code and output."""
        return self._run(str(CI), *arguments)

    def published(self, *arguments: str) -> str:
        """Have something published and followed, and return the tag of it."""
        status, told = self.ci(*arguments)
        assert status == 0, told
        assert "3 hosts at revision" in told
        return self.git("tag", "--list", "--sort=-version:refname").split()[0]

    @property
    def comment(self) -> str:
        """Return the comment for the reviewer of a proposal."""
        return (self.folder / "comment.md").read_text()

    def _run(self, *argv: str) -> tuple[int, str]:
        environment = {"HOSTS": "3", "PATH": f"{self.folder.parent}/programs:{os.environ['PATH']}"}
        done = subprocess.run(
            ["ip", "netns", "exec", self.runner.name, *argv],
            cwd=self.folder,
            env=dict(os.environ) | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def pipeline_in(folder: Path, runner: Namespace) -> Pipeline:
    """Make a repository of documents, whose commands are run in a namespace."""
    made = Pipeline(folder / "repository", runner)
    (made.folder / "tests").mkdir(parents=True)
    (made.folder / "tests/packets.yaml").write_text(PACKETS)
    shutil.copy(folder / "sgagent.toml", made.folder)
    programs = folder / "programs"
    programs.mkdir()
    (programs / "sgagent").write_text(f'#!/bin/sh\nexec {sys.executable} -m sgagent "$@"\n')
    (programs / "sgagent").chmod(0o755)
    made.git("init", "--quiet")
    return made


@pytest.mark.long
@pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")
def test_a_change_goes_from_a_proposal_to_the_fleet_and_back(tmp_path: Path) -> None:
    """The reviewer reads which flows it opens; nobody publishes past the repository unseen."""
    with beginning(tmp_path, members=1) as story:
        story.chapter("a pipeline")
        pipeline = pipeline_in(story.desk.directory, story.desk.agent.namespace)
        pipeline.propose(POLICY)
        assert pipeline.ci("check") == (0, "ok: nothing wrong\ntests/packets.yaml: 2 passed\n")
        assert "Against nothing" in pipeline.comment
        first = pipeline.published("publish", KEY)
        story.from_outside(ONLY_WEB)

        pipeline.propose(TWO_PORTS)
        status, told = pipeline.ci("check")
        assert status == 0, told
        assert f"Against {first}" in pipeline.comment
        assert "ingress: tcp 443 from 0.0.0.0/0" in pipeline.comment
        assert "proved: " in pipeline.comment
        assert json.loads((pipeline.folder / "lint.sarif").read_text())["version"] == "2.1.0"
        assert 'tests="2"' in (pipeline.folder / "packets.xml").read_text()
        second = pipeline.published("publish", KEY)
        assert second != first
        story.from_outside(BOTH)

        third = pipeline.published("rollback", first.removeprefix("published/"), KEY)
        story.from_outside(ONLY_WEB)
        assert pipeline.git("rev-parse", third) == pipeline.git("rev-parse", first)
        story.publish(TWO_PORTS)
        status, told = pipeline.ci("check")
        assert (status, f"the fleet does not have {third}" in told) == (1, True), told


@pytest.mark.long
def test_a_wrong_proposal_fails_by_the_step_that_finds_it(tmp_path: Path) -> None:
    """Also where nothing was published yet, and the cluster is not reached."""
    shutil.copy(CI.with_name("sgagent.toml"), tmp_path)
    misspelt = POLICY.replace("protocol: tcp", "protocol: tpc")
    too_wide = POLICY.replace("port_range: 80", "port_range: [8080, 3306]")
    with network_namespace("runner") as runner:
        pipeline = pipeline_in(tmp_path, runner)
        for policy, steps in ((misspelt, "check; "), (too_wide, "lint: errors, in lint.sarif; test; ")):
            pipeline.propose(policy)
            status, told = pipeline.ci("check")
            assert (status, steps in told) == (1, True), told
