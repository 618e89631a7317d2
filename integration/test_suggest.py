"""From a running machine to a policy: observe, suggest, enforce, and replay the record through the kernel."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

from integration.lab import Lab, wait_for
from integration.service import Service, definitions, is_let_in, service_on
from sgagent.policy_test.packet_bytes import WirePacket, icmpv6, tcp, udp

HOST, HOST6 = ip_address("10.0.0.11"), ip_address("2001:db8::11")
CUSTOMERS = tuple(
    ip_address(f"{net}.{one}") for net in ("198.51.100", "203.0.113", "192.0.2") for one in range(1, 8)
)
CLIENT6 = ip_address("2001:db8:7::1")
DATABASE, NAMES6 = ip_address("10.0.2.31"), ip_address("2001:db8:53::1")
ADMIN, SCANNER, STRANGER = (ip_address(one) for one in ("10.0.9.5", "198.51.100.66", "203.0.113.99"))
OBSERVE = """
[enforcement]
mode = "observe"
[flow_log]
accepted = true
rate_per_second = 1000
output = "{}"
"""


def test_a_suggested_policy_loses_no_session_and_admits_no_scan(one_interface: Lab, tmp_path: Path) -> None:
    """Observed sessions pass when it is enforced; scans and single sessions are asked about, and do not."""
    one_interface.add_host_addresses([str(HOST), str(HOST6)])
    log = tmp_path / "flows.log"
    with service_on(one_interface.host, tmp_path) as agent:
        agent.configure(OBSERVE.format(log))
        agent.define(definitions(addresses=f"{HOST}, '{HOST6}'"))
        agent.start()
        for round_ in (0, 1):
            assert all(one_interface.send_ingress([*comes_in(round_), *(scan() if round_ else ())]))
            assert all(one_interface.send_egress(goes_out(round_)))
        sent = 2 * (len(comes_in(0)) + len(goes_out(0))) + len(scan())
        wait_for(lambda: lines_in(log) >= sent, f"{sent} lines in the flow log")
        made = agent.command("suggest", "--json")
        assert made.status == 0, made.errors
        suggested = json.loads(made.output)
        assert {one["reason"] for one in suggested["questions"]} == {"scan", "once"}
        _enforce(agent, json.dumps(suggested["document"]))
        assert all(one_interface.send_ingress(comes_in(7)))
        assert all(one_interface.send_egress(goes_out(7)))
        assert not any(one_interface.send_ingress(scan()))
        assert not any(one_interface.send_egress([tcp(HOST, STRANGER, 40_000, 443)]))


def test_the_first_policy_is_made_of_the_sessions_that_stand(one_interface: Lab, tmp_path: Path) -> None:
    """``init --from-traffic`` admits who has a session, in both families; so does ``suggest --now``."""
    one_interface.add_host_addresses([str(HOST), str(HOST6)])
    with service_on(one_interface.host, tmp_path) as agent, ExitStack() as stack:
        agent.configure('[enforcement]\nmode = "observe"\n')
        for far, near in ((ADMIN, HOST), (CLIENT6, HOST6)):
            listener = stack.enter_context(one_interface.listen(one_interface.host, str(near), 5432))
            stack.enter_context(one_interface.connect(one_interface.peer, (str(far), 0), (str(near), 5432)))
            stack.enter_context(listener.accept()[0])
        agent.start()
        made = agent.command("init", "--from-traffic", "3s", "--json")
        assert made.status == 0, made.errors
        (admitted,) = json.loads(made.output)["admitted"]
        assert ": 2 sessions of 2 peers," in admitted
        agent.wait_for_event("ruleset_applied", 2)
        now = agent.command("suggest", "--now", "--ingress-only", "--json")
        assert [one["sessions"] for one in json.loads(now.output)["rules"]] == [2], now.errors
        assert agent.command("mode", "enforce").status == 0
        for source, near, is_admitted in (
            (ADMIN, HOST, True),
            (CLIENT6, HOST6, True),
            (STRANGER, HOST, False),
        ):
            assert is_let_in(one_interface, source, near, 5432) is is_admitted


def _enforce(agent: Service, document: str) -> None:
    """Have the agent enforce a suggested document."""
    agent.define(document)
    agent.reload()
    agent.wait_for_event("ruleset_applied", 2)
    assert agent.command("mode", "enforce").status == 0


def comes_in(round_: int) -> list[WirePacket]:
    """Return the first packets of sessions with the host, from other ports in each round."""
    port = 40_000 + 100 * round_
    return [
        *(
            tcp(far, HOST, port + number, asked)
            for number, far in enumerate(CUSTOMERS)
            for asked in (80, 443)
        ),
        tcp(ADMIN, HOST, port, 22),
        icmpv6(ip_address("2001:db8:9::5"), HOST6, 128),
    ]


def goes_out(round_: int) -> list[WirePacket]:
    """Return the first packets of sessions that the host opens."""
    port = 50_000 + 100 * round_
    return [tcp(HOST, DATABASE, port, 5432), udp(HOST6, NAMES6, port, 53)]


def scan() -> list[WirePacket]:
    """Return a scan of ports, and a session that comes once."""
    return [
        *(tcp(SCANNER, HOST, 60_000, port) for port in range(2000, 2020)),
        tcp(STRANGER, HOST, 61_000, 8443),
    ]


def lines_in(path: Path) -> int:
    """Return how many flows a log has."""
    return sum(_is_flow(line) for line in _whole_lines(path))


def _whole_lines(path: Path) -> Iterable[str]:
    return path.read_text().splitlines() if path.exists() else ()


def _is_flow(line: str) -> bool:
    return '"number"' in line
