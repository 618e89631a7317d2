"""What hosts report of themselves."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pytest
from structlog.testing import capture_logs

from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.grpc import EtcdError
from sgagent.sources.etcd.host_reports import (
    MOST_ERRORS,
    HostReport,
    LeasedKeys,
    Report,
    keys_kept,
    read_reports,
)
from sgagent.sources.etcd.key_layout import FLEET, KeyLayout
from sgagent.sources.etcd.messages import Header, KeyValue, Lease, PutKey, Unchanged, Write
from tests.etcdstore import Store
from tests.grpcserver import listening
from tests.waiting import wait_until

LAYOUT = KeyLayout("/sgagent")


def report(
    host: str,
    revision: int = 10,
    *,
    errors: tuple[str, ...] = (),
    kernel_refused: bool = False,
    drift_unhealed: bool = False,
) -> Report:
    """Return the report of a host."""
    return Report(
        host=host,
        agent_version="0.1.0",
        posture="enforcing",
        version="sha256:0123456789ab",
        serial=7,
        revision=revision,
        since=1000.5,
        errors=errors,
        kernel_refused=kernel_refused,
        drift_repaired=3,
        drift_unhealed=drift_unhealed,
    )


def key(host: str, value: bytes) -> KeyValue:
    """Return a host's key."""
    return KeyValue(key=LAYOUT.key(FLEET, host), value=value)


def test_a_report_comes_back() -> None:
    """What a host writes is what others read."""
    written = report("web-1", errors=("a", "b"), kernel_refused=True)
    (found,) = read_reports([key("web-1", written.encoded())], LAYOUT, 10)
    assert found.report == written


def test_those_that_somebody_should_look_at_come_first() -> None:
    """Refusing, unreadable, lagging, drifting; then by name."""
    items = [
        key("a", report("a").encoded()),
        key("b", report("b", drift_unhealed=True).encoded()),
        key("c", report("c", revision=9).encoded()),
        key("d", b"nonsense"),
        key("e", report("e", errors=("no",)).encoded()),
        key("f", report("f", kernel_refused=True).encoded()),
        key("0", report("0").encoded()),
    ]
    found = [(one.host, one.state) for one in read_reports(items, LAYOUT, 10)]
    assert found == [
        ("e", HostReport.REFUSING),
        ("f", HostReport.REFUSING),
        ("d", HostReport.UNREADABLE),
        ("c", HostReport.LAGGING),
        ("b", HostReport.DRIFTING),
        ("0", HostReport.CURRENT),
        ("a", HostReport.CURRENT),
    ]


def test_errors_are_cut() -> None:
    """A report stays small, whatever went wrong."""
    written = report("a", errors=("x" * 10_000,) * 50).encoded()
    assert len(written) < 3000
    (found,) = read_reports([key("a", written)], LAYOUT, 0)
    assert found.report is not None
    assert len(found.report.errors) == MOST_ERRORS


@pytest.mark.parametrize(
    "value", (b"", b"[]", b"{}", b'{"format":2}', report("a").encoded().replace(b":7", b':"x"'))
)
def test_what_is_no_report_is_told(value: bytes) -> None:
    """It hides no other."""
    found = read_reports([key("a", value), key("b", report("b").encoded())], LAYOUT, 10)
    assert [(one.host, one.state) for one in found] == [
        ("a", HostReport.UNREADABLE),
        ("b", HostReport.CURRENT),
    ]


class LimitedClient(Client):
    """A store that takes as many operations in a transaction as etcd does, and is lost when told to."""

    def __init__(self) -> None:
        """Hold nothing."""
        super().__init__(EtcdSourceSettings(endpoints=(ServerUrl(host="127.0.0.1", port=2379),)))
        self.values: dict[str, bytes] = {}
        self.sizes: list[int] = []
        """Of each committed transaction."""

        self.lost_from = 100
        """The number of the transaction from which on none succeeds."""

        self.loses_answers = False
        """Whether transactions are carried out, and nobody hears of it."""

    def grant_lease(self, seconds: int) -> Lease:
        """Grant the only lease."""
        return Lease(number=1, seconds=seconds)

    def commit(self, conditions: Iterable[Unchanged], writes: Iterable[Write]) -> tuple[Header, bool]:
        """Carry out a transaction without conditions."""
        assert not list(conditions)
        operations = list(writes)
        if len(operations) > 128 or len(self.sizes) >= self.lost_from:
            raise EtcdError("refused")
        self.sizes.append(len(operations))
        for write in operations:
            if isinstance(write, PutKey):
                self.values[write.key] = write.value
            else:
                self.values.pop(write.key, None)
        if self.loses_answers:
            raise EtcdError("no answer")
        return Header(), True


def test_more_keys_than_a_transaction_takes_are_written_in_several() -> None:
    """One that fails leaves what was committed noted, so that the next call writes the rest alone."""
    wanted = {f"/k/{number:03}": b"1" for number in range(300)}
    client = LimitedClient()
    kept = LeasedKeys(client, 60, lambda: wanted)
    client.lost_from = 1
    with pytest.raises(EtcdError):
        kept.poll()
    assert client.sizes == [127]
    client.lost_from = 100
    kept.poll()
    assert client.sizes == [127, 127, 46]
    assert client.values == wanted
    for number in range(200):
        del wanted[f"/k/{number:03}"]
    kept.poll()
    kept.poll()
    assert client.sizes == [127, 127, 46, 127, 73]
    assert client.values == wanted


def test_a_key_whose_answer_was_lost_is_deleted_when_it_is_not_wanted_any_more() -> None:
    """It may stand in the store, where the lease would keep it for as long as the agent runs."""
    wanted = {"/k/1": b"1", "/k/2": b"2"}
    client = LimitedClient()
    kept = LeasedKeys(client, 60, lambda: wanted)
    client.loses_answers = True
    with pytest.raises(EtcdError):
        kept.poll()
    assert client.values == wanted
    del wanted["/k/1"]
    client.loses_answers = False
    kept.poll()
    assert client.values == wanted


def test_links_that_the_kernel_does_not_list_end_no_announcement() -> None:
    """A host that stopped to renew its lease would be no member of its groups any more."""
    calls = []

    def contents() -> dict[str, bytes]:
        calls.append("asked")
        if len(calls) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return {}

    with listening(Store().behave) as port:
        endpoint = ServerUrl(host="127.0.0.1", port=port, is_encrypted=False)
        with capture_logs() as logged, keys_kept(EtcdSourceSettings(endpoints=(endpoint,)), contents):
            wait_until(lambda: "report_recovered" in [entry["event"] for entry in logged], "another try")
    assert [entry["event"] for entry in logged] == ["report_failed", "report_recovered"]
