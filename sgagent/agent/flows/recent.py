"""Remember the newest flows, and no more than that."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from itertools import islice

from sgagent.agent.flows.flow import Flow

MOST_RECENT = 2_000
"""Flows that are remembered: about two megabytes."""


class RecentFlows:
    """Keep the newest flows; one thread adds, any may read."""

    def __init__(self, most: int = MOST_RECENT) -> None:
        """Start with none."""
        self._flows: deque[Flow] = deque(maxlen=most)
        self._lock = threading.Lock()

    def add(self, flows: Iterable[Flow]) -> None:
        """Add flows, the oldest first; what was there longest makes room."""
        with self._lock:
            self._flows.extend(flows)

    def recent(self, most: int = MOST_RECENT) -> tuple[Flow, ...]:
        """Return the newest flows, the oldest of them first."""
        with self._lock:
            return tuple(islice(self._flows, max(0, len(self._flows) - most), None))

    def after(self, number: int) -> tuple[Flow, ...]:
        """Return the flows that were seen after the one of a number, the oldest first."""
        return tuple(flow for flow in self.recent() if flow.number > number)
