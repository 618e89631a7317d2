"""Which source a configuration has."""

from __future__ import annotations

import pytest

from sgagent.settings import parse_settings
from sgagent.settings.sources import SOURCE_TABLES, SourceType
from sgagent.sources.factory import make_source

CONFIGURATIONS = {
    SourceType.FILE: 'path = "/etc/sgagent/groups.d"',
    SourceType.HTTPS: 'url = "https://policy.example.com/web.yaml"',
    SourceType.ETCD: 'endpoints = ["https://etcd-1.example.com:2379"]',
    SourceType.ALIYUN: 'region = "cn-hangzhou"',
}


def test_each_type_has_keys() -> None:
    """A class declares the keys of every type."""
    assert set(SourceType) == SOURCE_TABLES.keys()


@pytest.mark.parametrize("kind", SourceType)
def test_the_configured_source_is_made(kind: SourceType) -> None:
    """By the module of its folder, without contacting anybody."""
    settings = parse_settings(f'[source]\ntype = "{kind.value}"\n{CONFIGURATIONS[kind]}\n', "sgagent.toml")
    source = make_source(settings)
    folder = f"sgagent.sources.{SOURCE_TABLES[kind].folder or kind.value}"
    assert type(source).__module__.rpartition(".")[0] == folder
    assert type(settings.source) is SOURCE_TABLES[kind]
