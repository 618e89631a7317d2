"""Bring the peers here without installing them: Debian's packages, unpacked into a folder of their own.

Nothing of theirs is configured or started, and this machine's package database hears nothing of it.
"""

from __future__ import annotations

import subprocess

from bench.durations import ROOT

PACKAGES = ("firewalld", "foomuuri", "iptables", "ipset")
PLACE = ROOT / ".cache" / "peers"
UNPACKED = PLACE / "root"

_STAMP = PLACE / "complete"


class PeersError(Exception):
    """Say why the peers can't be measured, and the remedy."""


def fetch_packages() -> None:
    """Fetch the packages with their dependencies, and unpack them; do nothing if that was done before."""
    if _STAMP.exists():
        return
    archives = PLACE / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    _run("apt-get", "update", "--quiet")
    _run(
        *("apt-get", "install", "--quiet", "--yes", "--download-only", "--no-install-recommends"),
        *("-o", f"Dir::Cache::archives={archives}", "-o", "APT::Sandbox::User=root", *PACKAGES),
    )
    UNPACKED.mkdir(exist_ok=True)
    for archive in sorted(archives.glob("*.deb")):
        _run("dpkg-deb", "--extract", str(archive), str(UNPACKED))
    _STAMP.touch()


def check_packages() -> None:
    """See to it that the peers are here.

    Raises:
        PeersError: they are not.
    """
    if not _STAMP.exists():
        raise PeersError(
            "the peers are not here: python -m bench.peers --fetch unpacks them into .cache/peers"
        )


def version_of(package: str) -> str:
    """Return the version of an unpacked package, as its archive's name tells it."""
    found = next((PLACE / "archives").glob(f"{package}_*.deb"), None)
    return found.name.split("_")[1].replace("%3a", ":") if found else "as installed"


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeersError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
