"""Run every check that a change must pass, all of them even if one fails, and sum up what they said.

They run in lanes at once, since tests on the kernel and of machines wait much of their time; what a section
printed is shown when it has ended.
Called by script/test, which makes the environments first. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
DEBIAN = ROOT / ".venv" / "bin"
OLDEST = ROOT / ".venv-3.11" / "bin"

COVERED = ",".join(f"sgagent/{name}" for name in ("core", "nft", "compiler", "analysis", "documents"))
"""What unprivileged tests can reach whole; only this is traced, with --full, since tracing costs time."""

COVERAGE_FLOOR = 95
"""Percent of lines and branches."""

EXAMPLES = "12"
"""Of each property; the same ones for every change, so that more of them would seldom say more."""

EXAMPLES_ON_OLDEST = "5"
"""Likewise: what a library changes is met by each of these."""

USING_LIBRARIES = (
    *("agent/state", "agent/web", "cli", "documents", "host"),
    *("importers", "policy_test", "settings"),
)
"""Packages with unit tests there: each library that sgagent imports is imported in one of them."""

PROPERTIES_ON_OLDEST = (
    *("characters", "codec", "compiled", "documents", "etcd", "imports", "jsontext", "oracle", "page"),
    *("parse_cache", "protocol"),
)
"""Those of input, output and the applier's protocol, and one of the compiler."""

ON_OLDEST = (
    *(f"tests/unit/{name}" for name in USING_LIBRARIES),
    "tests/golden",
    *(f"tests/property/test_{name}.py" for name in PROPERTIES_ON_OLDEST),
)
"""Tests that PyPI's packages can change; with --full all tests run there."""

KERNEL_PARTS = (("a", "c"), ("d", "d"), ("e", "i"), ("k", "n"), ("o", "r"), ("s", "z"))
"""First and last letters of the tests on the kernel in each lane, which take about as long as one another."""

WAITING = ("agent", "sources")
"""Packages whose unit tests wait for clocks and sockets, half of the time of all; not with --quick."""

UNIT_PARTS = (("a", "c"), ("d", "z"))
"""Likewise of the unit tests."""

PROPERTY_PARTS = (("m", "z"), ("a", "l"))
"""Likewise of the properties, the longer first, so that the end of a run has work for two processors."""

WITHOUT_PACKAGE = ("integration/test_systemd.py", "integration/test_stock_kernel.py")
"""Boot machines on which the package is not installed; all others share one that is built once.

The guest of the stock kernel comes last: by then there is bytecode, which takes it 20 times as long to make.
"""

LANES_AT_ONCE = 8
"""On two processors, since tests on the kernel and of machines wait more than half of their time."""

YIELDING = 10
"""How nice sections are that wait for nothing: they take the time that the others leave."""

PATIENCE = "4"
"""By what tests multiply their deadlines beside other lanes; a test that is run alone is strict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One check, as a command that fails by its exit code."""

    title: str
    argv: tuple[str, ...] = ()
    report: Path | None = None
    """The file to which the command writes JUnit's XML, if it runs tests."""

    environment: tuple[tuple[str, str], ...] = ()
    niceness: int = 0
    skipped_because: str = ""
    """Not run, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many tests ended which way."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        """Return the sum."""
        return Count(
            passed=self.passed + other.passed,
            failed=self.failed + other.failed,
            skipped=self.skipped + other.skipped,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a section came to."""

    section: Section
    is_good: bool
    seconds: float
    count: Count

    @property
    def word(self) -> str:
        """Return the outcome as the table shows it."""
        if self.section.skipped_because:
            return "skipped"
        return "ok" if self.is_good else "FAILED"


