"""Be many hosts in a few processes: each follows definitions with a source of its own, and resolves them."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from integration.lab import wait_for
from integration.namespaces import Namespace, set_network_namespace
from sgagent.core.binding import Link, bind
from sgagent.core.model import Snapshot
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.settings.sources import EtcdSourceSettings
from sgagent.sources.etcd.source import EtcdSource
from tests.fakes.host import FakeHost

GROUPS, RULES, MEMBERS = 20, 20, 200
"""Groups that hosts are in, rules of each, and members of the group that all rules refer to."""

PROCESSES = 4
_DEADLINE_SECONDS = 240.0


def mac_of(number: int) -> str:
    """Return the MAC by which a host is found."""
    return f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"


def definitions(hosts: int, port: int) -> Snapshot:
    """Return the fleet's definitions; the port is that of one rule of every group."""
    lines = ["version: 1", "security_groups:"]
    for group in range(GROUPS):
        lines.append(f"  - security_group_id: sg-{group}\n    rules:")
        lines.extend(
            "      - {direction: ingress, policy: accept, protocol: tcp,"
            f" port_range: {10_000 + rule if rule else port}, authorization_object: sg-clients}}"
            for rule in range(RULES)
        )
    lines.append("  - {security_group_id: sg-clients, inner_access_policy: drop}\nnetwork_interfaces:")
    lines.extend(
        f"  - {{network_interface_id: eni-client-{n}, addresses: [10.1.{n // 250}.{n % 250}],"
        " security_group_ids: [sg-clients]}"
        for n in range(MEMBERS)
    )
    lines.extend(
        f"  - {{network_interface_id: eni-{n}, mac_address: '{mac_of(n)}',"
        f" addresses: [10.2.{n // 250}.{n % 250}], security_group_ids: [sg-{n % GROUPS}]}}"
        for n in range(hosts)
    )
    return parse_documents([DocumentFile("fleet.yaml", "\n".join(lines).encode())], Limits())[0]


@dataclass
class Follower:
    """A host that follows definitions and resolves them, as the agent does."""

    source: EtcdSource
    host: FakeHost
    woken_at: float = 0.0

    def add(self) -> None:
        """Resolve the delivery."""
        delivery = self.source.fetch()
        bound = bind(delivery.snapshot, (), self.host.facts(), automatically=True)
        if bound.bindings:
            resolve(delivery.snapshot, bound, Exemptions())
            self.woken_at = time.monotonic()


@dataclass(frozen=True)
class Seen:
    """The hosts of one process, and their view of a change."""

    woken_at: tuple[float, ...]
    bytes_received: int
    """Over all hosts, since they started."""

    computing: float
    """Processor time of all of them, in seconds, since they started."""


@dataclass
class Fleet:
    """All hosts."""

    workers: list[Connection]

    def look(self) -> list[Seen]:
        """Return the hosts' views."""
        for worker in self.workers:
            worker.send("look")
        return [worker.recv() for worker in self.workers]

    def wait(self, since: float) -> list[Seen]:
        """Return the hosts' views once all have seen a change."""
        found: list[Seen] = []

        def have_all() -> bool:
            found[:] = self.look()
            threading.Event().wait(0.2)  # looking costs the hosts' processes time, too
            return all(at >= since for seen in found for at in seen.woken_at)

        wait_for(have_all, "every host", _DEADLINE_SECONDS)
        return found


@contextlib.contextmanager
def fleet_running(hosts: int, namespace: Namespace, settings: EtcdSourceSettings) -> Iterator[Fleet]:
    """Start the hosts, in a few processes, and end them."""
    making = multiprocessing.get_context("spawn")
    workers, processes = [], []
    for part in range(PROCESSES):
        ours, theirs = making.Pipe()
        numbers = range(part, hosts, PROCESSES)
        process = making.Process(target=_work, args=(numbers, namespace.path, settings, theirs), daemon=True)
        process.start()
        processes.append(process)
        workers.append(ours)
    try:
        yield Fleet(workers)
    finally:
        for worker in workers:
            worker.send(None)
        for process in processes:
            process.join(10)
            process.kill()


def _work(numbers: Sequence[int], namespace: Path, settings: EtcdSourceSettings, asked: Connection) -> None:
    """Be so many hosts, and answer questions until there are no more."""
    with namespace.open() as target:
        set_network_namespace(target.fileno())
    threading.stack_size(512 * 1024)
    sys.setswitchinterval(1.0)  # hundreds of threads that wait for their turn would spend it on asking for it
    with contextlib.ExitStack() as stack:
        followers = []
        for number in numbers:
            host = FakeHost(Link(name="eth0", index=2, mac_address=mac_of(number), has_hardware=True))
            followers.append(Follower(EtcdSource(settings, Limits(), host=host), host))
            stack.enter_context(followers[-1].source.watch(followers[-1].add))
        while asked.recv():
            asked.send(
                Seen(
                    tuple(follower.woken_at for follower in followers),
                    sum(follower.source.bytes_received for follower in followers),
                    time.process_time(),
                )
            )
