"""``python -m bench.peers``: measure the alternatives of users, and write the page and the picture."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from bench.durations import ROOT
from bench.machine import look_at_machine
from bench.packetcost import Effort
from bench.peers.contenders import CONTENDERS
from bench.peers.figures import Figures, PeerResults, read_figures
from bench.peers.measuring import Bout, measure_packets
from bench.peers.packages import PACKAGES, PeersError, check_packages, fetch_packages, version_of
from bench.peers.picture import draw
from bench.peers.report import peer_lines
from bench.peers.watch import choose_probes
from bench.policies import BenchPolicy, invent
from bench.results import PacketCost, write_results
from bench.section import begin, measured_at
from bench.sizes import SIZES
from integration.parts import with_parts

RESULTS = ROOT / "bench" / "results" / "peers.json"
PAGE = ROOT / "bench" / "peers.md"
PART = "peers"
PICTURE = ROOT / "docs" / "peers.svg"

_PURPOSE = "Measure what users would pick instead, with the same policies and packets."
_COLLECTOR = (100_000, 20, 100)
"""As sgagent's own commands set it."""

_REPEATS = 5
_QUICK_REPEATS = 2
_QUICK_LARGEST = 2
_EFFORT = Effort(rounds=15, seconds=0.04, frames=16_384)
_QUICK_EFFORT = Effort(rounds=5, seconds=0.02, frames=4_096)


def main(argv: Sequence[str]) -> int:
    """Measure, or write the page again from the numbers of the last run."""
    options = _options(argv)
    try:
        if options.fetch:
            fetch_packages()
        results = read_figures(RESULTS) if options.report_only else _measured(options)
    except PeersError as error:
        print(error, file=sys.stderr)
        return 2
    lines = list(peer_lines(results))
    print("\n".join(lines))
    if not (results.is_quick or options.only or options.largest < len(SIZES) - 1):
        write_results(results, RESULTS)
        PICTURE.write_text(draw(results), encoding="utf-8")
        parts = {PART: f"{measured_at()}\n\n" + "\n".join(lines) + "\n"}
        PAGE.write_text(with_parts(PAGE.read_text(encoding="utf-8"), parts), encoding="utf-8")
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=_PURPOSE)
    parser.add_argument(
        "--fetch",
        action="store_true",
        help=f"fetch Debian's packages of {', '.join(PACKAGES)} first and unpack them into .cache/peers; "
        "they are not installed",
    )
    parser.add_argument("--quick", action="store_true", help="two sizes and few rounds; prints only")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help=f"measure only those with this in their names, of {'; '.join(CONTENDERS)}: prints only",
    )
    parser.add_argument(
        "--largest",
        type=int,
        choices=range(1, len(SIZES)),
        default=len(SIZES) - 1,
        help="leave out the sizes above this one, from 1: 100 rules; prints only",
    )
    parser.add_argument(
        "--report-only", action="store_true", help="write the page from the last run's numbers"
    )
    return parser.parse_args(argv)


def _measured(options: argparse.Namespace) -> PeerResults:
    """Measure, and see to it that this machine's own ruleset stays as it is.

    Raises:
        PeersError: it can't be measured here.
        RuntimeError: this machine's own ruleset changed meanwhile.
    """
    names = [name for name in CONTENDERS if not options.only or any(part in name for part in options.only)]
    if not names:
        raise PeersError(f"nobody is called so; there are {'; '.join(CONTENDERS)}")
    if any(CONTENDERS[name].has_packages for name in names):
        check_packages()
    begin()
    gc.set_threshold(*_COLLECTOR)
    before = _own_ruleset()
    results = PeerResults(
        machine=look_at_machine(),
        versions={package: version_of(package) for package in PACKAGES},
        is_quick=options.quick,
    )
    for size in SIZES[1 : 1 + min(options.largest, _QUICK_LARGEST if options.quick else len(SIZES))]:
        figures, packets = _measure_size(invent(size), names, is_quick=options.quick)
        results = dataclasses.replace(
            results, figures=(*results.figures, *figures), packets=(*results.packets, *packets)
        )
    if _own_ruleset() != before:
        raise RuntimeError(
            "this machine's own ruleset is not what it was: these figures are not to be trusted"
        )
    return results


def _measure_size(
    policy: BenchPolicy, names: Sequence[str], *, is_quick: bool
) -> tuple[list[Figures], list[PacketCost]]:
    figures, hosts, probes = [], {}, choose_probes(policy)
    repeats = _QUICK_REPEATS if is_quick else _REPEATS
    with contextlib.ExitStack() as stack:
        for name in names:
            found, host = Bout(name, policy, probes, repeats).measure(stack)
            figures.append(found)
            _say(f"{policy.size} {name}: {', '.join(_told(found))}")
            if host is not None:
                hosts[name] = host
        _say(f"{policy.size}: packets")
        packets = list(measure_packets(policy, hosts, _QUICK_EFFORT if is_quick else _EFFORT))
    return figures, packets


def _told(figures: Figures) -> Iterator[str]:
    for operation, spread in figures.seconds.items():
        yield f"{operation} {1000 * spread.median:,.1f} ms"
    for operation, why in figures.failures.items():
        yield f"{operation} failed: {why.splitlines()[0]}"


def _own_ruleset() -> str:
    """Return this machine's own ruleset, without the counters."""
    return subprocess.run(
        ["nft", "--stateless", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout


_STARTED = time.monotonic()


def _say(line: str) -> None:
    print(f"{time.monotonic() - _STARTED:6.1f} s  {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
