"""The protocols of systemd, without a library: notifications, sd_notify(3), and sockets, sd_listen_fds(3).

Outside systemd (``NOTIFY_SOCKET`` is not set) every notification does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping

from sgagent.core.errors import UsageError

_LONGEST_WAIT_SECONDS = 1.0


_FIRST_PASSED = 3
"""The first descriptor that the service manager passes."""


def passed_listener(environment: MutableMapping[str, str], pid: int) -> socket.socket | None:
    """Return the listening TCP socket that the service manager passed; None if it passed none.

    It passes the same one at each start, and keeps it open meanwhile.

    Args:
        environment: of the process; the variables are removed from it.
        pid: of this process; what was passed to another is not this one's.

    Raises:
        UsageError: something else was passed, or more.
    """
    passed = [environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")]
    if passed[0] != str(pid):
        return None
    if passed[1] != "1":
        raise UsageError(f"the service manager passed {passed[1]} sockets: expected one, for the metrics")
    listener = socket.socket(fileno=_FIRST_PASSED)
    is_tcp = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not is_tcp or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise UsageError("the service manager passed no listening TCP socket for the metrics")
    listener.set_inheritable(False)
    listener.setblocking(False)  # noqa: FBT003 - the standard library's own parameter
    return listener


class ServiceManager:
    """Send notifications about the service to systemd."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Take the address from the environment, the process's own by default."""
        found = os.environ if environment is None else environment
        address = found.get("NOTIFY_SOCKET", "")
        if address.startswith("@"):  # as an abstract name is written
            address = "\0" + address[1:]
        self._address = address if address.startswith(("/", "\0")) else None
        watchdog = found.get("WATCHDOG_USEC", "")
        self._watchdog_seconds = int(watchdog) / 1e6 if watchdog.isdecimal() else 0.0
        self._extra_seconds = 0.0
        self._is_extension_refused = False
        self._status: str | None = None

    def ready(self) -> None:
        """Notify that the service has started, or has finished reloading."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Notify that the service reads its configuration again; call :meth:`ready` afterwards."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Notify that the service is stopping."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog; if the socket is full, skip this time."""
        self._send("WATCHDOG=1", wait_seconds=0)

    def extend(self, seconds: float) -> None:
        """Let the watchdog, and a start, stop or reload, wait so much longer, unless they already do.

        If the socket stayed full the last time, don't wait for it: every step asks.

        Args:
            seconds: beyond what the unit says; from now on, until the service ends.
        """
        if seconds <= self._extra_seconds:
            return
        extended = [f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}"]
        if self._watchdog_seconds:
            extended.append(f"WATCHDOG_USEC={(self._watchdog_seconds + seconds) * 1e6:.0f}")
        longest_wait = 0.0 if self._is_extension_refused else _LONGEST_WAIT_SECONDS
        self._is_extension_refused = not self._send(*extended, wait_seconds=longest_wait)
        if not self._is_extension_refused:
            self._extra_seconds = seconds

    def status(self, text: str) -> None:
        """Send a status line for people, if it differs from the last one."""
        line = "STATUS=" + " ".join(text.split())
        if line != self._status and self._send(line, wait_seconds=0):
            self._status = line

    def _send(self, *assignments: str, wait_seconds: float = _LONGEST_WAIT_SECONDS) -> bool:
        """Send one message; a failure must not stop the daemon.

        Args:
            assignments: the variables to send, like ``READY=1``.
            wait_seconds: how long to wait while the socket is full. The enforcing loop passes 0 for messages
                that it can send again later.

        Returns:
            Whether it was sent.
        """
        if self._address is None:
            return False
        message = "\n".join(assignments).encode("utf-8", "backslashreplace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(wait_seconds)
                channel.sendto(message, self._address)
        except OSError:
            return False
        return True
