"""Hold the agent's own configuration as frozen values, every one with its default."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from sgagent.core.host_facts import HandBinding
from sgagent.core.model import ALL_PROTOCOLS, CidrBlock, Direction, Mode, Sessions
from sgagent.core.policy import Exemption
from sgagent.documents.findings import Limits
from sgagent.settings.flowlog import FlowLogSettings
from sgagent.settings.lint import LintSettings
from sgagent.settings.signature import SignatureSettings
from sgagent.settings.sources import FileSourceSettings, SourceSettings


class UnboundInterfaces(enum.Enum):
    """What becomes of links that are not bound, or not yet (§9.3)."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings:
    """Where the agent keeps what must outlive it."""

    directory: Path = Path("/var/lib/sgagent")
    """Last known good snapshot, history, counters."""

    runtime_directory: Path = Path("/run/sgagent")
    """The control socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcementSettings:
    """How verdicts are carried out."""

    mode: Mode = Mode.ENFORCE
    """The default for every interface (§9.1)."""

    strict: bool = False
    """Warnings refuse documents as errors do."""

    fail_closed: bool = False
    """Close even before any snapshot was seen (§9.2)."""

    unbound_interfaces: UnboundInterfaces = UnboundInterfaces.OPEN
    sessions: Sessions = Sessions.REJUDGE
    mark_mask: int = 0xFFFF0000
    """Bits of the conntrack mark that are ours, contiguous. With fewer than 12 every packet is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddress:
    """Where a server waits."""

    host: str = "127.0.0.1"
    """An address, or a name; IPv6 without brackets."""

    port: int = 9469
    """0 lets the kernel choose."""

    @property
    def is_loopback(self) -> bool:
        """Return whether only this host can reach it; of a name, ``localhost`` alone is known to be that."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class PageServing(enum.Enum):
    """When the status page is served beside the metrics."""

    LOOPBACK = "loopback"
    """If they are served to this host alone."""

    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """How metrics are served."""

    listen: ListenAddress = ListenAddress()
    page: PageServing = PageServing.LOOPBACK

    @property
    def serves_page(self) -> bool:
        """Return whether there is a status page."""
        match self.page:
            case PageServing.LOOPBACK:
                return self.listen.is_loopback
            case PageServing.ALWAYS:
                return True
            case PageServing.NEVER:
                return False
            case _:
                assert_never(self.page)


METADATA_SERVICE = Exemption(
    direction=Direction.EGRESS, peer=CidrBlock.parse("100.100.100.200"), protocol=ALL_PROTOCOLS
)
"""What the platform list holds unless the configuration replaces it (§7.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration."""

    source: SourceSettings = field(default_factory=FileSourceSettings)
    signature: SignatureSettings = field(default_factory=SignatureSettings)
    state: StateSettings = StateSettings()
    enforcement: EnforcementSettings = EnforcementSettings()
    interfaces: tuple[HandBinding, ...] = ()
    """Sorted by name; names are unique."""

    failsafe: tuple[Exemption, ...] = ()
    platform: tuple[Exemption, ...] = (METADATA_SERVICE,)
    metrics: MetricsSettings = MetricsSettings()
    flow_log: FlowLogSettings = field(default_factory=FlowLogSettings)
    lint: LintSettings = field(default_factory=LintSettings)
    limits: Limits = field(default_factory=Limits)
