"""The privilege boundary on the kernel: the contract over the channel, and each way to end."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from integration.lab import wait_for
from integration.namespaces import Namespace
from integration.service import is_alive
from sgagent.core.errors import ApplierLostError, KernelRefusedError, NotPermittedError
from sgagent.core.evaluate import Packet
from sgagent.core.model import Direction, Family
from sgagent.dataplane import applier_protocol
from sgagent.dataplane.applier_protocol import LONGEST_ANSWER, LONGEST_REQUEST, Reply, Verb
from sgagent.dataplane.dataplane import ApplierDataplane, LibnftablesDataplane
from sgagent.dataplane.generation import RulesetChange
from sgagent.dataplane.privsep import Applier, fork_applier, watching_notices
from sgagent.nft import ruleset as r, transactions as p
from sgagent.nft.ruleset import Interval, Match, Rule, SetMark
from sgagent.nft.transactions import Plan
from sgagent.ports import Observed
from tests.contract import tables
from tests.contract.dataplane import DataplaneContract, bring
from tests.patience import PATIENCE

ALL_BITS = 0xFFFFFFFF
MASK = 0xFFFF0000
NET_ADMIN = 1 << 12
_SYSCALL = ctypes.CDLL(None, use_errno=True).syscall
_PIDFD_GETFD = 438
_HEADER = struct.Struct(">BI")
"""Of a message: its kind, and the length of its content."""


@pytest.fixture(params=[True, False], ids=["owned", "one-shot"])
def applier(
    namespace: Namespace,  # noqa: ARG001 - the thread is in it
    request: pytest.FixtureRequest,
) -> Iterator[Applier]:
    """Fork an applier that serves the namespace."""
    with fork_applier(owned=getattr(request, "param", True)) as made:
        yield made


@pytest.fixture
def dataplane(applier: Applier) -> ApplierDataplane:
    """Begin with an applier that may change every bit of a mark."""
    return ApplierDataplane(applier.channel, mask=ALL_BITS)


@pytest.fixture
def owner(namespace: Namespace) -> Iterator[Applier]:  # noqa: ARG001 - the thread is in it
    """Fork an applier as the daemon does."""
    with fork_applier(owned=True) as made:
        yield made


class TestApplierDataplane(DataplaneContract):
    """The contract, on the kernel, over the boundary."""


def test_both_sides_see_the_same(namespace: Namespace, owner: Applier) -> None:
    """A table applied over the channel stands, is owned by the applier, and is named as its."""
    plane = ApplierDataplane(owner.channel, mask=ALL_BITS)
    bring(plane, tables.WHOLE)
    assert "flags owner" in namespace.nft("list table inet sgagent")
    namespace.nft("flush", "ruleset")
    onlooker = LibnftablesDataplane(owned=False)
    assert onlooker.observe() == Observed(ruleset=tables.WHOLE)
    with pytest.raises(NotPermittedError, match=rf"process {owner.pid} \(sgagent-applier\)"):
        onlooker.refuse_another_owner()
    onlooker.close()


def test_a_start_waits_for_an_owner_that_dies(namespace: Namespace) -> None:
    """A table belongs to a killed applier until the kernel has closed its sockets; then it is taken up."""
    with fork_applier(owned=True) as first:
        plane = ApplierDataplane(first.channel, mask=ALL_BITS)
        bring(plane, tables.WHOLE)
        os.kill(first.pid, signal.SIGSTOP)
        with fork_applier(owned=True) as second, ThreadPoolExecutor(1) as pool:
            successor = ApplierDataplane(second.channel, mask=ALL_BITS)
            begun = threading.Event()

            def start() -> Observed:
                begun.set()
                successor.refuse_another_owner()
                return successor.observe()

            started = pool.submit(start)
            assert begun.wait(10)
            os.kill(first.pid, signal.SIGKILL)
            assert started.result(10) == Observed(ruleset=tables.WHOLE)
            assert "flags owner" in namespace.nft("list table inet sgagent")
            namespace.nft("flush", "ruleset")
            assert successor.observe() == Observed(ruleset=tables.WHOLE)


def test_a_start_waits_for_a_fork_of_a_dead_owner(namespace: Namespace, owner: Applier) -> None:
    """A table belongs to a killed applier as long as a process that it forked has the socket open."""
    bring(ApplierDataplane(owner.channel, mask=ALL_BITS), tables.WHOLE)
    with ExitStack() as fork, closing(LibnftablesDataplane(owned=True)) as successor:
        for descriptor in descriptors_of(owner.pid):
            fork.callback(os.close, descriptor)
        os.kill(owner.pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(owner.pid), "the applier to end")
        assert "flags owner" in namespace.nft("list table inet sgagent")
        with ThreadPoolExecutor(1) as pool:
            started = pool.submit(successor.refuse_another_owner)
            with pytest.raises(TimeoutError):
                started.result(0.2)
            fork.close()
            started.result(10)


def descriptors_of(pid: int) -> list[int]:
    """Return a process's open files as descriptors of this process, as a fork of it has them."""
    process = os.pidfd_open(pid)
    try:
        numbers = [int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()]
        return [_SYSCALL(_PIDFD_GETFD, process, number, 0) for number in numbers]
    finally:
        os.close(process)


