"""What is installed beside sgagent is read from files, and nothing of it is executed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sgagent.host.installed_programs import (
    read_container_programs,
    read_library_version,
    read_own_programs,
    read_units,
)


def enable(root: Path, unit: str, target: str = "sysinit.target") -> None:
    """Enable a unit, as systemctl does."""
    wants = root / f"etc/systemd/system/{target}.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")


def write(root: Path, name: str, text: str | bytes) -> None:
    """Write a file below the root."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


FLUSHING = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n}\n"


def units(root: Path) -> list[tuple[str, str, bool]]:
    """Return the units that are found."""
    return [(one.unit, one.file, one.flushes_all) for one in read_units(root)]


def test_an_enabled_nftables_service_flushes_by_its_file(tmp_path: Path) -> None:
    """Debian's file begins so; without the unit it does nothing."""
    write(tmp_path, "etc/nftables.conf", FLUSHING)
    assert units(tmp_path) == []
    enable(tmp_path, "nftables.service")
    assert units(tmp_path) == [("nftables.service", "/etc/nftables.conf", True)]


def test_a_flush_that_is_included_counts(tmp_path: Path) -> None:
    """By name or pattern, from the root or beside the file; a file that includes itself ends nothing."""
    enable(tmp_path, "nftables.service")
    write(tmp_path, "etc/nftables.conf", 'include "/etc/nftables.d/*.nft"\ninclude "/etc/nftables.conf"\n')
    write(tmp_path, "etc/nftables.d/10.nft", "table inet x {\n}\n")
    assert units(tmp_path) == []
    write(tmp_path, "etc/nftables.d/20.nft", "\tflush   ruleset\n")
    assert units(tmp_path) == [("nftables.service", "/etc/nftables.d/20.nft", True)]


@pytest.mark.parametrize("text", ("# flush ruleset\n", "flush table inet x\n", "", "flushruleset\n"))
def test_other_lines_do_not_flush(tmp_path: Path, text: str) -> None:
    """A comment, another flush, no word at all."""
    enable(tmp_path, "nftables.service")
    write(tmp_path, "etc/nftables.conf", text)
    assert units(tmp_path) == []


def test_a_unit_that_flushes_when_it_stops_counts(tmp_path: Path) -> None:
    """As Debian's and Fedora's do, whatever the rules are."""
    enable(tmp_path, "nftables.service")
    write(tmp_path, "etc/nftables.conf", "table inet x {\n}\n")
    write(tmp_path, "usr/lib/systemd/system/nftables.service", "ExecStop=/usr/sbin/nft flush ruleset\n")
    assert units(tmp_path) == [("nftables.service", "/usr/lib/systemd/system/nftables.service", True)]


def test_a_masked_unit_does_nothing(tmp_path: Path) -> None:
    """Though another wants it."""
    enable(tmp_path, "nftables.service")
    write(tmp_path, "etc/nftables.conf", FLUSHING)
    (tmp_path / "etc/systemd/system/nftables.service").symlink_to(os.devnull)
    assert units(tmp_path) == []


def test_other_firewalls_count_while_they_are_enabled(tmp_path: Path) -> None:
    """Ufw's unit is enabled where it is installed, and its own file says whether it filters."""
    enable(tmp_path, "ufw.service", "multi-user.target")
    write(tmp_path, "etc/ufw/ufw.conf", "ENABLED=no\n")
    assert units(tmp_path) == []
    write(tmp_path, "etc/ufw/ufw.conf", "# comment\nENABLED=yes\n")
    enable(tmp_path, "firewalld.service", "multi-user.target")
    enable(tmp_path, "netfilter-persistent.service", "multi-user.target")
    assert [unit for unit, _, _ in units(tmp_path)] == ["firewalld.service", "ufw.service"]
    write(tmp_path, "etc/iptables/rules.v4", "*filter\nCOMMIT\n")
    assert [unit for unit, _, _ in units(tmp_path)][2] == "netfilter-persistent.service"


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A named pipe in the place of the rules would wait for a writer."""
    enable(tmp_path, "nftables.service")
    (tmp_path / "etc/nftables.conf").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "etc/nftables.conf")
    assert units(tmp_path) == []


PROGRAM = b"\x7fELF\0libnftables.so.1\0%s\0nftables\0%%s v%%s (%%s)\0"


def test_a_version_is_read_out_of_a_program(tmp_path: Path) -> None:
    """Each file once, in the search path and in the usual places."""
    write(tmp_path, "opt/bin/nft", PROGRAM % b"1.0.6")
    write(tmp_path, "usr/sbin/nft", PROGRAM % b"1.1.3")
    (tmp_path / "sbin").symlink_to("usr/sbin")
    found = read_own_programs(f"relative::{tmp_path}/opt/bin:{tmp_path}/none", tmp_path)
    assert [(one.version, one.process) for one in found] == [((1, 0, 6), None), ((1, 1, 3), None)]


def test_the_version_of_this_machines_library_is_found() -> None:
    """Where the library lies."""
    version = read_library_version()
    assert version is None or version >= (0, 9)


def test_a_program_without_a_version_is_passed_over(tmp_path: Path) -> None:
    """As is a shell script that wraps another."""
    write(tmp_path, "usr/sbin/nft", '#!/bin/sh\nexec nft1.0.6 "$@"\n')
    assert read_own_programs("", tmp_path) == ()


def test_programs_of_containers_are_read_from_outside(tmp_path: Path) -> None:
    """One process of each mount namespace; its path is the one that it has there."""
    for pid, version in (("self", b""), ("12", b"1.0.6"), ("13", b"1.0.6"), ("14", b"1.1.3")):
        write(tmp_path, f"{pid}/comm", "kube-proxy\n")
        write(tmp_path, f"{pid}/ns/mnt", "")
        write(tmp_path, f"{pid}/root/usr/sbin/nft", PROGRAM % version)
    (tmp_path / "13/ns/mnt").unlink()
    (tmp_path / "13/ns/mnt").hardlink_to(tmp_path / "12/ns/mnt")
    found = read_container_programs(tmp_path)
    assert found.is_whole
    assert [(one.path, one.version, one.process) for one in found.programs] == [
        ("/usr/sbin/nft", (1, 0, 6), "process 12 (kube-proxy)"),
        ("/usr/sbin/nft", (1, 1, 3), "process 14 (kube-proxy)"),
    ]


def test_a_process_that_ended_is_passed_over(tmp_path: Path) -> None:
    """It is no reason to say that something was not seen."""
    write(tmp_path, "self/ns/mnt", "")
    (tmp_path / "12").mkdir()
    assert read_container_programs(tmp_path).is_whole
