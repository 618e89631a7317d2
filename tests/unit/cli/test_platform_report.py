"""What ``sgagent doctor --platform`` says of a host."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.cli.platform_report import PlatformReport, as_json, as_text, platform_report
from sgagent.dataplane.kernel_features import FEATURES, Lack, ProbedFeature
from sgagent.host import platform_facts

LIBRARIES: dict[str, str | None] = {"h2": "1.0", "pydantic": "1.0"}


def report(*lacking: str, kernel: str = "6.12.5", is_tried: bool = True) -> PlatformReport:
    """Return the report of a Debian 13 whose kernel lacks some features."""
    features = (
        ProbedFeature(feature=one, is_there=is_tried or None)
        if one.name not in lacking
        else ProbedFeature(feature=one, is_there=False, lack=Lack.KERNEL, reason="not supported")
        for one in FEATURES
    )
    return PlatformReport(
        sgagent="1.0",
        installed="Debian package",
        machine="x86_64",
        kernel=kernel,
        distribution="Debian GNU/Linux 13 (trixie)",
        libc="glibc 2.41",
        python="3.13.5",
        nft="1.1.3",
        libnftables="1.1.3",
        systemd="257",
        libraries=LIBRARIES,
        features=tuple(features),
    )


def test_a_whole_platform_misses_nothing() -> None:
    """The last line says that it can run."""
    assert report().missing == ()
    assert as_text(report()).endswith("sgagent can run here")


def test_what_is_missing_says_what_follows() -> None:
    """A table without an owner is a promise less, and no reason not to run."""
    found = report("destroy", "persist", kernel="6.1.0-40-amd64")
    assert found.can_run is True
    assert [sentence.partition(":")[0] for sentence in found.missing] == [
        "destroy (unknown to this kernel)",
        "persist (unknown to this kernel)",
    ]
    assert "can change it" in found.missing[1]


@pytest.mark.parametrize(
    "found",
    (
        report("nf_tables"),
        report(kernel="5.4.0-200-generic"),
        replace(report(), library_fault="libnftables can't be used"),
        replace(report(), libraries={**LIBRARIES, "pydantic": None}),
    ),
    ids=("no nf_tables", "old kernel", "old library", "no pydantic"),
)
def test_where_it_can_not_run_is_said(found: PlatformReport) -> None:
    """With the reason before."""
    assert found.can_run is False
    assert len(found.missing) == 1
    assert as_text(found).endswith("sgagent can't run here")


def test_what_an_ordinary_user_could_not_try_is_not_known() -> None:
    """They are told who can."""
    assert report(is_tried=False).can_run is None
    assert as_text(report(is_tried=False)).endswith("run it as root")


@pytest.mark.parametrize(("kernel", "is_late"), (("5.10.1", False), ("6.15.0", None), ("7.2.0", True)))
def test_late_interval_sets_are_told_by_the_number(kernel: str, *, is_late: bool | None) -> None:
    """Between the newest kernel without and the oldest with, nobody tried."""
    assert report(kernel=kernel).has_late_interval_sets is is_late


def test_text_from_the_host_is_printed_safely() -> None:
    """A distribution's name is a file's content."""
    assert "\x1b" not in as_text(replace(report(), distribution="x\x1b[31m"))


def test_json_has_what_the_text_has() -> None:
    """Features by name; nothing of the host's network."""
    found = json.loads(as_json(report("owner")))
    assert found["features"]["owner"] == {"there": False, "lack": "kernel", "reason": "not supported"}
    assert (found["can_run"], found["kernel"]) == (True, "6.12.5")


def test_it_looks_at_this_host() -> None:
    """All versions that the tests need are there."""
    found = platform_report()
    assert found.library_fault is None
    assert None not in found.libraries.values()
    assert found.libnftables == found.nft


def test_how_it_was_installed_is_told_by_the_place() -> None:
    """A bundle names itself."""
    package, rpm = Path("/usr/lib/python3/dist-packages/sgagent/x.py"), Path("/usr/lib/sgagent/sgagent/x.py")
    assert platform_facts.installed_how(package) == "Debian package"
    assert platform_facts.installed_how(rpm) == "RPM"
    assert "checkout" in platform_facts.installed_how(Path(__file__))


def test_a_library_that_is_not_loaded_has_no_file() -> None:
    """Nor has one that is not installed a version."""
    assert platform_facts.mapped_library("libnothing.so") is None
    assert platform_facts.library_versions(["nothing-of-that-name"]) == {"nothing-of-that-name": None}
    assert platform_facts.program_version("no-such-program") is None
