"""The daemon on definitions in etcd, and the commands around it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.etcdcluster import Cluster, etcd_cluster
from integration.lab import Lab, wait_for
from integration.namespaces import network_namespace
from integration.service import Service, definitions, is_let_in, service_on

SOON = 15.0
AWAY_SECONDS = 10.0
"""Within which a cluster that is away is named."""

FRIEND, STRANGER, HERE = map(ip_address, ("192.0.2.77", "192.0.2.66", "10.0.0.11"))
RULE = "ingress accept 1 tcp {port}/{port} from {peer}"


def write(service: Service, text: str) -> Path:
    """Return the path of a document to publish."""
    path = service.directory / "to-publish.yaml"
    path.write_text(text)
    return path


def publish(service: Service, text: str, *options: str) -> dict[str, object]:
    """Publish from a host, and return the command's output."""
    return dict(service.as_json("publish", str(write(service, text)), *options))


@pytest.fixture
def cluster(tmp_path: Path, one_interface: Lab) -> Iterator[Cluster]:
    """Run a cluster of one, and give the host a way to it."""
    with etcd_cluster(tmp_path, size=1) as made:
        made.network.plug_in(one_interface.host, "10.9.0.50")
        made.start()
        yield made


@pytest.fixture
def service(tmp_path: Path, one_interface: Lab, cluster: Cluster) -> Iterator[Service]:
    """Give the host an agent that follows the cluster."""
    with service_on(one_interface.host, tmp_path / "agent") as made:
        made.configure(source=cluster.source_keys("web-1"))
        yield made


def test_from_publishing_to_packets(one_interface: Lab, cluster: Cluster, service: Service) -> None:
    """Published definitions are enforced, reported and waited for; without the cluster they stay in force."""

    def is_open(port: int) -> bool:
        return is_let_in(one_interface, STRANGER, HERE, port)

    service.start()
    assert is_open(80), "nothing was ever enforced here"
    revision = publish(service, definitions(RULE.format(port=80, peer="0.0.0.0/0")))["revision"]
    done = service.command("fleet", "wait", str(revision), "--timeout", "15s")
    assert (done.status, done.output) == (0, f"1 host at revision {revision} or later\n"), done.errors
    assert (is_open(80), is_open(81)) == (True, False)

    newer = definitions(RULE.format(port=81, peer="0.0.0.0/0"))
    revision = publish(service, newer)["revision"]
    done = service.command("fleet", "wait", str(revision), "--timeout", "15s")
    assert done.status == 0, done.errors  # kept by now, too: a kill right after the commit may prevent that
    assert (is_open(80), is_open(81)) == (False, True)

    (host,) = service.as_json("fleet", "status")["hosts"]
    assert (host["host"], host["posture"], host["errors"]) == ("web-1", "enforcing", [])

    for member in cluster.members:
        member.kill()
    service.kill()
    service.start()
    assert (is_open(80), is_open(81)) == (False, True), "from what is kept on this host"
    cluster.start()
    publish(service, definitions(RULE.format(port=82, peer="0.0.0.0/0")))
    wait_for(lambda: is_open(82), "the publication after all that", 2 * SOON)


@pytest.mark.long
def test_a_cluster_that_is_away_is_named_within_ten_seconds(cluster: Cluster, service: Service) -> None:
    """Counted from its end to the log and the metric; it is not named before it had the time to come back."""
    service.start()
    publish(service, definitions(RULE.format(port=80, peer="0.0.0.0/0")))
    service.wait_for_event("ruleset_applied", 1, SOON)
    before = len(service.events("source_failed"))
    service.wait_for_event("source_recovered", before, SOON)
    for count in (before + 1, before + 2):
        for member in cluster.members:
            member.kill()
        ended = time.monotonic()
        service.wait_for_event("source_failed", count, AWAY_SECONDS)
        assert time.monotonic() - ended >= AWAY_SECONDS / 2
        assert service.metric("sgagent_source_up") == 0
        cluster.start()
        service.wait_for_event("source_recovered", count, 2 * SOON)


@pytest.mark.long
def test_an_announced_host(tmp_path: Path, one_interface: Lab, cluster: Cluster, service: Service) -> None:
    """It becomes a member of the group that it is bound to, and others let it in, without a publication."""
    rules = definitions(RULE.format(port=80, peer="sg-app"))
    publish(
        service, rules.replace("network_interfaces:", "  - {security_group_id: sg-app}\nnetwork_interfaces:")
    )
    service.start()
    wait_for(lambda: not is_let_in(one_interface, STRANGER, HERE, 81), "the policy", SOON)
    assert not is_let_in(one_interface, FRIEND, HERE, 80)
    with network_namespace("friend") as namespace, service_on(namespace, tmp_path / "friend") as friend:
        cluster.network.plug_in(namespace, "10.9.0.51")
        namespace.ip(
            "link add eth0 type veth peer name peer0", "link set eth0 up", f"address add {FRIEND}/24 dev eth0"
        )
        binding = '[[interface]]\nname = "eth0"\nsecurity_group_ids = ["sg-app"]\n'
        announcing = cluster.source_keys("app-1") + "announce = true\nlease_seconds = 5\n"
        friend.configure(binding, source=announcing)
        friend.start()
        wait_for(lambda: is_let_in(one_interface, FRIEND, HERE, 80), "the friend to be let in", SOON)
        assert not is_let_in(one_interface, STRANGER, HERE, 80)
        friend.kill()
        wait_for(lambda: not is_let_in(one_interface, FRIEND, HERE, 80), "its lease to end", 3 * SOON)
