"""Run an etcd cluster on a network of namespaces, and break it in the ways in which clusters break.

Members and whoever asks them are hosts on one switch; the cable of each can be pulled. Data directories are
the test's own, and nothing of it outlives the context.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from integration.lab import wait_for
from integration.namespaces import CommandError, Namespace, network_namespace, run, set_network_namespace
from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from tests.patience import PATIENCE

START_SECONDS = 30.0
CLIENT_PORT, PEER_PORT = 2379, 2380


@dataclass(slots=True)
class Network:
    """A switch, and the hosts that are plugged into it."""

    switch: Namespace
    _ports: dict[str, str] = field(default_factory=dict)

    def plug_in(self, namespace: Namespace, address: str, name: str = "eth9") -> None:
        """Give a host a link of that name to the switch, with an address of 10.9.0.0/24."""
        port = f"port{len(self._ports)}"
        self._ports[address] = port
        self.switch.ip(f"link add {port} type veth peer name {name} netns {namespace.name}")
        self.switch.ip(f"link set {port} master switch", f"link set {port} up")
        namespace.ip(f"address add {address}/24 dev {name}", f"link set {name} up")

    def pull(self, address: str) -> None:
        """Pull the cable of the host with that address: packets vanish, and nobody is told."""
        self.switch.ip(f"link set {self._ports[address]} nomaster")

    def put_back(self, address: str) -> None:
        """Plug it in again."""
        self.switch.ip(f"link set {self._ports[address]} master switch")


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make a switch."""
    with network_namespace("switch") as switch:
        switch.ip("link add switch type bridge", "link set switch up")
        yield Network(switch)


@dataclass(slots=True)
class Member:
    """One member of a cluster, running or not."""

    name: str
    namespace: Namespace
    address: str
    directory: Path
    options: tuple[str, ...]
    scheme: str = "http"
    _process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> ServerUrl:
        """Return where it takes questions."""
        return ServerUrl(host=self.address, port=CLIENT_PORT, is_encrypted=self.scheme == "https")

    @property
    def pid(self) -> int:
        """Return the process id of a member that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """Return its log."""
        return (self.directory.parent / f"{self.name}.log").read_text()

    def start(self) -> None:
        """Start it; it may take a while until it takes questions."""
        with (self.directory.parent / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["etcd", *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self._enter,  # noqa: PLW1509 - makes one system call, no lock is involved
            )

    def kill(self) -> None:
        """End it without a warning."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(START_SECONDS * PATIENCE)
            self._process = None

    def wipe(self) -> None:
        """Lose its disk."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _enter(self) -> None:
        with self.namespace.path.open() as target:
            set_network_namespace(target.fileno())


@dataclass(slots=True)
class Cluster:
    """Members that know each other."""

    network: Network
    members: tuple[Member, ...]

    def settings(self, **others: object) -> EtcdSourceSettings:
        """Return the settings of a source on this cluster."""
        endpoints = tuple(member.endpoint for member in self.members)
        return EtcdSourceSettings(**{"endpoints": endpoints, "timeout_seconds": 2, **others})  # type: ignore[arg-type]  # any of its fields

    def source_keys(self, host_name: str) -> str:
        """Return the keys of a source that follows all members, under the name of a host."""
        return source_keys(*(member.endpoint for member in self.members), host_name=host_name)

    def start(self) -> None:
        """Start every member, and wait until they have chosen a leader."""
        for member in self.members:
            member.start()
        wait_for(self.is_healthy, "the cluster", START_SECONDS)

    def is_healthy(self) -> bool:
        """Tell whether some member answers for the cluster."""
        try:
            self.etcdctl("get", "/", "--command-timeout=2s")
        except CommandError:
            return False
        return True

    def etcdctl(self, *arguments: str, through: Sequence[Member] = (), user: str | None = None) -> str:
        """Run etcdctl against some of the members, or all."""
        asked = through or self.members
        is_encrypted = asked[0].scheme == "https"
        endpoints = f"http://127.0.0.1:{CLIENT_PORT}" if is_encrypted else _names(asked)
        who = [] if user is None else [f"--user={user}"]
        return run(
            *("ip", "netns", "exec", asked[0].namespace.name),
            *("etcdctl", f"--endpoints={endpoints}", "--dial-timeout=2s", *who, *arguments),
        )

    def leader(self) -> Member:
        """Return the member that leads."""
        for member in self.members:
            with contextlib.suppress(CommandError):
                fields = self.etcdctl("endpoint", "status", through=[member]).split(", ")
                if fields[4] == "true":
                    return member
        raise AssertionError("there is no leader")


def source_keys(*endpoints: object, host_name: str) -> str:
    """Return the keys of a source that follows a cluster by these end points, under the name of a host."""
    quoted = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
    return f'type = "etcd"\nendpoints = [{quoted}]\ntimeout_seconds = 2\nhost_name = "{host_name}"\n'


def _names(members: Sequence[Member]) -> str:
    return ",".join(str(member.endpoint) for member in members)


@contextlib.contextmanager
def etcd_cluster(
    directory: Path, size: int = 3, options: Sequence[str] = (), scheme: str = "http"
) -> Iterator[Cluster]:
    """Build a cluster that is not started yet, and remove it.

    Args:
        directory: of data and logs.
        size: how many members.
        options: further ones, of each.
        scheme: ``https`` needs the options that name certificates.
    """
    with network() as made, contextlib.ExitStack() as stack:
        addresses = [f"10.9.0.{number + 1}" for number in range(size)]
        initial = ",".join(f"m{n}=http://{address}:{PEER_PORT}" for n, address in enumerate(addresses))
        members = []
        for number, address in enumerate(addresses):
            namespace = stack.enter_context(network_namespace(f"etcd{number}"))
            made.plug_in(namespace, address)
            name, data = f"m{number}", directory / f"m{number}"
            arguments = _options(name, data, address, initial, scheme)
            members.append(Member(name, namespace, address, data, (*arguments, *options), scheme))
        try:
            yield Cluster(made, tuple(members))
        finally:
            for member in members:
                member.kill()


def _options(name: str, data: Path, address: str, initial: str, scheme: str) -> tuple[str, ...]:
    client, peer = f"{scheme}://{address}:{CLIENT_PORT}", f"http://{address}:{PEER_PORT}"
    return (
        f"--name={name}",
        f"--data-dir={data}",
        f"--listen-client-urls={client},http://127.0.0.1:{CLIENT_PORT}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={initial}",
        "--heartbeat-interval=100",
        "--election-timeout=1000",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
