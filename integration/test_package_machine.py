"""The package on a booted machine: installed, upgraded under traffic, removed, purged, and back again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from integration.flood import flooding, watch, watched
from integration.lab import Lab, wait_for
from integration.machine import Machine, why_not
from integration.namespaces import CommandError
from integration.package import (
    EARLIER,
    INSTALLATION_SECONDS,
    OTHER,
    built,
    built_rpm,
    dpkg,
    install,
    is_installed,
    why_not as why_no_package,
    with_configuration,
)
from integration.service import definitions, lets_in
from integration.traffic import traffic
from sgagent import __version__

HOST, FRIEND = "10.0.0.11", "198.51.100.9"
WEB, SSH = "ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress accept 1 tcp 22 from 198.51.100.9"
OPEN, ONLY_WEB = ((True, True), (True, False))
"""Whether a packet to port 80 gets in, and whether one to port 22 does."""

DOCUMENT = "/etc/sgagent/groups.d/policy.yaml"
EXAMPLES = "/usr/share/doc/sgagent/examples"
UNITS = ("sgagent.service", "sgagent-boot.service")
MODULES = "/usr/lib/python3/dist-packages/sgagent"
ACCOUNT = {"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"}
KEPT = "/var/cache/sgagent-test/bytecode"
LEFT_BY_PURGE = {"/etc/sgagent", "/etc/sgagent/groups.d", DOCUMENT}

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(
        bool(_reason := why_not() or why_no_package()), reason=f"no machine with a package: {_reason}"
    ),
]


def says_enforcing(machine: Machine) -> bool:
    """Tell whether an agent answers that it enforces."""
    try:
        return machine.run("sgagent", "status").startswith("enforcing")
    except CommandError:
        return False


def enforce(machine: Machine, wire: Lab, *rules: str) -> None:
    """Write a document, have it enforced, and wait until it is followed."""
    machine.write(DOCUMENT, definitions(*rules))
    machine.run("sgagent", "mode", "enforce")
    wait_for(lambda: lets_in(wire) == ONLY_WEB, "the document to be enforced")
    wait_for(lambda: says_enforcing(machine), "the agent to say so")


def hits(machine: Machine) -> dict[str, float]:
    """Return the hits of each rule that the running agent tells Prometheus of."""
    page = machine.run(
        *("/usr/bin/python3", "-c"),
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9469/metrics').read().decode())",
    )
    lines = [line.rsplit(" ", 1) for line in page.splitlines() if "_packets_total{" in line]
    return {name: float(value) for name, value in lines}


def files(machine: Machine) -> set[str]:
    """Return every file and directory under /usr and /etc, and those with our name under /var and /run."""
    listed = machine.run("find", "/usr", "/etc", "-xdev").splitlines()
    named = machine.run("find", "/var", "/run", "-name", "*sgagent*").splitlines()
    return {name for name in (*listed, *named) if not name.startswith("/var/cache/sgagent-test")}


@pytest.mark.long
def test_a_package_comes_and_goes(machine: Machine, wire: Lab) -> None:
    """It is installed and removed, installed and purged, and installed again and removed although broken."""
    before = files(machine)
    expect_an_open_host(machine, wire, install(machine, built()))
    enforce(machine, wire, WEB)
    expect_removal(machine, wire, before)
    install(machine, built())
    wait_for(lambda: lets_in(wire) == ONLY_WEB, "what was kept to be enforced")
    expect_purge(machine, wire, before)
    expect_documents_to_be_observed(machine, wire, install(machine, built()))
    enforce(machine, wire, WEB)
    expect_removal_although_broken(machine, wire)


def expect_an_open_host(machine: Machine, wire: Lab, told: str) -> None:
    """Assert that a new agent runs and locks nobody out (§9.2)."""
    assert "nothing is enforced until 'sgagent mode enforce'" in told
    assert lets_in(wire) == OPEN
    assert [machine.run("systemctl", "is-enabled", unit).strip() for unit in UNITS] == ["enabled"] * 2
    assert machine.show("sgagent.service", "ActiveState") == "active"
    status = machine.run("sh", "-c", "sgagent status || :")
    assert "the source holds no document yet" in status
    assert "down" not in status
    assert '"level": "error"' not in machine.journal("sgagent.service")
    machine.run("systemctl", "reload", "sgagent.service")
    assert "9 passed" in machine.run("sgagent", "test", "--kernel", f"{EXAMPLES}/1-web")
    assert machine.run("stat", "--format=%U %a", "/etc/sgagent").split() == ["root", "755"]
    assert machine.run("id", "--user", "sgagent").strip() != "0"
    assert machine.run("dpkg", "--verify", "sgagent") == ""


def expect_documents_to_be_observed(machine: Machine, wire: Lab, told: str) -> None:
    """Assert that documents which outlived a purge are not enforced by the next installation."""
    assert "nothing is enforced until 'sgagent mode enforce'" in told
    status = ("sh", "-c", "sgagent status || :")
    wait_for(lambda: machine.run(*status).startswith("observing"), "the documents to be observed")
    assert lets_in(wire) == OPEN


def expect_removal(machine: Machine, wire: Lab, before: set[str]) -> None:
    """Remove it: the host is open, which is said; configuration and state stay.

    Bytecode goes with its source, also what another Python wrote, and what an earlier version left.
    """
    machine.run("sgagent", "hits")
    machine.write(f"{MODULES}/core/__pycache__/model.cpython-399.pyc", "written by another Python")
    machine.write(f"{MODULES}/gone/__pycache__/gone.cpython-313.pyc", "an earlier version had its source")
    told = dpkg(machine, "--remove", "sgagent")
    assert "sgagent: removed table inet sgagent: nothing is enforced any more" in told
    assert "not empty" not in told
    assert lets_in(wire) == OPEN
    for unit in UNITS:
        assert machine.show(unit, "LoadState") == "not-found"
        assert machine.show(unit, "ActiveState") == "inactive"
    assert list(machine.path("/var/lib/sgagent").iterdir())
    left = files(machine) - before
    assert {name for name in left if name.startswith("/usr/")} == set()
    assert {*LEFT_BY_PURGE, "/etc/sgagent/sgagent.toml", "/var/lib/sgagent"} <= left


def expect_purge(machine: Machine, wire: Lab, before: set[str]) -> None:
    """Purge it: state, sockets and configuration go; the documents, which are the administrator's, stay."""
    told = dpkg(machine, "--purge", "sgagent")
    assert "the documents in /etc/sgagent/groups.d are yours, and stay" in told
    for gone in ("/var/lib/sgagent", "/run/sgagent", "/etc/sgagent/sgagent.toml"):
        assert not machine.path(gone).exists(), gone
    assert files(machine) - before - ACCOUNT == LEFT_BY_PURGE
    with pytest.raises(CommandError):
        machine.run("sgagent", "--version")
    assert lets_in(wire) == OPEN


