"""systemd's units by their control groups and files (§13.3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.core.conditions import LocalUnit
from sgagent.host.units import UnitFinder, find_unit, list_groups


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Return the top of a tree of control groups, with a mount table that says so."""
    top = tmp_path / "groups"
    for group in (
        *(
            "init.scope",
            "system.slice/nginx.service/inner",
            "system.slice/system-getty.slice/getty@tty1.service",
        ),
        "user.slice/user-1000.slice/user@1000.service/app.slice/mine.service",
    ):
        (top / group).mkdir(parents=True)
    (tmp_path / "mounts").write_text(
        "30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "41 31 0:38 /inner /else rw - cgroup2 cgroup2 rw\n"
        f"42 31 0:38 / {top} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
    )
    return top


def found(name: str, top: Path) -> LocalUnit:
    """Return a unit as it is found in the tree."""
    return find_unit(LocalUnit(name=name), top.parent, top.parent / "mounts")


@pytest.mark.parametrize(
    ("name", "path"),
    (
        ("init.scope", "/init.scope"),
        ("system.slice", "/system.slice"),
        ("nginx.service", "/system.slice/nginx.service"),
        ("getty@tty1.service", "/system.slice/system-getty.slice/getty@tty1.service"),
        ("user@1000.service", "/user.slice/user-1000.slice/user@1000.service"),
    ),
)
def test_a_running_unit_has_its_group(name: str, path: str, top: Path) -> None:
    """In whatever slice it is, with the kernel's identity of the group."""
    group = found(name, top).group
    assert group is not None
    assert (group.path, group.identity) == (path, (top / path[1:]).stat().st_ino)


@pytest.mark.parametrize("name", ("mine.service", "app.slice", "inner", "gone.service"))
def test_what_is_delegated_is_no_unit(name: str, top: Path) -> None:
    """A user may name control groups below a service as units of the host are named."""
    unit = found(name, top)
    assert (unit.group, unit.absence) == (None, "this host has no such unit")


@pytest.mark.parametrize(
    ("name", "file"),
    (
        ("web.service", "etc/systemd/system/web.service"),
        ("a@b.service", "usr/lib/systemd/system/a@.service"),
        ("run-1.scope", "run/systemd/transient/run-1.scope"),
    ),
)
def test_a_unit_that_does_not_run_is_there(name: str, file: str, top: Path) -> None:
    """It matches nothing, which is no problem."""
    (top.parent / file).parent.mkdir(parents=True)
    (top.parent / file).touch()
    assert found(name, top) == LocalUnit(name=name)


def test_without_a_tree_there_are_no_units(tmp_path: Path) -> None:
    """Where only control groups of version 1 are mounted, or the table can't be read."""
    unit = find_unit(LocalUnit(name="nginx.service"), tmp_path, tmp_path / "none")
    assert unit.group is None
    assert unit.absence is not None
    assert "cgroup2" in unit.absence


def test_groups_are_listed_with_those_below(top: Path) -> None:
    """By identity, also those that are no units."""
    groups = list_groups(top.parent / "mounts")
    inner = top / "system.slice" / "nginx.service" / "inner"
    assert groups[inner.stat().st_ino].path == "/system.slice/nginx.service/inner"


def test_a_kernel_without_the_match_knows_no_unit() -> None:
    """That is asked when the first unit is, and once."""
    asked = list[int]()

    def is_possible() -> bool:
        asked.append(1)
        return False

    finder = UnitFinder(is_possible)
    for _ in range(2):
        unit = finder.find(LocalUnit(name="init.scope"))
        assert (unit.group, "xt_cgroup" in (unit.absence or "")) == (None, True)
    assert (asked, finder.is_asked, finder.has_changed()) == ([1], True, False)
