"""The table of ``sgagent hits``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sgagent.agent.control.hits import Hit, HitsAnswer, InterfaceHits
from sgagent.cli.hits import Rates, sift_unused, table, unused_lines
from sgagent.core.counter_keys import HitStep
from sgagent.core.model import Direction, Mode, Policy

RULE = Hit(
    step=HitStep.RULE,
    verdict=Policy.ACCEPT,
    packets=12,
    bytes=720,
    rule_id="sgr-web",
    security_group_id="sg-web",
    priority=1,
    protocol="tcp",
    ports="80/80",
    authorization_object="0.0.0.0/0",
    counted_since=1_000.0,
    last_hit_at=90_000.0,
)
ANY_PORT = Hit(
    step=HitStep.RULE,
    verdict=Policy.DROP,
    packets=0,
    bytes=0,
    rule_id="sgr-2",
    security_group_id="sg-web",
    priority=100,
    protocol="all",
    authorization_object="pl-bad",
    counted_since=1_000.0,
)
NOW = 90_007.5
DEFAULT = Hit(step=HitStep.DEFAULT, verdict=Policy.DROP, packets=3, bytes=120)
ANSWER = HitsAnswer(
    snapshot_version="v1",
    interfaces=(
        InterfaceHits(
            interface="eth0", direction=Direction.INGRESS, mode=Mode.ENFORCE, hits=(RULE, ANY_PORT, DEFAULT)
        ),
        InterfaceHits(
            interface="eth0",
            direction=Direction.EGRESS,
            mode=Mode.OBSERVE,
            hits=(DEFAULT,),
            would_drop_packets=2,
        ),
    ),
)


def test_each_interface_and_direction_has_its_part() -> None:
    """The columns of all parts stand under each other; what no rule decided has its step for a name."""
    headings = "PACKETS  BYTES  VERDICT     PRIO  RULE       GROUP   OBJECT     PROTO  PORTS  LAST"
    assert table(ANSWER, None, now=NOW) == [
        "eth0 ingress",
        headings,
        "     12    720  accept         1  sgr-web    sg-web  0.0.0.0/0  tcp    80     7s",
        "      0      0  drop         100  sgr-2      sg-web  pl-bad     all    any    none",
        "      3    120  drop              (default)",
        "",
        "eth0 egress, observe mode: nothing is dropped, 2 packets would have been",
        headings,
        "      3    120  would drop        (default)",
    ]


def test_many_objects_are_counted() -> None:
    """A list of a thousand objects does not widen each line by all of them."""
    objects = ", ".join(f"10.0.{number}.0/24" for number in range(200))
    hits = (replace(RULE, authorization_object=objects), DEFAULT)
    answer = replace(ANSWER, interfaces=(replace(ANSWER.interfaces[0], hits=hits),))
    line = table(answer, None, now=NOW)[2]
    assert "10.0.0.0/24, 10.0.1.0/24, 10.0.2.0/24, 10.0.3.0/24 and 196 more" in line
    assert max(map(len, table(answer, None, now=NOW))) < 160


def test_the_table_fits_the_terminal() -> None:
    """Long ids are folded before lines wrap, and can be read whole."""
    long = replace(RULE, rule_id="sgr-" + 40 * "x", authorization_object="2001:db8:1:2:3:4:5:6/128")
    part = replace(ANSWER.interfaces[0], hits=(long,))
    lines = table(replace(ANSWER, interfaces=(part,)), 80, now=NOW)
    assert max(len(line) for row in lines for line in row.split("\n")) <= 80
    assert lines[-1].count("x") == 40


def test_a_host_without_bound_interfaces_has_no_hits() -> None:
    """It says so, rather than nothing."""
    nothing = HitsAnswer(snapshot_version=None, interfaces=())
    assert table(nothing, None, now=NOW) == ["no interface of this host is bound"]


def test_rates_are_those_between_two_looks() -> None:
    """The first look has none, nor has a rule that is new; a total that was begun anew is no negative one."""
    rates = Rates()
    assert rates.after(ANSWER, 10.0) == {}
    part = ANSWER.interfaces[0]
    new = replace(RULE, rule_id="sgr-new", packets=7)
    more = replace(part, hits=(replace(RULE, packets=17), new, replace(DEFAULT, packets=0)))
    answer = replace(ANSWER, interfaces=(more,))
    known = rates.after(answer, 12.0)
    lines = table(answer, None, now=NOW, rates=known)
    assert [line[:22] for line in lines[1:]] == [
        "PACKETS  RATE  BYTES  ",
        "     17   2.5    720  ",
        "      7          720  ",
        "      0   0.0    120  ",
    ]


def test_bytes_make_room_for_rates_on_a_narrow_terminal() -> None:
    """What stands for a rule is worth more."""
    lines = table(ANSWER, 81, now=NOW, rates={})
    assert lines[1] == "PACKETS  RATE  VERDICT     PRIO  RULE       GROUP   OBJECT     PROTO  PORTS  LAST"


def test_only_rules_that_nobody_hit_for_long_enough_are_unused() -> None:
    """Of what is counted for less it is not known, and steps that are no rules can't be taken out."""
    young = replace(ANY_PORT, rule_id="sgr-young", counted_since=NOW - 100.0)
    part = replace(ANSWER.interfaces[0], hits=(RULE, ANY_PORT, young, replace(DEFAULT, counted_since=0.0)))
    answer = replace(ANSWER, interfaces=(part, ANSWER.interfaces[1]))
    found = sift_unused(answer, 86_400.0, NOW)
    assert [hit.rule_id for part in found.interfaces for hit in part.hits] == ["sgr-2"]
    lines = unused_lines(found, 86_400.0, NOW, None)
    assert lines[:3] == [
        "rules without a hit for 1 day or longer, by the counters of the agent:",
        "",
        "eth0 ingress",
    ]
    assert "sgr-2" in lines[-1]
    (line,) = unused_lines(sift_unused(answer, 864_000.0, NOW), 864_000.0, NOW, None)
    assert line == "no rule was counted without a hit for 10 days"


@pytest.mark.parametrize(
    ("step", "ports", "text"),
    (
        (HitStep.RULE, "80/80", "80"),
        (HitStep.RULE, "80/80,443/443,8000/8100", "80, 443, 8000-8100"),
        (HitStep.RULE, "none", "none"),
        (HitStep.RULE, None, "any"),
        (HitStep.DEFAULT, None, ""),
    ),
)
def test_ports_are_shown_as_people_write_them(step: HitStep, ports: str | None, text: str) -> None:
    """A range that no rule can match is named, too."""
    assert replace(RULE, step=step, ports=ports).ports_text == text


def test_rules_that_end_have_a_column() -> None:
    """With the time that is left; where none ends, there is no such column."""
    ending = replace(RULE, expires_at=NOW + 7_200.0)
    (part, *_), hits = ANSWER.interfaces, (ending, ANY_PORT)
    lines = table(replace(ANSWER, interfaces=(replace(part, hits=hits),)), None, now=NOW)
    assert lines[1].endswith("LAST  EXPIRES")
    assert lines[2].endswith("in 2h")
    assert not any("EXPIRES" in line for line in table(ANSWER, None, now=NOW))
