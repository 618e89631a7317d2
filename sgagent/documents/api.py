"""Models of the ECS API's answers, and their reader (§8.4).

The models ignore unknown fields. Null and an empty text mean that the API left a field unset. The API answers
with pages; ``api_pages`` merges what this module collects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping as MappingOf
from dataclasses import replace
from itertools import chain
from typing import Annotated, TypeVar

from sgagent.core.model import (
    CidrBlock,
    Direction,
    Family,
    GroupReference,
    GroupType,
    NetworkInterface,
    PrefixListReference,
    Protocols,
    SecurityGroupRule,
)
from sgagent.documents import scalars, values
from sgagent.documents.assembly import Collected, DeliveredGroup
from sgagent.documents.field import Field
from sgagent.documents.field_types import Account, Block, Id, Mac, Member, PolicyWord, PortRange, Text
from sgagent.documents.models import FieldType, LooseModel, one_of, read_each, read_model
from sgagent.documents.rules import RuleEnds, RuleFields, make_port_list, make_prefix_list, make_rule
from sgagent.documents.tree import Listing, Mapping, Node, is_set

T = TypeVar("T")


def _inner(name: str) -> Callable[[Node], Listing]:
    """Return a parser of a list inside a mapping, like ``Permissions.Permission``; unset is empty."""

    def parse_inner(node: Node) -> Listing:
        found = scalars.parse_mapping(node).entries.get(name, "") if is_set(node) else ""
        if not is_set(found):
            return Listing(0, [])
        if isinstance(found, Listing):
            return found
        raise scalars.InvalidValueError(replace(scalars.wrong_type(found, "a list"), path=(name,)))

    return parse_inner


def _wrapped(name: str) -> FieldType:
    return FieldType(_inner(name))


class AnswerModel(LooseModel):
    """A mapping of an answer."""

    @classmethod
    def name_of(cls, attribute: str) -> str:
        """Return the API's name of a field: ``vpc_id`` is ``VpcId``."""
        return attribute.title().replace("_", "")


class TagModel(AnswerModel):
    """A tag; the names of key and value differ between API calls."""

    tag_key: Text = ""
    key: Text = ""
    tag_value: Text = ""
    value: Text = ""


class ListedGroupModel(AnswerModel):
    """A group of DescribeSecurityGroups."""

    security_group_id: Id
    security_group_type: Annotated[GroupType | None, one_of(values.GROUP_TYPES, "normal or enterprise")]
    security_group_name: Text = ""
    owner_id: Account | None = None
    vpc_id: Id | None = None
    tags: Annotated[Listing, _wrapped("Tag")] | None = None


class GroupAttributeModel(AnswerModel):
    """An answer of DescribeSecurityGroupAttribute."""

    security_group_id: Id
    inner_access_policy: PolicyWord | None = None
    next_token: Text | None = None
    security_group_name: Text = ""
    owner_id: Account | None = None
    vpc_id: Id | None = None
    permissions: Annotated[Listing, _wrapped("Permission")] | None = None


API_NAMES = {
    "rule_id": "security_group_rule_id",
    "protocol": "ip_protocol",
    "port_list_id": "port_range_list_id",
}
"""The API's words for fields of a rule."""


class PermissionModel(RuleFields, AnswerModel):
    """A rule; its peer and its local end have other names on ingress than on egress (§4.5)."""

    priority: Annotated[int, FieldType(values.parse_priority_or_text)] = 1
    protocol: Annotated[Protocols | None, FieldType(values.parse_single_protocol)]
    port_range: PortRange | None = None
    source_port_range: PortRange | None = None
    nic_type: Annotated[str, FieldType(scalars.parse_text)] = "intranet"
    description: Text = ""

    @classmethod
    def name_of(cls, attribute: str) -> str:
        """Return the API's name of a field."""
        return super().name_of(API_NAMES.get(attribute, attribute))

    @classmethod
    def entries_of(cls, node: Mapping) -> MappingOf[str, Node]:
        """Return the fields that are set, without those of objects that do not count (§5.1)."""
        entries, names = super().entries_of(node), cls.names()
        group, account = names["peer_group_id"], names[_ACCOUNT]
        losing = {account} if group not in entries else {names["peer_prefix_list_id"]}
        if names["peer_cidr_ip"] in entries or names["ipv6_peer_cidr_ip"] in entries:
            losing = {group, account, names["peer_prefix_list_id"]}
        return {name: value for name, value in entries.items() if name not in losing}


