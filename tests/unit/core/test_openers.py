"""What conntrack takes for the first packet of a session; ``integration/test_edges.py`` asks the kernel."""

from __future__ import annotations

import pytest

from sgagent.core.evaluate import Packet, Tracking, as_opener
from sgagent.core.model import ICMP, ICMPV6, TCP, Protocol
from tests.words import IN, packet


@pytest.mark.parametrize(
    ("source", "protocol", "icmp_type", "expected"),
    (
        ("10.0.0.9", ICMP, None, Tracking.NEW),
        ("10.0.0.9", ICMP, 8, Tracking.NEW),
        ("10.0.0.9", ICMP, 0, Tracking.INVALID),
        ("10.0.0.9", ICMP, 3, Tracking.INVALID),
        ("10.0.0.9", ICMPV6, None, Tracking.INVALID),
        ("10.0.0.9", Protocol(59), None, Tracking.NEW),
        ("2001:db8::9", ICMPV6, 128, Tracking.NEW),
        ("2001:db8::9", ICMPV6, 129, Tracking.INVALID),
        ("2001:db8::9", ICMPV6, 2, Tracking.INVALID),
        ("2001:db8::9", ICMPV6, 135, Tracking.NEW),
        ("2001:db8::9", ICMP, 8, Tracking.INVALID),
        ("2001:db8::9", Protocol(59), None, Tracking.INVALID),
        *(("2001:db8::9", Protocol(number), None, Tracking.INVALID) for number in (0, 43, 44, 51, 60)),
        *(("10.0.0.9", Protocol(number), None, Tracking.NEW) for number in (0, 43, 44, 51, 60)),
        *(("2001:db8::9", Protocol(number), None, Tracking.NEW) for number in (50, 132, 135, 139, 140)),
        ("2001:db8::9", Protocol(253), 0, Tracking.NEW),
    ),
)
def test_what_opens_no_session_is_invalid(
    source: str, protocol: Protocol, icmp_type: int | None, expected: Tracking
) -> None:
    """Answers, errors, the other family's ICMP and IPv6 without an upper layer open none (§3, §4.1)."""
    assert as_opener(message(source, protocol, icmp_type)).tracking is expected


@pytest.mark.parametrize("known", (Tracking.ALLOWED, Tracking.UNTRACKED))
def test_what_conntrack_said_already_stays(known: Tracking) -> None:
    """An error about an allowed session is one of its packets (§6.5)."""
    judged = message("10.0.0.9", ICMP, 3, known)
    assert as_opener(judged) == judged


def test_other_packets_stay_as_they_are() -> None:
    """A packet with ports opens a session."""
    judged = packet(IN, "10.0.0.9", TCP, 80)
    assert as_opener(judged) == judged


def message(
    source: str, protocol: Protocol, icmp_type: int | None, tracking: Tracking = Tracking.NEW
) -> Packet:
    """Return a packet without ports."""
    return packet(IN, source, protocol, icmp_type=icmp_type, tracking=tracking)
