"""The platform of this host: its distribution, versions of programs, and the way of installation."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

BUNDLE = Path(sys.prefix, "share", "bundle")
"""In a bundle it holds the name of that."""

_DEBIAN_MODULES = Path("/usr/lib/python3/dist-packages")
_RPM_MODULES = Path("/usr/lib/sgagent")
_SECONDS = 10.0
_NUMBER = re.compile(r"\d[0-9A-Za-z.~+-]*")


def installed_how(program: Path) -> str:
    """Return how sgagent was installed, in a word or two.

    Args:
        program: a file of it.
    """
    if BUNDLE.exists():
        return f"bundle {BUNDLE.read_text(encoding='ascii').strip()}"
    if program.is_relative_to(_DEBIAN_MODULES):
        return "Debian package"
    return "RPM" if program.is_relative_to(_RPM_MODULES) else f"checkout or environment in {sys.prefix}"


def distribution() -> str | None:
    """Return the distribution's own name; None where it states none."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    return release.get("PRETTY_NAME") or release.get("NAME")


def program_version(name: str) -> str | None:
    """Return the first number that a program prints of its version; None where there is none that answers."""
    if shutil.which(name) is None:
        return None
    command = (name, "--version")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603 - the arguments are our own
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _NUMBER.search(done.stdout)
    return found[0] if found else None


def library_versions(names: Iterable[str]) -> dict[str, str | None]:
    """Return the versions of libraries of Python; None for those that are not there."""
    return {name: _library_version(name) for name in names}


def _library_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def mapped_library(name: str) -> Path | None:
    """Return the file of a library that this process has loaded."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = (Path(parts[5]) for line in lines if len(parts := line.split(maxsplit=5)) == 6)
    return next((path for path in paths if path.name.startswith(name)), None)
