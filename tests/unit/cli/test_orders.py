"""What the commands that order something say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.agent.control.requests import (
    EnforcedAnswer,
    HistoryAnswer,
    HistoryEntry,
    InterfaceMode,
    ModeAnswer,
)
from sgagent.agent.manual_override import ModeOverride
from sgagent.agent.posture import InterfaceState, InterfaceStatus
from sgagent.agent.state.directory import Extent, Trigger
from sgagent.cli.agent_client import lines, print_enforced
from sgagent.cli.control import earlier_version, history_table
from sgagent.cli.lockout_guard import parse_duration
from sgagent.cli.mode import mode_table, modes_in_force
from sgagent.core.errors import NOWHERE, Problem, Severity, UsageError
from sgagent.core.model import Mode
from tests.unit.cli.test_status import WELL

ENFORCED = EnforcedAnswer(version="v2", is_changed=True, interfaces=("eth0", "eth1"), held_back="v1")


@pytest.mark.parametrize(
    ("text", "seconds"), (("60", 60.0), ("90s", 90.0), ("5m", 300.0), ("1h", 3600.0), ("24h", 86400.0))
)
def test_times_are_read(text: str, seconds: float) -> None:
    """In seconds, unless a unit says otherwise."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ("", "0", "soon", "-5s", "1.5m", "25h", "1d", "5 m", "s"))
def test_times_that_make_no_sense_are_wrong_use(text: str) -> None:
    """The message shows what was written and what would be right."""
    with pytest.raises(UsageError, match="expected a time like 60s, 5m or 1h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("versions", "of_status", "number"),
    (
        (("v2", "v1"), "v2", 1),
        (("v2", "v1"), "v1", 1),
        (("v1", "v2", "v1"), "v1", 2),
        (("v1",), "v2", 1),
        (("v1",), "v1", None),
        (("v2", None, "v2", "v1"), "v2", 1),
        ((), "v1", None),
    ),
    ids=["usual", "status behind", "after a rollback", "not stored", "first", "damaged", "none"],
)
def test_a_rollback_goes_to_the_version_before(
    versions: tuple[str | None, ...], of_status: str, number: int | None
) -> None:
    """Also just after a step, when the history has a version that the status does not show yet."""
    numbers = range(len(versions), 0, -1)
    history = [
        HistoryEntry(number=one, version=version, fault=None if version else "damaged")
        for one, version in zip(numbers, versions, strict=True)
    ]
    assert earlier_version(history, of_status) == number


@pytest.mark.parametrize(
    ("answer", "said"),
    (
        (ENFORCED, "enforcing v2 on eth0, eth1\nheld until the source delivers another version than v1"),
        (
            replace(ENFORCED, remedy="'sgagent apply /etc/sgagent/groups.d' enforces it now"),
            "version than v1\n'sgagent apply /etc/sgagent/groups.d' enforces it now",
        ),
        (replace(ENFORCED, held_back=None, is_changed=False), "on eth0, eth1 (unchanged)"),
        (
            replace(ENFORCED, seconds_left=60.0, goes_back_to="v1"),
            "goes back to v1 in 60 seconds, unless 'sgagent confirm' runs",
        ),
        (replace(ENFORCED, seconds_left=3599.0, goes_back_to="v1"), "in 59 minutes, unless"),
        (replace(ENFORCED, seconds_left=9.0), "goes back to nothing, as before in 9 seconds"),
        (replace(ENFORCED, version=None, interfaces=()), "nothing is enforced; nothing changed"),
        (replace(ENFORCED, interfaces=()), "enforcing v2 on no interface"),
    ),
)
def test_what_is_in_force_is_said_first(answer: EnforcedAnswer, said: str) -> None:
    """Then until when."""
    assert said in "\n".join(lines(answer))


def test_warnings_and_faults_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing that a document says can drive a terminal."""
    warning = Problem(severity=Severity.WARNING, code="x", origin=NOWHERE, message="odd")
    answer = replace(ENFORCED, version="v\x1b[2J", warnings=(warning,), fault="no space")
    print_enforced(answer, as_json=False)
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out
    assert "odd" in printed.err
    assert "is lost when the agent stops: no space" in printed.err


def test_the_history_is_a_table() -> None:
    """What is in force has a star; a damaged file has its number and nothing else."""
    entry = HistoryEntry(
        number=12,
        version="v2",
        origin=Trigger.ROLLBACK,
        enforced_at=0.0,
        documents=2,
        bytes=300,
        extent=Extent(interfaces=1, rules=7, chains=40, elements=5),
        is_in_force=True,
    )
    first = replace(entry, number=1, version="v1", enforced_at=None, extent=None, is_in_force=False)
    damaged = HistoryEntry(number=11, fault="history/11: damaged")
    table = history_table(HistoryAnswer(entries=(entry, damaged, first)), None)
    rows = [line.split() for line in table]
    assert rows[1][:3] == ["12", "*", "v2"]
    assert rows[1][-6:] == ["rollback", "2", "300", "7", "40", "1"]
    assert rows[2] == ["11", "(damaged)"]
    assert rows[3] == ["1", "v1", "rollback", "2", "300"]
    assert history_table(HistoryAnswer(entries=()), None) == ["nothing was enforced on this host yet"]


def test_the_modes_are_a_table() -> None:
    """With whose word each is."""
    eth0 = InterfaceMode(interface="eth0", mode=Mode.OBSERVE, is_overridden=True)
    eth1 = InterfaceMode(interface="eth1", mode=Mode.ENFORCE, is_overridden=False)
    table = mode_table(ModeAnswer(interfaces=(eth0, eth1)), None)
    assert [line.split(maxsplit=2)[1:] for line in table[1:]] == [
        ["observe", "sgagent mode"],
        ["enforce", "the configuration"],
    ]
    assert "no interface is bound yet" in mode_table(ModeAnswer(interfaces=()), None)[0]


@pytest.mark.parametrize(
    ("overridden", "names"),
    (((), ()), ((None,), ("br-1", "eth0")), (("eth0",), ("eth0",)), (("br-*",), ("br-1",))),
)
def test_modes_are_those_of_the_status(overridden: tuple[str | None, ...], names: tuple[str, ...]) -> None:
    """Of what is judged, with whether they were ordered: for all, for one link, or for a pattern."""
    links = tuple(
        InterfaceStatus(name=name, network_interface_id=None, state=InterfaceState.BOUND, mode=mode)
        for name, mode in (("br-1", Mode.OBSERVE), ("eth0", Mode.ENFORCE), ("eth9", None))
    )
    overrides = tuple(ModeOverride(interface=one, mode=Mode.OBSERVE) for one in overridden)
    status = replace(WELL, interfaces=links, mode_overrides=overrides)
    found = modes_in_force(status, None)
    assert [(one.interface, one.mode) for one in found.interfaces] == [
        ("br-1", Mode.OBSERVE),
        ("eth0", Mode.ENFORCE),
    ]
    assert tuple(one.interface for one in found.interfaces if one.is_overridden) == names
    assert [one.interface for one in modes_in_force(status, "eth0").interfaces] == ["eth0"]
