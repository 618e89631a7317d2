"""Aliyun source: polls the ECS API for this host's definitions, and returns the answers as documents.

The reader follows references: from the host's interfaces to their groups, and from the groups' rules to the
objects that they name. Of a group that only a rule names, it reads the members and not the rules.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sgagent.core import model
from sgagent.core.binding import HandBinding
from sgagent.core.endpoints import Endpoint
from sgagent.core.errors import DocumentError, SourceUnavailableError, UsageError
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.writer import as_json
from sgagent.ports import Delivery
from sgagent.settings.sources import AliyunSourceSettings
from sgagent.sources.aliyun import ecs_api
from sgagent.sources.aliyun.ecs_api import Action, Api, ApiAnswer, ApiCall, ApiError, Json, Paginator
from sgagent.sources.factory import SourceContext
from sgagent.sources.poller import PolledSource, PollInterval
from sgagent.sources.servers import EndpointCache, addresses_file
from sgagent.sources.verified_parse import Failure, VerifiedParser

GROUPS_A_CALL = 100
INTERFACES_A_CALL = 100
RULES_A_CALL = 1000
"""The API's maximum page sizes."""

_GROUPS = ("SecurityGroups", "SecurityGroup")
_RULES = ("Permissions", "Permission")
_INTERFACES = ("NetworkInterfaceSets", "NetworkInterfaceSet")
_ATTACHED = ("SecurityGroupIds", "SecurityGroupId")

