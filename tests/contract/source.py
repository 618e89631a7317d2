"""What a source owes to the reconciler."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Protocol

import pytest

from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.documents import Limits, parse_documents
from sgagent.ports import Source
from tests.patience import PATIENCE
from tests.waiting import wait_until

WITHIN_SECONDS = 2.0 * PATIENCE
WEB = "version: 1\nsecurity_groups: [{security_group_id: sg-web, type: basic}]\n"
APP = "version: 1\nsecurity_groups: [{security_group_id: sg-app, type: basic}]\n"
BROKEN = "version: 1\nnonsense: true\n"


class Origin(Protocol):
    """The place that a source reads, in a test's hands."""

    @property
    def source(self) -> Source:
        """Return the source."""
        ...

    def write(self, content: str) -> None:
        """Make this what there is to be delivered, and tell who watches."""
        ...

    def remove(self) -> None:
        """Make the place unreachable, and tell who watches."""
        ...


class SourceContract:
    """Run by each source; its fixture ``origin`` starts with nothing to be delivered."""

    def test_what_is_written_is_delivered(self, origin: Origin) -> None:
        """The newest content, whole."""
        for content, group_id in ((WEB, "sg-web"), (APP, "sg-app")):
            origin.write(content)
            (group,) = origin.source.fetch().snapshot.security_groups
            assert group.security_group_id == group_id

    def test_versions_name_the_content(self, origin: Origin) -> None:
        """The same content has the same version, whatever was between."""
        versions = []
        for content in (WEB, APP, WEB):
            origin.write(content)
            versions.append(origin.source.fetch().snapshot.version)
        assert versions[0] == versions[2] != versions[1]

    def test_the_documents_can_be_read_again(self, origin: Origin) -> None:
        """What is handed on beside the snapshot makes the same snapshot."""
        origin.write(WEB)
        delivery = origin.source.fetch()
        version = delivery.snapshot.version
        assert parse_documents(delivery.documents, Limits(), version)[0] == delivery.snapshot

    def test_errors_of_form_are_raised(self, origin: Origin) -> None:
        """Nothing of a broken document is delivered, and mending it is enough."""
        origin.write(BROKEN)
        with pytest.raises(DocumentError):
            origin.source.fetch()
        origin.write(WEB)
        assert origin.source.fetch().snapshot.security_groups

    def test_what_is_not_there_is_unavailable(self, origin: Origin) -> None:
        """Before anything was written, and after it was removed."""
        with pytest.raises(SourceUnavailableError):
            origin.source.fetch()
        origin.write(WEB)
        origin.remove()
        with pytest.raises(SourceUnavailableError):
            origin.source.fetch()

    def test_what_is_raised_keeps_no_frame_alive(self, origin: Origin) -> None:
        """A source that stored its exception would keep all that its callers had at hand."""
        assert _frame_of_a_caller(origin.source) is None
        with origin.source.watch(lambda: None):
            origin.write(BROKEN)
            wait_until(lambda: issubclass(_raised(origin.source) or object, DocumentError), "a refusal")
            assert _frame_of_a_caller(origin.source) is None

    def test_changes_wake_whoever_watches(self, origin: Origin) -> None:
        """What comes, changes and goes is told, and can then be fetched.

        A source that reads while somebody writes may wake once more for what it saw of that.
        """
        woken = threading.Event()
        with origin.source.watch(woken.set):
            for content in (WEB, APP, BROKEN, WEB):
                woken.clear()
                origin.write(content)
                assert woken.wait(WITHIN_SECONDS)
            wait_until(lambda: _groups(origin.source) == ["sg-web"], "what was written last")
            woken.clear()
            origin.remove()
            assert woken.wait(WITHIN_SECONDS)

    def test_a_refresh_that_is_waited_for_looks(self, origin: Origin) -> None:
        """The next fetch returns what there is, whatever the watch has seen so far."""
        with origin.source.watch(lambda: None):
            for content, group_id in ((WEB, "sg-web"), (APP, "sg-app")):
                origin.write(content)
                assert origin.source.refresh(WITHIN_SECONDS)
                assert _groups(origin.source) == [group_id]
            assert origin.source.refresh(WITHIN_SECONDS)  # with nothing new
            origin.remove()
            assert origin.source.refresh(WITHIN_SECONDS)
            assert _groups(origin.source) == []

    def test_a_watch_that_ended_is_silent(self, origin: Origin) -> None:
        """Leaving the context ends it before it returns."""
        woken = threading.Event()
        with origin.source.watch(woken.set):
            pass
        woken.clear()  # what came while it watched
        origin.write(WEB)
        assert not woken.wait(0.05)

    def test_several_may_watch(self, origin: Origin) -> None:
        """One that ends takes no other along."""
        woken = threading.Event()
        with origin.source.watch(woken.set):
            with origin.source.watch(lambda: None):
                pass
            origin.write(WEB)
            assert woken.wait(WITHIN_SECONDS)


def _groups(source: Source) -> list[str]:
    """Return the groups that a source delivers; none where it has to refuse what it read."""
    try:
        return [group.security_group_id for group in source.fetch().snapshot.security_groups]
    except (DocumentError, SourceUnavailableError):
        return []


class _Local:
    """A value of a caller."""


def _raised(source: Source) -> type[Exception] | None:
    """Return the type of what a source raises."""
    try:
        source.fetch()
    except (DocumentError, SourceUnavailableError) as error:
        return type(error)
    return None


def _frame_of_a_caller(source: Source) -> object:
    """Return a local variable of a caller after its frame has ended; None if it is gone as it should be."""

    def call() -> weakref.ref[_Local]:
        local = _Local()
        assert _raised(source) is not None
        return weakref.ref(local)

    gc.freeze()  # so that what all other tests made is not looked at
    try:
        kept = call()
        gc.collect()
    finally:
        gc.unfreeze()
    return kept()
