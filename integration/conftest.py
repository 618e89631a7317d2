"""Skip tests that need root for others than root, and leave no namespace behind."""

from __future__ import annotations

import gc
import os
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from integration.lab import Lab, host_with_address, lab
from integration.machine import Machine, machine_in
from integration.namespaces import Namespace, network_namespace, remove_stale_namespaces
from integration.service import Service, service_on
from integration.traffic import Traffic, traffic


def pytest_configure() -> None:
    """Turn a request to terminate into an orderly end, in which every context is left."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # pytest takes SystemExit for a test's failure
    if os.geteuid() == 0:
        remove_stale_namespaces()


def sampled_tests(items: list[pytest.Item]) -> Iterable[tuple[int, list[pytest.Item]]]:
    """Return the size of the sample and all cases of each test that is sampled."""
    tests: defaultdict[tuple[str, int], list[pytest.Item]] = defaultdict(list)
    for item in items:
        marker = item.get_closest_marker("sampled")
        if marker is not None and item.get_closest_marker("long") is None:
            tests[item.nodeid.partition("[")[0], marker.args[0]].append(item)
    return [(count, cases) for (_, count), cases in tests.items()]


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is left out of a sample as long; skip the tests that only root can run, and say why."""
    for count, cases in sampled_tests(items):
        kept = {at * len(cases) // count for at in range(count)}
        for at, case in enumerate(cases):
            if at not in kept:
                case.add_marker(pytest.mark.long)
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs root, to make network namespaces"))


def pytest_collection_finish() -> None:
    """Keep collected objects out of each later search for garbage, a twentieth of all time."""
    gc.freeze()


@pytest.fixture
def one_interface() -> Iterator[Lab]:
    """Build a host with ``eth0`` and its peer."""
    with lab() as built:
        yield built


@pytest.fixture
def bench(one_interface: Lab) -> Lab:
    """Give the host 10.0.0.11 and 2001:db8::11; some tests have another bench."""
    one_interface.add_host_addresses(["10.0.0.11", "2001:db8::11"])
    return one_interface


@pytest.fixture
def agent(bench: Lab, tmp_path: Path) -> Iterator[Service]:
    """Give the host of the bench an agent that is not started yet."""
    with service_on(bench.host, tmp_path) as made:
        yield made


@pytest.fixture
def running(agent: Service) -> Service:
    """Start the agent."""
    agent.start()
    return agent


@pytest.fixture
def busy(one_interface: Lab) -> Iterator[Traffic]:
    """Return sessions to be opened."""
    with traffic(one_interface) as made:
        yield made


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Make a network namespace and move the test into it."""
    with network_namespace() as made, made.entered():
        yield made


wire = pytest.fixture(host_with_address)


@pytest.fixture
def machine(wire: Lab) -> Iterator[Machine]:
    """Boot a machine without sgagent in that network."""
    with machine_in(wire.host, is_bare=True) as made:
        made.boot()
        yield made
