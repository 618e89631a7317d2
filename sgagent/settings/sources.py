"""Declare the keys of each type of source: where definitions come from."""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, ClassVar, get_args
from urllib.parse import urlsplit

from sgagent.documents.scalars import Fault, invalid, parse_text
from sgagent.documents.tree import Node
from sgagent.documents.values import ID_PATTERN
from sgagent.settings.constraints import (
    Constraint,
    SettingsTable,
    Switch,
    Written,
    distinct,
    file_path,
    half_pair,
    number,
    pattern,
)
from sgagent.settings.listen_address import HOST_LABELS


class SourceType(enum.Enum):
    """Where definitions come from."""

    FILE = "file"
    HTTPS = "https"
    ETCD = "etcd"
    ALIYUN = "aliyun"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUrl:
    """The host, port and target in the URL of a server."""

    host: str
    """A name in lower case, or an address; IPv6 without brackets."""

    port: int = 443
    target: str = ""
    """Path and query, as they are sent; empty for the URL of an end point."""

    is_encrypted: bool = True

    @property
    def authority(self) -> str:
        """Return host and port as a URL and the ``Host`` field write them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_encrypted else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL."""
        return f"{'https' if self.is_encrypted else 'http'}://{self.authority}{self.target}"


_HOST = re.compile(rf"(?=[a-z0-9])(?!.{{254}}){HOST_LABELS}(?<=[a-z0-9])")
_VISIBLE = re.compile(r"[!-~]+")
_USUAL_PORTS = {"https": 443, "http": 80}


def parse_url(url: str, ports: Mapping[str, int], example: str) -> ServerUrl:
    """Parse a URL without user, password and fragment.

    Args:
        url: as it is written.
        ports: the schemes that it may have, each with its usual port.
        example: a right one, for the message.

    Raises:
        InvalidValueError: it is no URL, or holds more.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that do not match, a port that is no number or too large
        raise invalid("bad_url", "not a URL", example) from None
    faults = (
        (parts.scheme not in ports, f"not an {' or '.join(ports)} URL", example),
        (
            not _VISIBLE.fullmatch(url),
            "the URL has blanks, control characters or letters beyond ASCII",
            "percent-encode them; write hosts as xn--…",
        ),
        ("@" in parts.netloc, "the URL has a user or password", "remove it; secrets belong in files"),
        (parts.fragment or url.endswith("#"), "the URL has a fragment", "remove # and what follows"),
        (port == 0 or not _is_host(parts.hostname or ""), "the URL has no valid host", example),
    )
    for is_wrong, message, remedy in faults:
        if is_wrong:
            raise invalid("bad_url", message, remedy)
    return ServerUrl(
        host=parts.hostname or "",
        port=ports[parts.scheme] if port is None else port,
        target=parts.path + (f"?{parts.query}" if parts.query else ""),
        is_encrypted=parts.scheme == "https",
    )


def _is_host(host: str) -> bool:
    """Return whether the host of a URL, without brackets, can be a name or an address."""
    if ":" not in host:
        return bool(_HOST.fullmatch(host))
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _document_url(node: Node) -> ServerUrl:
    url = parse_url(parse_text(node), {"https": 443}, "like https://policy.example.com/web.yaml")
    return url if url.target.startswith("/") else replace(url, target=f"/{url.target}")


def _endpoint(example: str, hint: str = "", ports: Mapping[str, int] = _USUAL_PORTS) -> Constraint:
    """Return the constraint of a server's URL without a path."""

    def parse(node: Node) -> ServerUrl:
        url = parse_url(parse_text(node), ports, example)
        if url.target not in ("", "/"):
            raise invalid("bad_url", "the URL of an end point has a path", example + hint)
        return replace(url, target="")

    return Constraint(parse)