_OF_GROUP = ("OwnerId", "SecurityGroupId", "SecurityGroupName", "SecurityGroupType", "Tags", "VpcId")
_OF_RULES = ("InnerAccessPolicy", "OwnerId", "SecurityGroupId", "SecurityGroupName", "VpcId")
_OF_MEMBER = (
    "InstanceId",
    "Ipv4PrefixSets",
    "Ipv6PrefixSets",
    "Ipv6Sets",
    "MacAddress",
    "NetworkInterfaceId",
    "OwnerId",
    "PrivateIpAddress",
    "PrivateIpSets",
    "VpcId",
)
_OF_INTERFACE = (*_OF_MEMBER, "ConnectionTrackingConfiguration", "SecurityGroupIds")
"""What is kept of each: what the reader of documents reads. The rest could make equal answers differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSubject:
    """The host whose definitions to read."""

    instance_id: str | None = None
    network_interface_ids: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    """Groups of configured bindings."""

    is_everything: bool = False
    """Read the whole region and ignore the other fields."""


def read_everything_about(
    subject: ApiSubject, paginator: Paginator, limits: Limits
) -> tuple[DocumentFile, ...]:
    """Return the documents that concern the subject.

    Raises:
        ApiError: a part can't be read; then there are no documents.
        DocumentError: a rule can't be read, so nobody knows what it refers to.
    """
    return _Reading(subject, paginator).documents(limits)


@dataclass(slots=True)
class _Reading:
    """The objects read so far, by id."""

    subject: ApiSubject
    paginator: Paginator
    groups: dict[str, ApiAnswer] = field(default_factory=dict)
    rules: dict[str, ApiAnswer] = field(default_factory=dict)
    """Of the subject's own groups, by group."""

    interfaces: dict[str, ApiAnswer] = field(default_factory=dict)
    """The subject's own."""

    members: dict[str, ApiAnswer] = field(default_factory=dict)
    prefix_lists: dict[str, ApiAnswer] = field(default_factory=dict)
    port_lists: dict[str, ApiAnswer] = field(default_factory=dict)

    def documents(self, limits: Limits) -> tuple[DocumentFile, ...]:
        """Read, and return the objects as documents; equal answers give equal bytes."""
        if self.subject.is_everything:
            self._read_groups(None)
            self.interfaces |= self._read_interfaces()
            own = set(self.groups)
        else:
            self._read_own_interfaces()
            attached = (_groups_of(interface) for interface in self.interfaces.values())
            own = set(self.subject.security_group_ids).union(*attached)
            self._read_groups(own)
        for group_id in sorted(own):
            self.rules[group_id] = self._rules_of(group_id)
        groups = parse_documents(self._group_documents(), limits)[0].security_groups
        rules = [rule for group in groups for rule in group.rules]
        if not self.subject.is_everything:
            self._read_members(groups, rules)
        self._read_lists(rules)
        return self._documents()

    def _read_own_interfaces(self) -> None:
        """Read the interfaces of the host.

        Raises:
            ApiError: the instance has none, so that it is another's, or the answer is wrong: taken at its
                word, it would take every group from this host.
        """
        instance_id, names = self.subject.instance_id, self.subject.network_interface_ids
        if instance_id is not None:
            self.interfaces |= self._read_interfaces(InstanceId=instance_id)
            if not self.interfaces:
                call = ApiCall(Action.INTERFACES, {"InstanceId": instance_id})
                raise ApiError(f"{call}: the instance has no network interface (instance_id, region)")
        for some in _portions(names, INTERFACES_A_CALL):
            self.interfaces |= self._read_interfaces(NetworkInterfaceId=some)

    def _read_interfaces(self, **parameters: Json) -> dict[str, ApiAnswer]:
        call = ApiCall(Action.INTERFACES, parameters)
        _, interfaces = self.paginator.ask_all(call.also(MaxResults=INTERFACES_A_CALL), _INTERFACES)
        return _by_id(interfaces, "NetworkInterfaceId", _OF_INTERFACE, call)

    def _read_groups(self, wanted: Iterable[str] | None) -> None:
        """Read groups without their rules; the answer omits groups that do not exist."""
        calls = [ApiCall(Action.GROUPS)]
        if wanted is not None:
            portions = _portions(sorted(set(wanted) - self.groups.keys()), GROUPS_A_CALL)
            calls = [ApiCall(Action.GROUPS, {"SecurityGroupIds": json.dumps(some)}) for some in portions]
        for call in calls:
            _, groups = self.paginator.ask_all(call.also(MaxResults=GROUPS_A_CALL), _GROUPS)
            self.groups |= _by_id(groups, "SecurityGroupId", _OF_GROUP, call)

    def _rules_of(self, group_id: str) -> ApiAnswer:
        """Return the rules of a group, all pages of them."""
        call = ApiCall(Action.RULES, {"SecurityGroupId": group_id, "NicType": "intranet", "Direction": "all"})
        last, rules = self.paginator.ask_all(call.also(MaxResults=RULES_A_CALL), _RULES, _OF_RULES)
        if last.get("SecurityGroupId") != group_id:
            raise ApiError(f"{call}: the answer is about {last.get('SecurityGroupId')!r}")
        return {**_kept(last, _OF_RULES), "Permissions": {"Permission": rules}}

    def _read_members(
        self, groups: Sequence[model.SecurityGroup], rules: Sequence[model.SecurityGroupRule]
    ) -> None:
        """Read the members of groups that rules refer to, and of groups with inner access (§3.4)."""
        objects = [one for rule in rules for one in rule.authorization_objects]
        referenced = {one.security_group_id for one in objects if isinstance(one, model.GroupReference)}
        self._read_groups(referenced)
        inner = {group.security_group_id for group in groups if group.inner_access is model.Policy.ACCEPT}
        for group_id in sorted((referenced & self.groups.keys()) | inner):
            self.members |= self._read_interfaces(SecurityGroupId=group_id)

    def _read_lists(self, rules: Iterable[model.SecurityGroupRule]) -> None:
        """Read the lists that rules refer to; a missing list stays unknown (§5.3)."""
        for rule in rules:
            for one in (*rule.authorization_objects, rule.ports):
                with suppress(ecs_api.NotThereError):
                    match one:
                        case model.PrefixListReference(name) if name not in self.prefix_lists:
                            answer = self.paginator.ask(ApiCall(Action.PREFIX_LIST, {"PrefixListId": name}))
                            self.prefix_lists[name] = _without_number(answer)
                        case model.PortListReference(name) if name not in self.port_lists:
                            named = {"PortRangeListId": name}  # which the answer lacks
                            answer = self.paginator.ask(ApiCall(Action.PORT_LIST, named))
                            self.port_lists[name] = {**_without_number(answer), **named}

    def _documents(self) -> tuple[DocumentFile, ...]:
        members = {key: self._member(interface) for key, interface in self.members.items()}
        interfaces = {"NetworkInterfaceSet": _in_order(members | self.interfaces)}
        lists = [(Action.PREFIX_LIST, self.prefix_lists), (Action.PORT_LIST, self.port_lists)]
        return (
            *self._group_documents(),
            _document(Action.INTERFACES, {"NetworkInterfaceSets": interfaces}),
            *(_document(action, _in_order(by_id)) for action, by_id in lists if by_id),
        )

    def _group_documents(self) -> tuple[DocumentFile, ...]:
        """Return the groups, and the rules of the subject's own groups."""
        for key in self.rules.keys() - self.groups.keys():
            raise ApiError(f"{Action.GROUPS.value} {key}: the group is not in the answer")
        without = {key: {**_kept(group, _OF_RULES), **_NO_RULES} for key, group in self.groups.items()}
        listing = _document(Action.GROUPS, {"SecurityGroups": {"SecurityGroup": _in_order(self.groups)}})
        return (listing, _document(Action.RULES, _in_order(without | self.rules))) if without else (listing,)

    def _member(self, interface: ApiAnswer) -> ApiAnswer:
        """Return an interface elsewhere, with the groups that are known here."""
        known = sorted(_groups_of(interface) & self.groups.keys())
        return {**_kept(interface, _OF_MEMBER), "SecurityGroupIds": {"SecurityGroupId": known}}


_NO_RULES: ApiAnswer = {"Permissions": {"Permission": []}}


def _groups_of(interface: ApiAnswer) -> set[str]:
    call = ApiCall(Action.INTERFACES)
    return {group for group in ecs_api.items_of(interface, _ATTACHED, call) if isinstance(group, str)}


def _by_id(items: Iterable[Json], name: str, kept: Sequence[str], call: ApiCall) -> dict[str, ApiAnswer]:
    """Return items by id; the last copy of a repeated item wins."""
    found: dict[str, ApiAnswer] = {}
    for item in items:
        key = item.get(name) if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(key, str):
            raise ApiError(f"{call}: unexpected answer: an item without {name}")
        found[key] = _kept(item, kept)
    return found


