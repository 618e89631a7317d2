"""Boot a machine with systemd of its own over this one's root, in a network namespace of the bench.

The machine sees this root as it is, but for what it writes itself: that stays in memory, and is gone with
the machine. It has none of this root's units but Debian's own. All of its mounts are in a mount namespace
that ends with its keeper, all of its processes in one of their own; so a killed test leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from integration.lab import LabError, wait_for
from integration.namespaces import CommandError, Namespace, run
from tests.patience import PATIENCE

_ROOT = Path(__file__).parent.parent
_PROJECT = "usr/lib/python3/dist-packages/sgagent"
"""Where Debian's own python3 finds the package, as it would from a package of the distribution."""

_PROGRAM = """#!/usr/bin/python3
import sys
from sgagent.cli.main import main
sys.exit(main())
"""
_UNITS = ("sgagent.service", "sgagent-boot.service", "sgagent-metrics.socket")
_LEGACY_CGROUPS = {"SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE": "1"}
"""Lets systemd boot where this machine still has control groups of version 1."""

_NSPAWN = (
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=read-only"),
    "--capability=CAP_NET_ADMIN",
)
"""What starts a machine, which may do what it likes to its network. All of its processes are in a namespace
that ends with systemd-nspawn, which ends with ``unshare``, which ends with us."""

_OWN_ENVIRONMENT = ("env", "--unset=PYTHONDONTWRITEBYTECODE")
"""Runs a command in the machine so that Python writes bytecode, whatever is set here."""

_BOOT_SECONDS = 60.0
_COMMAND_SECONDS = 30.0
_SETTLED = ("running", "degraded")


