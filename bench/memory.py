"""Return the memory of processes together: shared pages count once, as on a host where nothing else runs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_KIBIBYTES_PER_MEBIBYTE = 1024
_AREA = re.compile(r"[0-9a-f]+-[0-9a-f]+ (?:\S+ +){4}(.*)")
"""The first line of what the kernel tells of an area of memory; the file that it shows is last."""


def mebibytes_together(processes: Iterable[int]) -> float:
    """Return the memory of processes.

    Pages of files, which are programs and libraries, count once for all of them: as many of a file as the
    process has that has most of it. Pages of their own that a fork shares count once, by the kernel's shares.
    """
    own, of_files = 0, defaultdict[str, int](int)
    for process in processes:
        resident, anonymous = _read(process)
        own += _own_share(process)
        for file, kibibytes in resident.items():
            of_files[file] = max(of_files[file], kibibytes - anonymous[file])
    return (own + sum(of_files.values())) / _KIBIBYTES_PER_MEBIBYTE


def _own_share(process: int) -> int:
    """Return the kibibytes of a process that are of no file; of shared ones, its share."""
    text = Path("/proc", str(process), "smaps_rollup").read_text(encoding="utf-8")
    found = re.search(r"^Pss_Anon: +(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"the kernel does not tell the share of process {process}")
    return int(found[1])


def _read(process: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the kibibytes of each file that are in memory, and those of them that are the process's own."""
    resident, anonymous = defaultdict[str, int](int), defaultdict[str, int](int)
    file = ""
    for line in Path("/proc", str(process), "smaps").read_text(encoding="utf-8").splitlines():
        if area := _AREA.fullmatch(line):
            file = area.group(1)
        elif line.startswith("Rss:"):
            resident[file] += int(line.split()[1])
        elif line.startswith("Anonymous:"):
            anonymous[file] += int(line.split()[1])
    return resident, anonymous
