"""Read ``sgagent.toml``.

Every key has a default, and an empty text is a valid configuration. Whatever is wrong is told at once, each
fault with its key and what would be right.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields as fields_of

from sgagent.compiler.marks import is_contiguous
from sgagent.core.errors import UsageError, printable, shown
from sgagent.core.host_facts import HandBinding
from sgagent.core.model import ALL_PROTOCOLS, CidrBlock, Direction, Mode, PortRange, Protocol
from sgagent.core.policy import Exemption
from sgagent.documents.characters import refuse_ambiguous
from sgagent.documents.field import Field, Fields, Reading
from sgagent.documents.findings import Budget, Findings, Limits
from sgagent.documents.tree import Listing, MalformedError, Mapping, Node, NodeKind, Scalar
from sgagent.documents.values import (
    DIRECTIONS,
    PORT_FORMS,
    parse_id,
    parse_network,
    parse_ports,
    parse_protocol,
)
from sgagent.settings.flowlog import parse_flow_log
from sgagent.settings.keys import read_boolean, read_path, read_word
from sgagent.settings.lint import parse_lint
from sgagent.settings.refused import RefusedSettingsError
from sgagent.settings.signature import parse_signature
from sgagent.settings.sourceparsing import parse_source
from sgagent.settings.values import (
    EnforcementSettings,
    ListenAddress,
    MetricsSettings,
    Settings,
    StateSettings,
)

_DEFAULTS = Settings()
_INTERFACE_KEYS = ("name", "network_interface_id", "security_group_ids", "mode")
_EXEMPTION_KEYS = ("direction", "cidr", "protocol", "port_range")
_LIMIT_KEYS = ("document_bytes", "depth", "rules", "addresses")
_TABLES = (
    "source",
    "signature",
    "state",
    "enforcement",
    "interface",
    "failsafe",
    "platform",
    "metrics",
    "flow_log",
    "lint",
    "limits",
)

_INTERFACE_NAME = re.compile(r"[A-Za-z0-9._+-][A-Za-z0-9._@+-]{0,14}")
_LISTEN = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})")
_INTERFACE_NAME_FORM = "1 to 15 letters, digits and . _ @ + -, no @ first"


def parse_settings(content: str, file: str) -> Settings:
    """Return the configuration that a TOML text holds.

    Args:
        content: the text; an empty one is all defaults.
        file: its name, for messages.

    Raises:
        RefusedSettingsError: with every fault, one a line.
        UsageError: it is not TOML.
    """
    findings = Findings(Limits().problems)
    reading = Reading(file=file, findings=findings, budget=Budget(limits=Limits()))
    root = Mapping(0, _entries(_parse_toml(content, file)))
    settings = _settings(Fields(Field(root, reading), root.entries))
    if findings.has_errors:
        raise RefusedSettingsError(findings.all(), settings)
    return settings


def parse_interface_name(name: str, origin: str) -> str:
    """Return a name that a link of this host can have and that is safe wherever names go.

    Args:
        name: what was written.
        origin: where, for the message.

    Raises:
        UsageError: the name is too long or holds other characters.
    """
    if not _is_interface_name(name):
        raise UsageError(
            printable(f"{origin}: not an interface name: {shown(name)} ({_INTERFACE_NAME_FORM})")
        )
    return name


def _parse_toml(content: str, file: str) -> dict[str, object]:
    """Return what the text says, unchecked."""
    try:
        refuse_ambiguous(content)
        return tomllib.loads(content)
    except MalformedError as error:
        place = f"{file}:{error.line}"
        raise UsageError(printable(f"{place}: {error.message} ({error.remedy})")) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(printable(f"{file}: not TOML: {error}")) from error


def _entries(table: dict[str, object]) -> dict[str, Node]:
    """Return a table as the documents' readers know mappings; TOML's reader tells no lines."""
    return {name: _node(value) for name, value in table.items()}


def _node(value: object) -> Node:
    """Return a value as the documents' readers know it."""
    match value:
        case dict():
            return Mapping(0, _entries(value))
        case list():
            return Listing(0, [_node(item) for item in value])
        case bool():
            return Scalar(NodeKind.BOOLEAN, str(value).lower())
        case int():
            return Scalar(NodeKind.INTEGER, str(value))
        case str():
            return value
        case _:
            return Scalar(NodeKind.NUMBER, str(value))


