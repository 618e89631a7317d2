"""Write down who joins groups and who leaves, each change by a file or by a key of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Protocol

from bench.definition_writers import LAYOUT, StoreWriter
from bench.policies import GROUP_ID, INTERFACE, BenchPolicy
from integration.service import Service
from sgagent.sources.etcd.key_layout import MEMBERS, write_member
from sgagent.sources.etcd.messages import DeleteKey, PutKey


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who joins a group, and leaves it."""

    place: int
    """Of the group, among those that rules speak of."""

    address: IPv4Address


class Membership(Protocol):
    """Where it stands who is in which group."""

    @property
    def groups(self) -> int:
        """Return how many groups there are."""
        ...

    def write(self, joined: Sequence[Member], left: Sequence[Member]) -> None:
        """Write changes down, each for itself."""
        ...


class FileMembership:
    """A file for each group, written anew for each member."""

    def __init__(self, service: Service, policy: BenchPolicy) -> None:
        """Write all definitions, for a service that is not started yet."""
        self._service = service
        rules, *groups = json.loads(policy.document())["security_groups"]
        service.configure(f'[[interface]]\nname = "{INTERFACE}"\nsecurity_group_ids = ["{GROUP_ID}"]\n')
        service.define(json.dumps({"version": 1, "security_groups": [rules]}), "rules.json")
        named = {rule["authorization_object"] for rule in rules["rules"]}
        self._groups: list[dict[str, Any]] = groups
        for place in range(len(groups)):
            self._write_group(place)
        self._groups = [group for group in groups if group["security_group_id"] in named]

    @property
    def groups(self) -> int:
        """Return how many groups rules speak of."""
        return len(self._groups)

    def write(self, joined: Sequence[Member], left: Sequence[Member]) -> None:
        """Write a file for each member."""
        for member in joined:
            self._groups[member.place]["member_addresses"].append(str(member.address))
            self._write_group(member.place)
        for member in left:
            self._groups[member.place]["member_addresses"].remove(str(member.address))
            self._write_group(member.place)

    def _write_group(self, place: int) -> None:
        group = self._groups[place]
        text = json.dumps({"version": 1, "security_groups": [group]})
        self._service.define(text, f"{group['security_group_id']}.json")


class StoreMembership:
    """A key for each member, as hosts announce themselves."""

    def __init__(self, writer: StoreWriter) -> None:
        """Take a writer that has written all definitions."""
        self._writer = writer

    @property
    def groups(self) -> int:
        """Return how many groups rules speak of."""
        return len(self._writer.spoken_of)

    def write(self, joined: Sequence[Member], left: Sequence[Member]) -> None:
        """Write and delete keys in one transaction, as each costs the time of a store with a disk."""
        puts = [PutKey(self._key(m), write_member([str(m.address)]), self._writer.lease) for m in joined]
        self._writer.commit(*puts, *(DeleteKey(self._key(member)) for member in left))

    def _key(self, member: Member) -> str:
        return LAYOUT.key(MEMBERS, self._writer.spoken_of[member.place], f"new-{int(member.address)}")
