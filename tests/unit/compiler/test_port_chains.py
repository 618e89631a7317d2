"""The chain of a class decides every protocol, however many there are and whether ports are named or not."""

from __future__ import annotations

from sgagent.compiler.enforce import enforce
from sgagent.compiler.port_chains import FEW
from sgagent.compiler.port_table import MANY_LINES
from sgagent.core.model import LAST_PORT, TCP, UDP, Family, Protocol
from sgagent.nft.marks import MarkLayout
from sgagent.nft.ruleset import Interval, KeyType
from tests.tracing import walk
from tests.words import ACCEPT, DROP, IN, group, packet, policy_of, rule, verdict


def test_many_protocols_beside_ports() -> None:
    """Protocols that are decided as a whole are looked up in a map; ports are compared all the same."""
    whole = [Protocol(number) for number in range(60, 60 + 4 * FEW)]
    rules = [rule(f"whole-{protocol.number}", ACCEPT, protocol, "", "192.0.2.0/24") for protocol in whole]
    rules += [rule(f"host-{host}", ACCEPT, TCP, "443", f"198.51.100.{host}/32") for host in range(1, 60)]
    rules += [rule("ssh", ACCEPT, TCP, "22", "192.0.2.0/24"), rule("dns", DROP, UDP, "53", "192.0.2.0/24")]
    policy = policy_of(group("sg-1", *rules), on={"eth0": "sg-1"})
    table = enforce(policy, None, (), MarkLayout(0xFFFF0000)).compiled.ruleset
    assert any(found.key_types == (KeyType.INET_PROTO,) for found in table.verdict_maps)
    judged = [packet(IN, "192.0.2.7", number) for number in (47, *(p.wire_number for p in whole), 200)]
    judged += [
        packet(IN, "192.0.2.7", protocol, port) for protocol in (TCP, UDP) for port in (1, 22, 53, 65_535)
    ]
    assert [walk(table, one).accepted for one in judged] == [verdict(policy, one) is ACCEPT for one in judged]
    assert {verdict(policy, one) for one in judged} == {ACCEPT, DROP}


def test_many_source_ports_and_near_ends_are_looked_up() -> None:
    """By port first, then by address, each in a map of its own type; who fits none meets the default."""
    near = [f"10.0.0.{host}/32" for host in range(1, 2 * MANY_LINES)]
    rules = [
        rule(f"from-{port}", ACCEPT, TCP, "443", "0.0.0.0/0", source_ports=str(port), priority=1)
        for port in range(1024, 1024 + 4 * MANY_LINES, 2)
    ]
    rules += [
        rule(f"at-{one}", (ACCEPT, DROP)[place % 2], TCP, "443", "0.0.0.0/0", local=one, priority=2)
        for place, one in enumerate(near)
    ]
    rules += [rule(f"host-{host}", ACCEPT, TCP, "22", f"198.51.100.{host}/32") for host in range(1, 60)]
    policy = policy_of(group("sg-1", *rules), on={"eth0": "sg-1"})
    table = enforce(policy, None, (), MarkLayout(0xFFFF0000)).compiled.ruleset
    splits = [found for found in table.verdict_maps if found.name.startswith("split/")]
    lasts = {
        key.last: found.key_types
        for found in splits
        for key in found.elements[-1].key
        if isinstance(key, Interval)
    }
    assert lasts == {LAST_PORT: (KeyType.INET_SERVICE,), Family.IPV4.last_address: (KeyType.IPV4_ADDR,)}
    judged = [
        packet(IN, "192.0.2.7", TCP, 443, near_end=f"10.0.0.{host}", source_port=port)
        for host in (1, 2, len(near), 200)
        for port in (1023, 1024, 1025, 1026)
    ]
    assert [walk(table, one).accepted for one in judged] == [verdict(policy, one) is ACCEPT for one in judged]
    assert {verdict(policy, one) for one in judged} == {ACCEPT, DROP}
