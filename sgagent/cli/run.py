"""``sgagent run``: the daemon."""

from __future__ import annotations

import argparse
from importlib import import_module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Run until a signal ends it."""
    code: int = import_module("sgagent.cli.assembly").run_daemon(options)
    return code
