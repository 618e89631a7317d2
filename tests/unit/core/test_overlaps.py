"""Two interfaces with one address: an error of the whole, wherever it is checked (§8.1, §8.3)."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from sgagent.core.cloud_limits import MOST_PER_ADDRESS, overlap_errors
from sgagent.core.errors import Severity
from sgagent.core.model import NetworkInterface
from sgagent.core.resolve import Scope
from tests.words import interface, resolution, snapshot


def found(*interfaces: NetworkInterface) -> list[tuple[str | None, str]]:
    """Return the value and the message of every error, without where the other interface is defined."""
    errors = overlap_errors(interfaces)
    return [(error.value, error.message.partition(" (")[0]) for error in errors]


@pytest.mark.parametrize(
    ("vpc", "other_vpc", "is_error"),
    (
        (None, None, True),
        ("vpc-1", None, True),
        (None, "vpc-1", True),
        ("vpc-1", "vpc-1", True),
        ("vpc-1", "vpc-2", False),
    ),
)
def test_only_two_vpcs_may_use_one_address(vpc: str | None, other_vpc: str | None, *, is_error: bool) -> None:
    """One that is not known may be any."""
    first = interface("eni-1", addresses=["10.0.0.5"], vpc=vpc)
    second = interface("eni-2", addresses=["10.0.0.5"], vpc=other_vpc)
    expected = [("10.0.0.5", "eni-2 has an address that eni-1 has too")] if is_error else []
    assert found(first, second) == expected


@pytest.mark.parametrize(
    ("addresses", "other_addresses", "error"),
    (
        (["10.0.0.1", "10.0.0.5"], ["10.0.0.2", "10.0.0.5"], ("10.0.0.5", "that")),
        (["10.0.8.0/28"], ["10.0.0.1", "10.0.8.3"], ("10.0.8.3", "in 10.0.8.0/28 that")),
        (["10.0.8.3"], ["10.0.8.0/28"], ("10.0.8.0/28", "in 10.0.8.3 that")),
        (["10.0.8.0/28"], ["10.0.8.8/29"], ("10.0.8.8/29", "in 10.0.8.0/28 that")),
        (["2001:db8::5"], ["2001:db8::/64"], ("2001:db8::/64", "in 2001:db8::5 that")),
        (["10.0.0.5"], ["10.0.0.6", "2001:db8::5"], None),
        (["10.0.8.0/28", "10.0.8.3"], ["10.0.8.16/28"], None),
        (["0.0.0.5"], ["::5"], None),
    ),
)
def test_secondary_addresses_and_prefixes_count(
    addresses: list[str], other_addresses: list[str], error: tuple[str, str] | None
) -> None:
    """Whatever overlaps, in one family; an interface may say an address of its own twice."""
    first, second = interface("eni-1", addresses=addresses), interface("eni-2", addresses=other_addresses)
    expected = [(error[0], f"eni-2 has an address {error[1]} eni-1 has too")] if error else []
    assert found(first, second) == expected


def test_a_third_interface_is_found_as_well() -> None:
    """Also where a wide prefix of its own stands between."""
    wide = interface("eni-2", addresses=["10.0.0.0/8"], vpc="vpc-2")
    ends = [interface(name, addresses=["10.0.0.5"], vpc="vpc-1") for name in ("eni-1", "eni-3", "eni-4")]
    assert [value for value, _ in found(ends[0], wide, *ends[1:])] == ["10.0.0.5"] * 3


def test_every_interface_that_shares_is_named() -> None:
    """Held against all pairs, over many small worlds."""
    choice = random.Random(11)
    for _ in range(300):
        interfaces = [
            interface(
                f"eni-{number}",
                addresses={choice.choice(BLOCKS) for _ in range(choice.randrange(3))},
                vpc=choice.choice((None, "vpc-1", "vpc-2")),
            )
            for number in range(choice.randrange(5))
        ]
        sharing = {
            one.network_interface_id for pair in combinations(interfaces, 2) if _share(*pair) for one in pair
        }
        said = " ".join(message for _, message in found(*interfaces))
        assert {one.network_interface_id for one in interfaces if one.network_interface_id in said} == sharing


BLOCKS = ("10.0.0.1", "10.0.0.2", "10.0.0.0/30", "10.0.0.0/31", "10.0.0.2/31", "10.0.0.0/24", "::1", "::/64")


def _share(one: NetworkInterface, other: NetworkInterface) -> bool:
    """Tell whether two interfaces have an address in common that only one can have."""
    if one.vpc_id and other.vpc_id and one.vpc_id != other.vpc_id:
        return False
    return any(
        a.family is b.family and a.first <= b.last and b.first <= a.last
        for a in one.addresses
        for b in other.addresses
    )


def test_an_address_that_very_many_have_takes_no_time() -> None:
    """Each is named with a few others, not with all."""
    many = [interface(f"eni-{number}", addresses=["10.0.0.5", "::5"]) for number in range(5000)]
    errors = found(*many)
    assert len(many) - 1 <= len(errors) <= MOST_PER_ADDRESS * len(many)


def test_whoever_looks_at_the_whole_refuses() -> None:
    """An agent refuses what it can't tell apart among its own links, and nothing else (§8.3)."""
    definitions = snapshot(*(interface(name, addresses=["10.0.0.5"]) for name in ("eni-1", "eni-2")))
    whole = resolution(definitions, on={}, scope=Scope.EVERYTHING).problems
    assert [(problem.severity, problem.code) for problem in whole] == [(Severity.ERROR, "duplicate_address")]
    assert resolution(definitions, on={}, scope=Scope.HOST).problems == ()
