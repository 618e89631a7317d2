"""Write and read what hosts report of themselves."""

from __future__ import annotations

import contextlib
import enum
import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from sgagent.core.errors import SgagentError
from sgagent.documents.writer import as_json
from sgagent.settings import EtcdSourceSettings
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.grpc import EtcdError
from sgagent.sources.etcd.keys import FLEET, KeyLayout
from sgagent.sources.etcd.messages import Delete, KeyValue, Put, Write

FORMAT = 1
MOST_ERRORS = 3
"""Of a refused delivery, in a report."""

_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a host is doing, as it says itself."""

    host: str
    agent_version: str
    posture: str
    """In a word, as ``sgagent status`` says it."""

    version: str | None
    """Of the definitions in force, as they concern the host; None for none."""

    serial: int
    """Of the newest publication all of which the host enforces; 0 for none."""

    revision: int
    """Of the store, at which that publication was complete."""

    since: float | None
    """When the version in force was enforced first, in seconds since the epoch."""

    errors: tuple[str, ...] = ()
    """Why the newest definitions, or what they come to, were refused; a few, in words."""

    has_kernel_refused: bool = False
    drift_repaired: int = 0
    is_drift_unhealed: bool = False

    def encoded(self) -> bytes:
        """Return the value of the host's key."""
        return as_json(
            {
                "format": FORMAT,
                "agent_version": self.agent_version,
                "posture": self.posture,
                "version": self.version,
                "serial": self.serial,
                "revision": self.revision,
                "since": self.since,
                "errors": [text[:_LONGEST_TEXT] for text in self.errors[:MOST_ERRORS]],
                "kernel_refused": self.has_kernel_refused,
                "drift_repaired": self.drift_repaired,
                "drift_unhealed": self.is_drift_unhealed,
            }
        )


class HostReport(enum.Enum):
    """What is to be said of a host in a word; the worst first."""

    REFUSING = "refusing"
    """It has definitions that it does not enforce, or its kernel did not take."""

    UNREADABLE = "unreadable"
    """What stands in its key is no report."""

    LAGGING = "lagging"
    """It does not enforce the newest publication yet."""

    DRIFTING = "drifting"
    """Somebody changes its table, and it can't mend that."""

    CURRENT = "current"


@dataclass(frozen=True, slots=True)
class Reported:
    """A host's key, and what it comes to."""

    host: str
    standing: HostReport
    report: Report | None
    """None where it can't be read."""


def read_reports(items: Iterable[KeyValue], layout: KeyLayout, newest: int) -> tuple[Reported, ...]:
    """Return what hosts report, those first that somebody should look at.

    Args:
        items: the keys.
        layout: how they are named.
        newest: the revision at which the newest publication was complete; 0 for none.
    """
    order = list(HostReport)
    reported = [_reported(item, layout, newest) for item in items]
    return tuple(sorted(reported, key=lambda one: (order.index(one.standing), one.host)))


def _reported(item: KeyValue, layout: KeyLayout, newest: int) -> Reported:
    host = item.key.removeprefix(layout.key(FLEET) + "/")
    try:
        report = _read(host, item.value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Reported(host, HostReport.UNREADABLE, None)
    return Reported(host, _standing(report, newest), report)


def _standing(report: Report, newest: int) -> HostReport:
    if report.errors or report.has_kernel_refused:
        return HostReport.REFUSING
    if report.revision < newest:
        return HostReport.LAGGING
    return HostReport.DRIFTING if report.is_drift_unhealed else HostReport.CURRENT


def _read(host: str, value: bytes) -> Report:
    fields = json.loads(value)
    if fields["format"] != FORMAT:
        raise ValueError("a report of another version")
    version, since = fields["version"], fields["since"]
    return Report(
        host=host,
        agent_version=str(fields["agent_version"]),
        posture=str(fields["posture"]),
        version=None if version is None else str(version),
        serial=int(fields["serial"]),
        revision=int(fields["revision"]),
        since=None if since is None else float(since),
        errors=tuple(map(str, fields["errors"])),
        has_kernel_refused=bool(fields["kernel_refused"]),
        drift_repaired=int(fields["drift_repaired"]),
        is_drift_unhealed=bool(fields["drift_unhealed"]),
    )


Contents = Callable[[], Mapping[str, bytes]]
"""Return the keys that should stand in the store now, with their values."""

LOOK_SECONDS = 1.0
"""Between looks whether they are still the same."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 10.0
STOP_SECONDS = 2.0
"""How long the end of the thread is waited for."""


class LeasedKeys:
    """Write keys under one lease, renew it, and write them again if it was lost.

    When this ends the lease goes on to its end: a host that restarts its agent is away for nobody.
    """

    def __init__(self, client: Client, lease_seconds: int, contents: Contents) -> None:
        """Take what to keep; nothing is written yet."""
        self._client = client
        self._lease_seconds = lease_seconds
        self._contents = contents
        self._lease = 0
        self._renewed_at = 0.0
        self._written: dict[str, bytes] = {}

    def look(self) -> None:
        """Bring the store to what should stand there.

        Raises:
            EtcdError: it can't be reached, or refuses; all of it is tried again the next time.
        """
        self._hold_lease()
        wanted = dict(self._contents())
        writes: list[Write] = [
            Put(key, value, self._lease)
            for key, value in sorted(wanted.items())
            if self._written.get(key) != value
        ]
        writes.extend(Delete(key) for key in sorted(self._written.keys() - wanted.keys()))
        if writes:
            self._client.commit((), writes)
            self._written = wanted

    def _hold_lease(self) -> None:
        """Renew the lease if it is time to, or take a new one, under which nothing is written."""
        now = time.monotonic()
        if self._lease and now < self._renewed_at + self._lease_seconds / 3:
            return
        if not self._lease or self._client.renew_lease(self._lease).seconds <= 0:
            self._lease = self._client.grant_lease(self._lease_seconds).number
            self._written = {}
        self._renewed_at = now


@contextlib.contextmanager
def keys_kept(settings: EtcdSourceSettings, contents: Contents, memory: Path | None = None) -> Iterator[None]:
    """Keep keys in the store from a thread of their own, until the context is left.

    A store that is away or refuses is told once, and tried again ever more rarely.

    Args:
        settings: the store.
        contents: the keys.
        memory: the directory in which the store's addresses are remembered; None forgets them.
    """
    ended = threading.Event()
    client = Client(settings, memory)
    thread = threading.Thread(
        target=_keep, args=(client, settings.lease_seconds, contents, ended), name="reports", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(STOP_SECONDS)


def _keep(client: Client, lease_seconds: int, contents: Contents, ended: threading.Event) -> None:
    kept = LeasedKeys(client, lease_seconds, contents)
    told, retry = "", FIRST_RETRY_SECONDS
    while not ended.is_set():
        wait = LOOK_SECONDS
        try:
            kept.look()
        except (EtcdError, SgagentError) as error:  # the store is away, or the links can't be listed
            client.close()
            if str(error) != told:
                told = str(error)
                _LOG.warning("report_failed", reason=told)
            wait = retry * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, and guards no secret
            retry = min(2 * retry, LONGEST_RETRY_SECONDS)
        else:
            if told:
                _LOG.info("report_recovered")
            told, retry = "", FIRST_RETRY_SECONDS
        ended.wait(wait)
    client.close()


_LOG = structlog.get_logger(__name__)
