"""Check of a ruleset's text by the kernel, in a namespace of its own.

A new user namespace has every capability, and a new network namespace in it has no rules. So an ordinary user
can have the kernel check a text, on hosts that allow such namespaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

_SECONDS = 60.0
_SYSTEM_PROGRAMS = "/usr/sbin:/sbin"
"""Where nft is; an ordinary user's search path often leaves it out, and what is printed may not tell."""

_PERSISTENT = "table inet sgagent {\n\tflags persist\n}\n"
_UNPRIVILEGED = ("unshare", "--map-root-user", "--net", "--")
_AS_ROOT = ("unshare", "--net", "--")
"""Root needs no user namespace, and without one it may send the kernel transactions of any size."""

_CHECK = ("nft", "--check", "--file", "-")
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
    """The kernel could not check the text."""

    reason: str


Verification = Verified | Refused | NotPossible


def verify(text: str, *, seconds: float = _SECONDS) -> Verification:
    """Return what the kernel says to a text for ``nft -f -``.

    Args:
        text: the table.
        seconds: how long nft may take.
    """
    missing = [program for program in ("unshare", "nft") if _find(program) is None]
    if missing:
        return NotPossible(f"{missing[0]} is not installed")
    try:
        if reason := _cannot_isolate():
            return NotPossible(reason)
        done = _run((*_private(), *_CHECK), text, seconds)
    except subprocess.TimeoutExpired:
        return NotPossible(f"nft did not answer within {seconds:g} seconds")
    if done.returncode == 0:
        return Verified()
    if _TOO_LARGE in done.stderr:
        return NotPossible("the table is larger than an ordinary user may have the kernel check")
    return Refused(done.stderr.strip())


def knows_persist() -> bool:
    """Return whether this host's nft, and its kernel if it can be asked, know tables that outlive owners."""
    checked = verify(_PERSISTENT)
    return _is_grammatical(_PERSISTENT) if isinstance(checked, NotPossible) else isinstance(checked, Verified)


def _is_grammatical(text: str) -> bool:
    """Return whether nft can read a text; it says so before it finds out that it may not ask the kernel."""
    if _find("nft") is None:
        return False
    errors = _run(_CHECK, text, _SECONDS).stderr.splitlines()
    return not any("Error: " in line and not line.startswith("netlink:") for line in errors)


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
        [_find(word) or word if word in ("unshare", "nft") else word for word in argv],
        input=text,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _find(program: str) -> str | None:
    """Return where a program is."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PROGRAMS}")
