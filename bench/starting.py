"""Measure whole commands by the processor time that they take, each beside its baseline.

``python -m bench.starting`` measures only this, as root. The least of several runs is shown, as on a machine
that others use too everything else is theirs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.commands import Took, run_measured
from bench.durations import BINDING, Files, sgagent
from bench.goals import Goal
from bench.installed import INTERPRETER
from bench.overlapping import OVERLAPPING_BINDING, invent_overlapping
from bench.packetcost import compiled_text
from bench.policies import invent
from bench.section import COSTS_PAGE, Section, begin, finish, parser_of, table
from bench.sizes import SIZES, Size
from integration.namespaces import network_namespace

NAME = "starting"
RUNS = 7
RUNS_OF_LARGE = 3
_DRY_RUN_SECONDS, _DRY_RUN_MEBIBYTES = 4.0, 300.0
LARGEST = Size(rules=30_000, members=300_000)
"""Shows how costs grow; nothing is promised for it."""

_LIMITS = {SIZES[2]: (4.0, 1.0), SIZES[3]: (3.0, None)}
"""Times the baseline that the first apply may take, and seconds by the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The costs of a command, and of its baseline."""

    command: str
    elapsed: float
    """Seconds by the clock, of the quickest run."""

    seconds: float
    """Of the processor."""

    baseline: str
    baseline_seconds: float
    limit: float
    """How many times the baseline it may take."""

    most_seconds: float | None = None
    """By the clock, where that was promised too."""

    most_processor_seconds: float | None = None
    mebibytes: float
    """At its peak; of its largest process."""

    most_mebibytes: float | None = None

    @property
    def ratio(self) -> float:
        """Return how many times the baseline it takes."""
        return self.seconds / self.baseline_seconds


def measure_start(runs: int = RUNS) -> Iterator[Compared]:
    """Measure the costs of a command that has little to do."""
    python = (INTERPRETER, "-c", "pass")
    for words, size, limit, most_seconds in (
        (("--version",), None, 5.0, None),
        (("check",), SIZES[0], 15.0, 0.25),
        (("compile", "--dry-run"), SIZES[1], 15.0, None),
    ):
        with tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory:
            argv, name = sgagent(*words), " ".join(("sgagent", *words))
            if size is not None:
                files, name = Files.write(invent(size), Path(directory)), f"{name}, {size}"
                argv = (*argv, "--definitions", str(files.definitions), *BINDING)
            pairs = [(_run(argv), _run(python)) for _ in range(runs)]
        yield _compared(name, "python3 -c pass", limit, pairs, most_seconds)


def measure_dry_run(size: Size, runs: int) -> Iterator[Compared]:
    """Measure compiling without applying, for policies whose objects overlap, and whose do not."""
    for policy, name, binding in (
        (invent(size), str(size), BINDING),
        (invent_overlapping(size), f"{size}, overlapping", OVERLAPPING_BINDING),
    ):
        with tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory:
            definitions, text = Path(directory, "definitions.json"), Path(directory, "ours.nft")
            definitions.write_text(policy.document(), encoding="utf-8")
            text.write_text(compiled_text(policy), encoding="utf-8")
            ours = sgagent("compile", "--dry-run", "--definitions", str(definitions), *binding)
            pairs = [
                (_in_new_namespace(ours), _in_new_namespace(("nft", "-c", "-f", str(text))))
                for _ in range(runs)
            ]
        found = _compared(f"sgagent compile --dry-run, {name}", "nft -c -f of the text", 10.0, pairs)
        if size != LARGEST:
            found = replace(found, most_processor_seconds=_DRY_RUN_SECONDS, most_mebibytes=_DRY_RUN_MEBIBYTES)
        yield found


def measure_first_apply(size: Size, runs: int) -> Compared:
    """Measure the first compile and apply of a policy, with that of the finished text."""
    limit, most_seconds = _LIMITS[size]
    with tempfile.TemporaryDirectory(prefix="sgagent-bench-") as directory:
        files = Files.write(invent(size), Path(directory))
        ours = sgagent("compile", "--definitions", str(files.definitions), *BINDING)
        pairs = [
            (_in_new_namespace(ours), _in_new_namespace(("nft", "-f", str(files.ours)))) for _ in range(runs)
        ]
    return _compared(f"sgagent compile, {size}", "nft -f of the finished text", limit, pairs, most_seconds)


def _compared(
    command: str,
    baseline: str,
    limit: float,
    pairs: list[tuple[Took, Took]],
    most_seconds: float | None = None,
) -> Compared:
    return Compared(
        command=command,
        elapsed=min(one.elapsed for one, _ in pairs),
        seconds=min(one.processor for one, _ in pairs),
        baseline=baseline,
        baseline_seconds=min(other.processor for _, other in pairs),
        limit=limit,
        most_seconds=most_seconds,
        mebibytes=min(one.mebibytes for one, _ in pairs),
    )


def _in_new_namespace(argv: tuple[str, ...]) -> Took:
    with network_namespace("starting") as namespace, namespace.entered():
        return _run(argv)


def _run(argv: tuple[str, ...]) -> Took:
    """Run a command.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    took = run_measured(argv)
    if took.status:
        raise subprocess.CalledProcessError(took.status, argv)
    return took


