"""Know which sockets processes of this host hold: the agent itself, SSH servers, and whoever called us.

Whose processes those are decides what can be seen: others' only as root, and none but our own where the
service manager hides them. What can't be seen is taken for nothing held.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

_PROCESSES = Path("/proc")
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")
_FAR_END = re.compile(r"/dev/(pts/)?ptmx")
"""What a process reads and writes that shows a terminal to somebody elsewhere."""

_PARENT = re.compile(r"^PPid:\s+([0-9]+)$", re.MULTILINE)
_SSH_SERVERS = frozenset({"sshd", "sshd-session", "dropbear"})
_APPLIERS = frozenset({"sgagent-applier"})
_FIRST_PROCESS = 1
_MOST_ANCESTORS = 100


def own_sockets() -> frozenset[int]:
    """Return the inodes of this process's sockets."""
    return _sockets_of(os.getpid())


def sockets_of_agents() -> frozenset[int]:
    """Return the inodes of the sockets that agents hold: those who have an applier for a child."""
    agents = {_parent_of(pid) for pid in _called(_APPLIERS)} - {_FIRST_PROCESS}
    return frozenset(inode for pid in agents for inode in _sockets_of(pid))


def sockets_of_ssh_servers() -> frozenset[int]:
    """Return the inodes of the sockets that SSH servers hold, listeners and sessions, as far as they show."""
    return frozenset(inode for pid in _called(_SSH_SERVERS) for inode in _sockets_of(pid))


def sockets_of_logins() -> frozenset[int]:
    """Return the inodes of the sockets of the login servers by which this process was called.

    A login server is an SSH server, or whoever else holds the far end of a terminal. It is found behind
    ``sudo``, too; not where the shell is a child of another server (``tmux``, ``screen``). Any other caller
    may serve anything to anybody: what it holds is nobody's login.
    """
    return frozenset(inode for pid in _callers() if _serves_logins(pid) for inode in _sockets_of(pid))


def _serves_logins(pid: int) -> bool:
    return _name_of(pid) in _SSH_SERVERS or any(_FAR_END.fullmatch(target) for target in _targets_of(pid))


def _callers() -> Iterator[int]:
    """Yield parents and their parents; not the first process, which holds sockets for everybody."""
    pid = os.getppid()
    for _ in range(_MOST_ANCESTORS):
        if pid <= _FIRST_PROCESS:
            return
        yield pid
        pid = _parent_of(pid)


def _parent_of(pid: int) -> int:
    """Return the process that called another; the first where that is gone or hidden."""
    try:
        found = _PARENT.search((_PROCESSES / str(pid) / "status").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return _FIRST_PROCESS
    return int(found[1]) if found else _FIRST_PROCESS


def _called(names: Collection[str]) -> Iterator[int]:
    """Yield the processes of some names, as far as they show."""
    pids = (int(entry.name) for entry in _PROCESSES.iterdir() if entry.name.isdigit())
    yield from (pid for pid in pids if _name_of(pid) in names)


def _name_of(pid: int) -> str:
    """Return a process's name; nothing where it is gone or hidden."""
    try:
        return (_PROCESSES / str(pid) / "comm").read_bytes().decode(errors="replace").rstrip("\n")
    except OSError:
        return ""


def _sockets_of(pid: int) -> frozenset[int]:
    """Return the inodes of a process's sockets; none where it is gone or hidden."""
    found = map(_SOCKET.fullmatch, _targets_of(pid))
    return frozenset(int(match[1]) for match in found if match)


def _targets_of(pid: int) -> tuple[str, ...]:
    """Return what a process's descriptors stand for; nothing where it is gone or hidden."""
    try:
        return tuple(map(_target, (_PROCESSES / str(pid) / "fd").iterdir()))
    except OSError:
        return ()  # it ended meanwhile, or is not ours to look into


def _target(descriptor: Path) -> str:
    """Return what a descriptor stands for; nothing if it was closed meanwhile."""
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""
