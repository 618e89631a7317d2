"""Gather the objects of all documents, before they are one snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field

from sgagent.core.model import (
    GroupType,
    NetworkInterface,
    Policy,
    PortList,
    PrefixList,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.documents.field import Field


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedGroup:
    """What DescribeSecurityGroups tells of a group: all but its rules."""

    place: Field = field(compare=False)
    security_group_id: str
    group_type: GroupType
    name: str
    account_id: str | None
    vpc_id: str | None
    tags: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAttribute:
    """What DescribeSecurityGroupAttribute tells of a group: rules, maybe a page of them, but not its type."""

    place: Field
    security_group_id: str
    next_token: str | None
    """Of the page that continues this one; None for the last, or a whole answer."""

    inner_access_policy: Policy | None
    """None where the answer does not say."""

    name: str
    account_id: str | None
    vpc_id: str | None
    rules: tuple[SecurityGroupRule, ...]


@dataclass(slots=True)
class Collected:
    """What was read so far; what could not be read is left out, as the documents are refused anyway."""

    groups: list[SecurityGroup] = field(default_factory=list)
    prefix_lists: list[PrefixList] = field(default_factory=list)
    port_lists: list[PortList] = field(default_factory=list)
    interfaces: list[NetworkInterface] = field(default_factory=list)
    listed: list[ListedGroup] = field(default_factory=list)
    attributes: list[GroupAttribute] = field(default_factory=list)
    delivered_interfaces: list[NetworkInterface] = field(default_factory=list)
    """Of DescribeNetworkInterfaces, where pages may repeat one."""

    pages: dict[str, list[Page]] = field(default_factory=dict)
    """By the question that they answer."""

    has_left_out: bool = False
    """Whether an object could not be read, so that what refers to it may seem to refer to nothing."""

    @property
    def has_answers(self) -> bool:
        """Tell whether there are API documents among the documents."""
        return bool(self.listed or self.attributes or self.delivered_interfaces or self.pages)

    def take(self, other: Collected) -> None:
        """Add all that another file holds."""
        self.groups += other.groups
        self.prefix_lists += other.prefix_lists
        self.port_lists += other.port_lists
        self.interfaces += other.interfaces
        self.listed += other.listed
        self.attributes += other.attributes
        self.delivered_interfaces += other.delivered_interfaces
        for question, pages in other.pages.items():
            self.pages.setdefault(question, []).extend(pages)
        self.has_left_out |= other.has_left_out

    def add_group(self, group: SecurityGroup | None) -> None:
        """Take a group that is complete."""
        if group is None:
            self.has_left_out = True
        else:
            self.groups.append(group)

    def add_prefix_list(self, prefix_list: PrefixList | None) -> None:
        """Take a prefix list."""
        if prefix_list is None:
            self.has_left_out = True
        else:
            self.prefix_lists.append(prefix_list)

    def add_port_list(self, port_list: PortList | None) -> None:
        """Take a port list."""
        if port_list is None:
            self.has_left_out = True
        else:
            self.port_lists.append(port_list)

    def add_interface(self, interface: NetworkInterface | None) -> None:
        """Take an interface of a native document."""
        if interface is None:
            self.has_left_out = True
        else:
            self.interfaces.append(interface)


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a question that may take several."""

    place: Field
    has_next: bool
