"""What a host reads of a store comes to the same as all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given

from sgagent.core.binding import HandBinding, HostFacts, Link, bind
from sgagent.core.errors import DocumentError
from sgagent.core.model import GroupReference, PortListReference, PrefixListReference, Snapshot
from sgagent.core.policy import ResolvedPolicy
from sgagent.core.resolve import Exemptions, resolve
from sgagent.documents import Limits, parse_documents
from sgagent.settings import SignatureSettings
from sgagent.signatures import Manifest, SignatureFile
from sgagent.sources.etcd.documents import Everything, HostInterest, Interest
from sgagent.sources.etcd.key_layout import GROUPS, KeyLayout, published_keys, read_object
from sgagent.sources.etcd.messages import KeyValue
from sgagent.sources.etcd.publication import SignedInterest, signature_keys, verify_content
from sgagent.sources.verified_parse import SignaturePolicy
from tests.draws import Draws
from tests.etcd import covered_by, read_all
from tests.generators import random_snapshot
from tests.signing import KEY, NOW
from tests.strategies import draws, noted_snapshot

LAYOUT = KeyLayout("/sgagent")


def published(snapshot: Snapshot) -> dict[str, KeyValue]:
    """Return the keys of a snapshot in a store."""
    items = published_keys(snapshot, LAYOUT).items()
    return {key: KeyValue(key=key, value=value, mod_revision=1) for key, value in items}


def policy_of(snapshot: Snapshot, facts: HostFacts, by_hand: tuple[HandBinding, ...]) -> ResolvedPolicy:
    """Return what a snapshot comes to on a host."""
    return resolve(snapshot, bind(snapshot, by_hand, facts, automatically=True), Exemptions()).policy


def random_interest(draws: Draws, snapshot: Snapshot) -> HostInterest:
    """Return the interest of a host whose links are bound in some way."""
    macs = [f"00:16:3e:00:00:{number:02x}" for number in range(draws.randint(0, 3))]
    links = tuple(Link(name=f"eth{n}", index=n + 2, mac_address=mac) for n, mac in enumerate(macs))
    groups = [group.security_group_id for group in snapshot.security_groups]
    by_hand = tuple(
        HandBinding(interface=f"eth{n}", security_group_ids=(draws.choice(groups),))
        for n in range(draws.randint(0, 2))
    )
    return HostInterest(LAYOUT, HostFacts(links=links), by_hand, Limits())


@given(draws())
def test_a_host_enforces_what_it_would_with_everything(draws: Draws) -> None:
    """Whatever is published, and however the host's links are bound."""
    snapshot = noted_snapshot(draws, most_rules=8)
    interest = random_interest(draws, snapshot)
    facts, by_hand = interest.facts, interest.by_hand
    composed = interest.documents(read_all(published(snapshot), interest))
    part, _ = parse_documents(composed.documents, Limits())
    assert policy_of(part, facts, by_hand) == policy_of(snapshot, facts, by_hand)


@given(draws())
def test_keys_refer_to_what_their_documents_refer_to(draws: Draws) -> None:
    """Whatever the rules are."""
    snapshot = noted_snapshot(draws, most_rules=8)
    store = published(snapshot)
    for group in snapshot.security_groups:
        item = store[LAYOUT.key(GROUPS, group.security_group_id)]
        read = read_object(item, GROUPS, Limits())
        assert read is not None
        found = read.references
        objects = [one for rule in group.rules for one in rule.authorization_objects]
        ports = [rule.ports for rule in group.rules]
        assert found.groups == {one.security_group_id for one in objects if isinstance(one, GroupReference)}
        assert found.prefix_lists == {
            one.prefix_list_id for one in objects if isinstance(one, PrefixListReference)
        }
        assert found.port_lists == {one.port_list_id for one in ports if isinstance(one, PortListReference)}


@given(draws())
def test_what_was_read_before_changes_nothing(draws: Draws) -> None:
    """Over any history of a store, an interest with a memory wants and composes what a new one does."""
    store = published(noted_snapshot(draws, most_rules=4))
    of_a_host = random_interest(draws, random_snapshot(draws, most_rules=4))
    interests: tuple[HostInterest | Everything, ...] = (of_a_host, Everything(LAYOUT))
    for revision in range(2, 10):
        change_store(draws, store, revision)
        for interest in interests:
            new = afresh(interest)
            values = read_all(store, interest)
            assert values == read_all(store, new)
            assert composed(interest, values) == composed(new, values)


