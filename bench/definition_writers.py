"""Write the definitions of a bench's policy and change them, in files or in a store, as a person would.

Member groups stand in files of twenty, the rules in a file of their own. In the store each group is a key; a
store takes no key as large as ten thousand rules, so there they are spread over groups of a thousand, which
the interface has all.
"""

from __future__ import annotations

import contextlib
import enum
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

from bench.overlapping import OverlappingPolicy
from bench.policies import INTERFACE, BenchPolicy
from integration.etcdcluster import Cluster, etcd_cluster
from integration.namespaces import Namespace
from integration.service import Service
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.key_layout import MEMBERS, KeyLayout, write_member
from sgagent.sources.etcd.messages import DeleteKey, PutKey
from sgagent.sources.etcd.publication import plan_publication, publish, read_published

GROUPS_OF_A_FILE = 20
RULES_OF_A_KEY = 1_000
FIRST_NEWCOMER = IPv4Address("10.200.0.0")
"""In no group of any policy."""

FREE_PORT = 60_500
"""Of no rule of any policy."""

LAYOUT = KeyLayout("/sgagent")
"""Of the keys in the store."""

_HOST_ADDRESS = "10.9.0.50"


class Change(enum.Enum):
    """The kind of a change."""

    MEMBER = "one member"
    """Joins a group, or leaves one."""

    RULE = "one rule"
    """Moves to another port."""


class Notice(enum.Enum):
    """How the daemon hears of a change."""

    SIGNAL = "SIGHUP"
    FILE = "inotify"
    STORE = "etcd"


class DefinitionWriter(Protocol):
    """Where definitions are written."""

    def prepare(self, change: Change, number: int) -> Callable[[], None]:
        """Return a function that makes a change known; call it once, before the next is prepared."""
        ...


@dataclass(frozen=True, slots=True)
class _Groups:
    """The groups of a policy as documents have them, and who changes them."""

    ruled: list[dict[str, Any]]
    """With the rules, on the interface."""

    members: list[dict[str, Any]]
    spoken_of: list[int]
    """The places of those that rules refer to: nothing changes in the kernel for the others."""

    interfaces: list[dict[str, Any]]
    """Members that network interfaces are; nobody changes them."""

    dice: random.Random

    @classmethod
    def of(cls, policy: BenchPolicy | OverlappingPolicy, rules_of_a_group: int) -> _Groups:
        document = json.loads(policy.document())
        groups = document["security_groups"]
        ruled = [part for group in groups if "rules" in group for part in _parts(group, rules_of_a_group)]
        members = [group for group in groups if "rules" not in group]
        named = {rule["authorization_object"] for group in ruled for rule in group["rules"]}
        spoken_of = [place for place, group in enumerate(members) if group["security_group_id"] in named]
        return cls(ruled, members, spoken_of, document.get("network_interfaces", []), random.Random(1))

    def binding(self) -> str:
        names = json.dumps([group["security_group_id"] for group in self.ruled])
        return f'[[interface]]\nname = "{INTERFACE}"\nsecurity_group_ids = {names}\n'

    def change_member(self, number: int) -> int:
        """Have somebody join a group by chance or leave one, and return its place."""
        place = self.dice.choice(self.spoken_of)
        addresses = self.members[place]["member_addresses"]
        if number % 2:
            addresses.pop(self.dice.randrange(len(addresses)))
        else:
            addresses.append(str(FIRST_NEWCOMER + number))
        return place

    def change_rule(self, number: int) -> None:
        """Move a rule to a port of its own."""
        rules = self.dice.choice(self.ruled)["rules"]
        self.dice.choice(rules)["port_range"] = f"{FREE_PORT + number}/{FREE_PORT + number}"


def _parts(group: dict[str, Any], most: int) -> Iterator[dict[str, Any]]:
    """Yield a group, or groups of so many of its rules."""
    name, rules = group["security_group_id"], group["rules"]
    if len(rules) <= most:
        yield group
        return
    for number, first in enumerate(range(0, len(rules), most)):
        yield {**group, "security_group_id": f"{name}-{number}", "rules": rules[first : first + most]}


class FileWriter:
    """Definitions in files."""

    def __init__(self, service: Service, policy: BenchPolicy | OverlappingPolicy, notice: Notice) -> None:
        """Write them all, for a service that is not started yet."""
        self._service = service
        self._is_told = notice is Notice.SIGNAL
        self._files = PolicyFiles(policy)
        service.configure(self._files.binding)
        for name, text in self._files.all():
            service.define(text, name)

    def prepare(self, change: Change, number: int) -> Callable[[], None]:
        """Make a change in memory, and return a function that puts it in its place."""
        name, text = self._files.change(change, number)

        def make_known() -> None:
            self._service.define(text, name)
            if self._is_told:
                self._service.reload()

        return make_known


