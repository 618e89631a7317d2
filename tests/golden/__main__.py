"""Show how the kept texts differ from what is compiled now; with ``--write``, keep the new ones."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from tests.golden.tables import KEPT, all_texts


def main() -> int:
    """Print every difference; return 1 if there is one and it is not to be kept."""
    parser = argparse.ArgumentParser(prog="script/golden", description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep what is compiled now")
    must_write = parser.parse_args().write
    wanted = dict(all_texts())
    stale = sorted(set(KEPT.glob("*.nft")) - set(wanted))
    changed = {path: text for path, text in wanted.items() if kept_text(path) != text}
    for path, text in sorted(changed.items()):
        sys.stdout.writelines(difference(path, text))
    for path in stale:
        sys.stdout.write(f"{path.name} belongs to no example\n")
    if must_write:
        for path, text in changed.items():
            path.write_text(text, encoding="utf-8")
        for path in stale:
            path.unlink()
    return 1 if (changed or stale) and not must_write else 0


def kept_text(path: Path) -> str:
    """Return what is kept, nothing if it is not there."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def difference(path: Path, text: str) -> list[str]:
    """Return the lines of a unified diff."""
    before, after = kept_text(path).splitlines(keepends=True), text.splitlines(keepends=True)
    return list(difflib.unified_diff(before, after, f"kept/{path.name}", f"compiled/{path.name}"))


if __name__ == "__main__":
    sys.exit(main())
