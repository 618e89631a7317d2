"""Tell the answers of the ECS API apart by their shape, and take what they hold (§8.4).

Unknown fields are ignored; null and empty texts are how the API leaves a field unused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sgagent.core.model import GroupType, NetworkInterface, SecurityGroup
from sgagent.documents.apigroups import read_attribute, read_groups
from sgagent.documents.apiinterfaces import read_interfaces
from sgagent.documents.apilists import read_port_list, read_prefix_list
from sgagent.documents.collected import Collected, GroupAttribute, ListedGroup
from sgagent.documents.field import Fields

Reader = Callable[[Fields, Collected], None]

_SHAPES: tuple[tuple[str, Reader], ...] = (
    ("SecurityGroups", read_groups),
    ("Permissions", read_attribute),
    ("NetworkInterfaceSets", read_interfaces),
    ("PrefixListId", read_prefix_list),
    ("PortRangeListId", read_port_list),
    ("Entries", read_port_list),
)
"""The field that only one kind of answer has; that of a port list may hold nothing but the entries."""


def read_answer(answer: Fields, collected: Collected) -> bool:
    """Take an answer of the API; False if the document is none."""
    for name, read in _SHAPES:
        if name in answer.names():
            read(answer, collected)
            return True
    if "RequestId" not in answer.names():
        return False
    answer.field.error(
        "unknown_answer",
        "an answer of the API that is not read here",
        "DescribeSecurityGroups, DescribeSecurityGroupAttribute, DescribeNetworkInterfaces, "
        "DescribePrefixListAttributes or DescribePortRangeListEntries",
    )
    return True


def settle_answers(collected: Collected) -> None:
    """Put together what came in several answers; what is not complete narrows, never widens."""
    _check_pages(collected)
    listed = _listed_by_id(collected)
    attributes: dict[str, list[GroupAttribute]] = {}
    for attribute in collected.attributes:
        attributes.setdefault(attribute.security_group_id, []).append(attribute)
    for key, pages in attributes.items():
        collected.add_group(_joined(listed.get(key), pages))
    native = {group.security_group_id for group in collected.groups}
    for key in sorted(listed.keys() - attributes.keys() - native):
        _warn_of_missing_rules(listed[key])
    collected.interfaces += _distinct_interfaces(collected)


def _check_pages(collected: Collected) -> None:
    """Note an error where every page of an answer announces another one: the last is missing."""
    for pages in collected.pages.values():
        if all(page.has_next for page in pages):
            pages[-1].place.error("missing_page", "the page that this one announces is missing", "all pages")


def _listed_by_id(collected: Collected) -> dict[str, ListedGroup]:
    """Return the listed groups by id; pages may repeat one, but not otherwise."""
    by_id: dict[str, ListedGroup] = {}
    for group in collected.listed:
        if by_id.setdefault(group.security_group_id, group) != group:
            group.place.error("duplicate_id", f"group {group.security_group_id} is listed twice, differently")
    return by_id


def _joined(listed: ListedGroup | None, pages: list[GroupAttribute]) -> SecurityGroup:
    """Return the group that its listing and the pages of its attributes make."""
    first = pages[0]
    if listed is None:
        first.place.warn(
            "type_not_delivered",
            f"the type of {first.security_group_id} is unknown; it is read as advanced, which admits least",
            "the answer of DescribeSecurityGroups beside this one",
        )
    return SecurityGroup(
        security_group_id=first.security_group_id,
        group_type=listed.group_type if listed else GroupType.ADVANCED,
        inner_access_policy=first.inner_access_policy,
        account_id=(listed and listed.account_id) or first.account_id,
        vpc_id=(listed and listed.vpc_id) or first.vpc_id,
        name=(listed and listed.name) or first.name,
        tags=listed.tags if listed else (),
        rules=tuple(rule for page in pages for rule in page.rules),
        origin=first.place.origin,
    )


def _warn_of_missing_rules(group: ListedGroup) -> None:
    """Note that a group stays unknown: without its drop rules it would open something (§5.3)."""
    group.place.warn(
        "rules_not_delivered",
        f"the rules of {group.security_group_id} are not delivered; the group is left out",
        "the answer of DescribeSecurityGroupAttribute for the group",
    )


def _distinct_interfaces(collected: Collected) -> Iterator[NetworkInterface]:
    """Go through the delivered interfaces, without those that a page repeats."""
    seen: dict[str, NetworkInterface] = {}
    for interface in collected.delivered_interfaces:
        first = seen.setdefault(interface.network_interface_id, interface)
        if first is interface or first != interface:
            yield interface
