"""Following a store that tells more than anybody takes in, or holds more."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from sgagent.core.errors import DocumentError, SgagentError, SourceUnavailableError
from sgagent.documents import Limits
from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from sgagent.sources.etcd import watcher
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.documents import Composed, Everything
from sgagent.sources.etcd.http2 import WakeSignal
from sgagent.sources.etcd.key_layout import Values
from sgagent.sources.etcd.messages import KEY_BYTES, KeyRange, largest_message
from sgagent.sources.etcd.publication import Completeness
from sgagent.sources.etcd.source import EtcdSource
from sgagent.sources.etcd.watcher import StoreWatcher
from tests.etcdstore import LAYOUT, MARKER, REVISION, Store, told, written
from tests.fakes.host import FakeHost
from tests.fakes.log import FakeLog
from tests.grpcserver import listening
from tests.waiting import wait_until

if TYPE_CHECKING:
    from _typeshed import TraceFunction

LIMITS = Limits(document_bytes=1000)
WEB, APP = LAYOUT.key("groups", "sg-web"), LAYOUT.key("groups", "sg-app")


class Some:
    """Want to know some keys."""

    def __init__(self, *ranges: KeyRange) -> None:
        """Take which."""
        self._ranges = frozenset(ranges)

    def wanted(self, values: Values) -> frozenset[KeyRange]:
        """Return them, whatever is in them."""
        del values
        return self._ranges

    def documents(self, values: Values) -> Composed:
        """Return nothing, as nobody asks for it."""
        del values
        return Composed(())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Give what ends everything with the test."""
    with ExitStack() as stack:
        yield stack


def settings_for(store: Store, stack: ExitStack) -> EtcdSourceSettings:
    """Return where a store is."""
    port = stack.enter_context(listening(store.behave))
    return EtcdSourceSettings(endpoints=(ServerUrl(host="127.0.0.1", port=port, is_encrypted=False),))


def follow(store: Store, stack: ExitStack, limits: Limits = LIMITS) -> StoreWatcher:
    """Return what follows all of a store."""
    client = stack.enter_context(closing(Client(settings_for(store, stack), limits=limits)))
    wake_signal = stack.enter_context(closing(WakeSignal()))
    return StoreWatcher(client, LAYOUT, Everything(LAYOUT), wake_signal)


def filling(most: int = LIMITS.all_bytes) -> bytes:
    """Return the value with which one group fills a store."""
    return b"x" * (most - 2 * KEY_BYTES - len(LAYOUT.meta) - len(MARKER.encoded()) - len(WEB))


def refusal(error: pytest.ExceptionInfo[DocumentError]) -> tuple[str, str | None]:
    """Return what is wrong with which place."""
    (problem,) = error.value.problems
    return problem.code, problem.origin.file


def test_a_watch_that_has_too_much_to_tell(stack: ExitStack) -> None:
    """What it was to tell is read instead, as it is by now, over the same connection."""
    store = Store()
    store.told = [struct.pack("!BI", 0, largest_message(LIMITS) + 1)]
    following = follow(store, stack)
    before = following.connect()
    after = following.wait()
    assert after is not None
    assert after is not before
    assert after.marker == MARKER
    wait_until(lambda: store.watches == 2, "another watch")