def _settings(root: Fields) -> Settings:
    """Return the whole configuration."""
    root.refuse_unknown(_TABLES)
    platform = root.get("platform")
    return Settings(
        source=parse_source(root),
        signature=parse_signature(root),
        state=_state(root),
        enforcement=_enforcement(root),
        interfaces=_interfaces(root),
        failsafe=_exemptions(root.get("failsafe")),
        platform=_DEFAULTS.platform if platform is None else _platform(platform),
        metrics=_metrics(root),
        flow_log=parse_flow_log(root),
        lint=parse_lint(root),
        limits=_limits(root),
    )


def _table(root: Fields, name: str, known: tuple[str, ...]) -> Fields | None:
    """Return a table, with an error for each key that is not known; None if it is not there."""
    field = root.get(name)
    table = field.fields() if field else None
    if table is not None:
        table.refuse_unknown(known)
    return table


def _state(root: Fields) -> StateSettings:
    """Return where the agent keeps what must outlive it."""
    default = _DEFAULTS.state
    table = _table(root, "state", ("directory", "runtime_directory"))
    if table is None:
        return default
    return StateSettings(
        directory=read_path(table, "directory", default.directory),
        runtime_directory=read_path(table, "runtime_directory", default.runtime_directory),
    )


def _enforcement(root: Fields) -> EnforcementSettings:
    """Return how verdicts are carried out."""
    default = _DEFAULTS.enforcement
    table = _table(root, "enforcement", tuple(field.name for field in fields_of(EnforcementSettings)))
    if table is None:
        return default
    return EnforcementSettings(
        mode=read_word(table, "mode", default.mode),
        strict=read_boolean(table, "strict", default=default.strict),
        fail_closed=read_boolean(table, "fail_closed", default=default.fail_closed),
        unbound_interfaces=read_word(table, "unbound_interfaces", default.unbound_interfaces),
        sessions=read_word(table, "sessions", default.sessions),
        mark_mask=_mask(table.get("mark_mask"), default.mark_mask),
    )


def _mask(field: Field | None, default: int) -> int:
    """Return the bits of the conntrack mark that are ours."""
    mask = field.integer() if field else None
    if field is None or mask is None:
        return default
    if not is_contiguous(mask):
        field.error("bad_mask", "not a mask of contiguous bits of the 32", "like 0xffff0000")
    return mask


def _interfaces(root: Fields) -> tuple[HandBinding, ...]:
    """Return the bindings by hand."""
    by_name: dict[str, HandBinding] = {}
    for field in root.items("interface"):
        binding = _interface(field)
        if binding is not None and by_name.setdefault(binding.interface, binding) is not binding:
            field.error("duplicate_interface", f"{binding.interface} is bound twice", "bind it once")
    return tuple(by_name[name] for name in sorted(by_name))


def _interface(field: Field) -> HandBinding | None:
    """Return a binding by hand."""
    table = field.fields()
    if table is None:
        return None
    table.refuse_unknown(_INTERFACE_KEYS)
    name, eni, groups = (
        table.require("name"),
        table.get("network_interface_id"),
        table.get("security_group_ids"),
    )
    if (eni is None) == (groups is None):
        field.error("bad_binding", "what to bind to", "either network_interface_id or security_group_ids")
    found = [parse_id(item) for item in groups.items()] if groups else []
    mode = table.get("mode")
    return HandBinding(
        interface=_checked_name(name) if name else "",
        network_interface_id=parse_id(eni) if eni else None,
        security_group_ids=tuple(sorted({group for group in found if group})),
        mode=mode.word({mode.value: mode for mode in Mode}) if mode else None,
        origin=f"{field.reading.file}: {field.path}",
    )


def _checked_name(field: Field) -> str:
    """Return the name of a link."""
    name = field.text()
    if name is not None and not _is_interface_name(name):
        field.error("bad_interface_name", "not an interface name", _INTERFACE_NAME_FORM)
    return name or ""


