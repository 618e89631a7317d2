"""Faults of an agent and its host, one at a time, and the time until each is repaired.

A fault strikes an agent that runs under traffic, as often as it is tried, and sees to it itself that the
agent is as it was before: it starts a daemon that ended, as a service manager would, and plugs in what it
unplugged.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from integration.agent_under_traffic import HOST, HOST6, AgentUnderTraffic
from integration.booted_agent import BootedService
from integration.lab import PEER_MAC, LabError, wait_for
from integration.namespaces import CommandError, network_namespace, run
from integration.trials import kill_in_a_trial

Strike = Callable[[AgentUnderTraffic], float]
"""Makes it happen once, and returns the seconds until all was as before; 0 if nothing was ever otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong."""

    name: str
    strike: Strike
    tries: int
    """How often, for the table."""

    quick_tries: int = 1
    """How often in the tests of every day; those of the units hang a daemon too."""

    configuration: str = ""
    is_booted: bool = False
    """Whether it takes a machine with systemd, which ``configuration`` and ``owned`` say nothing about."""

    owned: bool = True
    """Whether the agent may own its table."""

    may_leak: bool = False
    """Whether there is a time in which others have opened the host, and nobody could keep them from it."""

    may_keep_out: bool = False
    """Whether there is a time in which new sessions are not let in that should be."""

    link_stays: bool = True
    """Whether the link is there and judged all the time."""

    may_miscount: bool = False
    """Whether there is a time in which nothing is judged, or counters go that the agent has not read yet."""

    around: Callable[[AgentUnderTraffic], contextlib.AbstractContextManager[None]] | None = None
    """What is set up before the first try and taken down behind the last."""


def kill_the_agent(agent: AgentUnderTraffic) -> float:
    """Kill it anywhere in an apply; another is started at once."""
    agent.change_policy()
    agent.a_moment(_AN_APPLY_SECONDS)
    began = perf_counter()
    agent.service.kill()
    agent.service.start()
    return perf_counter() - began


_AN_APPLY_SECONDS = 0.25
"""From a renamed file to the end of the step that it leads to."""


def kill_the_applier(agent: AgentUnderTraffic) -> float:
    """Kill the process that holds the privilege anywhere in an apply; the agent ends with it."""
    agent.change_policy()
    agent.a_moment(_AN_APPLY_SECONDS)
    began = perf_counter()
    run("kill", "-KILL", str(agent.service.applier_pid))
    if agent.service.wait_for_end() == 0:
        raise LabError("the agent ended as if all were well, without its applier")
    agent.service.start()
    return perf_counter() - began


def stop_and_start(agent: AgentUnderTraffic) -> float:
    """Stop it in order, and start it again behind a change."""
    began = perf_counter()
    if agent.service.stop() != 0:
        raise LabError("the agent did not end in order")
    agent.change_policy()
    agent.service.start()
    return perf_counter() - began


def hang(agent: AgentUnderTraffic) -> float:
    """Have the agent stand still, until the watchdog of systemd sees it."""
    began = perf_counter()
    if not isinstance(agent.service, BootedService):
        raise LabError("only systemd has a watchdog")
    agent.service.hang()
    return perf_counter() - began


def storm_of_reloads(agent: AgentUnderTraffic) -> float:
    """Send a hundred SIGHUP while policies change, and wait for the last."""
    mark = ""
    for number in range(100):
        if number % 20 == 0:
            mark = agent.change_policy()
        agent.service.reload()
        agent.a_moment(0.01)
    began = perf_counter()
    agent.wait_for_policy(mark)
    return perf_counter() - began


def edits_that_are_refused(agent: AgentUnderTraffic) -> float:
    """Try to change an owned table from outside, in every way; a flush of everything is silent."""
    namespace = agent.service.namespace
    for damage in (*_DELETIONS, *_edits(agent)):
        try:
            namespace.nft(damage)
        except CommandError as error:
            if "Operation not permitted" not in error.output:
                raise
            continue
        if damage != _FLUSH:
            raise LabError(f"the kernel let someone {damage}")
    return 0.0


def edits_that_are_healed(agent: AgentUnderTraffic) -> float:
    """Change, by chance in one of many ways, a table that can't be owned."""
    began = perf_counter()
    seconds = _heal(agent, agent.dice.choice(_edits(agent)))
    # Not so often that the agent takes it for a quarrel, and makes pauses.
    wait_for(lambda: perf_counter() > began + _PEACEFUL_SECONDS, "the next")
    return seconds


_PEACEFUL_SECONDS = 2.2


def table_that_goes(agent: AgentUnderTraffic) -> float:
    """Delete a table that is not owned, alone or with all others; from then on the agent would own it."""
    seconds = _heal(agent, agent.dice.choice(_DELETIONS))
    _give_up_ownership(agent)
    return seconds


