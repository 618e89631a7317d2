"""The units on a booted systemd: before the first packet, and at every end of the daemon (§9.2, §9.3)."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from integration.flood import flooding, watch, watched
from integration.lab import Lab, host_with_address, wait_for
from integration.machine import Machine, machine_in, why_not
from integration.namespaces import CommandError
from integration.service import definitions, lets_in

HOST, CLIENT = "10.0.0.11", "198.51.100.7"
WEB, SSH = "ingress accept 1 tcp 80 from 0.0.0.0/0", "ingress accept 1 tcp 22 from 0.0.0.0/0"
ONLY_WEB, WEB_AND_SSH = ((True, False), (True, True))
"""Whether a packet to port 80 gets in, and whether one to port 22 does."""

DAEMON, BOOT, METRICS = "sgagent.service", "sgagent-boot.service", "sgagent-metrics.socket"
DOCUMENT = "/etc/sgagent/groups.d/policy.yaml"
ONLY_NET_ADMIN, NOTHING = f"{1 << 12:016x}", f"{0:016x}"

NETWORK = """[Unit]
Description=What a network sees when it comes up
DefaultDependencies=no
After=network-pre.target
Before=sgagent.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'nft list table inet sgagent > /run/seen-by-network 2>&1 || :'
ExecStart=/bin/sh -c 'nft reset counters table inet testwatch > /run/passed-before 2>/dev/null || :'
[Install]
WantedBy=sysinit.target
"""
IMPATIENT = "[Service]\nWatchdogSec=3s\n"

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(bool(_reason := why_not()), reason=f"no machine can be booted: {_reason}"),
]


wire = pytest.fixture(scope="module")(host_with_address)


@pytest.fixture(scope="module")
def installed(wire: Lab) -> Iterator[Machine]:
    """Install a machine, once for all tests."""
    with machine_in(wire.host) as made:
        made.write("/etc/systemd/system/network-probe.service", NETWORK)
        made.write(f"/etc/systemd/system/{DAEMON}.d/impatient.conf", IMPATIENT)
        made.enable("network-probe.service")
        made.enable(DAEMON)
        yield made


@pytest.fixture
def machine(installed: Machine) -> Iterator[Machine]:
    """Switch on a machine on which the policy was enforced before, so that it is from the start."""
    installed.write(DOCUMENT, definitions(WEB))
    if not installed.is_on:
        installed.boot()
    installed.run("systemctl", "start", DAEMON)
    installed.run("systemctl", "reload", DAEMON)
    yield installed
    installed.path(DOCUMENT).unlink(missing_ok=True)


def seen_by_network(machine: Machine) -> str:
    """Return the table as it stood when the network came up."""
    return machine.path("/run/seen-by-network").read_text()


def standing(wire: Lab) -> bool:
    """Tell whether there is a table now."""
    return "table inet sgagent\n" in wire.host.nft("list", "tables")


def restarts(machine: Machine) -> int:
    """Return how often systemd started the daemon anew by itself."""
    return int(machine.show(DAEMON, "NRestarts"))


def wait_for_restart(machine: Machine, before: int) -> None:
    """Wait until the daemon was started anew and says that it is ready."""
    wait_for(lambda: restarts(machine) > before, "the daemon to be started anew")
    wait_for(lambda: machine.show(DAEMON, "ActiveState") == "active", "the daemon to be ready")


@pytest.mark.long
def test_a_new_machine_boots_open_and_is_then_judged(installed: Machine, wire: Lab) -> None:
    """Nothing was ever enforced, so the boot changes nothing; the daemon enforces its documents (§9.2)."""
    installed.write(DOCUMENT, definitions(WEB))
    installed.boot()
    assert "No such file" in seen_by_network(installed)
    assert "nothing was ever enforced" in installed.journal(BOOT)
    assert installed.show(BOOT, "Result") == "success"
    assert lets_in(wire) == ONLY_WEB


def test_the_units_have_no_faults(machine: Machine) -> None:
    """Systemd has nothing to say against them, and rates their exposure 1.5 at most, as they run."""
    assert machine.run("systemd-analyze", "verify", DAEMON, BOOT, METRICS) == ""
    for unit in (DAEMON, BOOT):
        rated = machine.run("systemd-analyze", "security", "--no-pager", "--threshold=15", unit)
        assert f"Overall exposure level for {unit}: 1." in rated


def capabilities(fields: Mapping[str, str]) -> set[str]:
    """Return the sets that decide about a process's permissions."""
    return {fields[f"Cap{name}"] for name in ("Prm", "Eff")}


