"""Status reports of hosts: their format, and the leased keys that hold them."""

from __future__ import annotations

import contextlib
import enum
import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from sgagent.core.errors import SgagentError
from sgagent.core.retry import RetryDelay
from sgagent.documents.writer import as_json
from sgagent.json_model import UNREADABLE, from_json, to_json
from sgagent.settings.sources import EtcdSourceSettings
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.grpc import EtcdError
from sgagent.sources.etcd.key_layout import FLEET, KeyLayout
from sgagent.sources.etcd.messages import DeleteKey, KeyValue, PutKey, Write
from sgagent.sources.etcd.publication import batches

FORMAT = 1
MOST_ERRORS = 3
"""Errors of a refused delivery in one report."""

_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The status report of a host; the fields are named as the store has them."""

    host: str
    agent_version: str
    posture: str
    """One word, as ``sgagent status`` prints it."""

    version: str | None
    """Of the host's part of the active definitions; None for none."""

    serial: int
    """Of the newest publication that the host fully enforces; 0 for none."""

    revision: int
    """The store's revision at which that publication was complete."""

    since: float | None
    """When the active version was enforced first, in seconds since the epoch."""

    errors: tuple[str, ...] = ()
    """Why the newest definitions, or their ruleset, were refused; the first few messages."""

    kernel_refused: bool = False
    drift_repaired: int = 0
    drift_unhealed: bool = False

    def encoded(self) -> bytes:
        """Return the value of the host's key."""
        errors = tuple(text[:_LONGEST_TEXT] for text in self.errors[:MOST_ERRORS])
        fields = to_json(replace(self, errors=errors))
        del fields["host"]  # which is the name of the key
        return as_json({"format": FORMAT, **fields})


class HostReport(enum.Enum):
    """The state of a host, the worst first."""

    REFUSING = "refusing"
    """The agent refuses the definitions, or the kernel refuses the ruleset."""

    UNREADABLE = "unreadable"
    """The value of the host's key is not a report."""

    LAGGING = "lagging"
    """The host does not yet enforce the newest publication."""

    DRIFTING = "drifting"
    """Another process changes the host's table, and the agent can't restore it."""

    CURRENT = "current"
    """The host enforces the newest publication."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A host with its state and report."""

    host: str
    state: HostReport
    report: Report | None
    """None if the report is unreadable."""


def read_reports(items: Iterable[KeyValue], layout: KeyLayout, newest: int) -> tuple[Reported, ...]:
    """Return the hosts and their reports, sorted by state with the worst first.

    Args:
        items: the keys of the reports.
        layout: the layout of keys.
        newest: the revision at which the newest publication was complete; 0 for none.
    """
    order = list(HostReport)
    reported = [_reported(item, layout, newest) for item in items]
    return tuple(sorted(reported, key=lambda one: (order.index(one.state), one.host)))


def _reported(item: KeyValue, layout: KeyLayout, newest: int) -> Reported:
    host = item.key.removeprefix(layout.key(FLEET) + "/")
    try:
        fields = json.loads(item.value)
        named = {**fields, "host": host} if isinstance(fields, dict) else fields
        report = from_json(Report, named, FORMAT)
    except UNREADABLE:
        return Reported(host, HostReport.UNREADABLE, None)
    return Reported(host, _state_of(report, newest), report)


def _state_of(report: Report, newest: int) -> HostReport:
    if report.errors or report.kernel_refused:
        return HostReport.REFUSING
    if report.revision < newest:
        return HostReport.LAGGING
    return HostReport.DRIFTING if report.drift_unhealed else HostReport.CURRENT


Contents = Callable[[], Mapping[str, bytes]]
"""Returns the keys to keep in the store, with their values."""

LOOK_SECONDS = 1.0
"""Interval of updates."""

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 10.0
STOP_SECONDS = 2.0
"""How long to wait for the end of the thread."""


@dataclass(slots=True)
class LeasedKeys:
    """Keys under one lease, which is renewed, and replaced when it has expired.

    At the end the lease is left to expire, so that a restart of the agent does not remove the keys.
    """

    client: Client
    lease_seconds: int
    contents: Contents
    _lease: int = 0
    _renewed_at: float = 0.0
    _written: dict[str, bytes | None] = field(default_factory=dict)
    """By key; None where a transaction may have been carried out whose answer never came."""

    def poll(self) -> None:
        """Write the changed keys and delete the removed ones, in as many transactions as they need.

        Raises:
            EtcdError: the store can't be reached, or refuses; the next call retries what is not committed.
        """
        self._hold_lease()
        wanted = dict(self.contents())
        writes: list[Write] = [
            PutKey(key, value, self._lease)
            for key, value in sorted(wanted.items())
            if self._written.get(key) != value
        ]
        writes.extend(DeleteKey(key) for key in sorted(self._written.keys() - wanted.keys()))
        for batch in batches(writes):
            self._written.update(dict.fromkeys(write.key for write in batch))
            self.client.commit((), batch)
            for write in batch:
                if isinstance(write, PutKey):
                    self._written[write.key] = write.value
                else:
                    del self._written[write.key]

    def _hold_lease(self) -> None:
        """Renew the lease if due; replace an expired one, under which all keys must be written again."""
        now = time.monotonic()
        if self._lease and now < self._renewed_at + self.lease_seconds / 3:
            return
        if not self._lease or self.client.renew_lease(self._lease).seconds <= 0:
            self._lease = self.client.grant_lease(self.lease_seconds).number
            self._written = {}
        self._renewed_at = now


@contextlib.contextmanager
def keys_kept(settings: EtcdSourceSettings, contents: Contents, memory: Path | None = None) -> Iterator[None]:
    """Keep keys in the store from a separate thread, until the context ends.

    The thread logs a failure once, and retries with exponential backoff.

    Args:
        settings: the store.
        contents: returns the keys.
        memory: the directory with the cached addresses of the store; None for no cache file.
    """
    ended = threading.Event()
    kept = LeasedKeys(Client(settings, memory), settings.lease_seconds, contents)
    thread = threading.Thread(target=_keep, args=(kept, ended), name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(STOP_SECONDS)


def _keep(kept: LeasedKeys, ended: threading.Event) -> None:
    logged, backoff = "", RetryDelay(FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
    while not ended.is_set():
        wait = LOOK_SECONDS
        try:
            kept.poll()
        except (EtcdError, SgagentError, OSError) as error:  # of the store, or of the links
            kept.client.close()
            if str(error) != logged:
                logged = str(error)
                _LOG.warning("report_failed", reason=logged)
            wait = backoff.after_failure() * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
        else:
            if logged:
                _LOG.info("report_recovered")
            logged = ""
            backoff.after_success()
        ended.wait(wait)
    kept.client.close()


_LOG = structlog.get_logger(__name__)
