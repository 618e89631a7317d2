"""A source of type aliyun in the configuration."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from sgagent.core.errors import UsageError
from sgagent.settings import parse_settings
from sgagent.settings.sources import AliyunSourceSettings, ServerUrl
from sgagent.sources.factory import make_source
from tests.fakes.host import FakeHost
from tests.signing import KEY
from tests.unit.settings.test_settings import faults
from tests.unit.settings.test_source_settings import read

ALIYUN = '[source]\ntype = "aliyun"\nregion = "cn-hangzhou"\n'
BY_KEY = ALIYUN + 'credentials_file = "/etc/sgagent/aliyun"\n'


def test_a_region_is_enough() -> None:
    """On an instance with a RAM role everything else is found out."""
    source = read(ALIYUN)
    assert source == AliyunSourceSettings(region="cn-hangzhou")
    assert source.place == "aliyun cn-hangzhou https://ecs.cn-hangzhou.aliyuncs.com"
    assert source.uses_metadata


def test_every_key() -> None:
    """What is written is what is meant."""
    source = read(
        BY_KEY
        + 'endpoint = "https://ecs-vpc.cn-hangzhou.aliyuncs.com"\npoll_seconds = 10\n'
        + "connect_timeout_seconds = 2\ntimeout_seconds = 3\nca_file = '/etc/sgagent/ca.pem'\n"
        + 'instance_id = "i-bp1"\n'
    )
    assert source == AliyunSourceSettings(
        region="cn-hangzhou",
        endpoint=ServerUrl(host="ecs-vpc.cn-hangzhou.aliyuncs.com"),
        poll_seconds=10,
        connect_timeout_seconds=2,
        timeout_seconds=3,
        ca_file=Path("/etc/sgagent/ca.pem"),
        credentials_file=Path("/etc/sgagent/aliyun"),
        instance_id="i-bp1",
    )
    assert not source.uses_metadata


def test_ports_of_end_points() -> None:
    """Those of the scheme unless one is written."""
    ports = {
        "http://[::1]": "[::1]",
        "http://192.0.2.1:443": "192.0.2.1:443",
        "https://a.example:443/": "a.example",
    }
    for url, authority in ports.items():
        source = read(ALIYUN + f'endpoint = "{url}"')
        assert isinstance(source, AliyunSourceSettings)
        assert source.api.authority == authority


@pytest.mark.parametrize(
    ("text", "key"),
    (
        ('[source]\ntype = "aliyun"\n', "source.region: missing"),
        ('[source]\ntype = "aliyun"\nregion = "Hangzhou!"\n', "source.region: the text has a wrong form"),
        (ALIYUN + 'endpoint = "ftp://x"', "source.endpoint"),
        (
            ALIYUN + 'endpoint = "https://x.example/api"',
            "source.endpoint: the URL of an end point has a path",
        ),
        (ALIYUN + "poll_seconds = 0", "source.poll_seconds"),
        (ALIYUN + "ram_role = ''", "source.ram_role"),
        (BY_KEY + 'ram_role = "agent"', "source.ram_role: a RAM role and a file"),
        (ALIYUN + 'access_key_secret = "x"', "source.access_key_secret: unknown field"),
        (ALIYUN + 'url = "https://x.example"', "source.url: a source of type"),
    ),
)
def test_wrong_keys(text: str, key: str) -> None:
    """Each is one fault with file, key and remedy; secrets have no key at all."""
    (fault,) = faults(text)
    assert re.match(rf"error: sgagent\.toml:[1-9]: {re.escape(key)}", fault)


@pytest.mark.parametrize(
    ("text", "reason"),
    (
        (
            ALIYUN + f'[signature]\npublic_keys = ["{KEY.public}"]\n',
            "the cloud's API does not sign its answers",
        ),
        (BY_KEY, "the configuration must name this host's interfaces"),
    ),
)
def test_what_does_not_go_together(text: str, reason: str) -> None:
    """It is told at the start, before anything is asked."""
    with pytest.raises(UsageError, match=reason):
        make_source(parse_settings(text, "sgagent.toml"), FakeHost())


def test_without_the_sdk_it_is_told_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most hosts do without; those that need it learn its name."""
    monkeypatch.delitem(sys.modules, "sgagent.sources.aliyun.client", raising=False)
    monkeypatch.setitem(sys.modules, "alibabacloud_credentials.exceptions", None)
    with pytest.raises(UsageError, match=r"needs the Python module alibabacloud_\w+.*sgagent\[aliyun\]"):
        make_source(parse_settings(ALIYUN, "sgagent.toml"), FakeHost())
