"""systemd's units of this host, by their control groups (cgroup v2) and files; nobody is asked over D-Bus."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from sgagent.core.conditions import NO_GROUP_MATCH, ControlGroup, LocalUnit
from sgagent.host.service_unit import UNIT_FOLDERS

_MOUNTS = Path("/proc/self/mountinfo")
_GENERATED = ("transient", "generator", "generator.early", "generator.late")
"""Below ``/run/systemd``."""

_NO_TREE = "this host mounts no control groups of version 2 (cgroup2), by which it would know units"
_MOST_GROUPS = 100_000
"""That are looked through for the group of a socket."""


def find_unit(unit: LocalUnit, root: Path = Path("/"), mounts: Path = _MOUNTS) -> LocalUnit:
    """Return a unit with its control group, or with the reason why it can't have any.

    A unit that does not run has none, and no reason. Units are looked for in slices alone: what lies below
    a service belongs to whom it is delegated, who may give it any name.
    """
    top = _tree(mounts)
    if top is None:
        return replace(unit, absence=_NO_TREE)
    for folder in _slices(top):
        found = folder / unit.name
        with suppress(OSError):
            identity = found.stat().st_ino
            return replace(unit, group=ControlGroup(f"/{found.relative_to(top)}", identity))
    if _has_file(unit.name, root):
        return unit
    return replace(unit, absence="this host has no such unit")


class UnitFinder:
    """Finds units, and says whether one of them has another control group by now."""

    def __init__(self, is_possible: Callable[[], bool]) -> None:
        """Start with nobody asked for.

        Args:
            is_possible: returns whether the kernel can ask for control groups; called at most once.
        """
        self._is_possible = cache(is_possible)
        self._found: dict[LocalUnit, tuple[LocalUnit, float]] = {}
        """With the time at which each was asked for."""

    def find(self, unit: LocalUnit) -> LocalUnit:
        """Return a unit as :func:`find_unit` does, and remember it for a while."""
        found = self._find(unit)
        self._found[unit] = found, time.monotonic()
        return found

    def _find(self, unit: LocalUnit) -> LocalUnit:
        return find_unit(unit) if self._is_possible() else replace(unit, absence=NO_GROUP_MATCH)

    @property
    def is_asked(self) -> bool:
        """Return whether any unit is remembered."""
        return bool(self._found)

    def has_changed(self) -> bool:
        """Return whether one of them has started, stopped or been started anew; says so once."""
        now = time.monotonic()
        for unit, (_, asked_at) in list(self._found.items()):
            if now - asked_at > _REMEMBERED_SECONDS:
                self._found.pop(unit)
        changed = False
        for unit, (before, asked_at) in list(self._found.items()):
            found = self._find(unit)
            if found != before:
                self._found[unit], changed = (found, asked_at), True
        return changed


_REMEMBERED_SECONDS = 120.0
"""The agent asks again with each step, the next within 30 s."""


def list_groups(mounts: Path = _MOUNTS) -> Mapping[int, ControlGroup]:
    """Return the control groups by the kernel's identity of each, as many as can be looked through."""
    found: dict[int, ControlGroup] = {}
    top = _tree(mounts)
    for folder, inner, _ in os.walk(top) if top is not None else ():
        for name in inner:
            path = Path(folder, name)
            with suppress(OSError):
                identity = path.stat().st_ino
                found[identity] = ControlGroup(f"/{path.relative_to(top or path)}", identity)
        if len(found) >= _MOST_GROUPS:
            break
    return found


def _tree(mounts: Path) -> Path | None:
    """Return where all control groups of version 2 are mounted; None if they are nowhere."""
    with suppress(OSError):
        for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            before, _, after = line.partition(" - ")
            fields = before.split(" ")
            if after.startswith("cgroup2 ") and fields[3] == "/":
                return Path(fields[4])
    return None


def _slices(folder: Path) -> Iterator[Path]:
    """Yield the top of the tree, and the slices in it."""
    yield folder
    with suppress(OSError):
        for one in sorted(os.scandir(folder), key=lambda one: one.name):
            if one.name.endswith(".slice") and one.is_dir(follow_symlinks=False):
                yield from _slices(Path(one.path))


def _has_file(name: str, root: Path) -> bool:
    """Return whether systemd has a file of a unit, or of its template."""
    stem, _, suffix = name.rpartition(".")
    template = f"{stem.partition('@')[0]}@.{suffix}"
    names = (name, template) if "@" in stem else (name,)
    generated = (f"run/systemd/{one}" for one in _GENERATED)
    folders = [root / one for one in (*UNIT_FOLDERS, *generated)]
    return any(os.path.lexists(folder / one) for folder in folders for one in names)
