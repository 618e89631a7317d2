"""``sgagent flush``: remove the rules of sgagent from this host."""

from __future__ import annotations

import argparse
import json
from contextlib import closing

from sgagent.cli.main import add_option
from sgagent.dataplane.dataplane import LibnftablesDataplane
from sgagent.nft.transactions import DestroyTable, Plan
from sgagent.ports import Observed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_option(parser, "--json", "print the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Remove the table; while a daemon owns it the kernel refuses, and the daemon has to be stopped first."""
    with closing(LibnftablesDataplane(owned=False)) as dataplane:
        stands = dataplane.observe() != Observed(ruleset=None)
        if stands:
            dataplane.apply(Plan((DestroyTable(),)))
    if options.json:
        print(json.dumps({"removed": stands}))
    elif stands:
        print("removed table inet sgagent: nothing is enforced any more")
    else:
        print("nothing to remove: there is no table inet sgagent")
    return 0
