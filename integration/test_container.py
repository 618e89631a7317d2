"""The agent in a container, as ``container/`` describes it: built, started, restarted, taken out."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator

import pytest

from integration.lab import Lab, wait_for
from integration.namespaces import CommandError, run
from integration.package import ROOT, built, why_not as why_no_package
from integration.podman import CONTAINER, Podman, podman_in, why_not
from integration.service import definitions, lets_in

HOST, CLIENT = "10.0.0.11", "198.51.100.7"
OPEN, ONLY_WEB = ((True, True), (True, False))
"""Whether a packet to port 80 gets in, and whether one to port 22 does."""

BOOT_UNIT, COMPOSE_FILE = ROOT / "container/sgagent-boot.service", ROOT / "container/compose.yaml"

_no_container = why_not() or why_no_package()


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Build the image."""
    with podman_in(tmp_path_factory.mktemp("podman")) as made:
        made.build(built())
        yield made


def is_healthy(podman: Podman) -> bool:
    """Tell whether the container's own check passes now."""
    try:
        podman.run("podman", "healthcheck", "run", CONTAINER)
    except CommandError:
        return False
    return True


def processes(podman: Podman, lab: Lab) -> set[tuple[str, ...]]:
    """Return user, capabilities and name of each process in the container."""
    told = podman.run("podman", "top", CONTAINER, "user", "capeff", "capbnd", "comm", network=lab.host)
    return {tuple(line.split()) for line in told.splitlines()[1:]}


def boot_command() -> list[str]:
    """Return the command of the boot unit."""
    lines = BOOT_UNIT.read_text().replace("\\\n", " ").splitlines()
    return shlex.split(next(line for line in lines if line.startswith("ExecStart=")).partition("=")[2])


@pytest.mark.long
@pytest.mark.machines
@pytest.mark.skipif(bool(_no_container), reason=f"no container: {_no_container}")
def test_the_container_enforces(podman: Podman, wire: Lab) -> None:
    """From an open host to enforcing, over a stop and a boot, and back to an open host."""
    (podman.configuration / "groups.d" / "policy.yaml").write_text(
        definitions("ingress accept 1 tcp 80 from 0.0.0.0/0")
    )
    run("systemd-analyze", "verify", str(BOOT_UNIT))
    assert lets_in(wire) == OPEN
    listener = wire.listen(wire.host, HOST, 22)
    with listener, wire.connect(wire.peer, (CLIENT, 3022), (HOST, 22)):
        podman.compose(wire.host, "up", "--detach")
        wait_for(lambda: lets_in(wire) == ONLY_WEB, "the container to enforce")
        wait_for(lambda: '"session_cut"' in podman.run("podman", "logs", CONTAINER), "the session to be cut")
    wait_for(lambda: is_healthy(podman), "the container's check to pass")
    expected = {
        ("sgagent", "none", "NET_ADMIN", "python3"),
        ("sgagent", "NET_ADMIN", "NET_ADMIN", "sgagent-applier"),
        ("sgagent", "none", "NET_ADMIN", "sgagent-reader"),
        ("sgagent", "none", "NET_ADMIN", "sgagent-prover"),
    }
    wait_for(lambda: processes(podman, wire) == expected, "the process that proves to be the last to start")
    wait_for(lambda: "the default" in podman.execute("sgagent", "denied"), "a drop to be logged by NFLOG")
    with pytest.raises(CommandError, match="Read-only file system"):
        podman.execute("touch", "/usr/bin/other")

    saved = podman.execute("nft", "--stateless", "list", "table", "inet", "sgagent")
    podman.compose(wire.host, "stop")
    assert lets_in(wire) == ONLY_WEB
    for close in (lambda: podman.run(*boot_command(), network=wire.host), lambda: wire.load(saved)):
        wire.host.remove_table("sgagent")  # as a boot does
        assert lets_in(wire) == OPEN
        close()
        assert lets_in(wire) == ONLY_WEB
        podman.compose(wire.host, "start")
        wait_for(lambda: is_healthy(podman), "the agent to take the table over")
        assert lets_in(wire) == ONLY_WEB
        podman.compose(wire.host, "stop")

    assert "nothing is enforced any more" in podman.compose(wire.host, "run", "--rm", "-T", "agent", "flush")
    assert lets_in(wire) == OPEN
    podman.compose(wire.host, "down", "--volumes")
    assert podman.run("podman", "volume", "list", "--quiet") == ""


@pytest.mark.long
@pytest.mark.machines
@pytest.mark.skipif(bool(_no_container), reason=f"no container: {_no_container}")
def test_the_image_holds_nothing_to_build_with(podman: Podman) -> None:
    """No compiler, no headers, no pip."""
    packages = podman.run(
        *("podman", "run", "--rm", "--network=none", "--entrypoint=dpkg-query", "localhost/sgagent"),
        *("--show", "--showformat", "${Package}\n"),
    ).split()
    assert "sgagent" in packages
    tools = re.compile(r"-dev$|^(gcc|g\+\+)(-\d+)?$|^(make|binutils|python3-pip)$")
    assert [name for name in packages if tools.search(name)] == []


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_the_compose_file_is_one_and_asks_for_little() -> None:
    """By Docker's own reading, it has no privilege but those that the entry point has to give up."""
    told = run("docker-compose", "--file", str(COMPOSE_FILE), "config", "--format=json")
    agent = json.loads(told)["services"]["agent"]
    assert "privileged" not in agent
    assert agent["cap_drop"] == ["ALL"]
    assert agent["cap_add"] == ["NET_ADMIN", "SETGID", "SETPCAP", "SETUID"]
    assert (agent["network_mode"], agent["userns_mode"], agent["read_only"]) == ("host", "host", True)
    targets = {volume["target"]: volume.get("read_only", False) for volume in agent["volumes"]}
    assert targets == {"/etc/sgagent": True, "/var/lib/sgagent": False}
    assert {name for name in agent["cap_add"] if name in ",".join(boot_command())} == set(agent["cap_add"])


def test_the_agent_gets_what_its_unit_gives_it() -> None:
    """The entry point leaves the capabilities of ``sgagent.service``, and as little to be regained."""
    unit = (ROOT / "systemd/sgagent.service").read_text()
    entry = (ROOT / "container/Containerfile").read_text().partition("ENTRYPOINT")[2]
    for line, option in (
        ("AmbientCapabilities=CAP_NET_ADMIN", "--ambient-caps=-all,+net_admin"),
        ("CapabilityBoundingSet=CAP_NET_ADMIN", "--bounding-set=-all,+net_admin"),
        ("SecureBits=noroot-locked", "--securebits=+noroot,+noroot_locked"),
        ("NoNewPrivileges=yes", "--no-new-privs"),
        ("User=sgagent", "--reuid=sgagent"),
    ):
        assert f"\n{line}\n" in unit
        assert f'"{option}"' in entry


def test_the_boot_unit_comes_before_the_network() -> None:
    """As the package's does."""
    ours, packaged = BOOT_UNIT.read_text(), (ROOT / "systemd/sgagent-boot.service").read_text()
    for line in ("DefaultDependencies=no", "Before=network-pre.target shutdown.target", "Type=oneshot"):
        assert f"{line}\n" in ours
        assert f"{line}\n" in packaged
