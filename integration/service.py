"""Run the daemon on a host of the bench, and read its log, metrics and messages to its service manager.

It is the whole program in a process of its own, with a configuration, documents and a state of the test's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from integration import forkserver
from integration.enforcer import one_group
from integration.forkserver import ForkedProgram
from integration.lab import HOST_MAC, Lab, LabError, wait_for
from integration.namespaces import Namespace, set_network_namespace
from sgagent.agent.published_status import LONGEST_WAIT_SECONDS
from sgagent.dataplane.generation import APPLIER_NAME, RulesetGeneration
from sgagent.policy_test.packet_bytes import Address, tcp, udp
from tests.patience import PATIENCE

METRICS_PORT = 9469
NOTICED_SECONDS = 2.0
"""Within which a changed file is to be enforced."""

PROOF_SECONDS = 60.0
"""Within which a small table is proved, by a process that yields to all others."""

_ROOT = Path(__file__).parent.parent
_START_SECONDS = 20.0
_MOST_SCRAPES = 5
_CONFIGURATION = """
[source]
{source}
[state]
directory = "{directory}/state"
runtime_directory = "{directory}/run"
[verify]
after_apply = {verifies}
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's exit code and output."""

    status: int
    output: str
    errors: str


@dataclass(slots=True)
class Service:
    """The daemon of one host: running, stopped, or killed."""

    namespace: Namespace
    directory: Path
    interpreter: str = sys.executable
    is_forked: bool = True
    """Whether a fork of a process that has imported the program is started, and not the program itself."""

    verifies: bool = False
    """Whether it proves each change, which is what takes most of the processor's time for a small policy."""

    output: int | None = None
    """A file for the daemon's standard output; None is the log."""

    errors: int | None = None
    """The same for its standard error."""

    _process: subprocess.Popen[bytes] | ForkedProgram | None = None
    _notices: list[str] = field(default_factory=list)
    _notify_socket: socket.socket = field(
        default_factory=lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    )

    def __post_init__(self) -> None:
        """Make the directory of documents, and a configuration that only says where things are."""
        self.is_forked = self.is_forked and self.interpreter == sys.executable
        self.documents.mkdir(parents=True)
        self.configure()
        self._notify_socket.bind(str(self.directory / "notify"))
        self._notify_socket.setblocking(False)  # noqa: FBT003 - the standard library's own parameter

    @property
    def documents(self) -> Path:
        """Return the directory of documents."""
        return self.directory / "groups.d"

    @property
    def state(self) -> Path:
        """Return the state directory."""
        return self.directory / "state"

    @property
    def pid(self) -> int:
        """Return the process id of the daemon."""
        return self._running().pid

    @property
    def applier_pid(self) -> int:
        """Return the process id of the one that holds the privilege."""
        found = _applier_of(self.pid)
        if found is None:
            raise LabError(f"the daemon has no applier:\n{self.log}")
        return found

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Return the process ids of the daemon and of all processes that it has now."""
        numbers = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
        return (self.pid, *(number for number in numbers if _living_parent(number) == str(self.pid)))

    def configure(self, more: str = "", *, source: str = "") -> None:
        """Write the configuration; takes effect at the next start.

        Args:
            more: what to add to the paths; tables of TOML.
            source: the keys of the source; the directory of documents if there are none.
        """
        text = _CONFIGURATION.format(
            directory=self.directory,
            source=source or f'path = "{self.documents}"',
            verifies=str(self.verifies).lower(),
        )
        (self.directory / "sgagent.toml").write_text(text + more)

    def define(self, text: str, name: str = "policy.yaml") -> None:
        """Write a document as careful programs do: beside its place, then renamed into it."""
        draft = self.documents / f".{name}.new"
        draft.write_text(text)
        draft.rename(self.documents / name)

    def start(self) -> None:
        """Start the daemon and wait until it says that it is ready, and has written its log up to there."""
        self.notices().clear()
        started = len(self.events("agent_started")) if self.errors is None else 0
        self.launch()
        wait_for(lambda: self._has_told("READY=1"), "the daemon to be ready", _START_SECONDS)
        if self.errors is None:
            self.wait_for_event("agent_started", started + 1, _START_SECONDS)

    def launch(self) -> None:
        """Start the daemon without waiting for anything."""
        notify = {"NOTIFY_SOCKET": str(self.directory / "notify")}
        with (self.directory / "log").open("ab") as log:
            output = log.fileno() if self.output is None else self.output
            errors = log.fileno() if self.errors is None else self.errors
            if self.is_forked:
                self._process = forkserver.start(
                    self._arguments("run"), self.namespace, output=output, errors=errors, environment=notify
                )
            else:
                self._process = subprocess.Popen(
                    [*self._program(), *self._arguments("run")],
                    env=_environment() | notify,
                    stdout=output,
                    stderr=errors,
                    preexec_fn=self._enter,  # noqa: PLW1509 - makes one system call, no lock is involved
                )

    def stop(self) -> int:
        """Ask the daemon to end, and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the daemon without giving it a chance to do anything."""
        self._end(signal.SIGKILL)

    def reload(self) -> None:
        """Send the signal that asks for a reload."""
        self.notices()
        self._running().send_signal(signal.SIGHUP)

    def wait_for_end(self) -> int:
        """Return the exit code of a daemon that ends by itself."""
        return self._running().wait(_START_SECONDS * PATIENCE)

    def close(self) -> None:
        """End whatever still runs, the applier too: as long as it lives, nobody else can change the table."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._notify_socket.close()

    def command(
        self,
        *arguments: str,
        through: tuple[str, ...] = (),
        directory: Path | None = None,
        user: int | None = None,
    ) -> Ended:
        """Run a command of the program on the host with the daemon's configuration.

        Args:
            arguments: of the program.
            through: a program that runs it.
            directory: in which it is run; None for the test's own.
            user: who runs a fork, alone in the group of the same number; None for the test's own.
        """
        seconds = _START_SECONDS * PATIENCE
        if self.is_forked and not through:
            done = forkserver.run(
                self._arguments(*arguments), self.namespace, seconds=seconds, directory=directory, user=user
            )
        else:
            assert user is None, "setpriv makes another user of a program that is started"
            done = subprocess.run(
                [*through, *self._program(), *self._arguments(*arguments)],
                env=_environment(),
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                preexec_fn=self._enter,
            )
        return Ended(done.returncode, done.stdout, done.stderr)

    def as_json(self, *arguments: str) -> Any:  # noqa: ANN401 - what a script gets: whatever JSON says
        """Return the object that a command prints with ``--json``."""
        ended = self.command(*arguments, "--json")
        assert ended.output, ended.errors
        return json.loads(ended.output)

    @property
    def log(self) -> str:
        """Return all that the daemon wrote, over all its runs; nothing before the first."""
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """Return the events of a name, over all runs."""
        return [event for event in self.all_events() if event["event"] == name]

    def all_events(self) -> list[Mapping[str, Any]]:
        """Return the daemon's events, over all its runs; a line that it is writing is not there yet."""
        whole, _, _ = self.log.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def wait_for_event(self, name: str, count: int = 1, seconds: float = NOTICED_SECONDS) -> None:
        """Wait until the log has so many events of a name."""
        wait_for(lambda: len(self.events(name)) >= count, f"{count} events {name}", seconds)

    def notices(self) -> list[str]:
        """Return the messages to the service manager since the last start.

        Few notices find room before they are taken in; without room the daemon waits, and then goes without.
        """
        with contextlib.suppress(BlockingIOError):
            while True:
                self._notices.append(self._notify_socket.recv(4096).decode())
        return self._notices

    def wait_for_turns(self, count: int = 2) -> None:
        """Wait for turns of the daemon's loop, in each of which it looks at sessions too.

        The first may have begun before this was called.
        """
        done = self.notices().count("WATCHDOG=1")
        wait_for(lambda: self.notices().count("WATCHDOG=1") >= done + count, f"{count} turns of the loop")

    def wait_for_proof(self) -> None:
        """Wait until the kernel's table is proved, by a process that yields to all others."""
        wait_for(lambda: self.metric("sgagent_verified", outcome="proved") == 1, "a proof", PROOF_SECONDS)

    def scrape(self) -> str:
        """Return the metrics page, read over HTTP on the host, once the daemon has done its pending work.

        One that is at it for long shows what it read last. That has kept its reader waiting, by which it is
        known, and so the page is asked for again.
        """
        self.notices()
        seconds, page = self._timed_scrape()
        for _ in range(_MOST_SCRAPES):
            if seconds < LONGEST_WAIT_SECONDS:
                break
            seconds, page = self._timed_scrape()
        return page

    def _timed_scrape(self) -> tuple[float, str]:
        began = time.monotonic()
        _, page = self.get("/metrics")
        return time.monotonic() - began, page

    def get(self, target: str, host: str | None = None) -> tuple[int, str]:
        """Return the status and the text of a page, asked for over HTTP on the host.

        Args:
            target: the path and what is behind it.
            host: whom the reader believes to speak to; None tells where it is.
        """
        with self.namespace.entered():
            connection = HTTPConnection("127.0.0.1", METRICS_PORT, timeout=_START_SECONDS * PATIENCE)
            with contextlib.closing(connection):
                connection.request("GET", target, headers={"Host": host} if host else {})
                response = connection.getresponse()
                return response.status, response.read().decode()

    def families(self) -> dict[str, Metric]:
        """Return the metric families of a scrape by their names."""
        return {family.name: family for family in text_string_to_metric_families(self.scrape())}

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of the one sample that has these labels, others aside; None if there is none."""
        found = [
            sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        if len(found) > 1:
            raise LabError(f"{len(found)} samples {name} with {labels}")
        return found[0] if found else None

    def hits(self, rule_id: str) -> float | None:
        """Return the hits of a rule; None if there is none such."""
        return self.metric("sgagent_rule_packets_total", rule_id=rule_id)

    def table(self) -> str:
        """Return the listing of the table; empty if there is none."""
        listing = self.namespace.nft("list", "tables")
        if "table inet sgagent\n" not in listing:
            return ""
        return self.namespace.nft("list", "table", "inet", "sgagent")

    def generation(self) -> str:
        """Return the line of the table that keeps the policy generation."""
        lines = self.table().splitlines()
        at = next(number for number, line in enumerate(lines) if "chain generation" in line)
        return lines[at + 1].strip()

    def _program(self) -> list[str]:
        return [self.interpreter, "-m", "sgagent"]

    def _arguments(self, *arguments: str) -> list[str]:
        return [*arguments, "--config", str(self.directory / "sgagent.toml")]

    def _enter(self) -> None:
        """Move the process that is about to be the program into the namespace."""
        with self.namespace.path.open() as target:
            set_network_namespace(target.fileno())

    def _has_told(self, notice: str) -> bool:
        """Tell whether the service manager was told; a daemon that has ended never will."""
        status = self._running().poll()
        if status is not None:
            raise LabError(f"the daemon ended with {status}:\n{self.log}")
        return any(notice in told.splitlines() for told in self.notices())

    def _end(self, number: signal.Signals) -> int:
        process = self._running()
        applier = _applier_of(process.pid)
        self.notices()
        process.send_signal(number)
        status = process.wait(_START_SECONDS * PATIENCE)
        self._process = None
        if applier is not None:
            wait_for(lambda: not is_alive(applier), "the applier to end with the daemon")
            wait_for(lambda: self._owner() != applier, "its forks to release the table")
        return status

    def _owner(self) -> int | None:
        with self.namespace.entered(), RulesetGeneration() as asked:
            return asked.owner()

    def _running(self) -> subprocess.Popen[bytes] | ForkedProgram:
        if self._process is None:
            raise LabError("the daemon was not started")
        return self._process


@contextlib.contextmanager
def service_on(
    namespace: Namespace, directory: Path, interpreter: str = sys.executable, *, is_forked: bool = True
) -> Iterator[Service]:
    """Give a host an agent that is not started yet, and end it with the context."""
    made = Service(namespace, directory, interpreter, is_forked=is_forked)
    try:
        yield made
    finally:
        made.close()


def definitions(*rules: str, mac_address: str = HOST_MAC % 0, addresses: str = "10.0.0.11") -> str:
    """Return a document of the group ``sg-1`` and of an interface with it.

    Args:
        rules: as for :func:`integration.enforcer.one_group`; the first is ``sgr-0``.
        mac_address: of the interface; empty leaves it out.
        addresses: of the interface, separated by commas.
    """
    mac = f"mac_address: '{mac_address}', " if mac_address else ""
    return (
        f"version: 1\n{one_group(*rules)}\nnetwork_interfaces:\n"
        f"  - {{network_interface_id: eni-1, {mac}addresses: [{addresses}], security_group_ids: [sg-1]}}\n"
    )


def is_let_in(lab: Lab, source: Address, destination: Address, port: int, *, is_udp: bool = False) -> bool:
    """Tell whether the first packet of a session gets in at the first interface."""
    make = udp if is_udp else tcp
    return lab.send_ingress([make(source, destination, 1024, port)])[0]


def lets_in(wire: Lab) -> tuple[bool, bool]:
    """Tell whether new sessions to ports 80 and 22 of 10.0.0.11 get in now."""
    client, host = ip_address("198.51.100.7"), ip_address("10.0.0.11")
    web, ssh = wire.send_ingress([tcp(client, host, 1024, port) for port in (80, 22)])
    return web, ssh


def _environment() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": str(_ROOT)}


def is_alive(pid: int) -> bool:
    """Tell whether a process has not ended, whether or not anybody has asked how."""
    fields = stat_fields(pid)
    return bool(fields) and fields[0] != "Z"


def _applier_of(pid: int) -> int | None:
    """Return the applier that a process has for a child; None if it has none."""
    numbers = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    children = (child for child in numbers if _living_parent(child) == str(pid))
    return next((child for child in children if process_name(child) == APPLIER_NAME), None)


def process_name(pid: int) -> str:
    """Return the name of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _living_parent(pid: int) -> str | None:
    """Return whose child a process is; None once it has ended, which it may do at any moment."""
    fields = stat_fields(pid)
    return fields[1] if fields and fields[0] != "Z" else None


def stat_fields(pid: int) -> list[str]:
    """Return the kernel's fields of a process, from its state on; nothing where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
