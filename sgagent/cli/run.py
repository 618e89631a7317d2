"""``sgagent run``: the daemon.

It has two lives. In the first it holds what privilege it was given, reads nothing, and forks the applier; in
the second it holds none, and reads documents. So nothing that the second needs is loaded in the first.
"""

from __future__ import annotations

import argparse
import os
from importlib import import_module

from sgagent.dataplane.boundary import applier_of_first_life, fork_applier, go_on_without_privilege


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Run until a signal ends it."""
    applier = applier_of_first_life(os.environ)
    if applier is None:
        go_on_without_privilege(fork_applier(owned=True))
    with applier:
        code: int = import_module("sgagent.cli.assembly").run_daemon(options, applier)
    return code
