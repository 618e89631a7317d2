"""The metrics' address: tried again while another process holds it.

Enforcement does not wait for it: any user of this host can listen on the port before the agent does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sgagent.agent.step import EventLog, FaultLog
from sgagent.agent.web.http_server import MetricsServer
from sgagent.settings.listen_address import ListenAddress

RETRY_SECONDS = 1.0
"""Between two tries."""

FIRST_SECONDS = 2.0
"""That a start waits for the first try: a name of an address may take long to resolve."""


class ServedMetrics:
    """Serve metrics and pages, from when their address can be had until :meth:`close`."""

    def __init__(
        self,
        address: ListenAddress,
        open_server: Callable[[], MetricsServer],
        holder_of: Callable[[int], str | None],
        log: EventLog,
        *,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Try to serve, and go on in a thread.

        Args:
            address: where to serve, for messages.
            open_server: raises OSError if the address can't be had.
            holder_of: returns who listens on a port, as far as that is known; called in the thread.
            log: for the beginning and the end of a fault.
            retry_seconds: between two tries.
        """
        self._address = address
        self._open_server = open_server
        self._holder_of = holder_of
        self._log = log
        self._fault_log = FaultLog(log.error)
        self._retry_seconds = retry_seconds
        self.fault: str | None = None
        """Why nothing is served; None if it is, or was not tried yet. May be read from any thread."""

        self._server: MetricsServer | None = None
        self._is_over, self._is_tried = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="metrics address", daemon=True).start()
        self._is_tried.wait(FIRST_SECONDS)

    def close(self) -> None:
        """Stop to serve, and to try; does not wait for a name that is being resolved."""
        self._is_over.set()
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def _serve(self) -> None:
        while not self._is_over.is_set():
            try:
                server = self._open_server()
            except OSError as error:
                self._fail(error)
                self._is_tried.set()
                self._is_over.wait(self._retry_seconds)
                continue
            self._begin(server)
            self._is_tried.set()
            return

    def _begin(self, server: MetricsServer) -> None:
        with self._lock:
            if not self._is_over.is_set():
                self._server = server
        if self._server is not server:
            server.close()
        elif self.fault is not None:
            self.fault = None
            self._log.info("metrics_served", address=str(self._address))

    def _fail(self, error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        holder = self._holder_of(self._address.port)
        held = f", held by {holder}" if holder else ""
        self.fault = f"metrics are not served at {self._address}: {reason}{held}; tried again every second"
        self._fault_log.say("metrics_not_served", self.fault)
