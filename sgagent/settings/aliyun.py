"""Hold how the cloud's own API is asked for definitions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiEndpoint:
    """Where the API takes questions."""

    host: str
    """A name in lower case, or an address; IPv6 without brackets."""

    port: int = 443
    is_encrypted: bool = True

    @property
    def authority(self) -> str:
        """Return host and port as a URL and the ``Host`` field write them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_encrypted else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL."""
        return f"{'https' if self.is_encrypted else 'http'}://{self.authority}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AliyunSourceSettings:
    """Definitions from the ECS API of Alibaba Cloud."""

    region: str
    """Like ``cn-hangzhou``."""

    endpoint: ApiEndpoint | None = None
    """None is the region's public one."""

    poll_seconds: int = 60
    """Between readings of all that concerns the host."""

    connect_timeout_seconds: int = 5
    timeout_seconds: int = 10
    """For the whole answer to one question."""

    ca_file: Path | None = None
    """Certificates of authorities that are trusted beside the system's, in PEM."""

    credentials_file: Path | None = None
    """A file with an access key; None takes those of the instance's RAM role from the metadata service."""

    ram_role: str | None = None
    """The name of that role; None asks the metadata service for it."""

    instance_id: str | None = None
    """Whose interfaces are this host's; None asks the metadata service if the role is used as well."""

    @property
    def api(self) -> ApiEndpoint:
        """Return where the API is asked."""
        return self.endpoint or ApiEndpoint(host=f"ecs.{self.region}.aliyuncs.com")

    @property
    def uses_metadata(self) -> bool:
        """Return whether the metadata service is asked for anything."""
        return self.credentials_file is None

    @property
    def place(self) -> str:
        """Return where definitions come from, in words."""
        return f"aliyun {self.region} {self.api}"
