"""Links come, go, are renamed and move their addresses, and the host adapter tells."""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from integration.lab import wait_for
from integration.namespaces import Namespace, network_namespace
from sgagent.agent.daemon import clean_up
from sgagent.core.binding import HostFacts, Link
from sgagent.core.model import CidrBlock
from sgagent.host.foreign_namespaces import read_foreign_links
from sgagent.host.links import NetlinkHost
from tests.contract.host import HostContract, Machine
from tests.patience import PATIENCE

_NOTICED_WITHIN_SECONDS = 1.0 * PATIENCE
_DEADLINE_SECONDS = 20.0 * PATIENCE


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Give the test a namespace with a pair of links, and stay in it."""
    with network_namespace("host") as made:
        made.ip("link add eth0 address 02:00:00:00:00:01 type veth peer name eth1")
        with made.entered():
            yield made


@pytest.fixture
def changed(namespace: Namespace) -> Iterator[threading.Event]:
    """Watch the namespace's links and set the event at each change."""
    _ = namespace
    changed = threading.Event()
    with NetlinkHost().watch(changed.set):
        yield changed


class KernelMachine:
    """A namespace of our own, whose links are of software."""

    def __init__(self, namespace: Namespace) -> None:
        """Take the namespace; the test is in it."""
        self.host = NetlinkHost()
        self._namespace = namespace

    def add_link(self, name: str, mac_address: str) -> None:
        """Make a bridge."""
        self._namespace.ip(f"link add {name} address {mac_address} type bridge")

    def remove_link(self, name: str) -> None:
        """Remove the bridge."""
        self._namespace.ip(f"link delete {name}")

    def add_address(self, name: str, address: str) -> None:
        """Give the bridge an address that needs no detection of duplicates."""
        nodad = "nodad" if ":" in address else ""
        self._namespace.ip(f"address add {address} dev {name} {nodad}", version=6 if nodad else 4)


class TestNetlinkHost(HostContract):
    """The kernel keeps the contract of the fake."""

    @pytest.fixture
    def machine(self) -> Iterator[Machine]:
        """Give a namespace with loopback alone, and stay in it."""
        with network_namespace("machine") as made, made.entered():
            yield KernelMachine(made)


def find(name: str, host: NetlinkHost | None = None) -> Link | None:
    """Return the link of that name as it is now."""
    return next((link for link in (host or NetlinkHost()).facts().links if link.name == name), None)


def test_the_links_of_the_namespace_are_listed(namespace: Namespace) -> None:
    """Names, MACs, addresses and lower devices of a link are as the kernel has them."""
    namespace.ip("address add 10.0.0.11/24 dev eth0", "address add 2001:db8::11/64 dev eth0 nodad")
    namespace.ip("link add br0 type bridge", "link set eth1 master br0")
    found = {link.name: link for link in NetlinkHost().facts().links}
    assert sorted(found) == ["br0", "eth0", "eth1", "lo"]
    assert found["eth0"].mac_address == "02:00:00:00:00:01"
    assert found["eth0"].addresses == (CidrBlock.parse("10.0.0.11"), CidrBlock.parse("2001:db8::11"))
    assert (found["eth1"].master, found["eth1"].master_kind) == ("br0", "bridge")
    assert found["lo"].is_loopback
    assert not any(link.has_hardware for link in found.values())


def test_a_link_whose_name_is_no_text_is_listed(namespace: Namespace) -> None:
    """pyroute2 leaves such a name as bytes; it gets the escaped name, as a master too."""
    namespace.run("ip", "link", "add", os.fsdecode(b"br\xff0"), "type", "bridge")
    namespace.run("ip", "link", "set", "eth1", "master", os.fsdecode(b"br\xff0"))
    found = {link.name: link for link in NetlinkHost().facts().links}
    assert sorted(found) == [r"br\xff0", "eth0", "eth1", "lo"]
    assert found["eth1"].master == r"br\xff0"


def test_listings_leave_nothing_behind(namespace: Namespace) -> None:
    """However often links come and go: a daemon lists them for years, and hardly searches old objects."""
    host = NetlinkHost()
    kept = list[int]()
    for turn in range(1, 6):
        for number in range(5):
            namespace.ip(f"link add br{number} type bridge")
            host.facts()
            namespace.ip(f"link delete br{number}")
            host.facts()
            clean_up(turn)
        kept.append(len(gc.get_objects()))
    assert kept[-1] - kept[1] < 100


def test_facts_are_listed_by_any_thread(namespace: Namespace) -> None:
    """The daemon and its sources list links from several threads with one adapter."""
    host, found = NetlinkHost(), list[HostFacts]()
    host.facts()
    in_namespace = namespace.entered

    def look() -> None:
        with in_namespace():
            found.append(host.facts())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE_SECONDS)
    assert found == [host.facts()] * 4


