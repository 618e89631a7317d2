"""Importer of Terraform states and plans, with all modules: shown by ``terraform show -json``, or raw states.

The resources of the AWS provider are read here, except for interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as MappingOf, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

from sgagent.core.model import AuthorizationObject, Direction, Family, GroupReference
from sgagent.documents import DocumentFile, Limits
from sgagent.documents.field import Field
from sgagent.documents.field_types import Account, Id, Text
from sgagent.documents.models import FieldType, LooseModel, declare, items_of, one_of, read_each, read_model
from sgagent.documents.scalars import parse_boolean, parse_mapping, parse_text
from sgagent.documents.tree import Listing, Mapping, Node, is_set
from sgagent.documents.values import DIRECTIONS, FAMILIES, parse_block
from sgagent.importers import aws_rules, terraform_resources
from sgagent.importers.context import AWS_GROUP, Gathered, Imported, UnreadResource, import_files
from sgagent.importers.terraform_plan import shown_state


class _Group(LooseModel):
    id: Id
    name: Text = ""
    vpc_id: Id | None = None
    owner_id: Account | None = None
    tags_all: terraform_resources.Tags = None
    tags: terraform_resources.Tags = None
    ingress: terraform_resources.Items = None
    egress: terraform_resources.Items = None


class _InlineRule(LooseModel):
    """A rule; its peers are in many fields, for which ``_PEERS`` has the parsers."""

    protocol: aws_rules.AwsProtocol
    from_port: aws_rules.Number = None
    to_port: aws_rules.Number = None
    self: Annotated[bool, FieldType(parse_boolean)] = False
    description: Text = ""


class _OlderRule(_InlineRule):
    """A rule of the older resource type, which may have several peers."""

    security_group_id: Id
    security_group_rule_id: Id = ""
    type: Annotated[Direction | None, one_of(DIRECTIONS)]


class _NewerRule(_InlineRule):
    """A rule of the newer resource types, which have one peer."""

    security_group_id: Id
    protocol: aws_rules.AwsProtocol = declare(name="ip_protocol")
    security_group_rule_id: Id = ""
    id: Id = ""


class _ListedPrefix(terraform_resources.PrefixEntry):
    """An entry that is a separate resource; its list must be a resource too."""

    prefix_list_id: Id


class _PrefixList(LooseModel):
    id: Id
    address_family: Annotated[Family | None, one_of(FAMILIES)] = None
    entry: terraform_resources.Items = None


def _read_group(place: Field, gathered: Gathered) -> None:
    """Add a group with its inline rules."""
    model = read_model(_Group, place)
    if model is None or not model.id:
        return
    group = replace(
        AWS_GROUP,
        security_group_id=model.id,
        origin=place.origin,
        name=model.name,
        vpc_id=model.vpc_id,
        account_id=model.owner_id,
        tags=(model.tags if model.tags_all is None else model.tags_all) or (),
    )
    gathered.add_group(place, group)
    for name, direction in DIRECTIONS.items():
        for item, rule in read_each(_InlineRule, items_of(place, name)):
            gathered.allowances += _allowances(item, rule, model.id, direction, gathered)


def _read_older_rule(place: Field, gathered: Gathered) -> None:
    """Add a rule, which may have several peers; then they have no id, which no two rules can share."""
    model = read_model(_OlderRule, place)
    if model and model.security_group_id and model.type:
        found = list(_allowances(place, model, model.security_group_id, model.type, gathered))
        rule_id = model.security_group_rule_id if len(found) == 1 else ""
        gathered.allowances += (replace(allowance, rule_id=rule_id) for allowance in found)


def _read_rule(place: Field, gathered: Gathered, direction: Direction) -> None:
    model = read_model(_NewerRule, place)
    if model and model.security_group_id:
        rule_id = model.security_group_rule_id or model.id
        for allowance in _allowances(place, model, model.security_group_id, direction, gathered):
            gathered.allowances.append(replace(allowance, rule_id=rule_id))


def _allowances(
    place: Field, model: _InlineRule, security_group_id: str, direction: Direction, gathered: Gathered
) -> Iterator[aws_rules.AwsPermission]:
    """Yield the permissions of a rule, one for each peer; add a note if it has none."""
    named = [name for name in _PEERS if _is_filled(place.entries.get(name, ""))]
    itself = place.entries.get("self", "")
    if not named and (not is_set(itself) or model.self is False):
        subject = place.reading.subject
        gathered.notes.add(aws_rules.ImportEffect.LEFT_OUT, place.origin, subject, "a rule without a peer")
    ports = {"from_port": model.from_port, "to_port": model.to_port}
    make = aws_rules.permission(place, security_group_id, direction, model.protocol, **ports)
    peers = [(field, peer) for name in named for field, peer in _peers(place, name, gathered)]
    if model.self:
        peers.append((place.at("self"), GroupReference(security_group_id)))
    if make is None:
        return
    for field, peer in peers:
        field.count_rule()
        yield make(origin=field.origin, peer=peer, description=model.description)


def _is_filled(node: Node) -> bool:
    return is_set(node) and not (isinstance(node, Listing) and not node.items)


def _peers(place: Field, name: str, gathered: Gathered) -> Iterator[tuple[Field, AuthorizationObject]]:
    """Yield the peers in a field; add a note about one that a plan does not know yet."""
    field = place.at(name)
    for item in field.items() if name in _LISTS else (field,):
        if not is_set(item.node):
            message = f"a peer in {name} that is known only after the apply"
            gathered.notes.add(aws_rules.ImportEffect.LEFT_OUT, item.origin, place.reading.subject, message)
        elif (peer := item.attempt(_PEERS[name])) is not None:
            yield item, peer


_PEERS: MappingOf[str, Callable[[Field], AuthorizationObject]] = {
    "cidr_blocks": parse_block,
    "cidr_ipv4": parse_block,
    "ipv6_cidr_blocks": parse_block,
    "cidr_ipv6": parse_block,
    "security_groups": aws_rules.parse_group,
    "source_security_group_id": aws_rules.parse_group,
    "referenced_security_group_id": aws_rules.parse_group,
    "prefix_list_ids": aws_rules.parse_prefix_list,
    "prefix_list_id": aws_rules.parse_prefix_list,
}
"""The fields of a rule's peers, with the parser of one."""

