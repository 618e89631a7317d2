"""Hold script/gate.py to its word, since a gate that miscounts lets anything through."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GATE = ROOT / "script" / "gate.py"

REPORT = """<?xml version="1.0"?>
<testsuites name="all">
  <testsuite name="one" tests="10" failures="2" errors="1" skipped="3"/>
  <testsuite name="two" tests="5" failures="0" errors="0" skipped="0"/>
</testsuites>
"""


def in_gate(tmp_path: Path, code: str) -> str:
    """Return what code prints that runs with everything in the gate at hand and its reports in a folder."""
    program = f"import sys; sys.path.insert(0, {str(GATE.parent)!r}); from gate import *; {code}"
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_a_report_is_counted_over_all_its_suites(tmp_path: Path) -> None:
    """Failures and errors both count as failed, and skipped tests have not passed."""
    (tmp_path / "report.xml").write_text(REPORT, encoding="utf-8")
    assert (
        in_gate(tmp_path, "print(read_count(Path('report.xml')))") == "Count(passed=9, failed=3, skipped=3)\n"
    )


def test_a_run_that_left_no_report_counts_as_a_failure(tmp_path: Path) -> None:
    """A test run that died before it wrote its report has failed."""
    assert (
        in_gate(tmp_path, "print(read_count(Path('absent.xml')))") == "Count(passed=0, failed=1, skipped=0)\n"
    )


@pytest.mark.parametrize(
    ("is_good", "line"),
    (("True", "4 passed, 0 failed, 1 skipped"), ("False", "4 passed, 1 failed, 1 skipped")),
)
def test_the_last_line_counts_a_failed_check_that_is_no_test(tmp_path: Path, is_good: str, line: str) -> None:
    """A lint finding shows in the last line although no test failed."""
    code = f"""
lint = Outcome(section=Section(title='lint'), is_good={is_good}, seconds=1, count=Count())
tests = Outcome(section=Section(title='tests'), is_good=True, seconds=1, count=Count(passed=4, skipped=1))
sum_up([lint, tests], 2.0)"""
    assert in_gate(tmp_path, code).splitlines()[-1] == line


def test_a_callers_environment_does_not_reach_the_checks(tmp_path: Path) -> None:
    """Options that a shell holds for pytest change nothing, and a section's own are set."""
    code = """
os.environ |= {'PYTEST_ADDOPTS': '-x', 'SGAGENT_FULL': '1', 'CI': '1', 'KEPT': 'yes'}
seen = environment_of(Section(title='tests', environment=(('ADDED', 'too'),)))
print('PYTEST_ADDOPTS' in seen, 'SGAGENT_FULL' in seen, 'CI' in seen, seen['KEPT'], seen['ADDED'])"""
    assert in_gate(tmp_path, code) == "False False False yes too\n"


def test_lanes_run_beside_one_another(tmp_path: Path) -> None:
    """Sections of two lanes meet while both run; each one's output stays in one piece, under its title."""
    pipe = tmp_path / "pipe"
    code = f"""
import os
CACHE.mkdir(exist_ok=True)
os.mkfifo({str(pipe)!r})
writes = Section(title='writes', argv=('sh', '-c', 'echo one; echo met > {pipe}; echo two'))
reads = Section(title='reads', argv=('cat', {str(pipe)!r}))
after = Section(title='after', argv=('false',))
outcomes = run_lanes([[writes, after], [reads]])
print([(outcome.section.title, outcome.word) for outcome in outcomes])"""
    printed = in_gate(tmp_path, code)
    assert "one\ntwo\n" in printed
    assert "── reads ─" in printed
    assert printed.splitlines()[-1] == "[('writes', 'ok'), ('after', 'FAILED'), ('reads', 'ok')]"


def test_each_unit_test_is_in_one_lane(tmp_path: Path) -> None:
    """The lanes of a change run all unit and golden tests, none of them twice."""
    code = "print(*(w for part in list_unit_tests(Path()) for w in part.argv if w.startswith('tests/')))"
    folder = ROOT / "tests" / "unit"
    names = [path.name for path in folder.iterdir() if path.is_dir() or path.name.startswith("test_")]
    expected = {"tests/golden", *(f"tests/unit/{name}" for name in names if name[0] not in "_.")}
    assert sorted(in_gate(tmp_path, code).split()) == sorted(expected)


def test_each_library_is_met_on_the_oldest_python(tmp_path: Path) -> None:
    """A package whose tests run there imports it; structlog is set up by every command, and state is JSON."""
    chosen = in_gate(tmp_path, "print(*USING_LIBRARIES)").split()
    met = set().union(*(libraries_of(ROOT / "sgagent" / name) for name in chosen))
    assert "sgagent.json_model.from_json" in imported(ROOT / "sgagent/agent/state/directory.py")
    met |= libraries_of(ROOT / "sgagent", "json_model.py")
    assert met >= {"prometheus_client", "pydantic", "pyroute2", "yaml"}


def libraries_of(folder: Path, files: str = "*.py") -> set[str]:
    """Return the names of what the files of a package import of others, but for the standard library."""
    roots = {module.partition(".")[0] for file in folder.rglob(files) for module in imported(file)}
    return roots - set(sys.stdlib_module_names) - {"sgagent"}


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("folder", "times"), (("integration", 2), ("tests/property", 1)))
def test_each_file_is_in_one_lane_of_a_kind(tmp_path: Path, folder: str, times: int) -> None:
    """A file whose name begins with a digit would run in none; files on the kernel may boot machines too."""
    program = """
folder = Path('reports')
sections = [*list_kernel_tests(folder, is_full=False), *list_properties(folder, is_full=False)]
print(*(word for section in sections for word in section.argv if word.endswith('.py')))"""
    run = in_gate(tmp_path, f"import os; os.geteuid = lambda: 0; {program}").split()
    files = [f"{folder}/{path.name}" for path in (ROOT / folder).glob("test_*.py")]
    assert sorted(name for name in run if name.startswith(f"{folder}/")) == sorted(files * times)


def test_a_section_may_yield_to_others(tmp_path: Path) -> None:
    """Its processes are as nice as it says."""
    code = """
CACHE.mkdir(exist_ok=True)
for niceness in (0, 7):
    run(Section(title='nice', argv=('nice',), niceness=niceness))"""
    own = os.nice(0)
    assert [line for line in in_gate(tmp_path, code).splitlines() if line.isdigit()] == [
        str(own),
        str(min(19, own + 7)),
    ]
