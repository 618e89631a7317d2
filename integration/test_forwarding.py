"""The group stands at the edge of the interface, for whatever is behind the host too (§2.1, §2.2, §6.4)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial

import pytest

from integration.enforcer import Enforcer, enforcer, one_group, policy_of
from integration.guest import GUEST_ADDRESS, GUEST_ADDRESS6, guest, publish
from integration.lab import Lab
from integration.namespaces import Namespace
from integration.test_sessions import assert_cut
from integration.traffic import Traffic, is_open, traffic

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
CLIENT, OTHER = "198.51.100.7", "198.51.100.8"
FAR, FAR_REVOKED = "203.0.113.10", "203.0.113.9"
SHORT = 0.4
"""Seconds after which a connection that nobody answers is given up."""


@pytest.fixture
def agent(one_interface: Lab) -> Iterator[Enforcer]:
    """Take hold of a host with two addresses."""
    one_interface.add_host_addresses([HOST, HOST6])
    with enforcer(one_interface) as made:
        yield made


@pytest.fixture
def behind(agent: Enforcer) -> Iterator[Namespace]:
    """Put a guest behind a bridge of the host, with published ports."""
    with guest(agent.lab) as made:
        publish(agent.lab)
        yield made


@pytest.fixture
def busy(agent: Enforcer) -> Iterator[Traffic]:
    """Return sessions to be opened."""
    with traffic(agent.lab) as made:
        yield made


def test_a_published_port_is_judged_as_it_is_on_the_wire(agent: Enforcer, behind: Namespace) -> None:
    """The port before DNAT is compared: 8080 opens the guest's 80, and 80 does not."""
    lab = agent.lab
    with lab.listen(behind, GUEST_ADDRESS, 80):

        def reaches() -> bool:
            return is_open(lambda: lab.connect(lab.peer, (CLIENT, 0), (HOST, 8080), seconds=SHORT))

        agent.enforce(policy_of(one_group(), eth0="sg-1"))
        assert not reaches()
        agent.enforce(policy_of(one_group("ingress accept 1 tcp 80 from 0.0.0.0/0"), eth0="sg-1"))
        assert not reaches()
        agent.enforce(policy_of(one_group("ingress accept 1 tcp 8080 from 0.0.0.0/0"), eth0="sg-1"))
        assert reaches()
        assert agent.hits()["rule/eth0/sgr-0"] == 1


def test_what_a_guest_sends_is_judged_as_it_is_on_the_wire(agent: Enforcer, behind: Namespace) -> None:
    """Egress is judged after SNAT: by the host's address as the near end, and the far end that is meant."""
    lab = agent.lab
    rules = one_group(f"egress drop 1 tcp 443 to {FAR_REVOKED}", "egress accept 2 tcp 443 to 0.0.0.0/0")
    agent.enforce(policy_of(rules, eth0="sg-1"))
    for far, passes in ((FAR, True), (FAR_REVOKED, False)):
        with lab.listen(lab.peer, far, 443):
            opening = partial(lab.connect, behind, (GUEST_ADDRESS, 0), (far, 443), seconds=SHORT)
            assert is_open(opening) is passes
    near = rules + "\n".join(
        (
            "",
            "      - {rule_id: sgr-near, direction: egress, policy: drop, priority: 1, protocol: tcp,",
            f"         port_range: 443, authorization_object: 0.0.0.0/0, local_address: {GUEST_ADDRESS}}}",
        )
    )
    agent.enforce(policy_of(near, eth0="sg-1"))
    with lab.listen(lab.peer, FAR, 443):
        assert is_open(lambda: lab.connect(behind, (GUEST_ADDRESS, 0), (FAR, 443), seconds=SHORT))


