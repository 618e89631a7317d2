"""``python -m bench.fleet``: the time of a change to every host of a fleet, and its cost for the store.

Hosts follow a cluster of three through etcd's proxies: each with its own source, connection and policy,
resolved anew at every change, only without a kernel. They are threads of a few processes and share this
machine with the cluster; what they compute is the larger part of what is measured, and is told beside it.
``--write`` puts the tables into bench/costs.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.followers import Fleet, definitions, fleet_running
from bench.section import COSTS_PAGE
from integration.etcdcluster import CLIENT_PORT, Cluster, Member, etcd_cluster
from integration.namespaces import network_namespace, remove_stale_namespaces
from integration.parts import with_parts
from sgagent.core.model import Snapshot
from sgagent.settings.sources import ServerUrl
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.host_reports import Report
from sgagent.sources.etcd.key_layout import FLEET, MEMBERS, KeyLayout, write_member
from sgagent.sources.etcd.messages import PutKey
from sgagent.sources.etcd.publication import plan_publication, publish, read_published

PART = "fleet"
SIZES = (100, 300, 1000)
PROXIES = 2
ROUNDS = 3
IDLE_SECONDS = 15.0
REPORTS = 500
"""Hosts that report and renew a lease, one after the other."""

_LAYOUT = KeyLayout("/sgagent")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Store:
    """The processes that serve definitions."""

    members: tuple[int, ...]
    proxies: tuple[int, ...]

    def member_seconds(self) -> float:
        """Return the processor time of the members together."""
        return sum(map(_processor_seconds, self.members))

    def proxy_seconds(self) -> float:
        """Return the processor time of the proxies together."""
        return sum(map(_processor_seconds, self.proxies))


@dataclass
class Change:
    """The measurements of one kind of change."""

    name: str
    seconds: list[float] = field(default_factory=list)
    computing: list[float] = field(default_factory=list)
    bytes_each: list[float] = field(default_factory=list)
    member_seconds: list[float] = field(default_factory=list)
    proxy_seconds: list[float] = field(default_factory=list)

    def line(self, hosts: int) -> str:
        """Return the row of a table."""
        cuts, median = statistics.quantiles(self.seconds, n=100), statistics.median
        return (
            f"| {hosts:,} | {self.name} | {cuts[49]:.2f} s | {cuts[98]:.2f} s |"
            f" {median(self.computing) * 1000:.1f} ms | {median(self.bytes_each):,.0f} |"
            f" {median(self.member_seconds):.2f} s | {median(self.proxy_seconds):.2f} s |"
        )


@dataclass
class Tables:
    """The results, in rows."""

    load: float
    """Of the machine, before."""

    beginnings: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return all of it in Markdown."""
        head = (
            f"On {os.cpu_count()} processors, which hosts, proxies and members share;"
            f" load before the run {self.load:.1f}."
        )
        beginnings = (
            "| hosts | all after | bytes each | watches | a member | a proxy | idle members | idle proxies |",
            "|---|---|---|---|---|---|---|---|",
            *self.beginnings,
        )
        changes = (
            "| hosts | change | half | 99 of 100 | computing, each | bytes, each | members | proxies |",
            "|---|---|---|---|---|---|---|---|",
            *self.changes,
        )
        reports = ("| what a host does | members |", "|---|---|", *self.reports)
        return "\n\n".join((head, "\n".join(beginnings), "\n".join(changes), "\n".join(reports))) + "\n"


def main() -> int:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {COSTS_PAGE.name}, too")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("network namespaces need root", file=sys.stderr)
        return 2
    remove_stale_namespaces()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each host has a connection and a few pipes
    tables = Tables(os.getloadavg()[0])
    for hosts in options.hosts:
        _measure(hosts, options.rounds, tables)
    text = tables.text()
    print(text, end="")
    if options.write:
        page = COSTS_PAGE.read_text(encoding="utf-8")
        COSTS_PAGE.write_text(with_parts(page, {PART: text}), encoding="utf-8")
    return 0


