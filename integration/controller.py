"""Machines that a controller reaches by SSH, on one wire.

The SSH server is Debian's, unpacked by ``script/setup --development`` and put into the machines alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from integration.lab import wait_for
from integration.machine import Machine, machine_in
from integration.namespaces import Namespace, network_namespace, run
from integration.package import ROOT
from integration.tiers import plugged_in
from tests.patience import PATIENCE

ADDRESS = "10.30.0.1"
COLLECTION = ("sgagent", "host")
_PLAY_SECONDS = 300.0
_PACKAGES = ROOT / ".cache" / "packages"
_SERVER = ("openssh-server", "libwrap0", "libwtmpdb0")
_USER = "sshd:x:987:65534:sshd user:/run/sshd:/usr/sbin/nologin\n"
_UNIT = """
[Service]
ExecStart=/usr/sbin/sshd -D -e -f /etc/ssh/test_config
RuntimeDirectory=sshd
[Install]
WantedBy=multi-user.target
"""
_SERVER_CONFIGURATION = """
HostKey /etc/ssh/test_key
AuthorizedKeysFile /etc/ssh/test_authorized
PermitRootLogin prohibit-password
UseDNS no
UsePAM no
"""
_CONFIGURATION = """
[defaults]
inventory = {folder}/hosts.yml
collections_path = {folder}/collections
forks = 3
nocows = true
[ssh_connection]
control_path_dir = {sockets}
pipelining = true
transfer_method = piped
"""
_RECAP = re.compile(r"^(\S+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)


def why_not() -> str:
    """Return why there is no controller; empty if there is one."""
    missing = [package for package in _SERVER if not (_PACKAGES / package).exists()]
    if missing:
        return f"no {missing[0]} in .cache/packages; script/setup --development fetches it, as root"
    lacking = [program for program in ("ansible-playbook", "ssh", "ssh-keygen") if not shutil.which(program)]
    return f"{lacking[0]} is not installed" if lacking else ""


@dataclass(frozen=True, slots=True)
class Recap:
    """How a play ended."""

    status: int
    output: str

    @property
    def hosts(self) -> dict[str, tuple[int, int]]:
        """Return how many tasks changed something on each host, and how many failed or did not reach it."""
        return {
            name: (int(changed), int(unreachable) + int(failed))
            for name, _, changed, unreachable, failed in _RECAP.findall(self.output)
        }


@dataclass(frozen=True, slots=True)
class Controller:
    """The controller from which plays are run."""

    namespace: Namespace
    folder: Path
    machines: dict[str, Machine]

    def play(self, *options: str, **variables: object) -> Recap:
        """Run the collection's playbook, with variables of the role by their names without its prefix."""
        given = {"connect_within": int(15 * PATIENCE), "confirm_within": int(40 * PATIENCE)} | variables
        extra = json.dumps({f"sgagent_{name}": value for name, value in given.items()}, default=str)
        # Whatever is left of its connections ends with the first process of a namespace.
        done = subprocess.run(
            [
                *("ip", "netns", "exec", self.namespace.name),
                *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("ansible-playbook", "sgagent.host.rollout", "--extra-vars", extra, *options),
            ],
            env=dict(os.environ) | self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PLAY_SECONDS * PATIENCE,
            check=False,
        )
        return Recap(done.returncode, done.stdout + done.stderr)

    def _environment(self) -> dict[str, str]:
        config = str(self.folder / "ansible.cfg")
        return {"ANSIBLE_CONFIG": config, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}


@contextlib.contextmanager
def controller(folder: Path, addresses: Mapping[str, str]) -> Iterator[Controller]:
    """Boot machines that have nothing but an SSH server, and give them a controller.

    Args:
        folder: for the controller's files.
        addresses: of the machines, in 10.30.0.0/24, by their names.
    """
    with contextlib.ExitStack() as stack:
        sockets = Path(tempfile.mkdtemp(prefix="ssh-"))  # short, as names of sockets have to be
        stack.callback(shutil.rmtree, sockets)
        _prepare(folder, sockets, addresses)
        switch = stack.enter_context(network_namespace("switch"))
        switch.ip("link add br0 type bridge", "link set br0 up")
        desk = stack.enter_context(plugged_in(switch, "controller", "02:00:00:00:30:01"))
        desk.ip(f"address add {ADDRESS}/24 dev eth0")
        machines = {}
        for number, (name, address) in enumerate(addresses.items()):
            network = stack.enter_context(plugged_in(switch, name, f"02:00:00:00:31:{number:02x}"))
            network.ip(f"address add {address}/24 dev eth0")
            machine = machines[name] = stack.enter_context(machine_in(network, is_bare=True))
            _put_server(machine, folder)
            machine.boot()
        for machine in machines.values():
            wait_for(lambda one=machine: one.run("ss", "-Hltn", "sport", "=", "22") != "", "sshd to listen")  # type: ignore[misc]  # a default binds the loop's value
        yield Controller(desk, folder, machines)


def _prepare(folder: Path, sockets: Path, addresses: Mapping[str, str]) -> None:
    """Write keys, inventory and configuration, and have the collection found."""
    for name in ("client", "server"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name))
    key = " ".join((folder / "server.pub").read_text().split()[:2])
    known = "".join(f"{address} {key}\n" for address in addresses.values())
    (folder / "known_hosts").write_text(known)
    hosts = "".join(f"    {name}: {{ansible_host: {address}}}\n" for name, address in addresses.items())
    (folder / "hosts.yml").write_text(
        f"all:\n  hosts:\n{hosts}  vars:\n    ansible_user: root\n"
        f"    ansible_ssh_private_key_file: {folder}/client\n"
        f"    ansible_ssh_common_args: -o UserKnownHostsFile={folder}/known_hosts\n"
        "    ansible_python_interpreter: /usr/bin/python3\n"
    )
    (folder / "ansible.cfg").write_text(_CONFIGURATION.format(folder=folder, sockets=sockets))
    place = folder.joinpath("collections", "ansible_collections", *COLLECTION)
    place.parent.mkdir(parents=True)
    place.symlink_to(ROOT / "ansible")


def _put_server(machine: Machine, folder: Path) -> None:
    """Put Debian's SSH server into a machine that is off, and have it started."""
    for package in _SERVER:
        # A machine has this one's files, so what is in the package may be there, as links too.
        run("cp", "--archive", "--remove-destination", f"{_PACKAGES / package}/.", str(machine.path("/")))
    with machine.path("/etc/passwd").open("a") as accounts:
        accounts.write(_USER)
    shutil.copy(folder / "server", machine.path("/etc/ssh/test_key"))
    shutil.copy(folder / "client.pub", machine.path("/etc/ssh/test_authorized"))
    machine.write("/etc/ssh/test_config", _SERVER_CONFIGURATION)
    machine.write("/etc/systemd/system/test-ssh.service", _UNIT)
    machine.enable("test-ssh.service")
