"""The programs installed beside us: units that change rules, programs ``nft``, and libnftables' version."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sgagent.analysis.doctor.facts import NftProgram, UnitFact

_ROOT = Path("/")
_WANTS = tuple(f"{top}/systemd/system" for top in ("etc", "run", "usr/lib", "usr/local/lib"))
_FLUSH = re.compile(rb"^[^#\n]*\bflush\s+ruleset\b", re.MULTILINE)
_INCLUDE = re.compile(rb'^\s*include\s+"([^"\n]+)"', re.MULTILINE)
_LARGEST_FILE = 1 << 20
_MOST_FILES = 50
_OF_NFTABLES = ("etc/nftables.conf", "etc/sysconfig/nftables.conf")
_UFW = "etc/ufw/ufw.conf"
_UFW_ENABLED = re.compile(rb"^\s*ENABLED\s*=\s*[\"']?yes", re.MULTILINE | re.IGNORECASE)
_RESTORED = {
    "netfilter-persistent.service": ("etc/iptables/rules.v4", "etc/iptables/rules.v6"),
    "iptables.service": ("etc/sysconfig/iptables",),
    "ip6tables.service": ("etc/sysconfig/ip6tables",),
}
"""Files that units hand to iptables-restore."""


def read_units(root: Path = _ROOT) -> tuple[UnitFact, ...]:
    """Return the enabled units that flush or replace rules.

    Args:
        root: of the file system.
    """
    return tuple(_units(root))


def _units(root: Path) -> Iterator[UnitFact]:
    if _is_enabled(root, "nftables.service"):
        yield from _nftables(root)
    if _is_enabled(root, "firewalld.service"):
        yield UnitFact(unit="firewalld.service", file="its configuration", flushes_all=False)
    if _is_enabled(root, "ufw.service") and _UFW_ENABLED.search(_content(root / _UFW)):
        yield UnitFact(unit="ufw.service", file=f"/{_UFW}", flushes_all=False)
    for unit, files in _RESTORED.items():
        present = next((name for name in files if _content(root / name)), None)
        if present and _is_enabled(root, unit):
            yield UnitFact(unit=unit, file=f"/{present}", flushes_all=False)


def _nftables(root: Path) -> Iterator[UnitFact]:
    """Yield the unit of nftables if its rules, or its end, flush the ruleset."""
    for name in (*_OF_NFTABLES, *(f"{folder}/nftables.service" for folder in _WANTS)):
        file = next((one for one in _with_included(root, root / name) if _FLUSH.search(_content(one))), None)
        if file is not None:
            shown = f"/{file.relative_to(root)}"
            yield UnitFact(unit="nftables.service", file=shown, flushes_all=True)
            return


def _with_included(root: Path, file: Path) -> Iterator[Path]:
    """Yield a file and those that it includes, over all levels, up to a limit."""
    waiting, seen = [file], {file}
    while waiting and len(seen) <= _MOST_FILES:
        one = waiting.pop(0)
        yield one
        for pattern in _INCLUDE.findall(_content(one)):
            text = pattern.decode("utf-8", "surrogateescape")
            base = root if text.startswith("/") else one.parent
            with contextlib.suppress(ValueError, NotImplementedError, OSError):
                for found in sorted(base.glob(text.lstrip("/"))):
                    if found not in seen:
                        seen.add(found)
                        waiting.append(found)


def _is_enabled(root: Path, unit: str) -> bool:
    """Return whether another unit wants it, and it is not masked."""
    mask = root / "etc/systemd/system" / unit
    if mask.is_symlink() and os.readlink(mask) == os.devnull:  # noqa: PTH115 - as text
        return False
    folders = (root / folder for folder in _WANTS)
    wanting = (
        path for folder in folders for kind in ("wants", "requires") for path in folder.glob(f"*.{kind}")
    )
    return any((path / unit).is_symlink() or (path / unit).exists() for path in wanting)


def _content(path: Path, most: int = _LARGEST_FILE) -> bytes:
    """Return the beginning of a regular file; nothing where there is none, or none that may be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError):
        return b""
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a number, not a path
        try:
            return file.read(most) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        except OSError:
            return b""


