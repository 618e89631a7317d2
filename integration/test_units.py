"""Egress rules for systemd's units on the wire: the control group of the socket decides (§13.3)."""

from __future__ import annotations

import itertools
import os
import select
import socket
import statistics
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from integration.lab import HOST_MAC, Lab, wait_for
from integration.service import NOTICED_SECONDS, Service, service_on
from sgagent.core.conditions import GroupPath
from sgagent.core.errors import KernelRefusedError
from sgagent.dataplane.generation import RulesetGeneration
from sgagent.dataplane.table import PrivilegedTable
from sgagent.nft import ruleset as nft
from sgagent.nft.diff import make_plan
from sgagent.nft.own_table import decode_ruleset
from sgagent.nft.transactions import AddRule, Flush, Plan
from tests.patience import PATIENCE

HOST, HOST6 = "10.0.0.11", "2001:db8::11"
FAR, FAR6 = "198.51.100.7", "2001:db8:7::7"
TCP_PORT, UDP_PORT, OPEN_PORT = 443, 53, 80
RESTARTS = 5
MANY_RESTARTS, FOLLOWED_EACH = 10_000, 20


def definitions(unit: str, forbidden: str) -> str:
    """Return definitions by which one unit may open sessions; to one port all but another one may."""
    rule, of_unit = "{direction: egress, authorization_object: any", f"local: {{unit: {unit}}}}}"
    return f"""
version: 1
security_groups:
  - security_group_id: sg-1
    rules:
      - {rule}, rule_id: sgr-tcp, policy: accept, protocol: tcp, port_range: {TCP_PORT}, {of_unit}
      - {rule}, rule_id: sgr-udp, policy: accept, protocol: udp, port_range: {UDP_PORT}, {of_unit}
      - {rule}, rule_id: sgr-not, policy: drop, protocol: udp, port_range: {OPEN_PORT},
         local: {{unit: {forbidden}}}}}
      - {rule}, rule_id: sgr-open, policy: accept, priority: 2, protocol: udp, port_range: {OPEN_PORT}}}
      - {rule}, rule_id: sgr-rest, policy: drop, priority: 3, protocol: all}}
network_interfaces:
  - {{network_interface_id: eni-1, mac_address: '{HOST_MAC % 0}', addresses: [{HOST}, '{HOST6}'],
     security_group_ids: [sg-1]}}
"""


def group_tree() -> Path:
    """Return where control groups of version 2 are mounted."""
    fields = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    found = next((one[4] for one in fields if "cgroup2" in one[one.index("-") :]), None)
    if found is None:
        pytest.skip("no control groups of version 2 are mounted")
    return Path(found)


class Units:
    """Two units of the test's own, in a slice of its own, and a group below one of them."""

    def __init__(self) -> None:
        """Start both."""
        name = f"sgagenttest{os.getpid()}"
        self.slice = group_tree() / f"{name}.slice"
        self.allowed, self.other = (self.slice / f"{name}-{one}.service" for one in ("a", "b"))
        self.below = self.allowed / "below"
        self.below.mkdir(parents=True)
        self.other.mkdir()

    @property
    def path(self) -> str:
        """Return the allowed one's path in the tree."""
        return f"/{self.allowed.relative_to(group_tree())}"

    def restart(self) -> None:
        """Make the allowed unit's group anew, as systemd does."""
        self.below.rmdir()
        self.allowed.rmdir()
        self.below.mkdir(parents=True)

    def stop_allowed(self) -> None:
        """Remove the group of the allowed unit."""
        self.below.rmdir()
        self.allowed.rmdir()

    def stop(self) -> None:
        """Remove all groups."""
        for one in (self.below, self.allowed, self.other, self.slice):
            with suppress(FileNotFoundError):
                one.rmdir()


@pytest.fixture
def units() -> Iterator[Units]:
    """Return running units, which are stopped in the end."""
    try:
        made = Units()
    except OSError as error:
        pytest.skip(f"no control groups can be made: {error}")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def agent(one_interface: Lab, units: Units, tmp_path: Path) -> Iterator[Service]:
    """Return an agent that is not started yet, on a host with an address of each family."""
    one_interface.add_host_addresses([HOST, HOST6])
    with service_on(one_interface.host, tmp_path) as made:
        made.verifies = True
        made.configure()
        made.define(definitions(units.allowed.name, units.other.name))
        yield made


