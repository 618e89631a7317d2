"""Repositories: a booted machine installs and upgrades from one, and refuses altered packages."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.flood import flooding, watch, watched
from integration.lab import Lab, wait_for
from integration.machine import Machine, machine_in, why_not
from integration.namespaces import CommandError, run
from integration.nginx import PORT, Nginx, nginx_in, why_not as why_no_nginx
from integration.package import (
    EARLIER,
    INSTALLATION_SECONDS,
    ROOT,
    Keys,
    built,
    built_rpm,
    keys,
    publish,
    why_no_repository,
    why_not as why_no_package,
)
from integration.service import definitions
from sgagent import __version__

URL = f"https://127.0.0.1:{PORT}"
DOCUMENT = "/etc/sgagent/groups.d/policy.yaml"
KEYRING = "/etc/apt/keyrings/sgagent.asc"
WEB = "ingress accept 1 tcp 80 from 0.0.0.0/0"

pytestmark = [
    pytest.mark.machines,
    pytest.mark.long,
    pytest.mark.skipif(
        bool(_reason := why_not() or why_no_package() or why_no_nginx() or why_no_repository()),
        reason=f"no repository can be tried: {_reason}",
    ),
]


@pytest.fixture
def server(wire: Lab, tmp_path: Path) -> Iterator[Nginx]:
    """Serve files over HTTPS at loopback of the machine."""
    with nginx_in(wire.host, tmp_path / "nginx", "127.0.0.1") as nginx:
        yield nginx


@pytest.fixture
def machine(wire: Lab, server: Nginx) -> Iterator[Machine]:
    """Boot a machine that trusts the server's authority, and knows no other repository."""
    with machine_in(wire.host, is_bare=True) as made:
        shutil.rmtree(made.path("/etc/apt/sources.list.d"))
        made.path("/etc/apt/sources.list").unlink(missing_ok=True)
        made.write("/etc/ssl/authority.pem", server.authority.file.read_text())
        made.write(
            "/etc/apt/apt.conf.d/99test",
            'Acquire::https::CAInfo "/etc/ssl/authority.pem"; Acquire::https::Proxy "DIRECT";\n',
        )
        made.boot()
        yield made


def add_repository(machine: Machine, folder: Path) -> None:
    """Follow the guide: add the keyring and the list of sources."""
    machine.write(KEYRING, (folder / "sgagent.asc").read_text())
    machine.write("/etc/apt/sources.list.d/sgagent.sources", (folder / "sgagent.sources").read_text())


def apt(machine: Machine, *arguments: str) -> str:
    """Have apt do something, and return all that it said; a list that can't be fetched is an error too."""
    strict = ("--error-on=any",) if arguments == ("update",) else ()
    return machine.run(
        *("env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", 'apt-get "$@" 2>&1', "sh"),
        *("--yes", *strict, *arguments),
        seconds=INSTALLATION_SECONDS,
    )


def update_and_upgrade(machine: Machine) -> None:
    """Do a host's nightly work."""
    apt(machine, "update")
    apt(machine, "upgrade")


def says_enforcing(machine: Machine) -> bool:
    """Tell whether an agent answers that it enforces."""
    return machine.run("sh", "-c", "sgagent status 2>&1 || :").startswith("enforcing")


def version(machine: Machine) -> str:
    """Return the version of the installed program."""
    return machine.run("sgagent", "--version").split()[1]


def test_a_host_installs_upgrades_and_refuses_alterations(wire: Lab, server: Nginx, machine: Machine) -> None:
    """All over HTTPS; while the next version comes, denied traffic stays denied."""
    with keys("first@packages.invalid") as key, keys("other@packages.invalid") as other:
        publish(server.site, URL, key, built(EARLIER))
        add_repository(machine, server.site)
        apt(machine, "update")
        apt(machine, "install", "sgagent")
        assert version(machine) == EARLIER
        machine.write(DOCUMENT, definitions(WEB))
        machine.run("sgagent", "mode", "enforce")
        wait_for(lambda: says_enforcing(machine), "the agent to enforce")

        publish(server.site, URL, other, built())
        expect_refusal(machine, "other key")
        publish(server.site, URL, key)
        with altered(server.site / "apt/dists/stable/main/binary-all/Packages.gz"):
            expect_refusal(machine, "list")
        with altered(server.site / "apt/pool" / built().name):
            expect_refusal(machine, "package")

        watch(wire)
        with flooding(wire):
            update_and_upgrade(machine)
        seen = watched(wire)
        assert version(machine) == __version__
        assert seen["leaked"] == 0
        assert 0 < seen["allowed"] < seen["sent"]


