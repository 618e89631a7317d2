"""Aliyun source: polls the ECS API for this host's definitions, and returns the answers as documents.

The reader follows references: from the host's interfaces to their groups, and from the groups' rules to the
objects that they name. Of a group that only a rule names, it reads the members and not the rules.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

from sgagent.core.binding import HandBinding
from sgagent.core.errors import DocumentError, SourceUnavailableError, UsageError
from sgagent.core.model import (
    GroupReference,
    Policy,
    PortListReference,
    PrefixListReference,
    SecurityGroup,
    SecurityGroupRule,
)
from sgagent.core.policy import Endpoint
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.documents.writer import as_json
from sgagent.ports import Delivery, Wake
from sgagent.settings.sources import AliyunSourceSettings
from sgagent.sources import SourceContext
from sgagent.sources.aliyun.ecs_api import (
    METADATA_ENDPOINT,
    Action,
    Answer,
    Api,
    ApiCall,
    ApiError,
    Json,
    NotThereError,
    Paginator,
    items_of,
    read_instance_id,
)
from sgagent.sources.poller import Poller, PollInterval
from sgagent.sources.servers import EndpointCache, addresses_file
from sgagent.sources.verified_parse import Failure, VerifiedParser, delivered

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


@dataclass(slots=True)
class Readings:
    """The objects read so far, by id."""

    groups: dict[str, Answer] = field(default_factory=dict)
    rules: dict[str, Answer] = field(default_factory=dict)
    interfaces: dict[str, Answer] = field(default_factory=dict)
    """The host's own."""

    members: dict[str, Answer] = field(default_factory=dict)
    prefix_lists: dict[str, Answer] = field(default_factory=dict)
    port_lists: dict[str, Answer] = field(default_factory=dict)


def read_everything_about(
    subject: ApiSubject, paginator: Paginator, limits: Limits
) -> tuple[DocumentFile, ...]:
    """Return the documents that concern the subject.

    Raises:
        ApiError: a part of it could not be had, so there is nothing.
        DocumentError: a rule can't be read, so nobody knows what it refers to.
    """
    found = Readings()
    if subject.is_everything:
        _read_groups(paginator, found, None)
        found.interfaces.update(_interfaces(paginator, ApiCall(Action.INTERFACES)))
    else:
        _read_own_interfaces(subject, paginator, found)
        _read_groups(paginator, found, _own_groups(subject, found))
    own = tuple(sorted(found.groups if subject.is_everything else _own_groups(subject, found)))
    for group_id in own:
        found.rules[group_id] = _rules(paginator, group_id)
    groups = parse_documents(_group_documents(found), limits)[0].security_groups
    rules = [rule for group in groups for rule in group.rules]
    if not subject.is_everything:
        _read_members(paginator, found, groups, rules)
    _read_lists(paginator, found, rules)
    return _documents(found)


def _read_own_interfaces(subject: ApiSubject, paginator: Paginator, found: Readings) -> None:
    """Read the interfaces of the host.

    Raises:
        ApiError: the instance has none, so that it is another's, or the answer is wrong: taken at its word,
            it would take every group from this host.
    """
    if subject.instance_id is not None:
        call = ApiCall(Action.INTERFACES, {"InstanceId": subject.instance_id})
        found.interfaces.update(_interfaces(paginator, call))
        if not found.interfaces:
            raise ApiError(f"{call}: the instance has no network interface (instance_id, region)")
    for some in _portions(subject.network_interface_ids, INTERFACES_A_CALL):
        call = ApiCall(Action.INTERFACES, {"NetworkInterfaceId": list(some)})
        found.interfaces.update(_interfaces(paginator, call))


def _own_groups(subject: ApiSubject, found: Readings) -> set[str]:
    """Return the ids of the groups of the host's interfaces."""
    attached = {group for interface in found.interfaces.values() for group in _groups_of(interface)}
    return attached | set(subject.security_group_ids)


def _groups_of(interface: Answer) -> set[str]:
    call = ApiCall(Action.INTERFACES)
    return {group for group in items_of(interface, _ATTACHED, call) if isinstance(group, str)}


def _read_groups(paginator: Paginator, found: Readings, wanted: Iterable[str] | None) -> None:
    """Read groups without their rules; the answer omits groups that do not exist."""
    calls = [ApiCall(Action.GROUPS)]
    if wanted is not None:
        portions = _portions(tuple(sorted(set(wanted) - found.groups.keys())), GROUPS_A_CALL)
        calls = [ApiCall(Action.GROUPS, {"SecurityGroupIds": json.dumps(some)}) for some in portions]
    for call in calls:
        _, groups = paginator.ask_all(call.also(MaxResults=GROUPS_A_CALL), _GROUPS)
        found.groups.update(_by_id(groups, "SecurityGroupId", _OF_GROUP, call))


