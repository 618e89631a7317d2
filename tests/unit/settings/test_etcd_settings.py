"""A source of type etcd in the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgagent.core.errors import UsageError
from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from tests.unit.settings.test_source_settings import read

ETCD = '[source]\ntype = "etcd"\nendpoints = ["https://etcd-1.example.com"]\n'


def test_end_points_are_enough() -> None:
    """Everything else has a default."""
    endpoint = ServerUrl(host="etcd-1.example.com", port=2379)
    assert read(ETCD) == EtcdSourceSettings(endpoints=(endpoint,))
    assert read(ETCD).place == "etcd https://etcd-1.example.com:2379 /sgagent"


def test_every_key() -> None:
    """What is written is what is meant."""
    source = read(
        """
        [source]
        type = "etcd"
        endpoints = ["https://192.0.2.1:23790", "http://[::1]:2379/", "https://192.0.2.1:23790"]
        prefix = "/policy/production"
        timeout_seconds = 2
        ca_file = "/etc/sgagent/ca.pem"
        client_certificate = "/etc/sgagent/client.pem"
        client_key = "/etc/sgagent/client.key"
        user = "agent"
        password_file = "/etc/sgagent/password"
        host_name = "web-1"
        report = false
        announce = true
        lease_seconds = 30
        """
    )
    assert source == EtcdSourceSettings(
        endpoints=(
            ServerUrl(host="192.0.2.1", port=23790),
            ServerUrl(host="::1", port=2379, is_encrypted=False),
        ),
        prefix="/policy/production",
        timeout_seconds=2,
        ca_file=Path("/etc/sgagent/ca.pem"),
        client_certificate=Path("/etc/sgagent/client.pem"),
        client_key=Path("/etc/sgagent/client.key"),
        user="agent",
        password_file=Path("/etc/sgagent/password"),
        host_name="web-1",
        report=False,
        announce=True,
        lease_seconds=30,
    )


@pytest.mark.parametrize(
    ("text", "told"),
    (
        ('[source]\ntype = "etcd"', "source.endpoints: missing"),
        ('[source]\ntype = "etcd"\nendpoints = []', "source.endpoints: an empty list"),
        (
            '[source]\ntype = "etcd"\nendpoints = ["etcd-1:2379"]',
            "source.endpoints[0]: not an https or http URL",
        ),
        ('[source]\ntype = "etcd"\nendpoints = ["https://a/sgagent"]', "the URL of an end point has a path"),
        (ETCD + 'prefix = "sgagent"', "source.prefix: the text has a wrong form: 'sgagent'"),
        (ETCD + 'prefix = "/"', "source.prefix: the text has a wrong form"),
        (ETCD + 'host_name = "a/b"', "source.host_name: the text has a wrong form"),
        (ETCD + 'user = "agent"', "source.password_file: missing"),
        (ETCD + 'password_file = "/x"', "source.user: missing"),
        (ETCD + 'client_key = "/x"', "source.client_certificate: missing"),
        (
            ETCD + "lease_seconds = 1",
            "source.lease_seconds: the number is out of range: '1' (from 5 to 86400)",
        ),
        (ETCD + 'url = "https://a/"', 'source.url: a source of type "etcd" has no such key'),
        (ETCD + "anounce = true", "did you mean announce?"),
    ),
)
def test_what_is_wrong_is_told(text: str, told: str) -> None:
    """Each is one fault with its key and what would be right."""
    with pytest.raises(UsageError) as caught:
        read(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