def expect_refusal(machine: Machine, what: str) -> None:
    """Assert that apt refuses, says why, and leaves the version as it is."""
    with pytest.raises(CommandError, match=REFUSALS[what]):
        update_and_upgrade(machine)
    assert version(machine) == EARLIER


REFUSALS = {
    "package": "Hash Sum mismatch|File has unexpected size",
    "list": "Hash Sum mismatch|File has unexpected size",
    "other key": "Missing key|NO_PUBKEY|not signed",
}
"""What apt says of each."""


@contextlib.contextmanager
def altered(file: Path, other: bytes | None = None) -> Iterator[None]:
    """Give a file other content within the context: without one, a byte of its own is another."""
    content = file.read_bytes()
    file.write_bytes(other or content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    try:
        yield
    finally:
        file.write_bytes(content)


def test_the_lists_for_dnf_are_signed_and_name_the_packages(tmp_path: Path) -> None:
    """Every package bears a signature of the key that the repository names, and the list has one too.

    Another key signs what is there already, too.
    """
    with keys("first@packages.invalid") as first, keys("second@packages.invalid") as second:
        for key, packages in ((first, (built_rpm(EARLIER), built())), (second, (built_rpm(),))):
            publish(tmp_path, URL, key, *packages)
            expect_signatures(tmp_path, key)
    names = sorted(path.name for path in (tmp_path / "rpm/packages").iterdir())
    assert [name.split("-")[1] for name in names] == sorted([EARLIER, __version__])
    assert "gpgcheck=1\nrepo_gpgcheck=1" in (tmp_path / "sgagent.repo").read_text()


def expect_signatures(folder: Path, key: Keys) -> None:
    """Assert that the list and every package has the signature of the key that the repository names."""
    key.sign("gpg", "--verify", f"{folder}/rpm/repodata/repomd.xml.asc", f"{folder}/rpm/repodata/repomd.xml")
    with tempfile.TemporaryDirectory() as place:
        database = f"--dbpath={place}"
        run("rpmkeys", database, "--import", f"{folder}/sgagent.asc")
        for package in (folder / "rpm/packages").iterdir():
            assert "signatures OK" in run("rpmkeys", database, "--checksig", str(package))
            with altered(package), pytest.raises(CommandError):
                run("rpmkeys", database, "--checksig", str(package))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Make the folder of a release, with checksums."""
    folder = tmp_path / "release"
    folder.mkdir()
    shutil.copy(built(), folder)
    (folder / built().name).chmod(0o600)
    run("sh", "-c", 'cd "$1" && sha256sum -- * >SHA256SUMS', "sh", str(folder))
    return folder


def test_paths_are_those_of_the_caller(tmp_path: Path, release: Path) -> None:
    """Also with a space, and whoever serves the files can read them."""
    with keys("first@packages.invalid") as key:
        make = 'cd "$1" && umask 077 && exec "$2"/script/repository "to serve" --key "$3" --url "$4" release'
        key.sign("sh", "-c", make, "sh", str(tmp_path), str(ROOT), key.name, URL)
    assert (tmp_path / "to serve/apt/dists/stable/InRelease").exists()
    assert (tmp_path / "to serve/apt/pool" / built().name).read_bytes() == built().read_bytes()
    assert run("find", str(tmp_path / "to serve"), "-not", "-perm", "-o=r") == ""
    assert release.exists()


def test_what_is_wrong_changes_nothing(tmp_path: Path, release: Path) -> None:
    """A missing key, a release that was altered, another or half a package are refused."""
    folder = tmp_path / "repository"
    package = release / built().name
    with keys("first@packages.invalid") as key:

        def make(name: str = key.name) -> None:
            repository = str(ROOT / "script/repository")
            key.sign(repository, str(folder), "--key", name, "--url", URL, str(release))

        make()
        before = contents(folder)
        with pytest.raises(AssertionError, match="GnuPG has no secret key nobody"):
            make("nobody")
        with altered(package), pytest.raises(AssertionError, match="is not what was released"):
            make()
        (release / "SHA256SUMS").unlink()
        with altered(package), pytest.raises(AssertionError, match="is damaged"):
            make()
        other = altered(package, built(EARLIER).read_bytes())
        with other, pytest.raises(AssertionError, match="is another package than"):
            make()
        damaged = release / "sgagent-9.rpm"
        damaged.write_bytes(package.read_bytes())
        with pytest.raises(AssertionError, match=r"sgagent-9\.rpm is damaged"):
            make()
        damaged.unlink()
        assert contents(folder) == before
        make()


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the content of each file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
