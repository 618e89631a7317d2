"""Hold where definitions come from: one class of settings for each type of source."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from sgagent.settings.aliyun import AliyunSourceSettings
from sgagent.settings.etcd import EtcdSourceSettings


class SourceType(enum.Enum):
    """Where definitions come from."""

    FILE = "file"
    HTTPS = "https"
    ETCD = "etcd"
    ALIYUN = "aliyun"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSourceSettings:
    """Definitions in files of this host."""

    path: Path = Path("/etc/sgagent/groups.d")
    """A file, or a directory of files."""

    @property
    def place(self) -> str:
        """Return where definitions come from, in words."""
        return f"{SourceType.FILE.value} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsUrl:
    """What an ``https`` URL names, taken apart."""

    host: str
    """A name in lower case, or an address; IPv6 without brackets."""

    port: int = 443
    target: str = "/"
    """Path and query, as they are sent."""

    @property
    def authority(self) -> str:
        """Return host and port as a URL and the ``Host`` field write them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL."""
        return f"https://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpsSourceSettings:
    """Definitions in one document of an HTTPS server."""

    url: HttpsUrl
    poll_seconds: int = 30
    """Between questions whether the document changed."""

    long_poll_seconds: int = 0
    """For how long the server is asked to wait for a change before it answers; 0 asks for no such thing."""

    connect_timeout_seconds: int = 5
    """For the name's addresses, one connection and its TLS together."""

    timeout_seconds: int = 30
    """For a whole exchange, what the server was asked to wait apart."""

    ca_file: Path | None = None
    """Certificates of authorities that are trusted instead of the system's, in PEM."""

    client_certificate: Path | None = None
    """The certificate that this host shows, with its chain, in PEM."""

    client_key: Path | None = None
    """The key of that certificate, in PEM without a password; None where it is in the same file."""

    token_file: Path | None = None
    """A file that holds a bearer token and nothing else; read at each question."""

    @property
    def place(self) -> str:
        """Return where definitions come from, in words."""
        return f"{SourceType.HTTPS.value} {self.url}"


SourceSettings = FileSourceSettings | HttpsSourceSettings | EtcdSourceSettings | AliyunSourceSettings
