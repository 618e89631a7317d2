"""The agent on the oldest Python: PyPI's copy of libnftables' binding is older than the library."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab
from integration.service import Service, definitions, is_let_in, service_on

OLDEST = Path(__file__).parent.parent / ".venv-3.11" / "bin" / "python"
HOST, CLIENT = ip_address("10.0.0.11"), ip_address("198.51.100.7")

pytestmark = pytest.mark.skipif(not OLDEST.exists(), reason="script/setup found no Python 3.11")


@pytest.fixture
def agent(one_interface: Lab, tmp_path: Path) -> Iterator[Service]:
    """Give a host an address, and an agent of the oldest Python that is not started yet."""
    one_interface.add_host_addresses([str(HOST)])
    with service_on(one_interface.host, tmp_path, str(OLDEST)) as made:
        made.define(definitions("ingress accept 1 tcp 80 from 0.0.0.0/0"))
        yield made


@pytest.mark.long
def test_the_daemon_enforces_and_follows(agent: Service, one_interface: Lab) -> None:
    """Packets are judged as the documents say, then as they say later, and are counted."""
    agent.start()
    assert is_let_in(one_interface, CLIENT, HOST, 80)
    assert not is_let_in(one_interface, CLIENT, HOST, 81)
    agent.define(definitions("ingress accept 1 tcp 81 from 0.0.0.0/0"))
    agent.wait_for_event("ruleset_applied", 2)
    assert not is_let_in(one_interface, CLIENT, HOST, 80)
    assert is_let_in(one_interface, CLIENT, HOST, 81)


@pytest.mark.long
def test_one_shots_load_and_are_removed(agent: Service, one_interface: Lab) -> None:
    """A ruleset is checked by the kernel, applied once, and flushed."""
    assert agent.command("compile", "--dry-run").status == 0
    assert agent.command("compile").status == 0
    assert not is_let_in(one_interface, CLIENT, HOST, 81)
    assert agent.command("flush").status == 0
    assert is_let_in(one_interface, CLIENT, HOST, 81)


@pytest.mark.long
def test_an_owned_table_is_left_alone(agent: Service) -> None:
    """A one-shot beside the daemon is refused, with the same exit code as elsewhere."""
    agent.start()
    refused = agent.command("compile")
    assert refused.status == 5, refused.errors
