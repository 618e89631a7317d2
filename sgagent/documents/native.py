"""Models of the native format, version 1, and its reader: a typo never admits traffic (§8.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Annotated, TypeVar

from sgagent.core.conditions import Conditions, Local, SourceLimit
from sgagent.core.hours import Hours
from sgagent.core.model import (
    DEFAULT_INNER_ACCESS,
    CidrBlock,
    Cloud,
    Family,
    GroupType,
    NetworkInterface,
    Policy,
    PortList,
    PrefixList,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.documents import scalars, values
from sgagent.documents.assembly import Collected
from sgagent.documents.conditions import (
    LIMIT_SCHEMA,
    HoursModel,
    LimitModel,
    LocalModel,
    parse_hours,
    parse_limit,
    parse_local,
)
from sgagent.documents.field import Field
from sgagent.documents.field_types import Account, Block, Id, Mac, PolicyWord, PortRange, Text, Version
from sgagent.documents.models import (
    DocumentModel,
    FieldType,
    PlacedValue,
    Schema,
    any_of,
    declare,
    document_schema,
    items_of,
    one_of,
    read_model,
    ref,
)
from sgagent.documents.rules import RuleEnds, RuleFields, make_port_list, make_prefix_list, make_rule
from sgagent.documents.tree import Listing, Mapping

T = TypeVar("T")


def _list_of(*names: str) -> FieldType:
    """Return the type of a list whose items other code reads: it may know them from the parse cache."""
    items = ref(names[0]) if len(names) == 1 else any_of(*map(ref, names))
    return FieldType(scalars.parse_list, {"type": "array", "items": items})


Blocks = Annotated[Listing, _list_of("block")]
Tags = Annotated[
    tuple[tuple[str, str], ...],
    FieldType(scalars.parse_texts, {"type": "object", "additionalProperties": ref("free_text")}),
]


class RuleModel(RuleFields):
    """A rule (§1.2)."""

    authorization_object: Annotated[
        tuple[values.PlacedObject, ...], PlacedValue(values.parse_objects, ref("objects"))
    ] = declare(
        description="The other end: an address, a CIDR, any, sg-…, account/sg-…, pl-…, dns:… or a"
        " group's id, or a list of these."
    )
    local_address: Block | None = None
    """What the near end must be in; of the object's family. Missing: anywhere."""

    expires: Annotated[datetime, FieldType(values.parse_instant, ref("instant"))] | None = None
    """From when on the rule does not exist, with an offset (RFC 3339). Missing: never."""

    active: Annotated[Hours, PlacedValue(parse_hours, ref("hours"))] | None = None
    """When the rule exists, in each week. Missing: always."""

    limit_per_source: Annotated[SourceLimit, PlacedValue(parse_limit, LIMIT_SCHEMA)] | None = None
    """How many new sessions an accept rule lets each source address open. Missing: any number."""

    local: Annotated[Local, PlacedValue(parse_local, ref("local"))] | None = None
    """Whose sockets on this host an egress rule is for. Missing: all packets, forwarded ones too."""

    description: Text = ""
    """For people."""


class SecurityGroupModel(DocumentModel):
    """A security group (§1.1)."""

    security_group_id: Annotated[str, FieldType(values.parse_group_id, ref("id"))]
    """Unique among the groups of all documents; nothing that a rule reads as another object."""

    name: Text = ""
    """For people."""

    vpc_id: Id | None = None
    """Group objects reach only groups of the same VPC."""

    account_id: Account | None = None
    """The account that owns it."""

    type: Annotated[GroupType, one_of(values.GROUP_TYPES)] = declare(
        values.DEFAULT_GROUP_TYPE,
        description=f"Default {values.DEFAULT_GROUP_TYPE.value}; normal and enterprise are the API's words"
        " for the two.",
    )
    inner_access_policy: PolicyWord = declare(
        DEFAULT_INNER_ACCESS,
        description="Whether members of a basic group reach each other whatever the rules say; default"
        f" {DEFAULT_INNER_ACCESS.value}.",
    )
    cloud: Annotated[Cloud, one_of(values.CLOUDS)] = Cloud.ALIBABA
    """Whose limits check warns of; default alibaba. It changes no verdict."""

    tags: Tags = ()
    """Texts by key."""

    member_addresses: Blocks | None = None
    """Members that are on no interface of the documents; no host bits."""

    rules: Annotated[Listing, _list_of("rule")] | None = None
    """In any order: only priority and policy order them."""


