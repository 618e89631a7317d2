"""``sgagent rollback``: have the running agent go back to the definitions that were enforced before."""

from __future__ import annotations

import argparse

from sgagent.agent.control.requests import EnforcedAnswer, RollbackOrder
from sgagent.cli.agent_client import order, print_enforced
from sgagent.cli.inputs import load_settings, whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "number",
        metavar="N",
        type=whole_number,
        nargs="?",
        help="a number of 'sgagent history' (default: the newest that is not active)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Go back, and say what is in force then."""
    answer = order(load_settings(options), RollbackOrder(number=options.number), EnforcedAnswer)
    print_enforced(answer, as_json=options.json)
    return 0
