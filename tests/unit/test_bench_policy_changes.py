"""Whatever the bench changes under its streams, they are decided as before."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from bench import churn, daemon, floor, scrape, stream, throughput
from bench.policies import GROUP_ID, INTERFACE
from bench.policy_changes import (
    ACCEPTED,
    KNOWN,
    REFUSED,
    STREAM_GROUP_ID,
    STREAMERS,
    UNSPOKEN,
    Definitions,
    PolicyChange,
)
from bench.section import COSTS_PAGE, PAGE
from bench.sizes import SIZES, Size
from bench.traffic import HOST_ADDRESS
from sgagent.core.binding import HandBinding, HostFacts, bind
from sgagent.core.evaluate import Packet, evaluate
from sgagent.core.model import Direction, Family, Policy
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import DocumentFile, Limits, parse_documents

_TCP, _UDP = 6, 17


@dataclass
class Folder:
    """A folder of documents, in memory."""

    documents: dict[str, str] = field(default_factory=dict)

    def define(self, text: str, name: str) -> None:
        """Keep a document."""
        self.documents[name] = text

    def policy(self) -> ResolvedPolicy:
        """Return what sgagent makes of the documents."""
        files = [DocumentFile(name, text.encode()) for name, text in sorted(self.documents.items())]
        snapshot, _ = parse_documents(files, Limits())
        by_hand = HandBinding(interface=INTERFACE, security_group_ids=(GROUP_ID, STREAM_GROUP_ID))
        return resolve(
            snapshot, bind(snapshot, [by_hand], HostFacts(), automatically=False), Exemptions()
        ).policy


def verdicts(policy: ResolvedPolicy) -> list[Policy]:
    """Return what becomes of each stream, if that is the same for all who send it."""
    found = []
    for protocol, port in ((_TCP, ACCEPTED), (_UDP, KNOWN), (_TCP, UNSPOKEN), (_TCP, REFUSED)):
        packets = (
            Packet(
                interface=INTERFACE,
                direction=Direction.INGRESS,
                family=Family.IPV4,
                source=int(source),
                destination=int(HOST_ADDRESS),
                protocol=protocol,
                source_port=1024,
                destination_port=port,
            )
            for source in STREAMERS
        )
        (verdict,) = {evaluate(policy, packet).verdict for packet in packets}
        found.append(verdict)
    return found


@pytest.mark.parametrize("size", SIZES[:2])
def test_streams_are_decided_as_before_whatever_is_changed(size: Size) -> None:
    """The policy is another one after each change, and the streams are let in and kept out as ever."""
    folder = Folder()
    definitions = Definitions(folder, size)
    definitions.write_all()
    policies = [folder.policy()]
    for change in itertools.islice(itertools.cycle(PolicyChange), 9):
        definitions.prepare(change)()
        policies.append(folder.policy())
        assert policies[-1] != policies[-2], change
    wanted = [Policy.ACCEPT, Policy.ACCEPT, Policy.DROP, Policy.DROP]
    assert [verdicts(policy) for policy in policies] == [wanted] * len(policies)


def test_every_bench_has_its_place_on_the_page() -> None:
    """What it writes down finds the marks that it goes between."""
    for bench in (churn, daemon, floor, scrape, stream, throughput):
        page = (PAGE if bench in (daemon, throughput) else COSTS_PAGE).read_text(encoding="utf-8")
        assert page.count(f"<!-- {bench.NAME}: begin -->") == 1
        assert page.count(f"<!-- {bench.NAME}: end -->") == 1
        assert f"`python -m bench.{bench.NAME}`" in page
