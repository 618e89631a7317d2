"""Try every fault many times, storm, kill and soak the agent, and write the results to docs/reliability.md.

``python -m integration.reliability --write``, as root. It takes the better part of an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from integration.agent_under_traffic import AgentUnderTraffic, Losses, agent_under_traffic, count_losses
from integration.booted_agent import booted_agent_under_traffic
from integration.faults import FAULTS, Fault
from integration.lab import lab
from integration.parts import where, with_parts
from integration.service import service_on
from integration.soak import APPLIES, soak
from integration.storm import HEAD, bench, changes_of, random_pair, run_pair, run_random_pair, storm_on
from integration.stormdaemon import HEAD as DEATHS_HEAD, kill_often
from integration.stormpairs import DROP_ON_A_LIST, KINDS
from integration.streams import Tally

DOCUMENT = Path(__file__).parent.parent / "docs" / "reliability.md"
FAULTS_PART, SOAK_PART, STORM_PART, DEATHS_PART = "faults", "soak", "storm", "deaths"
STORM_CHANGES = 40
"""Of each pair."""

RANDOM_PAIRS = 60
DEATHS = 200
"""Half of them of the applier."""

BESIDE = 100
"""Rules of another link that come and go with each change."""

_HEAD = (
    "| fault | tries | new sessions meanwhile | denied packets that passed | allowed sessions lost"
    " | new sessions not let in | seconds to heal, at most | not counted |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a fault."""

    fault: Fault
    tries: int
    losses: Losses
    longest: float
    """Seconds until all was as before, at most; 0 if nothing was ever otherwise."""

    def row(self) -> str:
        """Return the outcome as a line of the table."""
        seconds = f"{self.longest:.2f}" if self.longest else "–"
        losses = self.losses
        return (
            f"| {self.fault.name} | {self.tries} | {losses.tried:,} | {losses.leaked:,} | {losses.broken:,}"
            f" | {losses.kept_out:,} | {seconds} | {losses.uncounted:,} |"
        )


def try_fault(fault: Fault, tries: int, directory: Path, dice: Random) -> Outcome:
    """Let a fault strike so many times, under traffic all the while.

    Raises:
        LabError: the agent did not become as it was before.
    """
    with _agent_for(fault, directory, dice) as made:
        with fault.around(made) if fault.around else contextlib.nullcontext():
            longest = max(fault.strike(made) for _ in range(tries))
        losses = count_losses(made, link_stays=fault.link_stays)
    return Outcome(fault=fault, tries=tries, losses=losses, longest=longest)


def _agent_for(
    fault: Fault, directory: Path, dice: Random
) -> contextlib.AbstractContextManager[AgentUnderTraffic]:
    if fault.is_booted:
        return booted_agent_under_traffic(directory, dice)
    return agent_under_traffic(directory, dice, fault.configuration, owned=fault.owned)


def main(argv: Sequence[str]) -> int:
    """Try the faults, soak the daemon, print the results, and write them down if asked to."""
    options = _options(argv)
    parts: dict[str, str] = {}
    if FAULTS_PART in options.part:
        rows = list(_fault_rows(options))
        parts[FAULTS_PART] = f"{_HEAD}{_lines(rows)}\n{where()}, seed {options.seed}.\n"
    if STORM_PART in options.part:
        parts[STORM_PART] = f"{HEAD}\n{_lines(_storm_rows(options))}\n{where()}, seed {options.seed}.\n"
    if DEATHS_PART in options.part:
        rows = list(_death_rows(options))
        parts[DEATHS_PART] = f"{DEATHS_HEAD}\n{_lines(rows)}\n{where()}, seed {options.seed}.\n"
    if SOAK_PART in options.part:
        parts[SOAK_PART] = f"{_lines(_soak_rows(options))}\n{where()}.\n"
    if options.write:
        DOCUMENT.write_text(with_parts(DOCUMENT.read_text(encoding="utf-8"), parts), encoding="utf-8")
    return 0


_PARTS = (FAULTS_PART, STORM_PART, DEATHS_PART, SOAK_PART)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Try every fault many times, and soak the daemon.")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    parser.add_argument("--part", choices=_PARTS, action="append", help="this part alone")
    parser.add_argument("--share", type=float, default=1.0, help="the part of the tries that is made")
    parser.add_argument("--seed", type=int, default=1, help="of what is left to chance")
    parser.add_argument("--only", default="", help="the faults whose function's name has this in it")
    options = parser.parse_args(argv)
    options.part = options.part or list(_PARTS)
    return options


def _fault_rows(options: argparse.Namespace) -> Iterator[str]:
    for fault in FAULTS:
        if options.only in fault.strike.__name__:
            tries = max(1, round(fault.tries * options.share))
            with tempfile.TemporaryDirectory(prefix="sgtest-") as directory:
                yield _printed(try_fault(fault, tries, Path(directory), Random(options.seed)).row())


def _storm_rows(options: argparse.Namespace) -> Iterator[str]:
    """Yield a row for each kind of pairs, for random ones, and for all."""
    changes, total = max(2, round(STORM_CHANGES * options.share)), Tally()
    with bench() as built, storm_on(built) as storm:
        for name, pairs in KINDS.items():
            tally = Tally()
            for pair in pairs:
                tally += run_pair(built, storm, pair, changes_of(pair, changes))
            total += tally
            yield _printed(tally.row(f"{name} ({len(pairs)} pairs)"))
        tally = Tally()
        for seed in range(options.seed, options.seed + RANDOM_PAIRS):
            tally += run_random_pair(built, storm, random_pair(seed), changes)
        total += tally
        yield _printed(tally.row(f"random policies, a few edits apart ({RANDOM_PAIRS} pairs)"))
    yield _printed(total.row("all"))


def _death_rows(options: argparse.Namespace) -> Iterator[str]:
    """Yield a row for the daemon and one for the applier."""
    tries, random = max(1, round(DEATHS * options.share / 2)), Random(options.seed)
    pair = DROP_ON_A_LIST.beside(BESIDE)
    for applier in (False, True):
        deaths = kill_often(pair, tries, random, applier=applier)
        yield _printed(deaths.row("the applier" if applier else "the daemon"))


def _printed(row: str) -> str:
    """Return a row that was printed."""
    print(row, flush=True)
    return row


def _soak_rows(options: argparse.Namespace) -> Iterator[str]:
    applies = max(200, round(APPLIES * options.share))
    with (
        lab() as built,
        tempfile.TemporaryDirectory(prefix="sgtest-") as directory,
        service_on(built.host, Path(directory)) as service,
    ):
        done = soak(service, applies, lambda number, seconds: print(f"{number}: {seconds:.3f} s", flush=True))
    yield from map(_printed, done.rows())


def _lines(rows: Iterable[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