def test_a_watch_that_tells_of_very_many_keys(stack: ExitStack) -> None:
    """They are not even read, as each would cost more than it is long; all is read anew instead."""
    store = Store()
    store.told = [told(*[b""] * (LIMITS.all_bytes // KEY_BYTES + 1))]
    following = follow(store, stack)
    before = following.connect()
    assert following.wait() not in (None, before)
    wait_until(lambda: store.watches == 2, "another watch")


def test_a_store_that_holds_as_much_as_is_allowed(stack: ExitStack) -> None:
    """It is followed; with a byte more it is refused: where, of how much, and what helps, is told."""
    store = Store(sg_web=filling())
    following = follow(store, stack)
    assert set(following.connect().values) == {WEB}
    following.forget()
    store.put("sg_web", filling() + b"x")
    with pytest.raises(
        DocumentError, match=r"127\.0\.0\.1.*more than 4000 bytes.*limits\.document_bytes"
    ) as error:
        following.connect()
    assert refusal(error) == ("too_large", f"etcd:{LAYOUT.root}")
    store.put("sg_web", filling())
    assert set(following.connect().values) == {WEB}


def test_a_key_that_is_larger_than_any_document(stack: ExitStack) -> None:
    """The store is refused as documents are that are too large."""
    store = Store(sg_web=b"x" * (largest_message(LIMITS) + 1))
    with pytest.raises(DocumentError, match=f"where {largest_message(LIMITS)} are the most") as error:
        follow(store, stack).connect()
    assert refusal(error) == ("too_large", f"etcd:{LAYOUT.root}")


def test_a_marker_that_is_larger_than_any_document(stack: ExitStack) -> None:
    """It is refused likewise, by who reads it and by who goes on after a lost connection."""
    store = Store()
    following = follow(store, stack)
    following.connect()
    store.values[LAYOUT.meta] = MARKER.encoded() + b" " * largest_message(LIMITS)
    for _ in range(2):
        with pytest.raises(DocumentError) as error:
            following.connect()
        assert refusal(error) == ("too_large", f"etcd:{LAYOUT.root}")
        following.forget()


def test_a_watch_that_adds_too_much(stack: ExitStack) -> None:
    """The store is refused, and followed again once it has shrunk."""
    store = Store(sg_web=filling())
    store.told = [told(written(APP, b"", REVISION + 1))]
    following = follow(store, stack)
    following.connect()
    with pytest.raises(DocumentError, match=r"more than 4000 bytes.*limits\.document_bytes") as error:
        following.wait()
    assert refusal(error) == ("too_large", f"etcd:{LAYOUT.root}")
    following.forget()
    assert set(following.connect().values) == {WEB}


def test_an_interest_that_grows_too_large(stack: ExitStack) -> None:
    """What a host comes to want counts with what it has."""
    store = Store(sg_web=filling(), sg_app=b"")
    following = follow(store, stack)
    following.interest = Some(KeyRange(WEB))
    assert set(following.connect().values) == {WEB}
    following.interest = Some(KeyRange(WEB), KeyRange(APP))
    with pytest.raises(DocumentError) as error:
        following.read_added()
    assert refusal(error) == ("too_large", f"etcd:{LAYOUT.root}")


def test_what_was_good_before_stays_known(stack: ExitStack) -> None:
    """A store that outgrows the bound is told to be refused; what it shrinks to is taken."""
    group = b'{"security_group_id":"sg-web","vpc_id":"vpc-1","account_id":"1","type":"normal"}'
    store = Store(sg_web=group)
    source = EtcdSource(settings_for(store, stack), LIMITS)
    before = source.fetch()
    store.put("sg_app", b"x" * LIMITS.all_bytes)
    with pytest.raises(DocumentError) as error:
        source.fetch()
    assert refusal(error) == ("too_large", f"etcd:{LAYOUT.root}")
    assert error.value.__cause__ is None
    del store.values[APP]
    assert source.fetch() is before


def test_no_thread_sees_half_of_a_change(stack: ExitStack) -> None:
    """At every line of the watch's thread, the delivery and the publication belong together."""
    store = Store(sg_web=b'{"security_group_id":"sg-web"}')
    newer = replace(MARKER, serial=2, changed=("groups/sg-app",))
    store.told = [
        told(
            written(APP, b'{"security_group_id":"sg-app"}', REVISION + 1),
            written(LAYOUT.meta, newer.encoded(), REVISION + 1),
        )
    ]
    source = EtcdSource(settings_for(store, stack), Limits())
    woken = threading.Event()
    seen: set[tuple[str, str]] = set()

    def look(frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        """Read what another thread would read if it ran before this line."""
        del argument
        if not frame.f_code.co_filename.endswith("etcd/source.py"):
            return None
        if event == "line" and woken.is_set() and source.publication is not None:
            seen.add((source.fetch().snapshot.version, source.publication.version))
        return look

    threading.settrace(look)
    stack.callback(threading.settrace, None)
    stack.enter_context(source.watch(woken.set))
    wait_until(lambda: source.publication is not None and source.publication.serial == 2, "the newer one")
    wait_until(lambda: len(seen) == 2, "a line after it")
    assert all(delivery == publication for delivery, publication in seen)


def test_a_link_that_comes_while_somebody_publishes(stack: ExitStack) -> None:
    """What was complete before is read with what the link leads to, and no half of a publication is told."""
    begun = replace(MARKER, state=Completeness.PUBLISHING, complete_revision=REVISION)
    store = Store(sg_web=b"before", sg_app=b"app")
    store.told = [
        told(written(LAYOUT.meta, begun.encoded(), REVISION + 1), written(WEB, b"half", REVISION + 2))
    ]
    following = follow(store, stack)
    following.interest = Some(KeyRange(WEB))
    following.connect()
    assert following.wait() is None
    following.interest = Some(KeyRange(WEB), KeyRange(APP))
    known = following.read_added()
    assert known is not None
    assert {key: item.value for key, item in known.values.items()} == {WEB: b"before", APP: b"app"}


def test_each_unfinished_one_is_logged_once(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resync begins to wait anew: it may have read the end of the one that was logged."""
    log = FakeLog()
    monkeypatch.setattr(watcher, "_LOG", log)
    monkeypatch.setattr(watcher, "UNFINISHED_SECONDS", 0.01)
    begun = replace(MARKER, state=Completeness.PUBLISHING, complete_revision=REVISION)
    store = Store(sg_web=b"before")
    store.told = 2 * [told(written(LAYOUT.meta, begun.encoded(), REVISION + 1))]
    following = follow(store, stack)
    for resyncs in (1, 2):
        following.forget()
        following.connect()
        following.wait()  # the beginning
        following.wait()  # the time by which it has to end
        assert log.events() == ["publication_unfinished"] * resyncs


MAC = "00:16:3e:00:00:07"


def store_with_interface() -> Store:
    """Return a store that knows an interface by its MAC address."""
    store = Store(sg_web=b'{"security_group_id":"sg-web"}')
    interface = b'{"network_interface_id":"eni-7","mac_address":"%s","security_group_ids":["sg-web"]}'
    store.values[LAYOUT.key("interfaces", "eni-7")] = interface % MAC.encode()
    store.values[LAYOUT.key("by-mac", MAC, "eni-7")] = b""
    return store


def is_followed(source: EtcdSource) -> bool:
    """Return whether a source delivers the interface."""
    with contextlib.suppress(SourceUnavailableError):
        return bool(source.fetch().snapshot.network_interfaces)
    return False


def test_a_refresh_is_over_once_the_marker_was_read(stack: ExitStack) -> None:
    """Not at the next heartbeat, half a minute later."""
    source = EtcdSource(settings_for(store_with_interface(), stack), Limits())
    stack.enter_context(source.watch(lambda: None))
    assert is_followed(source)
    for _ in range(3):
        assert source.refresh(10.0)


def test_a_link_that_comes_before_the_watch_is_followed(stack: ExitStack) -> None:
    """The links are listed for the first time when the source is made; a booting host has others soon."""
    host = FakeHost()
    source = EtcdSource(settings_for(store_with_interface(), stack), Limits(), host=host)
    host.add_link("eth7", MAC)
    stack.enter_context(source.watch(lambda: None))
    wait_until(lambda: is_followed(source), "the interface of the new link")


def test_a_link_that_could_not_be_listed_at_once_is_followed(stack: ExitStack) -> None:
    """The change is not forgotten where the kernel refuses the first listing after it."""
    host = FakeHost()
    source = EtcdSource(settings_for(store_with_interface(), stack), Limits(), host=host)
    stack.enter_context(source.watch(lambda: None))
    wait_until(lambda: source.publication is not None, "the first publication")
    looks, host.fault = host.looks, SgagentError("no descriptor is free")
    host.add_link("eth7", MAC)
    wait_until(lambda: host.looks > looks, "a listing that is refused")
    host.fault = None
    source.refresh()
    wait_until(lambda: is_followed(source), "the interface of the new link")
