"""``sgagent doctor --platform``: the report of a person who tried sgagent on an untried host."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sgagent
from sgagent.cli.output import format_json
from sgagent.core.errors import printable
from sgagent.dataplane.kernel_features import ProbedFeature, library_fault, probe_features
from sgagent.dataplane.table import OLDEST_KERNEL, is_old_kernel, kernel_number
from sgagent.host import installed_programs, platform_facts

_LIBRARIES = (
    *("cryptography", "dnspython", "h2", "jinja2", "prometheus-client", "pydantic", "pyroute2"),
    *("pyyaml", "structlog"),
)
_FIRST_WITH_LATE_SETS, _LAST_WITHOUT = (6, 18), (6, 12)
"""Kernels on which interval sets were seen to change late in a commit, and not to; between, nobody tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformReport:
    """The versions of this host's software, and missing features."""

    sgagent: str
    installed: str
    machine: str
    kernel: str
    distribution: str | None
    libc: str
    python: str
    nft: str | None
    libnftables: str | None
    systemd: str | None
    libraries: dict[str, str | None]
    """Of Python, by name; None where one is not there."""

    features: tuple[ProbedFeature, ...]
    library_fault: str | None = None
    """Why libnftables can't be used."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the missing features with their consequences, a sentence each."""
        return tuple(self._missing())

    def _missing(self) -> Iterator[str]:
        if is_old_kernel(self.kernel):
            yield f"Linux {'.'.join(map(str, OLDEST_KERNEL))} or later: sgagent refuses to start"
        if self.library_fault is not None:
            yield self.library_fault
        if self.systemd is None:
            yield "systemd: nothing enforces the policy at a boot, unless you see to it"
        for name, version in self.libraries.items():
            if version is None and name != "h2":
                yield f"{name}: sgagent can't start"
        if self.libraries.get("h2") is None:
            yield "h2: there are no sources of type etcd"
        for one in self.features:
            if one.is_there is False:
                who = f" (unknown to this {one.lack.value})" if one.lack else ""
                yield f"{one.feature.name}{who}: {one.feature.consequence}"

    @property
    def can_run(self) -> bool | None:
        """Return whether sgagent can enforce here; None where that could not be tried."""
        needed = [one.is_there for one in self.features if one.feature.is_needed]
        has_libraries = all(version for name, version in self.libraries.items() if name != "h2")
        if is_old_kernel(self.kernel) or self.library_fault or not has_libraries or False in needed:
            return False
        return None if None in needed else True

    @property
    def has_late_interval_sets(self) -> bool | None:
        """Return whether interval sets change late in a commit, as far as the kernel's number tells."""
        number = kernel_number(self.kernel)
        if number is None or _LAST_WITHOUT < number < _FIRST_WITH_LATE_SETS:
            return None
        return number >= _FIRST_WITH_LATE_SETS


def platform_report() -> PlatformReport:
    """Look at the host; changes nothing."""
    fault = library_fault()
    library = platform_facts.mapped_library("libnftables.so")
    version = installed_programs.read_version(library) if library else None
    release = os.uname()
    return PlatformReport(
        sgagent=sgagent.__version__,
        installed=platform_facts.installed_how(Path(__file__)),
        machine=release.machine,
        kernel=release.release,
        distribution=platform_facts.distribution(),
        libc=" ".join(platform.libc_ver()).strip(),
        python=platform.python_version(),
        nft=platform_facts.program_version("nft"),
        libnftables=".".join(map(str, version)) if version else None,
        systemd=platform_facts.program_version("systemctl"),
        libraries=platform_facts.library_versions(_LIBRARIES),
        features=tuple(probe_features()),
        library_fault=fault,
    )


def as_json(report: PlatformReport) -> str:
    """Return a report as the object that scripts read."""
    return format_json(
        {
            "sgagent": report.sgagent,
            "installed": report.installed,
            "machine": report.machine,
            "kernel": report.kernel,
            "distribution": report.distribution,
            "libc": report.libc,
            "python": report.python,
            "nft": report.nft,
            "libnftables": report.libnftables,
            "systemd": report.systemd,
            "libraries": report.libraries,
            "features": {
                one.feature.name: {
                    "there": one.is_there,
                    "lack": one.lack.value if one.lack else None,
                    "reason": one.reason or None,
                }
                for one in report.features
            },
            "late_interval_sets": report.has_late_interval_sets,
            "missing": list(report.missing),
            "can_run": report.can_run,
        },
        indent=2,
    )


_CONCLUSIONS = {
    True: "sgagent can run here",
    False: "sgagent can't run here",
    None: "not all could be tried: run it as root",
}
_THERE = {True: "yes", False: "no", None: "not tried"}


def as_text(report: PlatformReport) -> str:
    """Return a report for people, safe to print."""
    return "\n".join(printable(line) for line in _lines(report))


def _lines(report: PlatformReport) -> Iterator[str]:
    nothing = "none"
    for name, value in (
        ("sgagent", f"{report.sgagent}, {report.installed}"),
        ("machine", report.machine),
        ("kernel", report.kernel),
        ("distribution", report.distribution),
        ("C library", report.libc),
        ("Python", report.python),
        ("nft", report.nft),
        ("libnftables", report.libnftables),
        ("systemd", report.systemd),
        ("libraries", ", ".join(f"{name} {found or nothing}" for name, found in report.libraries.items())),
    ):
        yield f"{name:<20}{value or nothing}"
    for one in report.features:
        reason = f": {one.reason}" if one.reason else ""
        yield f"{one.feature.name:<20}{_THERE[one.is_there]}{reason}"
    yield f"{'late_interval_sets':<20}{_THERE[report.has_late_interval_sets]}, by the kernel's number"
    yield ""
    yield from (f"missing: {sentence}" for sentence in report.missing)
    yield _CONCLUSIONS[report.can_run]
