"""What a start does not import: a dataclass takes half a millisecond, and some libraries tens of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = "import sys; import {modules}; print(*(name for name in sys.modules))"


def imported_by(*modules: str) -> set[str]:
    """Return the names of all modules that a new interpreter has after importing some."""
    program = _PROGRAM.format(modules=", ".join(modules))
    argv = [sys.executable, "-c", program]
    found = subprocess.run(argv, check=True, capture_output=True, text=True)  # noqa: S603 - this interpreter
    return set(found.stdout.split())


def test_the_daemon_starts_without_what_only_looks_and_proves() -> None:
    """The doctor's thread, pages, and the process that proves import it when they need it."""
    found = imported_by("sgagent.cli.run", "sgagent.cli.daemon_assembly")
    assert {name for name in found if name.startswith("sgagent.verify")} == {"sgagent.verify"}
    analyses = {name for name in found if name.startswith("sgagent.analysis.")}
    assert analyses == {
        "sgagent.analysis.doctor",
        "sgagent.analysis.doctor.findings",
        "sgagent.analysis.doctor.policy_fact",
        "sgagent.analysis.lint",
        "sgagent.analysis.lint.findings",
    }
    assert not {"jinja2", "pydantic", "dns", "sgagent.agent.web.routes"} & found


@pytest.mark.parametrize(
    ("module", "absent"),
    (
        ("sgagent.agent.proof_program", ("settings", "documents", "compiler", "ports")),
        ("sgagent.sources.files.isolated_reader", ("core.model", "settings", "documents", "ports")),
        ("sgagent.dataplane.privsep", ("settings", "documents", "ports")),
    ),
)
def test_the_other_processes_import_what_they_need(module: str, absent: tuple[str, ...]) -> None:
    """None of them reads a configuration, logs or serves; what reads documents does not parse them."""
    assert not {"structlog", *(f"sgagent.{name}" for name in absent)} & imported_by(module)


def test_the_status_is_asked_for_without_what_commands_about_documents_need() -> None:
    """It reads the configuration, asks and prints."""
    found = imported_by("sgagent.cli.status")
    absent = ("sgagent.cli.inputs", "sgagent.dataplane", "sgagent.host", "sgagent.compiler", "structlog")
    assert not set(absent) & found


def test_documents_are_checked_without_a_logger() -> None:
    """Commands print; what logs is imported once something is to be logged."""
    assert not {"structlog", "asyncio", "pydantic", "sgagent.analysis.compare"} & imported_by(
        "sgagent.cli.check"
    )