class IngressModel(PermissionModel):
    """A rule on ingress: the source is the peer."""

    peer, local = "Source", "Dest"

    peer_cidr_ip: Block | None = None
    ipv6_peer_cidr_ip: Block | None = None
    peer_group_id: Id | None = None
    peer_group_owner_account: Account | None = None
    peer_prefix_list_id: Id | None = None
    local_cidr_ip: Block | None = None
    ipv6_local_cidr_ip: Block | None = None

    @classmethod
    def name_of(cls, attribute: str) -> str:
        """Return the API's name of a field: ``peer_cidr_ip`` is ``SourceCidrIp``."""
        return super().name_of(attribute).replace("Peer", cls.peer).replace("Local", cls.local)


class EgressModel(IngressModel):
    """A rule on egress: the destination is the peer."""

    peer, local = "Dest", "Source"


class DeliveredAddressModel(AnswerModel):
    """An address of an interface, or a prefix delegated to it; public addresses never match (§5.2)."""

    private_ip_address: Member | None = None
    ipv6_address: Member | None = None
    ipv4_prefix: Member | None = None
    ipv6_prefix: Member | None = None


class DeliveredInterfaceModel(AnswerModel):
    """An interface of DescribeNetworkInterfaces (§1.3)."""

    network_interface_id: Id
    mac_address: Mac | None = None
    private_ip_address: Member | None = None
    private_ip_sets: Annotated[Listing, _wrapped("PrivateIpSet")] | None = None
    ipv6_sets: Annotated[Listing, _wrapped("Ipv6Set")] | None = None
    ipv4_prefix_sets: Annotated[Listing, _wrapped("Ipv4PrefixSet")] | None = None
    ipv6_prefix_sets: Annotated[Listing, _wrapped("Ipv6PrefixSet")] | None = None
    security_group_ids: Annotated[Listing, _wrapped("SecurityGroupId")] | None = None
    owner_id: Account | None = None
    vpc_id: Id | None = None
    instance_id: Id | None = None
    connection_tracking_configuration: Annotated[Mapping, FieldType(scalars.parse_mapping)] | None = None


class DeliveredPrefixModel(AnswerModel):
    """An entry of a prefix list."""

    cidr: Block


class DeliveredPrefixListModel(AnswerModel):
    """An answer of DescribePrefixListAttributes."""

    prefix_list_id: Id
    address_family: Annotated[Family, one_of(values.FAMILIES, "IPv4 or IPv6")]
    max_entries: Annotated[int, FieldType(values.parse_priority_or_text)] | None = None
    entries: Annotated[Listing, _wrapped("Entry")] | None = None


class DeliveredPortsModel(AnswerModel):
    """An entry of a port list."""

    port_range: PortRange


class DeliveredPortListModel(AnswerModel):
    """An answer of DescribePortRangeListEntries, which does not name the list."""

    port_range_list_id: Id | None = None
    entries: Annotated[Listing, FieldType(scalars.parse_list)] | None = None


def read_answer(answer: Field, collected: Collected) -> None:
    """Collect an API answer; one of its fields identifies its kind."""
    for name, read in _SHAPES:
        if name in answer.entries:
            read(answer, collected)
            return
    if "Code" in answer.entries:
        remedy = "correct the call by what Message says, and save its answer"
        answer.at("Code").error("unknown_answer", "the API refused the call", remedy)
        return
    answer.error(
        "unknown_answer",
        "sgagent does not read this answer of the API",
        "DescribeSecurityGroups, DescribeSecurityGroupAttribute, DescribeNetworkInterfaces, "
        "DescribePrefixListAttributes or DescribePortRangeListEntries",
    )


def _read_groups(answer: Field, collected: Collected) -> None:
    answer.at("SecurityGroups").read(_inner("SecurityGroup"))
    collected.pages.setdefault("DescribeSecurityGroups", []).append(answer)
    listed = _items(answer, "SecurityGroups", "SecurityGroup")
    for place, group in read_each(ListedGroupModel, listed):
        if not group.security_group_id:
            continue
        read = read_each(TagModel, _items(place, "Tags", "Tag"))
        tags = {(tag.tag_key or tag.key, tag.tag_value or tag.value) for _, tag in read}
        group_type = group.security_group_type or values.UNKNOWN_GROUP_TYPE
        delivered = replace(_delivered(place, group), group_type=group_type, tags=tuple(sorted(tags)))
        collected.listed.append(delivered)


