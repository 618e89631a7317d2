"""Processes: drop capabilities irrevocably and verify the rest; fork, end, and give memory back."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import select
import signal
import struct
from collections.abc import Callable
from pathlib import Path

from sgagent.core.errors import NotPermittedError

NET_ADMIN = 12
_HIGHEST_CAPABILITY = 63

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_LOCKED_SECUREBITS = 0b11101111
"""From the lowest: root is nobody (and stays so), changes of the user change nothing (and stay so), no
capabilities are kept over a change of the user (locked), none can become ambient (and stays so)."""

_CAPABILITY_VERSION = 0x20080522
_HEADER = struct.Struct("=Ii")
_SETS = struct.Struct("=6I")
_LIBC = ctypes.CDLL(None, use_errno=True)


def give_up_all() -> None:
    """Drop all capabilities, at the latest with the next ``execve``, so that none can be regained.

    Where capset(2) is filtered, as by our unit, the ``execve`` drops the rest: a process of an ordinary user
    keeps only ambient capabilities. :func:`refuse_privilege` verifies the result.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _lock(kept=0)
    _set_capabilities(0)


def keep_only_net_admin() -> None:
    """Keep CAP_NET_ADMIN, if the process has it, and nothing else.

    Raises:
        NotPermittedError: another capability is left.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _lock(kept=1 << NET_ADMIN)
    _set_capabilities(capabilities()["Prm"] & 1 << NET_ADMIN)
    left = capabilities()
    if (left["Prm"] | left["Eff"]) & ~(1 << NET_ADMIN):
        raise NotPermittedError("capabilities other than CAP_NET_ADMIN can't be given up")


def refuse_privilege() -> None:
    """Make sure that this process holds no capability, and can get none.

    Raises:
        NotPermittedError: it does, so it must read nothing that others wrote.
    """
    held = {name: bits for name, bits in capabilities().items() if name in ("Prm", "Eff", "Amb") and bits}
    if held:
        sets = ", ".join(f"Cap{name} {bits:x}" for name, bits in held.items())
        raise NotPermittedError(f"the capabilities of the agent's own process can't be given up: {sets}")
    if not re.search(r"^NoNewPrivs:\t1$", _status(), re.MULTILINE):
        raise NotPermittedError("the agent's own process could get capabilities back")


def capabilities() -> dict[str, int]:
    """Return the kernel's sets of this process: ``Inh``, ``Prm``, ``Eff``, ``Bnd`` and ``Amb``."""
    return {name: int(bits, 16) for name, bits in re.findall(r"^Cap(\w+):\t(\w+)$", _status(), re.MULTILINE)}


def end_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def fork(work: Callable[[], object]) -> int:
    """Fork a process that does the work and ends; return its process id, to be waited for.

    It ends with this process, which must have one thread. Its exit code is 0 only if the work was done.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            end_with_parent()
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def ends_within(pid: int, seconds: float) -> bool:
    """Wait for a process to end; return whether it did or is gone.

    Raises:
        OSError: it can't be waited for.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(process, "rb", buffering=0):  # noqa: PTH123 - a number, not a path
        end = select.poll()
        end.register(process, select.POLLIN)
        return bool(end.poll(seconds * 1000))


def hide_memory() -> None:
    """Let nobody of the same user trace this process or read its memory."""
    _prctl(_PR_SET_DUMPABLE, 0)


def name_process(name: str) -> None:
    """Set the name that ``ps`` shows, of at most 15 characters."""
    text = ctypes.create_string_buffer(name.encode("ascii"))
    _prctl(_PR_SET_NAME, ctypes.addressof(text))


def give_back() -> None:
    """Return free memory of the C library to the kernel, if the C library supports that."""
    trim = getattr(_LIBC, "malloc_trim", None)
    if trim is not None:
        trim(0)


def _lock(kept: int) -> None:
    """Leave nothing that a program run from here could have again, as far as this process may say so."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(_HIGHEST_CAPABILITY + 1):
        if not kept >> number & 1:
            with contextlib.suppress(OSError):  # unknown to this kernel, or not ours to drop
                _prctl(_PR_CAPBSET_DROP, number)
    with contextlib.suppress(OSError):  # only who holds CAP_SETPCAP may; our unit has done it
        _prctl(_PR_SET_SECUREBITS, _LOCKED_SECUREBITS)


def _set_capabilities(kept: int) -> None:
    """Set the permitted and effective capabilities, and make none inheritable."""
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = _HEADER.pack(_CAPABILITY_VERSION, 0)
    sets = _SETS.pack(low, low, 0, high, high, 0)
    if _LIBC.capset(header, sets) and ctypes.get_errno() != errno.EPERM:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _prctl(option: int, argument: int) -> None:
    words = (ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    if _LIBC.prctl(ctypes.c_int(option), *words):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _status() -> str:
    return Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
