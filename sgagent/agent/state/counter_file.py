"""Keep counters in a file while the host is up, so that totals go on after a restart or kill of the agent.

The file is written often, and so without waiting for the disk: while the host is up, what was written is what
is read, and after a boot the file belongs to the boot before and counting starts at zero.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args, get_type_hints

from sgagent.agent.state.directory import write_draft
from sgagent.core.counter_keys import CounterKey, HitTimes
from sgagent.json_model import UNREADABLE, from_json, seal, unseal
from sgagent.ports import CounterValue

Totals = Mapping[CounterKey, CounterValue]
"""What each key counted since the host came up."""

Times = Mapping[CounterKey, HitTimes]


@dataclass(frozen=True, slots=True)
class KeptCounters:
    """The state that must outlive the agent for totals to go on. Zeros are left out."""

    totals: tuple[tuple[CounterKey, CounterValue], ...] = ()
    """Those that stopped counting first come first."""

    seen: tuple[tuple[str, CounterValue], ...] = ()
    """The kernel's counters by name, and the values that are in the totals already."""

    times: tuple[tuple[CounterKey, HitTimes], ...] = ()
    """Since when each is counted, and when it last grew; of another boot, all that is left."""


FILE_NAME = "counters.json"
_FORMAT = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """Return the id of this boot of the host."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


class CounterFile:
    """The file that counters are kept in."""

    def __init__(self, directory: Path, boot_id: str) -> None:
        """Take the directory; it is made when something is saved."""
        self.path = directory / FILE_NAME
        self._boot_id = boot_id

    def load(self) -> tuple[KeptCounters, str | None]:
        """Return the counters kept since the host came up, and the fault of the file.

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
        except UNREADABLE as error:
            return KeptCounters(), self._put_aside(error)

    def save(self, kept: KeptCounters) -> None:
        """Replace the kept counters, all of them or none.

        Raises:
            OSError: nothing was changed.
        """
        write_draft(self.path, _encode(kept, self._boot_id), is_synced=False).replace(self.path)

    def _put_aside(self, error: Exception) -> str:
        """Rename the file, so that it can be looked at, and say so."""
        aside = self.path.with_name(f"{FILE_NAME}.damaged")
        try:
            self.path.replace(aside)
        except OSError as refusal:
            return f"{self.path}: {error}; it could not be put aside: {refusal.strerror}"
        return f"{self.path}: {error}; it was put aside as {aside}"


_KINDS: dict[str, type[CounterKey]] = {
    declared.__name__.removesuffix("Counter").removesuffix("Drop").lower(): declared
    for declared in get_args(CounterKey)
}
"""The first field of a row: ``rule`` to ``observed``. The fields of the class follow, then two numbers."""

_NAMES = {declared: kind for kind, declared in _KINDS.items()}
_FIELDS = {kind: tuple(field.name for field in fields(declared)) for kind, declared in _KINDS.items()}


def _values_of(declared: type[CounterKey]) -> Callable[[CounterKey], tuple[str, ...]]:
    """Return a function that takes the fields of a key as a row has them: many are written each second."""
    types = get_type_hints(declared)
    declared_names = [field.name for field in fields(declared)]
    names = [f"{name}.value" if issubclass(types[name], enum.Enum) else name for name in declared_names]
    # Of a single name it would return no tuple.
    return attrgetter(*names) if len(names) > 1 else lambda key: (getattr(key, names[0]),)


_VALUES = {declared: _values_of(declared) for declared in _NAMES}


@dataclass(frozen=True, slots=True)
class _Body:
    """The file's content below its checksum."""

    totals: tuple[tuple[Any, ...], ...]
    seen: tuple[tuple[str, int, int], ...]
    times: tuple[tuple[Any, ...], ...] = ()


def _encode(kept: KeptCounters, boot_id: str) -> bytes:
    """Return the file's content."""
    body = {
        "totals": [[*_beginning(key), total.packets, total.bytes] for key, total in kept.totals],
        "seen": [[name, value.packets, value.bytes] for name, value in kept.seen],
        "times": [[*_beginning(key), times.counted_since, times.last_hit_at] for key, times in kept.times],
    }
    return seal(body, _FORMAT, boot_id)


def _decode(content: bytes, boot_id: str) -> KeptCounters:
    """Return a file's counters; of another boot only the times of hits.

    Raises:
        ValueError: it is no such file, or is damaged.
        RecursionError: it is nested too deep.
    """
    found, of_boot = unseal(content, _FORMAT)
    body = from_json(_Body, found)
    times = tuple((_row_key(key), _times(since, last)) for *key, since, last in body.times)
    if of_boot != boot_id:
        return KeptCounters(times=times)
    return KeptCounters(
        times=times,
        totals=tuple((_row_key(key), _value(packets, octets)) for *key, packets, octets in body.totals),
        seen=tuple((name, _value(packets, octets)) for name, packets, octets in body.seen),
    )


def _value(packets: object, octets: object) -> CounterValue:
    value = from_json(CounterValue, {"packets": packets, "bytes": octets})
    if value.packets < 0 or value.bytes < 0:
        raise ValueError(f"not a count: {packets}, {octets}")
    return value


def _times(since: object, last: object) -> HitTimes:
    return from_json(HitTimes, {"counted_since": since, "last_hit_at": last})


def _beginning(key: CounterKey) -> tuple[str, ...]:
    """Return the beginning of a key's row."""
    declared = type(key)
    return (_NAMES[declared], *_VALUES[declared](key))


def _row_key(row: list[Any]) -> CounterKey:
    """Return the key that the beginning of a row stands for.

    Raises:
        ValueError: it is none.
    """
    if not row or row[0] not in _KINDS:
        raise ValueError(f"not a counter: {tuple(row)}")
    names = dict(zip(_FIELDS[row[0]], row[1:], strict=True))
    return from_json(_KINDS[row[0]], names)