def _kept(item: Mapping[str, Json], names: Sequence[str]) -> ApiAnswer:
    return {name: item[name] for name in names if name in item}


def _without_number(answer: ApiAnswer) -> ApiAnswer:
    return {key: value for key, value in answer.items() if key != "RequestId"}


def _portions(items: Sequence[str], most: int) -> Iterable[list[str]]:
    return [list(items[start : start + most]) for start in range(0, len(items), most)]


def _in_order(by_id: Mapping[str, ApiAnswer]) -> list[ApiAnswer]:
    return [by_id[key] for key in sorted(by_id)]


def _document(action: Action, content: object) -> DocumentFile:
    return DocumentFile(f"{action.value}.json", as_json(content))


def make_source(settings: AliyunSourceSettings, context: SourceContext) -> AliyunSource:
    """Return the source of a configuration.

    Raises:
        UsageError: the configuration contradicts what the API can do.
        ModuleNotFoundError: the cloud's SDK is not installed.
    """
    all_settings = context.settings
    if all_settings.signature.public_keys:
        raise UsageError(
            "signature.public_keys: the cloud's API does not sign its answers"
            " (use a source of type file, https or etcd, or remove [signature])"
        )
    is_named = settings.uses_metadata or settings.instance_id or all_settings.interfaces
    if context.host is not None and not is_named:
        raise UsageError(
            "source.instance_id: with credentials_file, the configuration must name this host's interfaces"
            ' (set instance_id = "i-…", or [[interface]])'
        )
    from sgagent.sources.aliyun.client import SdkApi  # noqa: PLC0415 - it needs what others do without

    memory = addresses_file(all_settings.state.directory, settings.api.host, settings.api.port)
    endpoint_cache = EndpointCache(settings.api.host, settings.api.port, memory=memory)
    api = SdkApi(settings, all_settings.limits, endpoint_cache)
    by_hand = None if context.host is None else all_settings.interfaces
    return AliyunSource(settings, all_settings.limits, api, by_hand=by_hand, endpoint_cache=endpoint_cache)


class AliyunSource(PolledSource):
    """Polls the definitions of a host; implements :class:`Source`."""

    first_answer_seconds = 20.0

    def __init__(
        self,
        settings: AliyunSourceSettings,
        limits: Limits,
        api: Api,
        *,
        by_hand: tuple[HandBinding, ...] | None,
        endpoint_cache: EndpointCache | None = None,
        random: Callable[[], float] = random.random,
        read_instance_id: Callable[[], str] = ecs_api.read_instance_id,
    ) -> None:
        """Store the settings without sending a request.

        Args:
            settings: the endpoint and this host's identity.
            limits: the largest accepted answers.
            api: the client.
            by_hand: the configured bindings of this host's links; None reads everything in the region.
            endpoint_cache: the cached addresses of the API; None for a new cache without a file.
            random: returns jitter from 0 (inclusive) to 1 (exclusive).
            read_instance_id: reads this host's instance id from the metadata service.
        """
        self._settings = settings
        self._limits = limits
        self._by_hand = by_hand
        self._read_instance_id = read_instance_id
        self._instance_id = settings.instance_id
        self._paginator = Paginator(api, random)
        self._parser = VerifiedParser(limits)
        endpoint_cache = endpoint_cache or EndpointCache(settings.api.host, settings.api.port)
        interval = PollInterval(settings.poll_seconds, random)
        super().__init__(endpoint_cache, self._paginator, interval, f"{settings.api}: no answer yet")

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the cached endpoints of the API, and that of the metadata service if it is used."""
        asked_too = (ecs_api.METADATA_ENDPOINT,) if self._settings.uses_metadata else ()
        return (*super().endpoints(), *asked_too)

    def _ask(self, wait: int) -> tuple[Delivery | Failure, float | None]:
        del wait  # the API answers at once
        with suppress(OSError):  # cached addresses stay valid; without any, the request fails with a message
            self._endpoint_cache.find()
        try:
            documents = read_everything_about(self._subject(), self._paginator, self._limits)
            return self._parser.take(documents, None, self._settings.place), None
        except DocumentError as error:
            return Failure.of(error), None
        except SourceUnavailableError as error:
            return Failure.of(error), 0.0

    def _subject(self) -> ApiSubject:
        """Return the instance, interfaces and groups to read.

        Raises:
            SourceUnavailableError: the metadata service does not return the instance id.
        """
        if self._by_hand is None:
            return ApiSubject(is_everything=True)
        if self._instance_id is None and self._settings.uses_metadata:
            self._instance_id = self._read_instance_id()
        interfaces = {one.network_interface_id for one in self._by_hand if one.network_interface_id}
        groups = {
            group for one in self._by_hand if not one.network_interface_id for group in one.security_group_ids
        }
        return ApiSubject(
            instance_id=self._instance_id,
            network_interface_ids=tuple(sorted(interfaces)),
            security_group_ids=tuple(sorted(groups)),
        )
