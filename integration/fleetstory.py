"""Tell a fleet's story: ``python -m integration.fleetstory`` prints an administrator's view.

``--write`` puts its beginning into ``fleet.md`` too.

Three hosts follow what is published to a cluster of three. The leader is killed, somebody writes who should
not, the whole cluster is lost, a host is restarted without it, and the cluster comes back. Every command is
run, and every connection from outside is tried; where one ends otherwise than the story says, the story ends
there.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.etcdcluster import Cluster, Member, etcd_cluster
from integration.lab import LabError, wait_for
from integration.namespaces import Namespace, network_namespace
from integration.service import Service, service_on
from integration.story import Chapter, Chapters, tell_whole

DOCUMENT = Path(__file__).parent / "fleet.md"
PART = "fleet"
SHOWN = 1
"""How many chapters the page shows."""

HTTP, HTTPS, OTHER = 80, 443, 8443
SOON = 30.0

POLICY = """\
version: 1
security_groups:
  - security_group_id: sg-web
    rules:
      - {rule_id: sgr-http, direction: ingress, policy: accept, protocol: tcp, port_range: 80,
         authorization_object: 0.0.0.0/0}
      - {rule_id: sgr-nothing-out, direction: egress, policy: drop, protocol: all, port_range: -1/-1,
         authorization_object: 0.0.0.0/0}
network_interfaces:
  - {network_interface_id: eni-1, addresses: [10.9.0.11], security_group_ids: [sg-web]}
  - {network_interface_id: eni-2, addresses: [10.9.0.12], security_group_ids: [sg-web]}
  - {network_interface_id: eni-3, addresses: [10.9.0.13], security_group_ids: [sg-web]}
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the fleet, or the administrator's."""

    name: str
    address: str
    agent: Service

    @property
    def directory(self) -> Path:
        """Return where its commands are run."""
        return self.agent.directory


@dataclass(slots=True)
class Story(Chapters):
    """The story of a fleet and its cluster, and who may reach the hosts from outside."""

    cluster: Cluster
    desk: Host
    fleet: tuple[Host, ...]
    outside: Namespace

    def do(
        self, command: str, *, on: Host | None = None, status: int = 0, says: str = "", only: str = ""
    ) -> None:
        """Run a command of sgagent, and show it with its output.

        Args:
            command: with its arguments.
            on: which host; None for the administrator's.
            status: how it has to end.
            says: what has to be in its output.
            only: how the lines begin that are shown; empty for all of them.

        Raises:
            LabError: it ended otherwise, or said something else.
        """
        host = on or self.desk
        self.tell(f"root@{host.name}:~# sgagent {command}" + (f" | grep '^{only}'" if only else ""))
        done = host.agent.command(*shlex.split(command), directory=host.directory)
        told = done.output + done.errors
        self.tell(*(line for line in told.splitlines() if line.startswith(only)))
        if done.status != status or says not in told:
            raise LabError(f"{command}: ended with {done.status}, expected {status} and {says!r}:\n{told}")

    def publish(self, text: str) -> None:
        """Change the policy, and publish it."""
        (self.desk.directory / "policy" / "web.yaml").write_text(text)
        self.do("publish policy --key policy.key", says="published: revision")

    def kill(self, members: Iterable[Member]) -> None:
        """Kill members of the cluster, as nobody would."""
        for member in members:
            self.tell(f"root@{member.name}:~# kill -9 $(pidof etcd)")
            member.kill()

    def from_outside(self, expected: str) -> None:
        """Try from outside which ports are open, and show them, as soon as it is so on every host.

        Args:
            expected: ports that are open.

        Raises:
            LabError: it does not come to that.
        """
        wait_for(lambda: set(self._reached()) == {expected}, f"{expected} on every host", SOON)
        self.tell(f"   from outside, on each host: {expected}")

    def refuses(self, host: Host) -> bool:
        """Tell whether a host has told that it refuses something."""
        report = self.desk.agent.as_json("fleet", "status")
        return any(one["host"] == host.name and one["standing"] == "refusing" for one in report["hosts"])

    def source_is_down(self, host: Host) -> bool:
        """Tell whether a host says that its source is away."""
        return not host.agent.as_json("status")["is_source_up"]

    def _reached(self) -> list[str]:
        return [
            ", ".join(
                f"{port} {'open' if self._is_open(host, port) else 'shut'}" for port in (HTTP, HTTPS, OTHER)
            )
            for host in self.fleet
        ]

    def _is_open(self, host: Host, port: int) -> bool:
        try:
            with self.outside.entered():
                socket.create_connection((host.address, port), timeout=0.5).close()
        except OSError:
            return False
        return True


def first(story: Story) -> None:
    """Publish, and have three hosts follow."""
    story.chapter("publish, and three hosts follow")
    story.from_outside("80 open, 443 open, 8443 open")
    story.publish(POLICY)
    story.do("fleet wait --hosts 3 --timeout 15s", says="3 hosts at revision")
    story.from_outside("80 open, 443 shut, 8443 shut")
    story.publish(POLICY.replace("port_range: 80", "port_range: [80, 443]"))
    story.do("fleet wait --hosts 3 --timeout 15s", says="3 hosts at revision")
    story.from_outside("80 open, 443 open, 8443 shut")
    story.do("fleet status", says="3 current")


def leaderless(story: Story) -> None:
    """Kill the leader, and publish again."""
    story.chapter("kill the leader, publish again")
    leader = story.cluster.leader()
    story.kill([leader])
    story.publish(POLICY.replace("port_range: 80", "port_range: 443"))
    story.do("fleet wait --hosts 3 --timeout 15s", says="3 hosts at revision")
    story.from_outside("80 shut, 443 open, 8443 shut")
    leader.start()


