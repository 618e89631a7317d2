"""Sockets of processes on this host: the agent's, of SSH servers, of this login, and who listens on a port.

Only root sees the sockets of other users' processes, and only where the service manager does not hide them.
A process that cannot be seen counts as one without sockets.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

_PROCESSES = Path("/proc")
_SOCKET = re.compile(r"socket:\[([0-9]+)\]")
_FAR_END = re.compile(r"/dev/(pts/)?ptmx")
"""The device that a terminal's server has open."""

_PARENT = re.compile(r"^PPid:\s+([0-9]+)$", re.MULTILINE)
_SSH_SERVERS = frozenset({"sshd", "sshd-session", "dropbear"})
_APPLIERS = frozenset({"sgagent-applier"})
_FIRST_PROCESS = 1
_MOST_ANCESTORS = 100


def own_sockets() -> frozenset[int]:
    """Return the inodes of this process's sockets."""
    return _sockets_of(os.getpid())


def sockets_of_agents() -> frozenset[int]:
    """Return the inodes of the sockets of agents, which are the parents of appliers."""
    agents = {_parent_of(pid) for pid in _called(_APPLIERS)} - {_FIRST_PROCESS}
    return frozenset(inode for pid in agents for inode in _sockets_of(pid))


def sockets_of_ssh_servers() -> frozenset[int]:
    """Return the inodes of the sockets of SSH servers, listeners and sessions."""
    return frozenset(inode for pid in _called(_SSH_SERVERS) for inode in _sockets_of(pid))


def holder_of_port(port: int) -> str | None:
    """Return in words who listens on a TCP port of this network namespace; None where nobody can tell.

    The kernel shows everybody a socket's user, and its process only to that user.
    """
    for name in ("tcp", "tcp6"):
        with suppress(OSError), (_PROCESSES / "net" / name).open(encoding="ascii") as lines:
            for fields in map(str.split, islice(lines, 1, None)):
                if fields[_STATE] != _LISTENING:
                    break  # sessions come after all listeners, and may be many
                if int(fields[_LOCAL].rpartition(":")[2], 16) == port:
                    return _holder(int(fields[_USER]), int(fields[_INODE]))
    return None


_LOCAL, _STATE, _USER, _INODE = 1, 3, 7, 9
"""Fields of a line of ``/proc/net/tcp``."""

_LISTENING = "0A"


def _holder(uid: int, inode: int) -> str:
    """Return a user, and the process if it can be seen."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    pids = (int(entry.name) for entry in _PROCESSES.iterdir() if entry.name.isdigit())
    found = next((pid for pid in pids if inode in _sockets_of(pid)), None)
    return f"user {user}" if found is None else f"user {user} ({_name_of(found)}, process {found})"


def sockets_of_logins() -> frozenset[int]:
    """Return the inodes of the sockets of login servers among this process's ancestors.

    A login server is an SSH server, or another process that has the server's end of a terminal open. It is
    found through ``sudo`` too, but not where the shell is a child of another server (``tmux``, ``screen``).
    The sockets of other ancestors may serve anything, and are left out.
    """
    return frozenset(inode for pid in _callers() if _serves_logins(pid) for inode in _sockets_of(pid))


def _serves_logins(pid: int) -> bool:
    return _name_of(pid) in _SSH_SERVERS or any(_FAR_END.fullmatch(target) for target in _targets_of(pid))


def _callers() -> Iterator[int]:
    """Yield the ancestors of this process, except process 1, which has sockets of all services."""
    pid = os.getppid()
    for _ in range(_MOST_ANCESTORS):
        if pid <= _FIRST_PROCESS:
            return
        yield pid
        pid = _parent_of(pid)


def _parent_of(pid: int) -> int:
    """Return the parent of a process; process 1 if the process has ended or is hidden."""
    try:
        found = _PARENT.search((_PROCESSES / str(pid) / "status").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return _FIRST_PROCESS
    return int(found[1]) if found else _FIRST_PROCESS


def _called(names: Collection[str]) -> Iterator[int]:
    """Yield the visible processes with these names."""
    pids = (int(entry.name) for entry in _PROCESSES.iterdir() if entry.name.isdigit())
    yield from (pid for pid in pids if _name_of(pid) in names)


def _name_of(pid: int) -> str:
    """Return the name of a process; an empty one if it has ended or is hidden."""
    try:
        return (_PROCESSES / str(pid) / "comm").read_bytes().decode(errors="replace").rstrip("\n")
    except OSError:
        return ""


def _sockets_of(pid: int) -> frozenset[int]:
    """Return the inodes of a process's sockets; none if it has ended or is hidden."""
    found = map(_SOCKET.fullmatch, _targets_of(pid))
    return frozenset(int(match[1]) for match in found if match)


def _targets_of(pid: int) -> tuple[str, ...]:
    """Return the targets of a process's descriptors; none if it has ended or is hidden."""
    try:
        return tuple(map(_target, (_PROCESSES / str(pid) / "fd").iterdir()))
    except OSError:
        return ()  # the process has ended, or belongs to another user


def _target(descriptor: Path) -> str:
    """Return the target of a descriptor; an empty one if it has been closed."""
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""
