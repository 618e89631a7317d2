"""For a source that has a name, the host's name servers are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.core.endpoints import Endpoint
from sgagent.core.model import TCP, UDP
from sgagent.settings import parse_settings
from sgagent.sources.servers import dns_endpoints, host_name_servers, name_servers

NAMED = '[source]\ntype = "https"\nurl = "https://policy.example.com/p.yaml"\n'
BY_ADDRESS = '[source]\ntype = "https"\nurl = "https://192.0.2.80/p.yaml"\n'
MEMBERS = '[source]\ntype = "etcd"\nendpoints = ["https://192.0.2.1:2379", "https://etcd.example.com:2379"]\n'


def servers(configuration: str, *files: Path) -> tuple[Endpoint, ...]:
    """Return the name servers that matter for a configuration."""
    return name_servers(parse_settings(configuration, "sgagent.toml").source, files)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Give a file of name servers, some of which are none, or are on this host."""
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# nameserver 192.0.2.1\nsearch example.com\nnameserver 127.0.0.53\nnameserver\n"
        "nameserver 192.0.2.53 trailing\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver ::1\n"
    )
    return file


@pytest.mark.parametrize("configuration", (NAMED, MEMBERS), ids=("https", "one member of etcd"))
def test_they_are_asked_over_udp_and_tcp(conf: Path, configuration: str) -> None:
    """Those on loopback are none of the network's."""
    expected = [Endpoint.at(a, 53, p) for a in ("192.0.2.53", "fe80::1") for p in (UDP, TCP)]
    assert list(servers(configuration, conf)) == expected


@pytest.mark.parametrize("configuration", (BY_ADDRESS, ""), ids=("https", "file"))
def test_nobody_is_asked_for_an_address(conf: Path, configuration: str) -> None:
    """A source that is written as an address, or is on this host, needs no name server."""
    assert servers(configuration, conf) == ()


def test_those_behind_a_stub_are_found(conf: Path, tmp_path: Path) -> None:
    """systemd-resolved asks others, which it names in a file of its own; each is named once."""
    stub = tmp_path / "stub"
    stub.write_text("nameserver 127.0.0.53\n")
    assert servers(NAMED, stub, conf, conf) == servers(NAMED, conf)
    assert servers(NAMED, tmp_path / "not there") == ()


def test_names_are_asked_for_in_the_order_of_the_file(conf: Path, tmp_path: Path) -> None:
    """Eight at most, each link-local one with its link; whatever is asked over the network is let out."""
    assert host_name_servers((conf,)) == ("127.0.0.53", "192.0.2.53", "fe80::1%eth0", "::1")
    many = tmp_path / "many"
    many.write_text("".join(f"nameserver 192.0.2.{last}\n" for last in range(1, 100)))
    assert host_name_servers((many,)) == tuple(f"192.0.2.{last}" for last in range(1, 9))
    configured = [f"192.0.2.{last}" for last in range(1, 20)]
    assert len(dns_endpoints(["127.0.0.1", *configured])) == 2 * len(configured)
