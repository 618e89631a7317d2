"""The doctor names what is planted beside a bound link, and says nothing of clean hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.namespaces import Namespace
from integration.neighbours import CLEAN, PLANTED, CleanHost, Neighbour, bare_host
from sgagent.agent.examination import Examination
from sgagent.analysis.doctor.facts import BoundLink, PolicyFact
from sgagent.analysis.doctor.findings import Blindness, DoctorFinding
from sgagent.dataplane.ruleset_dump import read_ruleset
from sgagent.host.links import NetlinkHost
from sgagent.settings import Settings

_OF_MACHINE = {"flusher", "old_nft", "clock", "kernel_feature"}
"""Findings of the machine that the tests run on: the network namespace has no part in them."""


@pytest.fixture
def host() -> Iterator[Namespace]:
    """Make a host with two links."""
    with bare_host() as made:
        yield made


def examine(host: Namespace, bound: tuple[str, ...]) -> tuple[DoctorFinding, ...]:
    """Return what the doctor finds in the host's network namespace."""
    policy = PolicyFact(bound=tuple(BoundLink(name=name) for name in bound))
    examination = Examination(
        settings=Settings(), read_rules=read_ruleset, own_sockets=frozenset, owns_tables=lambda: True
    )
    with host.entered():
        found = examination.diagnose(policy, NetlinkHost().facts())
    assert {one.what for one in found.not_seen} <= {Blindness.CONTAINERS}
    return tuple(one for one in found.findings if one.code.value not in _OF_MACHINE)


def places(findings: tuple[DoctorFinding, ...]) -> set[tuple[str, str | None, str | None, str | None]]:
    """Return codes and places."""
    return {(one.code.value, one.link, one.table, one.chain) for one in findings}


@pytest.mark.parametrize("neighbour", PLANTED, ids=lambda one: one.name)
def test_a_planted_neighbour_is_named(host: Namespace, neighbour: Neighbour) -> None:
    """Code, link, table and chain are those that were planted, and there is nothing else."""
    neighbour.plant(host)
    assert places(examine(host, neighbour.bound)) == neighbour.found


def test_enough_is_planted() -> None:
    """At least 40 neighbours, each of its own name."""
    assert len({one.name for one in PLANTED}) == len(PLANTED) >= 40


@pytest.mark.parametrize("clean", CLEAN, ids=lambda one: one.name)
def test_of_a_clean_host_nothing_is_said(host: Namespace, clean: CleanHost) -> None:
    """What others run beside sgagent without touching the policy is no finding."""
    clean.plant(host)
    assert examine(host, clean.bound) == ()