def test_facts_are_those_of_the_namespace_that_the_caller_is_in(namespace: Namespace) -> None:
    """One adapter used in two namespaces shows each its own links."""
    host = NetlinkHost()
    namespace.ip("link add only-here type bridge")
    before = {link.name for link in host.facts().links}
    with network_namespace("other") as other, other.entered():
        elsewhere = {link.name for link in host.facts().links}
    assert "only-here" in before
    assert elsewhere == {"lo"}


@pytest.mark.parametrize(
    "change",
    (
        "link add br0 type bridge",
        "link delete eth1",
        "link set eth1 name eth9",
        "link set eth0 address 02:00:00:00:00:99",
        "address add 10.0.0.11/24 dev eth0",
        "-6 address add 2001:db8::11/64 dev eth0 nodad",
    ),
)
def test_a_change_is_noticed(namespace: Namespace, changed: threading.Event, change: str) -> None:
    """A link that comes, goes or is renamed, a new MAC and a new address are noticed within a second."""
    before = NetlinkHost().facts()
    version = 6 if change.startswith("-6 ") else 4
    namespace.ip(change.removeprefix("-6 "), version=version)
    assert changed.wait(_NOTICED_WITHIN_SECONDS)
    assert NetlinkHost().facts() != before


def test_an_address_that_moves_is_noticed(namespace: Namespace, changed: threading.Event) -> None:
    """An address taken from one link and given to another is found on the other."""
    namespace.ip("address add 10.0.0.11/24 dev eth0")
    assert changed.wait(_NOTICED_WITHIN_SECONDS)
    changed.clear()
    namespace.ip("address delete 10.0.0.11/24 dev eth0", "address add 10.0.0.11/24 dev eth1")
    assert changed.wait(_NOTICED_WITHIN_SECONDS)
    wait_for(lambda: _carries("eth1", "10.0.0.11") and not _carries("eth0", "10.0.0.11"), "the address")


def test_a_change_is_noticed_after_the_kernel_ran_out_of_room(namespace: Namespace) -> None:
    """Where a slow reader makes the kernel lose messages, the watch goes on."""
    woken, go_on = threading.Semaphore(0), threading.Event()

    def wake() -> None:
        woken.release()
        go_on.wait(_DEADLINE_SECONDS)

    with NetlinkHost().watch(wake):
        namespace.ip("link set eth0 up")
        assert woken.acquire(timeout=_NOTICED_WITHIN_SECONDS)
        flood = [f"link set eth0 address 02:00:00:00:{n // 256:02x}:{n % 256:02x}" for n in range(1, 2000)]
        namespace.ip(*flood)
        go_on.set()
        assert woken.acquire(timeout=_NOTICED_WITHIN_SECONDS)
        while woken.acquire(timeout=0.2):
            pass
        namespace.ip("link add br0 type bridge")
        assert woken.acquire(timeout=_NOTICED_WITHIN_SECONDS)


def test_links_are_listed_again_only_after_a_change(namespace: Namespace) -> None:
    """A watched host remembers its facts; after the watch each call lists again."""
    host = NetlinkHost()
    with host.watch(lambda: None):
        wait_for(lambda: host.facts() is host.facts(), "the news of the link's beginning to have come")
        namespace.ip("address add 10.0.0.11/24 dev eth0")
        assert _carries("eth0", "10.0.0.11", host)
        wait_for(lambda: host.facts() is host.facts(), "the news of the address to have come")
    assert host.facts() is not host.facts()


def test_remembered_facts_are_never_older_than_a_change(namespace: Namespace) -> None:
    """A change is in the facts as soon as it is made, without a wait for the announcement."""
    _ = namespace
    host = NetlinkHost()
    index = socket.if_nametoindex("eth0")
    with IPRoute() as routing, host.watch(lambda: None):
        for number in range(1, 301):
            mac = f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"
            routing.link("set", index=index, address=mac)
            (found,) = [link for link in host.facts().links if link.name == "eth0"]
            assert found.mac_address == mac


def test_a_watch_ends_at_once(namespace: Namespace) -> None:
    """Leaving the context ends the thread, and nothing is told any more."""
    changed = threading.Event()
    with NetlinkHost().watch(changed.set):
        threads = [thread for thread in threading.enumerate() if thread.name == "links"]
    namespace.ip("link set eth0 up")
    assert [thread.is_alive() for thread in threads] == [False]
    assert not changed.is_set()


def _carries(name: str, address: str, host: NetlinkHost | None = None) -> bool:
    link = find(name, host)
    return link is not None and CidrBlock.parse(address) in link.addresses


@pytest.mark.usefixtures("namespace")
def test_namespaces_that_are_not_looked_at_are_told() -> None:
    """Of many only some are, and then it is not known that no link of another one is above one here."""
    assert read_foreign_links({}) == ((), None)
    assert read_foreign_links({}, most=0) == ((), "only 0 namespaces are looked at")
