"""``sgagent confirm``: keep the definitions that are on trial."""

from __future__ import annotations

import argparse
import json
import sys

from sgagent.agent.control.protocol import encode_fields
from sgagent.agent.control.requests import ConfirmAnswer, ConfirmOrder
from sgagent.cli.agent_client import order
from sgagent.cli.inputs import load_settings
from sgagent.core.errors import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Confirm; the exit code says whether there was anything to."""
    answer = order(load_settings(options), ConfirmOrder(), ConfirmAnswer)
    if options.json:
        print(json.dumps(encode_fields(answer)))
    elif not answer.is_confirmed:
        print("sgagent: there is no trial to confirm: it was confirmed, or has ended", file=sys.stderr)
    else:
        print(printable(f"confirmed {answer.version}"))
        if answer.overtaken_by is not None:
            print(
                printable(f"the source has delivered {answer.overtaken_by} meanwhile, which is enforced now")
            )
    return 0 if answer.is_confirmed else 1
