"""Definitions in a real etcd cluster: published, followed, lost and found again."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from integration.etcdcluster import CLIENT_PORT, Cluster, Member, etcd_cluster
from integration.lab import wait_for
from integration.namespaces import CommandError, Namespace, network_namespace
from sgagent.core.binding import HandBinding
from sgagent.core.errors import DocumentError, SourceUnavailableError
from sgagent.core.model import PortSet, Snapshot
from sgagent.documents import DocumentFile, Limits, parse_documents
from sgagent.settings import SignatureSettings
from sgagent.settings.sources import EtcdSourceSettings, ServerUrl
from sgagent.signatures import Manifest, SignatureFile, Signed
from sgagent.sources.etcd.client import Client
from sgagent.sources.etcd.key_layout import GROUPS, KeyLayout
from sgagent.sources.etcd.messages import DeleteKey, KeyRange, PutKey
from sgagent.sources.etcd.publication import (
    PublishedMeanwhileError,
    Sign,
    plan_publication,
    publish,
    read_published,
)
from sgagent.sources.etcd.source import GRACE_SECONDS, EtcdSource
from sgagent.sources.verified_parse import SignaturePolicy
from tests.contract.source import BROKEN, WEB, Origin, SourceContract
from tests.fakes.clock import FakeClock
from tests.fakes.host import FakeHost
from tests.patience import PATIENCE
from tests.signing import KEY

CLIENT = "10.9.0.100"
SOON = 10.0
QUIET_SECONDS = 0.5
"""Longer than any change waits for others before it is told."""

NOTHING_FORGED: Mapping[str, bytes] = MappingProxyType({})
_prefixes = itertools.count()


def definitions(port: int = 80, members: int = 2, others: int = 0) -> Snapshot:
    """Return a group with a rule for another group, that group's members, and unrelated objects."""
    lines = ["version: 1", "security_groups:"]
    lines.append(
        "  - {security_group_id: sg-web, rules: [{direction: ingress, policy: accept, protocol: tcp,"
        f" port_range: {port}, authorization_object: sg-app}}]}}"
    )
    lines.append("  - {security_group_id: sg-app}")
    lines.extend(f"  - {{security_group_id: sg-other-{number}}}" for number in range(others))
    if members:
        lines.append("network_interfaces:")
    lines.extend(
        f"  - {{network_interface_id: eni-{number}, addresses: [{address}], security_group_ids: [sg-app]}}"
        for number, address in enumerate(addresses(members))
    )
    return parse_documents([DocumentFile("x.yaml", "\n".join(lines).encode())], Limits())[0]


def addresses(members: int) -> list[str]:
    """Return the addresses of the first members of the other group."""
    return [f"10.1.{number // 250}.{number % 250}" for number in range(members)]


