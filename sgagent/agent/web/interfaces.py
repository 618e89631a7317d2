"""Show the links of this host, and the groups that judge them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sgagent.agent.status import InterfaceState, InterfaceStatus, state_in_words
from sgagent.agent.web.inspection import Found, Inspected
from sgagent.agent.web.markup import Element, Node, tag
from sgagent.agent.web.shell import Section
from sgagent.agent.web.tables import Align, Column, table
from sgagent.core.model import Direction, GroupType, SecurityGroup


def interfaces_section(interfaces: Sequence[InterfaceStatus], inspected: Inspected) -> Section:
    """Return the links, the groups of each, and what these groups are.

    Args:
        interfaces: of this host.
        inspected: what the definitions say of groups, as far as that is known.
    """
    return Section("interfaces", "Interfaces and groups", tuple(_content(interfaces, inspected)))


def _content(interfaces: Sequence[InterfaceStatus], inspected: Inspected) -> Iterator[Element]:
    if not interfaces:
        yield tag("p", "There is no link.")
        return
    yield table("Links of this host", _LINK_COLUMNS, map(_link_row, interfaces))
    groups = inspected.groups if isinstance(inspected, Found) else {}
    judging = sorted({group for interface in interfaces for group in interface.security_group_ids})
    if any(group in groups for group in judging):
        yield table("Groups in force here", _GROUP_COLUMNS, _group_rows(judging, groups, interfaces))


_LINK_COLUMNS = (
    Column("Interface", is_name=True),
    Column("State"),
    Column("Mode"),
    Column("Network interface"),
    Column("Groups"),
    Column("Sessions"),
)


def _link_row(interface: InterfaceStatus) -> tuple[Node, ...]:
    judged = "judged at every packet" if interface.is_judged_at_every_packet else "judged once"
    return (
        interface.name,
        state_in_words(interface),
        "–" if interface.mode is None else interface.mode.value,
        interface.network_interface_id or "–",
        ", ".join(interface.security_group_ids) or "–",
        "–" if interface.state in (InterfaceState.UNBOUND, InterfaceState.PORT) else judged,
    )


_GROUP_COLUMNS = (
    Column("Group", is_name=True),
    Column("Name"),
    Column("Type"),
    Column("Members among themselves"),
    Column("Rules inwards", Align.RIGHT),
    Column("Rules outwards", Align.RIGHT),
    Column("On"),
)


def _group_rows(
    judging: Iterable[str], groups: Mapping[str, SecurityGroup], interfaces: Sequence[InterfaceStatus]
) -> Iterator[tuple[Node, ...]]:
    for group_id in judging:
        group = groups.get(group_id)
        on = ", ".join(one.name for one in interfaces if group_id in one.security_group_ids)
        yield (group_id, *(_said(group) if group else ("not defined", "", "", "", "")), on)


def _said(group: SecurityGroup) -> tuple[Node, ...]:
    """Return what the definitions say of a group."""
    is_basic = group.group_type is GroupType.BASIC
    inwards, outwards = (sum(rule.direction is direction for rule in group.rules) for direction in Direction)
    return (
        group.name or "–",
        group.group_type.value,
        group.inner_access_policy.value if is_basic else "–",
        str(inwards),
        str(outwards),
    )
