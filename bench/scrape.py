"""Measure the cost of a scrape at ten thousand rules, and its effect on changes that are applied meanwhile.

``python -m bench.scrape``, as root; ``--write`` keeps it. Blocks of changes with somebody who scrapes all the
time once a second, and blocks without, take turns.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.daemon import Watch, generation_in
from bench.definition_writers import Change, FileWriter, Notice
from bench.goals import Goal
from bench.installed import installed_agent
from bench.policies import BenchPolicy, invent
from bench.section import (
    COSTS_PAGE,
    Section,
    begin,
    finish,
    goal_table,
    milliseconds,
    parser_of,
    percentile,
    table,
)
from bench.sizes import SIZES, Size
from integration.lab import wait_for
from integration.namespaces import network_namespace
from integration.service import Service

NAME = "scrape"
MOST_MILLISECONDS = 250.0
MOST_SLOWED = 1.1
"""What half of the changes may take with somebody who scrapes, as often as without."""

SCRAPES, BLOCKS, CHANGES_OF_A_BLOCK = 20, 6, 12
_PERIOD = 1.0
_START_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """All that was measured at one size."""

    size: Size
    kibibytes: float
    alone: tuple[float, ...]
    """Seconds of scrapes while nothing else happens."""

    meanwhile: tuple[float, ...]
    """Seconds of scrapes while changes are applied."""

    without: tuple[float, ...]
    """Seconds until a change was enforced while nobody scraped."""

    with_scrapes: tuple[float, ...]
    """Seconds until a change was enforced while somebody did."""


def measure_scrapes(policy: BenchPolicy, scrapes: int, blocks: int, changes: int) -> Scraped:
    """Scrape so often, then make so many blocks of changes of each kind."""
    without: list[float] = []
    with_scrapes: list[float] = []
    with (
        network_namespace("scrape") as host,
        tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory,
        installed_agent(host, Path(directory)) as service,
        contextlib.closing(generation_in(host)) as generation,
    ):
        writer = FileWriter(service, policy, Notice.SIGNAL)
        service.launch()
        wait_for(lambda: any("READY=1" in n for n in service.notices()), "the daemon", _START_SECONDS)
        watch, reader = Watch(service, generation, is_signalled=True), _Reader(service)
        alone = [reader.scrape() for _ in range(scrapes)]
        numbers = iter(range(2 * blocks * changes))
        for _ in range(blocks):
            for found, around in ((without, contextlib.nullcontext()), (with_scrapes, reader.scraping())):
                with around:
                    found.extend(
                        watch.enforced_seconds(writer.prepare(Change.MEMBER, next(numbers)))
                        for _ in range(changes)
                    )
        return Scraped(
            size=policy.size,
            kibibytes=reader.bytes / 1024,
            alone=tuple(alone),
            meanwhile=tuple(reader.meanwhile),
            without=tuple(without),
            with_scrapes=tuple(with_scrapes),
        )


@dataclass(slots=True)
class _Reader:
    """Scrapes: once, or once a second."""

    service: Service
    meanwhile: list[float] = field(default_factory=list)
    bytes: int = 0
    """Of the last answer."""

    def scrape(self) -> float:
        """Scrape, and return the seconds until all had come."""
        began = time.perf_counter()
        text = self.service.scrape()
        seconds = time.perf_counter() - began
        self.bytes = len(text.encode())
        return seconds

    @contextlib.contextmanager
    def scraping(self) -> Iterator[None]:
        """Scrape once a second until the context is left."""
        end = threading.Event()

        def scrape() -> None:
            while not end.is_set():
                seconds = self.scrape()
                self.meanwhile.append(seconds)
                end.wait(max(0.0, _PERIOD - seconds))

        thread = threading.Thread(target=scrape, name="scrapes")
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


def judge(found: Scraped) -> Iterator[Goal]:
    """Yield the goals for scrapes."""
    measured = 1000 * percentile(found.alone, 50)
    yield Goal.at_most(MOST_MILLISECONDS, f"a scrape at {found.size}, median", measured, "ms")
    slowed = percentile(found.with_scrapes, 50) / percentile(found.without, 50)
    text = "a change with a scrape each second, against one without, median"
    yield Goal.at_most(MOST_SLOWED, text, slowed, "times")


def lines(found: Scraped) -> Iterator[str]:
    """Yield all tables."""
    yield from goal_table(list(judge(found)))
    rows = {
        f"a scrape alone, {found.kibibytes:,.0f} KiB": found.alone,
        "a scrape during changes": found.meanwhile,
        "a change without scrapes": found.without,
        "a change with a scrape each second": found.with_scrapes,
    }
    yield from table(
        ("milliseconds", "runs", "median", "90th percentile", "worst"),
        (
            (
                name,
                str(len(seconds)),
                *(milliseconds(percentile(seconds, percent)) for percent in (50, 90, 100)),
            )
            for name, seconds in rows.items()
        ),
    )


def main(argv: Sequence[str]) -> int:
    """Measure, and print tables."""
    parser = parser_of(NAME, "Measure what a scrape takes, and what it does to changes.")
    parser.add_argument("--size", type=int, choices=range(len(SIZES)), default=len(SIZES) - 1)
    options = parser.parse_args(argv)
    begin()
    blocks, changes = (1, 2) if options.quick else (BLOCKS, CHANGES_OF_A_BLOCK)
    found = measure_scrapes(invent(SIZES[options.size]), SCRAPES, blocks, changes)
    return finish(
        Section(NAME, list(lines(found)), found, COSTS_PAGE), list(judge(found)), writes=options.write
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
