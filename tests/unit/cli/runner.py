"""Run commands in this process, as a shell does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sgagent.cli.main import main

Run = Callable[..., tuple[int, str, str]]
"""Runs a command, and returns its exit code, output and errors."""


def runner(capsys: pytest.CaptureFixture[str], *first: object) -> Run:
    """Return what runs commands that begin with these words."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, first), *map(str, arguments)])
        output, errors = capsys.readouterr()
        return code, output, errors

    return run
