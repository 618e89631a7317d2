"""Readers of security group resources of Terraform's Alibaba Cloud provider.

Their fields have native equivalents. An unreadable resource refuses the import, because leaving out a drop
rule would admit more traffic.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field as Declared

from sgagent.core.model import (
    ALL_PORTS,
    UNKNOWN_GROUP_TYPE,
    CidrBlock,
    Direction,
    Family,
    GroupType,
    Policy,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.documents.api import (
    Account,
    Block,
    Id,
    PermissionModel,
    PolicyWord,
    Text,
    rule_form,
    rule_peer,
)
from sgagent.documents.field import Field
from sgagent.documents.models import LooseModel, Value, items_of, located, one_of, read_each, read_model
from sgagent.documents.rule_form import Part, make_rule
from sgagent.documents.scalars import parse_boolean, parse_list
from sgagent.documents.tree import Listing, is_set
from sgagent.documents.values import DIRECTIONS, FAMILIES, GROUP_TYPES, parse_block, parse_priority
from sgagent.importers.aws_rules import ImportEffect
from sgagent.importers.context import Gathered
from sgagent.importers.terraform_interfaces import ResourceReader, Tags


class _Group(LooseModel):
    id: Id
    security_group_type: Annotated[GroupType | None, one_of(GROUP_TYPES)] = None
    inner_access_policy: PolicyWord | None = None
    inner_access: Annotated[bool | None, Value(parse_boolean)] = None
    """What older versions of the provider have in place of the policy."""

    vpc_id: Id | None = None
    security_group_name: Text = ""
    name: Text = ""
    tags: Tags = None


class _Rule(PermissionModel):
    """A rule; its peer has the same names on ingress and on egress."""

    model_config = ConfigDict(alias_generator=str)

    security_group_id: Id
    direction: Annotated[Direction, one_of(DIRECTIONS)] = Declared(alias="type")
    priority: Annotated[int | None, Value(parse_priority)] = None  # type: ignore[assignment] # unset until read
    peer_cidr: Block | None = Declared(None, alias="cidr_ip")
    peer_ipv6_cidr: Block | None = Declared(None, alias="ipv6_cidr_ip")
    peer_group: Id | None = Declared(None, alias="source_security_group_id")
    peer_account: Account | None = Declared(None, alias="source_group_owner_account")
    peer_prefix_list: Id | None = Declared(None, alias="prefix_list_id")


class PrefixEntry(LooseModel):
    """An entry of a prefix list."""

    cidr: Annotated[CidrBlock | None, Value(located(parse_block))]


class _PrefixList(LooseModel):
    remedies: ClassVar = {"entry": "the entries of the list, [] if it has none"}

    id: Id
    address_family: Annotated[Family | None, one_of(FAMILIES)] = None
    entry: Annotated[Listing, Value(parse_list)]


def _read_group(place: Field, gathered: Gathered) -> None:
    model = read_model(_Group, place)
    if model is None or not model.id:
        return
    if not is_set(place.entries.get("security_group_type", "")):
        message = f"its type is missing; it is read as {UNKNOWN_GROUP_TYPE.value}, which admits least"
        _note_narrowed(place, gathered, message)
    group_type = model.security_group_type or UNKNOWN_GROUP_TYPE
    inner = model.inner_access_policy
    if inner is None and model.inner_access is not None:
        inner = Policy.ACCEPT if model.inner_access else Policy.DROP
    if inner is None and group_type is GroupType.BASIC:
        _note_narrowed(place, gathered, "its inner access policy is missing; it is read as drop")
    group = SecurityGroup(
        security_group_id=model.id,
        group_type=group_type,
        inner_access_policy=inner or Policy.DROP,
        vpc_id=model.vpc_id,
        name=model.security_group_name or model.name,
        tags=model.tags or (),
        origin=place.origin,
    )
    gathered.add_group(place, group)


def _note_narrowed(place: Field, gathered: Gathered, message: str) -> None:
    """Add the note that the import reads a resource with the narrowest meaning."""
    gathered.notes.add(ImportEffect.NARROWED, place.origin, place.reading.subject, message)


def _read_rule(place: Field, gathered: Gathered) -> None:
    place.count_rule()
    model = read_model(_Rule, place)
    rule = _rule(place, model, gathered) if model else None
    if model and rule and model.security_group_id:
        gathered.rules.append((model.security_group_id, rule))


_LEAST_URGENT = 100


def _rule(place: Field, model: _Rule, gathered: Gathered) -> SecurityGroupRule | None:
    """Return a rule; None, with errors added, if it is invalid. A priority that is missing admits least."""
    form = rule_form(place, model)
    form.peer = rule_peer(place, model)
    if not is_set(place.entries.get("priority", "")):
        form.priority = Part("priority", 1 if model.policy is Policy.DROP else _LEAST_URGENT)
        if model.policy is Policy.ACCEPT:
            _note_narrowed(place, gathered, f"its priority is missing; it is read as {_LEAST_URGENT}")
    if form.port_list and form.ports and form.ports.value == ALL_PORTS:
        form.ports = None  # the provider writes -1/-1 where a port list is meant
    return make_rule(form)


def _read_prefix_list(place: Field, gathered: Gathered) -> None:
    model = read_model(_PrefixList, place)
    if model is None or not model.id:
        return
    draft = gathered.defined_prefix_list(model.id, place)
    draft.family = model.address_family or Family.IPV4
    for item, entry in read_each(PrefixEntry, items_of(place, "entry")):
        if entry.cidr and entry.cidr.family is not draft.family:
            message = "an entry of another family than the list"
            item.at("cidr").error("mixed_families", message, "the list's own family")
        elif entry.cidr:
            draft.entries.append(entry.cidr)


ALIBABA_RESOURCES: MappingOf[str, ResourceReader] = {
    "alicloud_security_group": _read_group,
    "alicloud_security_group_rule": _read_rule,
    "alicloud_ecs_prefix_list": _read_prefix_list,
}
