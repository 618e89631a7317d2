"""Try sgagent on kernels and distributions: ``python -m integration.matrix [--write] [SUITE…]``, as root.

Each row boots the kernel of a Debian suite and runs sgagent in a root of that suite, as the package where it
installs, else as the bundle: ``integration/matrix_row.py``. ``--write`` puts what came of it into
``docs/platforms.md``. A row takes a quarter of an hour and more. Kernels come from ``script/setup --full``;
roots, packages and bundles are made.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.namespaces import run
from integration.package import ROOT, built
from integration.stockkernel import THIS_SUITE, Report, of_suite, run_tests, why_not
from sgagent import __version__

_ROOTS = ROOT / ".cache" / "roots"
_PAGE = ROOT / "docs" / "platforms.md"
_BEGIN, _END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
_ROW_SECONDS, _BUILD_SECONDS = 7200.0, 1800.0
_THIS = "trixie"
_INCLUDED = "systemd,iproute2,nftables"
_NEEDED_BY_PACKAGE = (
    "python3-cryptography,python3-dnspython,python3-h2,python3-jinja2,python3-nftables,python3-prometheus-client,"
    "python3-pydantic,python3-pyroute2,python3-structlog,python3-yaml"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A kernel with the distribution that it is of, and how sgagent is installed there."""

    suite: str
    distribution: str
    is_bundle: bool

    @property
    def kernel(self) -> Path:
        """Return where the kernel is unpacked."""
        return THIS_SUITE if self.suite == _THIS else of_suite(self.suite)

    @property
    def program(self) -> str:
        """Return the program that is run."""
        return "/opt/sgagent/bin/sgagent" if self.is_bundle else "/usr/bin/sgagent"


ROWS = (
    Row("bullseye", "Debian 11", is_bundle=True),
    Row("bookworm", "Debian 12", is_bundle=True),
    Row(_THIS, "Debian 13", is_bundle=False),
    Row("sid", "Debian unstable", is_bundle=False),
)


def why_no_row(row: Row) -> str:
    """Return why a row can't be tried here; empty if it can."""
    if reason := why_not(row.kernel):
        return reason
    return "" if shutil.which("mmdebstrap") else "mmdebstrap is not installed"


def try_row(row: Row, bundle: Path | None = None, changes: int = 100, policies: int = 40) -> Report:
    """Boot the row's kernel and return the result of its tests.

    Args:
        row: what to try.
        bundle: the archive of one of this tree; None builds it.
        changes: of the policy under a storm.
        policies: random ones, each with packets.
    """
    root = _root_with_program(row, bundle)
    environment = {
        "SGAGENT_MATRIX_ROOT": str(root),
        "SGAGENT_MATRIX_PROGRAM": row.program,
        "SGAGENT_MATRIX_CHANGES": str(changes),
        "SGAGENT_MATRIX_POLICIES": str(policies),
    }
    return run_tests(
        ["integration/matrix_row.py"], seconds=_ROW_SECONDS, kernel=row.kernel, environment=environment
    )


def _root_with_program(row: Row, bundle: Path | None) -> Path:
    """Return the root of a suite with sgagent of this tree."""
    root = _ROOTS / row.suite
    if not root.exists():
        _ROOTS.mkdir(parents=True, exist_ok=True)
        draft = root.with_name(f"{row.suite}.new")
        shutil.rmtree(draft, ignore_errors=True)
        included = _INCLUDED if row.is_bundle else f"{_INCLUDED},{_NEEDED_BY_PACKAGE}"
        command = (
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={included}",
            '--aptopt=Acquire::Check-Valid-Until "false"',
            row.suite,
            str(draft),
        )
        run(*command, _archive(), seconds=_BUILD_SECONDS)
        draft.rename(root)
    if row.is_bundle:
        shutil.rmtree(root / "opt/sgagent", ignore_errors=True)
        run("tar", "--extract", "--file", str(bundle or _bundle()), "--directory", str(root))
    else:
        shutil.copy(built(), root / "sgagent.deb")
        run("chroot", str(root), "dpkg", "--install", "/sgagent.deb", seconds=_BUILD_SECONDS)
    return root


def _archive() -> str:
    """Return the archive that this machine's apt uses."""
    told = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    return next(line for line in told.splitlines() if line.endswith("/debian/"))


def _bundle() -> Path:
    script = str(ROOT / "script" / "bundle")
    return ROOT / run(script, "--version", __version__, seconds=_BUILD_SECONDS).strip()


def failures(report: Report) -> dict[str, str]:
    """Return the failures, by the test."""
    return {case.name: case.failure or case.skipped for case in report.cases if case.failure or case.skipped}


def written(row: Row, report: Report) -> str:
    """Return the line of the table."""
    properties = {name: value for case in report.cases for name, value in case.properties.items()}
    platform = json.loads(properties.get("platform", "{}"))
    missing = [sentence.partition(" (")[0].partition(":")[0] for sentence in platform.get("missing", ())]
    passed = sum(not (case.failure or case.skipped) for case in report.cases)
    came_of = "; ".join(
        (
            f"{passed} of {len(report.cases)} parts",
            *(properties.get(name, "") for name in ("storm", "policies")),
        )
    )
    how = "bundle" if row.is_bundle else "package"
    cells = (report.release, row.distribution, how, ", ".join(missing) or "nothing", came_of)
    return f"| {' | '.join(cells)} |"


def write(row: Row, line: str) -> None:
    """Put a line into the page in place of the one of the same distribution."""
    before, _, rest = _PAGE.read_text().partition(_BEGIN)
    table, _, after = rest.partition(_END)
    lines = [one for one in table.strip().splitlines() if f"| {row.distribution} |" not in one]
    order = [one.distribution for one in ROWS]
    body = sorted([*lines[2:], line], key=lambda one: order.index(one.split(" | ")[1]))
    _PAGE.write_text("\n".join((f"{before}{_BEGIN}\n", *lines[:2], *body, f"\n{_END}")) + after)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the rows, and return 1 if something failed."""
    parser = argparse.ArgumentParser(prog="integration.matrix", description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", choices=[*(row.suite for row in ROWS), []])
    parser.add_argument("--write", action="store_true", help=f"put the result into {_PAGE.name}")
    parser.add_argument(
        "--bundle", type=Path, metavar="FILE", help="the bundle of this tree, if it is built already"
    )
    parser.add_argument("--changes", type=int, default=100, help="of the policy, under a storm")
    parser.add_argument("--policies", type=int, default=40, help="random ones")
    options = parser.parse_args(arguments)
    status = 0
    for row in ROWS:
        if options.suites and row.suite not in options.suites:
            continue
        if reason := why_no_row(row):
            print(f"{row.distribution}: left out: {reason}", file=sys.stderr)
            continue
        report = try_row(row, options.bundle, options.changes, options.policies)
        line, failed = written(row, report), failures(report)
        print(line, *(f"{name}: {reason}" for name, reason in failed.items()), sep="\n", flush=True)
        status = 1 if failed else status
        if options.write and not failed:
            write(row, line)
    return status


if __name__ == "__main__":
    sys.exit(main())