def why_not() -> str:
    """Return why machines can't be booted here; empty if they can."""
    for program in ("systemd-nspawn", "unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        with _kept_root():
            return ""
    except (CommandError, LabError) as error:
        return f"no overlay of this root can be mounted: {error}"


class Machine:
    """A machine with sgagent installed, switched off at first."""

    def __init__(self, network: Namespace, root: _Root) -> None:
        """Take the root of its files, and the network that it boots in."""
        self._network = network
        self._root = root
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def is_on(self) -> bool:
        """Tell whether the machine was switched on, and not off again."""
        return self._nspawn is not None

    def path(self, name: str) -> Path:
        """Return a file of the machine, by its absolute name there, as it is seen from here."""
        if self._nspawn is not None and name.startswith("/run/"):
            return Path(f"/proc/{self._leader}/root{name}")
        return self._root.path / name.removeprefix("/")

    def write(self, name: str, text: str) -> None:
        """Write a file of the machine beside its place, then rename it into it."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(text)
        draft.rename(path)

    def enable(self, unit: str) -> None:
        """Have a unit started at each boot."""
        self._root.run("systemctl", f"--root={self._root.place}/root", "enable", "--quiet", unit)

    def boot(self) -> None:
        """Switch the machine on and wait until it has nothing more to start."""
        if self._nspawn is not None:
            raise LabError("the machine is running")
        with self._console.open("wb") as console:
            self._nspawn = subprocess.Popen(
                [*self._root.entering, *_NSPAWN, *self._options()],
                env=dict(os.environ) | _LEGACY_CGROUPS,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        wait_for(self._is_up, "the machine to boot", _BOOT_SECONDS)

    def power_off(self) -> None:
        """Cut the power: nothing in the machine is asked; the kernel loses our table, as it would."""
        self._end()
        self._network.remove_table("sgagent")

    def shut_down(self) -> None:
        """Shut the machine down in order; the kernel loses our table with it."""
        process = self._running()
        self.run("systemctl", "poweroff", "--no-block")
        process.wait(_BOOT_SECONDS * PATIENCE)
        self.power_off()

    def close(self) -> None:
        """Switch off whatever runs."""
        self._end()

    def run(self, *argv: str, seconds: float = _COMMAND_SECONDS) -> str:
        """Run a command in the machine and return its output.

        Raises:
            CommandError: it exited with another status than 0.
            subprocess.TimeoutExpired: it did not end in time.
        """
        self._running()
        entering = ("nsenter", "--target", str(self._leader), "--all", *_OWN_ENVIRONMENT)
        return run(*entering, *argv, seconds=seconds)

    def begin(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command in the machine, whose input and output are pipes; the caller ends it."""
        self._running()
        entering = ("nsenter", "--target", str(self._leader), "--all", *_OWN_ENVIRONMENT)
        return subprocess.Popen([*entering, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def journal(self, unit: str) -> str:
        """Return a unit's log since the machine booted."""
        return self.logged(f"--unit={unit}")

    def logged(self, *chosen: str) -> str:
        """Return messages that the journal has of this boot, once it has stored all that were sent to it.

        Args:
            chosen: options of journalctl that choose them.
        """
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--boot", "--output=cat", *chosen)

    def main_pid(self, unit: str) -> int:
        """Return the process id that a service's main process has in the machine; 0 if there is none."""
        return int(self.show(unit, "MainPID"))

    @property
    def _console(self) -> Path:
        """Return the file of the machine's console since it was switched on."""
        return self._root.path.parent / "console"

    def _options(self) -> tuple[str, ...]:
        """Return systemd-nspawn's options for this machine."""
        return (
            f"--directory={self._root.place}/root",
            f"--machine={self._network.name}",
            f"--network-namespace-path={self._network.path}",
            *(f"--setenv={name}={value}" for name, value in _LEGACY_CGROUPS.items()),
        )

    def _is_up(self) -> bool:
        process = self._running()
        if process.poll() is not None:
            self._nspawn = None
            raise LabError(f"the machine ended with {process.returncode}:\n{self._console.read_text()}")
        self._leader = _only_child(_only_child(process.pid))
        if not _is_first_of_its_own(self._leader):
            return False
        try:
            self.run("systemctl", "is-system-running", "--wait", seconds=_BOOT_SECONDS)
        except CommandError as error:
            return error.status == 1 and error.output.strip() in _SETTLED
        return True

    def _running(self) -> subprocess.Popen[bytes]:
        if self._nspawn is None:
            raise LabError("the machine is off")
        return self._nspawn

    def _end(self) -> None:
        if self._nspawn is not None:
            self._nspawn.kill()
            self._nspawn.wait(_BOOT_SECONDS * PATIENCE)
            leader = Path(f"/proc/{self._leader}")
            wait_for(lambda: leader.name == "0" or not leader.exists(), "all processes of the machine to end")
            self._nspawn, self._leader = None, 0


def _only_child(pid: int) -> int:
    """Return the one child of a process; 0 if it has none, or several yet."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if len(children) == 1 else 0


def _is_first_of_its_own(pid: int) -> bool:
    """Tell whether a process is the first one of a machine, and not one that is about to make it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in lines)


@contextlib.contextmanager
def machine_in(network: Namespace, *, is_bare: bool = False, root: Path = Path("/")) -> Iterator[Machine]:
    """Give a network a machine with sgagent and its units installed as a package would, switched off.

    Args:
        network: what it has in place of a network of its own.
        is_bare: install nothing, for a package to be installed; what it depends on is there.
        root: of the files that the machine has; the same for others.
    """
    with _kept_root(root) as kept:
        _clear(kept)
        if not is_bare:
            _install(kept)
        made = Machine(network, kept)
        try:
            yield made
        finally:
            made.close()


class _Root:
    """An overlay of this root, in a mount namespace that lives as long as its keeper."""

    place = "/mnt"
    """Where it is mounted, in that namespace alone."""

    def __init__(self, keeper: subprocess.Popen[bytes]) -> None:
        self._keeper = keeper

    @property
    def entering(self) -> tuple[str, ...]:
        """Return the command that runs another in the mount namespace."""
        return ("nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt")

    @property
    def path(self) -> Path:
        """Return the overlay as it is seen from here."""
        return Path(f"/proc/{self._keeper.pid}/root{self.place}/root")

    def run(self, *argv: str) -> str:
        """Run a command beside the overlay."""
        return run(*self.entering, *argv)


_KEEPER = """
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
mkdir upper work root
mount -t overlay -o "lowerdir=$2,upperdir=upper,workdir=work" overlay root
echo mounted
exec cat
"""


@contextlib.contextmanager
def _kept_root(lower: Path = Path("/")) -> Iterator[_Root]:
    """Mount an overlay of a root, and keep it until the context is left or this process ends."""
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", _KEEPER, "sh", _Root.place, str(lower)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        told = keeper.stdout.readline().decode().strip() if keeper.stdout else ""
        if told != "mounted":
            raise LabError(told)
        yield _Root(keeper)
    finally:
        keeper.communicate()


def _clear(root: _Root) -> None:
    """Take out the files that belong to this machine alone."""
    shutil.rmtree(root.path / "etc/systemd/system")
    (root.path / "etc/systemd/system").mkdir()
    (root.path / "etc/machine-id").write_text("")
    for hindrance in ("usr/sbin/policy-rc.d", "var/lib/man-db/auto-update"):
        (root.path / hindrance).unlink(missing_ok=True)  # of starting units, and of installing in a second
    shutil.rmtree(
        root.path / "var/lib/apt/lists", ignore_errors=True
    )  # which apt reads for two seconds each time that it starts
    (root.path / "var/lib/apt/lists/partial").mkdir(parents=True)
    for left_behind in ("etc/sgagent", "var/lib/sgagent", "usr/lib/sgagent", _PROJECT):
        shutil.rmtree(root.path / left_behind, ignore_errors=True)


def _install(root: _Root) -> None:
    """Put in the files of a package of sgagent."""
    shutil.copytree(_ROOT / "sgagent", root.path / _PROJECT)  # with bytecode, which need not be made again
    program = root.path / "usr/bin/sgagent"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    for unit in _UNITS:
        shutil.copy(_ROOT / "systemd" / unit, root.path / "usr/lib/systemd/system")
    (root.path / "usr/lib/sgagent").mkdir()
    shutil.copy(_ROOT / "systemd/boot-fallback", root.path / "usr/lib/sgagent")
    shutil.copy(_ROOT / "systemd/sgagent.sysusers.conf", root.path / "usr/lib/sysusers.d/sgagent.conf")
    place = f"{root.place}/root"
    root.run("systemd-sysusers", f"--root={place}")
    root.run("/usr/bin/python3", "-m", "compileall", "-q", f"{place}/{_PROJECT}")
