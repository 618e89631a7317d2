"""Definitions over HTTPS from a real server: to a source alone, and to the daemon behind its own policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import Lab, wait_for
from integration.nginx import PORT, TOKEN, Nginx, nginx_in, why_not
from integration.nginxfaults import nginx_alone
from integration.service import Service, definitions, is_let_in, service_on
from sgagent.core.errors import SourceUnavailableError
from sgagent.documents import Limits
from sgagent.settings.sources import HttpsSourceSettings, ServerUrl
from sgagent.signatures import PrivateKey
from sgagent.sources.https.source import HttpsSource
from tests.signing import KEY, OTHER_KEY, signature_of

pytestmark = pytest.mark.skipif(bool(_reason := why_not()), reason=f"nginx can't be run: {_reason}")

SERVER, HOST, CLIENT = "192.0.2.80", "10.0.0.11", "198.51.100.7"
SOON_SECONDS = 10.0
"""Several intervals of a second, and the back-off after a few failures."""


def policy(*ports: int) -> str:
    """Return a policy that lets clients in to some ports, and nothing out."""
    rules = [f"ingress accept 1 tcp {port} from 198.51.100.0/24" for port in ports]
    return definitions(*rules, "egress drop 1 all -1/-1 to 0.0.0.0/0")


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """Give a server on loopback, in a namespace that has nothing else."""
    with nginx_alone(tmp_path) as running:
        yield running


def source_of(nginx: Nginx, target: str = "/policy.yaml", **more: Path) -> HttpsSource:
    """Return a source that asks the server."""
    settings = HttpsSourceSettings(
        url=ServerUrl(host="localhost", port=PORT, target=target), ca_file=nginx.authority.file
    )
    known = replace(settings, **more)  # type: ignore[arg-type]  # only files are given
    return HttpsSource(known, Limits(), look_up=lambda _host, _port: ["127.0.0.1"])


def test_what_did_not_change_is_not_sent_again(nginx: Nginx) -> None:
    """Nginx packs the document, names it by a weak ETag, and says 304 to who knows it."""
    source = source_of(nginx)
    nginx.publish(policy(80), age_seconds=60)
    first = source.fetch()
    assert source.fetch() is first
    nginx.publish(policy(80, 81), age_seconds=60)
    assert source.fetch().snapshot != first.snapshot
    nginx.wait_for_statuses(200, 304, 200)


def test_two_changes_within_a_second(nginx: Nginx) -> None:
    """Nginx has one ETag for both, as they are of one size; the second is seen all the same."""
    source = source_of(nginx)
    nginx.publish(policy(80))
    first = source.fetch()
    nginx.publish(policy(81))
    assert source.fetch().snapshot != first.snapshot


def test_credentials(nginx: Nginx, tmp_path: Path) -> None:
    """A client certificate, and a token; without them the server refuses."""
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    client = nginx.authority.issue(name="client")
    for target, more in (
        ("/clients/policy.yaml", {"client_certificate": client.certificate, "client_key": client.key}),
        ("/tokens/policy.yaml", {"token_file": token}),
    ):
        nginx.publish(policy(80), target.removeprefix("/"))
        with pytest.raises(SourceUnavailableError, match=r"40[13]"):
            source_of(nginx, target).fetch()
        assert source_of(nginx, target, **more).fetch().snapshot.security_groups


@dataclass(frozen=True, slots=True)
class Stage:
    """A host whose policy comes from a server at the other end of the wire."""

    lab: Lab
    nginx: Nginx
    agent: Service

    def lets_in(self, port: int) -> bool:
        """Tell whether a client gets in."""
        return is_let_in(self.lab, ip_address(CLIENT), ip_address(HOST), port)

    def wait_until_open(self, port: int) -> None:
        """Wait until a client gets in."""
        wait_for(lambda: self.lets_in(port), f"port {port} to be open", SOON_SECONDS)

    def wait_for_problem(self, code: str) -> None:
        """Wait until the agent has told of a problem."""
        wait_for(lambda: code in self.problems(), f"word of {code}", SOON_SECONDS)

    def problems(self) -> list[str]:
        """Return the codes of the agent's problems so far."""
        return [event["code"] for event in self.agent.events("problem_found")]

    def publish_signed(self, content: str, serial: int, key: PrivateKey = KEY) -> None:
        """Serve a document and its signature."""
        self.nginx.publish(content)
        self.nginx.publish(
            signature_of({"policy.yaml": content.encode()}, key, serial=serial), "policy.yaml.sig"
        )


