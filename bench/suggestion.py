"""``python -m bench.suggestion``: time and memory of ``sgagent suggest`` for the flow logs of many hosts.

All hosts have the same log under names of their own, so that the disk holds one.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_CONVERSATIONS = 10_000
"""Of a host: pairs of ends and port."""

_LINE = (
    '{{"time": "2026-01-31T{:02}:{:02}:{:02}.{:06}Z", "number": {}, "interface": "eth0", "direction": "{}",'
    ' "verdict": "accept", "mode": "observe", "decided_by": "default", "rule_id": null,'
    ' "security_group_id": null, "priority": null, "local": null, "family": "ipv4", "protocol": "tcp",'
    ' "source": {{"address": "{}", "port": {}, "network_interface_id": null, "security_group_ids": []}},'
    ' "destination": {{"address":'
    ' "{}", "port": {}, "network_interface_id": null, "security_group_ids": []}}, "icmp_type": null,'
    ' "is_reply": false, "user": null, "bytes": 60}}\n'
)
_HOST = "10.0.0.11"


def main() -> int:
    """Print one line."""
    parser = argparse.ArgumentParser(prog="python -m bench.suggestion", description=__doc__)
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=1_000_000, help="of each host")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("w", encoding="ascii") as file:
            file.writelines(_lines(options.sessions))
        names = [Path(folder, f"host-{number}.log") for number in range(options.hosts)]
        for name in names:
            name.symlink_to(log)
        seconds, processor, mebibytes = _measure(folder, names)
    print(
        f"{options.hosts} hosts × {options.sessions:,} sessions: {seconds:.1f} s, {processor:.1f} s of"
        f" {os.cpu_count()} processors (load {os.getloadavg()[0]:.1f}), at most {mebibytes:.0f} MB a process"
    )
    return 0


def _lines(sessions: int) -> Iterator[str]:
    """Yield sessions of a web server: customers, a database, administrators."""
    rng = random.Random(1)
    kinds = [_conversation(rng) for _ in range(_CONVERSATIONS)]
    for number in range(sessions):
        direction, source, destination, port = rng.choice(kinds)
        second = number * 36_000 // sessions
        when = (8 + second // 3600, second // 60 % 60, second % 60, number % 1_000_000)
        client = rng.randrange(32_768, 61_000)
        yield _LINE.format(*when, number, direction, source, client, destination, port)


def _conversation(rng: random.Random) -> tuple[str, str, str, int]:
    far = f"10.{rng.randrange(64, 96)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
    match rng.randrange(10):
        case 0:
            return "ingress", f"10.0.9.{rng.randrange(1, 6)}", _HOST, 22
        case 1 | 2 | 3:
            return "egress", _HOST, f"10.0.1.{rng.randrange(1, 9)}", 5432
        case _:
            return "ingress", far, _HOST, rng.choice((80, 443))


def _measure(folder: str, names: list[Path]) -> tuple[float, float, float]:
    """Return seconds, seconds of the processors, and the most memory of one process."""
    configuration = Path(folder, "sgagent.toml")
    configuration.touch()
    output = str(Path(folder, "suggested.yaml"))
    command = (sys.executable, "-m", "sgagent", "suggest", "--config", str(configuration), "--output", output)
    begin = time.monotonic()
    pid = os.posix_spawn(sys.executable, [*command, "--flows", *map(str, names)], os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"sgagent suggest failed: {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
