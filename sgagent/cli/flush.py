"""``sgagent flush``: remove every rule of sgagent from this host, the deliberate way out."""

from __future__ import annotations

import argparse

from sgagent.core.plan import DestroyTable, Plan
from sgagent.dataplane.nftables import LibnftablesDataplane


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Remove the table; while a daemon owns it the kernel refuses, and the daemon has to be stopped first."""
    del options
    dataplane = LibnftablesDataplane(owned=False)
    try:
        if dataplane.observe().ruleset is None:
            print("nothing to remove: there is no table inet sgagent")
            return 0
        dataplane.apply(Plan((DestroyTable(),)))
    finally:
        dataplane.close()
    print("removed table inet sgagent: nothing is enforced any more")
    return 0
