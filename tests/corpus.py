"""Read the examples, the one corpus that every judge is held to: definitions, bindings, and packets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.errors import Problem
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, Resolution, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.policy_test.scenario import Scenario, parse_packets
from sgagent.settings import Settings

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A file of packets and what belongs to it."""

    name: str
    """Its directory below ``examples``."""

    scenario: Scenario
    definitions: Path
    """A directory of documents."""

    def parse(self) -> tuple[Snapshot, tuple[Problem, ...]]:
        """Return the definitions and what was noticed while reading them."""
        files = [DocumentFile(path.name, path.read_bytes()) for path in sorted(self.definitions.iterdir())]
        return parse_documents(files, Limits())

    def resolve(self) -> Resolution:
        """Return what the definitions come to on the interfaces that the packets pass."""
        snapshot, _ = self.parse()
        bound = bind(snapshot, self.scenario.bindings, HostFacts(), automatically=False)
        exemptions = Exemptions(platform=Settings().platform)
        return resolve(snapshot, bound, exemptions, at=self.scenario.at, names=self.scenario.names)

    def policy(self) -> ResolvedPolicy:
        """Return what is enforced."""
        return self.resolve().policy.identifying(self.scenario.links)

    def configuration(self) -> str:
        """Return the bindings as tables of the configuration."""
        return "".join(map(_binding, self.scenario.bindings))


def _binding(binding: HandBinding) -> str:
    if binding.network_interface_id is not None:
        what = f'network_interface_id = "{binding.network_interface_id}"'
    else:
        what = f"security_group_ids = {json.dumps(binding.security_group_ids)}"
    check = f'source_check = "{binding.source_check.value}"\n' if binding.source_check else ""
    return f'[[interface]]\nname = "{binding.interface}"\n{what}\n{check}'


def examples() -> list[Example]:
    """Return every example, in the order of their names."""
    return [_example(path) for path in sorted(EXAMPLES.glob("**/packets.yaml"))]


def _example(path: Path) -> Example:
    """Read one file of packets."""
    scenario = parse_packets(path.read_bytes(), str(path))
    return Example(
        name=str(path.parent.relative_to(EXAMPLES)),
        scenario=scenario,
        definitions=path.parent / scenario.definitions,
    )
