"""Build the package as ``script/package`` does, serve it, and install it on a machine that has none."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.lab import wait_for
from integration.machine import Machine
from integration.namespaces import CommandError, run
from sgagent import __version__

ROOT = Path(__file__).parent.parent
EARLIER = "0.0.9"
"""A version below every real one, made of the same files."""

OTHER = "0.2.0"
"""A version of which each file has the size and the time that it has in the version of this tree."""

INSTALLATION_SECONDS = 180.0
"""For a package to be installed, on a machine that does much else."""

_TOOLS = ("dpkg-buildpackage", "dh", "dh_python3")
_REPOSITORY_TOOLS = ("apt-ftparchive", "createrepo_c", "gpg", "rpmbuild", "rpmsign")
_PLACE = "/var/cache/sgagent-test"
_BUILD_SECONDS = 300.0


def why_not() -> str:
    """Return why no package can be built here; empty if one can."""
    return _why_missing(_TOOLS)


def why_no_repository() -> str:
    """Return why no repository of packages can be made here; empty if one can."""
    return _why_missing(_REPOSITORY_TOOLS)


def _why_missing(tools: Sequence[str]) -> str:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"{missing[0]} is not installed" if missing else ""


@functools.cache
def built(version: str | None = None) -> Path:
    """Return a package of this tree, built once in a run; one of another version has its files."""
    if version is None:
        script = str(ROOT / "script" / "package")
        return ROOT / run(script, "--version", __version__, seconds=_BUILD_SECONDS).strip()
    package = built().with_name(f"sgagent_{version}-1_all.deb")
    with tempfile.TemporaryDirectory() as folder:
        run("dpkg-deb", "--raw-extract", str(built()), folder)
        _number(Path(folder), version)
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", folder, str(package))
    return package


def _number(package: Path, version: str) -> None:
    """Give the files of a package another version; their times stay."""
    modules = package / "usr/lib/python3/dist-packages"
    (metadata,) = modules.glob("sgagent-*.dist-info")
    numbered = metadata.rename(modules / f"sgagent-{version}.dist-info")
    for file in (package / "DEBIAN/control", modules / "sgagent/__init__.py", numbered / "METADATA"):
        times = file.stat()
        file.write_text(file.read_text().replace(__version__, version, 1))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    sums = 'cd "$1" && find usr -type f -exec md5sum {} + >DEBIAN/md5sums'
    run("sh", "-c", sums, "sh", str(package))


def with_configuration(package: Path, text: str, folder: Path) -> Path:
    """Return a package that brings another configuration, made in a folder."""
    tree, made = folder / "tree", folder / package.name
    run("dpkg-deb", "--raw-extract", str(package), str(tree))
    (tree / "etc/sgagent/sgagent.toml").write_text(text)
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(made))
    return made


@functools.cache
def built_rpm(version: str | None = None) -> Path:
    """Return an RPM of this tree, built once in a run."""
    script = str(ROOT / "script" / "package")
    told = run(script, "--rpm", "--version", version or __version__, seconds=_BUILD_SECONDS)
    return ROOT / told.strip()


def unpacked(package: Path, folder: Path) -> Path:
    """Unpack the files of a package below a folder, and return that."""
    run("dpkg-deb", "--extract", str(package), str(folder))
    return folder


def install(machine: Machine, package: Path) -> str:
    """Install a package, or upgrade to it, and return dpkg's output."""
    place = machine.path(_PLACE)
    place.mkdir(exist_ok=True)
    shutil.copy(package, place)
    return dpkg(machine, "--install", f"{_PLACE}/{package.name}")


def dpkg(machine: Machine, *arguments: str) -> str:
    """Have the machine's dpkg do something, and return all that it said."""
    return machine.run("sh", "-c", 'dpkg "$@" 2>&1', "sh", *arguments, seconds=INSTALLATION_SECONDS)


def is_installed(machine: Machine) -> bool:
    """Tell whether the machine has the package."""
    try:
        return "install ok installed" in machine.run("dpkg-query", "--show", "-f=${Status}", "sgagent")
    except CommandError:
        return False


@dataclass(frozen=True, slots=True)
class Keys:
    """A folder of GnuPG with one key for signatures."""

    home: Path
    name: str

    def sign(self, *argv: str) -> None:
        """Run a command that finds the key."""
        told = subprocess.run(
            argv,
            env=dict(os.environ) | {"GNUPGHOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stderr


@contextlib.contextmanager
def keys(name: str) -> Iterator[Keys]:
    """Make a key; its agent, which GnuPG starts, ends with the context."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))  # short: the agent's socket is in it
    made = Keys(home, name)
    try:
        made.sign(
            "gpg", "--batch", "--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never"
        )
        yield made
    finally:
        made.sign("gpgconf", "--kill", "all")
        shutil.rmtree(home)


def publish(folder: Path, url: str, key: Keys, *packages: Path) -> None:
    """Make the repository of some packages, or add them to it.

    apt knows a list, also one that it refused, by its size and the second that it is from: two of one second
    are one list to it.
    """
    before = folder / "apt/dists/stable/InRelease"
    if before.exists():
        wait_for(lambda: int(time.time()) > int(before.stat().st_mtime), "the next second")
    with tempfile.TemporaryDirectory() as release:
        for package in packages:
            shutil.copy(package, release)
        key.sign(str(ROOT / "script/repository"), str(folder), "--key", key.name, "--url", url, release)
