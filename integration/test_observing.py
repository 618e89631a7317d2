"""Packets that observing would have dropped are in hits, log and metrics, and only these (§9.1)."""

from __future__ import annotations

from ipaddress import ip_address

from integration.lab import Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import Service, definitions, is_let_in

HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")
WEB, NO_TELNET = "ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress drop 1 tcp 23 from 0.0.0.0/0"
OBSERVE = '[enforcement]\nmode = "observe"\n'
INGRESS = {"interface": "eth0", "direction": "ingress"}


agent = agent_with(definitions(WEB, NO_TELNET), OBSERVE)


def would_drop(agent: Service) -> float | None:
    """Return the metric for ingress."""
    return agent.metric("sgagent_would_drop_packets_total", **INGRESS)


def send(lab: Lab, *ports: int) -> None:
    """Open a session to each port, and see that it gets in."""
    assert all(is_let_in(lab, CLIENT, HOST, port) for port in ports)


def test_it_shows_in_hits_log_and_metrics(agent: Service, one_interface: Lab) -> None:
    """Sessions that a rule or the default would have dropped; those that are accepted are none of it."""
    assert would_drop(agent) == 0
    send(one_interface, 80, 80, 23, 81, 82)
    assert would_drop(agent) == 3
    agent.wait_for_event("would_have_dropped")
    (line,) = agent.events("would_have_dropped")
    assert line["interface"] == "eth0"
    wait_for(lambda: agent.hits("sgr-1") == 1, "the hit")
    ingress = agent.as_json("hits")["interfaces"][0]
    assert (ingress["mode"], ingress["would_drop_packets"]) == ("observe", 3)
    shown = agent.command("hits").output
    assert "eth0 ingress, observe mode: nothing is dropped, 3 packets would have been" in shown
    assert [line.split()[2:4] for line in shown.splitlines() if "sgr-1" in line] == [["would", "drop"]]


def test_a_switch_at_run_time_divides_what_is_counted(agent: Service, one_interface: Lab) -> None:
    """Each packet counts in the mode in which it was judged, to the last one before the switch."""
    expected = 0
    for mode in ("enforce", "observe", "enforce", "observe"):
        assert agent.command("mode", mode).status == 0
        passes = is_let_in(one_interface, CLIENT, HOST, 23)
        assert passes is (mode == "observe")
        expected += passes
    assert would_drop(agent) == expected
    assert agent.hits("sgr-1") == 4


def test_what_is_dropped_for_real_is_told_apart(agent: Service, one_interface: Lab) -> None:
    """The count of would-be drops goes on over a kill, and stands while enforcing."""
    send(one_interface, 23)
    assert would_drop(agent) == 1
    agent.kill()
    send(one_interface, 23)
    agent.start()
    assert would_drop(agent) == 2
    agent.stop()
    agent.configure()
    agent.start()
    assert not is_let_in(one_interface, CLIENT, HOST, 23)
    assert agent.hits("sgr-1") == 3
    assert would_drop(agent) == 2
    ingress = agent.as_json("hits")["interfaces"][0]
    assert (ingress["mode"], ingress["would_drop_packets"]) == ("enforce", 2)
