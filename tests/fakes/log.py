"""A log in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class FakeLog:
    """Keep what was logged."""

    lines: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)

    def info(self, event: str, **keys: object) -> None:
        """Take a line."""
        self.lines.append((event, keys))

    warning = error = info

    def events(self) -> list[str]:
        """Return the events so far."""
        return [event for event, _ in self.lines]

    def keys_of(self, event: str) -> Mapping[str, object]:
        """Return what stood beside the newest event of a name."""
        return next(keys for name, keys in reversed(self.lines) if name == event)
