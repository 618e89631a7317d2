"""Messages to the terminals of everybody who is logged in, as wall(1) writes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import syslog
import threading
from collections.abc import Mapping
from contextlib import suppress

_SECONDS = 10.0
"""For wall(1), which a terminal that is stopped can block."""


def broadcast(text: str) -> None:
    """Have a message written to all terminals; a failure is nobody's, and nothing waits for it."""
    with suppress(RuntimeError):  # no thread is free
        threading.Thread(target=_write, args=(text, os.environ), name="broadcast", daemon=True).start()


def _write(text: str, environment: Mapping[str, str]) -> None:
    """Write a message through the journal where that is the log, else by wall(1).

    The unit's process may write to no terminal; journald forwards messages of the highest level to all.
    """
    program = shutil.which("wall")
    if program is None or "JOURNAL_STREAM" in environment:
        syslog.openlog("sgagent")
        syslog.syslog(syslog.LOG_EMERG | syslog.LOG_DAEMON, text)
        return
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run([program], input=text.encode(), capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603 - the argument is a program
