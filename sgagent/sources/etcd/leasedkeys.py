"""Keep keys in the store while this host lives: they vanish with its lease when it falls silent."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import structlog

from sgagent.core.errors import SgagentError
from sgagent.settings import EtcdSourceSettings
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.failures import EtcdError
from sgagent.sources.etcd.messages import Delete, Put, Write

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
