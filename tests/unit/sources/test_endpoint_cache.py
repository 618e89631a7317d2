"""Where servers are, before anybody has looked."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.agent.web.http_server import listen
from sgagent.core.endpoints import Endpoint
from sgagent.settings import Settings, StateSettings
from sgagent.settings.sources import (
    AnySource,
    EtcdSourceSettings,
    HttpsSourceSettings,
    ServerUrl,
    SeveralSources,
)
from sgagent.sources.etcd.client import Client
from sgagent.sources.factory import make_source
from sgagent.sources.servers import EndpointCache, addresses_file, known_endpoints, look_up

NAMED = EtcdSourceSettings(
    endpoints=(
        ServerUrl(host="etcd-1.example.com", port=2379),
        ServerUrl(host="192.0.2.2", port=2379),
        ServerUrl(host="etcd-3.example.com", port=2379),
    )
)


def remember(directory: Path, host: str, *addresses: str, port: int = 2379) -> None:
    """Have an earlier agent find a server."""
    found = list(addresses)
    EndpointCache(host, port, lambda _host, _port: found, addresses_file(directory, host, port)).find()


def known(source: AnySource, directory: Path) -> list[str]:
    """Return where a source was found last."""
    settings = replace(Settings(), source=source, state=StateSettings(directory=directory))
    return [f"{endpoint.address} {endpoint.port}" for endpoint in known_endpoints(settings)]


def test_what_was_found_before_is_known_without_a_look(tmp_path: Path) -> None:
    """So the first table of an agent leaves the way open, though a name can't be looked up yet."""

    def fails(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    remember(tmp_path, "policy.example.com", "192.0.2.80", "2001:db8::80", port=443)
    memory = addresses_file(tmp_path, "policy.example.com", 443)
    later = EndpointCache("policy.example.com", 443, fails, memory)
    assert later.endpoints() == (Endpoint.at("192.0.2.80", 443), Endpoint.at("2001:db8::80", 443))
    assert later.find() == ("192.0.2.80", "2001:db8::80")
    other = EndpointCache("other.example.com", 443, fails, memory)
    assert other.endpoints() == ()
    with pytest.raises(OSError, match="Temporary failure"):
        other.find()


def test_a_file_takes_its_place_once_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut leaves the old addresses or the new ones; a write that failed is tried again."""
    memory, found = tmp_path / "addresses.json", ["192.0.2.1"]
    cache = EndpointCache("policy.example.com", 443, lambda *_: found, memory)
    cache.find()
    old = memory.read_bytes()
    found[:] = ["192.0.2.2"]
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        cache.find()
        assert (cache.addresses, memory.read_bytes()) == (("192.0.2.2",), old)
    cache.find()
    assert EndpointCache("policy.example.com", 443, memory=memory).addresses == ("192.0.2.2",)


def fail(_descriptor: int) -> None:
    """Have a disk that can't be written."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("host", ("a..b", "a" * 64))
@pytest.mark.parametrize("find", (look_up, listen))
def test_what_can_be_no_name_is_a_failed_look_up(find: Callable[[str, int], object], host: str) -> None:
    """Python refuses to ask for it, by an error of its own."""
    with pytest.raises(OSError, match="no host name"):
        find(host, 443)


def test_every_server_of_a_source_is_remembered(tmp_path: Path) -> None:
    """Those that are named, each in a file of its own; an address needs no memory."""
    assert known(NAMED, tmp_path) == ["192.0.2.2 2379"]
    remember(tmp_path, "etcd-1.example.com", "192.0.2.1")
    remember(tmp_path, "etcd-3.example.com", "192.0.2.3", "192.0.2.33")
    everything = ["192.0.2.1 2379", "192.0.2.2 2379", "192.0.2.3 2379", "192.0.2.33 2379"]
    assert known(NAMED, tmp_path) == everything
    client = Client(NAMED, tmp_path)
    assert sorted(f"{one.address} {one.port}" for one in client.endpoints()) == everything
    web = HttpsSourceSettings(url=ServerUrl(host="192.0.2.80", port=8443, target="/"))
    assert known(web, tmp_path) == ["192.0.2.80 8443"]
    assert known(Settings().source, tmp_path) == []


def test_every_source_of_a_union_is_remembered(tmp_path: Path) -> None:
    """Each has its own file, which is read for its server, and two of one server share theirs."""
    remember(tmp_path, "a.example.com", "192.0.2.1", port=443)
    remember(tmp_path, "b.example.com", "192.0.2.3", port=443)
    remember(tmp_path, "b.example.com", "192.0.2.4", port=8443)
    remember(tmp_path, "etcd-1.example.com", "192.0.2.5")
    urls = [("a.example.com", 443), ("b.example.com", 443), ("b.example.com", 8443), ("b.example.com", 443)]
    webs = [HttpsSourceSettings(url=ServerUrl(host=host, port=port, target="/")) for host, port in urls]
    settings = replace(
        Settings(), source=SeveralSources(sources=(*webs, NAMED)), state=StateSettings(directory=tmp_path)
    )
    everything = ["192.0.2.1 443", "192.0.2.2 2379", "192.0.2.3 443", "192.0.2.4 8443", "192.0.2.5 2379"]
    assert sorted(known(settings.source, tmp_path)) == everything
    made = make_source(settings).endpoints()
    assert sorted({f"{one.address} {one.port}" for one in made}) == everything
