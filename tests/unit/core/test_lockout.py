"""Find the live sessions that a policy would cut (§6.3, §7.4)."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from sgagent.core.binding import HostFacts, Link
from sgagent.core.clauses import DecidedBy
from sgagent.core.lockout import LiveSession, SessionKind, dearest, sessions_cut, sessions_newly_cut
from sgagent.core.model import TCP, Family, Mode
from sgagent.core.policy import ResolvedPolicy
from tests.words import (
    ACCEPT,
    DROP,
    IN,
    OUT,
    blocks,
    decision,
    group,
    packet,
    policy_of,
    resolution,
    rule,
    snapshot,
)

FACTS = HostFacts(
    links=(
        Link(name="eth0", index=2, addresses=blocks("10.0.0.1", "2001:db8::1")),
        Link(name="eth1", index=3, addresses=blocks("10.1.0.1")),
        Link(name="lo", index=1, addresses=blocks("127.0.0.1", "::1"), is_loopback=True),
    )
)
POLICY = policy_of(group("sg-1", rule("ssh", ACCEPT, TCP, "22", "192.0.2.10")), on={"eth0": "sg-1"})


def live(local: str, port: int, peer: str) -> LiveSession:
    """Return a session from a peer to a port of this host."""
    near, far = ipaddress.ip_address(local), ipaddress.ip_address(peer)
    return LiveSession(
        family=Family.IPV4 if near.version == 4 else Family.IPV6,
        local_address=int(near),
        local_port=port,
        peer_address=int(far),
        peer_port=50_000,
    )


def test_a_session_that_the_policy_forbids() -> None:
    """It is named with the link that it came by and what decided."""
    (cut,) = sessions_cut(POLICY, FACTS, [live("10.0.0.1", 22, "192.0.2.11")])
    assert cut.interface == "eth0"
    assert cut.session == live("10.0.0.1", 22, "192.0.2.11")
    assert cut.decision.decided_by is DecidedBy.DEFAULT


def test_a_session_that_the_policy_allows() -> None:
    """It is none of these."""
    assert sessions_cut(POLICY, FACTS, [live("10.0.0.1", 22, "192.0.2.10")]) == ()


def test_both_families() -> None:
    """A rule of one family does not save a session of the other (§2.4)."""
    assert len(sessions_cut(POLICY, FACTS, [live("2001:db8::1", 22, "2001:db8::9")])) == 1


def test_two_families_with_one_number() -> None:
    """An address of IPv6 is another near end than the one of IPv4 with the same number."""
    facts = HostFacts(links=(Link(name="eth0", index=2, addresses=blocks("192.0.2.1", "::192.0.2.1")),))
    near = rule("ssh", ACCEPT, TCP, "22", "0.0.0.0/0", local="192.0.2.1/32")
    sessions = [live("::192.0.2.1", 22, "2001:db8::9"), live("192.0.2.1", 22, "198.51.100.9")]
    cut = sessions_cut(policy_of(group("sg-1", near), on={"eth0": "sg-1"}), facts, sessions)
    assert [one.session for one in cut] == sessions[:1]


def test_links_that_are_not_judged() -> None:
    """An unbound link, loopback, and an address that no link carries cut nothing."""
    sessions = [
        live("10.1.0.1", 22, "192.0.2.11"),
        live("127.0.0.1", 22, "127.0.0.1"),
        live("10.9.0.1", 22, "192.0.2.11"),
    ]
    assert sessions_cut(POLICY, FACTS, sessions) == ()


def test_the_order_is_kept() -> None:
    """Sessions come out as they were given."""
    sessions = [live("10.0.0.1", port, "192.0.2.11") for port in (9, 22, 3)]
    assert [cut.session.local_port for cut in sessions_cut(POLICY, FACTS, sessions)] == [9, 22, 3]


CLOSED = policy_of(group("sg-1"), on={"eth0": "sg-1"})
OBSERVED = resolution(snapshot(group("sg-1")), on={"eth0": "sg-1"}, mode=Mode.OBSERVE).policy
NO_POLICY = policy_of(on={})
LOGIN = live("10.0.0.1", 22, "192.0.2.10")


@pytest.mark.parametrize(
    ("old", "new", "is_cut"),
    (
        pytest.param(POLICY, CLOSED, True, id="taken away"),
        pytest.param(CLOSED, CLOSED, False, id="forbidden before"),
        pytest.param(CLOSED, POLICY, False, id="allowed now"),
        pytest.param(NO_POLICY, CLOSED, True, id="newly judged"),
        pytest.param(None, CLOSED, True, id="not known before"),
        pytest.param(None, POLICY, False, id="allowed, whatever was before"),
        pytest.param(OBSERVED, CLOSED, True, id="only observed before"),
        pytest.param(POLICY, OBSERVED, False, id="only observed now"),
    ),
)
def test_what_a_change_cuts(old: ResolvedPolicy | None, new: ResolvedPolicy, *, is_cut: bool) -> None:
    """A session that lived by the old policy and does not by the new one; observing cuts nothing (§9.1)."""
    assert bool(sessions_newly_cut(old, new, FACTS, [LOGIN])) is is_cut


def test_a_session_that_this_host_opened() -> None:
    """It is judged as what goes out: by the far end's port, and by the rules for egress (§6.4)."""
    https = replace(LOGIN, opened=OUT, local_port=40_000, peer_port=443)
    closing = group("sg-1", rule("https", DROP, TCP, "443", "192.0.2.10", direction=OUT))
    (cut,) = sessions_newly_cut(POLICY, policy_of(closing, on={"eth0": "sg-1"}), FACTS, [https])
    assert cut.decision.rule is not None
    assert cut.decision.rule.rule_id == "https"
    assert sessions_newly_cut(None, POLICY, FACTS, [https]) == ()


