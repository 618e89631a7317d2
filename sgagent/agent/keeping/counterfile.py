"""Keep counters in a file while the host is up, so that totals go on when the agent was restarted or killed.

The file is written often, and so without waiting for the disk: while the host is up, what was written is what
is read, and when it comes up again the file belongs to another boot and counting starts at zero anyway.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import assert_never

from sgagent.agent.counter_totals import KeptCounters
from sgagent.agent.keeping.hittimes import HitTimes
from sgagent.core.model import Direction, Policy
from sgagent.nft.counter_keys import (
    CounterKey,
    DefaultCounter,
    ExemptionCounter,
    ExemptionKind,
    InnerCounter,
    InvalidCounter,
    ObservedDropCounter,
    RuleCounter,
)
from sgagent.ports import CounterValue

FILE_NAME = "counters.json"
_FORMAT = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UNLIKE_OURS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a file raises that this program has not written."""


def read_boot_id() -> str:
    """Return what tells this boot of the host from every other."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


class CounterFile:
    """The file that counters are kept in."""

    def __init__(self, directory: Path, boot_id: str) -> None:
        """Take the directory; it is made when something is saved."""
        self.path = directory / FILE_NAME
        self._boot_id = boot_id

    def load(self) -> tuple[KeptCounters, str | None]:
        """Return what was kept since the host came up, and what was wrong with the file.

        A file that can't be understood is put aside under another name, which the fault tells.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return KeptCounters(), None
        except OSError as error:
            return KeptCounters(), f"{self.path}: {error.strerror}"
        try:
            return _decode(content, self._boot_id), None
        except _UNLIKE_OURS as error:
            return KeptCounters(), self._put_aside(error)

    def save(self, kept: KeptCounters) -> None:
        """Replace what is kept, all of it or nothing.

        Raises:
            OSError: nothing was changed.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_name(f".{FILE_NAME}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_encode(kept, self._boot_id))
        draft.replace(self.path)

    def _put_aside(self, error: Exception) -> str:
        """Rename the file, so that it can be looked at, and say so."""
        aside = self.path.with_name(f"{FILE_NAME}.damaged")
        try:
            self.path.replace(aside)
        except OSError as refusal:
            return f"{self.path}: {error}; it could not be put aside: {refusal.strerror}"
        return f"{self.path}: {error}; it was put aside as {aside}"


_Row = list[str | int]


def _encode(kept: KeptCounters, boot_id: str) -> bytes:
    """Return the file's content."""
    body = json.dumps(
        {
            "totals": [[*_key_row(key), total.packets, total.bytes] for key, total in kept.totals],
            "seen": [[name, value.packets, value.bytes] for name, value in kept.seen],
            "times": [[*_key_row(key), t.counted_since, t.last_hit_at] for key, t in kept.times],
        }
    )
    outer = {"format": _FORMAT, "boot_id": boot_id, "sha256": _checksum(body), "body": body}
    return json.dumps(outer).encode()


def _decode(content: bytes, boot_id: str) -> KeptCounters:
    """Return what a file holds; of another boot only when there were hits.

    Raises:
        _UNLIKE_OURS: it is not such a file.
    """
    outer = json.loads(content)
    if outer["format"] != _FORMAT or outer["sha256"] != _checksum(outer["body"]):
        raise ValueError("the format or the checksum does not agree")
    body = json.loads(outer["body"])
    times = tuple((_row_key(key), _times(pair)) for *key, pair in map(_split, body.get("times", ())))
    if outer["boot_id"] != boot_id:
        return KeptCounters(times=times)
    return KeptCounters(
        times=times,
        totals=tuple((_row_key(key), _value(count)) for *key, count in map(_split, body["totals"])),
        seen=tuple((str(name), _value(count)) for name, count in map(_split, body["seen"])),
    )


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _split(row: _Row) -> list[object]:
    """Return the row with its two last fields as one."""
    return [*row[:-2], row[-2:]]


def _value(count: object) -> CounterValue:
    match count:
        case [int(packets), int(octets)] if packets >= 0 and octets >= 0:
            return CounterValue(packets=packets, bytes=octets)
    raise ValueError(f"not a count: {count}")


def _times(pair: object) -> HitTimes:
    match pair:
        case [int() | float() as since, int() | float() | None as last]:
            return HitTimes(counted_since=since, last_hit_at=last)
    raise ValueError(f"not two moments: {pair}")


def _key_row(key: CounterKey) -> Iterable[str]:
    """Return a key as a row that :func:`_row_key` reads."""
    match key:
        case RuleCounter():
            ids = (key.security_group_id, key.rule_id)
            return ("rule", key.interface, *ids, key.direction.value, key.policy.value)
        case DefaultCounter():
            return ("default", key.interface, key.direction.value, key.verdict.value)
        case InnerCounter():
            return ("inner", key.interface)
        case InvalidCounter():
            return ("invalid", key.interface, key.direction.value)
        case ExemptionCounter():
            return ("exemption", key.interface, key.direction.value, key.kind.value)
        case ObservedDropCounter():
            return ("observed", key.interface, key.direction.value)
        case _:
            assert_never(key)


def _row_key(row: list[object]) -> CounterKey:
    """Return the key that a row stands for.

    Raises:
        ValueError: it is no such row.
    """
    match row:
        case ["rule", str(interface), str(group), str(rule), direction, policy]:
            return RuleCounter(
                interface=interface,
                security_group_id=group,
                rule_id=rule,
                direction=Direction(direction),
                policy=Policy(policy),
            )
        case ["default", str(interface), direction, verdict]:
            return DefaultCounter(
                interface=interface, direction=Direction(direction), verdict=Policy(verdict)
            )
        case ["inner", str(interface)]:
            return InnerCounter(interface=interface)
        case ["invalid", str(interface), direction]:
            return InvalidCounter(interface=interface, direction=Direction(direction))
        case ["exemption", str(interface), direction, kind]:
            return ExemptionCounter(
                interface=interface, direction=Direction(direction), kind=ExemptionKind(kind)
            )
        case ["observed", str(interface), direction]:
            return ObservedDropCounter(interface=interface, direction=Direction(direction))
    raise ValueError(f"not a counter: {row}")
