"""Hold the measurements of each contender, and keep them as JSON."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.watch import Stream, Wrong
from bench.results import Machine, PacketCost, Spread
from bench.sizes import Size


class Operation(enum.Enum):
    """The operations that take time."""

    START = "from nothing"
    MEMBER = "one member"
    RULE = "one rule"
    RELOAD = "by its files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The packets that a contender's counters knew of, before its files were read again and after."""

    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The costs of one contender at one size; None was not to be had, for the reason that is given."""

    size: Size
    contender: str
    seconds: dict[str, Spread] = field(default_factory=dict)
    """By the operation's value."""

    failures: dict[str, str] = field(default_factory=dict)
    """Why there is no such figure, by the operation's value."""

    peak_mebibytes: float = 0.0
    """Of the largest process of any operation, or of those that stay, at their most."""

    steady_mebibytes: float = 0.0
    """Of those that stay, at the end."""

    wrong: Wrong | None = None
    stream: Stream | None = None
    """While the files were read again."""

    counted: Counted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerResults:
    """All of one run."""

    machine: Machine
    versions: dict[str, str]
    """Of the peers, by the names of their packages."""

    is_quick: bool
    figures: tuple[Figures, ...] = ()
    packets: tuple[PacketCost, ...] = ()

    @property
    def sizes(self) -> list[Size]:
        """Return the sizes that were measured, the smallest first."""
        return sorted({figures.size for figures in self.figures})

    @property
    def contenders(self) -> list[str]:
        """Return the contenders in the order in which they were measured."""
        return list(dict.fromkeys(figures.contender for figures in self.figures))

    def of(self, size: Size) -> Iterator[Figures]:
        """Yield the figures of a size."""
        return (figures for figures in self.figures if figures.size == size)

    def cost(self, size: Size, aim: str, contender: str) -> PacketCost | None:
        """Return the cost of a packet; None if that was not measured."""
        return next((p for p in self.packets if (p.size, p.aim, p.contender) == (size, aim, contender)), None)


def read_figures(path: Path) -> PeerResults:
    """Return results from a file."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return PeerResults(
        machine=Machine(**found["machine"]),
        versions=found["versions"],
        is_quick=found["is_quick"],
        figures=tuple(_figures(item) for item in found["figures"]),
        packets=tuple(_cost(item) for item in found["packets"]),
    )


def _figures(item: dict[str, Any]) -> Figures:
    kinds = {"wrong": Wrong, "stream": Stream, "counted": Counted}
    made = {name: kinds[name](**value) if name in kinds and value else value for name, value in item.items()}
    seconds = {name: Spread(**value) for name, value in item["seconds"].items()}
    return Figures(**made | {"size": Size(**item["size"]), "seconds": seconds})


def _cost(item: dict[str, Any]) -> PacketCost:
    spreads = {name: Spread(**item[name]) for name in ("whole", "above")}
    return PacketCost(**item | {"size": Size(**item["size"])} | spreads)