def _measure(hosts: int, rounds: int, tables: Tables) -> None:
    """Measure a fleet of some size on a cluster of its own."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        cluster = stack.enter_context(etcd_cluster(Path(directory)))
        namespace = stack.enter_context(network_namespace("fleet"))
        cluster.network.plug_in(namespace, "10.9.0.100")
        cluster.start()
        proxies = stack.enter_context(_proxies(cluster, Path(directory)))
        store = Store(tuple(member.pid for member in cluster.members), tuple(pid for _, pid in proxies))
        stack.enter_context(namespace.entered())
        client = stack.enter_context(contextlib.closing(Client(cluster.settings(timeout_seconds=30))))
        _publish(client, definitions(hosts, 80))
        through = cluster.settings(timeout_seconds=30, endpoints=tuple(endpoint for endpoint, _ in proxies))
        began = time.monotonic()
        with fleet_running(hosts, namespace, through) as fleet:
            first = fleet.wait(0.001)
            took = time.monotonic() - began
            received = sum(seen.bytes_received for seen in first) / hosts
            watches = sum(map(_watches, cluster.members))
            idle = _idle(store)
            tables.beginnings.append(
                f"| {hosts:,} | {took:.1f} s | {received:,.0f} | {watches:,} |"
                f" {_megabytes(store.members)} MB | {_megabytes(store.proxies)} MB |"
                f" {idle[0] * 1000:.0f} ms | {idle[1] * 1000:.0f} ms |"
            )
            rule, member = Change("one rule of every group"), Change("one member")
            for number in range(rounds):
                publishing = partial(_publish, client, definitions(hosts, 100 + number))
                _time(fleet, rule, store, hosts, publishing)
                _time(fleet, member, store, hosts, partial(_announce, client, number))
            tables.changes.extend(change.line(hosts) for change in (rule, member))
        tables.reports[:] = _reports(client, store)


@contextlib.contextmanager
def _proxies(cluster: Cluster, directory: Path) -> Iterator[list[tuple[ServerUrl, int]]]:
    """Run proxies, each a host of its own, and give their end points and process ids."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(PROXIES):
            namespace = stack.enter_context(network_namespace(f"proxy{number}"))
            address = f"10.9.0.{50 + number}"
            cluster.network.plug_in(namespace, address)
            log = stack.enter_context((directory / f"proxy{number}.log").open("wb"))
            argv = [
                *("ip", "netns", "exec", namespace.name, "etcd", "grpc-proxy", "start"),
                f"--endpoints={','.join(str(member.endpoint) for member in cluster.members)}",
                f"--listen-addr={address}:{CLIENT_PORT}",
                f"--data-dir={directory}/proxy{number}",
            ]
            process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=directory)
            stack.callback(process.wait)
            stack.callback(process.kill)
            found.append((ServerUrl(host=address, port=2379, is_encrypted=False), process.pid))
        yield found


def _time(fleet: Fleet, change: Change, store: Store, hosts: int, make: Callable[[], None]) -> None:
    """Make a change, wait until every host has seen it, and note its costs."""
    before, members, proxies = fleet.look(), store.member_seconds(), store.proxy_seconds()
    began = time.monotonic()
    make()
    found = fleet.wait(began)
    change.seconds.extend(at - began for seen in found for at in seen.woken_at)
    pairs = list(zip(before, found, strict=True))
    change.computing.append(sum(now.computing - was.computing for was, now in pairs) / hosts)
    change.bytes_each.append(sum(now.bytes_received - was.bytes_received for was, now in pairs) / hosts)
    change.member_seconds.append(store.member_seconds() - members)
    change.proxy_seconds.append(store.proxy_seconds() - proxies)


def _idle(store: Store) -> tuple[float, float]:
    """Return the processor time that members and proxies spend in a second in which nothing changes."""
    members, proxies, began = store.member_seconds(), store.proxy_seconds(), time.monotonic()
    threading.Event().wait(IDLE_SECONDS)
    took = time.monotonic() - began
    return (store.member_seconds() - members) / took, (store.proxy_seconds() - proxies) / took


def _reports(client: Client, store: Store) -> Iterator[str]:
    """Yield the rows of the costs of reporting."""
    report = Report(
        host="web-1",
        agent_version="0.1.0",
        posture="enforcing",
        version="sha256:0123456789ab",
        serial=1_800_000_000,
        revision=1_000_000,
        since=1_800_000_000.0,
    ).encoded()
    lease = client.grant_lease(600).number
    spent = store.member_seconds()
    for number in range(REPORTS):
        client.commit((), [PutKey(_LAYOUT.key(FLEET, f"web-{number}"), report, lease)])
    written = store.member_seconds()
    for _ in range(REPORTS):
        client.renew_lease(lease)
    renewed = store.member_seconds()
    yield f"| writes its report ({len(report)} bytes) | {(written - spent) / REPORTS * 1e6:,.0f} µs |"
    yield f"| renews its lease | {(renewed - written) / REPORTS * 1e6:,.0f} µs |"


def _publish(client: Client, snapshot: Snapshot) -> None:
    plan = plan_publication(read_published(client, _LAYOUT), snapshot, _LAYOUT, by="bench", at=time.time())
    publish(client, plan, _LAYOUT)


def _announce(client: Client, number: int) -> None:
    """Make a host a member, as it would itself: a single write under a lease."""
    key = _LAYOUT.key(MEMBERS, "sg-clients", f"new-{number}")
    client.commit((), [PutKey(key, write_member([f"10.3.0.{number}"]), client.grant_lease(600).number)])


def _processor_seconds(pid: int) -> float:
    """Return the processor time that a process has spent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _megabytes(pids: Sequence[int]) -> int:
    """Return how much memory one of some processes takes, in the mean."""
    texts = [Path(f"/proc/{pid}/status").read_text().splitlines() for pid in pids]
    resident = [int(line.split()[1]) for text in texts for line in text if line.startswith("VmRSS:")]
    return round(sum(resident) * 1024 / len(pids) / 1e6)


def _watches(member: Member) -> int:
    """Return how many watches a member serves."""
    with urllib.request.urlopen(f"{member.endpoint}/metrics") as answer:  # noqa: S310 - the URL is our own
        text = answer.read().decode()
    (line,) = [line for line in text.splitlines() if line.startswith("etcd_debugging_mvcc_watcher_total ")]
    return int(float(line.split()[1]))


if __name__ == "__main__":
    sys.exit(main())
