"""The ECS API as far as it is asked: groups, rules, interfaces and lists of one region, page by page."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from sgagent.sources.aliyun.ecs_api import (
    ApiAnswer,
    ApiCall,
    ApiError,
    NotAllowedError,
    NotThereError,
    ThrottledError,
)

REGION = "cn-test"
OWNER = "1609982529920000"
VPC = "vpc-1"

Item = dict[str, Any]
"""JSON, as the API has it."""


@dataclass(slots=True)
class RefusalError(Exception):
    """An error of the API."""

    status: int
    code: str
    message: str = "No."


def permission(**fields: object) -> Item:
    """Return a rule with every field of the API, unused ones empty; it accepts TCP 443 unless said."""
    usual = dict.fromkeys(_FIELDS, "")
    usual |= {"Direction": "ingress", "Policy": "Accept", "Priority": "1", "NicType": "intranet"}
    return {**usual, "IpProtocol": "TCP", "PortRange": "443/443", **fields}


_FIELDS = (
    "CreateTime",
    "Description",
    "DestCidrIp",
    "DestGroupId",
    "DestGroupName",
    "DestGroupOwnerAccount",
    "DestPrefixListId",
    "Ipv6DestCidrIp",
    "Ipv6SourceCidrIp",
    "PortRangeListId",
    "SecurityGroupRuleId",
    "SourceCidrIp",
    "SourceGroupId",
    "SourceGroupName",
    "SourceGroupOwnerAccount",
    "SourcePortRange",
    "SourcePrefixListId",
)


@dataclass(slots=True)
class FakeCloud:
    """What the API knows, in a test's hands."""

    groups: dict[str, Item] = field(default_factory=dict)
    rules: dict[str, list[Item]] = field(default_factory=dict)
    interfaces: dict[str, Item] = field(default_factory=dict)
    prefix_lists: dict[str, Item] = field(default_factory=dict)
    port_lists: dict[str, list[Item]] = field(default_factory=dict)
    most_per_page: int = 1000
    pages_by_number: bool = False
    """Whether the API knows no tokens."""

    refusals: list[RefusalError] = field(default_factory=list)
    """What the next calls get, one each."""

    is_away: bool = False
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    """Every call that was answered or refused, with its parameters."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def add_group(self, group_id: str, *rules: Item, kind: str = "normal", inner: str = "Accept") -> None:
        """Take a group with its rules."""
        self.groups[group_id] = {
            "SecurityGroupId": group_id,
            "SecurityGroupName": group_id.removeprefix("sg-"),
            "SecurityGroupType": kind,
            "InnerAccessPolicy": inner,
            "VpcId": VPC,
            "OwnerId": int(OWNER),
            "Tags": {"Tag": [{"TagKey": "env", "TagValue": "test"}]},
        }
        self.rules[group_id] = list(rules)

    def add_interface(self, name: str, address: str, *groups: str, instance: str = "", mac: str = "") -> None:
        """Take an interface that is attached to groups."""
        self.interfaces[name] = {
            "NetworkInterfaceId": name,
            "MacAddress": mac,
            "PrivateIpAddress": address,
            "PrivateIpSets": {"PrivateIpSet": [{"PrivateIpAddress": address, "Primary": True}]},
            "SecurityGroupIds": {"SecurityGroupId": list(groups)},
            "VpcId": VPC,
            "OwnerId": OWNER,
            "InstanceId": instance,
            "Tags": {"Tag": None},
        }

    def answer(self, action: str, parameters: Mapping[str, str]) -> Item:
        """Return the body of an answer.

        Raises:
            RefusalError: there is none.
        """
        with self._lock:
            self.asked.append((action, parameters))
            if self.is_away:
                raise RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError")
            if self.refusals:
                raise self.refusals.pop(0)
            if parameters.get("RegionId") != REGION:
                raise RefusalError(HTTPStatus.NOT_FOUND, "InvalidRegionId.NotFound")
            return {"RequestId": f"request-{next(self._numbers)}", **_ANSWERS[action](self, parameters)}

    def page(self, items: Sequence[Item], parameters: Mapping[str, str]) -> tuple[list[Item], Item]:
        """Return a page of items, and what an answer says about pages."""
        if self.pages_by_number or "MaxResults" not in parameters:
            size = min(int(parameters.get("PageSize", "10")), self.most_per_page)
            number = int(parameters.get("PageNumber", "1"))
            told = {"PageNumber": number, "PageSize": size, "TotalCount": len(items)}
            return list(items[(number - 1) * size : number * size]), told
        size = min(int(parameters["MaxResults"]), self.most_per_page)
        start = int(parameters.get("NextToken", "token-0").removeprefix("token-"))
        end = start + size
        return list(items[start:end]), {"NextToken": f"token-{end}" if end < len(items) else ""}


def _groups(cloud: FakeCloud, parameters: Mapping[str, str]) -> Item:
    wanted = json.loads(parameters.get("SecurityGroupIds", "null"))
    found = [_without(group, "InnerAccessPolicy") for group in cloud.groups.values()]
    items, told = cloud.page(
        [one for one in found if wanted is None or one["SecurityGroupId"] in wanted], parameters
    )
    return {"RegionId": REGION, "SecurityGroups": {"SecurityGroup": items}, **told}


def _rules(cloud: FakeCloud, parameters: Mapping[str, str]) -> Item:
    group = cloud.groups.get(parameters["SecurityGroupId"])
    if group is None:
        raise RefusalError(HTTPStatus.NOT_FOUND, "InvalidSecurityGroupId.NotFound")
    items, told = cloud.page(cloud.rules[group["SecurityGroupId"]], parameters)
    kept = _without(group, "SecurityGroupType", "Tags", "OwnerId")
    return {"RegionId": REGION, **kept, "Permissions": {"Permission": items}, **told}


def _interfaces(cloud: FakeCloud, parameters: Mapping[str, str]) -> Item:
    named = {value for name, value in parameters.items() if name.startswith("NetworkInterfaceId.")}
    group, instance = parameters.get("SecurityGroupId"), parameters.get("InstanceId")
    found = [
        one
        for one in cloud.interfaces.values()
        if (not named or one["NetworkInterfaceId"] in named)
        and (group is None or group in one["SecurityGroupIds"]["SecurityGroupId"])
        and (instance is None or one["InstanceId"] == instance)
    ]
    items, told = cloud.page(found, parameters)
    return {"NetworkInterfaceSets": {"NetworkInterfaceSet": items}, **told}


def _prefix_list(cloud: FakeCloud, parameters: Mapping[str, str]) -> Item:
    found = cloud.prefix_lists.get(parameters["PrefixListId"])
    if found is None:
        raise RefusalError(HTTPStatus.NOT_FOUND, "InvalidPrefixListId.NotFound")
    return found


def _port_list(cloud: FakeCloud, parameters: Mapping[str, str]) -> Item:
    found = cloud.port_lists.get(parameters["PortRangeListId"])
    if found is None:
        raise RefusalError(HTTPStatus.NOT_FOUND, "InvalidPortRangeListId.NotFound")
    return {"Entries": found}


def _without(item: Item, *names: str) -> Item:
    return {name: value for name, value in item.items() if name not in names}


_ANSWERS = {
    "DescribeSecurityGroups": _groups,
    "DescribeSecurityGroupAttribute": _rules,
    "DescribeNetworkInterfaces": _interfaces,
    "DescribePrefixListAttributes": _prefix_list,
    "DescribePortRangeListEntries": _port_list,
}


class FakeApi:
    """Asks a cloud in the same process; implements :class:`Api`."""

    def __init__(self, cloud: FakeCloud) -> None:
        """Take the cloud that answers."""
        self._cloud = cloud

    def ask(self, call: ApiCall) -> ApiAnswer:
        """Return the body of the answer.

        Raises:
            ApiError: there is none.
        """
        try:
            return self._cloud.answer(call.action.value, {**flattened(call.parameters), "RegionId": REGION})
        except RefusalError as refusal:
            raise _error(refusal)(f"{call}: {refusal.code}: {refusal.message}") from refusal

    def break_off(self) -> None:
        """Do nothing: no answer takes time."""


def flattened(parameters: Mapping[str, object]) -> dict[str, str]:
    """Return parameters as they go over the wire: each of a list by its number, and all as text."""
    found: dict[str, str] = {}
    for name, value in parameters.items():
        if isinstance(value, list):
            found |= {f"{name}.{number}": str(one) for number, one in enumerate(value, start=1)}
        else:
            found[name] = str(value)
    return found


def _error(refusal: RefusalError) -> type[ApiError]:
    if refusal.code.startswith("Throttling") or refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return ThrottledError
    if "NotFound" in refusal.code:
        return NotThereError
    return NotAllowedError if refusal.status == HTTPStatus.FORBIDDEN else ApiError