def test_what_reads_has_no_privilege(machine: Machine) -> None:
    """The process that reads documents and listens may do nothing beyond any other user's."""
    main, applier = machine.main_pid(DAEMON), applier_pid(machine)
    agent, privileged = status_of(machine, main), status_of(machine, applier)
    user = machine.run("id", "--user", "sgagent").strip()
    assert user != "0"
    assert capabilities(agent) == {agent["CapAmb"]} == {NOTHING}
    assert capabilities(privileged) == {ONLY_NET_ADMIN}
    assert privileged["CapAmb"] == NOTHING
    for fields in (agent, privileged):
        assert set(fields["Uid"].split()) == {user}
        assert fields["CapBnd"] == ONLY_NET_ADMIN
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert privileged["Name"] == "sgagent-applier"
    assert machine.run("stat", "--format=%U %a", "/var/lib/sgagent").split() == ["sgagent", "700"]
    assert machine.run("stat", "--format=%U", "/etc/sgagent").split() == ["root"]


@pytest.mark.long
def test_the_doctor_looks_from_inside_of_the_unit(machine: Machine) -> None:
    """Whoever may ask the agent learns of other tables, which only its applier can read."""
    machine.run("nft", "add table inet other")
    machine.run("nft", "add chain inet other here { type filter hook input priority 0; }")
    machine.run("nft", "add rule inet other here ct mark set 7")
    asked = ("runuser", "-u", "sgagent", "--", "sgagent", "doctor", "--json")
    wait_for(
        lambda: "mark_writer" in {one["code"] for one in json.loads(machine.run(*asked))["findings"]},
        "the agent to see the rule",
    )
    found = json.loads(machine.run(*asked))
    assert {one["what"] for one in found["not_seen"]} <= _NOT_SEEN_BY_THE_UNIT
    machine.run("nft", "delete table inet other")


_NOT_SEEN_BY_THE_UNIT = {"legacy_tables", "transforms", "tcx", "containers", "namespaces"}


def applier_pid(machine: Machine) -> int:
    """Return the process id of the one that holds the privilege."""
    return int(children(machine, "sgagent-applier"))


def children(machine: Machine, name: str) -> str:
    """Return the process ids of the daemon's children of that name."""
    with contextlib.suppress(CommandError):  # there is none
        return machine.run("pgrep", "--parent", str(machine.main_pid(DAEMON)), "--exact", name).strip()
    return ""


