"""What a host says of itself in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest

from sgagent.agent import fleet_report
from sgagent.agent.fleet_report import Presence, presence_kept
from sgagent.agent.posture import Posture
from sgagent.agent.status import Status
from sgagent.agent.step import Step, StepEnd
from sgagent.core.binding import HandBinding, HostFacts, Link
from sgagent.core.model import CidrBlock
from sgagent.settings import Settings
from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from sgagent.sources.etcd.host_reports import Report, read_reports
from sgagent.sources.etcd.key_layout import KeyLayout
from sgagent.sources.etcd.messages import KeyValue
from sgagent.sources.etcd.source import FetchedPublication
from sgagent.sources.union import UnionSource
from sgagent.sources.verified_parse import VerifiedParser
from tests.words import blocks

LAYOUT = KeyLayout("/sgagent")
SETTINGS = EtcdSourceSettings(endpoints=(ServerUrl(host="192.0.2.1", port=2379),), host_name="web-1")
STATUS = Status(posture=Posture.ENFORCING, snapshot_version="v1", snapshot_since=1000.0)


class Host:
    """An agent whose state a test sets."""

    def __init__(self, settings: EtcdSourceSettings = SETTINGS, *by_hand: HandBinding) -> None:
        """Start with the first version in force."""
        self.status = STATUS
        self.publication: FetchedPublication | None = FetchedPublication(serial=1, revision=10, version="v1")
        self.facts = HostFacts()
        self.presence = Presence(
            settings, lambda: self.status, lambda: self.publication, lambda: self.facts, by_hand
        )

    def report(self) -> Report:
        """Return what it reports now."""
        keys = self.presence.keys()
        (found,) = read_reports([KeyValue(key=key, value=value) for key, value in keys.items()], LAYOUT, 0)
        assert found.report is not None
        return found.report


def test_a_publication_is_reached_once_it_is_in_force() -> None:
    """Not when the source has it, and not when it was refused."""
    host = Host()
    assert (host.report().host, host.report().revision, host.report().serial) == ("web-1", 10, 1)
    host.publication = FetchedPublication(serial=2, revision=20, version="v2")
    assert host.report().revision == 10
    refused = Step(outcome=StepEnd.UNCHANGED, is_refused=True)
    host.status = replace(STATUS, snapshot_version="v2", step=refused, first_errors=("error: no",))
    assert (host.report().revision, host.report().errors) == (10, ("error: no",))
    host.status = replace(STATUS, snapshot_version="v2")
    assert (host.report().revision, host.report().errors) == (20, ())


def test_a_publication_that_changes_nothing_here_is_reached_at_once() -> None:
    """A pipeline that waits for all hosts does not wait for those that it does not concern."""
    host = Host()
    host.report()
    host.publication = FetchedPublication(serial=2, revision=20, version="v1")
    assert host.report().revision == 20


def test_a_publication_that_gave_way_by_hand_is_not_reached() -> None:
    """A host that an administrator set to other documents, or back, does not enforce it."""
    host = Host()
    assert host.report().revision == 10
    host.status = replace(STATUS, snapshot_version="by-hand")
    assert (host.report().revision, host.report().serial) == (0, 0)
    host.status = STATUS
    assert host.report().revision == 10


def test_what_the_kernel_refused_is_not_reached() -> None:
    """It is told with the reason."""
    host = Host()
    host.status = replace(STATUS, step=Step(outcome=StepEnd.REFUSED, kernel_error="no room"))
    assert (host.report().revision, host.report().errors) == (0, ("no room",))
    assert host.report().kernel_refused


def test_links_that_are_bound_by_hand_are_announced() -> None:
    """With their addresses, in each of their groups; nothing link-local."""
    by_hand = (
        HandBinding(interface="eth0", security_group_ids=("sg-a", "sg-b")),
        HandBinding(interface="eth1", network_interface_id="eni-1"),
        HandBinding(interface="eth2", security_group_ids=("sg-a",)),
        HandBinding(interface="br-*", exclude=("br-no",), security_group_ids=("sg-a",)),
    )
    host = Host(replace(SETTINGS, report=False, announce=True), *by_hand)
    addresses = tuple(map(CidrBlock.parse, ("10.0.0.1", "2001:db8::1", "fe80::1", "169.254.0.9")))
    host.facts = HostFacts(
        links=(
            Link(name="eth0", index=2, addresses=addresses),
            Link(name="eth1", index=3, addresses=addresses),
            Link(name="eth9", index=4, addresses=addresses),
            Link(name="br-a", index=5, addresses=addresses),
            Link(name="br-no", index=6, addresses=addresses),
        )
    )
    value = b'{"addresses":["10.0.0.1","2001:db8::1"]}'
    assert host.presence.keys() == {
        LAYOUT.key("members", "sg-a", "web-1.eth0"): value,
        LAYOUT.key("members", "sg-b", "web-1.eth0"): value,
        LAYOUT.key("members", "sg-a", "web-1.br-a"): value,
    }


@pytest.mark.parametrize(
    ("link", "name"),
    (("a@b+c", "a:40b:2bc"), ("a-b-c", "a-b-c"), ("é+1", ":c3:a9:2b1")),
)
def test_names_of_links_become_ids(link: str, name: str) -> None:
    """Each has its own, as no link is called anything with a colon."""
    host = Host(
        replace(SETTINGS, report=False, announce=True),
        HandBinding(interface=link, security_group_ids=("sg-a",)),
    )
    host.facts = HostFacts(links=(Link(name=link, index=2),))
    assert list(host.presence.keys()) == [LAYOUT.key("members", "sg-a", f"web-1.{name}")]


def test_beside_other_sources_a_host_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported only where the version in force is one of the store."""
    kept: list[Mapping[str, bytes]] = []

    def keys_kept(
        _: object, keys: Callable[[], Mapping[str, bytes]], __: object
    ) -> AbstractContextManager[None]:
        kept.append(keys())
        return nullcontext()

    monkeypatch.setattr(fleet_report, "keys_kept", keys_kept)
    by_hand = HandBinding(interface="eth0", security_group_ids=("sg-a",))
    settings = replace(Settings(), interfaces=(by_hand,))
    facts = HostFacts(links=(Link(name="eth0", index=1, addresses=blocks("10.0.0.5")),))
    union = UnionSource((), VerifiedParser(settings.limits))
    for store in (SETTINGS, replace(SETTINGS, announce=True)):
        with presence_kept(settings, store, union, lambda: STATUS, lambda: facts):
            pass
    assert [list(keys) for keys in kept] == [[LAYOUT.key("members", "sg-a", "web-1.eth0")]]