_VERSION = re.compile(rb"(?<![0-9.])([01])\.([0-9]{1,2})\.([0-9]{1,2})(?=\0)")
_LARGEST_PROGRAM = 16 << 20
_PLACES = ("usr/sbin", "usr/bin", "usr/local/sbin", "usr/local/bin", "sbin", "bin")
_LIBRARIES = (
    "usr/lib/*/libnftables.so.1",
    "usr/lib64/libnftables.so.1",
    "usr/lib/libnftables.so.1",
    "lib/*/libnftables.so.1",
    "usr/local/lib/libnftables.so.1",
)
_MOST_PROCESSES = 20_000
_FIRST_PROCESS = 1
"""Its root is the host's own."""

_MOST_ROOTS = 200


def read_library_version(root: Path = _ROOT) -> tuple[int, ...] | None:
    """Return the version of libnftables on this host; None where it is not found."""
    for pattern in _LIBRARIES:
        for path in sorted(root.glob(pattern)):
            if (version := read_version(path)) is not None:
                return version
    return None


def read_version(path: Path) -> tuple[int, ...] | None:
    """Return the newest version that a program or library holds as a text."""
    found = [tuple(map(int, parts)) for parts in _VERSION.findall(_content(path, _LARGEST_PROGRAM))]
    return max(found, default=None)


def read_own_programs(search_path: str, root: Path = _ROOT) -> tuple[NftProgram, ...]:
    """Return the programs ``nft`` in the search path and beside it, each file once."""
    folders = [Path(one) for one in search_path.split(":") if one.startswith("/")]
    return tuple(_programs([*folders, *(root / place for place in _PLACES)], root=None, process=None))


def _programs(folders: list[Path], root: Path | None, process: str | None) -> Iterator[NftProgram]:
    seen = set[tuple[int, int]]()
    for folder in folders:
        path = folder / "nft"
        with contextlib.suppress(OSError):
            found = path.stat()
            version = None if (found.st_dev, found.st_ino) in seen else read_version(path)
            seen.add((found.st_dev, found.st_ino))
            if version is not None:
                shown = path if root is None else _ROOT / path.relative_to(root)
                yield NftProgram(path=str(shown), version=version, process=process)


@dataclass(frozen=True, slots=True)
class ContainerPrograms:
    """Programs in the roots of other processes."""

    programs: tuple[NftProgram, ...]
    is_whole: bool
    """Whether every process let itself be looked at."""


def read_container_programs(processes: Path = Path("/proc")) -> ContainerPrograms:
    """Return the programs ``nft`` in other mount namespaces, one process of each.

    Nothing of them is executed. A process that ends meanwhile is passed over.
    """
    own = _namespace(processes / "self")
    seen, found, is_whole = {own}, list[NftProgram](), True
    numbers = sorted(int(one.name) for one in processes.iterdir() if one.name.isdigit())[:_MOST_PROCESSES]
    for number in (number for number in numbers if number != _FIRST_PROCESS):
        directory = processes / str(number)
        try:
            namespace = _namespace(directory)
            if namespace in seen or len(seen) > _MOST_ROOTS:
                continue
            seen.add(namespace)
            name = (directory / "comm").read_text(encoding="utf-8", errors="replace").strip()
            root = directory / "root"
            (root / ".").stat()
        except PermissionError:
            is_whole = False
        except OSError:
            continue
        else:
            found += _programs([root / place for place in _PLACES], root, f"process {number} ({name})")
    return ContainerPrograms(tuple(found), is_whole)


def _namespace(directory: Path) -> int:
    """Return the mount namespace of a process.

    Raises:
        OSError: it has ended, or does not let itself be looked at.
    """
    return (directory / "ns/mnt").stat().st_ino
