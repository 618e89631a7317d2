"""The daemon on an instance of the cloud: it finds out who it is, and follows the API's answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.lab import HOST_MAC, Lab, wait_for
from integration.service import Service, service_on
from sgagent.sources.aliyun.ecs_api import METADATA_HOST
from tests.certificates import Authority
from tests.ecsserver import EcsServer, ecs_server
from tests.fakes.cloud import REGION, FakeCloud, permission
from tests.metadataserver import metadata_server

pytest.importorskip("alibabacloud_ecs20140526", reason="the cloud's SDK is not installed (sgagent[aliyun])")

SOON = 15.0
FRIEND, STRANGER, HERE = "192.0.2.77", "192.0.2.66", "10.0.0.11"
API = "192.0.2.80"
CLOSED = permission(
    Direction="egress", Policy="Drop", IpProtocol="ALL", PortRange="-1/-1", DestCidrIp="0.0.0.0/0", Priority=1
)
"""Nothing gets out but what no group can block (§7)."""


@dataclass(slots=True)
class Instance:
    """An instance of the cloud, as the host under test."""

    cloud: FakeCloud
    api: EcsServer
    lab: Lab
    agent: Service
    listeners: dict[int, socket.socket]
    """Services of the host, by their ports."""

    def is_open(self, port: int, source: str = STRANGER) -> bool:
        """Tell whether somebody reaches a port of the host, by a real session: the agent's own go on."""
        try:
            self.lab.connect(self.lab.peer, (source, 0), (HERE, port), seconds=0.5).close()
        except OSError:
            return False
        self.listeners[port].accept()[0].close()
        return True

    def serve(self, *ports: int) -> None:
        """Open ports to the stranger, in the cloud."""
        rules = (permission(PortRange=f"{port}/{port}", SourceCidrIp=STRANGER) for port in ports)
        self.cloud.add_group("sg-web", CLOSED, *rules)


@pytest.fixture
def instance(tmp_path: Path, one_interface: Lab) -> Iterator[Instance]:
    """Give the host the cloud's API and metadata service at the other end of its wire, and an agent."""
    cloud, authority = FakeCloud(most_per_page=2), Authority(tmp_path)
    cloud.add_interface("eni-1", HERE, "sg-web", instance="i-here", mac=HOST_MAC % 0)
    one_interface.peer.ip(*(f"address add {address}/32 dev lo" for address in (API, METADATA_HOST)))
    one_interface.add_host_addresses([HERE])
    with ExitStack() as stack:
        listeners = {
            port: stack.enter_context(one_interface.listen(one_interface.host, HERE, port))
            for port in (80, 81, 82)
        }
        with one_interface.peer.entered():
            stack.enter_context(metadata_server("i-here", address=(METADATA_HOST, 80)))
            api = stack.enter_context(ecs_server(cloud, address=(API, 8443), issued=authority.issue(API)))
        api.wants_token = True
        agent = stack.enter_context(service_on(one_interface.host, tmp_path / "agent"))
        keys = f'type = "aliyun"\nregion = "{REGION}"\nendpoint = "https://{API}:8443"\npoll_seconds = 1\n'
        agent.configure(source=f'{keys}ca_file = "{authority.file}"\n')
        yield Instance(cloud, api, one_interface, agent, listeners)


@pytest.mark.long
def test_from_the_console_to_packets(instance: Instance) -> None:
    """Rules and members are followed, over a link that they close; without the API the last ones stay."""
    instance.serve(80)
    agent = instance.agent
    agent.start()
    wait_for(lambda: not instance.is_open(81), "the first definitions", SOON)
    assert instance.is_open(80)

    instance.serve(80, 81, 82)
    wait_for(lambda: instance.is_open(82), "what was changed in the cloud", SOON)

    instance.cloud.add_group("sg-app")
    instance.cloud.add_group("sg-web", CLOSED, permission(SourceGroupId="sg-app", PortRange="80/80"))
    wait_for(lambda: not instance.is_open(80), "a rule for members", SOON)
    assert not instance.is_open(80, FRIEND)
    instance.cloud.add_interface("eni-2", FRIEND, "sg-app")
    wait_for(lambda: instance.is_open(80, FRIEND), "a new member", SOON)

    instance.cloud.is_away = True
    wait_for(lambda: agent.metric("sgagent_source_up") == 0, "the loss to be noticed", SOON)
    assert instance.is_open(80, FRIEND)
    agent.kill()
    agent.start()
    assert instance.is_open(80, FRIEND)
    assert not instance.is_open(80)
    instance.serve(80)
    instance.cloud.is_away = False
    wait_for(lambda: instance.is_open(80), "the API to be heard again", 4 * SOON)


@pytest.mark.long
def test_an_answer_that_would_take_everything_away_is_not_believed(instance: Instance) -> None:
    """The API reports no interface: the policy in force stays, and the reason is logged once."""
    instance.serve(80)
    instance.agent.start()
    wait_for(lambda: not instance.is_open(81), "the first definitions", SOON)
    kept = dict(instance.cloud.interfaces)
    instance.cloud.interfaces.clear()
    wait_for(lambda: instance.agent.metric("sgagent_source_up") == 0, "the refusal", SOON)
    assert instance.is_open(80)
    assert not instance.is_open(81)
    told = [event for event in instance.agent.events("source_failed") if "no network interface" in str(event)]
    assert len(told) == 1
    instance.cloud.interfaces.update(kept)
    wait_for(lambda: instance.agent.metric("sgagent_source_up") == 1, "what is whole", 4 * SOON)
