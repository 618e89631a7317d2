"""Compare the bundle with the package: ``python -m bench.bundle PACKAGE BUNDLE``, as root.

Both run in turns on the same policy: the seconds of a command and until the daemon is ready,
and the daemon's memory, of both of its processes.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from integration.namespaces import network_namespace, run
from integration.service import Service, definitions, service_on

_TURNS = 7
_PACKAGE = """#!/bin/sh
shift 2
PYTHONPATH={root}/usr/lib/python3/dist-packages exec /usr/bin/python3 -m sgagent "$@"
"""
_BUNDLE = """#!/bin/sh
shift 2
unset PYTHONPATH
exec {root}/opt/sgagent/bin/sgagent "$@"
"""


@dataclass(slots=True)
class Costs:
    """The costs of one of both, a value for each turn."""

    check_seconds: list[float] = field(default_factory=list)
    ready_seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    """Resident set size of both processes: what is shared with other programs here counts, too."""

    def medians(self) -> tuple[float, float, float]:
        """Return the medians."""
        values = (self.check_seconds, self.ready_seconds, self.megabytes)
        check, ready, megabytes = map(statistics.median, values)
        return check, ready, megabytes


def measure(interpreters: Sequence[str], turns: int) -> list[Costs]:
    """Return the costs of each, measured in turns."""
    found = [Costs() for _ in interpreters]
    for _ in range(turns):
        for interpreter, costs in zip(interpreters, found, strict=True):
            _turn(interpreter, costs)
    return found


def _turn(interpreter: str, costs: Costs) -> None:
    with (
        network_namespace() as host,
        tempfile.TemporaryDirectory() as folder,
        service_on(host, Path(folder), interpreter) as agent,
    ):
        agent.define(definitions("ingress accept 1 tcp 80 from 0.0.0.0/0", mac_address=""))
        began = time.perf_counter()
        agent.command("check", str(agent.documents))
        costs.check_seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        agent.start()
        costs.ready_seconds.append(time.perf_counter() - began)
        costs.megabytes.append(_memory(agent))
        agent.stop()


def _memory(agent: Service) -> float:
    kilobytes = 0
    for process in (agent.pid, agent.applier_pid):
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        kilobytes += int(re.findall(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE)[0])
    return kilobytes / 1000


def _interpreter(folder: Path, text: str) -> str:
    """Write the stand-in for Python that runs the program below a folder."""
    made = folder / "python"
    made.write_text(text.format(root=folder))
    made.chmod(0o755)
    return str(made)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="bench.bundle", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("package", type=Path, metavar="PACKAGE")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--turns", type=int, default=_TURNS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        run("dpkg-deb", "--extract", str(options.package), one)
        run("tar", "--extract", "--file", str(options.bundle), "--directory", other)
        subprocess.run(("/usr/bin/python3", "-m", "compileall", "-q", one), check=True)
        interpreters = [_interpreter(Path(one), _PACKAGE), _interpreter(Path(other), _BUNDLE)]
        package, bundle = (costs.medians() for costs in measure(interpreters, options.turns))
    print(f"medians of {options.turns}\n\n| | package | bundle | |\n|---|---|---|---|")
    for name, a, b in zip(
        ("`check`, s", "daemon ready, s", "daemon's memory, MB"), package, bundle, strict=True
    ):
        print(f"| {name} | {a:.2f} | {b:.2f} | {(b / a - 1) * 100:+.0f} % |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
