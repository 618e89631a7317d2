"""The facts of a host, as values: the rim reads them, and the checks look at them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sgagent.analysis.doctor.policy_fact import PolicyFact
from sgagent.core.binding import NO_FACTS, HostFacts
from sgagent.core.model import CidrBlock, Family
from sgagent.nft.kernel_table import KernelTable


class HookKind(enum.Enum):
    """Where a program or filter stands at a link."""

    XDP = "XDP"
    TC_INGRESS = "tc ingress"
    TC_EGRESS = "tc egress"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyProgram:
    """A program that a link hands its packets to."""

    link: str
    hook: HookKind
    what: str
    """Like ``filter bpf, preference 1``, ``program 17``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignLink:
    """A link of another network namespace that stands on a link of this one."""

    name: str
    kind: str
    lower: str
    owner: str
    """Whose namespace it is, like ``process 123 (nginx)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultRoute:
    """A default route of the main table."""

    family: Family
    links: tuple[str, ...]
    metric: int = 0


@dataclass(frozen=True, slots=True)
class RefusingRoute:
    """A route or rule that refuses packets: prohibit, unreachable, blackhole."""

    text: str
    """As ``ip`` shows it, like ``blackhole 10.0.0.128/25``."""

    links: tuple[str, ...] = ()
    """Those on whose network the route is, or by which the rule chooses; none for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Default routes of the main table, and whether rules choose other tables."""

    defaults: tuple[DefaultRoute, ...] = ()
    networks: frozenset[tuple[Family, str]] = frozenset()
    """Links that lead to a network without a gateway: to more than single addresses or their own link."""

    is_by_policy: frozenset[Family] = frozenset()
    """Families with rules beside those that the kernel makes."""

    is_by_mark: frozenset[Family] = frozenset()
    """Families with rules that choose by the packet's mark."""

    refusals: tuple[RefusingRoute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualServer:
    """A service of IPVS."""

    text: str
    """Like ``TCP 10.0.0.11:80``."""

    translates: bool
    """Whether a server of it is reached by NAT."""

    routes: bool
    """Whether one is reached by direct routing or a tunnel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSettings:
    """Settings below ``/proc/sys/net``; None where the kernel has none."""

    reverse_path: tuple[tuple[str, int], ...] = ()
    """``rp_filter`` as it counts for each link: the greater of its own and that of all."""

    forwarding: tuple[Family, ...] = ()
    reverse_path_by_mark: bool = True
    """``ipv4/conf/all/src_valid_mark``: whether rp_filter looks routes up with the packet's mark."""

    virtual_servers_tracked: bool | None = None
    """``ipv4/vs/conntrack``."""

    picks_up: bool | None = None
    """``netfilter/nf_conntrack_tcp_loose``."""

    def reverse_path_of(self, link: str) -> int | None:
        """Return the setting of a link."""
        return dict(self.reverse_path).get(link)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformPolicy:
    """A policy of IPsec, for packets of links and not of an interface of its own."""

    text: str
    """Like ``out 192.0.2.0/24 to 203.0.113.0/24``."""

    near: CidrBlock
    """This host's end of the tunnel; where there is none, the near end of the packets."""

    blocks: bool

    def is_at(self, address: CidrBlock) -> bool:
        """Return whether an address of this host is at the near end."""
        near = self.near
        return near.family is address.family and near.first <= address.first <= near.last


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFact:
    """A unit that is enabled and changes rules of the host."""

    unit: str
    file: str
    """The unit file that was read."""

    flushes_all: bool
    """Whether it flushes the whole ruleset, ours too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NftProgram:
    """A program ``nft`` on this host, or in the root of another process."""

    path: str
    version: tuple[int, ...]
    process: str | None = None
    """Like ``process 123 (kube-proxy)``, of whose root it is; None on this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFact:
    """How far the host's clock can be believed."""

    now: float
    """Seconds since the epoch."""

    built: float
    """When this package was made; the time can't be before."""

    is_synchronised: bool | None = None
    """None where the kernel may not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFact:
    """The abilities of kernel and library on which promises stand; None where that is not known."""

    release: str
    owns_tables: bool | None = None
    """``flags owner, persist``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortHolder:
    """A foreign process that waits at the port of the metrics."""

    address: str
    user: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEvidence:
    """All the evidence of the host; a missing part is empty."""

    policy: PolicyFact
    host: HostFacts = NO_FACTS
    tables: tuple[KernelTable, ...] = ()
    """Ours too, but none of its rules."""

    programs: tuple[EarlyProgram, ...] = ()
    foreign_links: tuple[ForeignLink, ...] = ()
    routing: Routing = Routing()
    settings: KernelSettings = KernelSettings()
    virtual_servers: tuple[VirtualServer, ...] = ()
    transforms: tuple[TransformPolicy, ...] = ()
    units: tuple[UnitFact, ...] = ()
    nft_programs: tuple[NftProgram, ...] = ()
    library: tuple[int, ...] | None = None
    """The version of libnftables here."""

    clock: ClockFact | None = None
    kernel: KernelFact | None = None
    port_holder: PortHolder | None = None

    @property
    def bound_names(self) -> frozenset[str]:
        """Return the names of bound links."""
        return frozenset(link.name for link in self.policy.bound)

    @property
    def other_tables(self) -> tuple[KernelTable, ...]:
        """Return the tables of others, dormant ones apart, in the kernel's order."""
        return tuple(table for table in self.tables if not table.is_ours and not table.is_dormant)

    @property
    def own_table(self) -> KernelTable | None:
        """Return our table, of which no rule is known; None where there is none."""
        return next((table for table in self.tables if table.is_ours), None)
