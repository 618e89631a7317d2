"""Read the table ``[source]``: the type decides which keys there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields as fields_of

from sgagent.documents.field import Field, Fields
from sgagent.documents.tree import Node
from sgagent.settings.aliyunparsing import ALIYUN_KEYS, parse_aliyun
from sgagent.settings.etcdparsing import ETCD_KEYS, parse_etcd
from sgagent.settings.keys import read_number, read_optional_path, read_path, read_word
from sgagent.settings.sources import (
    FileSourceSettings,
    HttpsSourceSettings,
    HttpsUrl,
    SourceSettings,
    SourceType,
)
from sgagent.settings.urls import split_url

_DEFAULT = FileSourceSettings()


def parse_source(root: Fields) -> SourceSettings:
    """Return where definitions come from; the default, with errors noted, where that can't be told."""
    field = root.get("source")
    table = field.fields() if field else None
    if table is None:
        return _DEFAULT
    kind = read_word(table, "type", SourceType.FILE)
    form = _FORMS[kind]
    _refuse_keys_of_others(table, kind, form)
    return form.parse(table) or _DEFAULT


@dataclass(frozen=True, slots=True)
class _Form:
    """What the settings of a type of source look like."""

    keys: tuple[str, ...]
    parse: Callable[[Fields], SourceSettings | None]
    """Returns None, with errors noted, where something that is required is missing or wrong."""


def _refuse_keys_of_others(table: Fields, kind: SourceType, form: _Form) -> None:
    """Note an error for each key that this type of source lacks; it says whose the key is, if it is one's."""
    own: dict[str, Node] = {}
    for name in table.names():
        field = table.get(name)
        owners = [f'"{other.value}"' for other, its_form in _FORMS.items() if name in its_form.keys]
        if field is not None and owners and name not in form.keys:
            message = f'a source of type "{kind.value}" has no such key'
            field.error("key_of_another_source", message, f"type = {' or '.join(owners)}, or remove the key")
        elif field is not None:
            own[name] = field.node
    Fields(table.field, own).refuse_unknown(("type", *form.keys))


def _file(table: Fields) -> FileSourceSettings:
    return FileSourceSettings(path=read_path(table, "path", _DEFAULT.path))


def _https(table: Fields) -> HttpsSourceSettings | None:
    field = table.get("url")
    if field is None:
        table.refuse_missing("url", 'like url = "https://policy.example.com/web.yaml"')
    url = parse_url(field) if field else None
    defaults = HttpsSourceSettings(url=url or HttpsUrl(host="localhost"))
    settings = HttpsSourceSettings(
        url=defaults.url,
        poll_seconds=read_number(table, "poll_seconds", defaults.poll_seconds, least=1, most=86_400),
        long_poll_seconds=read_number(
            table, "long_poll_seconds", defaults.long_poll_seconds, least=0, most=3600
        ),
        connect_timeout_seconds=read_number(
            table, "connect_timeout_seconds", defaults.connect_timeout_seconds, least=1, most=60
        ),
        timeout_seconds=read_number(table, "timeout_seconds", defaults.timeout_seconds, least=1, most=600),
        ca_file=read_optional_path(table, "ca_file", like="/etc/sgagent/ca.pem"),
        client_certificate=read_optional_path(table, "client_certificate", like="/etc/sgagent/client.pem"),
        client_key=read_optional_path(table, "client_key", like="/etc/sgagent/client.key"),
        token_file=read_optional_path(table, "token_file", like="/etc/sgagent/token"),
    )
    if settings.client_key is not None and settings.client_certificate is None:
        table.refuse_missing("client_certificate", "the certificate that client_key belongs to")
    return settings if url else None


_FORMS: Mapping[SourceType, _Form] = {
    SourceType.FILE: _Form(tuple(field.name for field in fields_of(FileSourceSettings)), _file),
    SourceType.HTTPS: _Form(tuple(field.name for field in fields_of(HttpsSourceSettings)), _https),
    SourceType.ETCD: _Form(ETCD_KEYS, parse_etcd),
    SourceType.ALIYUN: _Form(ALIYUN_KEYS, parse_aliyun),
}


_URL_FORM = "like https://policy.example.com/web.yaml"


def parse_url(field: Field) -> HttpsUrl | None:
    """Return an ``https`` URL; None, with an error noted, if it is none or holds more than that."""
    parts = split_url(field, ("https",), _URL_FORM)
    if parts is None:
        return None
    return HttpsUrl(
        host=parts.host, port=443 if parts.port is None else parts.port, target=_target(parts.target)
    )


def _target(written: str) -> str:
    """Return path and query as they are sent: there is always a path."""
    return written if written.startswith("/") else f"/{written}"