def test_the_dearest_sessions_are_looked_at() -> None:
    """Logins, the agent's own, the few at a quiet port, and of a crowd what there is room for."""
    crowd = [live("10.0.0.1", 80, f"192.0.2.{number}") for number in range(50)]
    quiet = live("10.0.0.1", 2222, "198.51.100.7")
    login = replace(live("10.0.0.1", 22, "198.51.100.8"), kind=SessionKind.MANAGEMENT)
    source = replace(live("10.0.0.1", 40_000, "203.0.113.1"), opened=OUT, kind=SessionKind.SOURCE)
    found = dearest([*crowd, quiet, source, login], 5)
    assert found[:3] == (login, source, quiet)
    assert found == dearest([login, quiet, *reversed(crowd), source], 5)
    assert len(found) == 5


def test_what_decides_at_a_busy_port_is_what_the_policy_says() -> None:
    """Rules for other ports and near ends are left out of sight only; those that match are all there."""
    rules = (
        rule("some", ACCEPT, TCP, "80", "192.0.2.0/25", priority=2, source_ports="1-50000"),
        rule("here", ACCEPT, TCP, "80", "192.0.2.0/24", priority=3, local="10.0.0.1"),
        rule("there", ACCEPT, TCP, "80", "0.0.0.0/0", local="10.0.0.9"),
        rule("bad", DROP, TCP, "1-100", "192.0.2.7", priority=1),
        rule("ssh", ACCEPT, TCP, "22", "0.0.0.0/0"),
    )
    policy = policy_of(group("sg-1", *rules), on={"eth0": "sg-1"})
    crowd = [
        replace(live("10.0.0.1", port, f"192.0.{net}.{number}"), peer_port=peer_port)
        for port in (22, 80, 443)
        for net in (2, 3)
        for number in (7, 8, 200)
        for peer_port in (50_000, 50_001)
    ]
    found = {cut.session: cut.decision for cut in sessions_cut(policy, FACTS, crowd)}
    for session in crowd:
        far = str(ipaddress.ip_address(session.peer_address))
        expected = decision(
            policy,
            packet(IN, far, TCP, session.local_port, near_end="10.0.0.1", source_port=session.peer_port),
        )
        assert found.get(session) == (expected if expected.verdict is DROP else None)
