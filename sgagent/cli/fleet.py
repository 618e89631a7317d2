"""``sgagent fleet``: show the state of the hosts of an etcd cluster, or wait until all have a revision."""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from sgagent.agent.clock import age
from sgagent.cli import inputs
from sgagent.cli.configuration import load_settings
from sgagent.cli.main import option_adder
from sgagent.cli.output import add_width_argument, format_json, lay_out, table_width
from sgagent.cli.publish import PATIENCE_SECONDS, etcd_settings, translated_etcd_errors
from sgagent.core.errors import UsageError, count, printable
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.host_reports import HostReport, Report, Reported, read_reports
from sgagent.sources.etcd.key_layout import FLEET, KeyLayout
from sgagent.sources.etcd.messages import KeyRange

_LOOK_SECONDS = 0.5
"""Between looks while hosts are waited for."""

_MOST_NAMED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = option_adder(parser)
    add("action", "show hosts, or wait for them", choices=("status", "wait"))
    text = "with wait: what 'sgagent publish' printed (default: of the newest publication)"
    add("revision REVISION", text, nargs="?", type=inputs.whole_number)
    add("--timeout TIME", "with wait: how long at most, like 90s, 5m or 1h (default: 60s)", default="60s")
    text = "with wait: at least so many hosts must report (default: 1)"
    add("--hosts NUMBER", text, type=inputs.whole_number, default=1)
    add_width_argument(parser)
    add("--json", "print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Show how hosts are doing, or wait until they enforce a publication; 1 if they do not in time."""
    settings = load_settings(options)
    source = etcd_settings(settings)
    seconds = inputs.parse_short_time(options.timeout)
    if seconds is None:
        raise UsageError(f"--timeout {options.timeout}: not a time span (like 60s, 5m or 1h)")
    if options.action == "status" and options.revision is not None:
        raise UsageError("fleet status takes no revision")
    layout = KeyLayout(source.prefix)
    deadline = time.monotonic() + seconds if options.action == "wait" else math.inf
    client = Client(source, limits=settings.limits, deadline=deadline)
    with translated_etcd_errors(), closing(client):
        if options.action == "wait":
            return _wait(client, layout, options, deadline)
        fleet = _look(client, layout)
    if options.json:
        print(format_json(_as_json(fleet), indent=2))
    else:
        print("\n".join(_lines(fleet, table_width(options))))
    return 0


@dataclass(frozen=True, slots=True)
class _Fleet:
    """The reports of hosts at one moment."""

    newest: int
    """The revision at which the newest publication was complete; 0 for none."""

    hosts: tuple[Reported, ...]


def _look(client: Client, layout: KeyLayout, seconds: float = PATIENCE_SECONDS) -> _Fleet:
    def look() -> _Fleet:
        marker = client.read_page(KeyRange(layout.meta)).items
        newest = marker[0].mod_revision if marker else 0
        return _Fleet(newest, read_reports(client.read(layout.all_of(FLEET))[1], layout, newest))

    return client.persistently(look, seconds)


def _lines(fleet: _Fleet, width: int | None) -> list[str]:
    """Return a row for each host, hosts that need attention first, and a summary.

    Args:
        fleet: what the hosts reported.
        width: of the terminal; None is no limit.
    """
    counts = Counter(one.state for one in fleet.hosts)
    totals = ", ".join(f"{counts[state]} {state.value}" for state in HostReport if counts[state])
    summary = f"{count(len(fleet.hosts), 'host')}" + (f": {totals}" if totals else "")
    summary += f"; newest publication: revision {fleet.newest}" if fleet.newest else "; nothing is published"
    if not fleet.hosts:
        return [summary]
    head = ("HOST", "STANDING", "REVISION", "SINCE", "POSTURE", "AGENT", "WHY")
    rows = [head, *(_row(one) for one in fleet.hosts)]
    return [*lay_out(rows, right=(2,), width=width), summary]


def _row(one: Reported) -> tuple[str, ...]:
    report = one.report
    if report is None:
        return (one.host, one.state.value, "", "", "", "", "its report can't be read")
    since = "" if report.since is None else age(max(0.0, time.time() - report.since))
    return (
        *(one.host, one.state.value, str(report.revision or "-"), since),
        *(report.posture, report.agent_version, _why(report)),
    )


def _why(report: Report) -> str:
    """Return the most severe problem of a host; empty if it has none."""
    if report.errors:
        return report.errors[0]
    if report.kernel_refused:
        return "its kernel refused the compiled rules"
    if report.drift_unhealed:
        return "another process changes its table, and the agent could not repair it"
    if report.drift_repaired:
        return f"another process changed its table; repaired {count(report.drift_repaired, 'time')}"
    return ""


def _as_json(fleet: _Fleet) -> dict[str, object]:
    return {
        "newest_revision": fleet.newest or None,
        "hosts": [
            {
                "host": one.host,
                "standing": one.state.value,
                **({} if one.report is None else json.loads(one.report.encoded())),
            }
            for one in fleet.hosts
        ],
    }


def _wait(client: Client, layout: KeyLayout, options: argparse.Namespace, deadline: float) -> int:
    """Wait until every host that reports enforces a publication, or a later one."""
    while True:
        fleet = _look(client, layout, deadline - time.monotonic())
        wanted = options.revision or fleet.newest
        behind = [one for one in fleet.hosts if one.report is None or one.report.revision < wanted]
        is_done = not behind and len(fleet.hosts) >= options.hosts and wanted > 0
        if is_done or time.monotonic() >= deadline:
            return _conclude(options, wanted, fleet, behind, is_done=is_done)
        threading.Event().wait(min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic())))


def _conclude(
    options: argparse.Namespace, wanted: int, fleet: _Fleet, behind: Sequence[Reported], *, is_done: bool
) -> int:
    """Print whether all hosts have reached the revision, and which have not."""
    hosts = count(len(fleet.hosts), "host")
    if options.json:
        names = [one.host for one in behind]
        found = {"reached": is_done, "revision": wanted, "hosts": len(fleet.hosts), "behind": names}
        print(json.dumps(found))
    elif is_done:
        print(f"{hosts} at revision {wanted} or later")
    elif not behind:
        few = f"only {hosts} of {options.hosts} report"
        print(f"sgagent: {few if fleet.hosts or wanted else 'nothing is published'}", file=sys.stderr)
    else:
        late = printable(", ".join(f"{one.host} ({one.state.value})" for one in behind[:_MOST_NAMED]))
        more = f" and {len(behind) - _MOST_NAMED} more" if len(behind) > _MOST_NAMED else ""
        print(f"sgagent: {len(behind)} of {hosts} not at revision {wanted}: {late}{more}", file=sys.stderr)
    return 0 if is_done else 1