def _delivered(place: Field, model: ListedGroupModel | GroupAttributeModel) -> DeliveredGroup:
    """Return the facts of a group that both answers have."""
    return DeliveredGroup(
        place=place,
        security_group_id=model.security_group_id,
        name=model.security_group_name,
        account_id=model.owner_id,
        vpc_id=model.vpc_id,
    )


def _read_attribute(answer: Field, collected: Collected) -> None:
    model = read_model(GroupAttributeModel, answer)
    if model is None:
        return
    rules = [_rule(place) for place in _items(answer, "Permissions", "Permission")]
    if not model.security_group_id:
        return
    collected.pages.setdefault(f"DescribeSecurityGroupAttribute {model.security_group_id}", []).append(answer)
    delivered = replace(
        _delivered(answer, model),
        next_token=model.next_token,
        inner_access_policy=model.inner_access_policy,
        rules=tuple(filter(None, rules)),
    )
    collected.attributes.append(delivered)


def _rule(place: Field) -> SecurityGroupRule | None:
    place.count_rule()
    written = place.entries.get("Direction")
    way = values.DIRECTIONS.get(written.lower()) if isinstance(written, str) else None
    model = read_model(EgressModel if way is Direction.EGRESS else IngressModel, place)
    if model is None:
        return None
    note_nic_type(place, model)
    local = _block(place, model, "local_cidr_ip", "ipv6_local_cidr_ip")
    near = _end(model, local, getattr(model, local)) if local else ()
    ends = RuleEnds(() if way is None else rule_peer(place, model), near)
    return make_rule(place, model, ends, description=model.description)


def note_nic_type(place: Field, model: PermissionModel) -> None:
    """Add a warning for a rule of the public interface of a classic network."""
    if model.nic_type != "intranet":
        nic_type = place.at(model.names()["nic_type"])
        nic_type.warn("nic_type", "NicType is not intranet; the rule is read all the same", "intranet")


def rule_peer(place: Field, model: PermissionModel) -> tuple[values.PlacedObject, ...]:
    """Return the authorization object; CIDR wins over group over prefix list (§5.1)."""
    fields = ("peer_cidr_ip", "ipv6_peer_cidr_ip", "peer_group_id", "peer_prefix_list_id")
    block = _block(place, model, *fields[:2])
    name = block or next((one for one in fields[2:] if one in model.given), None)
    if name is not None:
        value = getattr(model, name)
        if value and name == "peer_group_id":
            value = GroupReference(value, getattr(model, _ACCOUNT))
        elif value and name == "peer_prefix_list_id":
            value = PrefixListReference(value)
        return _end(model, name, value)
    *names, last = (model.names()[field] for field in fields)
    remedy = f"one of {', '.join(names)} or {last}"
    place.error("missing_object", "the authorization object is missing", remedy)
    return ()


_ACCOUNT = "peer_group_owner_account"


def _block(place: Field, model: PermissionModel, *families: str) -> str | None:
    """Return the field with the CIDR of an end; two of different families in one rule are an error (§8.1)."""
    found = [name for name in families if name in model.given]
    if len(found) > 1:
        first, second = (model.names()[name] for name in found)
        message = f"the rule has both {first} and {second}"
        place.at(second).error("mixed_families", message, "write a rule for each")
    return found[0] if found else None


def _end(model: PermissionModel, name: str, value: T | None) -> tuple[tuple[values.Path, T], ...]:
    """Return the value of a field, with its path; nothing if it is wrong."""
    return () if value is None else (((model.names()[name],), value),)


def _read_interfaces(answer: Field, collected: Collected) -> None:
    answer.at("NetworkInterfaceSets").read(_inner("NetworkInterfaceSet"))
    collected.pages.setdefault("DescribeNetworkInterfaces", []).append(answer)
    for place in _items(answer, "NetworkInterfaceSets", "NetworkInterfaceSet"):
        interface = _interface(place)
        if interface is not None:
            collected.delivered_interfaces.append(interface)


