"""Rows on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from sgagent.agent.control.answers import counter_of
from sgagent.agent.control.hits import HitsAnswer
from sgagent.agent.control.requests import HistoryAnswer, HistoryEntry
from sgagent.agent.posture import InterfaceState, InterfaceStatus
from sgagent.agent.state.directory import Extent, Trigger
from sgagent.cli import denied, hits
from sgagent.cli.control import history_table
from sgagent.cli.output import lay_out
from sgagent.cli.status import status_screen
from sgagent.core.model import Mode
from tests.unit.cli import test_denied, test_hits, test_status

ROWS = (("N", "NAME", "OF"), ("1", "a name of some length", "all"), ("1000", "b", ""))


def test_columns_stand_under_their_headings() -> None:
    """Numbers to the right, words to the left, and no blanks at the end of a line."""
    assert lay_out(ROWS, right=(0,), width=None) == [
        "   N  NAME                   OF",
        "   1  a name of some length  all",
        "1000  b",
    ]


@pytest.mark.parametrize("width", (31, 30, 25, 20))
def test_the_widest_column_is_folded_to_what_the_terminal_holds(width: int) -> None:
    """Nothing is lost."""
    lines = [line for row in lay_out(ROWS, right=(0,), width=width) for line in row.split("\n")]
    assert max(map(len, lines)) <= width
    assert lines[1].endswith("all")
    written = " ".join(line[6:].removesuffix("all").strip() for line in lines[1:-1])
    assert written == "a name of some length"


@given(st.text("ab-/ ", min_size=1, max_size=60), st.integers(14, 40))
def test_an_id_can_be_read_whole(text: str, width: int) -> None:
    """Whatever signs it may be folded at."""
    (row,) = lay_out([("1", text, "x")], right=(0,), width=width)
    lines = row.split("\n")
    assert all(len(line) <= width for line in lines)
    pieces = [line[3:] for line in lines]
    pieces[0] = pieces[0].removesuffix("x")
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


def test_numbers_are_never_folded() -> None:
    """Half a number is another one."""
    (row,) = lay_out([("123456789012", "a name of some length")], right=(0,), width=24)
    assert row == "123456789012  a name of\n              some\n              length"


def test_columns_may_have_a_least_width() -> None:
    """So that rows that are printed one by one stand below each other."""
    assert lay_out([("a", "b")], width=None, least=(5, 0)) == ["a      b"]


def test_a_terminal_that_is_far_too_narrow_wraps() -> None:
    """Columns keep a few letters."""
    assert lay_out(ROWS, width=3)[1] == "1     a name    all\n      of some\n      length"


def test_what_a_cell_says_can_not_drive_the_terminal() -> None:
    """Control characters are shown, not sent."""
    assert lay_out([("\x1b[2J",)], width=None) == ["\\x1b[2J"]


LONG = "x" * 61 + "-" + "y" * 60
"""Of the ids that are shown, the longest that is legal but for a few letters."""

MANY = 2**63


def wide_hits(*, has_rates: bool) -> Callable[[int | None], list[str]]:
    """Return what lays out hits with ids and numbers as long as they may be."""
    rule = replace(
        test_hits.RULE, packets=MANY, bytes=MANY, rule_id=f"sgr-{LONG}", security_group_id=f"sg-{LONG}",
        authorization_object=f"pl-{LONG}", priority=99_999, ports="1/2,4/5,7/8,10/11,13/14",
    )  # fmt: skip
    parts = tuple(replace(part, hits=(rule, *part.hits)) for part in test_hits.ANSWER.interfaces)
    answer = HitsAnswer(snapshot_version="v1", interfaces=parts)
    rates = {counter_of(part, hit): 1e6 for part in parts for hit in part.hits} if has_rates else None
    return lambda width: hits.table(answer, width, now=test_hits.NOW, rates=rates)


def wide_status(width: int | None) -> list[str]:
    """Lay out a status with ids as long as they may be, and a problem of several lines."""
    interface = InterfaceStatus(
        name="a-long-name-123",
        state=InterfaceState.BOUND,
        mode=Mode.ENFORCE,
        network_interface_id=f"eni-{LONG}",
        security_group_ids=(f"sg-{LONG}", f"sg-2-{LONG}"),
    )
    warning = f"warning: groups.d/web.yaml:7: the rule matches nothing: 'sg-{LONG}' (correct the id)"
    answer = replace(test_status.WELL, warnings=1, first_warnings=(warning,), interfaces=(interface,))
    return status_screen(answer, test_status.NOW, width)


def wide_history(width: int | None) -> list[str]:
    """Lay out a history with a version as long as it may be."""
    extent = Extent(rules=100_000, chains=100_000, elements=1_000_000, interfaces=1000)
    entry = HistoryEntry(
        number=10, version=f"etcd-{LONG}", origin=Trigger.ROLLBACK, enforced_at=1e9, documents=100_000,
        bytes=256 << 20, extent=extent, is_in_force=True,
    )  # fmt: skip
    return history_table(HistoryAnswer(entries=(entry,)), width)


def wide_denied(width: int | None) -> list[str]:
    """Lay out drops with ids as long as they may be."""
    flow = replace(test_denied.BY_RULE, rule_id=f"sgr-{LONG}", interface="a-long-name-123")
    end = replace(
        flow.source, address="2001:db8:1111:2222:3333:4444:5555:6666", security_group_ids=(f"sg-{LONG}",)
    )
    answer = replace(test_denied.ANSWER, flows=(replace(flow, source=end, destination=end),))
    return denied.report(answer, 20, width)


@pytest.mark.parametrize("width", (80, 100, 132))
@pytest.mark.parametrize(
    "lines",
    (wide_hits(has_rates=False), wide_hits(has_rates=True), wide_status, wide_history, wide_denied),
    ids=("hits", "hits --watch", "status", "history", "denied"),
)
def test_every_table_fits_and_cuts_no_id(lines: Callable[[int | None], list[str]], width: int) -> None:
    """Eighty columns are enough for the longest ids and numbers; each letter of an id is there."""
    folded, whole = "\n".join(lines(width)), "\n".join(lines(None))
    assert max(map(len, folded.split("\n"))) <= width < max(map(len, whole.split("\n")))
    for letter in "xy":
        assert folded.count(letter) >= whole.count(letter) // 60 * 60 >= 60
    assert "…" not in folded


def test_large_numbers_are_shortened_only_where_they_have_no_room() -> None:
    """Rounded down, with the prefix of the SI; --wide and a wide terminal show every digit."""
    lines = wide_hits(has_rates=False)
    assert "9.2E" in "\n".join(lines(80))
    assert str(MANY) in "\n".join(lines(None))
