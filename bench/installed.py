"""The agent as its unit starts it: its own interpreter, its default configuration, all its processes.

A fork of the tests' server would have paid neither the interpreter nor the imports, and would share pages.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from integration.namespaces import Namespace
from integration.service import Service, service_on, stat_fields

INTERPRETER = "/usr/bin/python3"
"""What the package's program is run by."""


@contextlib.contextmanager
def installed_agent(host: Namespace, directory: Path) -> Iterator[Service]:
    """Give a host an agent that is not started yet, and proves each change."""
    with service_on(host, directory, INTERPRETER, is_forked=False) as agent:
        agent.verifies = True
        agent.configure()
        yield agent


def processor_seconds_of(agent: Service) -> float:
    """Return how long all processes of an agent have computed, those that have ended included."""
    ticks = 0
    for number in agent.process_ids:
        ticks += sum(map(int, stat_fields(number)[_USER_TIME : _USER_TIME + _TIMES]))
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_for_proof(agent: Service, seconds: float) -> None:
    """Wait until the table in force is proved; ask seldom, as each question takes the agent's time.

    Raises:
        TimeoutError: it is not within the time.
    """
    pause, until = threading.Event(), time.monotonic() + seconds
    while agent.metric("sgagent_verified", outcome="proved") != 1:
        if time.monotonic() > until:
            raise TimeoutError(f"no proof within {seconds:.0f} s")
        pause.wait(_BETWEEN_LOOKS_SECONDS)


_BETWEEN_LOOKS_SECONDS = 0.5
_USER_TIME, _TIMES = 11, 4
"""Of the user and of the system: its own, then those of children that were waited for."""