_LISTS = {"cidr_blocks", "ipv6_cidr_blocks", "security_groups", "prefix_list_ids"}


def _read_prefix_list(place: Field, gathered: Gathered) -> None:
    """Add a prefix list with its inline entries."""
    model = read_model(_PrefixList, place)
    if model is not None and model.id:
        draft = gathered.defined_prefix_list(model.id, place)
        draft.family = model.address_family or draft.family
        draft.entries += (
            entry.cidr
            for _, entry in read_each(terraform_resources.PrefixEntry, items_of(place, "entry"))
            if entry.cidr
        )


def _read_prefix_entry(place: Field, gathered: Gathered) -> None:
    model = read_model(_ListedPrefix, place)
    if model and model.prefix_list_id and model.cidr:
        gathered.prefix_list(model.prefix_list_id, place).entries.append(model.cidr)


RESOURCES: MappingOf[str, terraform_resources.ResourceReader] = {
    "aws_security_group": _read_group,
    "aws_default_security_group": _read_group,
    "aws_security_group_rule": _read_older_rule,
    "aws_vpc_security_group_ingress_rule": partial(_read_rule, direction=Direction.INGRESS),
    "aws_vpc_security_group_egress_rule": partial(_read_rule, direction=Direction.EGRESS),
    "aws_ec2_managed_prefix_list": _read_prefix_list,
    "aws_ec2_managed_prefix_list_entry": _read_prefix_entry,
    **terraform_resources.ALIBABA_RESOURCES,
    **terraform_resources.INTERFACE_RESOURCES,
}
"""The reader of each resource type."""

_RELATED = ("security_group", "prefix_list", "port_list", "port_range_list")
"""An unread resource whose type contains one of these words gets a note."""


def import_terraform(files: Sequence[DocumentFile], limits: Limits) -> Imported:
    """Return the definitions in Terraform states and plans.

    Raises:
        DocumentError: a file has errors, or no file has anything to import.
    """
    return import_files([shown_state(file, limits) for file in files], limits, _read_state)


class _State(LooseModel):
    values: Annotated[Mapping | None, FieldType(parse_mapping)] = None


class _Values(LooseModel):
    root_module: Annotated[Mapping | None, FieldType(parse_mapping)] = None


class _Module(LooseModel):
    resources: terraform_resources.Items = None
    child_modules: terraform_resources.Items = None


class _Resource(LooseModel):
    mode: Annotated[bool, one_of({"managed": True, "data": False})] = True
    """Whether Terraform manages the resource."""

    address: Annotated[str, FieldType(parse_text)] = ""
    type: Annotated[str, FieldType(parse_text, remedy="the type of the resource")]


def _read_state(root: Field, gathered: Gathered) -> None:
    state = read_model(_State, root)
    if state is None:
        return
    if not is_set(root.entries.get("values", "")):
        remedy = "what `terraform show -json` prints of a state or a plan, or terraform.tfstate"
        root.error("not_a_state", "no state and no plan in it", remedy)
    values = state.values and read_model(_Values, root.at("values"))
    module = root.at("values", "root_module")
    if values and values.root_module and read_model(_Module, module):
        _read_module(module, gathered)


def _read_module(module: Field, gathered: Gathered) -> None:
    """Add the resources of a module and its child modules; the limits bound the depth."""
    for place in items_of(module, "resources"):
        named = [name for key in ("address", "type") if isinstance(name := place.entries.get(key), str)]
        _read_resource(place.belonging_to(next(filter(None, named), "a resource")), gathered)
    for child, _ in read_each(_Module, items_of(module, "child_modules")):
        _read_module(child, gathered)


def _read_resource(place: Field, gathered: Gathered) -> None:
    """Add a managed resource; skip data sources, which Terraform only looks up."""
    resource = read_model(_Resource, place)
    if resource is None or not resource.mode or not resource.type:
        return
    if resource.type not in RESOURCES or is_set(place.entries.get("deposed_key", "")):
        _leave_out(place, resource.type, gathered)
    elif "values" not in place.entries:
        place.refuse_missing("values")
    elif place.at("values").read(parse_mapping):
        RESOURCES[resource.type](place.at("values"), gathered)


def _leave_out(place: Field, kind: str, gathered: Gathered) -> None:
    """Add a resource that no importer reads, with the group ids that it names."""
    is_deposed = kind in RESOURCES
    reason = "about to be destroyed (deposed)" if is_deposed else f"{kind} is not read here"
    values = place.entries.get("values", "")
    if isinstance(values, Mapping) and values.entries.get("policy") == "drop":
        remedy = (
            "terraform apply first" if is_deposed else "a resource that is read, or remove it from the file"
        )
        place.error("lost_drop_rule", f"it drops something: {reason}", remedy)
    names = frozenset(text for text in _texts(values) if text.startswith("sg-"))
    is_related = is_deposed or any(word in kind for word in _RELATED)
    gathered.unread.append(UnreadResource(place, reason, names, is_related=is_related))


def _texts(node: Node) -> Iterator[str]:
    """Yield all texts in a value; the limits bound the depth."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, (Listing, Mapping)):
        for inner in node.items if isinstance(node, Listing) else node.entries.values():
            yield from _texts(inner)
