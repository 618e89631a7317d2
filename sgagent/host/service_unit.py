"""Where the service may write flows: by its unit, and by its drop-ins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

UNIT_FOLDERS = tuple(f"{top}/systemd/system" for top in ("etc", "run", "usr/local/lib", "usr/lib", "lib"))
"""From the root on, the one that comes first counts."""

LOGS_DIRECTORY = Path("/var/log/sgagent")
"""``LogsDirectory=`` of the unit."""


def added_paths(root: Path = Path("/")) -> Iterator[Path]:
    """Yield the paths that drop-ins of the service add (``ReadWritePaths=``), as far as they can be read."""
    for folder in UNIT_FOLDERS:
        for file in sorted((root / folder / "sgagent.service.d").glob("*.conf")):
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                continue
            for line in lines:
                key, _, value = line.partition("=")
                if key.strip() == "ReadWritePaths":
                    yield from (Path(one.lstrip("-+")) for one in value.split())