def test_the_applier_has_one_privilege(owner: Applier) -> None:
    """It may change the network, and nothing else; nobody of its user may look into it."""
    ApplierDataplane(owner.channel, mask=MASK)
    lines = Path(f"/proc/{owner.pid}/status").read_text().splitlines()
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert fields["Name"] == "sgagent-applier"
    assert {int(fields[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Bnd")} == {NET_ADMIN}
    assert {int(fields[f"Cap{name}"], 16) for name in ("Inh", "Amb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    opened = {int(path.name) for path in Path(f"/proc/{owner.pid}/fd").iterdir()}
    assert len(opened) == 3 + 2 + 3  # standard files, its ends of the sockets, and three for netlink
    os.kill(owner.pid, signal.SIGTERM)
    os.kill(owner.pid, signal.SIGINT)
    os.kill(owner.pid, signal.SIGHUP)
    applier_protocol.send(owner.channel, Verb.READ_GENERATION, b"")
    answer = applier_protocol.receive(owner.channel, LONGEST_ANSWER)
    assert answer is not None
    assert answer[0] == Reply.DONE


def test_an_applier_ends_with_the_agent(namespace: Namespace, owner: Applier) -> None:
    """When the channel is closed it lets the table go, which stays and can be taken up."""
    plane = ApplierDataplane(owner.channel, mask=ALL_BITS)
    bring(plane, tables.WHOLE)
    plane.close()
    wait_for(lambda: not is_alive(owner.pid), "the applier to end")
    with fork_applier(owned=True) as another:
        second = ApplierDataplane(another.channel, mask=ALL_BITS)
        assert second.observe() == Observed(ruleset=tables.WHOLE)
        assert "flags owner" in namespace.nft("list table inet sgagent")
        namespace.nft("flush", "ruleset")
        assert second.observe() == Observed(ruleset=tables.WHOLE)


def test_a_killed_applier_is_noticed_at_once(owner: Applier) -> None:
    """Its end is heard without asking, and every call says so from then on."""
    plane = ApplierDataplane(owner.channel, mask=ALL_BITS)
    ended = threading.Event()
    with watching_notices(owner.notices, lambda _: None, ended.set):
        os.kill(owner.pid, signal.SIGKILL)
        assert ended.wait(5.0 * PATIENCE)
    for _ in range(2):
        with pytest.raises(ApplierLostError):
            plane.observe()


def test_how_an_applier_ended_is_known(owner: Applier) -> None:
    """The signal that killed it is named, as often as somebody asks, and the context is left as ever."""
    os.kill(owner.pid, signal.SIGKILL)
    for _ in range(2):
        assert owner.end_in_words() == "was killed by signal 9 (Killed)"


def test_a_process_that_has_listed_leaves_nothing_behind(owner: Applier) -> None:
    """The next request waits for it, whatever is asked for, so that no zombie stays."""
    plane = ApplierDataplane(owner.channel, mask=ALL_BITS)
    bring(plane, tables.WHOLE)
    with plane.open_listing() as listing, listing.makefile("rb") as whole:
        assert len(children_of(owner.pid)) == 1
        whole.read()
    wait_for(lambda: not any(map(is_alive, children_of(owner.pid))), "the process to end")
    plane.read_counters()
    assert children_of(owner.pid) == []


def children_of(pid: int) -> list[int]:
    """Return the process ids of a process's children, zombies too."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_applier_that_hangs_is_given_up(owner: Applier) -> None:
    """A call ends when its time is over, and a late answer is never taken for that to another question."""
    plane = ApplierDataplane(owner.channel, mask=ALL_BITS, longest_call_seconds=0.2)
    os.kill(owner.pid, signal.SIGSTOP)
    with pytest.raises(ApplierLostError, match="does not answer"):
        plane.observe()
    os.kill(owner.pid, signal.SIGCONT)
    with pytest.raises(ApplierLostError, match="does not answer"):
        plane.read_counters()


@pytest.mark.usefixtures("namespace")
def test_an_applier_outlives_no_parent() -> None:
    """It ends with the process that forked it, although somebody else still has the channel."""
    told, tells = os.pipe()
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    parent = os.fork()
    if parent == 0:
        made = fork_applier(owned=True)
        socket.send_fds(theirs, [b"x"], [made.channel.fileno()])
        os.write(tells, str(made.pid).encode())
        signal.pause()
        os._exit(0)
    pid = int(os.read(told, 20))
    _, [number], _, _ = socket.recv_fds(ours, 1, 1)
    assert is_alive(pid)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    wait_for(lambda: not is_alive(pid), "the applier to end with its parent")
    for descriptor in (number, told, tells):
        os.close(descriptor)
    ours.close()
    theirs.close()


NO_REQUESTS: tuple[tuple[int, bytes], ...] = (
    (0, b""),
    (255, b""),
    (Verb.BEGIN, applier_protocol.encode(0)),
    (Verb.BEGIN, b""),
    (Verb.APPLY, b""),
    (Verb.APPLY, b'[false,{"FlushRuleset":[]}]'),
    (Verb.APPLY, b'[false,{"Delete":["table","other"]}]'),
    (Verb.APPLY, b'[false,{"AddTable":[]},{"AddRule":["a",{"Rule":[[{"SetMark":[0,0]}]]}]}]'),
    (Verb.CLEAR_MARKS, b""),
    (Verb.CLEAR_MARKS, applier_protocol.encode(1)),
    (Verb.FIND_SESSIONS, b""),
    (Verb.FIND_SESSIONS, bytes(10)),
    (Verb.FIND_SESSIONS, applier_protocol.encode([Direction.INGRESS, Family.IPV4, 6, 1 << 32, 1, 1, 1])),
    (Verb.END_SESSION, applier_protocol.encode(0, bytes(48).hex())),
    (Verb.BEGIN_ENTRIES, b""),
    (Verb.NEXT_ENTRIES, b""),
    (Verb.END_ENTRIES, b""),
    (Verb.END_ENTRIES, applier_protocol.encode(1)),
    (Verb.RESTORE_ENTRY, applier_protocol.encode(2, "")),
    (Verb.END_SESSION, applier_protocol.encode(2, bytes(49).hex())),
    (Verb.ALLOW_LOG, applier_protocol.encode(1 << 16)),
)


@pytest.mark.parametrize(("kind", "content"), NO_REQUESTS)
def test_no_request_is_refused(namespace: Namespace, owner: Applier, kind: int, content: bytes) -> None:
    """Nothing is done, other tables stand, and the applier serves on."""
    namespace.nft("add table inet other")
    plane = ApplierDataplane(owner.channel, mask=MASK)
    bring(plane, tables.EMPTY)
    owner.channel.sendall(_HEADER.pack(kind, len(content)) + content)
    answer = applier_protocol.receive(owner.channel, LONGEST_ANSWER)
    assert answer is not None
    assert answer[0] == Reply.REFUSED
    assert applier_protocol.decode(answer[1])[0] == "malformed"
    assert plane.observe() == Observed(ruleset=tables.EMPTY)
    assert "table inet other" in namespace.nft("list", "tables")


def test_nothing_is_done_before_the_beginning(owner: Applier) -> None:
    """Which bits are the agent's has to be said first."""
    for verb in Verb:
        if verb is not Verb.BEGIN:
            applier_protocol.send(owner.channel, verb, b"")
            answer = applier_protocol.receive(owner.channel, LONGEST_ANSWER)
            assert answer is not None
            assert applier_protocol.decode(answer[1])[:2] == ("malformed", "before the beginning")


def test_what_is_no_message_ends_the_applier(owner: Applier) -> None:
    """A length beyond all bounds is not waited for, and takes no memory."""
    owner.channel.sendall(_HEADER.pack(Verb.APPLY, LONGEST_REQUEST + 1))
    wait_for(lambda: not is_alive(owner.pid), "the applier to end")


def test_bits_of_others_can_not_be_set(owner: Applier) -> None:
    """A plan that changes other bits of the mark than was said is refused whole."""
    plane = ApplierDataplane(owner.channel, mask=MASK)
    evil = Rule((Match(r.CT_MARK, (Interval.single(0),)), SetMark(keep=0xFFFFFFFF, put=1)))
    chain = r.Chain(name="a")
    with pytest.raises(KernelRefusedError, match="takes no such request"):
        plane.apply(Plan((p.AddTable(), p.AddChain(chain), p.AddRule("a", evil))))
    assert plane.observe() == Observed(ruleset=None)


def test_sessions_are_found_through_the_applier(owner: Applier) -> None:
    """A session that nobody follows is none, and a packet without ports has none."""
    plane = ApplierDataplane(owner.channel, mask=MASK)
    packet = Packet(
        interface="eth0",
        direction=Direction.INGRESS,
        family=Family.IPV4,
        source=0xC0000201,
        destination=0xC0000202,
        protocol=6,
        source_port=1024,
        destination_port=80,
    )
    assert plane.sessions.find_sessions([packet]) == [None]


def test_changes_by_others_are_told_with_who_made_them(namespace: Namespace, owner: Applier) -> None:
    """From the first table on, with its process, and whether it concerned our table; ours are no news."""
    plane = ApplierDataplane(owner.channel, mask=ALL_BITS)
    heard: list[RulesetChange] = []
    with watching_notices(owner.notices, heard.append, lambda: None):
        namespace.nft("add table inet earlier")
        namespace.nft("add table inet sgagent")  # without "persist", so nobody can own it
        plane.observe()
        namespace.run("nft", "add chain inet sgagent evil")
        bring(plane, tables.WHOLE)
        namespace.run("nft", "add table inet other")
        namespace.run("nft", "flush ruleset")
        wait_for(lambda: len(heard) >= 3, "three changes to be told")
    assert [change.process_name for change in heard] == ["nft"] * 3
    assert [change.is_of_table for change in heard] == [True, False, True]
    assert len({change.process_id for change in heard}) == 3


def test_a_table_that_another_makes_first_is_found(namespace: Namespace, owner: Applier) -> None:
    """Though nobody hears of it."""
    plane = ApplierDataplane(owner.channel, mask=ALL_BITS)
    assert plane.observe() == Observed(ruleset=None)
    namespace.nft("add table inet sgagent")
    assert plane.observe() == Observed(ruleset=r.Ruleset())
    namespace.nft("delete table inet sgagent")
    assert plane.observe() == Observed(ruleset=None)


def test_changes_of_other_tables_cost_no_listing(namespace: Namespace, owner: Applier) -> None:
    """An observation of our table holds until somebody changes it, or may have."""
    namespace.nft("add table inet sgagent")
    plane = ApplierDataplane(owner.channel, mask=ALL_BITS)
    bring(plane, tables.WHOLE)
    seen = plane.observe()
    namespace.nft("add table inet other { chain c { }; }")
    namespace.nft("delete table inet other")
    assert plane.observe() is seen
    bring(plane, tables.ONE_MEMBER_LESS)
    worked_out = plane.observe()
    namespace.nft("add table ip sgagent")
    assert plane.observe() is worked_out
    namespace.nft("flush chain inet sgagent rule/eth0/web")
    assert plane.observe().ruleset != tables.ONE_MEMBER_LESS
    bring(plane, tables.ONE_MEMBER_LESS)
    assert plane.observe() == Observed(ruleset=tables.ONE_MEMBER_LESS)


UNREADABLE = (
    b'counter evil { comment "\xff" ; }',
    b'quota evil { over 5 mbytes; comment "\xff" ; }',
    b'chain ingress/eth0 { iifname "\xff" accept; }',
)
"""What libnftables can't list: it ends a process that tries."""


@pytest.mark.parametrize("content", UNREADABLE)
def test_what_libnftables_cannot_list_goes(namespace: Namespace, owner: Applier, content: bytes) -> None:
    """It is read all the same, and the next plan takes it away."""
    plane = ApplierDataplane(owner.channel, mask=ALL_BITS)
    namespace.nft("add table inet sgagent")
    bring(plane, tables.WHOLE)
    text = b"table inet sgagent {\n" + content + b"\n}\n"
    argv = ["ip", "netns", "exec", namespace.name, "nft", "-f", "-"]
    subprocess.run(argv, input=text, check=True)
    assert plane.observe() != Observed(ruleset=tables.WHOLE)
    bring(plane, tables.WITHOUT_SSH)
    assert plane.observe() == Observed(ruleset=tables.WITHOUT_SSH)
    onlooker = LibnftablesDataplane(owned=False)
    assert onlooker.observe() == Observed(ruleset=tables.WITHOUT_SSH)
    onlooker.close()


@pytest.mark.parametrize("applier", (False,), indirect=True, ids=("one-shot",))
@pytest.mark.parametrize("kind", ("chain", "set"))
def test_an_empty_name_is_removed(namespace: Namespace, dataplane: ApplierDataplane, kind: str) -> None:
    """The kernel and libnftables allow it in JSON."""
    bring(dataplane, tables.WHOLE)
    added = {"family": "inet", "table": "sgagent", "name": "", **({"type": "mark"} if kind == "set" else {})}
    argv = ["ip", "netns", "exec", namespace.name, "nft", "--json", "--file", "-"]
    subprocess.run(argv, input=json.dumps({"nftables": [{"add": {kind: added}}]}), text=True, check=True)
    bring(dataplane, tables.WITHOUT_SSH)
    assert dataplane.observe() == Observed(ruleset=tables.WITHOUT_SSH)


def test_a_listing_that_could_not_begin_is_no_obstacle(dataplane: ApplierDataplane, applier: Applier) -> None:
    """The process that listed before is ended once: by then its number may be another process's."""
    bring(dataplane, tables.WHOLE)
    with dataplane.open_listing() as listing:
        assert listing.makefile("rb").read(1) == b"+"
    before = resource.prlimit(applier.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(applier.pid, resource.RLIMIT_NOFILE, (2, before[1]))  # enough to wait for
    with pytest.raises(OSError, match="Too many open files"):
        dataplane.open_listing()
    resource.prlimit(applier.pid, resource.RLIMIT_NOFILE, before)
    with dataplane.open_listing() as listing:
        assert listing.makefile("rb").read(1) == b"+"