class PrefixEntryModel(DocumentModel):
    """An entry of a prefix list, with a description."""

    cidr: Block
    """An address or CIDR."""

    description: Text = ""
    """For people."""


class PrefixListModel(DocumentModel):
    """A prefix list (§1.4)."""

    prefix_list_id: Id
    """Unique; pl-… where rules refer to it."""

    address_family: Annotated[Family, one_of(values.FAMILIES)]
    """The family of every entry."""

    entries: Annotated[Listing, _list_of("block", "prefix_entry")]
    """Empty matches nothing."""


class PortEntryModel(DocumentModel):
    """An entry of a port list, with a description."""

    port_range: PortRange
    """A port or range."""

    description: Text = ""
    """For people."""


class PortListModel(DocumentModel):
    """A port list (§1.4)."""

    port_list_id: Id
    """Unique; prl-… by custom."""

    entries: Annotated[Listing, _list_of("port_range", "port_entry")]
    """Empty matches nothing."""


class NetworkInterfaceModel(DocumentModel):
    """A network interface (§1.3)."""

    network_interface_id: Id
    """Unique among the network interfaces of all documents."""

    mac_address: Mac | None = None
    """Finds the link on the host."""

    addresses: Blocks | None = None
    """Private addresses, primary first, and delegated prefixes; no host bits."""

    security_group_ids: Annotated[Listing, _list_of("id")] | None = None
    """The groups attached to it; none: everything is dropped."""

    vpc_id: Id | None = None
    """The VPC that it is in."""

    account_id: Account | None = None
    """The account that owns it."""

    instance_id: Id | None = None
    """The machine that it belongs to."""


class NativeModel(DocumentModel):
    """Security groups and the objects they refer to, in the native format of sgagent."""

    version: Version
    """The version of this format."""

    vpc_id: Id | None = None
    """The VPC of every group and interface of this document that names none."""

    account_id: Account | None = None
    """The account of every group and interface that names none."""

    security_groups: Annotated[Listing, _list_of("security_group")] | None = None
    """Security groups."""

    prefix_lists: Annotated[Listing, _list_of("prefix_list")] | None = None
    """Prefix lists."""

    port_lists: Annotated[Listing, _list_of("port_list")] | None = None
    """Port lists."""

    network_interfaces: Annotated[Listing, _list_of("network_interface")] | None = None
    """Elastic network interfaces."""


def json_schema() -> Schema:
    """Return the JSON Schema of native documents, which compares no fields of a rule with each other."""
    models: dict[str, type[DocumentModel]] = {
        "security_group": SecurityGroupModel,
        "rule": RuleModel,
        "hours": HoursModel,
        "limit": LimitModel,
        "local": LocalModel,
        "prefix_list": PrefixListModel,
        "prefix_entry": PrefixEntryModel,
        "port_list": PortListModel,
        "port_entry": PortEntryModel,
        "network_interface": NetworkInterfaceModel,
    }
    return document_schema(NativeModel, models)


def read_native(document: Field, collected: Collected) -> None:
    """Take all objects of a native document."""
    model = read_model(NativeModel, document)
    if model is None:
        return
    for place in items_of(document, "security_groups"):
        collected.add(collected.groups, _group(place, model, collected))
    for place in items_of(document, "prefix_lists"):
        collected.add(collected.prefix_lists, _prefix_list(place))
    for place in items_of(document, "port_lists"):
        collected.add(collected.port_lists, _port_list(place))
    for place in items_of(document, "network_interfaces"):
        collected.add(collected.interfaces, _interface(place, model))


