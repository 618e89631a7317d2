"""``sgagent reload``: have the running agent read its source now, and print the result."""

from __future__ import annotations

import argparse

from sgagent.agent.control.requests import EnforcedAnswer, ReloadOrder
from sgagent.cli.agent_client import order, print_enforced
from sgagent.cli.inputs import load_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Reload, and say what is in force then; what the source says is in force, or this raises why not."""
    answer = order(load_settings(options), ReloadOrder(), EnforcedAnswer)
    print_enforced(answer, as_json=options.json)
    return 0