@dataclass
class Desk:
    """A host on the cluster's network, from which definitions are published and followed."""

    cluster: Cluster
    namespace: Namespace
    prefix: str = field(default_factory=lambda: f"/test-{next(_prefixes)}")

    @property
    def settings(self) -> EtcdSourceSettings:
        """Return the settings of a source on this prefix."""
        return self.cluster.settings(prefix=self.prefix)

    @property
    def layout(self) -> KeyLayout:
        """Return the keys."""
        return KeyLayout(self.prefix)

    def publish(
        self, snapshot: Snapshot, sign: Sign | None = None, forged: Mapping[str, bytes] = NOTHING_FORGED
    ) -> int:
        """Publish, with other values than those of the snapshot in some keys, and return the revision."""
        with self.namespace.entered(), closing(Client(self.settings)) as client:
            published = client.persistently(lambda: read_published(client, self.layout), SOON * PATIENCE)
            plan = plan_publication(published, snapshot, self.layout, by="test", at=time.time(), sign=sign)
            puts = (PutKey(key, value) for key, value in forged.items())
            others = (write for write in plan.writes if write.key not in forged)
            return publish(client, replace(plan, writes=(*others, *puts)), self.layout)

    def write(self, *writes: PutKey | DeleteKey) -> None:
        """Write keys as nobody should: without a marker."""
        with self.namespace.entered(), closing(Client(self.settings)) as client:
            client.commit((), writes)

    def source(self, *groups: str, signature_policy: SignaturePolicy | None = None) -> EtcdSource:
        """Return the source of a host that is bound to groups by hand; of everything without one."""
        if not groups:
            return EtcdSource(self.settings, Limits(), signature_policy=signature_policy)
        by_hand = (HandBinding(interface="eth0", security_group_ids=groups),)
        return EtcdSource(
            self.settings, Limits(), by_hand=by_hand, host=FakeHost(), signature_policy=signature_policy
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run three members, for tests that leave them as they are."""
    with etcd_cluster(tmp_path_factory.mktemp("etcd")) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """Make a host on the network of the members."""
    with network_namespace("client") as made:
        cluster.network.plug_in(made, CLIENT)
        yield made


@pytest.fixture
def desk(cluster: Cluster, namespace: Namespace) -> Desk:
    """Give a prefix under which nothing is published yet."""
    return Desk(cluster, namespace)


@pytest.fixture
def own_desk(tmp_path: Path) -> Iterator[Desk]:
    """Run three members of the test's own, for it to break."""
    with etcd_cluster(tmp_path) as made, network_namespace("client") as namespace:
        made.network.plug_in(namespace, CLIENT)
        made.start()
        yield Desk(made, namespace)


def ports_of(source: EtcdSource) -> list[str]:
    """Return the ports of the rule that a source delivers."""
    return [str(rule.ports) for group in source.fetch().snapshot.security_groups for rule in group.rules]


def wait_for_port(source: EtcdSource, port: int, seconds: float = SOON) -> float:
    """Wait until a source delivers a rule for a port."""
    wanted = [f"{port}/{port}"]

    def is_there() -> bool:
        with suppress(DocumentError, SourceUnavailableError):
            return ports_of(source) == wanted
        return False

    return wait_for(is_there, f"the rule for port {port}", seconds)


@contextmanager
def followed(desk: Desk) -> Iterator[EtcdSource]:
    """Publish a rule for port 80, and follow it on a host that is bound to its group."""
    desk.publish(definitions(80))
    source = desk.source("sg-web")
    with desk.namespace.entered(), source.watch(lambda: None):
        wait_for_port(source, 80)
        yield source


def asked_member(desk: Desk) -> Member:
    """Return the one member that the host is connected to."""
    peers = desk.namespace.run("ss", "-Htn", "state", "established", "dport", "=", ":2379")
    (asked,) = [member for member in desk.cluster.members if f" {member.address}:2379" in peers]
    return asked


class EtcdOrigin:
    """A prefix of the cluster as a place that tests write to."""

    def __init__(self, desk: Desk) -> None:
        """Take the prefix."""
        self._desk = desk
        self.source = desk.source()

    def write(self, content: str) -> None:
        """Publish a document; one that nobody could publish is written into a key."""
        if content == BROKEN:
            snapshot = parse_documents([DocumentFile("x.yaml", WEB.encode())], Limits())[0]
            key = self._desk.layout.key(GROUPS, "sg-web")
            self._desk.publish(snapshot, forged={key: b'{"security_group_id":"sg-web","nonsense":true}'})
            return
        self._desk.publish(parse_documents([DocumentFile("x.yaml", content.encode())], Limits())[0])

    def remove(self) -> None:
        """Delete every key."""
        self._desk.cluster.etcdctl("del", "--prefix", self._desk.prefix, through=self._desk.cluster.members)


class TestEtcdSource(SourceContract):
    """The source keeps the contract of all sources."""

    @pytest.fixture
    def origin(self, desk: Desk) -> Iterator[Origin]:
        """Give a prefix without anything."""
        with desk.namespace.entered():
            yield EtcdOrigin(desk)

    def test_what_is_not_there_is_unavailable(self, origin: Origin) -> None:
        """Before anything was published; keys that vanish without being published as gone are refused."""
        with pytest.raises(SourceUnavailableError, match="nothing is published"):
            origin.source.fetch()
        origin.write("version: 1\nsecurity_groups: [{security_group_id: sg-web}]\n")
        assert origin.source.fetch().snapshot.security_groups
        origin.remove()
        with pytest.raises(DocumentError, match="but there was one before"):
            origin.source.fetch()


def test_a_host_follows_what_concerns_it(desk: Desk) -> None:
    """A changed rule, a member that comes and one that goes; others' changes do not even wake it."""
    woken = threading.Event()
    desk.publish(definitions(80))
    source = desk.source("sg-web")
    with desk.namespace.entered(), source.watch(woken.set):
        assert {group.security_group_id for group in source.fetch().snapshot.security_groups} == {
            "sg-app",
            "sg-web",
        }
        desk.publish(definitions(81))
        wait_for_port(source, 81)
        desk.publish(definitions(81, members=3))
        wait_for(lambda: len(source.fetch().snapshot.group_by_id["sg-app"].member_addresses) == 3, "a member")
        while woken.wait(QUIET_SECONDS):  # for the member, which may be fetched before
            woken.clear()
        revision = desk.publish(definitions(81, members=3, others=1))
        wait_for(
            lambda: (source.publication is not None and source.publication.revision) == revision, "word of it"
        )
        assert not woken.is_set()


def test_all_of_many_groups_and_members_is_read(desk: Desk) -> None:
    """More groups than are asked for at once, and more members of one than an answer holds."""
    named = [f"sg-{number}" for number in range(70)]
    rules = ", ".join(
        f"{{direction: ingress, policy: accept, protocol: tcp, port_range: 80, authorization_object: {name}}}"
        for name in named
    )
    groups = ", ".join(f"{{security_group_id: {name}}}" for name in named)
    members = [f"10.1.{number // 250}.{number % 250}" for number in range(1_100)]
    interfaces = ", ".join(
        f"{{network_interface_id: eni-{address}, addresses: [{address}], security_group_ids: [sg-7]}}"
        for address in members
    )
    text = (
        f"{{version: 1, security_groups: [{{security_group_id: sg-web, rules: [{rules}]}}, {groups}],"
        f" network_interfaces: [{interfaces}]}}"
    )
    desk.publish(parse_documents([DocumentFile("x.yaml", text.encode())], Limits())[0])
    with desk.namespace.entered():
        snapshot = desk.source("sg-web").fetch().snapshot
    assert snapshot.group_by_id.keys() == {"sg-web", *named}
    assert len(snapshot.group_by_id["sg-7"].member_addresses) == len(members)


def test_references_are_followed_as_they_change(desk: Desk) -> None:
    """A list that a rule comes to refer to is delivered with the rule."""
    bare = "version: 1\nsecurity_groups: [{security_group_id: sg-web}]\n"
    listed = (
        "version: 1\nsecurity_groups: [{security_group_id: sg-web, rules: [{direction: ingress, policy: drop,"
        " protocol: tcp, port_range: 80, authorization_object: pl-1}]}]\n"
        "prefix_lists: [{prefix_list_id: pl-1, address_family: ipv4, entries: [192.0.2.0/24]}]\n"
    )
    snapshots = [parse_documents([DocumentFile("x", text.encode())], Limits())[0] for text in (bare, listed)]
    source = desk.source("sg-web")
    desk.publish(snapshots[0])
    with desk.namespace.entered(), source.watch(lambda: None):
        assert source.fetch().snapshot.prefix_lists == ()
        for snapshot in (snapshots[1], snapshots[0], snapshots[1]):
            desk.publish(snapshot)
            wait_for(
                lambda wanted=snapshot: source.fetch().snapshot.prefix_lists == wanted.prefix_lists,  # type: ignore[misc]  # a default binds the loop's value
                "the list",
            )


def test_a_large_publication_is_seen_whole(desk: Desk) -> None:
    """It takes many transactions, between which nobody sees a half."""
    desk.publish(definitions(80, members=0))
    source = desk.source("sg-web")
    seen: set[int] = set()

    def look() -> None:
        seen.add(len(source.fetch().snapshot.group_by_id["sg-app"].member_addresses))

    with desk.namespace.entered(), source.watch(look):
        look()
        desk.publish(definitions(80, members=1500))
        wait_for(lambda: 1500 in seen, "all members")
    assert seen == {0, 1500}


def test_two_publishers(desk: Desk) -> None:
    """Who planned before the other published writes nothing."""
    desk.publish(definitions(80))
    with desk.namespace.entered(), closing(Client(desk.settings)) as client:
        published = read_published(client, desk.layout)
        plan = plan_publication(published, definitions(82), desk.layout, by="late", at=time.time())
        desk.publish(definitions(81))
        with pytest.raises(PublishedMeanwhileError):
            publish(client, plan, desk.layout)
        wait_for_port(desk.source(), 81)


def test_a_publication_that_never_ends(desk: Desk) -> None:
    """The last complete publication counts, also for a new host; the next publisher takes over."""
    desk.publish(definitions(80))
    with desk.namespace.entered(), closing(Client(desk.settings)) as client:
        published = read_published(client, desk.layout)
        plan = plan_publication(
            published, definitions(81, members=500), desk.layout, by="dead", at=time.time()
        )
        assert plan.begun is not None
        client.commit((), [PutKey(desk.layout.meta, plan.begun.encoded())])
        client.commit((), plan.writes[:100])
        with desk.source("sg-web").watch(lambda: None):
            wait_for_port(desk.source("sg-web"), 80)
        assert read_published(client, desk.layout).marker == plan.begun
        desk.publish(definitions(82))
        source = desk.source("sg-web")
        wait_for_port(source, 82)
        assert len(source.fetch().snapshot.group_by_id["sg-app"].member_addresses) == 2


def test_a_key_that_nobody_published(desk: Desk) -> None:
    """A single key that somebody wrote by other means is taken up after a moment."""
    desk.publish(definitions(80, members=0))
    source = desk.source("sg-web")
    with desk.namespace.entered(), source.watch(lambda: None):
        source.fetch()
        desk.write(PutKey(desk.layout.key("members", "sg-app", "eni-9"), b'{"addresses":["10.0.0.9"]}'))
        wait_for(lambda: bool(source.fetch().snapshot.group_by_id["sg-app"].member_addresses), "the member")


def test_interfaces_that_vanish_are_no_empty_policy(desk: Desk) -> None:
    """A host that finds none of its own, where some were published and are gone, keeps its policy."""
    with followed(desk):
        pass
    desk.cluster.etcdctl("del", "--prefix", desk.layout.key("interfaces"), through=desk.cluster.members)
    with desk.namespace.entered(), pytest.raises(DocumentError, match="2 interfaces were published, and 0"):
        desk.source("sg-web").fetch()


def signed(contents: Mapping[str, bytes], serial: int, expires_at: int | None = None) -> SignatureFile:
    """Vouch for contents with the test's key."""
    manifest = Manifest.of(contents, serial=serial, signed_at=int(time.time()), expires_at=expires_at)
    return SignatureFile(manifest, (KEY.sign(manifest),))


def test_only_what_is_signed_is_followed(desk: Desk) -> None:
    """A publication without a key is refused until somebody publishes who has one."""
    enforced: list[Signed] = []
    clock = FakeClock(time.time())
    signature_policy = SignaturePolicy(
        SignatureSettings(public_keys=(KEY.public,)),
        read_enforced=lambda: enforced[-1] if enforced else None,
        now=clock.now,
    )
    source = desk.source("sg-web", signature_policy=signature_policy)

    def refusal() -> str:
        try:
            enforced[:] = [found] if (found := source.fetch().signed) else []
        except DocumentError as error:
            return error.problems[0].code
        return ""

    desk.publish(definitions(80))
    with desk.namespace.entered(), source.watch(lambda: None):
        wait_for(lambda: refusal() == "signature_missing", "word that nobody signed")
        desk.publish(definitions(81), signed)
        wait_for_port(source, 81)
        assert not refusal()
        member = desk.layout.key("members", "sg-app", "eni-9")
        desk.write(PutKey(member, b'{"addresses":["0.0.0.0/0"]}'))
        wait_for(lambda: refusal() == "signature_mismatch", "the refusal")
        desk.publish(definitions(82), signed)
        wait_for_port(source, 82)
        assert not refusal()
        with closing(Client(desk.settings)) as client:
            earlier = client.read(KeyRange.below(f"{desk.prefix}/"))[1]
        desk.publish(definitions(83), signed)
        wait_for_port(source, 83)
        assert not refusal()
        desk.publish(definitions(84), partial(signed, expires_at=int(clock.now()) + 3600))
        wait_for_port(source, 84)
        assert not refusal()
        clock.pass_seconds(3600)
        assert refusal() == "signature_expired"
    desk.write(
        *(PutKey(item.key, item.value) for item in earlier)
    )  # somebody brings back what was signed then
    with desk.namespace.entered():
        again = desk.source("sg-web", signature_policy=signature_policy)
        with pytest.raises(DocumentError, match="is older than"):
            again.fetch()


def test_a_lease_is_renewed_through_a_proxy(desk: Desk) -> None:
    """As hosts of a large fleet do."""
    proxy = ServerUrl(host="127.0.0.1", port=CLIENT_PORT, is_encrypted=False)
    options = (f"--endpoints={desk.cluster.members[0].endpoint}", f"--listen-addr={proxy.host}:{proxy.port}")
    data = desk.cluster.members[0].directory.parent / "proxy"
    argv = ("ip", "netns", "exec", desk.namespace.name, "etcd", "grpc-proxy", "start", *options)
    with subprocess.Popen([*argv, f"--data-dir={data}"], stderr=subprocess.DEVNULL) as running:
        try:
            settings = replace(desk.settings, endpoints=(proxy,))
            with desk.namespace.entered(), closing(Client(settings)) as client:
                lease = client.persistently(lambda: client.grant_lease(60), SOON * PATIENCE)
                assert [client.renew_lease(lease.number).seconds for _ in range(5)] == [60] * 5
        finally:
            running.kill()


def test_the_leader_is_killed(own_desk: Desk) -> None:
    """Followers go on with another member, and hear of the next publication."""
    with followed(own_desk) as source:
        own_desk.cluster.leader().kill()
        own_desk.publish(definitions(81))
        wait_for_port(source, 81)


@pytest.mark.long
def test_an_empty_disk_is_no_empty_policy(own_desk: Desk) -> None:
    """All members are lost with their disks: it is refused until somebody publishes again."""
    with followed(own_desk) as source:
        for member in own_desk.cluster.members:
            member.kill()
            member.wipe()
        assert ports_of(source), "for a while, that the store is away is not worth a word"
        own_desk.cluster.start()

        def refusal() -> str:
            try:
                source.fetch()
            except (DocumentError, SourceUnavailableError) as error:
                return str(error)
            return ""

        wait_for(lambda: "but there was one before" in refusal(), "the refusal", 2 * SOON)
        own_desk.publish(definitions(81))
        wait_for_port(source, 81, 2 * SOON)


def test_changes_during_a_lost_connection(own_desk: Desk) -> None:
    """They are found afterwards, also if the store has forgotten the revisions between."""
    with followed(own_desk) as source:
        for port, is_compacted in ((81, False), (82, True)):
            connected = own_desk.namespace.run("ss", "-Htn", "state", "established", "dport", "=", ":2379")
            assert connected
            own_desk.namespace.run("ip", "link", "set", "eth9", "down")
            # From the members' own side, as the host is cut off.
            beside = Desk(own_desk.cluster, own_desk.cluster.members[0].namespace, own_desk.prefix)
            revision = beside.publish(definitions(port))
            if is_compacted:
                own_desk.cluster.etcdctl("compact", str(revision))
            own_desk.namespace.run("ss", "-K", "dport", "=", ":2379")
            own_desk.namespace.run("ip", "link", "set", "eth9", "up")
            wait_for_port(source, port, 2 * SOON)


@pytest.mark.long
def test_a_member_that_is_cut_off(own_desk: Desk) -> None:
    """A connection that is half dead is noticed, and another member asked."""
    with followed(own_desk) as source:
        asked = asked_member(own_desk)
        own_desk.cluster.network.pull(asked.address)
        own_desk.publish(definitions(81))
        wait_for_port(source, 81, 30.0)
        own_desk.cluster.network.put_back(asked.address)


@pytest.mark.long
def test_a_member_that_lost_the_others(own_desk: Desk) -> None:
    """It still answers, but knows nothing new: its watch ends, and a member of the majority is asked."""
    with followed(own_desk) as source:
        asked = asked_member(own_desk)
        others = [m for m in own_desk.cluster.members if m is not asked]
        for other in others:  # the host can still reach all three
            asked.namespace.ip(f"route add blackhole {other.address}/32")
            other.namespace.ip(f"route add blackhole {asked.address}/32")
        beside = Desk(own_desk.cluster, others[0].namespace, own_desk.prefix)
        beside.publish(definitions(81))
        wait_for_port(source, 81, 3 * SOON)


@pytest.mark.long
def test_a_store_that_is_away_for_long_is_told(own_desk: Desk) -> None:
    """The reconciler keeps the known definitions; the source says that it can't be reached, and why."""
    own_desk.publish(definitions(80))
    source = own_desk.source("sg-web")
    woken = threading.Event()
    with own_desk.namespace.entered(), source.watch(woken.set):
        wait_for_port(source, 80)
        woken.clear()
        for member in own_desk.cluster.members:
            member.kill()
        assert woken.wait(GRACE_SECONDS * 3)
        with pytest.raises(SourceUnavailableError, match="connection refused"):
            source.fetch()
        own_desk.cluster.start()
        wait_for_port(source, 80, 60.0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(min_value=1, max_value=9), st.integers(0, 3)),
        st.tuples(st.just("large"), st.integers(min_value=1, max_value=9), st.integers(130, 140)),
        st.tuples(st.just("cut"), st.just(0), st.just(0)),
        st.tuples(st.just("compact"), st.just(0), st.just(0)),
        st.tuples(st.just("announce"), st.integers(min_value=1, max_value=9), st.just(0)),
        st.tuples(st.just("delete"), st.just(0), st.integers(0, 3)),
    ),
    min_size=1,
    max_size=6,
)


