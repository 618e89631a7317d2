"""Declare the tables of the configuration with their keys, the values of each and its default."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from sgagent.analysis.lint.findings import CODES, MOST_RULES, OFFICES
from sgagent.core.binding import HandBinding
from sgagent.core.errors import Origin
from sgagent.core.link_patterns import is_pattern
from sgagent.core.model import (
    ALL_PORTS,
    ALL_PROTOCOLS,
    CidrBlock,
    Direction,
    Family,
    Mode,
    Policy,
    PortSet,
    Protocol,
    SourceCheck,
)
from sgagent.core.policy import LOG_GROUP, RATE_PER_SECOND, SILENT, Exemption, FlowLogging, InvalidPackets
from sgagent.documents.problems import Limits
from sgagent.documents.scalars import (
    MISSING_FIELD,
    Fault,
    InvalidValueError,
    invalid,
    parse_integer,
    parse_text,
)
from sgagent.documents.tree import Node
from sgagent.documents.values import PORT_FORMS, parse_network, parse_ports, parse_protocol
from sgagent.nft.marks import Sessions, is_contiguous
from sgagent.settings.constraints import (
    ID,
    NAME_SERVER,
    Constraint,
    SettingsTable,
    Switch,
    Written,
    distinct,
    file_path,
    number,
    pattern,
    word_of,
)
from sgagent.settings.listen_address import DEFAULT_LISTEN, ListenAddress, parse_listen_address
from sgagent.settings.sources import AnySource, FileSourceSettings
from sgagent.signatures import KEY_FORM, PublicKey


class UnboundInterfaces(enum.Enum):
    """Whether links that are not bound, or not yet, are open (§9.3)."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings(SettingsTable):
    """Where the agent keeps the state that must outlive it."""

    directory: Annotated[Path, file_path("/var/lib/sgagent")] = Path("/var/lib/sgagent")
    """Last known good snapshot, history, counters."""

    runtime_directory: Annotated[Path, file_path("/run/sgagent")] = Path("/run/sgagent")
    """The control socket."""


def _mark_mask(node: Node) -> int:
    mask = parse_integer(node)
    if not is_contiguous(mask):
        raise invalid("bad_mask", "not a mask of contiguous bits of the 32", "like 0xffff0000")
    return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcementSettings(SettingsTable):
    """How verdicts are carried out."""

    mode: Annotated[Mode, word_of(Mode)] = Mode.ENFORCE
    """The default for every interface (§9.1)."""

    strict: Switch = False
    """Warnings refuse documents as errors do."""

    fail_closed: Switch = False
    """Close even before any snapshot was seen (§9.2)."""

    unbound_interfaces: Annotated[UnboundInterfaces, word_of(UnboundInterfaces)] = UnboundInterfaces.OPEN
    sessions: Annotated[Sessions, word_of(Sessions)] = Sessions.REJUDGE
    source_check: Annotated[SourceCheck, word_of(SourceCheck)] = SourceCheck.OFF
    """The default for every interface (§12.6)."""

    mark_mask: Annotated[int, Constraint(_mark_mask)] = 0xFFFF0000
    """Bits of the conntrack mark that are ours, contiguous. With fewer than 15 every packet is judged."""

    hold_lockout_seconds: Annotated[int, number(0, 7 * 86400)] = 0
    """How long a change of the source that would cut a login waits for ``sgagent apply`` (§7.4); 0: never."""


class PageServing(enum.Enum):
    """When the status page is served beside the metrics."""

    LOOPBACK = "loopback"
    """If only this host can reach them."""

    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings(SettingsTable):
    """How metrics are served."""

    listen: Annotated[ListenAddress, Constraint(parse_listen_address)] = DEFAULT_LISTEN
    page: Annotated[PageServing, word_of(PageServing)] = PageServing.LOOPBACK

    @property
    def serves_page(self) -> bool:
        """Return whether there is a status page."""
        return self.page is PageServing.ALWAYS or (
            self.page is PageServing.LOOPBACK and self.listen.is_loopback
        )


class FlowOutput(enum.Enum):
    """Where flows are written, if not to a file."""

    NONE = "none"
    """``sgagent denied`` shows the newest drops all the same."""

    JOURNAL = "journal"
    STDOUT = "stdout"


