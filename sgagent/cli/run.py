"""``sgagent run``: the daemon.

It runs in two stages. The first stage has the privilege, reads no input, and forks the applier. Then it
executes itself as the second stage, which has no privilege and reads documents. The first stage imports
nothing that only the second needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import cast

from sgagent.dataplane.privsep import applier_of_first_life, fork_applier, go_on_without_privilege

_ABSENT = cast("ModuleType", None)
"""What the import system takes for a module that is not there. structlog loads rich where it is installed,
for tracebacks that are never asked for here, and that takes four megabytes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Run until a signal ends it."""
    applier = applier_of_first_life(os.environ)
    if applier is None:
        go_on_without_privilege(fork_applier(owned=True))
    sys.modules.setdefault("rich", _ABSENT)
    with applier:
        code: int = import_module("sgagent.cli.daemon_assembly").run_daemon(options, applier)
    return code
