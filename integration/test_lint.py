"""Lint looks at life: at the running agent's counts, and at the host's listeners."""

from __future__ import annotations

import contextlib
import json
import socket
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from integration.lab import Lab, wait_for
from integration.prepared_agent import agent_with
from integration.service import Service, definitions, is_let_in
from sgagent.core.binding import HostListener
from sgagent.core.model import Family
from sgagent.dataplane.live_sessions import list_listeners

HOST, HOST6, CLIENT = "10.0.0.11", "2001:db8::11", "198.51.100.7"
ANYWHERE = "0.0.0.0"  # noqa: S104 - where programs of the test's own namespace wait
POLICY = definitions("ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress accept 1 tcp 8080 from 0.0.0.0/0")
DAY = 86_400.0


agent = agent_with(POLICY, is_started=False)


def found(agent: Service, *arguments: str) -> dict[str, set[str]]:
    """Return lint's findings: rules by code; the message of one that is about no rule."""
    ended = agent.command("lint", "--json", *arguments)
    assert ended.errors == ""
    codes: dict[str, set[str]] = {}
    for one in json.loads(ended.output)["findings"]:
        codes.setdefault(one["code"], set()).add((one["rule_ids"] or [one["message"]])[0])
    return codes


def times(agent: Service) -> dict[str, Any]:
    """Return when each rule was hit last."""
    answer = agent.as_json("hits")
    return {hit["rule_id"]: hit["last_hit_at"] for part in answer["interfaces"] for hit in part["hits"]}


def age(agent: Service, days: float) -> None:
    """Move all that the agent keeps of hits into the past; it must not run."""
    path = agent.state / "counters.json"
    outer = json.loads(path.read_text())
    body = json.loads(outer["body"])
    for row in body["times"]:
        row[-2:] = [None if moment is None else moment - days * DAY for moment in row[-2:]]
    text = json.dumps(body)
    path.write_text(json.dumps(outer | {"body": text, "sha256": sha256(text.encode()).hexdigest()}))


def test_a_rule_that_nobody_uses(agent: Service, one_interface: Lab) -> None:
    """It is found once it was counted for long enough without a hit; one that was hit meanwhile is not."""
    agent.start()
    host, client = ip_address(HOST), ip_address(CLIENT)
    assert is_let_in(one_interface, client, host, 80)
    wait_for(lambda: times(agent).get("sgr-0") is not None, "the hit to be counted")
    assert "unused_rule" not in found(agent, "--unused", "30d")
    agent.stop()
    age(agent, 40)
    agent.start()
    assert found(agent, "--unused", "30d")["unused_rule"] == {"sgr-0", "sgr-1"}
    assert is_let_in(one_interface, client, host, 80)
    wait_for(lambda: found(agent, "--unused", "30d")["unused_rule"] == {"sgr-1"}, "the hit to count")


def test_who_listens(agent: Service, one_interface: Lab) -> None:
    """Ports that are open without anybody there, and programs that nobody gets to, over both families."""
    with contextlib.ExitStack() as stack:
        for address, port in ((HOST, 80), (ANYWHERE, 9000), ("127.0.0.1", 9001), ("::", 9002)):
            stack.enter_context(one_interface.listen(one_interface.host, address, port))
        codes = found(agent)
    assert codes["nothing_listens"] == {"sgr-1"}
    (message,) = codes["unreached_listener"]
    assert "tcp 9000, 9002," in message


def test_listeners_of_a_namespace(one_interface: Lab) -> None:
    """TCP's and UDP's, but for those at loopback, and those of UDP at ports that clients have."""
    one_interface.add_host_addresses([HOST, HOST6])
    with contextlib.ExitStack() as stack:
        for address, port in ((ANYWHERE, 9000), ("127.0.0.1", 9001), (HOST6, 9002)):
            stack.enter_context(one_interface.listen(one_interface.host, address, port))
        for port in (53, 40_000):
            stack.enter_context(one_interface.listen(one_interface.host, HOST, port, socket.SOCK_DGRAM))
        with one_interface.host.entered():
            listeners = list_listeners()
    assert listeners == (
        HostListener(family=Family.IPV4, address=0, protocol=6, port=9000),
        HostListener(family=Family.IPV6, address=int(ip_address(HOST6)), protocol=6, port=9002),
        HostListener(family=Family.IPV4, address=int(ip_address(HOST)), protocol=17, port=53),
    )


def test_a_gateway_admits_to_those_behind_it(agent: Service, one_interface: Lab) -> None:
    """Its rules without a near end do, once it forwards, if it has another link."""
    host = one_interface.host
    host.ip("link add lan0 type bridge", "link set lan0 up", "address add 10.20.0.1/24 dev lan0")
    assert "admits_behind" not in found(agent)
    host.run("sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1")
    assert found(agent)["admits_behind"] == {"sgr-0", "sgr-1"}
    host.ip("link delete lan0")
    assert "admits_behind" not in found(agent)
