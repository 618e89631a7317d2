"""Write and read what hosts report of themselves."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from dataclasses import dataclass

from sgagent.documents.writing import as_json
from sgagent.sources.etcd.layout import FLEET, Layout
from sgagent.sources.etcd.messages import KeyValue

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


class Standing(enum.Enum):
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
    standing: Standing
    report: Report | None
    """None where it can't be read."""


def read_reports(items: Iterable[KeyValue], layout: Layout, newest: int) -> tuple[Reported, ...]:
    """Return what hosts report, those first that somebody should look at.

    Args:
        items: the keys.
        layout: how they are named.
        newest: the revision at which the newest publication was complete; 0 for none.
    """
    order = list(Standing)
    reported = [_reported(item, layout, newest) for item in items]
    return tuple(sorted(reported, key=lambda one: (order.index(one.standing), one.host)))


def _reported(item: KeyValue, layout: Layout, newest: int) -> Reported:
    host = item.key.removeprefix(layout.key(FLEET) + "/")
    try:
        report = _read(host, item.value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Reported(host, Standing.UNREADABLE, None)
    return Reported(host, _standing(report, newest), report)


def _standing(report: Report, newest: int) -> Standing:
    if report.errors or report.has_kernel_refused:
        return Standing.REFUSING
    if report.revision < newest:
        return Standing.LAGGING
    return Standing.DRIFTING if report.is_drift_unhealed else Standing.CURRENT


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
