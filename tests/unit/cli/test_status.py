"""The screen of ``sgagent status``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sgagent.agent.control.requests import ProofStatus, StatusAnswer
from sgagent.agent.manual_override import HeldBack, ModeOverride, PendingStatus
from sgagent.agent.posture import InterfaceState, InterfaceStatus, Posture
from sgagent.agent.state.directory import Trigger
from sgagent.agent.timed_rules import ExpiringRule
from sgagent.analysis.doctor.findings import DiagnosisSummary
from sgagent.cli.status import status_screen
from sgagent.core.model import Mode, Policy
from sgagent.ports import DeliveredPart
from sgagent.signatures import Signed
from tests.unit.agent.test_status import LOGIN

NOW = 1_000_000.0
PROOF = ProofStatus(outcome="proved", generation=7, version="v1", at=NOW - 61)
WELL = StatusAnswer(
    agent_version="1.2.3",
    pid=42,
    posture=Posture.ENFORCING,
    posture_since=NOW - 7200,
    is_ready=True,
    not_ready_because=(),
    snapshot_version="v1",
    snapshot_since=NOW - 61,
    source="file groups.d",
    is_source_up=True,
    source_reached_at=NOW,
    source_error=None,
    is_refused=False,
    errors=0,
    first_errors=(),
    kernel_error=None,
    warnings=0,
    unknown_objects=0,
    drift_repaired=0,
    is_drift_unhealed=False,
    faults=(),
    interfaces=(),
    verified=PROOF,
    verified_in_words=("proved: the table does what the policy says",),
)


def shown(answer: StatusAnswer) -> str:
    """Return the screen without a limit to its width."""
    return "\n".join(status_screen(answer, NOW, None))


def test_an_agent_that_is_well_takes_five_lines() -> None:
    """What it does and since when comes first."""
    lines = status_screen(WELL, NOW, None)
    assert len(lines) == 5
    assert lines[0].startswith("enforcing since ")
    assert lines[0].endswith("(2 hours)")
    assert lines[1].startswith("snapshot   v1, since ")
    assert lines[1].endswith("(1 minute)")
    assert lines[2].startswith("verified   proved ")
    assert lines[2].endswith("(1 minute): the table does what v1 says (generation 7)")
    assert lines[3] == "source     file groups.d, up"
    assert lines[4] == "agent      sgagent 1.2.3, process 42, ready"


def test_what_passes_whatever_the_groups_say() -> None:
    """The platform list is named, with what switches it off (§7.3)."""
    entry = "egress to 100.100.100.200"
    lines = status_screen(replace(WELL, platform=(entry, "ingress from 192.0.2.1, tcp 22/22")), NOW, None)
    assert lines[3] == f"platform   {entry}: always allowed, whatever the groups say"
    assert lines[4] == "           ingress from 192.0.2.1, tcp 22/22: always allowed, whatever the groups say"
    assert lines[5] == "           platform = [] in the configuration switches that off"


def test_a_host_that_waits_for_its_first_document_is_well() -> None:
    """Nothing is down after an installation."""
    new = replace(
        WELL, posture=Posture.NOTHING, snapshot_version=None, snapshot_since=None, awaits_documents=True
    )
    lines = status_screen(new, NOW, None)
    assert lines[0].endswith(": the source holds no document yet")
    assert lines[2] == "source     file groups.d, up, without a document yet"
    assert "down" not in "\n".join(lines)


def test_whom_a_change_cut() -> None:
    """Some are named, the others counted."""
    cut = replace(WELL, sessions_cut=3, first_sessions_cut=(LOGIN,), sessions_cut_at=NOW - 60)
    lines = status_screen(cut, NOW, None)
    assert lines[3].startswith("cut        3 open sessions, by the change at ")
    assert lines[4].endswith(" the login from 198.51.100.7 port 40000 to port 22 on eth0, by the default")
    assert lines[5].endswith(" … and 2 more")


@pytest.mark.parametrize(
    ("posture", "words"),
    (
        (Posture.ENFORCING, "enforcing"),
        (Posture.OBSERVING, "nothing is dropped"),
        (Posture.IDLE, "no interface"),
        (Posture.CLOSED, "closed since"),
        (Posture.STANDING, "the previous run's rules stay"),
        (Posture.NOTHING, "not enforcing since"),
    ),
)
def test_the_first_line_says_what_is_done(posture: Posture, words: str) -> None:
    """Each posture has its words."""
    assert words in status_screen(replace(WELL, posture=posture), NOW, None)[0]


def test_an_agent_that_starts_says_so() -> None:
    """Before its first step it does not know what is enforced."""
    starting = replace(WELL, posture=Posture.NOTHING, posture_since=None)
    assert status_screen(starting, NOW, None)[0] == (
        "starting: it waits for its source; the previous run's rules, if any, stay active until then"
    )


@pytest.mark.parametrize("posture", Posture)
def test_the_first_words_are_documented(posture: Posture) -> None:
    """docs/control.md has a row for each posture, with the words that the screen begins with."""
    first_words = status_screen(replace(WELL, posture=posture), NOW, None)[0].partition(" since ")[0]
    text = (Path(__file__).parents[3] / "docs/control.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{posture.value}`.*\|$", text, re.MULTILINE)
    assert f"`{first_words}`" in row


@pytest.mark.parametrize(
    ("answer", "expected"),
    (
        (replace(WELL, snapshot_version=None), "snapshot   none"),
        (replace(WELL, is_source_up=None), "not asked yet"),
        (
            replace(WELL, is_source_up=False, source_error="gone", source_reached_at=NOW - 86400),
            "down: gone (reached last ",
        ),
        (replace(WELL, is_source_up=False, source_error="gone", source_reached_at=None), "(never reached)"),
        (replace(WELL, kernel_error="no room"), "kernel     refused the newest rules: no room"),
        (replace(WELL, warnings=3, unknown_objects=1), "warnings   3, with 1 unknown object in"),
        (replace(WELL, drift_repaired=2), "drift      repaired 2 times"),
        (replace(WELL, is_drift_unhealed=True), "the agent could not repair them"),
        (replace(WELL, faults=("no space",)), "fault      no space"),
        (
            replace(WELL, pending=PendingStatus(version="v2", seconds_left=42.0, goes_back_to="v1")),
            "pending    v2 is on trial: goes back to v1 in\n           42 seconds, unless",
        ),
        (
            replace(
                WELL, held=HeldBack(version="v1", origin=Trigger.ROLLBACK, since=NOW - 60, held_back="v2")
            ),
            "by hand    rolled back to v1 ",
        ),
        (
            replace(
                WELL,
                held=HeldBack(
                    version="v3",
                    origin=Trigger.APPLY,
                    since=None,
                    held_back="v2",
                    remedy="'sgagent apply /etc/sgagent/groups.d' enforces it now",
                ),
            ),
            "the source's v2 is held back until it delivers another;\n           'sgagent apply /etc/s",
        ),
        (
            replace(WELL, mode_overrides=(ModeOverride(interface=None, mode=Mode.OBSERVE),)),
            "mode       observe on every interface, by 'sgagent mode'",
        ),
        (
            replace(WELL, mode_overrides=(ModeOverride(interface="eth0", mode=Mode.ENFORCE),)),
            "mode       enforce on eth0, by 'sgagent mode'",
        ),
        (
            replace(WELL, is_ready=False, not_ready_because=("it is late",)),
            "not ready\n           it is late",
        ),
        (replace(WELL, faults=("a\x1b[2Jb",)), "a\\x1b[2Jb"),
        (replace(WELL, verified=None), "verified   not yet: the proof of this table is under way"),
        (
            replace(WELL, is_verifying=False),
            "verified   no: the configuration says verify.after_apply = false",
        ),
        (
            replace(WELL, doctor=DiagnosisSummary(high=0, medium=1, low=0, codes=("kernel_feature",))),
            "owner      none before Linux 6.9: every process with CAP_NET_ADMIN can change the table",
        ),
        (
            replace(
                WELL, verified=replace(PROOF, outcome="unknown"), verified_in_words=("unknown: x", "  y")
            ),
            "verified   unknown: x (",
        ),
    ),
)
def test_what_is_amiss_is_shown(answer: StatusAnswer, expected: str) -> None:
    """Whatever somebody should look at has a line."""
    assert expected in shown(answer)


def test_the_errors_of_a_refused_snapshot_are_shown_and_the_rest_is_counted() -> None:
    """What to mend stands there, not in the log alone."""
    text = shown(replace(WELL, is_refused=True, errors=7, first_errors=("error: one", "error: two")))
    assert "refused    the newest definitions have 7 errors; the previous ones stay active\n" in text
    assert "           error: one\n           error: two\n           … and 5 more\n" in text


def test_warnings_are_shown_and_the_rest_is_counted() -> None:
    """Whoever reads that an object is unknown wants to know which."""
    warnings = ("warning: unknown security group: 'sg-gone'", "warning: other")
    text = shown(replace(WELL, warnings=4, unknown_objects=1, first_warnings=warnings))
    assert "warnings   4, with 1 unknown object in the rules of this host\n" in text
    assert f"           {warnings[0]}\n           {warnings[1]}\n           … and 2 more\n" in text
    assert "more" not in shown(replace(WELL, warnings=2, unknown_objects=1, first_warnings=warnings))


def test_each_interface_has_a_row() -> None:
    """Its state, mode, interface, groups, and whether its sessions are remembered."""
    eth0 = InterfaceStatus(
        name="eth0",
        network_interface_id="eni-1",
        state=InterfaceState.BOUND,
        mode=Mode.OBSERVE,
        security_group_ids=("sg-1", "sg-2"),
    )
    bare = replace(
        eth0,
        name="eth3",
        network_interface_id=None,
        state=InterfaceState.WITHOUT_GROUPS,
        security_group_ids=(),
        is_judged_at_every_packet=True,
    )
    unbound = InterfaceStatus(
        name="docker0", network_interface_id=None, state=InterfaceState.UNBOUND, mode=None
    )
    lines = status_screen(replace(WELL, interfaces=(unbound, eth0, bare)), NOW, None)
    assert [line.split() for line in lines[-3:]] == [
        ["docker0", "unbound", "-", "-", "-", "-"],
        ["eth0", "bound", "observe", "eni-1", "sg-1,", "sg-2", "cached"],
        ["eth3", "without", "groups", "observe", "-", "-", "checked", "at", "every", "packet"],
    ]


def test_rules_that_end_are_listed() -> None:
    """The first at the front, with the time that is left."""
    ending = ExpiringRule(
        rule_id="sgr-1", security_group_id="sg-1", policy=Policy.DROP, expires_at=NOW + 3 * 86_400
    )
    text = shown(replace(WELL, expiring=11, first_expiring=(ending,)))
    assert "expires    " in text
    assert ", in 3 days: sgr-1 of sg-1 (drop)" in text
    assert "… and 10 more" in text


@pytest.mark.parametrize("place", ("file /etc/groups.d", "file /srv/my groups.d"))
def test_the_path_of_a_file_source_that_is_away_stands_once(place: str) -> None:
    """The error has it too, for the log."""
    path = place.removeprefix("file ")
    error = f"{path}: no such file or directory"
    text = shown(replace(WELL, source=place, is_source_up=False, source_error=error))
    assert f"{place}, down: no such file or directory (reached last" in text
    gone = DeliveredPart(place=place, delivered_at=NOW, fault=error)
    text = shown(replace(WELL, sources=(gone, DeliveredPart(place="etcd b", delivered_at=NOW))))
    assert f"{place}, its older part stays: no such file or directory, delivered" in text


def test_each_source_has_a_line() -> None:
    """Whether it is up, when it delivered last, and the serial of its signature."""
    signed = Signed(serial=9, digest="d", key_id="k1", expires_at=None)
    one = DeliveredPart(place="file /a", delivered_at=NOW - 120, signed=signed)
    other = DeliveredPart(place="etcd b", delivered_at=NOW - 7200, fault="silent")
    text = "\n".join(status_screen(replace(WELL, sources=(one, other)), NOW, None))
    assert re.search(r"file /a, up, delivered .*\(2 minutes\), serial 9 signed by k1", text)
    assert re.search(r"etcd b, its older part stays: silent, delivered .*\(2 hours\)$", text, re.MULTILINE)
    alone = "\n".join(status_screen(replace(WELL, sources=(one,)), NOW, None))
    assert "file groups.d, up, serial 9 signed by k1" in alone
