"""Find the live sessions that a policy would cut (§6.3, §7.4)."""

from __future__ import annotations

import ipaddress

from sgagent.core.evaluate import DecidedBy
from sgagent.core.host import HostFacts, Link
from sgagent.core.lockout import LiveSession, sessions_cut
from sgagent.core.model import TCP, Family
from tests.words import ACCEPT, blocks, group, policy_of, rule

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