@pytest.fixture
def stage(one_interface: Lab, tmp_path: Path) -> Iterator[Stage]:
    """Give a server with a policy, and an agent that is not started yet."""
    one_interface.add_host_addresses([HOST])
    one_interface.peer.ip(f"address add {SERVER}/32 dev lo")
    with (
        nginx_in(one_interface.peer, tmp_path / "nginx", SERVER) as nginx,
        service_on(one_interface.host, tmp_path) as agent,
    ):
        keys = f'type = "https"\nurl = "https://{SERVER}:{PORT}/policy.yaml"\npoll_seconds = 1\n'
        agent.configure(source=f'{keys}ca_file = "{nginx.authority.file}"\n')
        nginx.publish(policy(80))
        yield Stage(one_interface, nginx, agent)


def test_a_policy_over_https_is_enforced_and_followed(stage: Stage) -> None:
    """Though it lets nothing out: the way to the source stays open, to its port and no other (§7.4)."""
    stage.agent.start()
    assert [stage.lets_in(port) for port in (80, 81)] == [True, False]
    stage.nginx.publish(policy(80, 81))
    stage.wait_until_open(81)
    with pytest.raises(OSError, match="timed out"):
        stage.lab.connect(stage.lab.host, (HOST, 0), (SERVER, PORT + 1)).close()
    assert stage.agent.metric("sgagent_source_up") == 1


def test_a_server_that_is_away_changes_nothing(stage: Stage) -> None:
    """Neither does a restart meanwhile; when it is back, it is followed again."""
    stage.agent.start()
    stage.nginx.stop()
    stage.agent.wait_for_event("source_failed", seconds=SOON_SECONDS)
    assert [stage.lets_in(port) for port in (80, 81)] == [True, False]
    stage.agent.stop()
    stage.agent.start()
    assert [stage.lets_in(port) for port in (80, 81)] == [True, False]
    stage.nginx.publish(policy(81))
    stage.nginx.start()
    stage.wait_until_open(81)
    assert not stage.lets_in(80)
    stage.agent.wait_for_event("source_recovered", seconds=SOON_SECONDS)


def test_a_reboot_does_not_lose_the_way_to_the_server(stage: Stage) -> None:
    """The policy that is in force before the network is there leaves it open."""
    stage.agent.start()
    stage.agent.stop()
    stage.lab.host.nft("delete", "table", "inet", "sgagent")
    assert stage.agent.command("boot").status == 0
    stage.nginx.publish(policy(81))
    stage.agent.start()
    stage.wait_until_open(81)


def test_only_what_is_signed_is_enforced(stage: Stage) -> None:
    """Documents need a pinned key, and are never older than those in force, over restarts too."""
    path = stage.agent.directory / "sgagent.toml"
    path.write_text(f'{path.read_text()}[signature]\npublic_keys = ["{KEY.public}"]\n')
    stage.publish_signed(policy(80), serial=7)
    stage.agent.start()
    assert stage.lets_in(80)
    stage.publish_signed(policy(81), serial=8, key=OTHER_KEY)
    stage.wait_for_problem("signature_unknown_key")
    stage.publish_signed(policy(82), serial=8)
    stage.wait_until_open(82)
    stage.agent.stop()
    stage.publish_signed(policy(80), serial=7)
    stage.agent.start()
    stage.wait_for_problem("serial_older")
    assert [stage.lets_in(port) for port in (80, 81, 82)] == [False, False, True]
    assert stage.problems()[-1] == "serial_older"
