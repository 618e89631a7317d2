"""Show who was dropped last, and by what."""

from __future__ import annotations

from collections.abc import Iterator

from sgagent.agent.control.queries import DeniedAnswer
from sgagent.agent.flowlog.flow import Flow, FlowEnd
from sgagent.agent.web.markup import Element, Node, tag
from sgagent.agent.web.moments import moment
from sgagent.agent.web.shell import Section
from sgagent.agent.web.tables import Column, table
from sgagent.agent.web.verdict import verdict
from sgagent.core.model import Policy

MOST_DROPS = 20
"""That are shown, the newest first; ``sgagent denied`` shows more."""


def drops_section(answer: DeniedAnswer, now: float) -> Section:
    """Return the newest drops, and how many there were besides.

    Args:
        answer: what the flow log remembers.
        now: seconds since the epoch.
    """
    return Section("drops", "Recent drops", tuple(_content(answer, now)))


def _content(answer: DeniedAnswer, now: float) -> Iterator[Element]:
    newest = answer.flows[: -MOST_DROPS - 1 : -1]
    if answer.unavailable is not None:
        yield tag("p", f"They are not known: {answer.unavailable}.")
    elif not newest:
        yield tag("p", "None was seen since the agent started.")
    if newest:
        yield table("The newest first", _COLUMNS, (_row(flow, now) for flow in newest))
    left_out = sum(entry.left_out for entry in answer.left_out if entry.verdict is Policy.DROP)
    if left_out:
        limit = f"the kernel tells of {answer.rate_per_second} a second of each rule"
        yield tag("p", f"{left_out} more since the agent started were not told of: {limit}.", class_="quiet")


_COLUMNS = (
    Column("When", is_short=True),
    Column("Source", is_name=True),
    Column("Destination"),
    Column("Protocol", is_short=True),
    Column("Interface", is_short=True),
    Column("Verdict", is_short=True),
    Column("Decided by"),
)


def _row(flow: Flow, now: float) -> tuple[Node, ...]:
    return (
        moment(flow.seen_at, now),
        _end(flow.source),
        _end(flow.destination),
        flow.protocol if flow.icmp_type is None else f"{flow.protocol} type {flow.icmp_type}",
        f"{flow.interface} {flow.direction.value}",
        verdict(flow.verdict, flow.mode),
        _decider(flow),
    )


def _end(end: FlowEnd) -> Element:
    port = "" if end.port is None else f" port {end.port}"
    names = (end.network_interface_id, ", ".join(end.security_group_ids))
    called = ", ".join(name for name in names if name)
    known = tag("span", f" ({called})", class_="quiet") if called else None
    return tag("span", f"{end.address}{port}", known)


def _decider(flow: Flow) -> str:
    if flow.rule_id is None:
        return flow.decided_by.value
    return f"{flow.rule_id} of {flow.security_group_id}"
