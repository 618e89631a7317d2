"""The bundle: one tree that runs on any distribution, with a Python, libraries and a loader of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.lab import wait_for
from integration.namespaces import Namespace, network_namespace, run
from integration.package import ROOT
from sgagent import __version__

_BUSYBOX = ROOT / ".cache" / "packages" / "busybox-static" / "usr" / "bin" / "busybox"
_BUILD_SECONDS = 600.0
_ARM64 = "/usr/bin/qemu-aarch64-static"
_EXAMPLE = ROOT / "examples" / "1-web" / "groups.d"
_COMPILE = ("compile", "--dry-run", "--no-verify", "--definitions", "{}", "--interface", "eth0=sg-web")

_CONFIGURATION = """
[source]
path = "{example}"
[state]
directory = "{directory}/state"
runtime_directory = "{directory}/run"
[[interface]]
name = "eth0"
security_group_ids = ["sg-web"]
"""

_MOST_INSTALLED = 60_000_000
_MOST_PACKED = 20_000_000

pytestmark = [
    pytest.mark.machines,
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which("objdump") is None, reason="objdump is not installed, which the build takes"
    ),
]


@pytest.fixture(scope="module")
def packed() -> Path:
    """Build the bundle of this machine's architecture."""
    return (
        ROOT / run(str(ROOT / "script" / "bundle"), "--version", __version__, seconds=_BUILD_SECONDS).strip()
    )


@pytest.fixture(scope="module")
def root(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a root that has nothing but a shell and the bundle: no libc, no Python, no nft."""
    made = tmp_path_factory.mktemp("root")
    run("tar", "--extract", "--file", str(packed), "--directory", str(made))
    (made / "bin").mkdir()
    for name in ("busybox", "sh", "readlink"):
        shutil.copy(_BUSYBOX, made / "bin" / name)
    shutil.copytree(_EXAMPLE, made / "groups.d")
    return made


def test_it_is_small(packed: Path, root: Path) -> None:
    """At most 20 MB to fetch, and 60 MB on the disk."""
    files = (path for path in (root / "opt").rglob("*") if path.is_file() and not path.is_symlink())
    assert packed.stat().st_size <= _MOST_PACKED
    assert sum(path.stat().st_size for path in files) <= _MOST_INSTALLED


@pytest.mark.skipif(
    not _BUSYBOX.exists(), reason="no busybox in .cache; script/setup --development fetches it"
)
def test_it_needs_nothing_of_the_host(root: Path) -> None:
    """Where there is nothing but a shell and a kernel, it compiles the same bytes, and makes keys."""
    bundled = ("chroot", str(root), "/opt/sgagent/bin/sgagent")
    assert run(*bundled, "--version").startswith(f"sgagent {__version__}, sgagent-bundle-{__version__}-")
    assert run(*bundled, "check", "/groups.d") == "ok: nothing wrong\n"
    assert run(*bundled, "keygen", "--out", "/sgagent.key").startswith("public_keys = ")
    compiled = run(*bundled, *(word.format("/groups.d") for word in _COMPILE))
    assert compiled == run(sys.executable, "-m", "sgagent", *(word.format(_EXAMPLE) for word in _COMPILE))


def test_every_licence_is_in_it(root: Path) -> None:
    """Each package of Debian that it is made of brings its licence, and is listed with its version."""
    share = root / "opt" / "sgagent" / "share"
    packages = [line.split()[0] for line in (share / "packages").read_text().splitlines()]
    assert {"libc6", "python3.13-minimal", "libnftables1", "python3-pydantic"} <= set(packages)
    assert "GNU GENERAL PUBLIC LICENSE" in (share / "licenses" / "sgagent.txt").read_text()
    assert [name for name in packages if not (share / "licenses" / f"{name}.txt").stat().st_size] == []


@pytest.fixture
def host() -> Iterator[Namespace]:
    """Make a network namespace for the agent."""
    with network_namespace() as made:
        made.ip("link add eth0 type veth peer name far0", "link set eth0 up")
        yield made


def test_its_agent_enforces_and_proves(root: Path, host: Namespace, tmp_path: Path) -> None:
    """From a folder that is not /opt, the daemon owns its table, which its own prover proves."""
    configuration = tmp_path / "sgagent.toml"
    configuration.write_text(_CONFIGURATION.format(example=_EXAMPLE, directory=tmp_path))
    program = str(root / "opt" / "sgagent" / "bin" / "sgagent")
    agent = ("ip", "netns", "exec", host.name, program, "--config", str(configuration))

    def verified() -> bool:
        answer = subprocess.run((*agent, "status", "--json"), capture_output=True, text=True, check=False)
        found = json.loads(answer.stdout)["verified"] if answer.returncode == 0 else None
        return found is not None and found["outcome"] == "proved"

    with subprocess.Popen((*agent, "run")) as daemon:
        try:
            wait_for(verified, "the table to be proved", 60.0)
            assert "owner" in host.nft("list", "table", "inet", "sgagent")
        finally:
            daemon.terminate()
    assert daemon.returncode == 0


@pytest.mark.skipif(
    not Path(_ARM64).exists(), reason="no qemu-aarch64-static; script/setup --full installs it"
)
def test_that_of_arm64_compiles_the_same_bytes(tmp_path: Path) -> None:
    """It is built here from Debian's packages for that machine, and run by an emulator."""
    script = str(ROOT / "script" / "bundle")
    told = run(script, "--version", __version__, "--arch", "arm64", seconds=_BUILD_SECONDS)
    run("tar", "--extract", "--file", str(ROOT / told.strip()), "--directory", str(tmp_path))
    bundle = tmp_path / "opt" / "sgagent"
    libraries = ("--inhibit-cache", "--library-path", str(bundle / "lib"))
    name = ("--argv0", str(bundle / "bin" / "python3"))  # by which Python finds its own modules
    python = (str(bundle / "lib" / "python"), "-I", "-m", "sgagent")
    words = ("env", "-i", "PATH=/nowhere", _ARM64, str(bundle / "lib" / "loader"), *libraries, *name, *python)
    assert run(*words, "check", str(_EXAMPLE)) == "ok: nothing wrong\n"
    compiled = run(*words, *(word.format(_EXAMPLE) for word in _COMPILE))
    assert compiled == run(sys.executable, "-m", "sgagent", *(word.format(_EXAMPLE) for word in _COMPILE))


def test_two_builds_are_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    """From the same commit and packages, in another place."""
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(ROOT), str(clone))
    if run("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"):
        pytest.skip("there are changes that are not committed, which a clone does not have")
    told = run(str(clone / "script" / "bundle"), "--version", __version__, seconds=_BUILD_SECONDS)
    assert (clone / told.strip()).read_bytes() == packed.read_bytes()
