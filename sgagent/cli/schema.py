"""``sgagent schema``: print the JSON Schema of native documents."""

from __future__ import annotations

import argparse
import json

from sgagent.cli.main import add_option
from sgagent.documents.native import json_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_option(parser, "--json", "for consistency: the output is always JSON")


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    del options
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0