def forged(story: Story) -> None:
    """Have somebody write who has no key."""
    story.chapter("somebody writes to the store who has no key")
    group = {"security_group_id": "sg-web", "rules": []}
    story.tell(
        f"root@{story.cluster.members[0].name}:~# etcdctl put /sgagent/v1/groups/sg-web '{json.dumps(group)}'"
    )
    story.cluster.etcdctl("put", "/sgagent/v1/groups/sg-web", json.dumps(group))
    for host in story.fleet:
        wait_for(lambda host=host: story.refuses(host), f"{host.name} to refuse", SOON)  # type: ignore[misc]  # a default binds the loop's value
    story.do("fleet status", says="3 refusing", only=story.fleet[0].name)
    story.from_outside("80 shut, 443 open, 8443 shut")
    story.do("publish policy --key policy.key", says="published: revision")
    story.do("fleet wait --hosts 3 --timeout 15s", says="3 hosts at revision")


def lost(story: Story) -> None:
    """Kill all of the cluster, and restart a host."""
    story.chapter("kill all of etcd, restart a host")
    story.kill(story.cluster.members)
    host = story.fleet[1]
    wait_for(lambda: story.source_is_down(host), "word that the cluster is away", SOON)
    story.do("fleet status", status=4)
    story.do("status", on=host, says="down", only="source")
    story.from_outside("80 shut, 443 open, 8443 shut")
    story.tell(f"root@{host.name}:~# kill -9 $(pidof sgagent); nft destroy table inet sgagent")
    host.agent.kill()
    host.agent.namespace.remove_table("sgagent")
    story.do("boot", on=host)
    story.from_outside("80 shut, 443 open, 8443 shut")
    story.tell(f"root@{host.name}:~# sgagent run &")
    host.agent.start()
    wait_for(lambda: "refused" in host.agent.command("status").output, "the host to have tried", SOON)
    story.do("status", on=host, says="down", only="source")
    story.from_outside("80 shut, 443 open, 8443 shut")


def found(story: Story) -> None:
    """Start the cluster again, and publish."""
    story.chapter("etcd comes back")
    story.tell("root@m0, m1, m2:~# systemctl start etcd")
    story.cluster.start()
    story.publish(POLICY.replace("port_range: 80", "port_range: 8443"))
    story.do("fleet wait --hosts 3 --timeout 15s", says="3 hosts at revision")
    story.from_outside("80 shut, 443 shut, 8443 open")
    story.do("fleet status", says="3 current", only="3 hosts")


CHAPTERS = (first, leaderless, forged, lost, found)


def main(arguments: Sequence[str]) -> int:
    """Tell the story to its end, and write it down if told to; return 1 if it went otherwise."""
    return tell_whole(arguments, "fleet's", DOCUMENT, PART, lambda: markdown(tell()[:SHOWN]))


def tell() -> Sequence[Chapter]:
    """Live through all of it, and return the chapters.

    Raises:
        LabError: it went otherwise.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sgagent-fleet-") as directory,
        beginning(Path(directory)) as story,
    ):
        for chapter in CHAPTERS:
            chapter(story)
        return story.chapters


def markdown(chapters: Iterable[Chapter]) -> str:
    """Return the chapters as a part of a page."""
    return "\n".join(
        f"### {chapter.title.capitalize()}\n\n```console\n" + "\n".join(chapter.lines) + "\n```\n"
        for chapter in chapters
    )


@contextlib.contextmanager
def beginning(directory: Path, *, members: int = 3) -> Iterator[Story]:
    """Give a cluster that runs, hosts that follow it, and somebody outside."""
    with contextlib.ExitStack() as stack:
        (directory / "etcd").mkdir()
        cluster = stack.enter_context(etcd_cluster(directory / "etcd", members))
        cluster.start()
        desk = stack.enter_context(_host(cluster, directory, "desk", "10.9.0.100"))
        (desk.directory / "policy").mkdir()
        made = desk.agent.command("keygen", "--out", "policy.key", directory=desk.directory)
        fleet = []
        for number in (1, 2, 3):
            joining = _host(cluster, directory, f"web-{number}", f"10.9.0.{10 + number}", made.output)
            fleet.append(stack.enter_context(joining))
        outside = stack.enter_context(network_namespace("outside"))
        cluster.network.plug_in(outside, "10.9.0.200")
        for host in fleet:
            for port in (HTTP, HTTPS, OTHER):
                stack.enter_context(listening(host.agent.namespace, port))
            host.agent.start()
        yield Story(cluster, desk, tuple(fleet), outside)


@contextlib.contextmanager
def listening(network: Namespace, port: int) -> Iterator[None]:
    """Take connections over both families, and close them, until the context is left."""
    listener = network.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.bind(("::", port))
    listener.listen(64)

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener was shut
            while True:
                listener.accept()[0].close()

    thread = threading.Thread(target=serve)
    thread.start()
    with listener:
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def _host(cluster: Cluster, directory: Path, name: str, address: str, pinned: str = "") -> Iterator[Host]:
    """Give a host on the cluster's network that takes documents signed by a pinned key."""
    with network_namespace(name) as namespace, service_on(namespace, directory / name) as agent:
        cluster.network.plug_in(namespace, address)
        agent.configure(f"[signature]\n{pinned}" if pinned else "", source=cluster.source_keys(name))
        yield Host(name, address, agent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
