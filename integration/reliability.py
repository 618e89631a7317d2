"""Try every fault many times and write down what it cost, in docs/reliability.md.

``python -m integration.reliability --write``, as root. It takes the better part of an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from integration.bootedordeal import booted_ordeal
from integration.faults import FAULTS, Fault
from integration.ordeal import Ordeal, Toll, ordeal, toll

DOCUMENT = Path(__file__).parent.parent / "docs" / "reliability.md"
_BEGIN, _END = "<!-- faults: begin -->\n", "<!-- faults: end -->"
_HEAD = (
    "| fault | tries | new sessions meanwhile | denied packets that passed | allowed sessions lost"
    " | new sessions not let in | seconds to heal, at most | not counted |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a fault."""

    fault: Fault
    tries: int
    toll: Toll
    longest: float
    """Seconds until all was as before, at most; 0 if nothing was ever otherwise."""

    def row(self) -> str:
        """Return the outcome as a line of the table."""
        seconds = f"{self.longest:.2f}" if self.longest else "–"
        paid = self.toll
        return (
            f"| {self.fault.name} | {self.tries} | {paid.tried:,} | {paid.leaked:,} | {paid.broken:,}"
            f" | {paid.kept_out:,} | {seconds} | {paid.uncounted:,} |"
        )


def suffer(fault: Fault, tries: int, directory: Path, dice: Random) -> Outcome:
    """Let a fault strike so many times, under traffic all the while.

    Raises:
        LabError: the agent did not become as it was before.
    """
    with _ordeal_of(fault, directory, dice) as made:
        with fault.around(made) if fault.around else contextlib.nullcontext():
            longest = max(fault.strike(made) for _ in range(tries))
        paid = toll(made, link_stays=fault.link_stays)
    return Outcome(fault=fault, tries=tries, toll=paid, longest=longest)


def _ordeal_of(fault: Fault, directory: Path, dice: Random) -> contextlib.AbstractContextManager[Ordeal]:
    if fault.is_booted:
        return booted_ordeal(directory, dice)
    return ordeal(directory, dice, fault.configuration, owned=fault.owned)


def main(argv: Sequence[str]) -> int:
    """Try the faults, print what they cost, and write it down if told to."""
    options = _options(argv)
    rows = []
    for fault in FAULTS:
        if options.only and options.only not in fault.strike.__name__:
            continue
        tries = max(1, round(fault.tries * options.share))
        with tempfile.TemporaryDirectory(prefix="sgtest-") as directory:
            rows.append(suffer(fault, tries, Path(directory), Random(options.seed)).row())
        print(rows[-1], flush=True)
    if options.write:
        _write("\n".join(rows), options.seed)
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Try every fault many times.")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.name}")
    parser.add_argument("--share", type=float, default=1.0, help="the part of the tries that is made")
    parser.add_argument("--seed", type=int, default=1, help="of what is left to chance")
    parser.add_argument("--only", default="", help="the faults whose function's name has this in it")
    return parser.parse_args(argv)


def _write(rows: str, seed: int) -> None:
    """Put the rows in the place of those that were there."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, behind = rest.partition(_END)
    day = dt.datetime.now(tz=dt.UTC).date()
    where = f"\nLinux {platform.release()}, Python {platform.python_version()}, {day}, seed {seed}.\n"
    DOCUMENT.write_text(f"{before}{_BEGIN}{_HEAD}{rows}\n{where}{_END}{behind}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