_TIMEOUTS = ("TcpEstablishedTimeout", "TcpClosedAndTimeWaitTimeout", "UdpTimeout")


def _interface(place: Field) -> NetworkInterface | None:
    model = read_model(DeliveredInterfaceModel, place)
    if model is None:
        return None
    tracking = place.at("ConnectionTrackingConfiguration")
    timeouts = [name for name in _TIMEOUTS if is_set(tracking.entries.get(name, ""))]
    if model.connection_tracking_configuration and timeouts:
        message = f"{', '.join(timeouts)}: read, but not enforced"
        tracking.warn("idle_timeouts", message, "rely on the kernel's own timeouts")
    attached = _items(place, "SecurityGroupIds", "SecurityGroupId")
    sets = (_items(place, f"{name}s", name) for name in _ADDRESS_SETS)
    interface = NetworkInterface(
        network_interface_id=model.network_interface_id or "",
        mac_address=model.mac_address,
        addresses=read_addresses(model.private_ip_address, chain.from_iterable(sets)),
        security_group_ids=tuple(sorted(filter(None, {item.read(values.parse_id) for item in attached}))),
        account_id=model.owner_id,
        vpc_id=model.vpc_id,
        instance_id=model.instance_id,
        origin=place.origin,
        attachment_origin=place.at("SecurityGroupIds").origin,
    )
    return interface if model.network_interface_id else None


_ADDRESS_SETS = ("PrivateIpSet", "Ipv6Set", "Ipv4PrefixSet", "Ipv6PrefixSet")


def read_addresses(primary: CidrBlock | None, items: Iterable[Field]) -> tuple[CidrBlock, ...]:
    """Return the private addresses and delegated prefixes of an interface, the primary one first."""
    found = [primary]
    for _, one in read_each(DeliveredAddressModel, items):
        found += (one.private_ip_address, one.ipv6_address, one.ipv4_prefix, one.ipv6_prefix)
    return tuple(dict.fromkeys(filter(None, found)))


def _read_prefix_list(answer: Field, collected: Collected) -> None:
    model = read_model(DeliveredPrefixListModel, answer)
    if model is None:
        return
    _refuse_part(answer)
    items = read_each(DeliveredPrefixModel, _items(answer, "Entries", "Entry"))
    entries = [(item.at("Cidr"), entry.cidr) for item, entry in items]
    most = model.max_entries or 0
    found = make_prefix_list(answer, model.prefix_list_id, model.address_family, entries, most)
    collected.add(collected.prefix_lists, found)


def _read_port_list(answer: Field, collected: Collected) -> None:
    """Collect a port list.

    The API does not return the id of the list. The id comes from a ``PortRangeListId`` that the user adds, or
    from the name of a file that holds only this answer.
    """
    model = read_model(DeliveredPortListModel, answer)
    if model is None:
        return
    _refuse_part(answer)
    port_list_id = model.port_range_list_id or answer.id_in_file_name("prl-")
    if port_list_id is None and not is_set(answer.entries.get("PortRangeListId", "")):
        answer.refuse_missing("PortRangeListId", "add the id, or name the file after it, like prl-1.json")
    items = read_each(DeliveredPortsModel, _items(answer, "Entries"))
    entries = [(item.at("PortRange"), entry.port_range) for item, entry in items]
    collected.add(collected.port_lists, make_port_list(answer, port_list_id, entries))


def _items(place: Field, *path: str) -> Iterator[Field]:
    """Yield the items of the list at a path; nothing where there is none."""
    found = place.at(*path)
    return found.items() if isinstance(found.node, Listing) else iter(())


def _refuse_part(answer: Field) -> None:
    """Add an error if an answer of a call without pagination announces another page."""
    if is_set(answer.entries.get("NextToken", "")):
        remedy = "save the whole answer, without NextToken"
        answer.at("NextToken").error("missing_page", "the answer is one page of several", remedy)


_SHAPES: tuple[tuple[str, Callable[[Field, Collected], None]], ...] = (
    ("SecurityGroups", _read_groups),
    ("Permissions", _read_attribute),
    ("NetworkInterfaceSets", _read_interfaces),
    ("PrefixListId", _read_prefix_list),
    ("PortRangeListId", _read_port_list),
    ("Entries", _read_port_list),
)
"""The field that identifies each kind of answer; a port list may have only its entries."""