def expect_removal_although_broken(machine: Machine, wire: Lab) -> None:
    """Remove it where the rules can't be taken out: it goes all the same, and names the remaining work."""
    machine.write("/usr/bin/sgagent", "#!/bin/sh\necho 'sgagent: broken' >&2\nexit 3\n")
    machine.path("/usr/bin/sgagent").chmod(0o755)
    told = dpkg(machine, "--remove", "sgagent")
    assert "sgagent: broken" in told
    assert "'nft destroy table inet sgagent' takes them out" in told
    assert not is_installed(machine)
    machine.run("nft", "destroy", "table", "inet", "sgagent")
    assert lets_in(wire) == OPEN


OLD_KERNEL = ("setarch", "--uname-2.6")
"""Runs a command for which the kernel is Linux 2.6."""

REFUSAL = r"sgagent: this kernel is 2\.6.*, and sgagent needs Linux 5\.10 or later; nothing was changed"


@pytest.mark.long
def test_a_kernel_that_is_too_old_is_refused(machine: Machine, wire: Lab) -> None:
    """Before anything is unpacked; a package that is there already stays as it is, and goes on."""
    place, before = f"/var/cache/sgagent-test/{built().name}", files(machine)
    machine.path("/var/cache/sgagent-test").mkdir()
    shutil.copy(built(), machine.path(place))
    refused = (*OLD_KERNEL, "sh", "-c", f"dpkg --install {place} 2>&1")
    with pytest.raises(CommandError, match=REFUSAL):
        machine.run(*refused, seconds=INSTALLATION_SECONDS)
    assert files(machine) == before
    assert not is_installed(machine)
    install(machine, built(EARLIER))
    enforce(machine, wire, WEB)
    with pytest.raises(CommandError, match=REFUSAL):
        machine.run(*refused, seconds=INSTALLATION_SECONDS)
    assert machine.run("sgagent", "--version") == f"sgagent {EARLIER}\n"
    assert is_installed(machine)
    assert lets_in(wire) == ONLY_WEB


@pytest.mark.long
def test_another_version_runs_its_own_code(machine: Machine) -> None:
    """Also where the two differ in neither size nor time of a file, and bytecode of the first is left."""
    install(machine, built(OTHER))
    assert machine.run("sgagent", "--version") == f"sgagent {OTHER}\n"
    bytecode = f"{MODULES}/__pycache__"
    machine.run("cp", "--archive", bytecode, KEPT)
    dpkg(machine, "--purge", "sgagent")
    machine.run("mkdir", MODULES)
    machine.run("cp", "--archive", KEPT, bytecode)
    install(machine, built())
    assert machine.run("sgagent", "--version") == f"sgagent {__version__}\n"
    assert f"sgagent {__version__}" in machine.run("sh", "-c", "sgagent status || :")