def _rules(paginator: Paginator, group_id: str) -> Answer:
    """Return the rules of a group, all pages of them."""
    call = ApiCall(Action.RULES, {"SecurityGroupId": group_id, "NicType": "intranet", "Direction": "all"})
    last, rules = paginator.ask_all(call.also(MaxResults=RULES_A_CALL), _RULES, _OF_RULES)
    if last.get("SecurityGroupId") != group_id:
        raise ApiError(f"{call}: the answer is about {last.get('SecurityGroupId')!r}")
    return {**_kept(last, _OF_RULES), "Permissions": {"Permission": rules}}


def _read_members(
    paginator: Paginator, found: Readings, groups: Sequence[SecurityGroup], rules: Sequence[SecurityGroupRule]
) -> None:
    """Read the members of groups that rules refer to, and of groups with inner access (§3.4)."""
    objects = [one for rule in rules for one in rule.authorization_objects]
    referenced = {one.security_group_id for one in objects if isinstance(one, GroupReference)}
    _read_groups(paginator, found, referenced)
    inner = {group.security_group_id for group in groups if group.inner_access is Policy.ACCEPT}
    for group_id in sorted((referenced & found.groups.keys()) | inner):
        found.members.update(
            _interfaces(paginator, ApiCall(Action.INTERFACES, {"SecurityGroupId": group_id}))
        )


def _read_lists(paginator: Paginator, found: Readings, rules: Iterable[SecurityGroupRule]) -> None:
    """Read the lists that rules refer to; a missing list stays unknown (§5.3)."""
    for rule in rules:
        for one in rule.authorization_objects:
            match one:
                case PrefixListReference(name) if name not in found.prefix_lists:
                    call = ApiCall(Action.PREFIX_LIST, {"PrefixListId": name})
                    _read_list(paginator, call, name, found.prefix_lists)
        match rule.ports:
            case PortListReference(name) if name not in found.port_lists:
                call = ApiCall(Action.PORT_LIST, {"PortRangeListId": name})
                _read_list(paginator, call, name, found.port_lists)


def _read_list(paginator: Paginator, call: ApiCall, name: str, lists: dict[str, Answer]) -> None:
    """Read a list, and add the id, which the answer about a port list lacks."""
    try:
        answer = paginator.ask(call)
    except NotThereError:
        return
    kept = {key: value for key, value in answer.items() if key != "RequestId"}
    lists[name] = {**kept, **call.parameters} if call.action is Action.PORT_LIST else kept


def _interfaces(paginator: Paginator, call: ApiCall) -> dict[str, Answer]:
    _, interfaces = paginator.ask_all(call.also(MaxResults=INTERFACES_A_CALL), _INTERFACES)
    return _by_id(interfaces, "NetworkInterfaceId", _OF_INTERFACE, call)


def _by_id(items: Iterable[Json], name: str, kept: Sequence[str], call: ApiCall) -> dict[str, Answer]:
    """Return items by id; the last copy of a repeated item wins."""
    found: dict[str, Answer] = {}
    for item in items:
        key = item.get(name) if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(key, str):
            raise ApiError(f"{call}: unexpected answer: an item without {name}")
        found[key] = _kept(item, kept)
    return found


def _kept(item: Mapping[str, Json], names: Sequence[str]) -> Answer:
    return {name: item[name] for name in names if name in item}


def _portions(items: tuple[str, ...], most: int) -> Iterable[tuple[str, ...]]:
    return [items[start : start + most] for start in range(0, len(items), most)]


def _documents(found: Readings) -> tuple[DocumentFile, ...]:
    """Return the objects as documents; equal answers give equal bytes."""
    lists = [(Action.PREFIX_LIST, found.prefix_lists), (Action.PORT_LIST, found.port_lists)]
    others = [_document(action, [by_id[key] for key in sorted(by_id)]) for action, by_id in lists if by_id]
    interfaces = {**{key: _member(found, one) for key, one in found.members.items()}, **found.interfaces}
    in_order = [interfaces[key] for key in sorted(interfaces)]
    answer = {"NetworkInterfaceSets": {"NetworkInterfaceSet": in_order}}
    return (*_group_documents(found), _document(Action.INTERFACES, answer), *others)


