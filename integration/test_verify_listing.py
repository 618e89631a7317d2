"""The verifier's reading of rules that people write agrees with the kernel."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from integration.verified_packets import with_bytes_of_ports
from integration.verify_stage import stage
from sgagent.nft import ruleset as nft
from sgagent.nft.ruleset import Element, Interval, KeyType, Ruleset, Symbol, VerdictMap
from sgagent.verify.interpreter import run
from sgagent.verify.programs import read_table
from tests.aimed_packets import Edges, Search
from tests.draws import SeededDraws
from tests.verified_cases import at_hook

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
SEEDS = range(1, 41 if IS_FULL else 3)
PACKETS = 3_000
LINKS = ("eth0", "eth1")

CONDITIONS = """
ct state established,new
ct state { established, new, untracked }
ct state != { established, new }
ct state new
ct state != new
ct state & established != 0
ct direction original
ct direction != original
ct mark 1-5
ct mark { 1, 5-7, 0x80000000-0xffffffff }
ct mark != { 1, 5-7 }
ct mark & 0xff == 1
ct mark & 0xff != 1
ct mark & 0xffff0000 == 0x00410000
ct mark & 0xff00 0x100-0x500
meta nfproto ipv4
meta nfproto != ipv4
meta l4proto { tcp, udp }
meta l4proto != { tcp, udp }
meta l4proto 51
meta l4proto 1-17
tcp dport 80
tcp dport != 80
tcp dport 80-443
tcp dport != 80-443
tcp dport { 22, 80-443, 1024-65535 }
tcp sport 1024-65535
udp dport 53
udp sport != 53
th dport 80
th dport { 0-79, 4352 }
th dport != 80
tcp dport & 0xff00 == 0x1100
tcp dport & 0x8001 != 1
tcp dport > 1023
udp sport <= 53
tcp dport & 7 @ports
meta l4proto & 16 == 16
ip saddr 10.0.0.0/8
ip saddr != 10.0.0.0/8
ip saddr { 10.0.0.1, 10.0.0.2-10.0.0.9, 192.0.2.0/24 }
ip saddr 10.0.0.0/8 ip daddr 10.0.0.0/9
ip protocol tcp
ip protocol != udp
ip6 saddr 2001:db8::/32
ip6 daddr != 2001:db8::1
ip6 hoplimit 255
ip6 hoplimit != 1-64
ip6 hoplimit < 64
icmp type echo-request
icmp type != 8
icmp type { 0, 3, 8, 11-12 }
icmpv6 type 133-136
icmpv6 type { 128, 129 } ip6 hoplimit 64
ct original ip saddr 10.0.0.0/8
ct original ip daddr != 10.0.0.0/8
ct reply ip saddr 10.0.0.1
ct original ip6 saddr 2001:db8::/32
ct original proto-dst 80
ct reply proto-src { 80, 443 }
ct original proto-src != 1000-2000
ct protocol tcp
ct protocol != { tcp, udp }
ct protocol udp th dport 53
iifname "eth0"
iifname != "eth0"
iifname { "eth0", "lo" }
iifname "eth*"
iifname != "e*"
iifname { "eth1*", "lo" }
oifname "eth0*"
oifname "eth1"
oifname != "eth1"
iif lo
ip saddr @addresses
tcp dport @ports
ip saddr @nobody
ip saddr != @nobody
meta l4proto udp ct original proto-dst 53
""".strip().splitlines()

_EDGES = {
    KeyType.IPV4_ADDR: (0x0A000001, 0x0A000009, 0x0AFFFFFF, 0xC0000207),
    KeyType.IPV6_ADDR: (0x20010DB8 << 96 | 1, 0x20010DB8 << 96 | 7, (0x20010DB9 << 96) - 1),
    KeyType.INET_SERVICE: (22, 53, 79, 80, 443, 1000, 1024, 2000, 4352, 65535),
    KeyType.MARK: (1, 5, 7, 0x00410001, 0x00410000, 0x180, 0x80000000),
}


def edges() -> Edges:
    """Return the values at and beside those that the conditions compare."""
    maps = [
        VerdictMap(
            name=key_type.value,
            key_types=(key_type,),
            elements=tuple(Element((Interval.single(one),), nft.Accept()) for one in numbers),
        )
        for key_type, numbers in _EDGES.items()
    ]
    links = tuple(Element((Symbol(name),), nft.Accept()) for name in LINKS)
    maps.append(VerdictMap(name="links", key_types=(KeyType.IFNAME,), elements=links))
    return Edges(Ruleset(verdict_maps=tuple(maps)))


def text(hook: str, priority: int, chosen: list[str]) -> str:
    """Return a table that counts the packets that meet each condition."""
    counters = "".join(f"counter c{number} {{ }}\n" for number in range(len(chosen)))
    rules = "\n".join(f"{condition} counter name c{n}" for n, condition in enumerate(chosen))
    return f"""
    table inet sgagent {{
        {counters}
        set addresses {{ type ipv4_addr; flags interval; elements = {{ 10.0.0.0/30, 192.0.2.7 }} }}
        set nobody {{ type ipv4_addr; flags interval; }}
        set ports {{ type inet_service; elements = {{ 80, 2000 }} }}
        chain base {{
            type filter hook {hook} priority {priority}; policy accept;
            {rules}
        }}
    }}
    """


@pytest.mark.parametrize(("hook", "priority"), (("prerouting", -150), ("postrouting", 300)))
@pytest.mark.parametrize("seed", SEEDS)
def test_conditions_are_met_by_the_packets_that_the_kernel_says(seed: int, hook: str, priority: int) -> None:
    """Each condition that is understood is met by as many of the packets as the kernel counts."""
    draws, chosen = SeededDraws(seed), CONDITIONS
    search = Search(Ruleset(), edges())
    drawn = [at_hook(search.anything(draws)) for _ in range(PACKETS)]
    packets = [with_bytes_of_ports(packet) for packet in drawn]
    packets = [packet for packet in packets if packet.hook == hook and packet.interface in LINKS]
    with stage(*LINKS) as kernel:
        kernel.play([])  # from here on the links are silent
        with kernel.lab.host.entered():
            kernel.context.load(text(hook, priority, chosen))
        table = read_table(kernel.dump())
        assert table.unsupported == ()
        observed = kernel.play(packets)
        counted = kernel.counters()
    expected: Counter[str] = Counter()
    for packet, seen in zip(packets, observed, strict=True):
        if seen is not None:
            expected.update(run(table, packet).counters)
    assert {
        f"{condition}: {counted[f'c{n}']}, not {expected[f'c{n}']}"
        for n, condition in enumerate(chosen)
        if counted[f"c{n}"] != expected[f"c{n}"]
    } == set()
