"""Reader of DescribeSecurityGroups and DescribeSecurityGroupAttribute, which together describe a group."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sgagent.core.model import (
    UNKNOWN_GROUP_TYPE,
    AuthorizationObject,
    CidrBlock,
    Direction,
    PrefixListReference,
    SecurityGroupRule,
)
from sgagent.documents.api_fields import (
    next_token,
    note_page,
    optional_id,
    owner,
    plain_text,
    required_id,
    tags,
    wrapped,
)
from sgagent.documents.assembly import Collected, GroupAttribute, ListedGroup
from sgagent.documents.field import Field, Fields
from sgagent.documents.rule_form import Part, RuleForm, make_rule
from sgagent.documents.values import (
    DIRECTIONS,
    GROUP_TYPES,
    POLICIES,
    HostBits,
    checked_priority,
    group_reference,
    parse_account,
    parse_block,
    parse_id,
    parse_port_range,
    parse_protocol,
)

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class _End:
    """The names of the fields that tell one end of a rule."""

    cidr: str
    ipv6_cidr: str
    group: str
    account: str
    prefix_list: str


_SOURCE = _End(
    "SourceCidrIp", "Ipv6SourceCidrIp", "SourceGroupId", "SourceGroupOwnerAccount", "SourcePrefixListId"
)
_DESTINATION = _End(
    "DestCidrIp", "Ipv6DestCidrIp", "DestGroupId", "DestGroupOwnerAccount", "DestPrefixListId"
)


def read_groups(answer: Fields, collected: Collected) -> None:
    """Take the groups that an answer of DescribeSecurityGroups lists."""
    note_page(answer, collected, "DescribeSecurityGroups")
    for field in wrapped(answer, "SecurityGroups", "SecurityGroup"):
        group = _listed(field)
        if group is not None:
            collected.listed.append(group)


def read_attribute(answer: Fields, collected: Collected) -> None:
    """Take the rules of an answer of DescribeSecurityGroupAttribute."""
    security_group_id = required_id(answer, "SecurityGroupId")
    inner = answer.filled("InnerAccessPolicy")
    attribute = GroupAttribute(
        place=answer.field,
        security_group_id=security_group_id or "",
        next_token=next_token(answer),
        inner_access_policy=inner.word(POLICIES) if inner else None,
        name=plain_text(answer, "SecurityGroupName"),
        account_id=owner(answer),
        vpc_id=optional_id(answer, "VpcId"),
        rules=tuple(_rules(answer)),
    )
    if security_group_id is not None:
        note_page(answer, collected, f"DescribeSecurityGroupAttribute {security_group_id}")
        collected.attributes.append(attribute)


def _listed(field: Field) -> ListedGroup | None:
    """Return a group of a listing."""
    fields = field.fields()
    if fields is None:
        return None
    security_group_id = required_id(fields, "SecurityGroupId")
    group_type = fields.filled("SecurityGroupType")
    if group_type is None:
        fields.refuse_missing("SecurityGroupType", "normal or enterprise")
    found = group_type.word(GROUP_TYPES) if group_type else None
    group = ListedGroup(
        place=field,
        security_group_id=security_group_id or "",
        group_type=found or UNKNOWN_GROUP_TYPE,
        name=plain_text(fields, "SecurityGroupName"),
        account_id=owner(fields),
        vpc_id=optional_id(fields, "VpcId"),
        tags=tags(fields),
    )
    return group if security_group_id else None


def _rules(answer: Fields) -> Iterator[SecurityGroupRule]:
    """Go through the rules of an answer that can be read."""
    for field in wrapped(answer, "Permissions", "Permission"):
        field.count_rule()
        fields = field.fields()
        rule = make_rule(_form(fields)) if fields else None
        if rule is not None:
            yield rule


def _form(fields: Fields) -> RuleForm:
    """Return the parts of a rule; on ingress the peer is the source, on egress the destination (§4.5)."""
    _check_network_type(fields)
    direction, policy, protocol = (_required(fields, name) for name in ("Direction", "Policy", "IpProtocol"))
    way = direction and direction.word(DIRECTIONS)
    peer_end, local_end = (_DESTINATION, _SOURCE) if way is Direction.EGRESS else (_SOURCE, _DESTINATION)
    ports, source_ports, port_list = (
        fields.filled(name) for name in ("PortRange", "SourcePortRange", "PortRangeListId")
    )
    return RuleForm(
        place=fields.field,
        rule_id=optional_id(fields, "SecurityGroupRuleId") or "",
        direction=way,
        policy=policy and policy.word(POLICIES),
        priority=_priority(fields),
        protocol=protocol and parse_protocol(protocol),
        ports=ports and Part(ports, parse_port_range(ports)),
        port_list=port_list and Part(port_list, parse_id(port_list)),
        source_ports=source_ports and Part(source_ports, parse_port_range(source_ports)),
        peer=_peer(fields, peer_end) if way else None,
        local=_block(fields, local_end),
        description=plain_text(fields, "Description"),
    )


def _check_network_type(fields: Fields) -> None:
    """Warn of rules for the classic network's public side; they are enforced all the same (§8.2)."""
    field = fields.filled("NicType")
    if field is not None and field.text() not in (None, "intranet"):
        field.warn("nic_type", "a rule for another network than the private one", "intranet")


def _required(fields: Fields, name: str) -> Field | None:
    """Return a field that must be in use."""
    field = fields.filled(name)
    if field is None:
        fields.refuse_missing(name)
    return field


def _priority(fields: Fields) -> int | None:
    """Return the priority, which is a number or a text; 1 where unused (§4.6)."""
    field = fields.filled("Priority")
    if field is None:
        return 1
    text = field.text_or_digits()
    if text is None:
        return None
    if not _WHOLE_NUMBER.fullmatch(text):
        field.error("bad_priority", "not a priority", "a whole number from 1, the most urgent, to 100")
        return None
    return checked_priority(field, int(text))


def _peer(fields: Fields, end: _End) -> Part[AuthorizationObject] | None:
    """Return the authorization object; CIDR wins over group over prefix list (§5.1)."""
    block = _block(fields, end)
    if block is not None:
        return Part(block.field, block.value)
    group = fields.filled(end.group)
    if group is not None:
        return _group(fields, group, end)
    prefix_list = fields.filled(end.prefix_list)
    if prefix_list is not None:
        prefix_list_id = parse_id(prefix_list)
        return Part(prefix_list, PrefixListReference(prefix_list_id) if prefix_list_id else None)
    fields.field.error(
        "missing_object",
        "no authorization object",
        f"one of {end.cidr}, {end.ipv6_cidr}, {end.group} or {end.prefix_list}",
    )
    return None


def _group(fields: Fields, group: Field, end: _End) -> Part[AuthorizationObject]:
    """Return a reference to a group, with its owner where the answer names one."""
    account = fields.filled(end.account)
    account_id = parse_account(account) if account else None
    text = group.text()
    return Part(group, group_reference(group, text, account_id) if text else None)


def _block(fields: Fields, end: _End) -> Part[CidrBlock] | None:
    """Return the CIDR of an end; two of different families in one rule are an error (§8.1)."""
    ipv4, ipv6 = fields.filled(end.cidr), fields.filled(end.ipv6_cidr)
    if ipv4 is not None and ipv6 is not None:
        ipv6.error("mixed_families", f"{end.cidr} and {end.ipv6_cidr} in one rule", "a rule for each")
    field = ipv4 or ipv6
    return Part(field, parse_block(field, HostBits.CLEARED)) if field else None
