"""Read the table ``[source]``: the type decides which keys there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields as fields_of
from ipaddress import IPv6Address
from urllib.parse import SplitResult, urlsplit

from sgagent.documents.field import Field, Fields
from sgagent.documents.tree import Node
from sgagent.settings.keys import read_number, read_optional_path, read_path, read_word
from sgagent.settings.sources import (
    FileSourceSettings,
    HttpsSourceSettings,
    HttpsUrl,
    SourceSettings,
    SourceType,
)

_DEFAULT = FileSourceSettings()


def parse_source(root: Fields) -> SourceSettings:
    """Return where definitions come from; the default, with errors noted, where that can't be told."""
    field = root.get("source")
    table = field.fields() if field else None
    if table is None:
        return _DEFAULT
    kind = read_word(table, "type", SourceType.FILE)
    form = _FORMS.get(kind)
    if form is None:
        known = " or ".join(f'type = "{known.value}"' for known in _FORMS)
        table.field.error("unknown_source", f"sources of type {kind.value} are not in this version", known)
        return _DEFAULT
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
}


_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_VISIBLE = re.compile(r"[!-~]+")
_URL_FORM = "like https://policy.example.com/web.yaml"


def parse_url(field: Field) -> HttpsUrl | None:
    """Return an ``https`` URL; None, with an error noted, if it is none or holds more than that."""
    text = field.text()
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # brackets that do not match, a port that is no number or too large
        field.error("bad_url", "not a URL", _URL_FORM)
        return None
    fault = _url_fault(text, parts, port)
    if fault is not None:
        field.error("bad_url", *fault)
        return None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return HttpsUrl(host=parts.hostname or "", port=443 if port is None else port, target=target)


def _url_fault(text: str, parts: SplitResult, port: int | None) -> tuple[str, str] | None:
    """Return what is wrong with a URL and what would be right; None if nothing is."""
    if parts.scheme != "https":
        return "not an https URL", _URL_FORM
    if not _VISIBLE.fullmatch(text):
        return (
            "blanks, control characters or letters beyond ASCII in a URL",
            "percent-encode them; xn-- in a host",
        )
    if "@" in parts.netloc:
        return "a user or password in a URL", "remove it; a bearer token goes into token_file"
    if parts.fragment or text.endswith("#"):
        return "a fragment in a URL", "remove what begins with #"
    if port == 0 or not _is_host(parts.hostname or ""):
        return "no host, or none that there can be", _URL_FORM
    return None


def _is_host(host: str) -> bool:
    """Tell whether the host of a URL, without brackets, can be a name or an address."""
    if ":" not in host:
        return bool(_HOST.fullmatch(host))
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
