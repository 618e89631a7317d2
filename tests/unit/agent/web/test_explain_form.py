"""A form becomes a question, or has an error for each wrong field."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from sgagent.agent.control.explain_requests import ExplainQuery
from sgagent.agent.web.explain_form import LONGEST_VALUE, Form, read_form
from sgagent.agent.web.rules import MOST_FIELDS
from sgagent.core.model import Direction

GOOD = {
    "direction": "ingress",
    "source": "198.51.100.7",
    "destination": "10.0.0.11",
    "protocol": "tcp",
    "port": "443",
}


def sent(**changes: str) -> Form:
    """Return a form with valid values and some changes."""
    return read_form(urlencode(GOOD | changes))


def test_nothing_asks_nothing() -> None:
    """Nor does a form with nothing in it."""
    assert read_form("") == read_form("source=&port=+") == Form()


def test_a_form_becomes_a_question() -> None:
    """The default of the source port is an ephemeral port; blanks around a value are ignored."""
    form = sent(source=" 198.51.100.7 ", interface="eth0")
    assert form.faults == {}
    assert form.question == ExplainQuery(
        direction=Direction.INGRESS,
        source="198.51.100.7",
        destination="10.0.0.11",
        protocol=6,
        source_port=49152,
        destination_port=443,
        interface="eth0",
    )


def test_protocols_may_be_numbers_and_have_no_ports() -> None:
    """Protocols without ports need no port."""
    question = sent(protocol="47", port="").question
    assert question is not None
    assert (question.protocol, question.source_port, question.destination_port) == (47, None, None)
    ping = sent(protocol="icmp", port="", icmp_type="8").question
    assert ping is not None
    assert (ping.protocol, ping.icmp_type) == (1, 8)


@pytest.mark.parametrize(
    ("changes", "field"),
    (
        ({"direction": "sideways"}, "direction"),
        ({"source": ""}, "source"),
        ({"source": "10.0.0.0/8"}, "source"),
        ({"destination": "fe80::1%eth0"}, "destination"),
        ({"destination": "2001:db8::1"}, "destination"),
        ({"protocol": "tpc"}, "protocol"),
        ({"protocol": "256"}, "protocol"),
        ({"port": ""}, "port"),
        ({"port": "65536"}, "port"),
        ({"port": "\uff14\uff14\uff13"}, "port"),
        ({"source_port": "-1"}, "source_port"),
        ({"protocol": "icmp"}, "port"),
        ({"icmp_type": "8"}, "icmp_type"),
        ({"protocol": "icmp", "port": "", "icmp_type": "256"}, "icmp_type"),
    ),
)
def test_each_fault_is_told_at_its_field(changes: dict[str, str], field: str) -> None:
    """The form keeps the values to be corrected, and has no question."""
    form = sent(**changes)
    assert list(form.faults) == [field]
    assert form.question is None
    assert form.values["destination" if field == "source" else "source"]


def test_what_is_sent_is_bounded() -> None:
    """A value is cut, and too many fields are refused."""
    assert sent(source="1" * 1000).values["source"] == "1" * LONGEST_VALUE
    assert read_form("&".join(f"f{number}=1" for number in range(MOST_FIELDS + 1))).faults
