"""The names that definitions have for addresses."""

from __future__ import annotations

import time
from ipaddress import ip_address

from sgagent.agent.flowlog.enrichment import NAMELESS, Directory, Name
from sgagent.core.model import CidrBlock, Family, GroupType, NetworkInterface, SecurityGroup, Snapshot


def interface(name: str, vpc: str | None, group: str, *addresses: str) -> NetworkInterface:
    """Return an interface with one group."""
    return NetworkInterface(
        network_interface_id=name,
        vpc_id=vpc,
        addresses=tuple(map(CidrBlock.parse, addresses)),
        security_group_ids=(group,),
    )


DIRECTORY = Directory(
    Snapshot(
        version="v1",
        security_groups=(
            SecurityGroup(
                security_group_id="sg-ops",
                group_type=GroupType.BASIC,
                member_addresses=(CidrBlock.parse("10.9.0.0/16"), CidrBlock.parse("10.0.0.11")),
            ),
        ),
        network_interfaces=(
            interface("eni-1", "vpc-1", "sg-web", "10.0.0.11", "2001:db8::11", "10.0.8.0/28"),
            interface("eni-2", "vpc-2", "sg-other", "10.0.0.11"),
            interface("eni-3", None, "sg-db", "10.9.0.5"),
        ),
    )
)


def name(text: str, vpc: str | None = "vpc-1") -> Name:
    """Return what an address is called."""
    address = ip_address(text)
    return DIRECTORY.name(Family.IPV4 if address.version == 4 else Family.IPV6, int(address), vpc)


def test_an_address_has_the_name_of_its_interface_and_all_its_groups() -> None:
    """Those that the interface has, and those that list the address themselves."""
    assert name("10.0.0.11") == Name("eni-1", ("sg-ops", "sg-web"))
    assert name("2001:db8::11") == Name("eni-1", ("sg-web",))


def test_a_delegated_prefix_belongs_to_its_interface() -> None:
    """Each of its addresses does."""
    assert name("10.0.8.15") == Name("eni-1", ("sg-web",))
    assert name("10.0.8.16") == NAMELESS


def test_a_member_that_is_on_no_interface_has_its_groups_name() -> None:
    """A network may be a member, and one of its addresses on an interface."""
    assert name("10.9.1.1") == Name(None, ("sg-ops",))
    assert name("10.9.0.5") == Name("eni-3", ("sg-db", "sg-ops"))


def test_the_same_address_in_another_vpc_is_another() -> None:
    """Where the VPC is not known, both may be meant."""
    assert name("10.0.0.11", "vpc-2") == Name("eni-2", ("sg-ops", "sg-other"))
    assert name("10.0.0.11", None) == Name(None, ("sg-ops", "sg-other", "sg-web"))


def test_a_stranger_has_no_name() -> None:
    """Nor has an address whose number means something in the other family."""
    assert name("203.0.113.9") == NAMELESS
    assert DIRECTORY.name(Family.IPV6, int(ip_address("10.0.0.11")), None) == NAMELESS


def test_an_address_of_many_owners_is_named_in_linear_time() -> None:
    """None is copied for each later one, as took 13 s for 40,000."""
    owners = tuple(interface(f"eni-{number}", None, "sg-web", "10.0.0.1") for number in range(50_000))
    directory = Directory(Snapshot(version="v", network_interfaces=owners))
    began = time.process_time()
    assert directory.name(Family.IPV4, int(ip_address("10.0.0.1")), None) == Name(None, ("sg-web",))
    assert time.process_time() - began < 10


def test_the_vpc_of_an_interface() -> None:
    """As far as the definitions know it."""
    assert DIRECTORY.vpc_of("eni-1") == "vpc-1"
    assert DIRECTORY.vpc_of("eni-9") is None
    assert DIRECTORY.vpc_of(None) is None
