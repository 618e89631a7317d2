"""Writer of snapshots in the native format; reading its output again returns equal objects."""

from __future__ import annotations

import json
from collections.abc import Mapping

import yaml

from sgagent.core import model
from sgagent.core.conditions import Conditions, Local, LocalUnit
from sgagent.core.hours import Hours, clock_text
from sgagent.core.rule_values import ANY, EVERYTHING, end_text
from sgagent.documents.scalars import escape_bidirectional, is_ambiguous
from sgagent.documents.values import FORMAT_VERSION

Native = Mapping[str, object]
"""An object of a document: names and what JSON can hold."""


def as_json(native: object) -> bytes:
    """Return JSON in which equal content makes equal bytes, and which the reader of documents takes."""
    text = json.dumps(native, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return escape_bidirectional(text).encode()


def write_document(snapshot: model.Snapshot) -> Native:
    """Return all objects as one document; ids of rules that have none are left out, to be derived again."""
    return {
        "version": FORMAT_VERSION,
        **_without_empty(
            security_groups=[write_group(group) for group in snapshot.security_groups],
            prefix_lists=[write_prefix_list(entry) for entry in snapshot.prefix_lists],
            port_lists=[write_port_list(entry) for entry in snapshot.port_lists],
            network_interfaces=[write_interface(entry) for entry in snapshot.network_interfaces],
        ),
    }


def write_group(group: model.SecurityGroup) -> Native:
    """Return a security group with everything said outright, ids of rules included.

    The inner access policy ``accept`` has no effect in an advanced group, and the reader warns of it there.
    """
    is_moot = (
        group.group_type is model.GroupType.ADVANCED and group.inner_access_policy is model.Policy.ACCEPT
    )
    return _without_empty(
        security_group_id=group.security_group_id,
        name=group.name,
        vpc_id=group.vpc_id,
        account_id=group.account_id,
        type=group.group_type.value,
        inner_access_policy=None if is_moot else group.inner_access_policy.value,
        cloud=None if group.cloud is model.Cloud.ALIBABA else group.cloud.value,
        tags=dict(group.tags),
        member_addresses=list(map(str, group.member_addresses)),
        rules=[write_rule(rule) for rule in group.rules],
    )


def write_rule(rule: model.SecurityGroupRule) -> Native:
    """Return a rule."""
    ported, objects = any(one.has_ports for one in rule.protocols), list(map(str, rule.authorization_objects))
    return _without_empty(
        rule_id=rule.rule_id,
        direction=rule.direction.value,
        policy=rule.policy.value,
        priority=rule.priority,
        protocol=_one_or_all(list(map(str, rule.protocols))),
        port_range=_ports(rule.ports) if isinstance(rule.ports, model.PortSet) and ported else None,
        port_list_id=str(rule.ports) if isinstance(rule.ports, model.PortListReference) else None,
        source_port_range=None if rule.source_ports == model.ALL_PORTS else _ports(rule.source_ports),
        authorization_object=ANY if rule.authorization_objects == EVERYTHING else _one_or_all(objects),
        local_address=None if rule.local_address is None else str(rule.local_address),
        expires=end_text(rule),
        **write_conditions(rule.conditions),
        description=rule.description,
    )


def write_conditions(conditions: Conditions) -> Native:
    """Return the fields of a rule that make its demands (§13)."""
    hours, limit = conditions.active, conditions.limit
    return {
        "active": None if hours is None else _hours(hours),
        "limit_per_source": None if limit is None else {"rate": limit.rate_text, "burst": limit.burst},
        "local": None if conditions.local is None else _local(conditions.local),
    }


def _local(local: Local) -> Native:
    if isinstance(local, LocalUnit):
        return {"unit": local.name}
    return {"user": local.name if local.number is None else local.number}


def _hours(hours: Hours) -> Native:
    return {
        "days": hours.days_text,
        "from": clock_text(hours.begins),
        "to": clock_text(hours.ends),
        "zone": str(hours.zone),
    }


def write_prefix_list(prefix_list: model.PrefixList) -> Native:
    """Return a prefix list."""
    return {
        "prefix_list_id": prefix_list.prefix_list_id,
        "address_family": prefix_list.family.value,
        "entries": list(map(str, prefix_list.entries)),
    }


def write_port_list(port_list: model.PortList) -> Native:
    """Return a port list."""
    return {"port_list_id": port_list.port_list_id, "entries": _texts(port_list.entries)}


def write_interface(interface: model.NetworkInterface) -> Native:
    """Return a network interface."""
    return _without_empty(
        network_interface_id=interface.network_interface_id,
        mac_address=interface.mac_address,
        addresses=list(map(str, interface.addresses)),
        security_group_ids=list(interface.security_group_ids),
        vpc_id=interface.vpc_id,
        account_id=interface.account_id,
        instance_id=interface.instance_id,
    )


def _one_or_all(texts: list[str]) -> object:
    """Return texts as documents have them: one alone, or a list of several."""
    return texts if len(texts) > 1 else texts[0]


def _ports(ports: model.PortSet) -> object:
    """Return ports as documents have them. No reader takes an empty set."""
    return _one_or_all(_texts(ports) or [str(ports)])


def _texts(ports: model.PortSet) -> list[str]:
    """Return each range as documents have it; port 0 occurs only in the range of all."""
    every = model.ALL_PORTS
    return [str(every if ends in every.ranges else model.PortSet.of(ends)) for ends in ports.ranges]


def _without_empty(**fields: object) -> Native:
    """Return the fields that are not empty; an empty one means the same as a missing one."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


_WIDTH = 120


def as_yaml(native: object) -> str:
    """Return the text of a document; fields stand in the order in which they are given."""
    text = yaml.dump(
        native, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=False
    )
    return escape_bidirectional(text)


class _Dumper(yaml.SafeDumper):
    """Write lists of plain texts on one line, and no anchors, so that each rule is complete by itself."""

    def ignore_aliases(self, data: object) -> bool:
        """Write everything out, also repeated values."""
        del data
        return True

    def represent_plain_list(self, items: list[object]) -> yaml.Node:
        """Keep a short list of texts together."""
        is_short = len(items) <= _MOST_ON_A_LINE and all(isinstance(item, str) for item in items)
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_short)

    def represent_text(self, text: str) -> yaml.Node:
        """Put between double quotes the signs that the reader takes as an escape, or that some tools fold."""
        style = '"' if is_ambiguous(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_MOST_ON_A_LINE = 8

_Dumper.add_representer(list, _Dumper.represent_plain_list)
_Dumper.add_representer(str, _Dumper.represent_text)
