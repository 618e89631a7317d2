"""``python3 -m release FOLDER``: write man pages, completions and an example configuration."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from release.commandline import describe_program
from release.completions import bash_completion, fish_completion, zsh_completion
from release.example import example_configuration
from release.manual import manual_pages


def main(arguments: Sequence[str]) -> int:
    """Write the files, each in the folder of its kind."""
    parser = argparse.ArgumentParser(prog="python3 -m release", description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    for name, text in release_files():
        path: Path = options.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def release_files() -> Iterator[tuple[str, str]]:
    """Yield the name and the content of each file."""
    program = describe_program()
    for name, text in manual_pages(program, release_date()):
        yield f"man/{name}", text
    yield "bash/sgagent", bash_completion(program)
    yield "zsh/_sgagent", zsh_completion(program)
    yield "fish/sgagent.fish", fish_completion(program)
    yield "sgagent.toml", example_configuration()


def release_date() -> str:
    """Return the day that the pages bear: that of ``SOURCE_DATE_EPOCH``, else today."""
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