def _heal(agent: AgentUnderTraffic, damage: str) -> float:
    """Do some damage to the table, and wait until it is as it was, but that it may be owned now."""
    before = _shape(agent.service.table())
    began = perf_counter()
    agent.service.namespace.nft(damage)
    wait_for(lambda: _shape(agent.service.table()) == before, f"{damage} to be mended")
    return perf_counter() - began


def _give_up_ownership(agent: AgentUnderTraffic) -> None:
    """Have the agent begin again with a table that it can't own, while nobody knocks."""
    agent.stream.stop()
    agent.service.stop()
    agent.service.namespace.nft("delete table inet sgagent")
    agent.service.namespace.nft("add table inet sgagent")
    agent.service.start()
    agent.stream.start()


_FLUSH = "flush ruleset"
_DELETIONS = (_FLUSH, "delete table inet sgagent")


def _edits(agent: AgentUnderTraffic) -> list[str]:
    """Return ways to damage the table as it stands."""
    parts = re.findall(r"^\t(chain|map) (\S+) {", agent.service.table(), re.MULTILINE)
    return [
        "insert rule inet sgagent prerouting accept",
        *(f"flush {kind} inet sgagent {name}" for kind, name in parts),
    ]


def _shape(listing: str) -> list[str]:
    """Return the words of a listing, sorted, as the kernel lists the elements of a map in no order.

    Left out is what counts, who owns it, and the generation, which a repair may raise.
    """
    return sorted(re.split(r"[\s,]+", _PASSING.sub("", listing)))


_PASSING = re.compile(r"packets \d+ bytes \d+|# progname.*|flags owner.*|.*ct mark.*|.*generation \d+.*")


def power_lost_while_writing(agent: AgentUnderTraffic) -> float:
    """Kill it, spoil a file of its state as a lost write would, and start it while its source is away."""
    agent.change_policy()
    agent.a_moment(_AN_APPLY_SECONDS)
    began = perf_counter()
    agent.service.kill()
    _spoil(agent)
    away = agent.service.documents.with_name("away")
    agent.service.documents.rename(away)
    agent.service.start()
    away.rename(agent.service.documents)
    agent.wait_for_policy(agent.change_policy())
    return perf_counter() - began


def _spoil(agent: AgentUnderTraffic) -> None:
    """Truncate, empty, fill with rubbish or remove a file of the state directory, by chance."""
    files = sorted(path for path in agent.service.state.rglob("*") if path.is_file() and _is_kept(path))
    victim = agent.dice.choice(files)
    content = victim.read_bytes()
    ways: tuple[Callable[[], object], ...] = (
        victim.unlink,
        lambda: victim.write_bytes(content[: agent.dice.randrange(max(len(content), 1))]),
        lambda: victim.write_bytes(b""),
        lambda: victim.write_bytes(agent.dice.randbytes(len(content))),
    )
    agent.dice.choice(ways)()


def _is_kept(path: Path) -> bool:
    """Tell whether a file is synced; counters are not, as a boot forgets them."""
    return not path.name.startswith("counters.json")


def garbage_from_the_source(agent: AgentUnderTraffic) -> float:
    """Deliver a document that can't be read, or none at all, and then a good one."""
    refused = len(agent.service.events("snapshot_refused"))
    if agent.dice.random() < 0.5:
        agent.service.define(agent.policy("sgr-cut-off")[: agent.dice.randrange(60, 600)] + "\n\x00: [")
        agent.service.wait_for_event("snapshot_refused", refused + 1)
    else:
        away = agent.service.documents.with_name("away")
        agent.service.documents.rename(away)
        wait_for(lambda: agent.service.metric("sgagent_source_up") == 0, "the source to be missed")
        away.rename(agent.service.documents)
    began = perf_counter()
    agent.wait_for_policy(agent.change_policy())
    return perf_counter() - began


def full_disk(agent: AgentUnderTraffic) -> float:
    """Enforce a change while nothing can be kept."""
    ballast = agent.service.state / "ballast"
    _fill(ballast)
    began = perf_counter()
    agent.wait_for_policy(agent.change_policy())
    seconds = perf_counter() - began
    ballast.unlink()
    return seconds


