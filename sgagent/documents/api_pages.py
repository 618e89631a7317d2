"""Merge of the pages and listings of ECS API answers into groups (§8.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TypeVar

from sgagent.core.model import DEFAULT_INNER_ACCESS, GroupType, NetworkInterface, Policy, SecurityGroup
from sgagent.documents.assembly import Collected, DeliveredGroup
from sgagent.documents.tree import is_set
from sgagent.documents.values import UNKNOWN_GROUP_TYPE

T = TypeVar("T")

ANSWER_FIELDS = {
    "RequestId",
    "SecurityGroups",
    "Permissions",
    "NetworkInterfaceSets",
    "PrefixListId",
    "PortRangeListId",
    "Entries",
}
"""Fields that only answers have: one of them is in each."""


def settle_answers(collected: Collected) -> None:
    """Merge the pages and listings of each group; an incomplete group narrows the policy, never widens it."""
    for pages in collected.pages.values():
        if all(is_set(page.entries.get("NextToken", "")) for page in pages):
            remedy = "save every page, up to the one without NextToken"
            pages[-1].error("missing_page", "the next page is missing", remedy)
    listed = _listed_by_id(collected)
    attributes: dict[str, list[DeliveredGroup]] = {}
    for attribute in collected.attributes:
        attributes.setdefault(attribute.security_group_id, []).append(attribute)
    for key, answers in attributes.items():
        collected.groups.append(_joined(listed.get(key), answers))
    native = {group.security_group_id for group in collected.groups}
    # A group without its drop rules would admit too much (§5.3).
    for key in sorted(listed.keys() - attributes.keys() - native):
        message = f"the rules of {key} are not delivered; the group is left out"
        remedy = "the answer of DescribeSecurityGroupAttribute for the group"
        listed[key].place.warn("rules_not_delivered", message, remedy)
    seen: dict[str, NetworkInterface] = {}
    for interface in collected.delivered_interfaces:
        first = seen.setdefault(interface.network_interface_id, interface)
        if first is interface or first != interface:
            collected.interfaces.append(interface)


def _listed_by_id(collected: Collected) -> dict[str, DeliveredGroup]:
    """Return the listed groups by id; add an error if two pages contradict each other."""
    by_id: dict[str, DeliveredGroup] = {}
    for group in collected.listed:
        first = by_id.setdefault(group.security_group_id, group)
        if first != group:
            message = f"group {group.security_group_id} differs from its listing in {first.place.origin}"
            group.place.error("duplicate_id", message, "remove the older one")
    return by_id


def _joined(listed: DeliveredGroup | None, answers: list[DeliveredGroup]) -> SecurityGroup:
    """Return the group merged from its listing and its attribute pages."""
    pages = tuple(_pages(answers))
    first = pages[0]
    _check_agreement(listed, pages)
    said = _first_said(page.inner_access_policy for page in pages)
    # Only basic groups have an inner access policy of accept, so an answer that says so names the type.
    group_type = GroupType.BASIC if said is Policy.ACCEPT else UNKNOWN_GROUP_TYPE
    if listed is None and group_type is UNKNOWN_GROUP_TYPE:
        read_as = f"it is read as {UNKNOWN_GROUP_TYPE.value}, which admits least"
        message = f"the type of {first.security_group_id} is unknown; {read_as}"
        remedy = "the answer of DescribeSecurityGroups beside this one"
        first.place.warn("type_not_delivered", message, remedy)
    return SecurityGroup(
        security_group_id=first.security_group_id,
        group_type=listed.group_type if listed else group_type,
        inner_access_policy=said or DEFAULT_INNER_ACCESS,
        account_id=(listed and listed.account_id) or _first_said(page.account_id for page in pages),
        vpc_id=(listed and listed.vpc_id) or _first_said(page.vpc_id for page in pages),
        name=(listed and listed.name) or _first_said(page.name for page in pages) or "",
        tags=listed.tags if listed else (),
        rules=tuple(rule for page in pages for rule in page.rules),
        origin=first.place.origin,
    )


def _first_said(values: Iterable[T | None]) -> T | None:
    """Return the first value that is set."""
    return next(filter(None, values), None)


def _pages(answers: list[DeliveredGroup]) -> Iterator[DeliveredGroup]:
    """Yield the attribute pages of a group; add an error for each repeated page.

    Exactly one page is the last; every other page announces a distinct next page. A second complete answer is
    an error, because a rule that exists only in the older one would stay in force.
    """
    seen: dict[str | None, DeliveredGroup] = {}
    for page in answers:
        first = seen.setdefault(page.next_token, page)
        if first is page:
            yield page
            continue
        what = "a second whole answer" if page.next_token is None else "the same page again"
        message = f"{what} about {page.security_group_id}; the first is in {first.place.origin}"
        remedy = "one of the two; pages of one answer continue each other by NextToken"
        page.place.error("second_answer", message, remedy)


def _check_agreement(listed: DeliveredGroup | None, pages: tuple[DeliveredGroup, ...]) -> None:
    """Add an error where pages, or a page and the listing, disagree about a field of the group."""
    for name, is_listed, field in _GROUP_FIELDS:
        answers = (*pages, *((listed,) if listed and is_listed else ()))
        first, *others = [answer for answer in answers if field(answer)] or [pages[0]]
        for other in others:
            if field(other) != field(first):
                message = f"{name} of {other.security_group_id} differs from that in {first.place.origin}"
                other.place.error("contradiction", message, "answers of one time")


_GROUP_FIELDS: tuple[tuple[str, bool, Callable[[DeliveredGroup], object]], ...] = (
    ("InnerAccessPolicy", False, attrgetter("inner_access_policy")),
    ("VpcId", True, attrgetter("vpc_id")),
    ("OwnerId", True, attrgetter("account_id")),
    ("SecurityGroupName", False, attrgetter("name")),
)
"""Fields of a group: whether the listing has it too, and its getter.

A listing is not compared by name, because the name may change between two calls.
"""
