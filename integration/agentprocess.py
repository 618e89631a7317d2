"""Run the real daemon in a namespace: its configuration, its start, its log, its metrics, its end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.lab import LabError
from integration.namespaces import Namespace
from sgagent.core.host import HandBinding

METRICS = ("127.0.0.1", 9469)
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_ROOT = Path(__file__).resolve().parent.parent

_SAMPLE = re.compile(r"(?P<name>[a-z_]+)\{(?P<labels>[^}]*)\} (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a scrape."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(slots=True)
class AgentProcess:
    """A daemon that runs."""

    namespace: Namespace
    process: subprocess.Popen[bytes]
    directory: Path
    metrics: tuple[str, int]

    @property
    def log(self) -> str:
        """Return what the daemon has logged."""
        return (self.directory / "log").read_text()

    def reload(self) -> None:
        """Ask for a step, as ``systemctl reload`` does."""
        self.process.send_signal(signal.SIGHUP)

    def scrape(self) -> str:
        """Return the metrics over HTTP."""
        with self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(self.metrics)
            client.sendall(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.splitlines()[0]:
            raise LabError(f"the scrape was answered with {head!r}")
        return body.decode()

    def samples(self, name: str) -> list[Sample]:
        """Return the samples of one metric that have labels."""
        found = (_SAMPLE.fullmatch(line) for line in self.scrape().splitlines())
        return [
            Sample(match["name"], dict(_LABEL.findall(match["labels"])), float(match["value"]))
            for match in found
            if match and match["name"] == name
        ]

    def hits_of_rules(self) -> dict[tuple[str, str], int]:
        """Return the hits of each rule, by interface and rule id."""
        return {
            (sample.labels["interface"], sample.labels["rule_id"]): int(sample.value)
            for sample in self.samples("sgagent_rule_packets_total")
        }

    def stop(self) -> int:
        """End the daemon in an orderly way; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_SECONDS)


@contextlib.contextmanager
def running_agent(
    namespace: Namespace,
    definitions: Path,
    bindings: Sequence[HandBinding],
    *,
    state: Path | None = None,
    metrics: tuple[str, int] = METRICS,
) -> Iterator[AgentProcess]:
    """Start the daemon in the namespace, wait until it is ready, and end it when the context is left.

    Args:
        namespace: the host.
        definitions: file or directory of documents.
        bindings: interfaces to bind by hand; none leaves it to MAC and address.
        state: where the daemon keeps what has to outlive it; None is a directory of its own.
        metrics: where it serves its metrics.
    """
    with tempfile.TemporaryDirectory(prefix="sgagent-") as name:
        directory = Path(name)
        configuration = directory / "sgagent.toml"
        text = _configuration(directory, state or directory / "state", definitions, bindings, metrics)
        configuration.write_text(text)
        with _started(namespace, directory, configuration) as process:
            yield AgentProcess(namespace, process, directory, metrics)


@contextlib.contextmanager
def _started(namespace: Namespace, directory: Path, configuration: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process and wait for its word that it is ready."""
    argv = ["ip", "netns", "exec", namespace.name, sys.executable, "-m", "sgagent", "run"]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications,
        (directory / "log").open("wb") as log,
    ):
        notifications.bind(str(directory / "notify"))
        notifications.settimeout(_START_SECONDS)
        environment = {**os.environ, "NOTIFY_SOCKET": str(directory / "notify")}
        process = subprocess.Popen(
            [*argv, "--config", str(configuration)], stdout=log, stderr=log, cwd=_ROOT, env=environment
        )
        try:
            _wait_until_ready(process, notifications, directory / "log")
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], notifications: socket.socket, log: Path) -> None:
    """Wait for READY=1; a daemon that ends before is an error with its log."""
    notifications.settimeout(0.2)
    for _ in range(int(_START_SECONDS / 0.2)):
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in notifications.recv(4096):
                return
        if process.poll() is not None:
            break
    raise LabError(f"the agent did not become ready:\n{log.read_text()}")


def _configuration(
    directory: Path,
    state: Path,
    definitions: Path,
    bindings: Sequence[HandBinding],
    metrics: tuple[str, int],
) -> str:
    """Return the text of the configuration."""
    lines = [
        "[source]",
        f'path = "{definitions.resolve()}"',
        "[state]",
        f'directory = "{state}"',
        f'runtime_directory = "{directory / "run"}"',
        "[metrics]",
        f'listen = "{metrics[0]}:{metrics[1]}"',
    ]
    for binding in bindings:
        lines += ["[[interface]]", f'name = "{binding.interface}"']
        if binding.network_interface_id is not None:
            lines.append(f'network_interface_id = "{binding.network_interface_id}"')
        else:
            groups = ", ".join(f'"{group}"' for group in binding.security_group_ids)
            lines.append(f"security_group_ids = [{groups}]")
    return "\n".join(lines) + "\n"
