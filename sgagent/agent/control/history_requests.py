"""The request for the history, and its answer; fields as :mod:`sgagent.agent.control.requests` says."""

from __future__ import annotations

from dataclasses import dataclass

from sgagent.agent.state.directory import Extent, Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Ask for the history of enforced definitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """Definitions that were enforced, or the fault of their file."""

    number: int
    fault: str | None = None
    """Of a damaged file; then nothing else is known."""

    version: str | None = None
    origin: Trigger | None = None
    enforced_at: float | None = None
    """When they were enforced first."""

    documents: int | None = None
    bytes: int | None = None
    extent: Extent | None = None
    """Of the table that was compiled from them."""

    is_in_force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryAnswer:
    """The enforced definitions, the newest first."""

    entries: tuple[HistoryEntry, ...]
