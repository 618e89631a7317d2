"""``python3 -m release.changelog FILE VERSION DATE``: make what is unreleased the section of a version."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

UNRELEASED = "## [Unreleased]"


class NothingUnreleasedError(ValueError):
    """The changelog has no text under its heading ``[Unreleased]``."""


def released(text: str, version: str, date: str) -> str:
    """Return a changelog whose unreleased section belongs to a version, below an empty one.

    Raises:
        NothingUnreleasedError: there is nothing to release.
    """
    before, heading, after = text.partition(f"\n{UNRELEASED}\n")
    changes = after.partition("\n## [")[0]
    if not heading or not changes.strip():
        raise NothingUnreleasedError
    return f"{before}\n{UNRELEASED}\n\n## [{version}] - {date}\n{after}"


def main(arguments: Sequence[str]) -> int:
    """Rewrite the file, or only look whether there is anything to release."""
    parser = argparse.ArgumentParser(prog="python3 -m release.changelog", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("file", type=Path)
    parser.add_argument("version", nargs="?", default="0")
    parser.add_argument("date", nargs="?", default="")
    options = parser.parse_args(arguments)
    file: Path = options.file
    try:
        text = released(file.read_text(encoding="utf-8"), options.version, options.date)
    except NothingUnreleasedError:
        print(f"{file}: nothing stands under {UNRELEASED}", file=sys.stderr)  # noqa: T201 - a program
        return 1
    if not options.check:
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
