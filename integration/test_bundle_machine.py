"""The bundle on a booted machine: refused, installed, broken, and in the place of the package and back."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest

from integration.flood import flooding, watch, watched
from integration.lab import Lab, wait_for
from integration.machine import Machine, why_not
from integration.namespaces import CommandError, run
from integration.package import INSTALLATION_SECONDS, ROOT, built, dpkg, install, why_not as why_no_package
from integration.service import lets_in
from integration.test_package_machine import (
    OLD_KERNEL,
    ONLY_WEB,
    OPEN,
    WEB,
    enforce,
    files,
    hits,
    says_enforcing,
)
from sgagent import __version__

_BUILD_SECONDS = 1200.0
_UNITS = ("sgagent.service", "sgagent-boot.service")

pytestmark = [
    pytest.mark.machines,
    pytest.mark.long,
    pytest.mark.skipif(
        bool(_reason := why_not() or why_no_package()), reason=f"no machine with a bundle: {_reason}"
    ),
]


@cache
def _bundles() -> tuple[Path, Path]:
    """Build the bundle, and the Debian package of it."""
    script = str(ROOT / "script" / "bundle")
    told = run(script, "--deb", "--version", __version__, seconds=_BUILD_SECONDS).split()
    archive, package = (ROOT / name for name in told)
    return archive, package


def unpack(machine: Machine) -> None:
    """Unpack the bundle on the machine, as an administrator would."""
    archive, _ = _bundles()
    shutil.copy(archive, machine.path("/var/cache"))
    machine.run("tar", "-C", "/", "-xf", f"/var/cache/{archive.name}", seconds=INSTALLATION_SECONDS)


def test_a_kernel_that_is_too_old_is_refused(machine: Machine) -> None:
    """Before there is an account, a unit or a configuration; the packages refuse likewise."""
    unpack(machine)
    shutil.copy(_bundles()[1], machine.path("/var/cache"))
    before = files(machine)
    for command in (
        ("/opt/sgagent/install",),
        ("sh", "-c", "dpkg --install /var/cache/sgagent-bundle_*.deb"),
    ):
        with pytest.raises(CommandError, match=r"this kernel(, | is )2\.6.*nothing was changed"):
            machine.run(*OLD_KERNEL, *command, seconds=INSTALLATION_SECONDS)
        assert files(machine) == before


def test_it_comes_breaks_and_goes(machine: Machine, wire: Lab) -> None:
    """Installed it enforces; a boot with a broken Python closes the host by its own nft; nothing is left."""
    unpack(machine)
    machine.run("/opt/sgagent/install", seconds=INSTALLATION_SECONDS)
    enforce(machine, wire, WEB)
    assert machine.run("sgagent", "--version").startswith(f"sgagent {__version__}, sgagent-bundle-")
    assert '"installed": "bundle sgagent-bundle-' in machine.run("sgagent", "doctor", "--platform", "--json")
    python = machine.path("/opt/sgagent/lib/python")
    python.rename(python.with_name("python.aside"))
    machine.power_off()
    machine.boot()
    assert "links are closed but for the fail-safe" in machine.journal("sgagent-boot.service")
    assert lets_in(wire) == (False, False)
    python.with_name("python.aside").rename(python)
    machine.run("systemctl", "restart", "sgagent.service")
    assert lets_in(wire) == ONLY_WEB
    machine.run("/opt/sgagent/uninstall", seconds=INSTALLATION_SECONDS)
    assert lets_in(wire) == OPEN
    assert not machine.path("/opt/sgagent").exists()
    assert not machine.path("/var/lib/sgagent").exists()


def test_it_takes_the_place_of_the_package_and_back(machine: Machine, wire: Lab) -> None:
    """Table, state and counters stay both ways, and no denied packet passes meanwhile."""
    install(machine, built())
    enforce(machine, wire, WEB)
    for package in (_bundles()[1], built()):
        before, kept = hits(machine), sorted(machine.path("/var/lib/sgagent/history").iterdir())
        assert any(before.values())
        watch(wire)
        with flooding(wire) as flood:
            wait_for(lambda: flood.sent > 0, "the flood")
            install(machine, package)
            wait_for(lambda: says_enforcing(machine), "the agent to answer")
        seen = watched(wire)
        wire.host.remove_table("testwatch")
        assert seen["leaked"] == 0
        assert lets_in(wire) == ONLY_WEB
        after = hits(machine)
        assert {name: (after[name], count) for name, count in before.items() if after[name] < count} == {}
        assert sorted(machine.path("/var/lib/sgagent/history").iterdir()) == kept
        assert [machine.run("systemctl", "is-enabled", unit).strip() for unit in _UNITS] == ["enabled"] * 2
        assert machine.run("dpkg-query", "--show", "-f=${Status}", package.name.partition("_")[0]) == (
            "install ok installed"
        )
        assert ("bundle" in machine.run("sgagent", "--version")) is ("bundle" in package.name)


def test_a_purge_of_the_package_leaves_the_bundle_its_state(machine: Machine, wire: Lab) -> None:
    """The package's remaining files on the host are in use."""
    install(machine, built())
    enforce(machine, wire, WEB)
    install(machine, _bundles()[1])
    dpkg(machine, "--purge", "sgagent")
    assert list(machine.path("/var/lib/sgagent/history").iterdir())
    machine.power_off()
    machine.boot()
    assert lets_in(wire) == ONLY_WEB
