"""A forked agent does the same as the program itself, without the cost of its start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.lab import Lab, wait_for
from integration.service import Service, definitions, is_alive, service_on

POLICY = definitions("ingress accept 1 tcp 80 from 0.0.0.0/0")


@pytest.fixture(params=(True, False), ids=("forked", "executed"))
def agent(request: pytest.FixtureRequest, one_interface: Lab, tmp_path: Path) -> Iterator[Service]:
    """Return an agent of either kind that is not started yet."""
    with service_on(one_interface.host, tmp_path, is_forked=request.param) as made:
        made.define(POLICY)
        yield made


@pytest.mark.long
def test_commands_end_alike(agent: Service, tmp_path: Path) -> None:
    """Exit codes, outputs, the working directory, and the network are alike."""
    checked = agent.command("check", "groups.d", directory=tmp_path)
    assert (checked.status, checked.errors) == (0, "")
    assert checked.output.startswith("ok")
    refused = agent.command("check", "--no-such-option")
    assert (refused.status, refused.output) == (2, "")
    assert refused.errors == "sgagent: unrecognized arguments: --no-such-option (see 'sgagent --help')\n"
    assert agent.command("--version").output.startswith("sgagent ")
    assert agent.command("status").status == 4
    assert agent.command("compile").status == 0
    assert "table inet sgagent" in agent.table()


def test_the_daemon_gives_its_privilege_up(agent: Service) -> None:
    """The applier alone has it, and neither holds a file of whoever started them."""
    with Path(__file__).open() as opened:
        agent.start()
        for pid, capabilities in ((agent.pid, 0), (agent.applier_pid, 1 << 12)):
            status = Path(f"/proc/{pid}/status").read_text()
            assert f"CapPrm:\t{capabilities:016x}\n" in status
            assert f"CapEff:\t{capabilities:016x}\n" in status
            assert "NoNewPrivs:\t1\n" in status
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                    assert descriptor.readlink() != Path(opened.name)
    assert agent.stop() == 0


@pytest.mark.sampled(1)
def test_a_signal_ends_it(agent: Service) -> None:
    """Its exit status names the signal, as for any child."""
    agent.start()
    os.kill(agent.pid, signal.SIGKILL)
    assert agent.wait_for_end() == -signal.SIGKILL


@pytest.mark.long
def test_forks_end_with_whoever_asked_for_them(one_interface: Lab, tmp_path: Path) -> None:
    """A run of tests that is killed leaves no agent behind."""
    program = (
        "import os, sys; from pathlib import Path; from integration.namespaces import Namespace;"
        " from integration.service import Service;"
        f" agent = Service(Namespace({one_interface.host.name!r}), Path({str(tmp_path)!r}));"
        f" agent.define({POLICY!r}); agent.start(); print(agent.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        (sys.executable, "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as asking:
        assert asking.stdout is not None
        pid = int(asking.stdout.readline())
        assert is_alive(pid)
        asking.kill()
    wait_for(lambda: not is_alive(pid), "the agent to end with it")