def status_of(machine: Machine, pid: int) -> Mapping[str, str]:
    """Return the kernel's status of a process, by field."""
    lines = machine.run("cat", f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_page_is_there(machine: Machine, wire: Lab) -> None:
    """Inside the bounds of the unit the agent can look at definitions, drops and who listens."""
    assert lets_in(wire) == ONLY_WEB
    wait_for(lambda: f"{CLIENT} port" in page_of(machine), "the drop that the kernel told of")
    wait_for(lambda: "being inspected" not in page_of(machine), "the definitions to be inspected")
    page = page_of(machine)
    assert "Sessions judged" in page
    assert "nothing_listens" in page, "a finding that takes the kernel's list of sockets"
    assert "graph.svg" in page


def page_of(machine: Machine) -> str:
    """Return the agent's page."""
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9469/').read().decode())"
    return machine.run("/usr/bin/python3", "-c", ask)


@pytest.mark.long
def test_flows_are_written_where_the_unit_may(machine: Machine, wire: Lab) -> None:
    """To a file in its own directory of logs, or to the journal, by a process that holds no privilege."""
    configuration, written = "/etc/sgagent/sgagent.toml", machine.path("/var/log/sgagent/flows.log")
    try:
        for output in ("/var/log/sgagent/flows.log", "journal"):
            machine.write(configuration, f'[flow_log]\noutput = "{output}"\n')
            machine.run("systemctl", "restart", DAEMON)
            assert lets_in(wire) == ONLY_WEB
            wait_for(
                lambda: '"port": 22' in written.read_text() if written.exists() else False,
                "the drop to be in the file",
            )
        rights = machine.run("stat", "--format=%U %a", "/var/log/sgagent/flows.log")
        assert rights.split() == ["sgagent", "600"]
        wait_for(lambda: f"tcp 22 from {CLIENT}" in told(machine), "the drop to be in the journal")
    finally:
        machine.path(configuration).unlink()
        machine.run("systemctl", "restart", DAEMON)


def told(machine: Machine) -> str:
    """Return the flow log in the journal."""
    return machine.logged("--identifier=sgagent-flows")


@pytest.mark.long
def test_a_killed_proving_process_is_started_again_under_the_unit(machine: Machine) -> None:
    """Confined like the agent; the service goes on, and the next change is proved."""

    def is_proved() -> bool:
        return '"verified_outcome": "proved"' in machine.run("sgagent", "status", "--json")

    machine.write(DOCUMENT, definitions(WEB, SSH))  # the process of an earlier proof may have ended, idle
    wait_for(lambda: children(machine, "sgagent-prover") != "", "the process that proves", 60)
    wait_for(is_proved, "the first proof", 60)
    pid, before = int(children(machine, "sgagent-prover")), restarts(machine)
    prover = status_of(machine, pid)
    assert capabilities(prover) == {NOTHING}
    assert (prover["NoNewPrivs"], prover["Seccomp"]) == ("1", "2")
    machine.run("kill", "-KILL", str(pid))
    machine.write(DOCUMENT, definitions(WEB))
    wait_for(lambda: "verification_ended" in machine.journal(DAEMON), "the end to be noticed", 60)
    # The table that stood is proved all the while.
    wait_for(lambda: children(machine, "sgagent-prover") not in ("", str(pid)), "another process", 60)
    wait_for(is_proved, "the next proof", 60)
    assert restarts(machine) == before


@pytest.mark.long
def test_a_lost_applier_takes_the_agent_along(machine: Machine, wire: Lab) -> None:
    """The agent says so and ends, both are started anew, and the rules are in force all the while."""
    before = restarts(machine)
    machine.run("kill", "-KILL", str(applier_pid(machine)))
    assert lets_in(wire) == ONLY_WEB
    wait_for_restart(machine, before)
    assert "applier_lost" in machine.journal(DAEMON)
    machine.write(DOCUMENT, definitions(WEB, SSH))
    wait_for(lambda: lets_in(wire) == WEB_AND_SSH, "the change to be enforced")


def test_a_reload_returns_when_it_is_enforced(machine: Machine, wire: Lab) -> None:
    """Nothing has to be waited for after ``systemctl reload``."""
    assert lets_in(wire) == ONLY_WEB
    machine.write(DOCUMENT, definitions(WEB, SSH))
    machine.run("systemctl", "reload", DAEMON)
    assert lets_in(wire) == WEB_AND_SSH
    assert "reload_requested" in machine.journal(DAEMON)


@pytest.mark.long
def test_a_reload_that_is_refused_fails_and_says_why(machine: Machine, wire: Lab) -> None:
    """Errors, and a source without documents, leave the policy in force and the daemon as they are."""
    before = machine.main_pid(DAEMON)
    machine.write(DOCUMENT, definitions(WEB, SSH).replace("sg-1]", "sg-2]"))
    with pytest.raises(CommandError, match="failed") as refused:
        machine.run("systemctl", "reload", DAEMON)
    assert refused.value.status != 0
    shown = machine.run("systemctl", "status", "--no-pager", "--full", DAEMON)
    assert f"{DOCUMENT}:" in shown
    assert "a security group of the interface is not in the definitions" in shown
    machine.path(DOCUMENT).unlink()
    with pytest.raises(CommandError, match="failed"):
        machine.run("systemctl", "reload", DAEMON)
    assert "the previous rules stay active" in machine.journal(DAEMON)
    assert lets_in(wire) == ONLY_WEB
    assert (machine.show(DAEMON, "ActiveState"), machine.main_pid(DAEMON)) == ("active", before)
    machine.write(DOCUMENT, definitions(WEB, SSH))
    machine.run("systemctl", "reload", DAEMON)
    assert lets_in(wire) == WEB_AND_SSH


@pytest.mark.long
def test_a_command_says_how_to_start_what_is_stopped(machine: Machine) -> None:
    """The unit is there, and nobody needs a second agent beside it."""
    machine.run("systemctl", "stop", DAEMON)
    with pytest.raises(CommandError, match="start it with 'systemctl start sgagent'") as told:
        machine.run("sgagent", "status")
    assert told.value.status == 4
    assert "sgagent run" not in told.value.output


def test_a_killed_daemon_is_started_anew(machine: Machine, wire: Lab) -> None:
    """The rules are in force from the kill on, and the new daemon follows the documents."""
    before = restarts(machine)
    machine.run("kill", "-KILL", str(machine.main_pid(DAEMON)))
    assert lets_in(wire) == ONLY_WEB
    wait_for_restart(machine, before)
    assert lets_in(wire) == ONLY_WEB
    machine.write(DOCUMENT, definitions(WEB, SSH))
    wait_for(lambda: lets_in(wire) == WEB_AND_SSH, "the change to be enforced")


@pytest.mark.long
def test_a_daemon_that_hangs_is_started_anew(machine: Machine, wire: Lab) -> None:
    """The watchdog ends a daemon whose loop stands still; the rules are in force meanwhile."""
    before, hanging = restarts(machine), machine.main_pid(DAEMON)
    machine.run("kill", "-STOP", str(hanging))
    assert lets_in(wire) == ONLY_WEB
    wait_for_restart(machine, before)
    assert "Watchdog timeout" in machine.journal(DAEMON)
    assert machine.main_pid(DAEMON) != hanging
    assert lets_in(wire) == ONLY_WEB


def seconds_of_steps(machine: Machine) -> list[float]:
    """Return how long the kernel took for each version."""
    return [float(found) for found in re.findall(r"apply_seconds\W+([\d.]+)", machine.journal(DAEMON))]


@pytest.mark.long
def test_a_long_step_is_no_hang(machine: Machine, wire: Lab) -> None:
    """A policy whose step takes longer than ``WatchdogSec=`` is enforced, and nobody is started anew."""
    patient = machine.path(f"/etc/systemd/system/{DAEMON}.d/patient.conf")
    patient.write_text(IMPATIENT.replace("3s", "10s"))  # the definitions are parsed before they are announced
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", DAEMON)
    before = restarts(machine)
    many = [
        f"ingress accept 1 tcp {port} from 10.1.{port >> 8}.{port & 255}" for port in range(1_000, 41_000)
    ]
    try:
        machine.write(DOCUMENT, definitions(WEB, *many, SSH))
        wait_for(lambda: seconds_of_steps(machine)[-1] > 10.0, "a step longer than the watchdog's time", 60.0)
        assert restarts(machine) == before
        assert lets_in(wire) == WEB_AND_SSH
        machine.write(DOCUMENT, definitions(WEB))
        wait_for(lambda: lets_in(wire) == ONLY_WEB, "the rules to be taken out", 60.0)
        machine.run("sgagent", "reload")
    finally:
        machine.write(DOCUMENT, definitions(WEB))
        patient.unlink()
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", DAEMON)


@pytest.mark.long
def test_an_applier_that_hangs_is_started_anew(machine: Machine, wire: Lab) -> None:
    """The agent waits for it and feeds the watchdog no more, which ends both."""
    before, hanging = restarts(machine), applier_pid(machine)
    machine.run("kill", "-STOP", str(hanging))
    assert lets_in(wire) == ONLY_WEB
    wait_for_restart(machine, before)
    assert applier_pid(machine) != hanging
    assert lets_in(wire) == ONLY_WEB


def test_a_stop_leaves_the_rules(machine: Machine, wire: Lab) -> None:
    """Until ``sgagent flush`` takes them out, which the next start puts right."""
    machine.run("systemctl", "stop", DAEMON)
    assert machine.show(DAEMON, "Result") == "success"
    assert lets_in(wire) == ONLY_WEB
    machine.run("sgagent", "flush")
    assert not standing(wire)
    machine.run("systemctl", "start", DAEMON)
    assert lets_in(wire) == ONLY_WEB


def test_the_boot_command_leaves_the_daemons_table_alone(machine: Machine, wire: Lab) -> None:
    """It is refused while a daemon owns the table, and says who does."""
    with pytest.raises(CommandError, match=r"exit 5\nsgagent: .* is owned by process"):
        machine.run("sgagent", "boot")
    assert lets_in(wire) == ONLY_WEB


def test_the_policy_stands_before_the_network(machine: Machine, wire: Lab) -> None:
    """After a power cut, with the source gone, the last good policy is in force before anything comes up.

    Under a flood, no denied packet passes from there on, the daemon's taking over included. The wire of the
    bench is there before the boot: what passed before the policy shows that it can.
    """
    machine.power_off()
    machine.path(DOCUMENT).unlink()
    watch(wire)
    try:
        with flooding(wire):
            machine.boot()
            wait_for(lambda: machine.show(DAEMON, "ActiveState") == "active", "the daemon to be ready")
        seen = watched(wire)
    finally:
        wire.host.remove_table("testwatch")
    assert "counter rule/eth0/sgr-0" in seen_by_network(machine)
    assert machine.show(BOOT, "ActiveState") == "active"
    assert "enforcing" in machine.journal(BOOT)
    assert lets_in(wire) == ONLY_WEB
    assert machine.show("network-pre.target", "ActiveState") == "active"
    assert 0 < packets_before(machine, "leaked") < packets_before(machine, "sent")
    assert seen["leaked"] == 0
    assert seen["allowed"] > 0


def packets_before(machine: Machine, counter: str) -> int:
    """Return the watch's count when the network came up."""
    text = machine.path("/run/passed-before").read_text()
    return int(text.partition(f"counter {counter} {{")[2].split()[1])


@pytest.mark.long
def test_a_stop_of_the_unit_gives_up_what_was_not_confirmed(machine: Machine, wire: Lab) -> None:
    """Systemd ends all processes of the unit, and the one with the privilege waits for the other."""
    machine.write("/root/by-hand.yaml", definitions(WEB, SSH))
    machine.run("sgagent", "apply", "/root/by-hand.yaml", "--confirm-within", "1h")
    assert lets_in(wire) == WEB_AND_SSH
    machine.run("systemctl", "stop", DAEMON)
    assert machine.show(DAEMON, "Result") == "success"
    assert lets_in(wire) == ONLY_WEB
    assert '"reason": "stopped"' in machine.journal(DAEMON)


@pytest.mark.long
def test_a_power_cut_gives_up_what_was_not_confirmed(machine: Machine, wire: Lab) -> None:
    """The boot enforces the last confirmed policy, before the network is up; the daemon says so."""
    machine.write("/root/by-hand.yaml", definitions(WEB, SSH))
    machine.run("sgagent", "apply", "/root/by-hand.yaml", "--confirm-within", "1h")
    assert lets_in(wire) == WEB_AND_SSH
    machine.power_off()
    machine.boot()
    assert "counter rule/eth0/sgr-0" in seen_by_network(machine)
    assert "counter rule/eth0/sgr-1" not in seen_by_network(machine)
    assert lets_in(wire) == ONLY_WEB
    assert '"reason": "rebooted"' in machine.journal(DAEMON)


def test_a_boot_enforces_what_was_put_in_force_by_hand(machine: Machine, wire: Lab) -> None:
    """The confirmed policy stays, the source's version is held back, and the mode is the ordered one."""
    machine.write("/root/by-hand.yaml", definitions(WEB, SSH))
    machine.run("sgagent", "apply", "/root/by-hand.yaml", "--confirm-within", "1h")
    machine.run("sgagent", "confirm")
    machine.power_off()
    machine.boot()
    assert "counter rule/eth0/sgr-1" in seen_by_network(machine)
    assert lets_in(wire) == WEB_AND_SSH
    machine.run("sgagent", "rollback")
    assert lets_in(wire) == ONLY_WEB
    machine.run("sgagent", "mode", "observe")
    machine.power_off()
    machine.boot()
    assert lets_in(wire) == (True, True)
    assert "observing" in machine.run("sh", "-c", "sgagent status || :")
    machine.run("sgagent", "mode", "default")
    assert lets_in(wire) == ONLY_WEB


@pytest.mark.long
def test_the_policy_stands_on_a_link_that_is_yet_to_come(machine: Machine, wire: Lab) -> None:
    """A link that was found by its MAC is judged by its name before it exists, and before the network."""
    machine.shut_down()
    wire.host.ip("link set eth0 down", "link set eth0 name late0")
    try:
        machine.boot()
        seen = seen_by_network(machine)
    finally:
        wire.host.ip("link set late0 down", "link set late0 name eth0")
        wire.set_up_again("eth0")
    assert "counter rule/late0/sgr-0" in seen
    assert "counter rule/eth0/sgr-0" in seen


@pytest.mark.long
def test_lost_definitions_close_the_machine(machine: Machine, wire: Lab) -> None:
    """A host that enforced and can't read its kept state lets nothing in on the named links (§9.2)."""
    machine.power_off()
    for kept in state_files(machine):
        kept.write_text("scribble")
    machine.path(DOCUMENT).unlink()
    machine.write(
        "/etc/sgagent/sgagent.toml", '[[interface]]\nname = "eth0"\nsecurity_group_ids = ["sg-1"]\n'
    )
    try:
        machine.boot()
        assert lets_in(wire) == (False, False)
        assert "closed, as no policy is loaded: eth0" in machine.journal(BOOT)
    finally:
        machine.path("/etc/sgagent/sgagent.toml").unlink()


@pytest.mark.long
def test_a_change_that_would_cut_a_login_waits_over_a_boot(machine: Machine, wire: Lab) -> None:
    """The journal notifies terminals; the boot unit enforces the policy in force, and apply ends the wait."""
    configuration = "/etc/sgagent/sgagent.toml"
    machine.write(configuration, "[enforcement]\nhold_lockout_seconds = 3600\n")
    machine.write(DOCUMENT, definitions(WEB, SSH))
    try:
        machine.run("systemctl", "restart", DAEMON)
        assert lets_in(wire) == WEB_AND_SSH
        with (
            wire.listen(wire.host, HOST, 22) as server,
            wire.connect(wire.peer, (CLIENT, 0), (HOST, 22), seconds=20.0),
            server.accept()[0],
        ):
            machine.write(DOCUMENT, definitions(WEB))
            assert "waits, as it would cut" in machine.run("sgagent", "reload")
            told = ("journalctl", "--quiet", "--boot", "--priority=emerg", "--identifier=sgagent")
            wait_for(lambda: f"the login from {CLIENT}" in machine.run(*told), "the terminals to be told")
        machine.power_off()
        machine.boot()
        assert "counter rule/eth0/sgr-1" in seen_by_network(machine)
        assert lets_in(wire) == WEB_AND_SSH
        assert "waiting" in machine.run("sgagent", "status")
        machine.run("sgagent", "apply")
        assert lets_in(wire) == ONLY_WEB
    finally:
        machine.path(configuration).unlink()
        machine.run("systemctl", "restart", DAEMON)


@pytest.mark.long
def test_a_broken_configuration_opens_nothing(machine: Machine, wire: Lab) -> None:
    """At a boot the one before it is followed, and the fault shows; mended, the daemon comes by itself."""
    machine.power_off()
    machine.write("/etc/sgagent/sgagent.toml", "[enforcement]\nmoed = 'observe'\n")
    try:
        machine.boot()
        assert lets_in(wire) == ONLY_WEB
        assert "moed" in machine.journal(BOOT)
        assert machine.show(BOOT, "ExecMainStatus") == "2"
    finally:
        machine.path("/etc/sgagent/sgagent.toml").unlink()
    wait_for(lambda: machine.show(DAEMON, "ActiveState") == "active", "the daemon to start")
    assert lets_in(wire) == ONLY_WEB


BREAKAGES = (
    ("/usr/bin/python3", None),
    ("/usr/lib/python3/dist-packages/sgagent/core/errors.py", "raise MemoryError\n"),
    ("/usr/lib/python3/dist-packages/nftables/__init__.py", "raise ImportError('libnftables.so.1')\n"),
    ("/usr/bin/sgagent", "#!/bin/sh\n[ $1 != boot ] || exec sleep 1000\nexit 1\n"),
)
"""A file that the agent's program needs, and what is there in its place: no Python, a broken module, no
library, a program that hangs."""

FAILSAFE = """
[[failsafe]]
direction = "ingress"
cidr = "0.0.0.0/0"
protocol = "tcp"
port_range = "22/22"
"""


@contextlib.contextmanager
def broken(machine: Machine, name: str, text: str | None) -> Iterator[None]:
    """Break a file of a machine that is off, and repair it while it runs."""
    file = machine.path(name)
    aside = file.with_name(f"{file.name}.aside")
    file.rename(aside)
    if text is not None:
        file.write_text(text)
        file.chmod(0o755)
    try:
        yield
    finally:
        aside.rename(file)


@pytest.mark.parametrize(
    ("name", "text"),
    (
        pytest.param(*BREAKAGES[0], id="python", marks=pytest.mark.long),
        pytest.param(*BREAKAGES[1], id="module"),
        pytest.param(*BREAKAGES[2], id="library", marks=pytest.mark.long),
        pytest.param(*BREAKAGES[3], id="hangs", marks=pytest.mark.long),
    ),
)
def test_a_failed_start_closes_the_machine(machine: Machine, wire: Lab, name: str, text: str | None) -> None:
    """Before the network is up it is closed but for the fail-safe list, until the agent can start (§9.2)."""
    configuration = "/etc/sgagent/sgagent.toml"
    machine.write(configuration, FAILSAFE)
    patience = f"/etc/systemd/system/{BOOT}.d/impatient.conf"
    machine.write(patience, "[Service]\nTimeoutStartSec=5s\n")
    try:
        machine.run("systemctl", "restart", DAEMON)
        machine.power_off()
        with broken(machine, name, text):
            machine.boot()
            assert "closed/ingress" in seen_by_network(machine)
            assert "links are closed but for the fail-safe" in machine.journal(BOOT)
            assert machine.show(BOOT, "ActiveState") == "failed"
            assert lets_in(wire) == (False, True)
        machine.run("systemctl", "restart", DAEMON)
        assert lets_in(wire) == WEB_AND_SSH
        assert "flags owner,persist" in machine.run("nft", "list", "table", "inet", "sgagent")
    finally:
        machine.path(configuration).unlink()
        machine.path(patience).unlink()
        machine.run("systemctl", "restart", DAEMON)


@pytest.mark.long
def test_what_is_observed_stays_open_where_the_program_does_not_start(machine: Machine, wire: Lab) -> None:
    """As the boot itself would leave it (§9.1)."""
    machine.run("sgagent", "mode", "observe")
    machine.power_off()
    with broken(machine, *BREAKAGES[0]):
        machine.boot()
        assert lets_in(wire) == (True, True)
        assert "no rules were kept" in machine.journal(BOOT)
    machine.run("systemctl", "restart", DAEMON)
    machine.run("sgagent", "mode", "default")
    assert lets_in(wire) == ONLY_WEB


def state_files(machine: Machine) -> list[Path]:
    """Return the files of kept definitions."""
    return list(machine.path("/var/lib/sgagent/history").iterdir())


def test_the_units_are_rated_as_documented() -> None:
    """docs/service.md has the ratings of ``systemd-analyze``."""
    root = Path(__file__).parent.parent
    text = (root / "docs" / "service.md").read_text()
    for unit in (DAEMON, BOOT):
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", root / "systemd" / unit],
            capture_output=True,
            text=True,
            check=True,
        )
        score = done.stdout.rpartition(f"{unit}: ")[2].split()[0]
        assert f"`{unit}` {score}" in text


