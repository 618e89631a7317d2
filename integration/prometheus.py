"""Run a real Prometheus on a host of the bench, and query it.

``script/setup --development`` fetches Debian's packages; they are unpacked and never installed, so that no
service of theirs runs on this machine.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

from integration.lab import LabError, wait_for
from integration.namespaces import Namespace
from integration.service import METRICS_PORT
from tests.patience import PATIENCE

_PACKAGES = Path(__file__).parent.parent / ".cache" / "packages"
_SERVER = _PACKAGES / "prometheus/usr/bin/prometheus"
PROMTOOL = _PACKAGES / "promtool/usr/bin/promtool"
RUNBOOK_URL = "https://wiki.example/sgagent/runbook"
"""What its configuration says of where the runbook is."""

_PORT = 9090
_START_SECONDS = 30.0
_ANSWER_SECONDS = 20.0
_CONFIGURATION = """
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
  evaluation_interval: 1s
  external_labels: {{sgagent_runbook: "{runbook}"}}
rule_files: {rules}
scrape_configs:
  - job_name: sgagent
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def why_not() -> str:
    """Return why there is no Prometheus; empty if there is one."""
    for program in (_SERVER, PROMTOOL):
        if not program.exists():
            return f"no {program.name} in .cache/packages; script/setup --development fetches it, as root"
    return ""


def complaints(page: str) -> str:
    """Return the complaints of ``promtool check metrics`` about a page; nothing, if all is well."""
    done = subprocess.run(
        (PROMTOOL, "check", "metrics"), input=page, capture_output=True, text=True, check=False
    )
    told = done.stdout + done.stderr
    return told if told or not done.returncode else f"exit {done.returncode}"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A server that scrapes the agent of a host five times a second.

    On a busy machine a scrape may take longer than it has. It has failed then, and nothing is known until the
    next; so whoever asks for what is so now asks again for a while.
    """

    namespace: Namespace

    def query(self, expression: str) -> dict[frozenset[tuple[str, str]], float]:
        """Return the values of an expression now, by the labels of their series."""
        status, answer = self._get(f"/api/v1/query?{urlencode({'query': expression})}")
        if status != HTTPStatus.OK:
            raise LabError(f"{expression}: {answer!r}")
        return {
            frozenset(series["metric"].items()): float(series["value"][1])
            for series in json.loads(answer)["data"]["result"]
        }

    def value(self, expression: str) -> float | None:
        """Return the one value of an expression; None if there is none."""
        found = list(self.query(expression).values())
        if len(found) > 1:
            raise LabError(f"{expression} has {len(found)} values")
        return found[0] if found else None

    def wait_for(self, expression: str, expected: float) -> None:
        """Wait until a scrape has brought the value."""
        wait_for(lambda: self.value(expression) == expected, f"{expression} to be {expected}")

    def wait_until(self, expression: str) -> None:
        """Wait until an expression has any value at all."""
        wait_for(lambda: bool(self.query(expression)), f"{expression} to hold")

    def wait_while(self, expression: str) -> None:
        """Wait until an expression has no value."""
        wait_for(lambda: not self.query(expression), f"{expression} not to hold")

    def annotation(self, alert: str, name: str) -> str | None:
        """Return an annotation of an alert whose expression holds; None where it does not."""
        status, answer = self._get("/api/v1/alerts")
        if status != HTTPStatus.OK:
            raise LabError(f"alerts: {answer!r}")
        found = json.loads(answer)["data"]["alerts"]
        notes = (one["annotations"] for one in found if one["labels"]["alertname"] == alert)
        return next((str(note.get(name)) for note in notes), None)

    def wait_for_scrapes(self, number: int) -> None:
        """Wait until the agent has been scraped so many times more."""
        before = self._scrapes()
        wait_for(lambda: self._scrapes() >= before + number, f"{number} scrapes")

    def is_ready(self) -> bool:
        """Tell whether it has started."""
        try:
            status, _ = self._get("/-/ready")
        except OSError:
            return False
        return status == HTTPStatus.OK

    def _scrapes(self) -> float:
        return self.value("sum_over_time(up[1h])") or 0

    def _get(self, path: str) -> tuple[int, bytes]:
        with self.namespace.entered():
            connection = HTTPConnection("127.0.0.1", _PORT, timeout=_ANSWER_SECONDS * PATIENCE)
            with contextlib.closing(connection):
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read()


@contextlib.contextmanager
def prometheus_on(namespace: Namespace, directory: Path, rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """Start a server on a host, and end it with the context.

    Args:
        namespace: of the host.
        directory: where it keeps its series.
        rules: files of rules that it evaluates.
    """
    files = json.dumps([str(path) for path in rules])
    (directory / "prometheus.yml").write_text(
        _CONFIGURATION.format(rules=files, port=METRICS_PORT, runbook=RUNBOOK_URL)
    )
    argv = (
        *("ip", "netns", "exec", namespace.name, "setpriv", "--pdeathsig", "KILL", str(_SERVER)),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'series'}",
        f"--web.listen-address=127.0.0.1:{_PORT}",
        "--log.level=warn",
    )
    with (
        (directory / "prometheus.log").open("wb") as log,
        subprocess.Popen(argv, stdout=log, stderr=log) as server,
    ):
        try:
            made = Prometheus(namespace)
            wait_for(made.is_ready, "Prometheus to answer", _START_SECONDS)
            yield made
        finally:
            server.kill()
