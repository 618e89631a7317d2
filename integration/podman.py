"""Run Podman with images and containers of the test's own, in a network namespace of the bench.

All of it is in a mount and a process namespace that end with their keeper, so a killed test leaves nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.lab import LabError
from integration.namespaces import Namespace, run
from integration.package import ROOT

BASE = "localhost/debian:13"
"""The image that stands for Debian's own, as no registry is asked."""

CONTAINER = "sgagent_agent_1"
"""What podman-compose calls the container of the compose file."""

_TOOLS = ("crun", "conmon", "mmdebstrap", "podman", "podman-compose", "unshare")
_COMPOSE_FILE = ROOT / "container" / "compose.yaml"
_BUILD_SECONDS = 600.0

_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""
_ENGINE = """
[containers]
default_ulimits = ["nofile={files}", "nproc={processes}"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "{folder}/tmp"
"""
"""Runs where no systemd does, and nobody may raise limits."""

_KEEPER = """
set -e
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" overlay /etc
mkdir -p /etc/sgagent
mount --bind "$1/sgagent" /etc/sgagent
for version2 in /sys/fs/cgroup/unified; do # crun takes control groups of either version, and not of both
    ! mountpoint --quiet "$version2" || umount "$version2"
done
echo mounted
exec cat
"""


def why_not() -> str:
    """Return why no container can be run here; empty if one can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"{missing[0]} is not installed" if missing else ""


@dataclass(frozen=True, slots=True)
class Podman:
    """Podman with a store of its own, on a host with an ``/etc/sgagent`` of its own."""

    folder: Path
    _keeper: subprocess.Popen[bytes]

    @property
    def configuration(self) -> Path:
        """Return the directory that containers see as the host's ``/etc/sgagent``."""
        return self.folder / "sgagent"

    def run(self, *argv: str, network: Namespace | None = None) -> str:
        """Run a command with both of its outputs in one, by default in this process's network.

        Raises:
            CommandError: it exited with another status than 0.
        """
        namespaces = Path("/proc", str(self._keeper.pid), "ns")
        entering = [f"--mount={namespaces}/mnt", f"--pid={namespaces}/pid_for_children"]
        entering += [f"--net={network.path}"] if network else []
        settings = (
            f"CONTAINERS_STORAGE_CONF={self.folder}/storage.conf",
            f"CONTAINERS_CONF_OVERRIDE={self.folder}/containers.conf",
            "PODMAN_IGNORE_CGROUPSV1_WARNING=1",
        )
        shell = ("sh", "-c", 'exec "$@" 2>&1', "sh")
        return run("nsenter", *entering, "env", *settings, *shell, *argv, seconds=_BUILD_SECONDS)

    def build(self, package: Path) -> None:
        """Build the image as the Containerfile says, with a package and on a base from Debian's mirror."""
        base = _base_archive()
        self.run("podman", "import", str(base), BASE)
        context = self.folder / "context"
        context.mkdir()
        shutil.copy(package, context)
        self.run(
            *("podman", "build", "--network=host", f"--build-arg=BASE={BASE}", "--tag=localhost/sgagent"),
            *(f"--file={ROOT}/container/Containerfile", str(context)),
        )

    def compose(self, network: Namespace, *arguments: str) -> str:
        """Do something with the containers of the compose file, on the host that the network is of."""
        return self.run("podman-compose", "--file", str(_COMPOSE_FILE), *arguments, network=network)

    def execute(self, *argv: str) -> str:
        """Run a command in the agent's container."""
        return self.run("podman", "exec", CONTAINER, *argv)

    def inspect(self) -> Mapping[str, Any]:
        """Return Podman's facts about the agent's container."""
        found: list[Mapping[str, Any]] = json.loads(self.run("podman", "inspect", CONTAINER))
        return found[0]


@contextlib.contextmanager
def podman_in(folder: Path) -> Iterator[Podman]:
    """Make the namespaces, with everything that is written below a folder."""
    for name in ("images", "run", "sgagent/groups.d", "tmp", "upper", "work"):
        (folder / name).mkdir(parents=True)
    limits = {
        name: f"{hard}:{hard}" if hard != resource.RLIM_INFINITY else "-1:-1"
        for name, (_, hard) in {
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "processes": resource.getrlimit(resource.RLIMIT_NPROC),
        }.items()
    }
    (folder / "storage.conf").write_text(_STORAGE.format(folder=folder))
    (folder / "containers.conf").write_text(_ENGINE.format(folder=folder, **limits))
    keeper = subprocess.Popen(
        [
            *(
                "setpriv",
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--propagation=private",
                "--pid",
                "--fork",
            ),
            *("--kill-child", "--mount-proc", "sh", "-c", _KEEPER, "sh", str(folder)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        told = keeper.stdout.readline().decode().strip() if keeper.stdout else ""
        if told != "mounted":
            raise LabError(told)
        yield Podman(folder, keeper)
    finally:
        keeper.communicate()


def _base_archive() -> Path:
    """Return the files of a small Debian 13, made once in this tree."""
    archive = ROOT / ".cache" / "containers" / "debian-13.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        draft = archive.with_name(f"draft-{os.getpid()}.tar")
        run("mmdebstrap", "--quiet", "--variant=minbase", "trixie", str(draft), seconds=_BUILD_SECONDS)
        draft.rename(archive)
    return archive
