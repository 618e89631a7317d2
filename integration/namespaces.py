"""Make network namespaces that vanish again: by leaving a context, at exit, or by the next run.

A name carries the process id, so that runs at the same time do not meet, and what a killed run left behind is
recognised and removed by the next one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import itertools
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nftables

from tests.patience import PATIENCE

_PREFIX = "sgtest"
_DIRECTORY = Path("/run/netns")
_COMMAND_SECONDS = 60.0
_NFT_OPTIONS = {"-a": "set_handle_output", "-j": "set_json_output", "-s": "set_stateless_output"}
"""Options of nft, and the methods of its library that do the same."""

_numbers = itertools.count()
_living: set[str] = set()


class CommandError(Exception):
    """Say that a command of the test bench failed, with its output."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        """Keep the command and its result."""
        self.status = status
        self.output = output
        super().__init__(f"{' '.join(argv)}: exit {status}\n{output}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace of this run."""

    name: str

    @property
    def path(self) -> Path:
        """Return the file that stands for the namespace."""
        return _DIRECTORY / self.name

    def run(self, *argv: str, stdin: str | None = None, seconds: float = _COMMAND_SECONDS) -> str:
        """Run a command in the namespace and return its output.

        Raises:
            CommandError: it exited with another status than 0.
        """
        return run("ip", "netns", "exec", self.name, *argv, stdin=stdin, seconds=seconds)

    def ip(self, *lines: str, version: int | None = None) -> None:
        """Carry out lines of the ``ip`` command, in one process, up to the first that fails.

        Args:
            lines: without the word ``ip``.
            version: the IP version, where the lines don't show it.
        """
        family = () if version is None else (f"-{version}",)
        run("ip", *family, "-netns", self.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def sysctl(self, values: Mapping[str, int]) -> None:
        """Set kernel parameters of the namespace, named with slashes or dots."""
        with self.entered():
            for name, value in values.items():
                Path("/proc/sys", *name.split("/" if "/" in name else ".")).write_text(f"{value}\n")

    def nft(self, *arguments: str, stdin: str | None = None) -> str:
        """Do nft's work in the namespace by its library: a process takes ten times as long.

        Args:
            arguments: of nft: options of :data:`_NFT_OPTIONS`, then a command, or ``-f -``.
            stdin: the commands, in place of one of the arguments.

        Raises:
            CommandError: the kernel or the library refused it.
        """
        with self.entered():
            library = nftables.Nftables()
        for option in _NFT_OPTIONS.keys() & set(arguments):
            getattr(library, _NFT_OPTIONS[option])(True)  # noqa: FBT003 - the library's own parameter
        command = " ".join(word for word in arguments if word not in _NFT_OPTIONS) if stdin is None else stdin
        status, output, errors = library.cmd(command)
        if status:
            raise CommandError(("nft", *arguments), 1, output + errors)
        return str(output)

    def remove_table(self, name: str) -> None:
        """Remove a table of the family inet, if it is there; older kernels have no one command for that."""
        if f"table inet {name}\n" in self.nft("list", "tables"):
            self.nft("delete", "table", "inet", name)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the namespace until the context is left."""
        with self.path.open() as target, Path("/proc/thread-self/ns/net").open() as home:
            set_network_namespace(target.fileno())
            try:
                yield
            finally:
                set_network_namespace(home.fileno())

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives in the namespace; it may be used from anywhere."""
        with self.entered():
            return socket.socket(family, kind, protocol)


@contextlib.contextmanager
def network_namespace(role: str = "") -> Iterator[Namespace]:
    """Make a namespace with loopback up, and remove it with all that is in it.

    Args:
        role: what it is for, to be read in ``ip netns``.
    """
    name = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}" + (f"-{role}" if role else "")
    run("ip", "netns", "add", name)
    _living.add(name)
    try:
        namespace = Namespace(name)
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
        yield namespace
    finally:
        _remove(name)


def remove_stale_namespaces() -> None:
    """Remove the namespaces of runs that died without doing so."""
    for path in _DIRECTORY.glob(f"{_PREFIX}-*"):
        owner = path.name.split("-")[1]
        if owner.isdigit() and not Path("/proc", owner).exists():
            _remove(path.name)


def run(*argv: str, stdin: str | None = None, seconds: float = _COMMAND_SECONDS) -> str:
    """Run a command and return its output.

    Raises:
        CommandError: it exited with another status than 0.
        subprocess.TimeoutExpired: it did not end in time.
    """
    limit = seconds * PATIENCE
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode:
        raise CommandError(argv, done.returncode, done.stdout + done.stderr)
    return done.stdout


def set_network_namespace(descriptor: int) -> None:
    """Move the calling thread, and no other, into the namespace of an open file."""
    if sys.version_info >= (3, 12):
        os.setns(descriptor, os.CLONE_NEWNET)
    elif _LIBC.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_MNT_DETACH = 2
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def _remove(name: str) -> None:
    """Remove a namespace; a program that still runs in it keeps it alive without a name until it ends."""
    _living.discard(name)
    path = _DIRECTORY / name
    _LIBC.umount2(os.fsencode(path), _MNT_DETACH)
    path.unlink(missing_ok=True)


@atexit.register
def _remove_all() -> None:
    """Remove the namespaces of contexts that were never left."""
    for name in tuple(_living):
        _remove(name)