_PORTS = itertools.cycle(range(10_000, 65_000))
"""Of sockets, each once in a while: one with the ends of another's session would be part of that."""


def made_in(lab: Lab, group: Path, far: str, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """Return a socket of the host that a process made in a control group, which has ended."""
    port = next(_PORTS)
    here, there = socket.socketpair()
    with here, there:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - the child
            status = 1
            with suppress(OSError), lab.host.entered():
                (group / "cgroup.procs").write_text(str(os.getpid()))
                family = socket.AF_INET if ip_address(far).version == 4 else socket.AF_INET6
                made = socket.socket(family, kind)
                made.bind((HOST if family == socket.AF_INET else HOST6, port))
                socket.send_fds(there, [b"."], [made.fileno()])
                status = 0
            os._exit(status)
        there.close()
        _, found, _, _ = socket.recv_fds(here, 1, 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    made = socket.socket(fileno=found[0])
    made.settimeout(NOTICED_SECONDS * PATIENCE)
    return made


@contextmanager
def sending(sender: socket.socket, far: str) -> Iterator[list[int]]:
    """Send a datagram each millisecond; the list has how many in the end, and how many left."""
    here, there = socket.socketpair()
    with here, there:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - the child
            here.close()
            sent = passed = 0
            while not select.select([there], [], [], 0.001)[0]:
                sent, passed = sent + 1, passed + leaves(sender, far)
            there.send(f"{sent} {passed}".encode())
            os._exit(0)
        there.close()
        counts: list[int] = []
        try:
            yield counts
        finally:
            here.shutdown(socket.SHUT_WR)
            counts += map(int, here.recv(100).split())
            os.waitpid(pid, 0)


def leaves(sender: socket.socket, far: str, port: int = UDP_PORT) -> bool:
    """Tell whether a datagram of a socket leaves."""
    try:
        return sender.sendto(b"x", (far, port)) > 0
    except PermissionError:
        return False


def may_send(lab: Lab, group: Path, far: str, port: int = UDP_PORT) -> bool:
    """Tell whether a datagram of a new socket of a group leaves."""
    with made_in(lab, group, far) as sender:
        return leaves(sender, far, port)


def may_connect(lab: Lab, group: Path, far: str, *, seconds: float) -> bool:
    """Tell whether a new socket of a group gets a TCP connection."""
    with lab.listen(lab.peer, far, TCP_PORT), made_in(lab, group, far, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        return client.connect_ex((far, TCP_PORT)) == 0


def asking_for(path: str, count: int = 1) -> nft.Ruleset:
    """Return a table with rules for a control group, in chains of their own."""
    asked = nft.Match(nft.SOCKET_GROUP, (GroupPath(path),))
    leaf = nft.Chain(name="rule/eth0/a", rules=(nft.Rule((nft.Accept(),)),))
    rule = nft.Rule((asked, nft.Goto(leaf.name)))
    asking = (nft.Chain(name=f"unit/eth0/{number:04}", rules=(rule,)) for number in range(count))
    return nft.Ruleset(chains=(leaf, *asking))


def test_a_kernel_without_the_match_takes_nothing_of_a_table(one_interface: Lab, units: Units) -> None:
    """Else a drop rule for a unit would drop nothing."""
    with one_interface.host.entered(), closing(PrivilegedTable(owned=False)) as table:
        table._asks_for_groups = False  # noqa: SLF001 - what the kernel of the tests would not answer
        with pytest.raises(KernelRefusedError, match="nft_compat, xt_cgroup"):
            table.apply(make_plan(asking_for(units.path), None))
        assert table.list_table().dump is None


@pytest.mark.parametrize("count", (1, 1_000))
def test_rules_for_a_unit_that_are_lost_are_added_alone(one_interface: Lab, units: Units, count: int) -> None:
    """By what the kernel shows, the table is as it was compiled, at first and after the repair.

    The repair is that of another agent, by a socket whose buffers nothing has enlarged. If the unit has
    stopped meanwhile, nothing is added.
    """
    wanted = asking_for(units.path, count)
    chains = wanted.chains[1:]
    lost = Plan(tuple(Flush("chain", one.name) for one in chains))
    added = tuple(AddRule(one.name, one.rules[0]) for one in chains)

    def shown(table: PrivilegedTable) -> nft.Ruleset:
        return decode_ruleset(table.list_table().dump or b"")[0]

    with one_interface.host.entered():
        with closing(PrivilegedTable(owned=True)) as table:
            assert table.can_ask_for_groups()
            table.apply(make_plan(wanted, None))
            assert shown(table) == wanted
            table.apply(lost)
        with closing(PrivilegedTable(owned=True)) as table:
            repair = make_plan(wanted, shown(table))
            assert repair.operations == added
            assert table.apply(repair).before is not None, "nobody else has changed anything"
            assert shown(table) == wanted
            table.apply(lost)
        units.stop_allowed()
        with closing(PrivilegedTable(owned=True)) as table:
            without = shown(table)
            table.apply(repair)
            assert shown(table) == without


def test_the_socket_s_unit_decides(agent: Service, one_interface: Lab, units: Units) -> None:
    """Over both families, with what is below it, whoever uses the socket; through restarts, with a proof."""
    lab = one_interface
    agent.start()
    own = group_tree()
    for far in (FAR, FAR6):
        places = (units.allowed, units.below, units.other, units.slice, own)
        assert [may_send(lab, one, far) for one in places] == [True, True, False, False, False]
        assert [may_send(lab, one, far, OPEN_PORT) for one in places] == [True, True, False, True, True]
        assert may_connect(lab, units.below, far, seconds=NOTICED_SECONDS * PATIENCE)
        assert not may_connect(lab, units.other, far, seconds=0.3)
    unit = f'"local": "unit {units.other.name}"'
    wait_for(lambda: unit in agent.command("denied", "--json").output, "a drop by the rule of the other unit")
    agent.wait_for_proof()
    assert agent.command("verify").status == 0
    query = f"explain egress --source {HOST} --destination {FAR} --protocol udp --port {UDP_PORT}".split()
    assert f"else accept by sgr-udp of sg-1 (priority 1, object any, unit {units.allowed.name})" in (
        agent.command(*query).output
    )
    assert agent.command(*query, "--unit", units.allowed.name).output.startswith("accept")
    assert agent.command(*query, "--unit", units.other.name).output.startswith("drop")
    old = made_in(lab, units.allowed, FAR)
    assert leaves(old, FAR)
    for _ in range(RESTARTS):
        units.restart()
        assert not may_send(lab, units.other, FAR)
        wait_for(lambda: may_send(lab, units.below, FAR), "the new group")
    generation = agent.generation()
    units.stop_allowed()
    wait_for(lambda: agent.generation() != generation, "that the unit has stopped")
    assert not leaves(old, FAR)
    agent.wait_for_proof()
    old.close()


@pytest.mark.long
def test_no_packet_is_judged_by_a_stale_group(
    agent: Service, one_interface: Lab, units: Units, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through restarts nothing of another unit passes, and nothing of a new group by an old group's rule.

    A restart is a group removed and made anew under its name. As long as the ruleset is the one from before
    it, its rule is for the group from before.
    """
    agent.start()
    early = stale = 0
    followed = list[float]()
    with one_interface.host.entered(), closing(RulesetGeneration()) as ruleset:

        def restart() -> tuple[bool, bool]:
            """Restart; tell whether a first packet leaves, and whether the agent has done nothing yet."""
            before = ruleset.read()
            units.restart()
            passes = may_send(one_interface, units.below, FAR)
            return passes, ruleset.read() == before

        with made_in(one_interface, units.other, FAR) as stranger, sending(stranger, FAR) as strangers:
            for number in range(MANY_RESTARTS):
                passes, is_early = restart()
                early, stale = early + is_early, stale + (passes and is_early)
                if number % FOLLOWED_EACH == 0:
                    new_passes = partial(may_send, one_interface, units.below, FAR)
                    followed.append(wait_for(new_passes, "the new group"))
    agent.wait_for_proof()
    sent, passed = strangers
    with capsys.disabled():
        middle, worst = statistics.median(followed), max(followed)
        print(
            f"\n  {MANY_RESTARTS:,} restarts: {passed} of {sent:,} packets of another unit passed, {stale} of"
            f" {early:,} of new groups before the agent; {len(followed)} groups were known after"
            f" {middle:.2f} s (median), {worst:.2f} s (worst)"
        )
    assert (passed, stale) == (0, 0)
    assert sent > MANY_RESTARTS
    assert early > MANY_RESTARTS // 2
