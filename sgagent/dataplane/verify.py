"""Ask the kernel what it says to a table's text, without touching anything.

A new user namespace holds every capability, and a new network namespace in it holds no rules. So an
ordinary user can have a text checked in all earnest, where the host allows such namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

_SECONDS = 60.0
_UNPRIVILEGED = ("unshare", "--map-root-user", "--net", "--")
_AS_ROOT = ("unshare", "--net", "--")
"""Root needs no user namespace, and without one it may send the kernel transactions of any size."""

_TOO_LARGE = "wmem_max"
"""What nft names where an ordinary user may not send the kernel as much at once as a table takes."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The kernel would take the text."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The kernel, or nft, would not."""

    reason: str
    """What nft wrote."""


@dataclass(frozen=True, slots=True)
class NotPossible:
    """Nobody could be asked."""

    reason: str


Verification = Verified | Refused | NotPossible


def verify(text: str, *, seconds: float = _SECONDS) -> Verification:
    """Return what the kernel says to a text for ``nft -f -``.

    Args:
        text: the table.
        seconds: how long nft may take.
    """
    missing = [program for program in ("unshare", "nft") if shutil.which(program) is None]
    if missing:
        return NotPossible(f"{missing[0]} is not installed")
    try:
        if reason := _cannot_isolate():
            return NotPossible(reason)
        done = _run((*_private(), "nft", "--check", "--file", "-"), text, seconds)
    except subprocess.TimeoutExpired:
        return NotPossible(f"nft did not answer within {seconds:g} seconds")
    if done.returncode == 0:
        return Verified()
    if _TOO_LARGE in done.stderr:
        return NotPossible("the table is larger than an ordinary user may have the kernel check")
    return Refused(done.stderr.strip())


def knows_persist() -> bool:
    """Tell whether the nft of this host, and its kernel, know tables that outlive their owner."""
    return isinstance(verify("table inet sgagent {\n\tflags persist\n}\n"), Verified)


def _private() -> tuple[str, ...]:
    """Return the command that runs another in private namespaces."""
    return _AS_ROOT if os.geteuid() == 0 else _UNPRIVILEGED


def _cannot_isolate() -> str | None:
    """Return why there can be no private namespaces with a working nft; None if there can."""
    done = _run((*_private(), "nft", "list", "ruleset"), "", _SECONDS)
    if done.returncode == 0:
        return None
    return f"no private namespaces: {done.stderr.strip() or 'the host forbids them'}"


def _run(argv: tuple[str, ...], text: str, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - fixed programs; the text goes to standard input
        argv, input=text, capture_output=True, text=True, timeout=seconds, check=False
    )
