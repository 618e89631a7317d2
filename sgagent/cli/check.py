"""``sgagent check``: validate documents and configuration, and say all that is wrong with them at once."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import replace

from sgagent.cli.inputs import add_policy_arguments, fetch, load_settings, resolve_for_host
from sgagent.core.errors import DocumentError, Problem, Severity
from sgagent.core.resolve import Scope


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_policy_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")


def run(options: argparse.Namespace) -> int:
    """Print every problem of the whole (§8.3); the exit code says whether the documents would be refused."""
    settings = load_settings(options)
    try:
        delivery = fetch(settings, options.definitions)
        resolution = resolve_for_host(settings, delivery, options.interface, scope=Scope.EVERYTHING)
        problems = resolution.problems
    except DocumentError as error:
        problems = error.problems
    if options.strict or settings.enforcement.strict:
        problems = tuple(replace(problem, severity=Severity.ERROR) for problem in problems)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if options.json:
        print(json.dumps(_report(problems, errors), indent=2, ensure_ascii=False))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        print(_verdict(errors, len(problems) - errors))
    return 2 if errors else 0


def _verdict(errors: int, warnings: int) -> str:
    if not errors and not warnings:
        return "ok: nothing wrong"
    word = "refused" if errors else "ok"
    return f"{word}: {errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"


def _report(problems: Iterable[Problem], errors: int) -> dict[str, object]:
    return {
        "ok": not errors,
        "problems": [
            {
                "severity": problem.severity.value,
                "code": problem.code,
                "file": problem.origin.file,
                "line": problem.origin.line or None,
                "path": problem.origin.path,
                "message": problem.message,
                "value": problem.value,
                "remedy": problem.remedy,
            }
            for problem in problems
        ],
    }
