"""Leave this host's network for one that is empty and private."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from sgagent.core.errors import NotPermittedError

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def enter_private_network() -> None:
    """Move this process into a network namespace of its own, which is gone when it ends.

    Root may make one. Anybody else becomes root of a new user namespace for it, where the host allows that.
    To be called from a process with one thread.

    Raises:
        NotPermittedError: neither is possible; says what is missing.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0 and not _unshare(_CLONE_NEWNET):
        return
    fault = _unshare(_CLONE_NEWUSER | _CLONE_NEWNET) or _become_root(user, group)
    if fault:
        raise NotPermittedError(
            f"a private network needs root, or user namespaces, which this host does not allow: {fault}"
        )


def _become_root(user: int, group: int) -> str | None:
    """Be root in the new user namespace; return why it failed, if it did."""
    try:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")
    except OSError as error:
        return str(error)
    return None


def _unshare(flags: int) -> str | None:
    """Leave some of the namespaces that the process shares with others; return why it failed, if it did."""
    return os.strerror(ctypes.get_errno()) if _LIBC.unshare(flags) else None
