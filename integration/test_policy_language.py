"""Lists, a name, an end, patterns and own addresses in one rule, on a host with a name server (§12)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from integration.lab import Lab, wait_for
from integration.nameservers import DNS, on_the_wire
from integration.service import NOTICED_SECONDS, service_on
from integration.test_link_patterns import flooded
from sgagent.policy_test.packet_bytes import tcp, udp
from tests.nameserver import NameServer, addresses

HOST, HOST6, FOREIGN = map(ip_address, ("10.0.0.11", "2001:db8::11", "10.0.0.99"))
NAMED, NAMED6, LISTED, OTHER = map(
    ip_address, ("192.0.2.80", "2001:db8:8::80", "198.51.100.7", "203.0.113.7")
)
LIFE_SECONDS = 2.0
"""From a change that gives the rule an end to that end."""

FAR_END = "2199-12-31T00:00:00Z"
CONFIGURATION = f"""
{DNS}
[enforcement]
source_check = "on"
[[interface]]
name = "eth*"
security_group_ids = ["sg-1"]
[[interface]]
name = "v-*"
exclude = ["v-x*"]
security_group_ids = ["sg-1"]
"""
RULES = """
version: 1
security_groups:
  - security_group_id: sg-1
    type: advanced
    rules:
      - rule_id: sgr-in
        direction: ingress
        policy: accept
        protocol: [tcp, udp]
        port_range: [80, 443]
        authorization_object: [198.51.100.0/24, dns:Mirror.example.org., '2001:db8:7::/48']
        expires: {expires}
      - {{rule_id: sgr-out, direction: egress, policy: accept, protocol: [tcp, udp], port_range: 443,
         authorization_object: [dns:mirror.example.org, 203.0.113.0/24]}}
"""


def test_one_rule_has_all_of_it(one_interface: Lab, tmp_path: Path) -> None:
    """Each part holds, on a link that was there and on one that comes; the kernel's table is proved."""
    lab = one_interface
    lab.add_host_addresses([str(HOST), str(HOST6)])
    server = NameServer({"mirror.example.org": addresses(str(NAMED), str(NAMED6), ttl=60)})
    with service_on(lab.host, tmp_path) as agent, on_the_wire(lab, server):
        agent.verifies = True
        agent.configure(CONFIGURATION)
        agent.define(RULES.format(expires=FAR_END))
        agent.start()
        wait_for(lambda: str(NAMED) in agent.table() and str(NAMED6) in agent.table(), "the name")
        # They are in the table before packets meet them.
        leaving = [tcp(HOST, NAMED, 1024, 443), tcp(HOST6, NAMED6, 1024, 443)]
        wait_for(lambda: lab.send_egress(leaving) == [True] * 2, "the name to be reached")
        entering = [tcp(LISTED, HOST, 1024, 443), udp(NAMED, HOST, 1024, 80), tcp(NAMED6, HOST6, 1024, 443)]
        assert lab.send_ingress(entering) == [True] * 3
        assert lab.send_ingress([tcp(OTHER, HOST, 1024, 443), tcp(LISTED, HOST, 1024, 22)]) == [False] * 2
        assert lab.send_ingress([tcp(HOST, HOST, 1024, 443)]) == [False]
        assert lab.send_egress([tcp(FOREIGN, NAMED, 1024, 443), tcp(HOST, NAMED, 1024, 80)]) == [False] * 2
        hits = agent.metric("sgagent_rule_packets_total", interface="eth0", rule_id="sgr-in")
        assert hits == len(entering)
        assert agent.metric("sgagent_spoofed_packets_total", interface="eth0", direction="ingress") == 1
        with flooded(lab, "v-1") as link:
            link.come()
            link.wait_for_allowed()
            end = time.time() + LIFE_SECONDS
            agent.define(RULES.format(expires=datetime.fromtimestamp(end, UTC).isoformat()))
            wait_for(lambda: time.time() > end, "the end of the rule", LIFE_SECONDS)
            wait_for(lambda: "sgr-in" not in agent.table(), "the table without the rule", NOTICED_SECONDS)
            _, _, _, allowed = link.counts()
            _, passed, _, allowed_later = link.wait_for_packets()
            assert (passed, allowed_later) == (0, allowed)
        assert lab.send_ingress(entering) == [False] * 3
        agent.wait_for_proof()
        assert not agent.events("table_refuted")
