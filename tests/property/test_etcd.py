"""What a host reads of a store comes to the same as all of it."""

from __future__ import annotations

from random import Random

from hypothesis import given

from sgagent.core.binding import bind
from sgagent.core.host import HandBinding, HostFacts, Link
from sgagent.core.model import Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import Limits, parse_documents
from sgagent.sources.etcd.interest import Everything, HostInterest
from sgagent.sources.etcd.layout import Layout, published_keys
from sgagent.sources.etcd.messages import KeyValue
from tests.etcd import read_all
from tests.generators import random_snapshot
from tests.strategies import seeds

LAYOUT = Layout("/sgagent")


def published(snapshot: Snapshot) -> dict[str, KeyValue]:
    """Return the keys of a snapshot in a store."""
    items = published_keys(snapshot, LAYOUT).items()
    return {key: KeyValue(key=key, value=value, mod_revision=1) for key, value in items}


def policy_of(snapshot: Snapshot, facts: HostFacts, by_hand: tuple[HandBinding, ...]) -> ResolvedPolicy:
    """Return what a snapshot comes to on a host."""
    return resolve(snapshot, bind(snapshot, by_hand, facts, automatically=True), Exemptions()).policy


@given(seeds)
def test_a_host_enforces_what_it_would_with_everything(seed: int) -> None:
    """Whatever is published, and however the host's links are bound."""
    random = Random(seed)
    snapshot = random_snapshot(random, most_rules=8)
    macs = [f"00:16:3e:00:00:{number:02x}" for number in range(random.randint(0, 3))]
    links = tuple(Link(name=f"eth{n}", index=n + 2, mac_address=mac) for n, mac in enumerate(macs))
    groups = [group.security_group_id for group in snapshot.security_groups]
    by_hand = tuple(
        HandBinding(interface=f"eth{n}", security_group_ids=(random.choice(groups),))
        for n in range(random.randint(0, 2))
    )
    facts = HostFacts(links=links)
    interest = HostInterest(LAYOUT, facts, by_hand, Limits())
    composed = interest.documents(read_all(published(snapshot), interest))
    part, _ = parse_documents(composed.documents, Limits())
    assert policy_of(part, facts, by_hand) == policy_of(snapshot, facts, by_hand)


@given(seeds)
def test_what_is_published_comes_back(seed: int) -> None:
    """Every object, in the native format that it is kept in; lists in the order in which they are read."""
    snapshot = random_snapshot(Random(seed), most_rules=8)
    once = read_again(snapshot)
    assert read_again(once) == once
    rules = [[group.rules for group in one.security_groups] for one in (snapshot, once)]
    assert rules[0] == rules[1]


def read_again(snapshot: Snapshot) -> Snapshot:
    """Return what reading all of a published snapshot gives."""
    documents = Everything(LAYOUT).documents(published(snapshot)).documents
    return parse_documents(documents, Limits(), snapshot.version)[0]