def judge(found: Sequence[Compared]) -> Iterator[Goal]:
    """Yield the goals for commands."""
    for one in found:
        yield Goal.at_most(one.limit, f"{one.command}, against {one.baseline}", one.ratio, "times")
        if one.most_seconds is not None:
            yield Goal.at_most(one.most_seconds, f"{one.command}: elapsed", one.elapsed, "s")
        if one.most_processor_seconds is not None:
            yield Goal.at_most(one.most_processor_seconds, f"{one.command}: processor", one.seconds, "s")
        if one.most_mebibytes is not None:
            yield Goal.at_most(one.most_mebibytes, f"{one.command}: memory", one.mebibytes, "MiB")


def lines(found: Sequence[Compared]) -> Iterator[str]:
    """Yield the table."""
    yield from table(
        (
            *("command", "elapsed, s", "limit", "processor, s", "limit", "MiB", "limit"),
            *("baseline", "processor, s", "times", "limit"),
        ),
        (
            (
                *(one.command, _or_bold(f"{one.elapsed:.2f}", one.elapsed, one.most_seconds)),
                _limit(one.most_seconds),
                _or_bold(f"{one.seconds:.3f}", one.seconds, one.most_processor_seconds),
                _limit(one.most_processor_seconds),
                _or_bold(f"{one.mebibytes:.0f}", one.mebibytes, one.most_mebibytes),
                *(_limit(one.most_mebibytes), one.baseline, f"{one.baseline_seconds:.3f}"),
                *(_or_bold(f"{one.ratio:.1f}", one.ratio, one.limit), f"{one.limit:g}"),
            )
            for one in found
        ),
    )


def _limit(limit: float | None) -> str:
    return "" if limit is None else f"{limit:g}"


def _or_bold(text: str, measured: float, limit: float | None) -> str:
    """Return a figure, in bold where it misses its limit."""
    return f"**{text}**" if limit is not None and measured > limit else text


def main(argv: Sequence[str]) -> int:
    """Measure, and print tables."""
    options = parser_of(NAME, "Measure how commands start, and the first apply.").parse_args(argv)
    begin()
    runs, runs_of_large = (2, 1) if options.quick else (RUNS, RUNS_OF_LARGE)
    found = [*measure_start(runs), measure_first_apply(SIZES[2], runs)]
    found.append(measure_first_apply(SIZES[3], runs_of_large))
    found += measure_dry_run(SIZES[2] if options.quick else SIZES[3], runs_of_large)
    found += () if options.quick else measure_dry_run(LARGEST, 1)
    return finish(
        Section(NAME, list(lines(found)), found, COSTS_PAGE), list(judge(found)), writes=options.write
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