def main(argv: Sequence[str]) -> int:
    """Run the sections and return 1 if one failed."""
    options = parse_options(argv)
    CACHE.mkdir(exist_ok=True)
    start = time.monotonic()
    # A folder of its own, so that two runs in one tree don't count each other's tests.
    with tempfile.TemporaryDirectory(prefix="gate-", dir=CACHE) as folder:
        outcomes = run_lanes(list_lanes(options, Path(folder)))
    sum_up(outcomes, time.monotonic() - start)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options of script/test."""
    parser = argparse.ArgumentParser(prog="script/test", description="Run what every change must pass.")
    parser.add_argument(
        *("--weekly", "--full"),
        dest="full",
        action="store_true",
        help="also what takes long and rarely breaks",
    )
    parser.add_argument(
        "--quick", action="store_true", help="only lint, types and the unit tests that wait for nothing"
    )
    return parser.parse_args(argv)


def list_lanes(options: argparse.Namespace, folder: Path) -> list[list[Section]]:
    """Return the checks: those of one lane run one after the other, beside those of other lanes."""
    checks = [*list_static_checks()]
    if options.quick:
        return [checks, *([part] for part in list_unit_tests(folder, is_quick=True))]
    tests = [list_covered_tests(folder)] if options.full else [[part] for part in list_unit_tests(folder)]
    properties = [[part] for part in list_properties(folder, is_full=options.full)]
    kernel = [[part] for part in list_kernel_tests(folder, is_full=options.full)]
    oldest = list_oldest_tests(folder, is_full=options.full)
    # Those that wait come first, and those that only compute end last, on both processors.
    return [*kernel, *tests, [oldest], *properties, checks]


def list_static_checks() -> Iterator[Section]:
    """Yield what looks at the source alone."""
    yield Section(title="ruff check", argv=(f"{DEBIAN}/ruff", "check", "--output-format", "concise"))
    yield Section(
        title="ruff format", argv=(f"{DEBIAN}/ruff", "format", "--check", "--output-format", "concise")
    )
    yield Section(title="mypy", argv=(f"{DEBIAN}/mypy",))
    yield Section(
        title="import contracts", argv=(f"{DEBIAN}/lint-imports", "--cache-dir", f"{CACHE}/import-linter")
    )


def list_unit_tests(folder: Path, *, is_quick: bool = False) -> Iterator[Section]:
    """Yield the tests on Debian's Python and packages that draw nothing by chance: those of each lane."""
    found = [path for path in (ROOT / "tests" / "unit").iterdir() if path.is_dir() or path.suffix == ".py"]
    found = [path for path in found if not (is_quick and path.name in WAITING)]
    paths = sorted([*(path for path in found if path.name[0] not in "_."), ROOT / "tests" / "golden"])
    for first, last in UNIT_PARTS:
        chosen = [str(path.relative_to(ROOT)) for path in paths if first <= path.name[0] <= last]
        argv = (f"{DEBIAN}/python", "-m", "pytest", *chosen)
        section = pytest_section(
            f"tests, {first} to {last}", argv, folder / f"unit-{first}.xml", is_full=False
        )
        yield replace(section, niceness=YIELDING)


def list_covered_tests(folder: Path) -> list[Section]:
    """Return the same tests as one, also those that take long, and the floor of coverage.

    What is sought by chance is not measured: that tells nothing of what is tested always.
    """
    coverage = (f"{DEBIAN}/python", "-m", "coverage")
    results = ("--data-file", f"{folder}/coverage")
    measured = (*coverage, "run", *results, "--branch", f"--source={COVERED}")
    always = (*measured, "-m", "pytest", "tests/unit", "tests/golden")
    tests = pytest_section("tests, Debian's packages", always, folder / "debian.xml", is_full=True)
    report = (*coverage, "report", *results, f"--fail-under={COVERAGE_FLOOR}")
    return [tests, Section(title="coverage", argv=report)]


def list_properties(folder: Path, *, is_full: bool) -> Iterator[Section]:
    """Yield what is sought by chance, on Debian's Python and packages: the tests of each lane."""
    for first, last in PROPERTY_PARTS:
        argv = (f"{DEBIAN}/python", "-m", "pytest", *tests_between(first, last, "tests/property"))
        title = f"properties, Debian's packages, {first} to {last}"
        section = pytest_section(title, argv, folder / f"property-{first}.xml", is_full=is_full)
        fewer = () if is_full else (("SGAGENT_EXAMPLES", EXAMPLES),)
        yield replace(section, environment=section.environment + fewer, niceness=YIELDING)


def tests_between(first: str, last: str, folder: str) -> list[str]:
    """Return the files of tests in a folder whose names begin with letters from the first to the last."""
    names = sorted(path.name for path in (ROOT / folder).glob("test_*.py"))
    return [f"{folder}/{name}" for name in names if first <= name.removeprefix("test_")[0] <= last]


def list_oldest_tests(folder: Path, *, is_full: bool) -> Section:
    """Return the tests on the oldest Python and PyPI's newest packages, where that Python is.

    Without --full they are those that this Python or a package of PyPI can change, with fewer examples.
    """
    title = "tests, Python 3.11, PyPI's packages"
    if not OLDEST.exists():
        return Section(title=title, skipped_because="no Python 3.11 here that can make an environment")
    chosen = () if is_full else ON_OLDEST
    argv = (f"{OLDEST}/python", "-m", "pytest", *chosen)
    changing = "" if is_full else "not one_python"
    section = pytest_section(title, argv, folder / "oldest.xml", is_full=is_full, chosen=changing)
    fewer = () if is_full else (("SGAGENT_EXAMPLES", EXAMPLES_ON_OLDEST),)
    return replace(section, environment=section.environment + fewer)