@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps)
@pytest.mark.long
def test_a_follower_ends_where_the_store_does(
    cluster: Cluster, namespace: Namespace, sequence: list[tuple[str, int, int]]
) -> None:
    """After any sequence of publications, deletions, announcements, lost connections and compactions."""
    desk = Desk(cluster, namespace)
    source = desk.source("sg-web")
    revision = desk.publish(definitions(80))
    port, there, announced = 80, set(addresses(2)), set[str]()
    with namespace.entered(), source.watch(lambda: None):
        for step, number, members in sequence:
            match step:
                case "publish" | "large":
                    revision = desk.publish(definitions(number, members))
                    port, there = number, set(addresses(members))
                case "cut":
                    namespace.run("ss", "-K", "dport", "=", ":2379")
                case "delete":  # by hand, without a marker
                    desk.write(DeleteKey(desk.layout.key("members", "sg-app", f"eni-{members}")))
                    there.discard(addresses(members + 1)[-1])
                case "compact":
                    with suppress(CommandError):  # it was before
                        cluster.etcdctl("compact", str(revision), through=[cluster.leader()])
                case _:
                    lease = cluster.etcdctl("lease", "grant", "600").split()[1]
                    key = desk.layout.key("members", "sg-app", f"h-{number}")
                    desk.write(PutKey(key, b'{"addresses":["10.2.0.%d"]}' % number, int(lease, 16)))
                    announced.add(f"10.2.0.{number}")
        wanted = desk.source("sg-web").fetch().documents

        def has_ended_there() -> bool:
            with suppress(SourceUnavailableError):  # the very first connection may have been cut
                return source.fetch().documents == wanted
            return False

        wait_for(has_ended_there, "what a new follower sees")
        snapshot = source.fetch().snapshot
    (rule,) = snapshot.group_by_id["sg-web"].rules
    assert rule.ports == PortSet.of((port, port))
    assert {str(one) for one in snapshot.group_by_id["sg-app"].member_addresses} == there | announced
