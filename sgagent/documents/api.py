"""Tell the answers of the ECS API apart by their shape, and take what they hold (§8.4).

Unknown fields are ignored; null and empty texts are how the API leaves a field unused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TypeVar

from sgagent.core.model import GroupType, NetworkInterface, Policy, SecurityGroup
from sgagent.documents.api_groups import read_attribute, read_groups
from sgagent.documents.api_lists import read_interfaces, read_port_list, read_prefix_list
from sgagent.documents.assembly import Collected, GroupAttribute, ListedGroup
from sgagent.documents.field import Fields

T = TypeVar("T")
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
        first = by_id.setdefault(group.security_group_id, group)
        if first != group:
            message = f"group {group.security_group_id} is listed otherwise in {first.place.origin}"
            group.place.error("duplicate_id", message, "one of the two, which are of different times")
    return by_id


def _joined(listed: ListedGroup | None, answers: list[GroupAttribute]) -> SecurityGroup:
    """Return the group that its listing and the pages of its attributes make."""
    pages = tuple(_pages(answers))
    first = pages[0]
    _check_agreement(listed, pages)
    if listed is None:
        first.place.warn(
            "type_not_delivered",
            f"the type of {first.security_group_id} is unknown; it is read as advanced, which admits least",
            "the answer of DescribeSecurityGroups beside this one",
        )
    return SecurityGroup(
        security_group_id=first.security_group_id,
        group_type=listed.group_type if listed else GroupType.ADVANCED,
        inner_access_policy=_first_said(page.inner_access_policy for page in pages) or Policy.ACCEPT,
        account_id=(listed and listed.account_id) or _first_said(page.account_id for page in pages),
        vpc_id=(listed and listed.vpc_id) or _first_said(page.vpc_id for page in pages),
        name=(listed and listed.name) or _first_said(page.name for page in pages) or "",
        tags=listed.tags if listed else (),
        rules=tuple(rule for page in pages for rule in page.rules),
        origin=first.place.origin,
    )


def _first_said(values: Iterable[T | None]) -> T | None:
    """Return the first value that says something."""
    return next(filter(None, values), None)


def _pages(answers: list[GroupAttribute]) -> Iterator[GroupAttribute]:
    """Go through the answers about a group that can be the pages of one, with errors for the others.

    One page is the last, and each other announces a page of its own. Of two whole answers the older one would
    keep in force what the newer one does not have any more.
    """
    seen: dict[str | None, GroupAttribute] = {}
    for page in answers:
        first = seen.setdefault(page.next_token, page)
        if first is page:
            yield page
            continue
        what = "a second whole answer" if page.next_token is None else "the same page again"
        page.place.error(
            "second_answer",
            f"{what} about {page.security_group_id}; the first is in {first.place.origin}",
            "one of the two; pages of one answer continue each other by NextToken",
        )


def _check_agreement(listed: ListedGroup | None, pages: tuple[GroupAttribute, ...]) -> None:
    """Note an error where pages, or a page and the listing, tell a field of the group differently."""
    for name, is_listed, field in _GROUP_FIELDS:
        answers = (*pages, *((listed,) if listed and is_listed else ()))
        first, *others = [answer for answer in answers if field(answer)] or [pages[0]]
        for other in others:
            if field(other) != field(first):
                message = f"{name} of {other.security_group_id} is otherwise in {first.place.origin}"
                other.place.error("contradiction", message, "answers of one time")


_GROUP_FIELDS: tuple[tuple[str, bool, Callable[[GroupAttribute | ListedGroup], object]], ...] = (
    ("InnerAccessPolicy", False, attrgetter("inner_access_policy")),
    ("VpcId", True, attrgetter("vpc_id")),
    ("OwnerId", True, attrgetter("account_id")),
    ("SecurityGroupName", False, attrgetter("name")),
)
"""What describes a group, and whether the listing tells it as well; a name may change between two calls."""


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