def _fill(ballast: Path) -> None:
    """Take all the room that is left."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextlib.contextmanager
def small_disk(agent: AgentUnderTraffic) -> Iterator[None]:
    """Give the state directory a file system of its own, with little room."""
    state = agent.service.state
    agent.service.stop()
    kept = state.with_name("kept")
    shutil.copytree(state, kept)
    run("mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", str(state))
    try:
        shutil.copytree(kept, state, dirs_exist_ok=True)
        agent.service.start()
        yield
        agent.service.stop()
    finally:
        run("umount", "--lazy", str(state))
    agent.service.start()


def renamed_link(agent: AgentUnderTraffic) -> float:
    """Rename the link that the policy is for, and rename it back."""
    host = agent.lab.host
    seconds = 0.0
    for old, new in (("eth0", "wan0"), ("wan0", "eth0")):
        host.ip(f"link set {old} name {new}")
        began = perf_counter()
        _wait_until_bound(agent, new)
        seconds = max(seconds, perf_counter() - began)
    return seconds


def unplugged_link(agent: AgentUnderTraffic) -> float:
    """Take the link out of the host and put it back, as one pulls a network card."""
    host = agent.lab.host
    with network_namespace("drawer") as drawer:
        host.ip(f"link set eth0 netns {drawer.name}")
        wait_for(lambda: not _is_bound(agent, "eth0"), "eth0 to be missed")
        drawer.ip(f"link set eth0 netns {host.name}")
    began = perf_counter()
    _plug_in(agent)
    _wait_until_bound(agent, "eth0")
    return perf_counter() - began


def _plug_in(agent: AgentUnderTraffic) -> None:
    """Give the link its addresses and routes back."""
    gateway, gateway6 = "172.31.254.2", "fe80::5347:0:2"
    agent.lab.host.ip(
        "link set eth0 up",
        "address add 172.31.254.1/30 dev eth0",
        "address add fe80::5347:0:1/64 dev eth0 nodad",
        f"neighbour replace {gateway} lladdr {PEER_MAC % 0} dev eth0 nud permanent",
        f"neighbour replace {gateway6} lladdr {PEER_MAC % 0} dev eth0 nud permanent",
        f"address add {HOST}/32 dev eth0",
        f"address add {HOST6}/128 dev eth0 nodad",
    )
    agent.lab.host.ip(f"route add default via {gateway} dev eth0 metric 100")
    agent.lab.host.ip(f"route add default via {gateway6} dev eth0 metric 100", version=6)


def _wait_until_bound(agent: AgentUnderTraffic, name: str) -> None:
    wait_for(lambda: _is_bound(agent, name), f"{name} to be judged")


def _is_bound(agent: AgentUnderTraffic, name: str) -> bool:
    """Tell whether a link is judged."""
    return agent.service.metric("sgagent_interface_info", interface=name, state="bound") == 1


_CLOSED = '[enforcement]\nunbound_interfaces = "closed"\n'

FAULTS = (
    Fault(name="kill -9 of the agent, anywhere in an apply", strike=kill_the_agent, tries=200, quick_tries=3),
    Fault(
        name="kill -9 of the applier, anywhere in an apply", strike=kill_the_applier, tries=200, quick_tries=2
    ),
    Fault(
        name="kill -9 of the agent anywhere in a trial, which then runs out or is confirmed",
        strike=kill_in_a_trial,
        tries=50,
        quick_tries=2,
    ),
    Fault(name="stop and start", strike=stop_and_start, tries=30),
    Fault(
        name="a loop that hangs, under systemd with a watchdog of 3 s",
        strike=hang,
        tries=10,
        quick_tries=0,
        is_booted=True,
    ),
    Fault(name="100 × SIGHUP while policies change", strike=storm_of_reloads, tries=20),
    Fault(name="edits and flushes of the table from outside, owned", strike=edits_that_are_refused, tries=50),
    Fault(
        name="an edit of the table from outside, where it can't be owned",
        strike=edits_that_are_healed,
        tries=100,
        quick_tries=2,
        owned=False,
        may_leak=True,
        may_keep_out=True,
        may_miscount=True,
    ),
    Fault(
        name="the table deleted, or all of the ruleset flushed, where it can't be owned",
        strike=table_that_goes,
        tries=50,
        owned=False,
        may_leak=True,
        may_miscount=True,
    ),
    Fault(
        name="power lost while state is written: a file truncated, empty, garbage or gone, the source away",
        strike=power_lost_while_writing,
        tries=50,
    ),
    Fault(name="a document that is garbage, a source that is away", strike=garbage_from_the_source, tries=50),
    Fault(name="disk full", strike=full_disk, tries=20, around=small_disk),
    Fault(
        name="link renamed, and back",
        strike=renamed_link,
        tries=20,
        configuration=_CLOSED,
        may_keep_out=True,
        link_stays=False,
    ),
    Fault(
        name="link unplugged, and plugged in again",
        strike=unplugged_link,
        tries=20,
        configuration=_CLOSED,
        may_keep_out=True,
        link_stays=False,
    ),
)