def _group_documents(found: Readings) -> tuple[DocumentFile, ...]:
    """Return the groups, and the rules of the host's own groups."""
    for key in found.rules.keys() - found.groups.keys():
        raise ApiError(f"{Action.GROUPS.value} {key}: the group is not in the answer")
    listed = [found.groups[key] for key in sorted(found.groups)]
    rules = [found.rules.get(key) or _without_rules(found.groups[key]) for key in sorted(found.groups)]
    listing = _document(Action.GROUPS, {"SecurityGroups": {"SecurityGroup": listed}})
    return (listing, _document(Action.RULES, rules)) if rules else (listing,)


def _without_rules(group: Answer) -> Answer:
    return {**_kept(group, _OF_RULES), "Permissions": {"Permission": []}}


def _member(found: Readings, interface: Answer) -> Answer:
    """Return an interface elsewhere, with the groups that are known here."""
    known = sorted(_groups_of(interface) & found.groups.keys())
    return {**_kept(interface, _OF_MEMBER), "SecurityGroupIds": {"SecurityGroupId": known}}


def _document(action: Action, content: object) -> DocumentFile:
    return DocumentFile(f"{action.value}.json", as_json(content))


FIRST_ANSWER_SECONDS = 20.0
"""How long the first fetch waits for the watch's thread; later fetches do not wait."""


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
    from sgagent.sources.aliyun.client import connect  # noqa: PLC0415 - it needs what others do without

    memory = addresses_file(all_settings.state.directory)
    endpoint_cache = EndpointCache(settings.api.host, settings.api.port, memory=memory)
    return AliyunSource(
        settings,
        all_settings.limits,
        connect(settings, all_settings.limits, endpoint_cache),
        by_hand=None if context.host is None else all_settings.interfaces,
        endpoint_cache=endpoint_cache,
    )


class AliyunSource:
    """Polls the definitions of a host; implements :class:`Source`.

    During a watch, only the watch's thread sends requests, and a fetch returns its newest result. Without a
    watch, a fetch sends requests.
    """

    def __init__(
        self,
        settings: AliyunSourceSettings,
        limits: Limits,
        api: Api,
        *,
        by_hand: tuple[HandBinding, ...] | None,
        endpoint_cache: EndpointCache | None = None,
        random: Callable[[], float] = random.random,
        read_instance_id: Callable[[], str] = read_instance_id,
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
        self._endpoint_cache = endpoint_cache or EndpointCache(settings.api.host, settings.api.port)
        self._paginator = Paginator(api, random)
        self._backoff = PollInterval(settings.poll_seconds, random)
        self._poller = Poller(self._poll, self._paginator.break_off)
        self._asking = threading.Lock()
        self._parser = VerifiedParser(limits)
        self._outcome: Delivery | Failure = Failure(f"{settings.api}: no answer yet")

    def fetch(self) -> Delivery:
        """Return the newest complete snapshot of the API.

        Raises:
            DocumentError: the answers have errors, or are too large.
            SourceUnavailableError: the API can't be reached, or its answers are incomplete.
        """
        if self._poller.is_asking:
            self._poller.wait_for_first(FIRST_ANSWER_SECONDS)
        else:
            self._paginator.resume()
            self._poll()
        return delivered(self._outcome)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the cached endpoints of the API, and that of the metadata service if it is used."""
        asked_too = (METADATA_ENDPOINT,) if self._settings.uses_metadata else ()
        return (*self._endpoint_cache.endpoints(), *asked_too)

    def refresh(self) -> None:
        """Send the next requests now."""
        self._poller.hurry()

    def watch(self, wake: Wake) -> AbstractContextManager[None]:
        """Call ``wake`` when the result of :meth:`fetch` changes, until the context ends."""
        self._paginator.resume()
        return self._poller.watch(wake)

    def _poll(self) -> tuple[bool, float]:
        """Read once; return whether the result changed, and the seconds until the next read."""
        with self._asking:
            before = (self._outcome, self.endpoints())
            self._outcome = self._ask()
            is_changed = before != (self._outcome, self.endpoints())
        if isinstance(self._outcome, Failure) and self._outcome.problems is None:
            return is_changed, self._backoff.after_failure()
        return is_changed, self._backoff.after_answer()

    def _ask(self) -> Delivery | Failure:
        """Read the host's definitions, and return the delivery or why there is none."""
        with suppress(OSError):  # cached addresses stay valid; without any, the request fails with a message
            self._endpoint_cache.find()
        try:
            documents = read_everything_about(self._subject(), self._paginator, self._limits)
            return self._parser.take(documents, None, self._settings.place)
        except (DocumentError, SourceUnavailableError) as error:
            return Failure.of(error)

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
