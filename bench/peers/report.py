"""Write the tables of the peers for people, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bench.peers.contenders import DAEMON
from bench.peers.figures import Figures, Operation, PeerResults
from bench.section import milliseconds, table
from bench.sizes import Size
from bench.traffic import Aim


def peer_lines(results: PeerResults) -> Iterator[str]:
    """Yield the tables: operations at the two largest sizes, packets at all."""
    yield from _about(results)
    for size in results.sizes[-2:]:
        yield from _operations(results, size)
    yield from _packets(results)
    yield from _reloads(results)
    yield from _failures(results)


def _about(results: PeerResults) -> Iterator[str]:
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    yield (
        f"On {machine.processors} processors, Linux {machine.kernel}, {machine.nftables}, "
        f"Python {machine.python}; load before the run {machine.load:.2f}. {versions}."
    )
    if results.is_quick:
        yield "\nThis was a quick run: fewer sizes, fewer rounds. Don't quote it."
    yield ""


def _operations(results: PeerResults, size: Size) -> Iterator[str]:
    rows = [
        (
            figures.contender,
            *(_milliseconds(figures, operation) for operation in Operation),
            f"{figures.peak_mebibytes:,.0f}" if figures.peak_mebibytes else "",
            f"{figures.steady_mebibytes:,.0f}" if figures.seconds else "",
            _wrong(figures),
        )
        for figures in results.of(size)
    ]
    head = (
        "",
        *(operation.value for operation in Operation),
        "peak MiB",
        "lasting MiB",
        "wrong verdicts",
    )
    yield from _table(f"Milliseconds and memory at {size}", head, rows)


def _wrong(figures: Figures) -> str:
    found = figures.wrong
    return f"{found.kept_out + found.let_in}/{found.probes}" if found else ""


def _packets(results: PeerResults) -> Iterator[str]:
    aims = (Aim.SPREAD, Aim.NONE)
    rows = []
    for contender in results.contenders:
        costs = [", ".join(_costs(results, size, aims, contender)) for size in results.sizes]
        if any(costs):
            rows.append((contender, *costs))
    heading = (
        f"A new session: nanoseconds above conntrack only, packets: {', '.join(aim.value for aim in aims)}"
    )
    yield from _table(heading, ("", *map(str, results.sizes)), rows)


def _costs(results: PeerResults, size: Size, aims: Iterable[Aim], contender: str) -> Iterator[str]:
    """Yield a cost of each kind of packet, and how many times the daemon's it is."""
    for aim in aims:
        cost, ours = (results.cost(size, aim.value, name) for name in (contender, DAEMON))
        if cost is None:
            continue
        number = f"{cost.above.median:,.0f}"
        if ours is None or contender == DAEMON or ours.above.median <= 0:
            yield number
        else:
            times = cost.above.median / ours.above.median
            yield f"{number} ({times:.1f}×)" if times < 10 else f"{number} ({times:.0f}×)"


def _reloads(results: PeerResults) -> Iterator[str]:
    """Yield the packets' fates at the size in the middle; the others are alike."""
    size = results.sizes[len(results.sizes) // 2]
    rows = [
        (
            figures.contender,
            str(found.changes),
            f"{found.sent:,}",
            f"{found.kept_out:,}",
            f"{found.let_in:,}",
            f"{found.cut:,}",
            _kept(figures),
        )
        for figures in results.of(size)
        if (found := figures.stream)
    ]
    head = (
        "",
        "times",
        "packets a kind",
        "allowed, dropped",
        "denied, passed",
        "known, lost",
        "counters kept",
    )
    yield from _table(f"While the files are read again, at {size}", head, rows)


def _kept(figures: Figures) -> str:
    found = figures.counted
    if found is None or not found.before:
        return ""
    return f"{found.after:,}/{found.before:,}"


def _failures(results: PeerResults) -> Iterator[str]:
    rows = [
        (str(figures.size), figures.contender, operation, _one_line(why))
        for figures in results.figures
        for operation, why in figures.failures.items()
    ]
    yield from _table("What did not work", ("rules/members", "", "", "why"), rows)


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:200]


def _table(heading: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    if found := list(rows):
        yield f"### {heading}\n"
        yield from table(head, found)


def _milliseconds(figures: Figures, operation: Operation) -> str:
    found = figures.seconds.get(operation.value)
    if found is None:
        why = figures.failures.get(operation.value, "")
        return why if why.startswith(">") else "can't" if why else ""
    return milliseconds(found.median)
