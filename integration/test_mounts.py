"""File systems that are mounted over the documents, or over a directory above, are followed in time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, wait_for
from integration.namespaces import run
from integration.service import NOTICED_SECONDS, Service, definitions, is_let_in, service_on

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
BEFORE, MOUNTED = 80, 81


def opening(port: int) -> str:
    """Return a document that opens a port."""
    return definitions(f"ingress accept 1 tcp {port} from 0.0.0.0/0")


@pytest.fixture
def agent(one_interface: Lab, tmp_path: Path) -> Iterator[Service]:
    """Run an agent whose mounts are its own, and whose documents open a port."""
    one_interface.add_host_addresses([str(HOST)])
    private = tmp_path / "private"
    private.write_text(f'#!/bin/sh\nexec unshare --mount --propagation private {sys.executable} "$@"\n')
    private.chmod(0o755)
    with service_on(one_interface.host, tmp_path / "agent", str(private)) as made:
        made.define(opening(BEFORE))
        made.start()
        yield made


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Give a directory of documents that open another port."""
    made = tmp_path / "elsewhere"
    made.mkdir()
    (made / "policy.yaml").write_text(opening(MOUNTED))
    return made


def mount(agent: Service, *arguments: object) -> None:
    """Run a command where the agent's mounts are."""
    run("nsenter", f"--mount=/proc/{agent.pid}/ns/mnt", *map(str, arguments))


def wait_until_open(lab: Lab, port: int) -> None:
    """Wait until sessions to a port get in, and no others."""
    other = BEFORE + MOUNTED - port

    def is_only_that_open() -> bool:
        return is_let_in(lab, CLIENT, HOST, port) and not is_let_in(lab, CLIENT, HOST, other)

    wait_for(is_only_that_open, f"port {port} to be the only open one", NOTICED_SECONDS)


@pytest.mark.parametrize("lazily", ((), ("--lazy",)), ids=("", "lazily"))
def test_a_directory_that_is_mounted_over_the_documents(
    agent: Service, one_interface: Lab, elsewhere: Path, lazily: tuple[str, ...]
) -> None:
    """Mounted documents are enforced, also when they change, and the former ones once the mount is gone."""
    for _ in range(2):
        mount(agent, "mount", "--bind", elsewhere, agent.documents)
        wait_until_open(one_interface, MOUNTED)
        (elsewhere / "policy.yaml").write_text(opening(BEFORE))
        wait_until_open(one_interface, BEFORE)
        (elsewhere / "policy.yaml").write_text(opening(MOUNTED))
        wait_until_open(one_interface, MOUNTED)
        mount(agent, "umount", *lazily, agent.documents)
        wait_until_open(one_interface, BEFORE)
    agent.define(opening(MOUNTED))
    wait_until_open(one_interface, MOUNTED)


def test_a_file_system_mounted_over_a_parent(agent: Service, one_interface: Lab, elsewhere: Path) -> None:
    """Without documents in it the host stays as it is; with some they are enforced."""
    parent = agent.documents.parent
    mount(agent, "mount", "-t", "tmpfs", "none", parent)
    agent.wait_for_event("source_failed")
    assert is_let_in(one_interface, CLIENT, HOST, BEFORE)
    mount(agent, "cp", "-r", elsewhere, agent.documents)
    wait_until_open(one_interface, MOUNTED)
    mount(agent, "umount", parent)
    wait_until_open(one_interface, BEFORE)


def test_a_file_that_is_mounted_over_a_document(agent: Service, one_interface: Lab, elsewhere: Path) -> None:
    """The directory is the same; container runtimes mount single files."""
    document = agent.documents / "policy.yaml"
    mount(agent, "mount", "--bind", elsewhere / "policy.yaml", document)
    wait_until_open(one_interface, MOUNTED)
    mount(agent, "umount", document)
    wait_until_open(one_interface, BEFORE)


def test_mounts_on_the_way_of_a_link(agent: Service, one_interface: Lab, elsewhere: Path) -> None:
    """The documents may be a link; its target may be mounted."""
    place = elsewhere.with_name("a place")  # where mounts are listed, a space is in octal
    place.mkdir()
    (place / "policy.yaml").write_text(opening(BEFORE))
    agent.documents.rename(agent.documents.with_name("old"))
    agent.documents.symlink_to(place)
    wait_until_open(one_interface, BEFORE)
    mount(agent, "mount", "--bind", elsewhere, place)
    wait_until_open(one_interface, MOUNTED)


def test_other_mounts_wake_nobody(agent: Service, one_interface: Lab, elsewhere: Path) -> None:
    """A host that runs containers mounts all the time, and far from the documents."""
    place = elsewhere.with_name("far away")
    place.mkdir()
    before = agent.metric("sgagent_apply_total", outcome="unchanged")
    for _ in range(5):
        mount(agent, "mount", "-t", "tmpfs", "none", place)
        mount(agent, "umount", place)
    assert agent.metric("sgagent_apply_total", outcome="unchanged") == before
    mount(agent, "mount", "--bind", elsewhere, agent.documents)
    wait_until_open(one_interface, MOUNTED)