def _is_interface_name(name: str) -> bool:
    """Return whether Linux, nft and a terminal can all take the name."""
    return bool(_INTERFACE_NAME.fullmatch(name)) and name not in (".", "..")


def _platform(field: Field) -> tuple[Exemption, ...]:
    """Return the platform list (§7.3); an entry that is only an address lets everything out to it."""
    found = (
        _exemption(item) if isinstance(item.node, Mapping) else _reachable(item) for item in field.items()
    )
    return tuple(exemption for exemption in found if exemption is not None)


def _reachable(field: Field) -> Exemption | None:
    block = parse_network(field)
    if block is None:
        return None
    return Exemption(direction=Direction.EGRESS, peer=block, protocol=ALL_PROTOCOLS)


def _exemptions(field: Field | None) -> tuple[Exemption, ...]:
    """Return a platform or fail-safe list (§7.3, §7.4)."""
    found = (_exemption(item) for item in field.items()) if field else iter(())
    return tuple(exemption for exemption in found if exemption is not None)


def _exemption(field: Field) -> Exemption | None:
    """Return an entry of a platform or fail-safe list."""
    table = field.fields()
    if table is None:
        return None
    table.refuse_unknown(_EXEMPTION_KEYS)
    direction, cidr, protocol = (table.require(name) for name in ("direction", "cidr", "protocol"))
    way = direction.word(DIRECTIONS) if direction else None
    block = parse_network(cidr) if cidr else None
    number = parse_protocol(protocol) if protocol else None
    ports = _exempt_ports(table, number)
    if cidr and block and number:
        _check_family(cidr, block, number)
    if way is None or block is None or number is None:
        return None
    return Exemption(direction=way, peer=block, protocol=number, ports=ports)


def _check_family(field: Field, block: CidrBlock, protocol: Protocol) -> None:
    """Hold the CIDR against a protocol of one family (§4.1)."""
    only = protocol.only_family
    if only is not None and block.family is not only:
        field.error("family_of_protocol", f"{protocol} with {block.family.value}", f"an {only.value} CIDR")


def _exempt_ports(table: Fields, protocol: Protocol | None) -> tuple[PortRange, ...] | None:
    """Return the ports of an entry, None for any; the rules' own law (§4.2), if the protocol is known."""
    field = table.get("port_range")
    ports = parse_ports(field) if field else None
    if protocol is None:
        return None
    if field is None and protocol.has_ports:
        table.refuse_missing("port_range", PORT_FORMS)
    elif field is not None and ports and not protocol.has_ports:
        field.error("ports_do_not_fit", f"{protocol} has no ports", "-1/-1, or leave the key out")
    return ports or None


def _metrics(root: Fields) -> MetricsSettings:
    """Return how metrics are served."""
    default = _DEFAULTS.metrics
    table = _table(root, "metrics", ("listen", "page"))
    if table is None:
        return default
    return MetricsSettings(
        listen=_listen(table.get("listen"), default.listen), page=read_word(table, "page", default.page)
    )


def _listen(field: Field | None, default: ListenAddress) -> ListenAddress:
    """Return where a server waits."""
    text = field.text() if field else None
    if field is None or text is None:
        return default
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        field.error("bad_listen", "not an address with a port", "like 127.0.0.1:9469 or [::1]:9469")
        return default
    return ListenAddress(host=match["ipv6"] or match["host"], port=int(match["port"]))


def _limits(root: Fields) -> Limits:
    """Return what documents may cost."""
    table = _table(root, "limits", _LIMIT_KEYS)
    return Limits(**dict(_given_limits(table))) if table else _DEFAULTS.limits


def _given_limits(table: Fields) -> Iterator[tuple[str, int]]:
    """Go through the limits that are set."""
    for name in _LIMIT_KEYS:
        field = table.get(name)
        number = field.integer() if field else None
        if field is None or number is None:
            continue
        if number < 1:
            field.error("bad_limit", "a limit that nothing can keep", "at least 1")
            continue
        yield name, number
