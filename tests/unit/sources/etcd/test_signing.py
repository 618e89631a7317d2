"""Keys of a store that somebody vouches for, whole or in part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from sgagent.core.binding import HandBinding, HostFacts
from sgagent.core.errors import DocumentError
from sgagent.core.model import Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.settings import SignatureSettings
from sgagent.signatures import Manifest, SignatureFile
from sgagent.sources.etcd.documents import HostInterest
from sgagent.sources.etcd.key_layout import GROUPS, INTERFACES, MEMBERS, SIGNATURE, KeyLayout, published_keys
from sgagent.sources.etcd.messages import KeyValue
from sgagent.sources.etcd.publication import (
    PART_BYTES,
    SignedInterest,
    VerifiedContent,
    signature_in,
    signature_keys,
    verify_content,
)
from sgagent.sources.verified_parse import SignaturePolicy
from tests.etcd import covered_by, read_all
from tests.signing import KEY, NOW, OTHER_KEY

LAYOUT = KeyLayout("/sgagent")
PINNED = SignatureSettings(public_keys=(KEY.public,))
INTEREST = SignedInterest(
    HostInterest(
        LAYOUT, HostFacts(), (HandBinding(interface="eth0", network_interface_id="eni-1"),), Limits()
    ),
    LAYOUT,
)
DOCUMENT = b"""
version: 1
security_groups:
  - security_group_id: sg-web
    rules: [{direction: ingress, policy: accept, protocol: tcp, port_range: 80, authorization_object: sg-app}]
  - security_group_id: sg-app
  - security_group_id: sg-other
network_interfaces:
  - {network_interface_id: eni-1, addresses: [10.0.0.1], security_group_ids: [sg-web]}
  - {network_interface_id: eni-2, addresses: [10.0.0.2], security_group_ids: [sg-app]}
  - {network_interface_id: eni-3, addresses: [10.0.0.3], security_group_ids: [sg-other]}
"""


def sign(contents: Mapping[str, bytes], serial: int) -> SignatureFile:
    """Vouch for contents with the test's key."""
    manifest = Manifest.of(contents, serial=serial, signed_at=NOW)
    return SignatureFile(manifest, (KEY.sign(manifest),))


def published(snapshot: Snapshot | None = None) -> dict[str, KeyValue]:
    """Return a store that holds a snapshot, signed."""
    taken = snapshot or parse_documents([DocumentFile("x.yaml", DOCUMENT)], Limits())[0]
    contents = published_keys(taken, LAYOUT)
    contents |= signature_keys(contents, LAYOUT, 7, sign)
    return {key: KeyValue(key=key, value=value, mod_revision=1) for key, value in contents.items()}


def held(store: Mapping[str, KeyValue], settings: SignatureSettings = PINNED) -> VerifiedContent:
    """Return what counts of what a host reads."""
    values = read_all(store, INTEREST)
    return verify_content(
        values, covered_by(INTEREST.wanted(values)), LAYOUT, SignaturePolicy(settings, now=lambda: NOW)
    )


def refusal(store: Mapping[str, KeyValue], settings: SignatureSettings = PINNED) -> str:
    """Return the one problem for which a store is refused."""
    with pytest.raises(DocumentError) as caught:
        held(store, settings)
    (problem,) = caught.value.problems
    return f"{problem.code} {problem.origin.file}"


def test_what_concerns_a_host_is_vouched_for() -> None:
    """Though it reads a part only of what was signed."""
    store = published()
    found = held(store)
    assert found.signed is not None
    assert (found.signed.serial, found.signed.key_id) == (7, KEY.public.key_id)
    assert LAYOUT.key(GROUPS, "sg-other") in store.keys() - found.values.keys()
    assert not found.problems


@pytest.mark.parametrize(
    "key",
    (
        LAYOUT.key(INTERFACES, "eni-1"),
        LAYOUT.key(GROUPS, "sg-web"),
        LAYOUT.key(GROUPS, "sg-app"),
        LAYOUT.key(MEMBERS, "sg-app", "eni-2"),
    ),
)
def test_a_key_that_was_changed_or_deleted_is_named(key: str) -> None:
    """Whichever it is of those that the host reads."""
    store = published()
    changed = {
        **store,
        key: replace(store[key], value=store[key].value.replace(b"10.0.0.2", b"0.0.0.0/0") + b" "),
    }
    assert refusal(changed) == f"signature_mismatch etcd:{key}"
    del store[key]
    assert refusal(store) == f"signature_mismatch etcd:{key}"


def test_a_key_that_was_added_is_named() -> None:
    """A member, say, of a group to which this host's rules refer."""
    key = LAYOUT.key(MEMBERS, "sg-app", "eni-9")
    added = {key: KeyValue(key=key, value=b'{"addresses":["0.0.0.0/0"]}', mod_revision=2)}
    assert refusal({**published(), **added}) == f"signature_mismatch etcd:{key}"


def test_what_concerns_others_is_their_business() -> None:
    """It is not read here, so nobody can tell, and nothing comes of it."""
    store = published()
    del store[LAYOUT.key(GROUPS, "sg-other")]
    assert held(store).signed is not None


def test_members_that_announce_themselves_are_left_out() -> None:
    """Nobody signed them, which is told once for all; one in place of a signed member is a change."""
    key = LAYOUT.key(MEMBERS, "sg-app", "h-1")
    announced = KeyValue(key=key, value=b'{"addresses":["10.0.0.9"]}', mod_revision=2, lease=5)
    found = held({**published(), key: announced})
    assert key not in found.values
    assert [(one.code, one.message[-3:]) for one in found.problems] == [("member_unsigned", ": 1")]
    member = LAYOUT.key(MEMBERS, "sg-app", "eni-2")
    assert refusal({**published(), member: replace(announced, key=member)}).startswith("signature_mismatch")


def test_without_a_signature() -> None:
    """It is refused, or taken with a warning where none is required, with all members."""
    store = {key: item for key, item in published().items() if LAYOUT.parts(key)[0] != SIGNATURE}
    place = f"etcd:{LAYOUT.key(SIGNATURE)}"
    assert refusal(store) == f"signature_missing {place}"
    found = held(store, replace(PINNED, required=False))
    assert (found.signed, [problem.code for problem in found.problems]) == (None, ["signature_missing"])


def test_a_key_that_is_not_pinned() -> None:
    """Does not vouch."""
    assert refusal(published(), SignatureSettings(public_keys=(OTHER_KEY.public,))).startswith(
        "signature_unknown_key"
    )


def test_nobody_is_asked_without_pinned_keys() -> None:
    """Then everything counts."""
    store = published()
    del store[LAYOUT.key(INTERFACES, "eni-1")]
    assert held(store, SignatureSettings()).signed is None


def test_a_long_signature_is_kept_in_parts() -> None:
    """And put together in their order."""
    contents = {LAYOUT.key(GROUPS, f"sg-{number}"): b"" for number in range(8_000)}
    keys = signature_keys(contents, LAYOUT, 1, sign)
    assert len(keys) == 2
    assert max(map(len, keys.values())) == PART_BYTES
    items = [KeyValue(key=key, value=keys[key]) for key in sorted(keys, reverse=True)]
    text = signature_in(items, LAYOUT)
    assert text is not None
    assert len(SignatureFile.parse(text).manifest.files) == 8_000