def _group(place: Field, document: NativeModel, collected: Collected) -> SecurityGroup | None:
    model = read_model(SecurityGroupModel, place)
    if model is None:
        return None
    rules = [item.recall(_rule, _moved) for item in items_of(place, "rules")]
    if None in rules:
        read = zip(place.at("rules").items(), rules, strict=True)
        collected.wrong_rules += (item for item, rule in read if rule is None)
    is_said = "inner_access_policy" in place.entries and model.inner_access_policy is Policy.ACCEPT
    if is_said and model.type is GroupType.ADVANCED:
        message = "an advanced group has no inner access policy: members don't reach each other by it"
        place.at("inner_access_policy").warn("inner_accept_in_advanced", message, "drop, or a basic group")
    members = place.at("member_addresses").recall(_sorted_members) if model.member_addresses else ()
    group = SecurityGroup(
        security_group_id=model.security_group_id or "",
        group_type=model.type,
        inner_access_policy=model.inner_access_policy,
        account_id=model.account_id or document.account_id,
        vpc_id=model.vpc_id or document.vpc_id,
        name=model.name,
        tags=model.tags,
        member_addresses=members,
        rules=tuple(filter(None, rules)),
        cloud=model.cloud,
        origin=place.origin,
    )
    return group if model.security_group_id else None


def _moved(rule: SecurityGroupRule | None, place: Field) -> SecurityGroupRule | None:
    """Return a rule as it is where it stands now."""
    origin = place.origin
    return rule if rule is None or rule.origin == origin else replace(rule, origin=origin)


_OBJECT = "authorization_object"


def _rule(place: Field) -> SecurityGroupRule | None:
    place.count_rule()
    model = read_model(RuleModel, place)
    if model is None:
        return None
    ends = RuleEnds(
        tuple(((_OBJECT, *path), one) for path, one in model.authorization_object or ()),
        ((("local_address",), model.local_address),) if model.local_address else (),
    )
    return make_rule(
        place,
        model,
        ends,
        description=model.description,
        expires=model.expires,
        conditions=Conditions(active=model.active, limit=model.limit_per_source, local=model.local),
    )


def _prefix_list(place: Field) -> PrefixList | None:
    model = read_model(PrefixListModel, place)
    if model is None:
        return None
    entries = _entries(place, PrefixEntryModel, "cidr", values.parse_block)
    return make_prefix_list(place, model.prefix_list_id, model.address_family, entries)


def _port_list(place: Field) -> PortList | None:
    model = read_model(PortListModel, place)
    if model is None:
        return None
    entries = _entries(place, PortEntryModel, "port_range", lambda item: values.parse_port_range(item.node))
    return make_port_list(place, model.port_list_id, entries)


def _entries(
    place: Field, declared: type[DocumentModel], name: str, parse: Callable[[Field], T]
) -> Iterator[tuple[Field, T | None]]:
    """Yield the entries of a list with their values, each of which may stand alone or with a description."""
    for item in items_of(place, "entries"):
        if isinstance(item.node, Mapping):
            yield item.at(name), getattr(read_model(declared, item), name)
        else:
            yield item, item.attempt(parse)


def _interface(place: Field, document: NativeModel) -> NetworkInterface | None:
    model = read_model(NetworkInterfaceModel, place)
    if model is None:
        return None
    groups = [item.read(values.parse_id) for item in items_of(place, "security_group_ids")]
    interface = NetworkInterface(
        network_interface_id=model.network_interface_id or "",
        mac_address=model.mac_address,
        addresses=place.at("addresses").recall(_members) if model.addresses else (),
        security_group_ids=tuple(sorted({group for group in groups if group})),
        account_id=model.account_id or document.account_id,
        vpc_id=model.vpc_id or document.vpc_id,
        instance_id=model.instance_id,
        origin=place.origin,
        attachment_origin=place.at("security_group_ids").origin,
    )
    return interface if model.network_interface_id else None


def _members(field: Field) -> tuple[CidrBlock, ...]:
    return tuple(dict.fromkeys(values.parse_members(field)))


def _sorted_members(field: Field) -> tuple[CidrBlock, ...]:
    return values.in_order(values.parse_members(field))
