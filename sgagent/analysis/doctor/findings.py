"""Findings of the doctor: codes, severity, place, evidence, effect and remedy."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class DoctorCode(enum.Enum):
    """The kind of neighbour of a finding, in the order in which they are documented."""

    LOWER_DEVICE = "lower_device"
    OTHER_NAME = "other_name"
    LINK_ABOVE = "link_above"
    INVALID_BY_DESIGN = "invalid_by_design"
    MARK_READER = "mark_reader"
    MARK_WRITER = "mark_writer"
    FLOW_TABLE = "flow_table"
    CONNTRACK_ZONE = "conntrack_zone"
    CONNTRACK_BRIDGE = "conntrack_bridge"
    NOTRACK = "notrack"
    SESSION_TIMEOUT = "session_timeout"
    PACKET_WRITER = "packet_writer"
    DIVERTER = "diverter"
    EARLY_PROGRAM = "early_program"
    OTHER_TABLE_DROPS = "other_table_drops"
    FLUSHER = "flusher"
    OLD_NFT = "old_nft"
    FORWARDING = "forwarding"
    REVERSE_PATH = "reverse_path"
    REFUSING_ROUTE = "refusing_route"
    IPSEC = "ipsec"
    CLOCK = "clock"
    KERNEL_FEATURE = "kernel_feature"
    METRICS_PORT = "metrics_port"


class DoctorSeverity(enum.Enum):
    """How much a finding weighs, the heaviest first."""

    HIGH = "high"
    """Denied packets pass."""

    MEDIUM = "medium"
    """Allowed packets are lost, or a promise does not hold under some condition."""

    LOW = "low"
    """Something to know before it surprises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorFinding:
    """One thing beside sgagent that touches the policy."""

    code: DoctorCode
    severity: DoctorSeverity
    link: str | None = None
    """The link that it is about; None for the host as a whole, or for several bound links alike."""

    table: str | None = None
    """Family and name of another table, like ``inet filter``."""

    chain: str | None = None
    evidence: str
    """The observed cause: rule and handle, program, file, setting."""

    effect: str
    """The effect on packets."""

    remedy: str


class Blindness(enum.Enum):
    """The parts of the host that could not be looked at."""

    RULESET = "ruleset"
    """The tables of others, which only CAP_NET_ADMIN may list."""

    LEGACY_TABLES = "legacy_tables"
    """Rules of iptables-legacy, which nftables does not show."""

    TCX = "tcx"
    """BPF programs at the tc hook that are attached without a filter, which only root may query."""

    CONTAINERS = "containers"
    """Programs in the roots of other processes."""

    NAMESPACES = "namespaces"
    """Links of other network namespaces, which only root may enter, and not any number of them."""

    LINKS = "links"
    """Programs and queueing disciplines of links, and routes."""

    TRANSFORMS = "transforms"
    """Policies of IPsec, which only CAP_NET_ADMIN may list."""

    CLOCK = "clock"
    POLICY = "policy"
    """Which links are bound: the definitions can't be read."""

    PORTS = "ports"
    """Who listens at the port of the metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSeen:
    """A part of the host that could not be looked at, so that nothing is known of it."""

    what: Blindness
    reason: str
    """A clause: what it is, why, and who may look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The doctor's findings, and the parts that it could not look at."""

    findings: tuple[DoctorFinding, ...] = ()
    not_seen: tuple[NotSeen, ...] = ()

    def joined(self, other: Diagnosis) -> Diagnosis:
        """Return the findings of either; a part is not seen if neither saw it."""
        missed = {one.what for one in other.not_seen}
        return Diagnosis(
            findings=tuple(sorted({*self.findings, *other.findings}, key=order)),
            not_seen=tuple(one for one in self.not_seen if one.what in missed),
        )


def order(finding: DoctorFinding) -> tuple[object, ...]:
    """Return a sort key: the heaviest first, then by code and place."""
    place = (finding.link or "", finding.table or "", finding.chain or "", finding.evidence)
    return (_SEVERITIES.index(finding.severity), _CODES.index(finding.code), place)


_SEVERITIES = tuple(DoctorSeverity)
_CODES = tuple(DoctorCode)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisSummary:
    """A diagnosis in numbers."""

    high: int
    medium: int
    low: int
    codes: tuple[str, ...]
    """Of what was found, the heaviest first."""

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> DiagnosisSummary:
        """Return the summary of a diagnosis."""
        severities = [one.severity for one in diagnosis.findings]
        codes = dict.fromkeys(one.code.value for one in diagnosis.findings)
        counts = {severity.value: severities.count(severity) for severity in DoctorSeverity}
        return cls(**counts, codes=tuple(codes))
