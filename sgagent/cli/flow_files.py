"""Files of flow logs, the agent's and the clouds', read by as many processes as there are processors."""

from __future__ import annotations

import gzip
import io
import os
import re
import signal
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import IO

from sgagent.core.errors import UsageError
from sgagent.core.model import Family, Snapshot
from sgagent.suggest.cloud_records import CloudRecordReader, is_cloud_record
from sgagent.suggest.conversations import Traffic
from sgagent.suggest.flow_lines import LONGEST_LINE, FlowLineReader

STANDARD_INPUT = "-"
EMPTY = "logs that are empty"
_READ_BYTES = 1 << 20
WORTH_A_PROCESS = 16 << 20
"""Bytes of all logs: some 30,000 lines, which take as long as to begin another process."""


@dataclass(frozen=True, slots=True)
class FlowFile:
    """A log to read."""

    name: str
    host: str
    """The name of its host."""

    owners: Mapping[str, set[tuple[Family, int]]]
    """The addresses of known network interfaces."""


def read_flows(names: Sequence[str], traffic: Traffic, definitions: Snapshot) -> None:
    """Read logs of hosts and of clouds.

    Raises:
        UsageError: one can't be read, or they have too many conversations to keep apart.
    """
    owners = {
        one.network_interface_id: {(block.family, block.first) for block in one.addresses}
        for one in definitions.network_interfaces
    }
    logs = [FlowFile(name, host, owners) for name, host in zip(names, hosts_of(names), strict=True)]
    workers = min(len(logs), _processors(), _size(logs) // WORTH_A_PROCESS + 1)
    if workers < 2:
        for log in logs:
            read_log(log, traffic)
        return
    quietly = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the interrupted command ends them
    with ProcessPoolExecutor(workers, mp_context=get_context("fork"), initializer=quietly) as pool:
        for found in pool.map(_read_apart, logs):
            traffic.merge(found)


def hosts_of(names: Sequence[str]) -> list[str]:
    """Return the name of each log's host: the file's name, with its folder where names are equal.

    A rotated log, ``web-1.log.2`` or ``web-1.log.2.gz``, is its host's.
    """
    paths = [Path(_ROTATED.sub("", name)) for name in names]
    places: dict[str, set[Path]] = {}
    for path in paths:
        places.setdefault(path.stem, set()).add(path)
    return [path.stem if len(places[path.stem]) == 1 else f"{path.parent.name}-{path.stem}" for path in paths]


_ROTATED = re.compile(r"(\.[0-9]{1,3})?(\.gz)?$")
_GZIP = b"\x1f\x8b"


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _size(logs: Sequence[FlowFile]) -> int:
    """Return how many bytes files hold; those that are none, as pipes, hold none."""
    return sum(path.stat().st_size for path in (Path(log.name) for log in logs) if path.is_file())


def _read_apart(log: FlowFile) -> Traffic:
    """Return the traffic of a log, in a process of its own."""
    traffic = Traffic()
    read_log(log, traffic)
    return traffic


def read_log(log: FlowFile, traffic: Traffic) -> None:
    """Read one log.

    Raises:
        UsageError: it can't be read, or has too many conversations to keep apart.
    """
    try:
        if log.name == STANDARD_INPUT:
            _read(sys.stdin.buffer, FlowFile("<stdin>", "stdin", log.owners), traffic)
            return
        with io.BufferedReader(io.FileIO(log.name), _READ_BYTES) as file:
            if file.peek(len(_GZIP)).startswith(_GZIP):
                with gzip.open(file) as unpacked:
                    _read(unpacked, log, traffic)
            else:
                _read(file, log, traffic)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{log.name}: the flow log can't be read: {reason}") from error


def _read(file: IO[bytes] | gzip.GzipFile, log: FlowFile, traffic: Traffic) -> None:
    lines = _lines(file)
    first = next(lines, b"")
    if not first:
        traffic.left_out[EMPTY] += 1
        return
    if is_cloud_record(first):
        records = CloudRecordReader(traffic, log.name, log.owners)
        records.read([first])
        records.read(lines, 2)
        records.settle()
        return
    reader = FlowLineReader(traffic, log.name, log.host)
    reader.read([first])
    reader.read(lines, 2)


def _lines(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """Yield lines; of one that is longer than LONGEST_LINE, the beginning, with an end."""
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            line = line[:LONGEST_LINE] + b"\n"
        yield line