HOLDER = """
import os, socket, sys
os.setuid(65534)
taken = socket.socket()
taken.bind(("127.0.0.1", 9469))
taken.listen()
print("taken", flush=True)
sys.stdin.read()
"""
"""A program of a user without privilege, until its standard input ends."""

SCRAPE = (
    "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:9469/metrics', timeout=60).read())"
)
TAKE = "import socket; socket.socket().bind(('127.0.0.1', 9469))"


@contextlib.contextmanager
def port_held_by_nobody(machine: Machine) -> Iterator[None]:
    """Have a local user listen where the metrics are served."""
    held = machine.begin("/usr/bin/python3", "-c", HOLDER)
    try:
        assert held.stdout is not None
        assert held.stdout.readline() == b"taken\n"
        yield
    finally:
        held.communicate()


def scraped(machine: Machine) -> str:
    """Return the metrics as a program on the machine reads them."""
    return machine.run("/usr/bin/python3", "-c", SCRAPE)


@pytest.mark.long
def test_a_local_user_on_the_metrics_port_keeps_no_policy_off(machine: Machine, wire: Lab) -> None:
    """The policy does not wait for it; the holder of the port is named, and it is served once it is free."""
    machine.run("systemctl", "stop", DAEMON)
    machine.write(DOCUMENT, definitions(SSH))
    with port_held_by_nobody(machine):
        machine.run("systemctl", "start", DAEMON)
        assert lets_in(wire) == (False, True)
        wait_for(lambda: "held by user nobody" in machine.run("sgagent", "status", "--json"), "the status")
        assert "metrics_not_served" in machine.journal(DAEMON)
    wait_for(lambda: "held by user nobody" not in machine.run("sgagent", "status", "--json"), "the port")
    assert "sgagent_source_up 1.0" in scraped(machine)


