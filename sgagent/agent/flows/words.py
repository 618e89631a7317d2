"""Put flows into words, safe to print."""

from __future__ import annotations

from sgagent.agent.flows.flow import Flow, FlowEnd, FlowsLeftOut
from sgagent.core.errors import printable
from sgagent.core.evaluate import DecidedBy
from sgagent.core.model import Mode, Policy


def sentence(entry: Flow | FlowsLeftOut) -> str:
    """Return an entry as a sentence."""
    place = f"{done(entry)} on {entry.interface} {entry.direction.value} by {decider(entry)}"
    if isinstance(entry, FlowsLeftOut):
        packets = "packet" if entry.left_out == 1 else "packets"
        return printable(f"{entry.left_out} more {packets} {place}, not told of one by one")
    port = "" if entry.source.port is None else f" port {entry.source.port}"
    return printable(f"{place}: {traffic(entry)} from {end(entry.source)}{port} to {end(entry.destination)}")


def done(entry: Flow | FlowsLeftOut) -> str:
    """Return what was done: ``dropped``, ``would be dropped``, ``accepted``."""
    if entry.verdict is Policy.ACCEPT:
        return "accepted"
    return "would be dropped" if entry.mode is Mode.OBSERVE else "dropped"


def decider(entry: Flow | FlowsLeftOut) -> str:
    """Return what decided: ``rule sgr-1 of sg-web``, ``the default``."""
    if entry.rule_id is not None:
        return f"rule {entry.rule_id} of {entry.security_group_id}"
    return _STEPS[entry.decided_by]


_STEPS = {
    DecidedBy.SESSION: "its session",
    DecidedBy.ALWAYS: "the platform list",
    DecidedBy.FAILSAFE: "the fail-safe list",
    DecidedBy.INNER: "fellow membership",
    DecidedBy.RULE: "a rule",
    DecidedBy.DEFAULT: "the default",
    DecidedBy.UNBOUND: "nobody",
    DecidedBy.INVALID: "connection tracking, which calls it invalid",
}


def traffic(flow: Flow) -> str:
    """Return the protocol and what is asked of it: ``tcp 22``, ``icmp type 8``, ``47``."""
    if flow.icmp_type is not None:
        return f"{flow.protocol} type {flow.icmp_type}"
    port = flow.destination.port
    return flow.protocol if port is None else f"{flow.protocol} {port}"


def end(one: FlowEnd) -> str:
    """Return an end by its names, with the address behind them: ``eni-web-1 (sg-web) 10.0.0.11``."""
    groups = ", ".join(one.security_group_ids)
    names = f"{one.network_interface_id} ({groups})" if one.network_interface_id and groups else groups
    return " ".join(word for word in (names or one.network_interface_id or "", one.address) if word)