def afresh(interest: HostInterest | Everything) -> Interest:
    """Return the same interest without a memory."""
    if isinstance(interest, Everything):
        return Everything(LAYOUT)
    return HostInterest(LAYOUT, interest.facts, interest.by_hand, Limits())


def composed(interest: Interest, values: Mapping[str, KeyValue]) -> object:
    """Return what values come to, be it an error."""
    try:
        return interest.documents(values)
    except DocumentError as error:
        return error.problems


def change_store(draws: Draws, store: dict[str, KeyValue], revision: int) -> None:
    """Publish something else, have a host come or go, break a key, read all again, or in another order."""
    match draws.choice(("publish", "announce", "leave", "break", "again", "shuffle")):
        case "publish":
            after = published(random_snapshot(draws, most_rules=4))
            for key in store.keys() - after.keys():
                del store[key]
            for key, item in after.items():
                if key not in store or store[key].value != item.value:
                    store[key] = replace(item, mod_revision=revision)
        case "announce":
            key = LAYOUT.key("members", f"sg-{draws.randint(0, 5)}", f"host-{draws.randint(0, 3)}.eth0")
            value = draws.choice((b'{"addresses":["10.1.2.3"]}', b'{"addresses":[]}', b"?"))
            store[key] = KeyValue(key=key, value=value, mod_revision=revision, lease=1)
        case "leave" if leased := [key for key, item in store.items() if item.lease]:
            del store[draws.choice(leased)]
        case "break" if store:
            key = draws.choice(sorted(store))
            values = [b"{}", b"", *(item.value for item in store.values())]
            store[key] = replace(store[key], value=draws.choice(values), mod_revision=revision)
        case "again":
            store |= {key: replace(item) for key, item in store.items()}
        case _:
            items = draws.shuffled(store.items())
            store.clear()
            store.update(items)


def sign(contents: Mapping[str, bytes], serial: int) -> SignatureFile:
    """Vouch for contents with the test's key."""
    manifest = Manifest.of(contents, serial=serial, signed_at=NOW)
    return SignatureFile(manifest, (KEY.sign(manifest),))


def is_vouched_for(store: Mapping[str, KeyValue], interest: SignedInterest) -> bool:
    """Tell whether a host takes what it reads of a store."""
    signature_policy = SignaturePolicy(SignatureSettings(public_keys=(KEY.public,)), now=lambda: NOW)
    values = read_all(store, interest)
    try:
        return (
            verify_content(values, covered_by(interest.wanted(values)), LAYOUT, signature_policy).signed
            is not None
        )
    except DocumentError:
        return False


@given(draws())
def test_no_key_that_a_host_reads_can_be_changed_unnoticed(draws: Draws) -> None:
    """Whichever it is: replaced by something else, by what another key holds, or deleted."""
    snapshot = noted_snapshot(draws, most_rules=4)
    interest = SignedInterest(random_interest(draws, snapshot), LAYOUT)
    store = published(snapshot)
    contents = {key: item.value for key, item in store.items()}
    signature = signature_keys(contents, LAYOUT, 1, sign)
    store |= {key: KeyValue(key=key, value=value, mod_revision=1) for key, value in signature.items()}
    assert is_vouched_for(store, interest)
    read = read_all(store, interest)
    for key in draws.sample(sorted(read), min(3, len(read))):
        value = draws.choice([b"{}", b"", *contents.values()])
        changed = {**store, key: KeyValue(key=key, value=value, mod_revision=2)}
        assert value == read[key].value or not is_vouched_for(changed, interest), key
        assert not is_vouched_for({name: kept for name, kept in store.items() if name != key}, interest), key


@given(draws())
def test_what_is_published_comes_back(draws: Draws) -> None:
    """Every object, in the native format that it is kept in; lists in the order in which they are read."""
    snapshot = noted_snapshot(draws, most_rules=8)
    once = read_again(snapshot)
    assert read_again(once) == once
    rules = [[group.rules for group in one.security_groups] for one in (snapshot, once)]
    assert rules[0] == rules[1]


def read_again(snapshot: Snapshot) -> Snapshot:
    """Return what reading all of a published snapshot gives."""
    documents = Everything(LAYOUT).documents(published(snapshot)).documents
    return parse_documents(documents, Limits(), snapshot.version)[0]
