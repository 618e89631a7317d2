"""The daemon changes policies in one moment too, and its death leaves a table that judges by one policy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from integration.lab import Lab
from integration.pairs import Pair
from integration.storm import bench, storm_on
from integration.stormdaemon import Deaths, kill_once, stormed_daemon, unreferenced
from integration.stormpairs import SMALL
from integration.streams import Storm, Tally

IS_FULL = bool(os.environ.get("SGAGENT_FULL"))
CHANGES = 100 if IS_FULL else 6
TRIES = 50 if IS_FULL else 2
BESIDE = 100
"""Rules of another link that come and go, so that the kernel's commit takes a while."""

_NAMES = ("drop_on_a_list", "accept_for_a_list", "network_is_cut", "map_of_source_ports")
PAIRS = [pair.beside(BESIDE) for pair in SMALL if pair.name in _NAMES]


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    """Build the bench."""
    with bench() as built:
        yield built


@pytest.fixture
def storm(host: Lab) -> Iterator[Storm]:
    """Return a storm on the bench."""
    with storm_on(host) as made:
        yield made


@pytest.mark.sampled(1)
@pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])
def test_the_daemon_changes_in_one_moment(host: Lab, storm: Storm, pair: Pair, tmp_path: Path) -> None:
    """From a document that is written anew and SIGHUP to the event that says that it is enforced."""
    tally = Tally()
    with stormed_daemon(host, storm, pair, tmp_path) as daemon:
        for _ in range(CHANGES):
            tally += daemon.change()
    assert tally.forbidden > 0
    assert tally.faults == {}, f"in {tally.changes} changes"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("applier", (False, True), ids=("the daemon", "the applier"))
def test_a_death_leaves_a_one_policy_table(host: Lab, storm: Storm, tmp_path: Path, *, applier: bool) -> None:
    """One policy judges, nothing is let in, lost or kept open, and the next start cleans up."""
    deaths, random = Deaths(), Random(11)
    with stormed_daemon(host, storm, PAIRS[0], tmp_path) as daemon:
        for _ in range(TRIES):
            kill_once(daemon, random, deaths, applier=applier)
    assert set(deaths.judged_by) == {1}
    assert deaths.tally.faults == {}


def test_what_nothing_refers_to_is_found() -> None:
    """Chains, maps and counters that are left over are named; base chains and the state are not."""
    blocks = {
        "counter used": "packets 0 bytes 0",
        "counter left": "packets 0 bytes 0",
        "map ports/a": "elements = { 80 : goto leaf }",
        "set old": "type ipv4_addr",
        "chain prerouting": "type filter hook prerouting priority -150;\n\t\ttcp dport vmap @ports/a",
        "chain leaf": 'counter name "used" drop',
        "chain gone": "drop",
        "chain generation": 'comment "mask 0xffff0000 generation 1 slots eth0 / /"',
    }
    body = "\n".join(f"\t{name} {{\n\t\t{content}\n\t}}\n" for name, content in blocks.items())
    listing = f"table inet sgagent {{\n{body}}}\n"
    assert unreferenced(listing) == {"left", "old", "gone"}