def list_kernel_tests(folder: Path, *, is_full: bool) -> Iterator[Section]:
    """Yield the tests on the kernel, where this user may make namespaces: those of each lane."""
    with_package = [f for f in tests_between("a", "z", "integration") if f not in WITHOUT_PACKAGE]
    parts = [
        (
            f"kernel-{first}",
            f"integration, on the kernel, {first} to {last}",
            "not machines",
            tests_between(first, last, "integration"),
        )
        for first, last in KERNEL_PARTS
    ]
    for name, title, chosen, tests in (
        ("package", "integration, machines with the package", "machines", with_package),
        ("systemd", "integration, Debian's kernel and systemd", "machines", WITHOUT_PACKAGE),
        *parts,
    ):
        if os.geteuid() == 0:
            argv = (f"{DEBIAN}/python", "-m", "pytest", *tests)
            yield pytest_section(title, argv, folder / f"{name}.xml", is_full=is_full, chosen=chosen)
        else:
            yield Section(title=title, skipped_because="network namespaces and nftables need root")


def pytest_section(
    title: str, argv: tuple[str, ...], report: Path, *, is_full: bool, chosen: str = ""
) -> Section:
    """Return a section that runs pytest and leaves a report behind.

    Args:
        title: of the section.
        argv: what runs pytest, with the tests.
        report: where the report is left.
        is_full: whether what takes long is run too.
        chosen: an expression of pytest's markers, where not all tests are meant.
    """
    markers = " and ".join(filter(None, ("" if is_full else "not long", chosen)))
    return Section(
        title=title,
        argv=(*argv, "--quiet", f"--junit-xml={report}", "-m", markers),
        report=report,
        environment=(("SGAGENT_PATIENCE", PATIENCE), *((("SGAGENT_FULL", "1"),) if is_full else ())),
    )


def run_lanes(lanes: Sequence[Sequence[Section]]) -> list[Outcome]:
    """Run lanes beside one another, each in its order; one begins when another has ended."""
    with ThreadPoolExecutor(LANES_AT_ONCE) as pool:
        return [outcome for lane in pool.map(lambda lane: [run(s) for s in lane], lanes) for outcome in lane]


PRINTING = threading.Lock()
"""Held while a section's output is printed, so that it stays in one piece."""


def run(section: Section) -> Outcome:
    """Run one section; show what it printed once it has ended."""
    if section.skipped_because:
        show(section, f"skipped: {section.skipped_because}\n".encode())
        return Outcome(section=section, is_good=True, seconds=0, count=Count())
    with PRINTING:
        print(f"running: {section.title}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryFile(dir=CACHE) as output:
        done = subprocess.run(
            ("nice", "-n", str(section.niceness), *section.argv),
            cwd=ROOT,
            env=environment_of(section),
            check=False,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        seconds = time.monotonic() - start
        output.seek(0)
        show(section, output.read())
    count = read_count(section.report) if section.report else Count()
    return Outcome(section=section, is_good=done.returncode == 0, seconds=seconds, count=count)


def show(section: Section, output: bytes) -> None:
    """Print what a section printed, under its title."""
    with PRINTING:
        print(f"\n── {section.title} " + "─" * max(0, 76 - len(section.title)), flush=True)
        sys.stdout.buffer.write(output)
        sys.stdout.flush()


def environment_of(section: Section) -> Mapping[str, str]:
    """Return the environment of a section's command, without what a caller's shell could change in it.

    Where CI or BUILD_NUMBER is set, pytest prints every line of a difference, be they thousands. Where no
    bytecode is written, each process compiles all that it imports.
    """
    left_out = ("CI", "BUILD_NUMBER", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "SGAGENT_")) and name not in left_out
    }
    return inherited | dict(section.environment)


def read_count(report: Path) -> Count:
    """Return what a report of JUnit's form counts; one failure where a run died before it wrote one."""
    if not report.exists():
        return Count(failed=1)
    total = Count()
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - pytest wrote it just now
        numbers = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
        failed = numbers["failures"] + numbers["errors"]
        passed = numbers["tests"] - failed - numbers["skipped"]
        total += Count(passed=passed, failed=failed, skipped=numbers["skipped"])
    return total


def sum_up(outcomes: Sequence[Outcome], seconds: float) -> None:
    """Print a line for each section, how long all took, and the sum of the tests last, alone on its line."""
    print("\n── summary " + "─" * 69)
    for outcome in outcomes:
        line = f"{outcome.word:8} {outcome.seconds:6.1f} s  {outcome.section.title:38} {detail_of(outcome)}"
        print(line.rstrip())
    print(f"{'':8} {seconds:6.1f} s  all of it\n")
    total = sum((outcome.count for outcome in outcomes), Count())
    # A check that is no test counts when it fails, so that this line alone never speaks well of a bad change.
    failed = total.failed + sum(not o.is_good and not o.count.failed for o in outcomes)
    print(f"{total.passed} passed, {failed} failed, {total.skipped} skipped", flush=True)


def detail_of(outcome: Outcome) -> str:
    """Return what the table says behind a section's title."""
    if outcome.section.skipped_because:
        return outcome.section.skipped_because
    if not outcome.section.report:
        return ""
    count = outcome.count
    return f"{count.passed} passed, {count.failed} failed, {count.skipped} skipped"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
