"""Hold the measurements, and keep them as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.sizes import Size

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of several values, and how far they lie apart."""

    median: float
    low: float
    """A quarter of the values are below."""

    high: float
    """A quarter of the values are above."""

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of at least one value."""
        found = sorted(values)
        if len(found) == 1:
            return cls(found[0], found[0], found[0])
        low, median, high = statistics.quantiles(found, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketCost:
    """The cost of one packet under one ruleset."""

    size: Size
    session: str
    """``new`` or ``known``."""

    aim: str
    """What the packets have in common."""

    contender: str
    whole: Spread
    """Nanoseconds from the sender's socket to the drop behind the ruleset."""

    above: Spread
    """Nanoseconds more than the same packets took under the baseline, in the same round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """How long one operation took."""

    size: Size
    operation: str
    contender: str
    seconds: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The costs of one run of a command."""

    size: Size
    command: str
    seconds: float
    peak_mebibytes: float
    """Of the largest process."""

    status: int
    """0 where the command did what it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine of the measurements."""

    processors: int
    kernel: str
    nftables: str
    python: str
    load: float
    """The average of the minute before the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All of one run."""

    machine: Machine
    is_quick: bool
    packets: tuple[PacketCost, ...] = ()
    durations: tuple[Duration, ...] = ()
    commands: tuple[Command, ...] = ()

    def cost(self, size: Size, aim: str, contender: str) -> PacketCost | None:
        """Return the cost of a packet; None if that was not measured."""
        return next((p for p in self.packets if (p.size, p.aim, p.contender) == (size, aim, contender)), None)

    def duration(self, size: Size, operation: str, contender: str) -> Duration | None:
        """Return how long an operation took; None if that was not measured."""
        wanted = (size, operation, contender)
        return next((d for d in self.durations if (d.size, d.operation, d.contender) == wanted), None)

    @property
    def sizes(self) -> Sequence[Size]:
        """Return the sizes that packets were measured at, the smallest first."""
        return sorted({cost.size for cost in self.packets})


def write_results(results: DataclassInstance, path: Path) -> None:
    """Write the results of a bench as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(results), indent=1) + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Return the results of an earlier run."""
    written = json.loads(path.read_text(encoding="utf-8"))
    return Results(
        machine=Machine(**written["machine"]),
        is_quick=written["is_quick"],
        packets=tuple(PacketCost(**_revived(item)) for item in written["packets"]),
        durations=tuple(Duration(**_revived(item)) for item in written["durations"]),
        commands=tuple(Command(**_revived(item)) for item in written["commands"]),
    )


def _revived(item: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a value with the values within it made again."""
    kinds = {"size": Size, "whole": Spread, "above": Spread}
    if "operation" in item:
        kinds["seconds"] = Spread
    return {name: kinds[name](**value) if name in kinds else value for name, value in item.items()}