class SourceTable(SettingsTable):
    """The keys of one type of source."""

    __slots__ = ()

    kind: ClassVar[SourceType]
    folder: ClassVar[str] = ""
    """Of ``sgagent.sources``, if it is not named as the type; its module ``source`` has ``make_source``."""

    requirement: ClassVar[str] = ""
    """Which package has the Python modules that the source needs."""

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Return host and port of each server."""
        return ()

    @property
    def hold_remedy(self) -> str:
        """Return in words the command that enforces a version that a manual override holds back."""
        return "'sgagent rollback N' enforces it now, with its number N in 'sgagent history'"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsTable(SourceTable):
    """The keys of a source that its TLS needs."""

    ca_file: Annotated[Path | None, file_path("/etc/sgagent/ca.pem")] = None
    """Certificates of authorities that are trusted instead of the system's, in PEM."""

    client_certificate: Annotated[Path | None, file_path("/etc/sgagent/client.pem")] = None
    """The certificate that this host shows, with its chain, in PEM."""

    client_key: Annotated[Path | None, file_path("/etc/sgagent/client.key")] = None
    """The key of that certificate, in PEM without a password; None where it is in the same file."""

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[Fault]:
        """Yield the conflicts between the keys."""
        return half_pair(written, "client_certificate", "client_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSourceSettings(SourceTable):
    """Definitions in files of this host."""

    kind: ClassVar = SourceType.FILE
    folder: ClassVar = "files"
    path: Annotated[Path, file_path("/etc/sgagent/groups.d")] = Path("/etc/sgagent/groups.d")
    """A file, or a directory of files."""

    @property
    def place(self) -> str:
        """Return where definitions come from, in words."""
        return f"{self.kind.value} {self.path}"

    @property
    def hold_remedy(self) -> str:
        """Return in words the command that enforces a version that a manual override holds back."""
        return f"'sgagent apply {shlex.quote(str(self.path))}' enforces it now"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsSourceSettings(TlsTable):
    """Definitions in one document of an HTTPS server."""

    kind: ClassVar = SourceType.HTTPS
    examples: ClassVar = {"url": 'like url = "https://policy.example.com/web.yaml"'}
    url: Annotated[ServerUrl, Constraint(_document_url)]
    poll_seconds: Annotated[int, number(1, 86_400)] = 30
    """Between requests whether the document changed."""

    long_poll_seconds: Annotated[int, number(0, 3600)] = 0
    """How long the server may wait for a change before it answers; 0 does not ask it to wait."""

    connect_timeout_seconds: Annotated[int, number(1, 60)] = 5
    """For the name's addresses, one connection and its TLS together."""

    timeout_seconds: Annotated[int, number(1, 600)] = 30
    """For a whole exchange without the server's wait."""

    token_file: Annotated[Path | None, file_path("/etc/sgagent/token")] = None
    """A file that holds a bearer token and nothing else; read for each request."""

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Return host and port of each server."""
        return ((self.url.host, self.url.port),)

    @property
    def place(self) -> str:
        """Return where definitions come from, in words."""
        return f"{self.kind.value} {self.url}"


ENDPOINTS_EXAMPLE = 'endpoints = ["https://etcd-1.example.com:2379"]'
_ETCD_URL = _endpoint("like https://etcd-1.example.com:2379", "; see prefix", {"https": 2379, "http": 2379})


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSourceSettings(TlsTable):
    """Definitions in an etcd cluster."""

    kind: ClassVar = SourceType.ETCD
    requirement: ClassVar = " (Debian: python3-h2; PyPI: sgagent[etcd])"
    examples: ClassVar = {"endpoints": ENDPOINTS_EXAMPLE}
    endpoints: Annotated[
        tuple[ServerUrl, ...],
        distinct(_ETCD_URL, empty=Fault("no_endpoints", "an empty list", ENDPOINTS_EXAMPLE)),
    ]
    """At least one."""

    prefix: Annotated[str, pattern(r"(/[A-Za-z0-9._-]+){1,8}", "a path of plain names, like /sgagent")] = (
        "/sgagent"
    )
    """Before all keys; begins with a slash and ends with none."""

    timeout_seconds: Annotated[int, number(1, 60)] = 5
    """For one connection and its TLS, and for the answer to one request."""

    user: Annotated[str | None, pattern(r"[!-~]{1,128}", "the name of a user of etcd")] = None
    password_file: Annotated[Path | None, file_path("/etc/sgagent/etcd-password")] = None
    """A file that holds the user's password and nothing else; read for each connection."""

    host_name: Annotated[
        str | None, pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "at most 64 letters, digits and . _ -")
    ] = None
    """Under which this host reports and announces; None for the system's own name."""

    report: Switch = True
    """Whether this host reports its status, for ``sgagent fleet``."""

    announce: Switch = False
    """Whether this host makes its interfaces members of the groups that they are bound to by hand."""

    lease_seconds: Annotated[int, number(5, 86_400)] = 60
    """After which the reports and announcements of a silent host vanish."""

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Return host and port of each server."""
        return tuple((endpoint.host, endpoint.port) for endpoint in self.endpoints)

    @property
    def place(self) -> str:
        """Return where definitions come from, in words."""
        return f"{self.kind.value} {','.join(str(endpoint) for endpoint in self.endpoints)} {self.prefix}"

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[Fault]:
        """Yield the conflicts between the keys."""
        yield from TlsTable.conflicts(written)
        yield from half_pair(written, "password_file", "user")
        yield from half_pair(written, "user", "password_file")


_API_URL = _endpoint("like https://ecs-vpc.cn-hangzhou.aliyuncs.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class AliyunSourceSettings(SourceTable):
    """Definitions from the ECS API of Alibaba Cloud."""

    kind: ClassVar = SourceType.ALIYUN
    requirement: ClassVar = " (PyPI: pip install 'sgagent[aliyun]'; Debian has no package of it)"
    examples: ClassVar = {"region": 'like region = "cn-hangzhou"'}
    region: Annotated[str, pattern(r"[a-z]{2}(-[a-z0-9]{1,20}){1,3}", "the id of a region, like cn-hangzhou")]
    """Like ``cn-hangzhou``."""

    endpoint: Annotated[ServerUrl | None, _API_URL] = None
    """None is the region's public one."""

    poll_seconds: Annotated[int, number(1, 86_400)] = 60
    """Between readings of all that concerns the host."""

    connect_timeout_seconds: Annotated[int, number(1, 60)] = 5
    timeout_seconds: Annotated[int, number(1, 600)] = 10
    """For the whole answer to one request."""

    ca_file: Annotated[Path | None, file_path("/etc/sgagent/ca.pem")] = None
    """Certificates of authorities that are trusted beside the system's, in PEM."""

    credentials_file: Annotated[Path | None, file_path("/etc/sgagent/aliyun")] = None
    """A file with an access key; None takes those of the instance's RAM role from the metadata service."""

    ram_role: Annotated[str | None, pattern(r"[A-Za-z0-9.@_-]{1,64}", "the name of a RAM role")] = None
    """The name of that role; None asks the metadata service for it."""

    instance_id: Annotated[str | None, pattern(ID_PATTERN, "the id of an instance, like i-bp1…")] = None
    """Whose interfaces are this host's; None asks the metadata service if the role is used as well."""

    @property
    def api(self) -> ServerUrl:
        """Return where the API takes requests."""
        return self.endpoint or ServerUrl(host=f"ecs.{self.region}.aliyuncs.com")

    @property
    def uses_metadata(self) -> bool:
        """Return whether the metadata service is asked for anything."""
        return self.credentials_file is None

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Return host and port of each server."""
        return ((self.api.host, self.api.port),)

    @property
    def place(self) -> str:
        """Return where definitions come from, in words."""
        return f"{self.kind.value} {self.region} {self.api}"

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[Fault]:
        """Yield the conflicts between the keys."""
        if "ram_role" in written and "credentials_file" in written:
            message = "a RAM role and a file with an access key exclude each other"
            yield Fault("two_credentials", message, "remove one of the two", ("ram_role",))


SourceSettings = FileSourceSettings | HttpsSourceSettings | EtcdSourceSettings | AliyunSourceSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralSources:
    """Definitions from several sources, whose union is the snapshot."""

    sources: tuple[SourceSettings, ...]

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Return host and port of each server of all sources."""
        return tuple(server for source in self.sources for server in source.servers)

    @property
    def place(self) -> str:
        """Return where definitions come from, in words."""
        return "; ".join(source.place for source in self.sources)

    @property
    def hold_remedy(self) -> str:
        """Return in words the command that enforces a version that a manual override holds back."""
        return "'sgagent rollback N' enforces it now, with its number N in 'sgagent history'"


AnySource = SourceSettings | SeveralSources

SOURCE_TABLES: dict[SourceType, type[SourceSettings]] = {
    declared.kind: declared for declared in get_args(SourceSettings)
}
"""The class that declares the keys of each type of source."""