@pytest.mark.long
def test_a_socket_unit_holds_the_metrics_port(machine: Machine, wire: Lab) -> None:
    """Over restarts and deaths of the agent nobody takes it; clients that connect meanwhile are served."""
    machine.run("systemctl", "enable", "--quiet", METRICS)
    try:
        machine.run("systemctl", "restart", DAEMON)
        wait_for(lambda: "sgagent_source_up 1.0" in scraped(machine), "a scrape")
        machine.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", DAEMON)
        with pytest.raises(CommandError, match="Address already in use"):
            machine.run("/usr/bin/python3", "-c", TAKE)
        wait_for(lambda: "sgagent_source_up 1.0" in scraped(machine), "a scrape")
        machine.run("systemctl", "restart", DAEMON)
        assert machine.show(METRICS, "ActiveState") == "active"
        wait_for(lambda: "sgagent_source_up 1.0" in scraped(machine), "a scrape")
        machine.run("systemctl", "stop", METRICS, DAEMON)
        with pytest.raises(CommandError, match="Connection refused"):
            scraped(machine)
        assert lets_in(wire) == ONLY_WEB, "the rules stay"
        machine.run("systemctl", "start", DAEMON)
        wait_for(lambda: "sgagent_source_up 1.0" in scraped(machine), "a scrape")
        assert "metrics_not_served" not in machine.run("sgagent", "status", "--json")
    finally:
        machine.run("systemctl", "disable", "--now", "--quiet", METRICS)
