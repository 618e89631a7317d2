"""The way to the agent's own source is on the fail-safe list (§7.4)."""

from __future__ import annotations

import pytest

from sgagent.core.clauses import DecidedBy
from sgagent.core.endpoints import Endpoint, exempt
from sgagent.core.model import ALL_PROTOCOLS, TCP, CidrBlock, PortSet
from sgagent.core.policy import Exemption
from sgagent.core.resolve import Exemptions
from tests.words import DROP, OUT, decision, group, packet, resolution, rule, snapshot, verdict

NEAR, FAR = Endpoint.at("192.0.2.10", 443), Endpoint.at("2001:db8::10", 2379)


def test_each_is_an_entry_of_its_own() -> None:
    """Egress over TCP to just that address and port."""
    (entry,) = exempt([NEAR])
    assert entry == Exemption(
        direction=OUT, peer=CidrBlock.parse("192.0.2.10"), protocol=TCP, ports=PortSet.of((443, 443))
    )


def test_the_order_in_which_they_are_found_is_nothing() -> None:
    """Resolvers turn their answers around; the ruleset stays as it is."""
    assert exempt([FAR, NEAR, FAR]) == exempt([NEAR, FAR])


@pytest.mark.parametrize(
    ("written", "meant"), (("::ffff:192.0.2.10", "192.0.2.10"), ("fe80::1%eth0", "fe80::1"))
)
def test_addresses_as_sockets_write_them(written: str, meant: str) -> None:
    """What is compared is the packet on the wire (§2.2)."""
    assert Endpoint.at(written, 443) == Endpoint.at(meant, 443)


@pytest.mark.parametrize(("address", "port"), (("source.example", 443), ("192.0.2.10", 0), ("", 443)))
def test_what_is_none_is_refused(address: str, port: int) -> None:
    """A name is no address, and 0 no port."""
    with pytest.raises(ValueError, match="not"):
        Endpoint.at(address, port)


def test_no_group_blocks_the_way() -> None:
    """A drop of everything leaves the source in reach, and nothing beside it."""
    closed = group("sg-1", rule("all", DROP, ALL_PROTOCOLS, "", "0.0.0.0/0", direction=OUT))
    policy = resolution(snapshot(closed), exemptions=Exemptions(failsafe=exempt([NEAR]))).policy
    assert decision(policy, packet(OUT, "192.0.2.10", TCP, 443)).decided_by is DecidedBy.FAILSAFE
    assert verdict(policy, packet(OUT, "192.0.2.10", TCP, 444)) is DROP
