"""Three machines provisioned by the script that vagrant runs, and which of them reach each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import pytest

from integration.machine import why_not
from integration.package import EARLIER, why_not as why_no_package
from integration.tiers import TIERS, Town, town

pytestmark = [
    pytest.mark.machines,
    pytest.mark.long,
    pytest.mark.skipif(
        bool(_reason := why_not() or why_no_package()), reason=f"no machine with a package: {_reason}"
    ),
]

Flow: TypeAlias = tuple[str, str, int]

OPEN, SHUT = True, False
TRIES = 5
FLOWS: Mapping[Flow, bool] = {
    ("customer", "10.1.0.11", 80): OPEN,
    ("customer", "10.1.0.12", 80): OPEN,
    ("customer", "2001:db8:1::11", 80): OPEN,
    ("customer", "10.1.0.11", 9999): SHUT,
    ("customer", "10.1.0.21", 8080): SHUT,
    ("customer", "2001:db8:1::21", 8080): SHUT,
    ("customer", "10.1.0.31", 5432): SHUT,
    ("web", "10.1.0.21", 8080): OPEN,
    ("web", "2001:db8:1::21", 8080): OPEN,
    ("web", "10.1.0.21", 9999): SHUT,
    ("web", "10.1.0.31", 5432): SHUT,
    ("web", "2001:db8:1::31", 5432): SHUT,
    ("app", "10.1.0.31", 5432): OPEN,
    ("app", "2001:db8:1::31", 5432): OPEN,
    ("app", "10.1.0.31", 9999): SHUT,
    ("app", "10.1.0.11", 80): OPEN,
    ("database", "10.1.0.21", 8080): SHUT,
    ("database", "10.1.0.11", 80): SHUT,
}
"""Who reaches what once the groups are enforced; something listens at all of these."""


@pytest.fixture(scope="module")
def built_town() -> Iterator[Town]:
    """Boot the machines."""
    with town() as made:
        yield made


def reached(made: Town, wanted: Mapping[Flow, bool]) -> dict[Flow, bool]:
    """Try all flows at once; those that must be open are tried again, as a busy machine may need longer."""

    def is_reached(flow: Flow) -> bool:
        tries = TRIES if wanted[flow] is OPEN else 1
        return any(made.reaches(*flow) for _ in range(tries))

    with ThreadPoolExecutor(len(wanted)) as pool:
        return dict(zip(wanted, pool.map(is_reached, wanted), strict=True))


def test_the_provisioned_machines_reach_what_their_groups_allow(built_town: Town) -> None:
    """Each ends its provisioning enforcing; traffic then is as examples/three-tier says, IPv6 included."""
    with ThreadPoolExecutor() as pool:
        told = list(pool.map(built_town.provision, TIERS))
    assert all(f"sgagent {EARLIER}" not in text for text in told)
    assert [text.rpartition("enforcing since")[1] for text in told] == ["enforcing since"] * 3
    assert reached(built_town, FLOWS) == FLOWS
    for machine in built_town.machines.values():
        machine.run("systemctl", "stop", "sgagent.service")
        machine.run("sgagent", "flush")
    without = dict.fromkeys(FLOWS, OPEN)
    assert reached(built_town, without) == without


def test_it_may_be_provisioned_again(built_town: Town) -> None:
    """A second run ends as the first, with the package installed anew and nothing lost."""
    assert "enforcing since" in built_town.provision(TIERS[0])
    assert built_town.reaches("customer", "10.1.0.11", 80)
    assert not built_town.reaches("customer", "10.1.0.11", 9999)