def test_translated_sessions_are_judged_again(agent: Enforcer, behind: Namespace, busy: Traffic) -> None:
    """Sessions through DNAT and SNAT are cut by the addresses and ports that they have on the wire."""
    before = one_group("ingress accept 1 tcp 8080 from 0.0.0.0/0", "ingress accept 1 udp 5353 from 0.0.0.0/0")
    after = one_group(f"ingress accept 1 tcp 8080 from {CLIENT}", f"egress drop 1 tcp 443 to {FAR_REVOKED}")
    agent.enforce(policy_of(before, eth0="sg-1"))
    peer, udp = busy.lab.peer, socket.SOCK_DGRAM
    web = (GUEST_ADDRESS, 80)
    busy.open("in, goes on", peer, CLIENT, behind, (HOST, 8080), listens_at=web)
    busy.open("in, revoked", peer, OTHER, behind, (HOST, 8080), listens_at=web)
    busy.open(
        "in by udp, revoked", peer, CLIENT, behind, (HOST, 5353), listens_at=(GUEST_ADDRESS, 53), kind=udp
    )
    busy.open("out, goes on", behind, GUEST_ADDRESS, peer, (FAR, 443))
    busy.open("out, revoked", behind, GUEST_ADDRESS, peer, (FAR_REVOKED, 443))
    busy.open("out over IPv6, goes on", behind, GUEST_ADDRESS6, peer, ("2001:db8:10::1", 443))
    with busy.running():
        busy.wait_until_all_talk()
        moment = agent.enforce(policy_of(after, eth0="sg-1"))
        assert_cut(busy, moment, {"in, revoked", "in by udp, revoked", "out, revoked"})


TWO_GROUPS = """security_groups:
  - security_group_id: sg-outer
    type: basic
    rules:
      - {{rule_id: sgr-in, direction: ingress, policy: accept, protocol: tcp, port_range: 80,
         authorization_object: 0.0.0.0/0}}
  - security_group_id: sg-inner
    type: advanced
    rules:
      - {{rule_id: sgr-through, direction: egress, policy: accept, protocol: tcp, port_range: {ports},
         authorization_object: 0.0.0.0/0}}
"""


def test_both_interfaces_judge_what_passes_both(agent: Enforcer, behind: Namespace, busy: Traffic) -> None:
    """Forwarded traffic passes only if the one interface lets it in and the other lets it out (§6.4)."""
    lab = agent.lab
    lab.peer.ip(f"route add {GUEST_ADDRESS}/32 via 172.31.254.1 dev eth0")
    open_both = policy_of(TWO_GROUPS.format(ports="80"), eth0="sg-outer", docker0="sg-inner")
    inner_shut = policy_of(TWO_GROUPS.format(ports="81"), eth0="sg-outer", docker0="sg-inner")
    agent.enforce(inner_shut)
    with lab.listen(behind, GUEST_ADDRESS, 80):
        assert not is_open(lambda: lab.connect(lab.peer, (CLIENT, 0), (GUEST_ADDRESS, 80), seconds=SHORT))
    agent.enforce(open_both)
    busy.open("through both", lab.peer, CLIENT, behind, (GUEST_ADDRESS, 80))
    with busy.running():
        busy.wait_until_all_talk()
        assert agent.hits()["rule/eth0/sgr-in"] == 2
        assert agent.hits()["rule/docker0/sgr-through"] == 1
        moment = agent.enforce(inner_shut)
        assert_cut(busy, moment, {"through both"})


def test_acceptance_here_says_nothing_of_elsewhere(agent: Enforcer, behind: Namespace, busy: Traffic) -> None:
    """A session that is met at a second interface later is judged there, not waved through (§6.4)."""
    lab = agent.lab
    lab.peer.ip(f"route add {GUEST_ADDRESS}/32 via 172.31.254.1 dev eth0")
    outer = TWO_GROUPS.format(ports="81")
    agent.enforce(policy_of(outer, eth0="sg-outer"))
    busy.open("through", lab.peer, CLIENT, behind, (GUEST_ADDRESS, 80))
    with busy.running():
        busy.wait_until_all_talk()
        moment = agent.enforce(policy_of(outer, eth0="sg-outer", docker0="sg-inner"))
        assert_cut(busy, moment, {"through"})
