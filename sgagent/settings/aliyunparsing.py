"""Read the keys of a source of type ``aliyun``."""

from __future__ import annotations

import re

from sgagent.documents.field import Fields
from sgagent.documents.values import ID_PATTERN
from sgagent.settings.aliyun import AliyunSourceSettings, ApiEndpoint
from sgagent.settings.keys import read_form, read_number, read_optional_path
from sgagent.settings.urls import split_url

ALIYUN_KEYS = tuple(AliyunSourceSettings.__dataclass_fields__)

_REGION = re.compile(r"[a-z]{2}(-[a-z0-9]{1,20}){1,3}")
_ROLE = re.compile(r"[A-Za-z0-9.@_-]{1,64}")
_INSTANCE = re.compile(ID_PATTERN)
_ENDPOINT_FORM = "like https://ecs-vpc.cn-hangzhou.aliyuncs.com"
_DEFAULTS = AliyunSourceSettings(region="")


def parse_aliyun(table: Fields) -> AliyunSourceSettings | None:
    """Return the settings; None, with errors noted, where there is no region."""
    region = read_form(table, "region", _REGION, "the id of a region, like cn-hangzhou")
    if table.get("region") is None:
        table.refuse_missing("region", 'like region = "cn-hangzhou"')
    settings = AliyunSourceSettings(
        region=region or "",
        endpoint=_endpoint(table),
        poll_seconds=read_number(table, "poll_seconds", _DEFAULTS.poll_seconds, least=1, most=86_400),
        connect_timeout_seconds=read_number(
            table, "connect_timeout_seconds", _DEFAULTS.connect_timeout_seconds, least=1, most=60
        ),
        timeout_seconds=read_number(table, "timeout_seconds", _DEFAULTS.timeout_seconds, least=1, most=600),
        ca_file=read_optional_path(table, "ca_file", like="/etc/sgagent/ca.pem"),
        credentials_file=read_optional_path(table, "credentials_file", like="/etc/sgagent/aliyun"),
        ram_role=read_form(table, "ram_role", _ROLE, "the name of a RAM role"),
        instance_id=read_form(table, "instance_id", _INSTANCE, "the id of an instance, like i-bp1…"),
    )
    role = table.get("ram_role")
    if role is not None and settings.credentials_file is not None:
        role.error("two_credentials", "a RAM role beside a file with an access key", "one of the two")
    return settings if region else None


def _endpoint(table: Fields) -> ApiEndpoint | None:
    field = table.get("endpoint")
    parts = split_url(field, ("https", "http"), _ENDPOINT_FORM) if field else None
    if field is None or parts is None:
        return None
    if parts.target not in ("", "/"):
        field.error("bad_url", "a path in the URL of an end point", _ENDPOINT_FORM)
        return None
    is_encrypted = parts.scheme == "https"
    port = (443 if is_encrypted else 80) if parts.port is None else parts.port
    return ApiEndpoint(host=parts.host, port=port, is_encrypted=is_encrypted)
