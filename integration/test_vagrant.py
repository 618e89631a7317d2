"""The Vagrantfile, as Debian's own Vagrant reads it: its machines are those that the tests provision."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.namespaces import CommandError, run
from integration.package import ROOT
from integration.tiers import FOLDER, TIERS

BOXES = {"libvirt": "debian/trixie64", "virtualbox": "bento/debian-13"}
"""Of Debian 13, by provider."""

pytestmark = pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Vagrant write elsewhere than into this tree and the user's folder."""
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "machines"))
    monkeypatch.setenv("VAGRANT_CHECKPOINT_DISABLE", "1")


def machines(folder: Path, provider: str) -> list[dict[str, Any]]:
    """Return the machines of a Vagrantfile as Vagrant understands it."""
    told = run("ruby", str(ROOT / "integration" / "vagrantfile.rb"), str(folder), provider)
    found: list[dict[str, Any]] = json.loads(told)
    return found


def copied(tmp_path: Path) -> Path:
    """Return a folder with a copy of the Vagrantfile, as in a clone without a package."""
    folder = tmp_path / "clone" / "vagrant"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "vagrant" / "Vagrantfile", folder)
    return folder


def vagrant(folder: Path, *arguments: str) -> str:
    """Run Vagrant in a folder."""
    return run("env", f"--chdir={folder}", "vagrant", *arguments)


@pytest.mark.long
@pytest.mark.parametrize("provider", BOXES)
def test_its_machines_are_those_of_the_documents(provider: str) -> None:
    """Names, MACs, addresses, the files brought to them and run there; libvirt is tried first."""
    found = machines(ROOT / "vagrant", provider)
    texts = [yaml.safe_load(path.read_text()) for path in (ROOT / "examples/three-tier/groups.d").iterdir()]
    interfaces = {
        interface["mac_address"]: interface["addresses"]
        for document in texts
        for interface in document.get("network_interfaces", [])
    }
    assert [machine["name"] for machine in found] == [tier.name for tier in TIERS]
    for tier, machine in zip(TIERS, found, strict=True):
        assert machine["errors"] == machine["warnings"] == []
        assert (machine["box"], machine["providers"]) == (BOXES[provider], list(BOXES))
        assert machine["hostname"] == tier.name
        [(kind, network)] = machine["networks"]
        assert (kind, network["mac"]) == ("private_network", tier.mac.replace(":", ""))
        assert network["ip"] == tier.addresses[0]
        assert network["ip"] in interfaces[tier.mac]
        assert (network["netmask"], network["libvirt__forward_mode"]) == ("255.255.255.0", "none")
        [folder] = machine["folders"]
        assert (folder["hostpath"], folder["guestpath"], folder["type"]) == (str(ROOT), FOLDER, "rsync")
        assert machine["scripts"] == [["shell", f"{FOLDER}/vagrant/provision.sh {tier.name} {FOLDER}"]]
    assert os.access(ROOT / "vagrant" / "provision.sh", os.X_OK)


@pytest.mark.long
def test_vagrant_accepts_it(tmp_path: Path) -> None:
    """Also in a clone without a package, which only machines that start need."""
    folder = copied(tmp_path)
    assert "validated successfully" in vagrant(folder, "validate")
    with pytest.raises(CommandError, match="There is no package in dist/: run script/package first"):
        vagrant(folder, "up", "--no-parallel", "--provider=libvirt")


@pytest.mark.long
def test_vagrant_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """So its word is worth something: a setting of the machines and one of the provider are misspelt."""
    folder = copied(tmp_path)
    file = folder / "Vagrantfile"
    file.write_text(file.read_text().replace("vm.hostname", "vm.hostnam").replace(".memory", ".memroy"))
    with pytest.raises(CommandError, match=r"(?s)shouldn't exist: hostnam\b.*shouldn't exist: memroy\b"):
        vagrant(folder, "validate")
