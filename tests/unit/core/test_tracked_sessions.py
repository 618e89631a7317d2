"""Which sessions a policy has to end in conntrack, and which it must leave there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.core.model import DCCP, GRE, ICMP, SCTP, TCP, UDP, CidrBlock, Direction, Family, Mode, Protocol
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.tracked_sessions import ConntrackEntry, EntryJudge, FlowTuple
from tests.words import ACCEPT, ADVANCED, DROP, IN, OUT, group, policy_of, rule

HOST, FAR, GUEST, OTHER = (
    CidrBlock.parse(text).first for text in ("10.0.0.11", "203.0.113.10", "172.20.0.2", "198.51.100.7")
)
LINKS = {FAR: "eth0", OTHER: "eth1", GUEST: "docker0", HOST: "lo"}


def entry(source: int, destination: int, protocol: Protocol = UDP, port: int | None = 500) -> ConntrackEntry:
    """Return an entry with the same port at both ends, that the source has opened."""
    original = FlowTuple(source, port, destination, port)
    return ConntrackEntry(Family.IPV4, protocol.wire_number, original, original.turned, 0, False, 1)  # noqa: FBT003 - a value's field


def judge(policy: ResolvedPolicy) -> EntryJudge:
    """Return what judges entries on a host with three links."""

    def find_link(entry: ConntrackEntry, direction: Direction) -> str | None:
        return LINKS.get((entry.original if direction is IN else entry.reply).source)

    return EntryJudge(policy, find_link)


def only(
    *directions: str, protocol: Protocol = UDP, port: str = "500", mode: Mode = Mode.ENFORCE
) -> ResolvedPolicy:
    """Return the policy of eth0 that lets sessions be opened in these directions, at one port."""
    ways = {"in": rule("in", ACCEPT, protocol, port, "0.0.0.0/0", direction=IN)}
    ways["out"] = rule("out", ACCEPT, protocol, port, "0.0.0.0/0", direction=OUT)
    made = group("sg-1", *(ways[name] for name in directions), group_type=ADVANCED)
    policy = policy_of(made, on={"eth0": "sg-1"})
    return policy.with_judges(lambda one: replace(one, mode=mode))


def test_the_far_end_is_locked_out_where_it_may_open_what_the_host_may_not() -> None:
    """Conntrack takes its packets for answers to what is revoked."""
    assert judge(only("in")).is_locked_out(entry(HOST, FAR))


@pytest.mark.parametrize("directions", (("in", "out"), ("out",), ()))
def test_it_is_not_where_the_session_is_allowed_or_both_are_denied(directions: tuple[str, ...]) -> None:
    """Then its packets are part of a session that goes on, or dropped by their own right."""
    assert not judge(only(*directions)).is_locked_out(entry(HOST, FAR))


@pytest.mark.parametrize("directions", (("in", "out"), ("in",), ("out",), ()))
def test_what_the_far_end_opened_is_never_to_be_opened_anew(directions: tuple[str, ...]) -> None:
    """A revoked session stops in both directions, also where the host may open it (§6.3)."""
    assert not judge(only(*directions)).is_locked_out(entry(FAR, HOST))


def test_a_forwarded_session_is_left_where_it_is_revoked_inwards_too() -> None:
    """It came in over one link and went out over another one; the first forbids it."""
    shut = policy_of(
        group("sg-in", group_type=ADVANCED),
        group("sg-out", rule("in", ACCEPT, UDP, "500", "0.0.0.0/0"), group_type=ADVANCED),
        on={"eth1": "sg-in", "eth0": "sg-out"},
    )
    assert not judge(shut).is_locked_out(entry(OTHER, FAR))
    assert judge(shut).is_locked_out(entry(GUEST, FAR))


@pytest.mark.parametrize("protocol", (TCP, SCTP, DCCP, ICMP))
def test_a_protocol_whose_later_packets_open_sessions_is_left(protocol: Protocol) -> None:
    """Conntrack would take the far end's next packet for the first one (`nf_conntrack_tcp_loose`)."""
    ports = {"port": "-1/-1"} if protocol is ICMP else {}
    del ports
    every = policy_of(
        group("sg-1", *(rule("in", ACCEPT, protocol, "", "0.0.0.0/0"),), group_type=ADVANCED),
        on={"eth0": "sg-1"},
    )
    assert not judge(every).is_locked_out(entry(HOST, FAR, protocol))


def test_a_protocol_without_ports_is_judged_by_its_addresses() -> None:
    """A tunnel has the same ends whoever opens it."""
    tunnel = policy_of(
        group("sg-1", rule("in", ACCEPT, GRE, "", "203.0.113.10"), group_type=ADVANCED), on={"eth0": "sg-1"}
    )
    assert judge(tunnel).is_locked_out(entry(HOST, FAR, GRE, None))


def test_a_fellow_member_may_open_any_port() -> None:
    """Inner access stands before the rules; egress to members has none (§3.4)."""
    members = group(
        "sg-1", rule("out", DROP, UDP, "500", "0.0.0.0/0", direction=OUT), members=("203.0.113.10",)
    )
    assert judge(policy_of(members, on={"eth0": "sg-1"})).is_locked_out(entry(HOST, FAR))


def test_observing_locks_nobody_out() -> None:
    """Nothing is dropped (§9.1)."""
    watched = judge(only("in", mode=Mode.OBSERVE))
    assert not watched.is_locked_out(entry(HOST, FAR))
    assert not watched.is_revoked(entry(HOST, FAR))


def test_what_passes_no_bound_link_is_left() -> None:
    """Nor where nobody knows the link."""
    for ends in ((HOST, OTHER), (HOST, GUEST), (HOST, FAR + 1)):
        assert not judge(only("in")).is_locked_out(entry(*ends))


def test_a_translated_session_is_judged_by_the_wire() -> None:
    """Outwards by the ends behind NAT: its answers go to the host (§2.2)."""
    near = replace(entry(GUEST, FAR), reply=FlowTuple(FAR, 500, HOST, 4500))
    assert not judge(only("in")).is_locked_out(near)
    assert judge(only("in", port="4500")).is_locked_out(near)


@pytest.mark.parametrize(
    ("directions", "ends", "is_revoked"),
    (
        (("in",), (GUEST, FAR), True),
        (("out",), (GUEST, FAR), False),
        (("in",), (FAR, GUEST), False),
        (("out",), (FAR, GUEST), True),
        ((), (OTHER, GUEST), False),
    ),
)
def test_a_session_is_revoked_where_the_policy_forbids_the_way_it_was_opened(
    directions: tuple[str, ...], ends: tuple[int, int], *, is_revoked: bool
) -> None:
    """Whatever protocol it is of."""
    for protocol in (UDP, TCP):
        found = judge(only(*directions, protocol=protocol)).is_revoked(entry(*ends, protocol))
        assert found is is_revoked
