"""Have sgagent enforce a policy: as a command that ends, and as a daemon that stays."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path

from bench.durations import BINDING, sgagent
from bench.installed import INTERPRETER
from bench.peers.contender import Contender, Hook, Newcomer, Took
from bench.peers.place import LIMIT_SECONDS, Place, PlaceError
from bench.policies import GROUP_ID, INTERFACE, BenchPolicy
from integration.lab import wait_for
from integration.service import Service, is_alive
from sgagent.core.policy import ResolvedRule
from sgagent.dataplane.generation import RulesetGeneration

GROUPS_OF_A_FILE = 20
"""The rules stand in a file of their own."""

_RULES = "rules.json"
_CONFIGURATION = f'[[interface]]\nname = "{INTERFACE}"\nsecurity_group_ids = ["{GROUP_ID}"]\n'


class _Documents:
    """The definitions of a policy, as they are changed over time."""

    def __init__(self, policy: BenchPolicy) -> None:
        self._rules, *self._groups = json.loads(policy.document())["security_groups"]

    def files(self) -> dict[str, str]:
        """Return all documents by their names."""
        starts = range(0, len(self._groups), GROUPS_OF_A_FILE)
        return {_RULES: _document([self._rules])} | {f"{first}.json": self._file(first) for first in starts}

    def join(self, newcomer: Newcomer) -> tuple[str, str]:
        """Return the name and the text of the file that changes as an address joins a group."""
        names = [group["security_group_id"] for group in self._groups]
        place = names.index(newcomer.group.group_id)
        self._groups[place]["member_addresses"].append(str(newcomer.address))
        first = place - place % GROUPS_OF_A_FILE
        return f"{first}.json", self._file(first)

    def add(self, rule: ResolvedRule) -> tuple[str, str]:
        """Return the name and the text of the file that changes as a rule comes."""
        self._rules["rules"].append(
            {
                "rule_id": rule.rule_id,
                "direction": "ingress",
                "policy": rule.policy.value,
                "priority": rule.priority,
                "protocol": str(rule.protocols[0]),
                "port_range": str(rule.ports),
                "authorization_object": rule.peer.name,
            }
        )
        return _RULES, _document([self._rules])

    def _file(self, first: int) -> str:
        return _document(self._groups[first : first + GROUPS_OF_A_FILE])


def _document(groups: list[dict[str, object]]) -> str:
    return json.dumps({"version": 1, "security_groups": groups}, indent=1)


class Command(Contender):
    """``sgagent compile``, which reads everything at each change."""

    hook = Hook.EDGE
    has_packages = False

    def __init__(self, place: Place) -> None:
        """Take the place, and a folder for the documents."""
        super().__init__(place)
        self._folder = tempfile.TemporaryDirectory(prefix="sgagent-bench-")

    def start(self, policy: BenchPolicy) -> Took:
        """Compile and apply."""
        return self.reload(policy)

    def add_member(self, newcomer: Newcomer) -> Took:
        """Compile and apply all of it, with one member more."""
        return self._apply(dict([self._documents.join(newcomer)]))

    def add_rule(self, rule: ResolvedRule) -> Took:
        """Compile and apply all of it, with one rule more."""
        return self._apply(dict([self._documents.add(rule)]))

    def reload(self, policy: BenchPolicy) -> Took:
        """Compile and apply."""
        self._documents = _Documents(policy)
        return self._apply(self._documents.files())

    def close(self) -> None:
        """Remove the documents."""
        self._folder.cleanup()

    def _apply(self, files: dict[str, str]) -> Took:
        for name, text in files.items():
            Path(self._folder.name, name).write_text(text, encoding="utf-8")
        return Took.of(self.place.run(*sgagent("compile", "--definitions", self._folder.name, *BINDING)))


class Daemon(Contender):
    """``sgagent run``, which is told of each change by a signal, so that it does not wait for more."""

    hook = Hook.EDGE
    has_packages = False

    def __init__(self, place: Place) -> None:
        """Take the place, and a folder for all files."""
        super().__init__(place)
        self._folder = tempfile.TemporaryDirectory(prefix="sgagent-bench-")
        self._service = Service(place.network, Path(self._folder.name), INTERPRETER, is_forked=False)
        self._service.verifies = True
        with place.network.entered():
            self._generation = RulesetGeneration()

    def start(self, policy: BenchPolicy) -> Took:
        """Start the daemon, and wait until it says that it is ready."""
        self._service.configure(_CONFIGURATION)
        self._documents = _Documents(policy)
        for name, text in self._documents.files().items():
            self._service.define(text, name)
        began = time.perf_counter()
        self._service.launch()
        wait_for(self._is_ready, "the daemon to be ready", LIMIT_SECONDS)
        return Took(time.perf_counter() - began)

    def add_member(self, newcomer: Newcomer) -> Took:
        """Replace the file of the group."""
        return self._change(dict([self._documents.join(newcomer)]))

    def add_rule(self, rule: ResolvedRule) -> Took:
        """Replace the file of the rules."""
        return self._change(dict([self._documents.add(rule)]))

    def reload(self, policy: BenchPolicy) -> Took:
        """Replace all files."""
        self._documents = _Documents(policy)
        return self._change(self._documents.files())

    def processes(self) -> tuple[int, ...]:
        """Return the daemon, and all processes that it has."""
        return self._service.process_ids

    def close(self) -> None:
        """End the daemon, and remove its files."""
        with contextlib.closing(self._generation):
            self._service.close()
            self._folder.cleanup()

    def _change(self, files: dict[str, str]) -> Took:
        """Replace files, and return how long it took from the signal to the kernel's new table."""
        for name, text in files.items():
            self._service.define(text, name)
        told, before = self._service.log.count("ruleset_applied"), self._generation.read()
        self._service.notices().clear()
        began = time.perf_counter()
        self._service.reload()
        wait_for(lambda: self._generation.read() != before, "the change to be enforced", LIMIT_SECONDS)
        took = Took(time.perf_counter() - began)
        wait_for(lambda: self._is_done(told), "the step to end", LIMIT_SECONDS)
        return took

    def _is_done(self, told: int) -> bool:
        return self._service.log.count("ruleset_applied") > told and self._is_ready()

    def _is_ready(self) -> bool:
        if not is_alive(self._service.pid):
            raise PlaceError(f"the daemon has ended:\n{self._service.log}")
        return any("READY=1" in notice.splitlines() for notice in self._service.notices())