@pytest.mark.long
def test_an_upgrade_costs_nothing(machine: Machine, wire: Lab) -> None:
    """Denied stays denied, a session loses no byte, hits go on, and the new agent is the one that runs.

    The two versions differ in neither size nor time of a file.
    """
    install(machine, built())
    enforce(machine, wire, WEB, SSH)
    assert f"sgagent {__version__}" in machine.run("sgagent", "status")
    watch(wire)
    with traffic(wire) as sessions:
        sessions.open("an administrator's", wire.peer, FRIEND, wire.host, (HOST, 22))
        with sessions.running():
            sessions.wait_until_all_talk()
            before = hits(machine)
            with flooding(wire):
                install(machine, built(OTHER))
                wait_for(lambda: says_enforcing(machine), "the agent to answer")
            sessions.wait_until_all_talk()
            sessions.settle(set(sessions.sessions))
    seen, after = watched(wire), hits(machine)
    assert seen["leaked"] == 0
    assert seen["allowed"] > 0
    assert seen["sent"] > seen["allowed"]
    assert {name for name, value in before.items() if after[name] < value} == set()
    assert sum(after.values()) > sum(before.values())
    assert machine.run("sgagent", "--version") == f"sgagent {OTHER}\n"
    assert f"sgagent {OTHER}" in machine.run("sgagent", "status")
    assert machine.run("systemctl", "list-units", "--failed", "--no-legend") == ""
    assert int(machine.show("sgagent.service", "NRestarts")) == 0


@pytest.mark.long
def test_an_upgrade_of_an_enforcing_host_enforces(machine: Machine, wire: Lab, tmp_path: Path) -> None:
    """The packages' configuration set nothing once; dpkg puts the one that observes in its place."""
    install(machine, with_configuration(built(EARLIER), "# nothing is set\n", tmp_path))
    machine.write(DOCUMENT, definitions(WEB))
    wait_for(lambda: lets_in(wire) == ONLY_WEB, "the document to be enforced")
    install(machine, built())
    wait_for(lambda: says_enforcing(machine), "the agent to answer")
    assert 'mode = "observe"' in machine.path("/etc/sgagent/sgagent.toml").read_text()
    assert lets_in(wire) == ONLY_WEB
    machine.run("systemctl", "restart", "sgagent.service")
    assert lets_in(wire) == ONLY_WEB


@pytest.mark.long
@pytest.mark.skipif(shutil.which("rpmbuild") is None, reason="rpmbuild is not installed")
def test_the_rpm_comes_and_goes(machine: Machine, wire: Lab) -> None:
    """It is installed, upgraded under traffic, and removed: then the host is open.

    rpm may run a package's scripts in a network of their own.
    """
    before = files(machine)
    with pytest.raises(CommandError, match=REFUSAL):
        rpm(machine, "--install", built_rpm(EARLIER), *OLD_KERNEL)
    assert files(machine) == before
    told = rpm(machine, "--install", built_rpm(EARLIER))
    assert "it observes until 'sgagent mode enforce'" in told
    machine.run("systemctl", "enable", "--now", "sgagent.service")
    enforce(machine, wire, WEB)
    watch(wire)
    with flooding(wire):
        assert rpm(machine, "--upgrade", built_rpm()) == ""
        wait_for(lambda: says_enforcing(machine), "the agent to answer")
    seen = watched(wire)
    assert seen["leaked"] == 0
    assert 0 < seen["allowed"] < seen["sent"]
    assert f"sgagent {__version__}" in machine.run("sgagent", "status")
    wire.host.remove_table("testwatch")
    told = machine.run("sh", "-c", "rpm --erase sgagent 2>&1", seconds=INSTALLATION_SECONDS)
    assert "sgagent: removed table inet sgagent: nothing is enforced any more" in told
    assert lets_in(wire) == OPEN
    left = files(machine) - before - {"/usr/share/licenses"}  # Fedora has it
    assert {name for name in left if name.startswith("/usr/")} == set()


def rpm(machine: Machine, action: str, package: Path, *within: str) -> str:
    """Have rpm install a file, and return all that it said; Debian's knows of no dependencies."""
    place = machine.path("/var/cache/sgagent-test")
    place.mkdir(exist_ok=True)
    shutil.copy(package, place)
    name = f"/var/cache/sgagent-test/{package.name}"
    return machine.run(
        *(*within, "sh", "-c", 'rpm "$1" --nodeps --nosignature "$2" 2>&1', "sh", action, name),
        seconds=INSTALLATION_SECONDS,
    )
