"""Hold where in etcd definitions are, and what the host writes there itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdEndpoint:
    """Where a member of the cluster, or a proxy before it, takes questions."""

    host: str
    """A name in lower case, or an address; IPv6 without brackets."""

    port: int = 2379
    is_encrypted: bool = True

    @property
    def authority(self) -> str:
        """Return host and port as a URL writes them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL."""
        return f"{'https' if self.is_encrypted else 'http'}://{self.authority}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSourceSettings:
    """Definitions in an etcd cluster."""

    endpoints: tuple[EtcdEndpoint, ...]
    """At least one."""

    prefix: str = "/sgagent"
    """Before all keys; begins with a slash and ends with none."""

    timeout_seconds: int = 5
    """For one connection and its TLS, and for the answer to one question."""

    ca_file: Path | None = None
    """Certificates of authorities that are trusted instead of the system's, in PEM."""

    client_certificate: Path | None = None
    """The certificate that this host shows, with its chain, in PEM."""

    client_key: Path | None = None
    """The key of that certificate, in PEM without a password; None where it is in the same file."""

    user: str | None = None
    password_file: Path | None = None
    """A file that holds the user's password and nothing else; read at each connection."""

    host_name: str | None = None
    """Under which this host reports and announces; None for the system's own name."""

    report: bool = True
    """Whether this host reports how it is doing, for ``sgagent fleet``."""

    announce: bool = False
    """Whether this host makes its interfaces members of the groups that they are bound to by hand."""

    lease_seconds: int = 60
    """After which reports and announcements of a host that fell silent vanish."""

    @property
    def place(self) -> str:
        """Return where definitions come from, in words."""
        return f"etcd {','.join(str(endpoint) for endpoint in self.endpoints)} {self.prefix}"