OUTPUT_FORM = '"none", "journal", "stdout", or the path of a file from / on'
_OUTPUTS = {output.value: output for output in FlowOutput}


def _flow_output(node: Node) -> FlowOutput | Path:
    found = parse_text(node)
    if found in _OUTPUTS:
        return _OUTPUTS[found]
    if not found.startswith("/") or found.endswith("/") or "\0" in found:
        raise invalid("bad_output", "not an output for flows", OUTPUT_FORM)
    return Path(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLogSettings(SettingsTable):
    """Which verdicts the kernel reports, and where they are written."""

    dropped: Switch = True
    accepted: Switch = False
    rate_per_second: Annotated[int, number(1, 1000)] = RATE_PER_SECOND
    """Lines of each rule and default on an interface; further ones are only counted."""

    output: Annotated[FlowOutput | Path, Constraint(_flow_output)] = FlowOutput.NONE
    rotate_bytes: Annotated[int, number(1 << 16, 1 << 32)] = 16 << 20
    """Size at which a file is rotated."""

    keep_files: Annotated[int, number(0, 100)] = 4
    """Rotated files that are kept."""

    group: Annotated[int, number(0, (1 << 16) - 1)] = LOG_GROUP
    """Of nfnetlink's log; no other program of this host may listen to it."""

    is_asked_for: bool = field(default=False, compare=False)
    """Whether the configuration has this table. A ruleset that is applied once, without an agent that reads
    the log, logs only then."""

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[Fault]:
        """Yield the conflicts between the keys."""
        nowhere = FlowOutput.NONE.value
        if written.get("accepted") is True and written.get("output", nowhere) == nowhere:
            message = "accepted flows need an output"
            yield Fault("no_output", message, OUTPUT_FORM, ("accepted",))

    @property
    def logging(self) -> FlowLogging:
        """Return the flows that the kernel reports."""
        asked = {Policy.DROP: self.dropped, Policy.ACCEPT: self.accepted}
        return FlowLogging(
            verdicts=frozenset(verdict for verdict, is_wanted in asked.items() if is_wanted),
            rate_per_second=self.rate_per_second,
            group=self.group,
        )

    @property
    def logging_without_agent(self) -> FlowLogging:
        """Return the flows that the kernel reports where no agent listens: none, unless configured."""
        return self.logging if self.is_asked_for else SILENT


_SECONDS = {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN = re.compile(r"(?P<number>[1-9][0-9]{0,5})(?P<unit>[hdw])")
SPAN_FORM = "a number of hours, days or weeks: 12h, 30d, 8w"


def parse_span(span: str) -> float | None:
    """Return the seconds of a text like ``30d``; None if it is no such text."""
    match = _SPAN.fullmatch(span)
    return None if match is None else int(match["number"]) * _SECONDS[match["unit"]]


def _span(node: Node) -> float:
    seconds = parse_span(parse_text(node))
    if seconds is None:
        raise invalid("bad_span", "not a duration", SPAN_FORM)
    return seconds


def _lint_code(node: Node) -> str:
    code = parse_text(node)
    if code in CODES:
        return code
    raise invalid("unknown_check", "no check has this code", f"one of {', '.join(CODES)}")


_LIMIT = number(1, code="bad_limit", message="the limit is too small")


@dataclass(frozen=True, slots=True, kw_only=True)
class LintSettings(SettingsTable):
    """The limits of ``sgagent lint``, and its disabled checks."""

    disable: Annotated[tuple[str, ...], distinct(Constraint(_lint_code), in_order=True)] = ()
    """Codes of checks that are left out, sorted."""

    unused: Annotated[float | None, Constraint(_span)] = None
    """Seconds without a hit after which a rule is reported; None reports none."""

    most_rules: Annotated[int, _LIMIT] = MOST_RULES
    """Of a group."""

    office_ipv4: Annotated[int, number(1, 32)] = OFFICES[Family.IPV4]
    """Prefix length of the widest network that may administer."""

    office_ipv6: Annotated[int, number(1, 128)] = OFFICES[Family.IPV6]

    @property
    def offices(self) -> Mapping[Family, int]:
        """Return the prefix lengths by family."""
        return {Family.IPV4: self.office_ipv4, Family.IPV6: self.office_ipv6}


_KEYS_EXAMPLE = 'like public_keys = ["ed25519:…"], as `sgagent keygen` prints it'


def _public_key(node: Node) -> PublicKey:
    try:
        return PublicKey.parse(parse_text(node))
    except ValueError as error:
        raise invalid("bad_public_key", str(error), KEY_FORM) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSettings(SettingsTable):
    """Whose signatures definitions need."""

    public_keys: Annotated[
        tuple[PublicKey, ...],
        distinct(Constraint(_public_key), empty=Fault("bad_public_key", "an empty list", _KEYS_EXAMPLE)),
    ] = ()
    """A signature by any one of them is enough; without the table, definitions need no signature."""

    required: Switch = True
    """Whether definitions without a signature are refused; a wrong one is refused in any case."""

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[Fault]:
        """Yield that there is no key: the table would restrict nothing."""
        if "public_keys" not in written:
            yield Fault(MISSING_FIELD, "missing", _KEYS_EXAMPLE, ("public_keys",))


_SIGNS_OF_NAMES = pattern(
    r"(?!\.{1,2}$)[A-Za-z0-9._+*?-][A-Za-z0-9._@+*?-]{0,14}",
    "1 to 15 letters, digits and . _ @ + -, no @ first; a pattern ends in *",
    code="bad_interface_name",
    message="not an interface name",
)


def _interface_name(node: Node) -> str:
    """Return a name that Linux, nft and a terminal can all take, or a pattern of such names (§12.5)."""
    name = str(_SIGNS_OF_NAMES.parse(node))
    prefix = re.split(r"[*?]", name, maxsplit=1)[0]
    if prefix and name in (prefix, f"{prefix}*"):
        return name
    remedy = f"write {prefix}* and exclude what it must not match"
    if not prefix:
        remedy = 'bind each link by its name; unbound_interfaces = "closed" is for those that are not bound'
    raise invalid("bad_interface_name", "a pattern is how names begin, and one * at its end", remedy)


INTERFACE_NAME = Constraint(_interface_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceTable(SettingsTable):
    """A binding by hand: one of the tables ``[[interface]]``."""

    name: Annotated[str, INTERFACE_NAME]
    exclude: Annotated[tuple[str, ...], distinct(INTERFACE_NAME, in_order=True)] = ()
    network_interface_id: Annotated[str | None, ID] = None
    security_group_ids: Annotated[tuple[str, ...], distinct(ID, in_order=True)] = ()
    mode: Annotated[Mode | None, word_of(Mode)] = None
    source_check: Annotated[SourceCheck | None, word_of(SourceCheck)] = None
    invalid: Annotated[InvalidPackets, word_of(InvalidPackets)] = InvalidPackets.DROP

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[Fault]:
        """Yield the conflicts between the keys."""
        if ("network_interface_id" in written) == ("security_group_ids" in written):
            remedy = "write network_interface_id or security_group_ids"
            yield Fault("bad_binding", "the link needs exactly one of the two keys", remedy)
        name = written.get("name")
        if "exclude" in written and isinstance(name, str) and not is_pattern(name):
            message = f"{name} means one link, from which nothing can be excluded"
            remedy = "remove the key, or write a pattern: br-*"
            yield Fault("exclude_without_pattern", message, remedy, ("exclude",))

    def binding(self, origin: Origin) -> HandBinding:
        """Return the binding, which was written at ``origin``."""
        return HandBinding(
            interface=self.name,
            exclude=self.exclude,
            network_interface_id=self.network_interface_id,
            security_group_ids=self.security_group_ids,
            mode=self.mode,
            source_check=self.source_check,
            invalid=self.invalid,
            origin=origin,
        )


NETWORK = Constraint(parse_network)
PROTOCOL = Constraint(parse_protocol)
PORTS = Constraint(parse_ports)


def _checked(constraint: Constraint, value: object) -> object:
    """Return a value; None where it is missing, or wrong, which is reported already."""
    try:
        return None if value is None else constraint.check(value)
    except InvalidValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemptionTable(SettingsTable):
    """An entry of the platform or fail-safe list (§7.3, §7.4)."""

    direction: Annotated[Direction, word_of(Direction)]
    cidr: Annotated[CidrBlock, NETWORK]
    protocol: Annotated[Protocol, PROTOCOL]
    port_range: Annotated[PortSet, PORTS] = ALL_PORTS

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[Fault]:
        """Yield the conflicts between CIDR, protocol and ports, as in rules (§4.1, §4.2)."""
        protocol, block, ports = (
            _checked(constraint, written.get(key))
            for constraint, key in ((PROTOCOL, "protocol"), (NETWORK, "cidr"), (PORTS, "port_range"))
        )
        if not isinstance(protocol, Protocol):
            return
        only = protocol.only_family
        if only is not None and isinstance(block, CidrBlock) and block.family is not only:
            message = f"{protocol} is for {only.value} only, found an {block.family.value} address"
            yield Fault("family_of_protocol", message, f"an {only.value} address or CIDR", ("cidr",))
        if "port_range" not in written and protocol.has_ports:
            yield Fault(MISSING_FIELD, "missing", PORT_FORMS, ("port_range",))
        elif not protocol.has_ports and ports not in (None, ALL_PORTS):
            message = f"{protocol} has no ports"
            yield Fault("ports_do_not_fit", message, "remove the key, or write -1/-1", ("port_range",))

    @property
    def exemption(self) -> Exemption:
        """Return the entry as the policy has it."""
        return Exemption(
            direction=self.direction, peer=self.cidr, protocol=self.protocol, ports=self.port_range
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsTable(SettingsTable):
    """The limits of documents, as far as the configuration sets them."""

    document_bytes: Annotated[int, _LIMIT] = Limits().document_bytes
    depth: Annotated[int, _LIMIT] = Limits().depth
    rules: Annotated[int, _LIMIT] = Limits().rules
    addresses: Annotated[int, _LIMIT] = Limits().addresses
    names: Annotated[int, _LIMIT] = Limits().names
    addresses_per_name: Annotated[int, _LIMIT] = Limits().addresses_per_name

    @property
    def limits(self) -> Limits:
        """Return the limits."""
        return Limits(**{key.name: getattr(self, key.name) for key in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings(SettingsTable):
    """How names in rules are resolved (§12.3)."""

    servers: Annotated[tuple[str, ...], distinct(NAME_SERVER)] = ()
    """Asked in this order, at port 53; without any, those of the host's resolv.conf."""

    keep_hours: Annotated[int, number(1, 8760)] = 24
    """How long the last answer counts while no name server answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings(SettingsTable):
    """Whether the agent proves the table that it has applied."""

    after_apply: Switch = True
    """In a process of its own, in the background."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailSettings(SettingsTable):
    """Where the statements are that no policy may break, and whose signature they need (§13.4)."""

    path: Annotated[Path | None, file_path("/etc/sgagent/guardrails.yaml")] = None
    """A file or directory; None: there are none."""

    keys: Annotated[tuple[PublicKey, ...], distinct(Constraint(_public_key))] = ()
    """A signature by any one of them is enough; without any, none is needed."""

    @classmethod
    def conflicts(cls, written: Written) -> Iterator[Fault]:
        """Yield that there is no path: the table would demand nothing."""
        if "path" not in written:
            yield Fault(MISSING_FIELD, "missing", 'like path = "/etc/sgagent/guardrails.yaml"', ("path",))


TABLES: dict[str, type[Any]] = {
    "signature": SignatureSettings,
    "state": StateSettings,
    "enforcement": EnforcementSettings,
    "metrics": MetricsSettings,
    "flow_log": FlowLogSettings,
    "lint": LintSettings,
    "limits": LimitsTable,
    "dns": DnsSettings,
    "verify": VerifySettings,
    "guardrails": GuardrailSettings,
}
"""The class that declares the keys of each table that there is once, but for ``[source]``."""

NO_KEYS = ("is_asked_for",)
"""Fields of these classes that no key sets."""

LISTS: dict[str, type[Any]] = {
    "interface": InterfaceTable,
    "failsafe": ExemptionTable,
    "platform": ExemptionTable,
}
"""The same for each table that there may be more than once."""


METADATA_SERVICE = Exemption(
    direction=Direction.EGRESS, peer=CidrBlock.parse("100.100.100.200"), protocol=ALL_PROTOCOLS
)
"""The platform list unless the configuration replaces it (§7.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration."""

    source: AnySource = field(default_factory=FileSourceSettings)
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
    dns: DnsSettings = DnsSettings()
    verify: VerifySettings = field(default_factory=VerifySettings)
    guardrails: GuardrailSettings = GuardrailSettings()
