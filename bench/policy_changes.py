"""Change a policy in small and in large, so that streams of packets are decided as before all the while.

Beside the bench's own policy stands a group for the streams: what comes from its members is accepted or
dropped by rules that no change touches, though members join the group and leave it.
"""

from __future__ import annotations

import enum
import functools
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, Protocol, assert_never

from bench.definition_writers import FIRST_NEWCOMER, GROUPS_OF_A_FILE
from bench.policies import GROUP_ID, INTERFACE, invent
from bench.sizes import Size

STREAM_GROUP_ID = "sg-stream"
CONFIGURATION = (
    f'[[interface]]\nname = "{INTERFACE}"\nsecurity_group_ids = ["{GROUP_ID}", "{STREAM_GROUP_ID}"]\n'
)
STREAMERS = tuple(IPv4Address("198.51.100.1") + number for number in range(100))
"""Who sends the streams."""

ACCEPTED, KNOWN, UNSPOKEN, REFUSED = 61_001, 61_002, 61_003, 61_004
"""Ports, above those of every rule of the bench's policy: of new sessions that are accepted, of UDP sessions
that are known, of those that no rule speaks of, and of those that a rule drops."""

_AT_ONCE = 20
"""Rules that change together, or members."""


class PolicyChange(enum.Enum):
    """The objects that are changed at once."""

    RULES = "twenty rules changed"
    MEMBERS = "twenty members joined or left"
    EVERYTHING = "everything replaced"


_STREAM: Mapping[str, Any] = {
    "security_group_id": STREAM_GROUP_ID,
    "type": "basic",
    "inner_access_policy": "drop",
    "rules": [
        {
            "rule_id": f"sgr-{name}",
            "direction": "ingress",
            "policy": policy,
            "priority": priority,
            "protocol": protocol,
            "port_range": f"{port}/{port}",
            "authorization_object": peer,
        }
        for name, policy, priority, protocol, port, peer in (
            ("accepts", "accept", 1, "tcp", ACCEPTED, "sg-streamers"),
            ("knows", "accept", 1, "udp", KNOWN, "198.51.100.0/24"),
            ("refuses", "drop", 1, "tcp", REFUSED, "sg-streamers"),
            ("would-accept", "accept", 2, "tcp", REFUSED, "0.0.0.0/0"),
        )
    ],
}


class DefinitionWriter(Protocol):
    """Where documents are written: a service."""

    def define(self, text: str, name: str) -> None:
        """Write a document under a name."""
        ...


@dataclass(slots=True)
class Definitions:
    """The documents of one daemon, and their changes: the same ones every time."""

    writer: DefinitionWriter
    size: Size
    _dice: random.Random = field(default_factory=lambda: random.Random(2))
    _generation: int = 0
    _rules: dict[str, Any] = field(default_factory=dict)
    _groups: list[dict[str, Any]] = field(default_factory=list)
    _newcomers: int = 0

    def __post_init__(self) -> None:
        """Invent the first policy."""
        self._replace()

    def write_all(self) -> None:
        """Write all documents."""
        self._write_rules()
        self._write_groups(*range(0, len(self._groups), GROUPS_OF_A_FILE))

    def prepare(self, change: PolicyChange) -> Callable[[], None]:
        """Make a change in memory, and return a function that writes it down."""
        match change:
            case PolicyChange.RULES:
                for rule in self._dice.sample(self._rules["rules"], min(_AT_ONCE, self.size.rules)):
                    rule["priority"] = self._dice.randrange(1, 101)
                    rule["policy"] = self._dice.choice(("accept", "drop"))
                    rule["port_range"] = f"{self._dice.randrange(1, 60_000)}/60000"
                return self._write_rules
            case PolicyChange.MEMBERS:
                return functools.partial(self._write_groups, *self._move_members())
            case PolicyChange.EVERYTHING:
                self._replace()
                return self.write_all
            case _:
                assert_never(change)

    def _move_members(self) -> list[int]:
        """Have members join and leave, half of them the group of the streams; return the files concerned."""
        places = []
        for number in range(_AT_ONCE):
            place = 0 if number % 2 else self._dice.randrange(len(self._groups[:GROUPS_OF_A_FILE]))
            members = self._groups[place]["member_addresses"]
            newcomers = [member for member in members if member.startswith("10.20")]
            if newcomers and self._dice.random() < 0.5:
                members.remove(newcomers[0])
            else:
                self._newcomers += 1
                members.append(str(FIRST_NEWCOMER + self._newcomers))
            places.append(place // GROUPS_OF_A_FILE * GROUPS_OF_A_FILE)
        return sorted(set(places))

    def _replace(self) -> None:
        """Invent another policy: other rules under other names, and groups of other members."""
        self._generation += 1
        policy = invent(self.size, seed=self._generation)
        self._rules, *groups = json.loads(policy.document())["security_groups"]
        for rule in self._rules["rules"]:
            rule["rule_id"] += f"-{self._generation}"
        lists = [group["member_addresses"] for group in groups]
        self._dice.shuffle(lists)
        for group, members in zip(groups, lists, strict=True):
            group["member_addresses"] = members
        streamers = {
            "security_group_id": "sg-streamers",
            "type": "basic",
            "inner_access_policy": "drop",
            "member_addresses": [str(address) for address in STREAMERS],
        }
        self._groups = [streamers, *groups]

    def _write_rules(self) -> None:
        self._define("rules.json", [self._rules, dict(_STREAM)])

    def _write_groups(self, *files: int) -> None:
        for first in files:
            self._define(f"{first}.json", self._groups[first : first + GROUPS_OF_A_FILE])

    def _define(self, name: str, groups: list[dict[str, Any]]) -> None:
        self.writer.define(json.dumps({"version": 1, "security_groups": groups}), name)
