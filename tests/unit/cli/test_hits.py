"""The table of ``sgagent hits``."""

from __future__ import annotations

from dataclasses import replace

from sgagent.agent.asking.questions import Hit, HitsAnswer, HitStep, InterfaceHits
from sgagent.cli.hits import table
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
)
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
    headings = "PACKETS  BYTES  VERDICT     PRIO  RULE       GROUP   OBJECT     PROTOCOL  PORTS"
    assert table(ANSWER, None) == [
        "eth0 ingress",
        headings,
        "     12    720  accept         1  sgr-web    sg-web  0.0.0.0/0  tcp       80/80",
        "      0      0  drop         100  sgr-2      sg-web  pl-bad     all       any",
        "      3    120  drop              (default)",
        "",
        "eth0 egress, only observed: nothing is dropped, and 2 packets would have been",
        headings,
        "      3    120  would drop        (default)",
    ]


def test_the_table_fits_the_terminal() -> None:
    """Long ids are cut before lines wrap."""
    long = replace(RULE, rule_id="sgr-" + 40 * "x", authorization_object="2001:db8:1:2:3:4:5:6/128")
    part = replace(ANSWER.interfaces[0], hits=(long,))
    lines = table(replace(ANSWER, interfaces=(part,)), 80)
    assert max(map(len, lines)) <= 80
    assert "sgr-xxx" in lines[-1]


def test_a_host_without_bound_interfaces_has_no_hits() -> None:
    """It says so, rather than nothing."""
    assert table(HitsAnswer(snapshot_version=None, interfaces=()), None) == ["nothing is judged on this host"]