class PolicyFiles:
    """The files of a policy, each as its name and its text."""

    def __init__(self, policy: BenchPolicy | OverlappingPolicy) -> None:
        """Take the policy as it is at first."""
        self._groups = _Groups.of(policy, policy.size.rules)
        self.binding = self._groups.binding()

    def all(self) -> Iterator[tuple[str, str]]:
        """Yield all files."""
        yield self._rules()
        if self._groups.interfaces:
            interfaces = {"version": 1, "network_interfaces": self._groups.interfaces}
            yield "interfaces.json", json.dumps(interfaces, indent=1)
        for place in range(0, len(self._groups.members), GROUPS_OF_A_FILE):
            yield self._members(place)

    def change(self, change: Change, number: int) -> tuple[str, str]:
        """Make a change, and return the file that it is in."""
        if change is Change.MEMBER:
            return self._members(self._groups.change_member(number))
        self._groups.change_rule(number)
        return self._rules()

    def _rules(self) -> tuple[str, str]:
        return "rules.json", _document(self._groups.ruled)

    def _members(self, place: int) -> tuple[str, str]:
        first = place // GROUPS_OF_A_FILE * GROUPS_OF_A_FILE
        return f"{first}.json", _document(self._groups.members[first : first + GROUPS_OF_A_FILE])


class StoreWriter:
    """Definitions in a store. A member announces itself there, as hosts do; a rule is published."""

    def __init__(self, service: Service, policy: BenchPolicy, cluster: Cluster, client: Client) -> None:
        """Publish them all, for a service that is not started yet."""
        self._client = client
        self._groups = _Groups.of(policy, RULES_OF_A_KEY)
        service.configure(self._groups.binding())
        endpoints = ", ".join(f'"{member.endpoint}"' for member in cluster.members)
        source = f'type = "etcd"\nendpoints = [{endpoints}]\nhost_name = "bench"\n'
        configuration = service.directory / "sgagent.toml"
        text = configuration.read_text()
        configuration.write_text(text.replace(f'path = "{service.documents}"\n', source))
        self._publication()()
        self.lease = client.grant_lease(3_600).number
        """Of the keys of members."""

        self._last = ""

    def prepare(self, change: Change, number: int) -> Callable[[], None]:
        """Make a change in memory, and return a function that writes it to the store."""
        if change is Change.RULE:
            self._groups.change_rule(number)
            return self._publication()
        if number % 2:
            return lambda: self.commit(DeleteKey(self._last))
        group = self._groups.members[self._groups.dice.choice(self._groups.spoken_of)]
        self._last = LAYOUT.key(MEMBERS, group["security_group_id"], f"new-{number}")
        return lambda: self.commit(
            PutKey(self._last, write_member([str(FIRST_NEWCOMER + number)]), self.lease)
        )

    @property
    def spoken_of(self) -> list[str]:
        """Return the groups that rules refer to."""
        return [self._groups.members[place]["security_group_id"] for place in self._groups.spoken_of]

    def commit(self, *writes: PutKey | DeleteKey) -> None:
        """Write to the store in one transaction."""
        self._client.commit((), writes)

    def _publication(self) -> Callable[[], None]:
        text = _document([*self._groups.ruled, *self._groups.members])
        snapshot = parse_documents([DocumentFile("bench.json", text.encode())], Limits())[0]
        published = read_published(self._client, LAYOUT)
        plan = plan_publication(published, snapshot, LAYOUT, by="bench", at=time.time())
        return lambda: _drop(publish(self._client, plan, LAYOUT))


@contextlib.contextmanager
def store_writer(
    service: Service, policy: BenchPolicy, host: Namespace, directory: Path
) -> Iterator[StoreWriter]:
    """Run a store of one member beside a host, and write the policy's definitions to it."""
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(etcd_cluster(directory, size=1))
        cluster.network.plug_in(host, _HOST_ADDRESS)
        cluster.start()
        stack.enter_context(host.entered())
        client = stack.enter_context(contextlib.closing(Client(cluster.settings(timeout_seconds=30))))
        yield StoreWriter(service, policy, cluster, client)


def _document(groups: list[dict[str, Any]]) -> str:
    return json.dumps({"version": 1, "security_groups": groups}, indent=1)


def _drop(_: object) -> None:
    """Take a value that nobody wants."""
