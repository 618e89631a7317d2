"""Read the keys of a source of type ``etcd``."""

from __future__ import annotations

import re
from pathlib import Path

from sgagent.documents.field import Field, Fields
from sgagent.settings.etcd import EtcdEndpoint, EtcdSourceSettings
from sgagent.settings.keys import read_boolean, read_form, read_number, read_optional_path
from sgagent.settings.urls import split_url

ETCD_KEYS = tuple(EtcdSourceSettings.__dataclass_fields__)

_PREFIX = re.compile(r"(/[A-Za-z0-9._-]+){1,8}")
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USER = re.compile(r"[!-~]{1,128}")
_ENDPOINT_FORM = "like https://etcd-1.example.com:2379"
_ENDPOINTS_FORM = 'endpoints = ["https://etcd-1.example.com:2379"]'
_DEFAULTS = EtcdSourceSettings(endpoints=())


def parse_etcd(table: Fields) -> EtcdSourceSettings | None:
    """Return the settings; None, with errors noted, where there is no end point."""
    endpoints = tuple(dict.fromkeys(_endpoints(table)))
    settings = EtcdSourceSettings(
        endpoints=endpoints,
        prefix=read_form(table, "prefix", _PREFIX, "a path of plain names, like /sgagent")
        or _DEFAULTS.prefix,
        timeout_seconds=read_number(table, "timeout_seconds", _DEFAULTS.timeout_seconds, least=1, most=60),
        ca_file=_path(table, "ca_file", "ca.pem"),
        client_certificate=_path(table, "client_certificate", "client.pem"),
        client_key=_path(table, "client_key", "client.key"),
        user=read_form(table, "user", _USER, "the name of a user of etcd"),
        password_file=_path(table, "password_file", "etcd-password"),
        host_name=read_form(table, "host_name", _HOST_NAME, "at most 64 letters, digits and . _ -"),
        report=read_boolean(table, "report", default=_DEFAULTS.report),
        announce=read_boolean(table, "announce", default=_DEFAULTS.announce),
        lease_seconds=read_number(table, "lease_seconds", _DEFAULTS.lease_seconds, least=5, most=86_400),
    )
    _refuse_halves(table, settings)
    return settings if endpoints else None


def _endpoints(table: Fields) -> list[EtcdEndpoint]:
    field = table.get("endpoints")
    if field is None:
        table.refuse_missing("endpoints", _ENDPOINTS_FORM)
        return []
    items = list(field.items())
    if not items:
        field.error("no_endpoints", "an empty list", _ENDPOINTS_FORM)
    found = [_endpoint(item) for item in items]
    return [endpoint for endpoint in found if endpoint is not None]


def _endpoint(field: Field) -> EtcdEndpoint | None:
    """Return an end point; None, with an error noted, if the URL is none."""
    parts = split_url(field, ("https", "http"), _ENDPOINT_FORM)
    if parts is None:
        return None
    if parts.target not in ("", "/"):
        field.error("bad_url", "a path in the URL of an end point", f"{_ENDPOINT_FORM}; see prefix")
        return None
    return EtcdEndpoint(host=parts.host, port=parts.port or 2379, is_encrypted=parts.scheme == "https")


def _refuse_halves(table: Fields, settings: EtcdSourceSettings) -> None:
    """Note errors for keys that mean nothing without another."""
    for name, other, is_half in (
        ("client_certificate", "client_key", settings.client_key and not settings.client_certificate),
        ("password_file", "user", settings.user and not settings.password_file),
        ("user", "password_file", settings.password_file and not settings.user),
    ):
        if is_half:
            table.refuse_missing(name, f"what {other} belongs to")


def _path(table: Fields, name: str, like: str) -> Path | None:
    return read_optional_path(table, name, like=f"/etc/sgagent/{like}")
