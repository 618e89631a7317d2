"""The first hour on another distribution: ``python -m integration.first_hour ROOT PACKAGE``, as root.

A machine boots systemd over a root, and a package is installed, used and removed as a person would. It prints
what is typed, what is answered, and by real packets what gets in.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from integration.lab import Lab, lab, wait_for
from integration.machine import Machine, machine_in
from integration.namespaces import CommandError
from integration.service import lets_in

_SECONDS = 120.0
_LONGEST = 8
"""Lines of an answer that are shown."""


def first_hour(machine: Machine, wire: Lab, package: Path, show: Callable[[str], None]) -> None:
    """Install, write a policy, observe, enforce, reboot, remove."""

    def typed(*command: str) -> None:
        show(f"# {' '.join(command)}")
        try:
            told = machine.run("sh", "-c", '"$@" 2>&1', "sh", *command, seconds=_SECONDS)
        except CommandError as error:
            told = f"{error.output}(exit {error.status})"
        lines = told.splitlines()
        show("\n".join((*lines[:_LONGEST], *(["…"] if len(lines) > _LONGEST else []))))

    def packets(expected: tuple[bool, bool]) -> None:
        wait_for(lambda: lets_in(wire) == expected, f"{expected} at ports 80 and 22", _SECONDS)
        words = {True: "gets in", False: "is dropped"}
        show(f"  -- a packet to port 80 {words[expected[0]]}, one to port 22 {words[expected[1]]}")

    machine.boot()
    typed("uname", "-r")
    typed("sh", "-c", ". /etc/os-release; echo $PRETTY_NAME; nft --version; systemctl --version | head -n 1")
    shutil.copy(package, machine.path("/root"))
    typed("dpkg", "--install", f"/root/{package.name}")
    packets((True, True))
    typed("sgagent", "--version")
    typed("sgagent", "init", "--web")
    typed("sgagent", "check")
    typed("systemctl", "restart", "sgagent")
    packets((True, True))
    typed("sgagent", "status")
    typed("sgagent", "mode", "enforce")
    packets((True, False))
    typed("sgagent", "verify")
    typed("sgagent", "doctor")
    show("# reboot")
    machine.power_off()
    machine.boot()
    typed("journalctl", "--boot", "--output=cat", "--unit=sgagent-boot.service")
    packets((True, False))
    typed("dpkg", "--remove", package.name.partition("_")[0])
    packets((True, True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the log; a packet that does otherwise than expected ends it with an error."""
    parser = argparse.ArgumentParser(
        prog="integration.first_hour", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("package", type=Path, metavar="PACKAGE")
    options = parser.parse_args(arguments)
    with lab() as wire, machine_in(wire.host, is_bare=True, root=options.root) as machine:
        wire.add_host_addresses(["10.0.0.11"])
        first_hour(machine, wire, options.package, lambda text: print(text, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
